//! Tables for the rules of [`super::super::answers`] that the tables beside this do not have.

use super::*;
use crate::cause::SCAN_PORTS;

const ACK: u8 = TcpFlags::ACK;
const SYN: u8 = TcpFlags::SYN;
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;

/// `event` on a silent kernel.
fn silent(event: Event) -> Event {
    with(event, |event| event.reason = None)
}

/// `event`, whose connection had ended 2 s before, having lasted 1.5 s.
fn after(event: Event, ended: Ended, state: Option<TcpState>) -> Event {
    with(event, |event| {
        event.past = Some(Past {
            closed_ago_ns: Some(2 * SECOND),
            state,
            ended,
            lasted_ns: Some(SECOND * 3 / 2),
        });
        event.owner = Some(fixture::owner(4242, "curl", Via::Connect));
    })
}

fn long_ago(event: Event) -> Event {
    with(event, |event| {
        event.past.as_mut().expect("a past").closed_ago_ns = Some(60 * SECOND);
    })
}

/// A SYN for a port that nginx listened on.
fn listened(closer: Option<Actor>) -> Event {
    with(stray(SYN, 0), |event| {
        event.listener = Some(Box::new(Listening {
            inode: 0,
            process: fixture::process(812, "nginx"),
            age_ns: None,
            ended: closer.map(|closer| ListenerEnd {
                closer,
                ago_ns: 3 * SECOND,
            }),
        }));
    })
}

#[track_caller]
fn sentences(cases: Vec<(Event, &str)>) {
    for (event, sentence) in cases {
        let verdict = classify(&event, &TALKS);
        assert_eq!(summary(&event, &verdict).to_string(), sentence);
    }
}

#[test]
fn a_listener_that_is_gone_is_told_from_one_that_never_was() {
    use CauseId::{BadSegment, ClosedPort, ListenerGone};
    use Confidence::{Certain, Likely};
    let closer = || Some(fixture::actor(812, "nginx"));
    check(vec![
        ("gone", listened(closer()), TALKS, ListenerGone, Certain),
        (
            "gone, silent",
            silent(listened(closer())),
            SILENT,
            ListenerGone,
            Certain,
        ),
        (
            "listens elsewhere",
            listened(None),
            TALKS,
            ClosedPort,
            Certain,
        ),
        ("never was", stray(SYN, 0), TALKS, ClosedPort, Certain),
        (
            "SYN for a handshake under way, silent",
            at_listener(SYN, None, None),
            SILENT,
            BadSegment,
            Likely,
        ),
    ]);
    assert!(
        classify(&listened(None), &TALKS)
            .facts
            .contains(&Fact::Listened {
                comm: fixture::process(812, "nginx").comm,
                pid: 812,
                ended: None
            })
    );
}

#[test]
fn how_a_listener_ended_is_said() {
    let ending = |change: fn(&mut Actor)| {
        let mut actor = fixture::actor(812, "nginx");
        change(&mut actor);
        listened(Some(actor))
    };
    sentences(vec![
        (
            ending(|_| {}),
            "10.0.0.9:51234 tried to connect to port 8080, where nginx[812] listened until it \
             closed it 3.0 s before",
        ),
        (
            ending(|actor| {
                actor.exiting = true;
                actor.signal = Some(11);
            }),
            "10.0.0.9:51234 tried to connect to port 8080, where nginx[812] listened until it \
             was killed by SIGSEGV 3.0 s before",
        ),
        (
            ending(|actor| {
                actor.exiting = true;
                actor.signal = Some(9);
                actor.oom = true;
            }),
            "10.0.0.9:51234 tried to connect to port 8080, where nginx[812] listened until it \
             was killed by the OOM killer 3.0 s before",
        ),
        (
            ending(|actor| {
                actor.exiting = true;
                actor.exit_status = Some(1);
                actor.process.pid = 813;
            }),
            "10.0.0.9:51234 tried to connect to port 8080, where nginx[812] listened until \
             nginx[813] exited with status 1 3.0 s before",
        ),
    ]);
}

#[test]
fn a_scan_is_said_to_be_one() {
    let scan = |ports| with(stray(SYN, 0), |event| event.scan = Some(ports));
    sentences(vec![
        (
            scan(SCAN_PORTS - 1),
            "10.0.0.9:51234 tried to connect to port 8080, where nobody listens",
        ),
        (
            scan(SCAN_PORTS),
            "10.0.0.9:51234 tried to connect to port 8080, where nobody listens: a scan, 10 closed \
             ports within 10 s",
        ),
    ]);
    let facts = |ports| classify(&scan(ports), &TALKS).facts;
    assert!(facts(SCAN_PORTS).contains(&Fact::Scan(SCAN_PORTS)));
    assert!(!facts(SCAN_PORTS - 1).contains(&Fact::Scan(SCAN_PORTS - 1)));
}

#[test]
fn a_segment_for_an_ended_connection_is_judged_by_how_it_ended() {
    use CauseId::{ClosedPort, ConnectionTimedOut, DataAfterClose, LateSegment, LateSynAck};
    use Confidence::{Certain, Likely};
    use Ended::{Aborted, Closed, NeverConnected, Reset, TimedOut};
    let at = |flags, payload, ended| after(stray(flags, payload), ended, None);
    let listener = |ended| after(at_listener(ACK, Some(Reason::Flags), None), ended, None);
    check(vec![
        (
            "timed out",
            at(ACK, 9, TimedOut),
            TALKS,
            ConnectionTimedOut,
            Certain,
        ),
        (
            "timed out, ACK",
            at(ACK, 0, TimedOut),
            TALKS,
            ConnectionTimedOut,
            Certain,
        ),
        (
            "timed out, silent",
            silent(at(ACK, 9, TimedOut)),
            SILENT,
            ConnectionTimedOut,
            Certain,
        ),
        (
            "timed out long ago",
            long_ago(at(ACK, 9, TimedOut)),
            TALKS,
            ConnectionTimedOut,
            Likely,
        ),
        (
            "timed out, a listener answers",
            listener(TimedOut),
            TALKS,
            ConnectionTimedOut,
            Certain,
        ),
        (
            "timed out, a listener answers, silent",
            silent(listener(TimedOut)),
            SILENT,
            ConnectionTimedOut,
            Likely,
        ),
        (
            "talking kernel, no reason",
            silent(at(ACK, 9, TimedOut)),
            TALKS,
            ConnectionTimedOut,
            Likely,
        ),
        (
            "timed out, new SYN",
            at(SYN, 0, TimedOut),
            TALKS,
            ClosedPort,
            Certain,
        ),
        (
            "closed, data",
            at(ACK, 9, Closed),
            TALKS,
            DataAfterClose,
            Likely,
        ),
        (
            "closed, ACK",
            at(ACK, 0, Closed),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "closed, FIN",
            at(ACK | TcpFlags::FIN, 0, Closed),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "reset here, data",
            at(ACK, 9, Aborted),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "reset there, data",
            at(ACK, 9, Reset),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "closed long ago",
            long_ago(at(ACK, 0, Closed)),
            TALKS,
            LateSegment,
            Likely,
        ),
        (
            "second SYN-ACK",
            at(SYN_ACK, 0, Closed),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "given up",
            at(SYN_ACK, 0, NeverConnected),
            TALKS,
            LateSynAck,
            Certain,
        ),
        (
            "given up, silent",
            silent(at(SYN_ACK, 0, NeverConnected)),
            SILENT,
            LateSynAck,
            Certain,
        ),
        (
            "given up, from its state",
            after(stray(SYN_ACK, 0), Closed, Some(TcpState::SynSent)),
            TALKS,
            LateSynAck,
            Certain,
        ),
        (
            "given up, a listener answers",
            after(
                at_listener(SYN_ACK, Some(Reason::Flags), None),
                NeverConnected,
                None,
            ),
            TALKS,
            LateSynAck,
            Certain,
        ),
        (
            "given up, ACK",
            at(ACK, 0, NeverConnected),
            TALKS,
            LateSegment,
            Certain,
        ),
        (
            "listener with a full queue, silent",
            after(at_listener(ACK, None, Some((129, 128))), Closed, None),
            SILENT,
            CauseId::AcceptQueueOverflow,
            Likely,
        ),
    ]);
    sentences(vec![
        (
            at(ACK, 9, TimedOut),
            "10.0.0.9:51234 sent 9 bytes for a connection that had timed out for curl[4242] 2.0 s \
             before",
        ),
        (
            at(ACK, 9, Aborted),
            "10.0.0.9:51234 sent 9 bytes for a connection that curl[4242] had reset 2.0 s before",
        ),
        (
            at(ACK | TcpFlags::FIN, 0, Closed),
            "10.0.0.9:51234 sent a FIN for a connection that curl[4242] had closed 2.0 s before",
        ),
        (
            at(ACK, 0, Reset),
            "10.0.0.9:51234 sent an ACK for a connection that the peer itself had reset 2.0 s \
             before",
        ),
        (
            at(SYN_ACK, 0, NeverConnected),
            "10.0.0.9:51234 accepted a connect that curl[4242] had given up 2.0 s before, after \
             1.5 s",
        ),
    ]);
}

#[test]
fn a_syn_ack_that_nobody_asked_for_is_backscatter() {
    use CauseId::{Backscatter, BadSegment, LateSegment};
    use Confidence::{Certain, Likely};
    let connecting = with(stray(SYN_ACK, 0), |event| {
        event.state = Some(TcpState::SynSent);
        event.reason = Some(Reason::InvalidAckSequence);
        event.socket = Some(Socket::default());
    });
    check(vec![
        ("no trace", stray(SYN_ACK, 0), TALKS, Backscatter, Likely),
        (
            "silent",
            silent(stray(SYN_ACK, 0)),
            SILENT,
            Backscatter,
            Likely,
        ),
        (
            "at a listener",
            at_listener(SYN_ACK, Some(Reason::Flags), None),
            TALKS,
            Backscatter,
            Likely,
        ),
        (
            "at a listener, silent",
            at_listener(SYN_ACK, None, Some((0, 128))),
            SILENT,
            Backscatter,
            Likely,
        ),
        (
            "for another connect",
            connecting,
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "remembered",
            after(stray(SYN_ACK, 0), Ended::Reset, None),
            TALKS,
            LateSegment,
            Certain,
        ),
    ]);
    sentences(vec![(
        stray(SYN_ACK, 0),
        "10.0.0.9:51234 sent a SYN-ACK to port 8080, from where nobody is known to have connected",
    )]);
}

#[test]
fn a_full_accept_queue_is_told_from_a_stray_ack() {
    use CauseId::{AcceptQueueOverflow, BadSegment, HalfOpen, Unknown};
    use Confidence::{Certain, Likely, Possible};
    let invalid = Some(Reason::InvalidSyn);
    let full = Some((129, 128));
    check(vec![
        (
            "full",
            at_listener(ACK, invalid, full),
            TALKS,
            AcceptQueueOverflow,
            Certain,
        ),
        (
            "6.10",
            at_listener(ACK, invalid, full),
            PASSIVE,
            AcceptQueueOverflow,
            Certain,
        ),
        (
            "emptied meanwhile",
            at_listener(ACK, invalid, Some((128, 128))),
            TALKS,
            AcceptQueueOverflow,
            Likely,
        ),
        (
            "queue unknown",
            at_listener(ACK, invalid, None),
            TALKS,
            AcceptQueueOverflow,
            Likely,
        ),
        (
            "silent",
            at_listener(ACK, None, full),
            SILENT,
            AcceptQueueOverflow,
            Likely,
        ),
        (
            "silent, at its limit",
            at_listener(ACK, None, Some((128, 128))),
            SILENT,
            HalfOpen,
            Likely,
        ),
        (
            "full, but a stray ACK",
            at_listener(ACK, Some(Reason::Flags), full),
            TALKS,
            HalfOpen,
            Likely,
        ),
        (
            "full, but a SYN",
            at_listener(SYN, invalid, full),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "no listener",
            with(at_listener(ACK, invalid, full), |event| {
                event.state = Some(TcpState::Established);
            }),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
    sentences(vec![(
        with(at_listener(ACK, invalid, full), |event| {
            event.owner = Some(fixture::owner(812, "nginx", Via::Listen));
        }),
        "the accept queue of nginx[812] on port 8080 is full: 129 connections wait, the limit is 128",
    )]);
}

#[test]
fn segments_that_break_the_protocol_are_named() {
    use CauseId::{BadSegment, DataAfterClose, Mptcp};
    use Confidence::{Certain, Likely};
    let in_state = |flags, state, reason| {
        with(stray(flags, 0), |event| {
            event.state = Some(state);
            event.reason = reason;
            event.socket = Some(Socket::default());
            event.owner = Some(fixture::owner(4242, "curl", Via::Connect));
        })
    };
    let connecting = |reason| in_state(ACK, TcpState::SynSent, reason);
    let bad_ack = Some(Reason::InvalidAckSequence);
    let reuse = |reason| at_time_wait(SYN, 0, reason, TcpState::FinWait2);
    check(vec![
        (
            "connecting",
            connecting(bad_ack),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "connecting, 6.10",
            connecting(bad_ack),
            PASSIVE,
            BadSegment,
            Certain,
        ),
        (
            "connecting, silent",
            connecting(None),
            SILENT,
            BadSegment,
            Certain,
        ),
        (
            "connecting, no reason",
            connecting(None),
            TALKS,
            BadSegment,
            Likely,
        ),
        (
            "timestamp",
            connecting(Some(Reason::Paws)),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "last ACK of a handshake",
            in_state(ACK, TcpState::SynRecv, Some(Reason::AckUnsentData)),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "SYN in a handshake",
            at_listener(SYN, Some(Reason::InvalidSyn), None),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "ports used again",
            reuse(Some(Reason::TimewaitSocket)),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "ports used again, silent",
            reuse(None),
            SILENT,
            BadSegment,
            Certain,
        ),
        (
            "data there",
            at_time_wait(ACK, 9, Some(Reason::TimewaitSocket), TcpState::FinWait2),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "FIN scan",
            stray(TcpFlags::FIN, 0),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "FIN scan, silent",
            silent(stray(TcpFlags::FIN, 0)),
            SILENT,
            BadSegment,
            Certain,
        ),
        (
            "data without ACK",
            stray(TcpFlags::PSH, 9),
            TALKS,
            BadSegment,
            Certain,
        ),
        (
            "MPTCP join",
            at_listener(SYN, Some(Reason::Other("MPTCP_RST_EPROHIBIT")), None),
            TALKS,
            Mptcp,
            Certain,
        ),
    ]);
    sentences(vec![
        (
            connecting(bad_ack),
            "10.0.0.9:51234 sent a segment (ACK) to port 8080 that does not answer the connect of \
             curl[4242], kernel reason TCP_INVALID_ACK_SEQUENCE",
        ),
        (
            reuse(Some(Reason::TimewaitSocket)),
            "10.0.0.9:51234 sent a segment (SYN) to port 8080 that opens anew a connection which is \
             not closed yet, kernel reason TCP_TIMEWAIT_SOCKET",
        ),
        (
            stray(TcpFlags::FIN, 0),
            "10.0.0.9:51234 sent a segment (FIN) to port 8080 that no TCP sends, as scanners do, \
             kernel reason NO_SOCKET",
        ),
        (
            at_listener(SYN, Some(Reason::InvalidSyn), None),
            "10.0.0.9:51234 sent a segment (SYN) to port 8080 that does not fit its handshake, \
             kernel reason INVALID_SYN",
        ),
    ]);
}

#[test]
fn a_fin_that_nobody_waits_for_is_told_from_data_after_close() {
    use CauseId::{DataAfterClose, FinWait2Timeout};
    use Confidence::{Certain, Likely};
    let on_data = Some(Reason::AbortOnData);
    let no_wait = |flags, payload, reason| {
        with(at_closed(TcpState::FinWait1, reason), |event| {
            event.segment = Some(fixture::segment(flags, payload));
            event.socket.as_mut().expect("a socket").no_fin_wait2 = true;
        })
    };
    check(vec![
        (
            "ACK",
            no_wait(ACK, 0, on_data),
            TALKS,
            FinWait2Timeout,
            Certain,
        ),
        (
            "ACK, silent",
            no_wait(ACK, 0, None),
            SILENT,
            FinWait2Timeout,
            Certain,
        ),
        (
            "FIN",
            no_wait(ACK | TcpFlags::FIN, 0, on_data),
            TALKS,
            FinWait2Timeout,
            Likely,
        ),
        (
            "still held",
            with_socket(no_wait(ACK, 0, on_data), |socket| socket.orphan = false),
            TALKS,
            FinWait2Timeout,
            Likely,
        ),
        (
            "data",
            no_wait(ACK, 9, on_data),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "shut down, not closed",
            with_socket(at_closed(TcpState::FinWait2, on_data), |socket| {
                socket.orphan = false;
                socket.held = true;
            }),
            TALKS,
            DataAfterClose,
            Certain,
        ),
    ]);
    sentences(vec![(
        with_socket(at_closed(TcpState::FinWait2, on_data), |socket| {
            socket.orphan = false;
            socket.held = true;
        }),
        "10.0.0.9:51234 sent 10 bytes after an unknown process had shut the connection down",
    )]);
}

#[test]
fn a_host_that_booted_lately_says_so_in_the_sentence() {
    let event = stray(ACK, 0);
    let host = HostFacts {
        uptime: Some(Duration::from_secs(42)),
        ..TALKS
    };
    assert_eq!(
        summary(&event, &classify(&event, &host)).to_string(),
        "10.0.0.9:51234 sent an ACK for a connection to port 8080 that this host does not know: it \
         booted 42 s before"
    );
}
