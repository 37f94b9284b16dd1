#![expect(
    clippy::too_many_lines,
    reason = "tables of cases, a line or a few each"
)]

mod aborts;
mod answers;
mod received;

use std::time::Duration;

use proptest::{prelude::*, sample};

use super::*;
use crate::{
    cause::{names_remote_end_alone, summary},
    event::{Actor, Direction, Ended, ListenerEnd, Listening, Past, Peer, Via},
    fixture::{
        self,
        any::{any_event, any_host},
    },
};

const SECOND: u64 = 1_000_000_000;

/// Linux 6.12 and later.
const TALKS: HostFacts = HostFacts {
    uptime: None,
    reasons: Reasons::All,
};
/// Before 6.10.
const SILENT: HostFacts = HostFacts {
    uptime: None,
    reasons: Reasons::None,
};
/// 6.10 and 6.11.
const PASSIVE: HostFacts = HostFacts {
    uptime: None,
    reasons: Reasons::Passive,
};

/// `event` after `change`.
fn with(mut event: Event, change: impl FnOnce(&mut Event)) -> Event {
    change(&mut event);
    event
}

/// `event` after `change` of its socket.
fn with_socket(event: Event, change: impl FnOnce(&mut Socket)) -> Event {
    with(event, |event| {
        change(event.socket.as_mut().expect("a socket"));
    })
}

/// A segment that met no socket.
fn stray(flags: u8, payload: u32) -> Event {
    with(fixture::closed_port(), |event| {
        event.segment = Some(fixture::segment(flags, payload));
    })
}

/// A segment that met a listener.
fn at_listener(flags: u8, reason: Option<Reason>, backlog: Option<(u32, u32)>) -> Event {
    with(stray(flags, 0), |event| {
        event.state = Some(TcpState::Listen);
        event.reason = reason;
        event.socket = Some(Socket {
            backlog,
            held: true,
            ..Socket::default()
        });
    })
}

/// Data for a socket that is closed or shut down, in `state`.
fn at_closed(state: TcpState, reason: Option<Reason>) -> Event {
    with(stray(TcpFlags::ACK | TcpFlags::PSH, 10), |event| {
        event.state = Some(state);
        event.reason = reason;
        event.socket = Some(Socket {
            rcv_shutdown: true,
            send_shutdown: true,
            orphan: true,
            ..Socket::default()
        });
    })
}

fn at_time_wait(flags: u8, payload: u32, reason: Option<Reason>, sub: TcpState) -> Event {
    with(stray(flags, payload), |event| {
        event.state = Some(TcpState::TimeWait);
        event.reason = reason;
        event.time_wait = Some(sub);
    })
}

fn remembered(event: Event, closed_ago_ns: Option<u64>) -> Event {
    with(event, |event| {
        event.past = Some(Past {
            closed_ago_ns,
            state: Some(TcpState::Established),
            ended: Ended::Closed,
            lasted_ns: None,
        });
    })
}

fn active(path: Path, context: Context, reason: Option<Reason>) -> Event {
    with(fixture::unread(), |event| {
        event.trigger = Trigger::Active { path, context };
        event.reason = reason;
    })
}

fn unread(reason: Option<Reason>) -> Event {
    active(Path::Close, Context::Process, reason)
}

fn linger(path: Path, reason: Option<Reason>) -> Event {
    with_socket(active(path, Context::Process, reason), |socket| {
        socket.unread = 0;
        socket.linger_s = Some(0);
    })
}

fn keepalive(path: Path, context: Context, reason: Option<Reason>) -> Event {
    with_socket(active(path, context, reason), |socket| {
        socket.unread = 0;
        socket.rcv_shutdown = false;
        socket.send_shutdown = false;
        socket.keepalive = true;
        socket.probes_out = 3;
    })
}

/// Each case: what it is, the event, the kernel, the expected cause and confidence.
type Row = (&'static str, Event, HostFacts, CauseId, Confidence);

#[track_caller]
fn check(rows: Vec<Row>) {
    for (what, event, host, id, confidence) in rows {
        let verdict = classify(&event, &host);
        assert_eq!(
            (verdict.id, verdict.confidence),
            (id, confidence),
            "{what}: {verdict:?}"
        );
        assert!(!verdict.facts.is_empty(), "{what}: no evidence");
    }
}

#[test]
fn a_syn_that_meets_no_socket_is_a_closed_port() {
    use CauseId::{ClosedPort, Unknown};
    use Confidence::{Certain, Possible};
    let syn = TcpFlags::SYN;
    check(vec![
        ("named", stray(syn, 0), TALKS, ClosedPort, Certain),
        (
            "silent",
            with(stray(syn, 0), |e| e.reason = None),
            SILENT,
            ClosedPort,
            Certain,
        ),
        (
            "with ECN bits",
            stray(syn | 0xc0, 0),
            TALKS,
            ClosedPort,
            Certain,
        ),
        ("fast open", stray(syn, 100), TALKS, ClosedPort, Certain),
        (
            "SYN-ACK",
            stray(syn | TcpFlags::ACK, 0),
            TALKS,
            CauseId::Backscatter,
            Confidence::Likely,
        ),
        (
            "at a listener",
            at_listener(syn, Some(Reason::InvalidSyn), None),
            TALKS,
            CauseId::BadSegment,
            Certain,
        ),
        (
            "no segment",
            with(stray(syn, 0), |e| e.segment = None),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
}

#[test]
fn a_segment_for_nobody_is_half_open() {
    use CauseId::HalfOpen;
    use Confidence::Likely;
    let ack = TcpFlags::ACK;
    let flags = Some(Reason::Flags);
    check(vec![
        ("ACK", stray(ack, 0), TALKS, HalfOpen, Likely),
        (
            "data",
            stray(ack | TcpFlags::PSH, 9),
            TALKS,
            HalfOpen,
            Likely,
        ),
        (
            "FIN",
            stray(ack | TcpFlags::FIN, 0),
            TALKS,
            HalfOpen,
            Likely,
        ),
        (
            "silent",
            with(stray(ack, 0), |e| e.reason = None),
            SILENT,
            HalfOpen,
            Likely,
        ),
        (
            "FIN scan",
            stray(TcpFlags::FIN, 0),
            TALKS,
            CauseId::BadSegment,
            Confidence::Certain,
        ),
        (
            "null scan",
            stray(0, 0),
            TALKS,
            CauseId::BadSegment,
            Confidence::Certain,
        ),
        (
            "listener",
            at_listener(ack, flags, None),
            TALKS,
            HalfOpen,
            Likely,
        ),
        (
            "listener, silent",
            at_listener(ack, None, Some((128, 128))),
            SILENT,
            HalfOpen,
            Likely,
        ),
        (
            "accept queue full",
            at_listener(ack, Some(Reason::InvalidSyn), Some((129, 128))),
            TALKS,
            CauseId::AcceptQueueOverflow,
            Confidence::Certain,
        ),
        (
            "the same, silent",
            at_listener(ack, None, Some((129, 128))),
            SILENT,
            CauseId::AcceptQueueOverflow,
            Likely,
        ),
        (
            "remembered",
            remembered(stray(ack, 0), Some(SECOND)),
            TALKS,
            CauseId::LateSegment,
            Confidence::Certain,
        ),
    ]);
}

#[test]
fn data_for_a_closed_connection_is_data_after_close() {
    use CauseId::{DataAfterClose, HalfOpen, Unknown};
    use Confidence::{Certain, Likely, Possible};
    use TcpState::{CloseWait, Established, FinWait1, FinWait2, TimeWait};
    let ack = TcpFlags::ACK;
    let on_data = Some(Reason::AbortOnData);
    let time_wait = Some(Reason::TimewaitSocket);
    let pure_ack = |no_fin_wait2| {
        with(at_closed(FinWait2, on_data), |event| {
            event.segment = Some(fixture::segment(ack, 0));
            event.socket.as_mut().expect("a socket").no_fin_wait2 = no_fin_wait2;
        })
    };
    let no_segment = |event| with(event, |event: &mut Event| event.segment = None);
    check(vec![
        (
            "named",
            at_closed(FinWait2, on_data),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "named, 6.10",
            at_closed(FinWait1, on_data),
            PASSIVE,
            DataAfterClose,
            Certain,
        ),
        (
            "SHUT_RD, state unseen",
            with(at_closed(CloseWait, on_data), |e| e.state = None),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "FIN out of order",
            pure_ack(false),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "TCP_LINGER2 < 0",
            pure_ack(true),
            TALKS,
            CauseId::FinWait2Timeout,
            Certain,
        ),
        (
            "silent",
            at_closed(FinWait2, None),
            SILENT,
            DataAfterClose,
            Certain,
        ),
        (
            "silent, header unknown",
            no_segment(at_closed(FinWait1, None)),
            SILENT,
            DataAfterClose,
            Likely,
        ),
        (
            "reading side open",
            with_socket(at_closed(FinWait2, None), |s| s.rcv_shutdown = false),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "established",
            at_closed(Established, None),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "talking kernel, no reason",
            at_closed(FinWait2, None),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "other reason",
            at_closed(FinWait2, Some(Reason::TooOldAck)),
            TALKS,
            CauseId::BadSegment,
            Certain,
        ),
        (
            "time wait",
            at_time_wait(ack, 5, time_wait, FinWait2),
            TALKS,
            DataAfterClose,
            Certain,
        ),
        (
            "time wait, silent",
            at_time_wait(ack, 5, None, FinWait2),
            SILENT,
            DataAfterClose,
            Certain,
        ),
        (
            "time wait, header unknown",
            no_segment(at_time_wait(ack, 5, time_wait, FinWait2)),
            TALKS,
            DataAfterClose,
            Likely,
        ),
        (
            "SYN at time wait",
            at_time_wait(TcpFlags::SYN, 0, time_wait, FinWait2),
            TALKS,
            CauseId::BadSegment,
            Certain,
        ),
        (
            "true time wait",
            at_time_wait(ack, 5, None, TimeWait),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "remembered",
            remembered(stray(ack, 5), Some(SECOND)),
            TALKS,
            DataAfterClose,
            Likely,
        ),
        (
            "remembered, a listener answers",
            remembered(
                with(at_listener(ack, Some(Reason::Flags), None), |e| {
                    e.segment = Some(fixture::segment(ack, 5));
                }),
                Some(SECOND),
            ),
            TALKS,
            DataAfterClose,
            Likely,
        ),
        (
            "remembered, close unseen",
            remembered(stray(ack, 5), None),
            TALKS,
            CauseId::LateSegment,
            Likely,
        ),
        (
            "remembered, no data",
            remembered(stray(ack, 0), Some(SECOND)),
            TALKS,
            CauseId::LateSegment,
            Certain,
        ),
        ("not remembered", stray(ack, 5), TALKS, HalfOpen, Likely),
    ]);
}

#[test]
fn unread_bytes_at_close_are_named() {
    use CauseId::{ClosedWithUnreadData, LingerAbort, Unknown};
    use Confidence::{Certain, Likely, Possible};
    let on_close = Some(Reason::AbortOnClose);
    let no_stack = |event| {
        with(event, |event: &mut Event| {
            event.trigger = Trigger::Active {
                path: Path::Unknown,
                context: Context::Unknown,
            };
        })
    };
    let lingering = |event| with_socket(event, |socket: &mut Socket| socket.linger_s = Some(0));
    check(vec![
        (
            "named",
            unread(on_close),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "named, no stack",
            no_stack(unread(on_close)),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "named, no socket",
            with(unread(on_close), |e| e.socket = None),
            TALKS,
            ClosedWithUnreadData,
            Likely,
        ),
        (
            "named, SO_LINGER 0",
            lingering(unread(on_close)),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "fast close of MPTCP",
            with_socket(unread(on_close), |s| s.mptcp = true),
            TALKS,
            CauseId::Mptcp,
            Certain,
        ),
        (
            "silent",
            unread(None),
            SILENT,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "6.11",
            unread(Some(Reason::NotSpecified)),
            PASSIVE,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "silent, no stack",
            no_stack(unread(None)),
            SILENT,
            ClosedWithUnreadData,
            Likely,
        ),
        (
            "silent, no stack, not shut down",
            with_socket(no_stack(unread(None)), |s| s.rcv_shutdown = false),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "silent, in a timer",
            active(Path::Unknown, Context::Interrupt, None),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "silent, SO_LINGER 0",
            lingering(unread(None)),
            SILENT,
            ClosedWithUnreadData,
            Likely,
        ),
        (
            "silent, orphan",
            with_socket(unread(None), |s| s.orphan = true),
            SILENT,
            CauseId::OrphanLimit,
            Certain,
        ),
        (
            "silent, MPTCP",
            with_socket(unread(None), |s| s.mptcp = true),
            SILENT,
            CauseId::Mptcp,
            Likely,
        ),
        (
            "silent, nothing unread",
            with_socket(unread(None), |s| s.unread = 0),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "talking kernel, no reason",
            unread(None),
            TALKS,
            ClosedWithUnreadData,
            Likely,
        ),
        (
            "disconnect",
            active(Path::Disconnect, Context::Process, None),
            SILENT,
            CauseId::Disconnect,
            Certain,
        ),
        (
            "listener closed",
            active(Path::ListenerClose, Context::Process, None),
            SILENT,
            CauseId::ListenerClosed,
            Certain,
        ),
        (
            "destroyed",
            active(Path::Destroy, Context::Process, None),
            SILENT,
            CauseId::SocketDestroyed,
            Certain,
        ),
        (
            "TCP_STATE with SO_LINGER 0",
            lingering(unread(Some(Reason::State))),
            TALKS,
            LingerAbort,
            Certain,
        ),
    ]);
}

#[test]
fn a_close_with_linger_zero_is_named() {
    use CauseId::{LingerAbort, Unknown};
    use Confidence::{Certain, Likely, Possible};
    let state = Some(Reason::State);
    check(vec![
        (
            "named",
            linger(Path::Close, state),
            TALKS,
            LingerAbort,
            Certain,
        ),
        (
            "from CLOSING",
            linger(Path::Close, Some(Reason::DisconnectWithData)),
            TALKS,
            LingerAbort,
            Certain,
        ),
        (
            "no stack",
            linger(Path::Unknown, state),
            TALKS,
            LingerAbort,
            Likely,
        ),
        (
            "silent",
            linger(Path::Close, None),
            SILENT,
            LingerAbort,
            Certain,
        ),
        (
            "6.11",
            linger(Path::Close, Some(Reason::NotSpecified)),
            PASSIVE,
            LingerAbort,
            Certain,
        ),
        (
            "silent, no stack",
            linger(Path::Unknown, None),
            SILENT,
            LingerAbort,
            Likely,
        ),
        (
            "talking kernel, no reason",
            linger(Path::Close, None),
            TALKS,
            LingerAbort,
            Likely,
        ),
        (
            "linger 5 s",
            with_socket(linger(Path::Close, state), |s| s.linger_s = Some(5)),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "linger off",
            with_socket(linger(Path::Close, state), |s| s.linger_s = None),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "not shut down",
            with_socket(linger(Path::Close, state), |s| s.send_shutdown = false),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "disconnect",
            linger(Path::Disconnect, state),
            TALKS,
            CauseId::Disconnect,
            Certain,
        ),
        (
            "destroyed",
            linger(Path::Destroy, state),
            TALKS,
            CauseId::SocketDestroyed,
            Certain,
        ),
        (
            "listener closed",
            linger(Path::ListenerClose, state),
            TALKS,
            CauseId::ListenerClosed,
            Certain,
        ),
        (
            "TCP_LINGER2",
            linger(Path::Close, Some(Reason::AbortOnLinger)),
            TALKS,
            CauseId::FinWait2Timeout,
            Certain,
        ),
        (
            "MPTCP",
            with_socket(linger(Path::Close, None), |s| s.mptcp = true),
            SILENT,
            CauseId::Mptcp,
            Likely,
        ),
    ]);
}

#[test]
fn unanswered_keepalive_is_named() {
    use CauseId::{KeepaliveTimeout, Unknown};
    use Confidence::{Certain, Likely, Possible};
    use Context::{Interrupt, Process};
    let timeout = Some(Reason::KeepaliveTimeout);
    let timer = || keepalive(Path::KeepaliveTimer, Interrupt, None);
    check(vec![
        (
            "named",
            keepalive(Path::KeepaliveTimer, Interrupt, timeout),
            TALKS,
            KeepaliveTimeout,
            Certain,
        ),
        (
            "named, no stack",
            keepalive(Path::Unknown, Interrupt, timeout),
            TALKS,
            KeepaliveTimeout,
            Certain,
        ),
        ("silent", timer(), SILENT, KeepaliveTimeout, Certain),
        ("6.11", timer(), PASSIVE, KeepaliveTimeout, Certain),
        (
            "silent, no stack",
            keepalive(Path::Unknown, Interrupt, None),
            SILENT,
            KeepaliveTimeout,
            Likely,
        ),
        (
            "talking kernel, no reason",
            timer(),
            TALKS,
            KeepaliveTimeout,
            Likely,
        ),
        (
            "silent, process context",
            keepalive(Path::Unknown, Process, None),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "FIN_WAIT2 orphan",
            with_socket(timer(), |s| s.orphan = true),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "no probe",
            with_socket(timer(), |s| s.probes_out = 0),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "no keepalive",
            with_socket(timer(), |s| s.keepalive = false),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "out of memory",
            keepalive(Path::WriteTimer, Interrupt, Some(Reason::AbortOnMemory)),
            TALKS,
            CauseId::OrphanLimit,
            Certain,
        ),
        (
            "ss -K",
            keepalive(Path::Destroy, Process, None),
            SILENT,
            CauseId::SocketDestroyed,
            Certain,
        ),
    ]);
}

#[test]
fn a_received_reset_is_judged_by_state_and_silence() {
    use CauseId::{PeerAborted, PeerGone, Refused, ResetDuringClose, Unknown};
    use Confidence::{Certain, Likely, Possible};
    use TcpState::{
        CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent,
    };
    let received = fixture::received;
    let idle = |state, rx, tx, ack| {
        with_socket(received(state), |socket| {
            socket.idle_rx_ns = rx;
            socket.idle_tx_ns = tx;
            socket.idle_ack_ns = ack;
            socket.age_ns = Some(4_000 * SECOND);
        })
    };
    let s = |seconds: u64| Some(seconds * SECOND);
    check(vec![
        ("connect", received(SynSent), TALKS, Refused, Certain),
        (
            "connect, silent",
            received(SynSent),
            SILENT,
            Refused,
            Certain,
        ),
        (
            "connect, no socket fields",
            with(received(SynSent), |e| e.socket = None),
            TALKS,
            Refused,
            Certain,
        ),
        (
            "answer to data",
            with_socket(received(CloseWait), |s| s.unacked = 9),
            TALKS,
            PeerGone,
            Likely,
        ),
        (
            "just sent",
            idle(CloseWait, s(9), Some(1), None),
            TALKS,
            PeerGone,
            Likely,
        ),
        (
            "sent long ago",
            idle(CloseWait, s(9), s(9), None),
            TALKS,
            PeerGone,
            Possible,
        ),
        ("never sent", received(CloseWait), TALKS, PeerGone, Possible),
        (
            "FIN_WAIT1",
            received(FinWait1),
            TALKS,
            ResetDuringClose,
            Certain,
        ),
        (
            "FIN_WAIT2",
            received(FinWait2),
            TALKS,
            ResetDuringClose,
            Certain,
        ),
        (
            "CLOSING",
            received(Closing),
            TALKS,
            ResetDuringClose,
            Certain,
        ),
        (
            "LAST_ACK",
            received(LastAck),
            TALKS,
            ResetDuringClose,
            Certain,
        ),
        (
            "just connected",
            received(Established),
            TALKS,
            PeerAborted,
            Likely,
        ),
        (
            "active",
            idle(Established, s(1), s(0), s(1)),
            TALKS,
            PeerAborted,
            Likely,
        ),
        (
            "download",
            idle(Established, s(0), s(300), s(300)),
            TALKS,
            PeerAborted,
            Likely,
        ),
        (
            "upload",
            idle(Established, None, s(0), s(1)),
            TALKS,
            PeerAborted,
            Likely,
        ),
        (
            "answer after silence",
            idle(Established, s(350), s(0), s(350)),
            TALKS,
            PeerAborted,
            Possible,
        ),
        (
            "at the limit",
            idle(Established, s(5), s(0), s(5)),
            TALKS,
            PeerAborted,
            Possible,
        ),
        (
            "nothing known",
            with(received(Established), |e| e.socket = None),
            TALKS,
            PeerAborted,
            Possible,
        ),
        (
            "handshake",
            received(SynRecv),
            TALKS,
            CauseId::HandshakeReset,
            Certain,
        ),
        (
            "state unseen",
            with(received(SynSent), |e| e.state = None),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
}

#[test]
fn what_no_rule_knows_stays_unknown_with_its_evidence() {
    let odd = with_socket(unread(Some(Reason::State)), |socket| {
        socket.linger_s = Some(5);
    });
    let verdict = classify(&odd, &TALKS);
    assert_eq!(verdict.id, CauseId::Unknown);
    assert_eq!(
        verdict.facts.as_slice(),
        [
            Fact::Reason(Reason::State),
            Fact::Path(Path::Close),
            Fact::State(TcpState::Established),
            Fact::Unread(64),
            Fact::Linger(5),
        ]
    );
}

#[test]
fn a_host_that_booted_lately_says_so() {
    let host = |seconds| HostFacts {
        uptime: Some(Duration::from_secs(seconds)),
        ..TALKS
    };
    let ack = stray(TcpFlags::ACK, 0);
    assert!(classify(&ack, &host(42)).facts.contains(&Fact::Booted(42)));
    assert!(
        !classify(&ack, &host(600))
            .facts
            .contains(&Fact::Booted(600))
    );
}

#[test]
fn summaries_name_the_process_and_the_numbers() {
    let killed = |signal, event| {
        with(event, |event: &mut Event| {
            let actor = event.actor.as_mut().expect("an actor");
            actor.exiting = true;
            actor.signal = signal;
        })
    };
    let nameless = |event| {
        with(event, |event: &mut Event| {
            event.owner = None;
            event.actor = None;
        })
    };
    let named = |event| {
        with(event, |event: &mut Event| {
            event.owner = fixture::unread().owner;
        })
    };
    let cases = [
        (
            fixture::closed_port(),
            "10.0.0.9:51234 tried to connect to port 8080, where nobody listens",
        ),
        (
            stray(TcpFlags::ACK, 0),
            "10.0.0.9:51234 sent an ACK for a connection to port 8080 that this host does not know",
        ),
        (
            stray(TcpFlags::ACK | TcpFlags::FIN, 0),
            "10.0.0.9:51234 sent a FIN for a connection to port 8080 that this host does not know",
        ),
        (
            stray(TcpFlags::ACK, 1),
            "10.0.0.9:51234 sent 1 byte for a connection to port 8080 that this host does not know",
        ),
        (
            named(at_closed(TcpState::FinWait2, Some(Reason::AbortOnData))),
            "10.0.0.9:51234 sent 10 bytes after nginx[812] had closed the connection",
        ),
        (
            at_closed(TcpState::FinWait2, Some(Reason::AbortOnData)),
            "10.0.0.9:51234 sent 10 bytes after an unknown process had closed the connection",
        ),
        (
            fixture::unread(),
            "nginx[812] closed the connection with 64 bytes still unread",
        ),
        (
            killed(Some(9), fixture::unread()),
            "nginx[812] was killed by SIGKILL with the connection to 10.0.0.9:51234 open, \
             64 bytes still unread",
        ),
        (
            killed(None, fixture::unread()),
            "nginx[812] exited with 64 bytes still unread",
        ),
        (
            nameless(fixture::unread()),
            "an unknown process closed the connection with 64 bytes still unread",
        ),
        (
            with(fixture::unread(), |event| {
                event.actor.as_mut().expect("an actor").kernel_thread = true;
            }),
            "nginx[812] closed the connection with 64 bytes still unread",
        ),
        (
            with_socket(linger(Path::Close, Some(Reason::State)), |socket| {
                socket.unacked = 7;
            }),
            "nginx[812] closed the connection with SO_LINGER 0, 7 bytes not acknowledged",
        ),
        (
            killed(Some(11), linger(Path::Close, Some(Reason::State))),
            "nginx[812] was killed by SIGSEGV with the connection to 10.0.0.9:51234 open, SO_LINGER 0",
        ),
        (
            keepalive(
                Path::KeepaliveTimer,
                Context::Interrupt,
                Some(Reason::KeepaliveTimeout),
            ),
            "10.0.0.9:51234 answered none of 3 keepalive probes of nginx[812] and was silent for 100 ms",
        ),
        (
            fixture::received(TcpState::SynSent),
            "10.0.0.9:443 refused the connection of curl[4242]",
        ),
        (
            with_socket(fixture::received(TcpState::CloseWait), |socket| {
                socket.unacked = 18;
            }),
            "10.0.0.9:443 had closed its side when curl[4242] sent more, \
             18 bytes not acknowledged",
        ),
        (
            fixture::received(TcpState::LastAck),
            "10.0.0.9:443 reset the connection after curl[4242] had closed it",
        ),
        (
            with_socket(fixture::received(TcpState::Established), |socket| {
                socket.idle_rx_ns = Some(350 * SECOND);
                socket.unacked = 3;
            }),
            "10.0.0.9:443 reset the connection with curl[4242], last heard 350 s before, \
             3 bytes not acknowledged",
        ),
        (
            fixture::received(TcpState::SynRecv),
            "10.0.0.9:443 reset its unfinished handshake with curl[4242]",
        ),
        (
            active(Path::Destroy, Context::Process, Some(Reason::State)),
            "nginx[812] destroyed the connection of nginx[812] with 10.0.0.9:51234",
        ),
    ];
    for (event, sentence) in cases {
        let verdict = classify(&event, &TALKS);
        assert_eq!(summary(&event, &verdict).to_string(), sentence);
    }
}

#[test]
fn how_a_process_ended_is_evidence() {
    let mut event = fixture::unread();
    let actor = event.actor.as_mut().expect("an actor");
    actor.exiting = true;
    assert!(
        classify(&event, &TALKS)
            .facts
            .contains(&Fact::Ending(End::Exited(None)))
    );
    event.actor.as_mut().expect("an actor").signal = Some(9);
    assert!(
        classify(&event, &TALKS)
            .facts
            .contains(&Fact::Ending(End::Killed(9)))
    );
    // A signal that was only pending did not end the process.
    event.actor.as_mut().expect("an actor").exiting = false;
    assert!(
        !classify(&event, &TALKS)
            .facts
            .contains(&Fact::Ending(End::Killed(9)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_event_makes_it_fail_and_every_verdict_has_a_sentence(
        event in any_event(),
        host in any_host(),
    ) {
        let verdict = classify(&event, &host);
        prop_assert!(!summary(&event, &verdict).to_string().is_empty());
        for fact in &verdict.facts {
            prop_assert!(!fact.to_string().contains('\n'));
        }
    }

    #[test]
    fn of_an_opening_all_rules_say_what_its_own_say(
        mut event in any_event(),
        host in any_host(),
        flags in sample::select(vec![TcpFlags::SYN, TcpFlags::SYN | TcpFlags::PSH]),
        reason in sample::select(vec![None, Some(Reason::NotSpecified), Some(Reason::NoSocket)]),
    ) {
        event.trigger = Trigger::Segment;
        event.segment = Some(fixture::segment(flags, 0));
        event.reason = reason;
        (event.socket, event.state, event.time_wait) = (None, None, None);
        let case = Case { event: &event, host: &host };
        prop_assert!(case.is_stray_opening());
        let mut verdict = Verdict::default();
        prop_assert!(crate::cause::rules::answers::RULES.iter().any(|rule| rule(&case, &mut verdict).is_some()));
        prop_assert_eq!(verdict, classify(&event, &host));
    }

    #[test]
    fn a_sentence_names_no_more_than_is_said_of_it(
        mut one in any_event(),
        mut other in any_event(),
        host in any_host(),
    ) {
        for event in [&mut one, &mut other] {
            event.trigger = Trigger::Received;
            event.direction = Direction::Received;
            event.state = Some(TcpState::SynSent);
        }
        other.local.port = 1;
        (other.owner, other.peer) = (one.owner.clone(), one.peer.clone());
        let verdicts = [classify(&one, &host), classify(&other, &host)];
        prop_assert!(verdicts.iter().all(|verdict| names_remote_end_alone(verdict.id)));
        prop_assert_eq!(
            summary(&one, &verdicts[0]).to_string(),
            summary(&other, &verdicts[1]).to_string()
        );
    }

    #[test]
    fn less_evidence_never_makes_a_verdict_certain(event in any_event(), host in any_host()) {
        let mut event = event;
        // A kernel that names no reason gives none, and a socket is what has a state, of which
        // TIME_WAIT has one only. (That there is neither is what says that a segment met no socket.)
        if (Case { event: &event, host: &host }).is_silent() {
            event.reason = None;
        }
        if event.socket.is_none() && event.time_wait.is_none() {
            event.state = None;
        }
        if event.time_wait.is_some() {
            event.state = Some(TcpState::TimeWait);
        }
        let before = classify(&event, &host);
        let mut poorer = vec![
            ("reason", with(event.clone(), |event| event.reason = None)),
            ("state", with(event.clone(), |event| event.state = None)),
            ("segment", with(event.clone(), |event| event.segment = None)),
            ("path", with(event.clone(), |event| {
                if let Trigger::Active { path, .. } = &mut event.trigger {
                    *path = Path::Unknown;
                }
            })),
            ("context", with(event.clone(), |event| {
                if let Trigger::Active { context, .. } = &mut event.trigger {
                    *context = Context::Unknown;
                }
            })),
            ("past", with(event.clone(), |event| event.past = None)),
            ("time of the past", with(event.clone(), |event| {
                if let Some(past) = &mut event.past {
                    past.closed_ago_ns = None;
                }
            })),
            ("listener", with(event.clone(), |event| event.listener = None)),
            ("actor", with(event.clone(), |event| event.actor = None)),
            ("owner", with(event.clone(), |event| event.owner = None)),
            ("peer", with(event.clone(), |event| event.peer = None)),
            ("scan", with(event.clone(), |event| event.scan = None)),
        ];
        if event.trigger != Trigger::Segment || event.state.is_some() {
            poorer.push(("socket", with(event.clone(), |event| event.socket = None)));
        }
        for (field, poor) in poorer {
            let after = classify(&poor, &host);
            prop_assert!(
                after.confidence < Confidence::Certain || before.confidence == Confidence::Certain,
                "without {}: {:?}, before: {:?}", field, after, before
            );
        }
    }
}
