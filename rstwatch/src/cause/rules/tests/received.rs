//! Tables for the rules of [`super::super::received`] that the tables beside this do not have.

use super::*;
use crate::cause::idle;

/// In ESTABLISHED: the peer was silent for so many milliseconds before data was sent, which was
/// 20 ms before the RST.
fn after_silence(ms: u64) -> Event {
    with_socket(fixture::received(TcpState::Established), |socket| {
        socket.idle_rx_ns = Some((ms + 20) * 1_000_000);
        socket.idle_ack_ns = Some((ms + 20) * 1_000_000);
        socket.idle_tx_ns = Some(20_000_000);
        socket.unacked = 18;
    })
}

fn on_this_host(event: Event, cause: &'static str, actor: Option<Actor>) -> Event {
    with(event, |event| {
        event.peer = Some(Box::new(Peer {
            owner: Some(fixture::owner(812, "nginx", Via::Listen)),
            actor,
            cause,
        }));
    })
}

#[test]
fn an_answer_after_silence_is_an_idle_drop() {
    use CauseId::{IdleDrop, PeerAborted};
    use Confidence::{Likely, Possible};
    let change = |change: fn(&mut Socket)| with_socket(after_silence(350_000), change);
    check(vec![
        (
            "a known limit",
            after_silence(350_000),
            TALKS,
            IdleDrop,
            Likely,
        ),
        (
            "silent kernel",
            after_silence(350_000),
            SILENT,
            IdleDrop,
            Likely,
        ),
        (
            "a long silence",
            after_silence(1_000_000),
            TALKS,
            IdleDrop,
            Likely,
        ),
        ("a minute", after_silence(63_000), TALKS, IdleDrop, Likely),
        (
            "a short silence",
            after_silence(20_000),
            TALKS,
            IdleDrop,
            Possible,
        ),
        ("5 s", after_silence(5_000), TALKS, IdleDrop, Likely),
        ("active", after_silence(4_000), TALKS, PeerAborted, Likely),
        (
            "nothing sent",
            change(|socket| {
                socket.idle_tx_ns = None;
                socket.unacked = 0;
            }),
            TALKS,
            PeerAborted,
            Possible,
        ),
        (
            "acknowledged",
            change(|socket| socket.unacked = 0),
            TALKS,
            PeerAborted,
            Possible,
        ),
        (
            "sent long before",
            change(|socket| socket.idle_tx_ns = Some(2 * SECOND)),
            TALKS,
            PeerAborted,
            Possible,
        ),
    ]);
    let event = after_silence(350_000);
    let verdict = classify(&event, &TALKS);
    let limit = idle::limit(350 * SECOND).expect("a limit");
    assert!(verdict.facts.contains(&Fact::Idle(350 * SECOND)));
    assert!(verdict.facts.contains(&Fact::IdleLimit(limit)));
    assert_eq!(
        summary(&event, &verdict).to_string(),
        "10.0.0.9:443 answered curl[4242] with a reset after 350 s of silence, 18 bytes not \
         acknowledged"
    );
}

#[test]
fn the_silence_before_a_fin_may_be_a_limit_of_the_peer() {
    let event = with_socket(fixture::received(TcpState::CloseWait), |socket| {
        socket.idle_rx_ns = Some(80 * SECOND);
        socket.idle_ack_ns = Some(5 * SECOND);
        socket.unacked = 18;
    });
    let limit = idle::limit(75 * SECOND).expect("a limit");
    assert!(
        classify(&event, &TALKS)
            .facts
            .contains(&Fact::IdleLimit(limit))
    );
}

#[test]
fn a_peer_on_this_host_makes_the_verdict_certain_and_is_named() {
    use CauseId::{IdleDrop, PeerAborted, PeerGone, Refused, Unknown};
    use Confidence::{Certain, Possible};
    let received = fixture::received;
    let known = |event| on_this_host(event, "linger-abort", Some(fixture::actor(812, "nginx")));
    check(vec![
        (
            "established",
            known(received(TcpState::Established)),
            TALKS,
            PeerAborted,
            Certain,
        ),
        (
            "refused",
            known(received(TcpState::SynSent)),
            TALKS,
            Refused,
            Certain,
        ),
        (
            "gone",
            on_this_host(received(TcpState::CloseWait), "data-after-close", None),
            TALKS,
            PeerGone,
            Certain,
        ),
        (
            "it aborted after its FIN",
            known(received(TcpState::CloseWait)),
            TALKS,
            PeerAborted,
            Certain,
        ),
        (
            "it had forgotten the connection",
            on_this_host(after_silence(350_000), "half-open", None),
            TALKS,
            IdleDrop,
            Certain,
        ),
        (
            "it had not",
            known(after_silence(350_000)),
            TALKS,
            PeerAborted,
            Certain,
        ),
        (
            "state unseen",
            known(with(received(TcpState::SynSent), |event| {
                event.state = None;
            })),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
    let cases = [
        (
            known(received(TcpState::LastAck)),
            "10.0.0.9:443 reset the connection after curl[4242] had closed it; nginx[812] sent it: \
             linger-abort",
        ),
        (
            on_this_host(
                received(TcpState::LastAck),
                "socket-destroyed",
                Some(fixture::actor(99, "ss")),
            ),
            "10.0.0.9:443 reset the connection after curl[4242] had closed it; ss[99] sent it for \
             nginx[812]: socket-destroyed",
        ),
        (
            with(known(received(TcpState::SynSent)), |event| {
                let peer = event.peer.as_mut().expect("a peer");
                peer.owner = None;
                peer.actor = None;
                peer.cause = "closed-port";
            }),
            "10.0.0.9:443 refused the connection of curl[4242]; this host sent it: closed-port",
        ),
    ];
    for (event, sentence) in cases {
        let verdict = classify(&event, &TALKS);
        assert_eq!(summary(&event, &verdict).to_string(), sentence);
        assert!(!verdict.facts.contains(&Fact::HostOrFirewall));
        assert!(matches!(verdict.facts[0], Fact::Peer(_)));
    }
}
