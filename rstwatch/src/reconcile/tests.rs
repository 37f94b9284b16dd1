use super::*;
use crate::{
    event::Socket,
    fixture::{self, NEW, OLD},
};

/// A reset of the host's own accord.
fn active(path: Path, reason: Option<Reason>, socket: Socket) -> Event {
    Event {
        trigger: Trigger::Active {
            path,
            context: Context::Process,
        },
        reason,
        socket: Some(socket),
        ..fixture::unread()
    }
}

/// A reset in answer to a segment with these flags that met a socket in `state`.
fn answer(flags: u8, state: Option<TcpState>, reason: Option<Reason>) -> Event {
    Event {
        segment: Some(fixture::segment(flags, 5)),
        state,
        reason,
        socket: state.map(|_| Socket::default()),
        ..fixture::closed_port()
    }
}

fn lingering(unread: u32) -> Socket {
    Socket {
        linger_s: Some(0),
        unread,
        ..Socket::default()
    }
}

fn with_unread() -> Socket {
    Socket {
        unread: 64,
        ..Socket::default()
    }
}

fn subflow() -> Socket {
    Socket {
        mptcp: true,
        ..Socket::default()
    }
}

#[test]
fn the_kernels_reason_says_what_a_reset_bumps() {
    use CauseId as C;
    use Reason as R;
    use TcpState as S;
    let own = |reason, socket| active(Path::Close, Some(reason), socket);
    let answered = |state, reason| answer(TcpFlags::ACK, state, Some(reason));
    let none = Socket::default();
    let cases = [
        (
            own(R::AbortOnClose, with_unread()),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnClose),
        ),
        (
            own(R::AbortOnClose, with_unread()),
            C::ProcessDied,
            Some(Counter::AbortOnClose),
        ),
        (own(R::AbortOnClose, subflow()), C::Mptcp, None),
        (
            own(R::State, lingering(0)),
            C::LingerAbort,
            Some(Counter::AbortOnData),
        ),
        (
            own(R::DisconnectWithData, lingering(0)),
            C::ProcessDied,
            Some(Counter::AbortOnData),
        ),
        (own(R::State, none), C::Disconnect, None),
        (own(R::State, none), C::ListenerClosed, None),
        (own(R::State, none), C::SocketDestroyed, None),
        (own(R::State, lingering(0)), C::Mptcp, None),
        (own(R::State, none), C::FinWait2Timeout, None),
        (
            own(R::AbortOnLinger, none),
            C::FinWait2Timeout,
            Some(Counter::AbortOnLinger),
        ),
        (
            own(R::AbortOnMemory, none),
            C::OrphanLimit,
            Some(Counter::AbortOnMemory),
        ),
        (
            own(R::KeepaliveTimeout, none),
            C::KeepaliveTimeout,
            Some(Counter::AbortOnTimeout),
        ),
        (
            answered(Some(S::FinWait1), R::AbortOnData),
            C::DataAfterClose,
            Some(Counter::AbortOnData),
        ),
        (
            answered(Some(S::FinWait2), R::AbortOnData),
            C::FinWait2Timeout,
            Some(Counter::AbortOnData),
        ),
        (
            answered(Some(S::Listen), R::InvalidSyn),
            C::AcceptQueueOverflow,
            Some(Counter::EmbryonicRsts),
        ),
        (
            answered(Some(S::SynRecv), R::InvalidSyn),
            C::BadSegment,
            None,
        ),
        // What meets a TIME_WAIT socket has a cause of the same name, and no counter.
        (answered(None, R::TimewaitSocket), C::DataAfterClose, None),
        (answered(None, R::NoSocket), C::DataAfterClose, None),
        (answered(None, R::NoSocket), C::ClosedPort, None),
        (answered(Some(S::Listen), R::Flags), C::HalfOpen, None),
        (own(R::Other("MPTCP_RST_EMPTCP"), subflow()), C::Mptcp, None),
        (fixture::received(S::Established), C::PeerAborted, None),
    ];
    for (event, cause, expected) in cases {
        assert_eq!(bumped_by(&event, cause), expected, "{cause:?} {event:?}");
    }
}

/// On a kernel that names no reason, and on one that leaves it open.
fn check_inferred(cases: &[(Event, CauseId, Option<Counter>)]) {
    for (event, cause, expected) in cases {
        assert_eq!(bumped_by(event, *cause), *expected, "{cause:?} {event:?}");
        let unspecified = Event {
            reason: Some(Reason::NotSpecified),
            ..event.clone()
        };
        assert_eq!(bumped_by(&unspecified, *cause), *expected, "{cause:?}");
    }
}

#[test]
fn without_a_reason_the_cause_says_what_an_abort_bumps() {
    use CauseId as C;
    let own = |path, socket| active(path, None, socket);
    let none = Socket::default();
    let in_close_wait = |socket| Event {
        state: Some(TcpState::CloseWait),
        ..own(Path::Close, socket)
    };
    let in_interrupt = Event {
        trigger: Trigger::Active {
            path: Path::Unknown,
            context: Context::Interrupt,
        },
        ..own(Path::Unknown, none)
    };
    check_inferred(&[
        (
            own(Path::Close, with_unread()),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnClose),
        ),
        (
            own(Path::Close, with_unread()),
            C::ProcessDied,
            Some(Counter::AbortOnClose),
        ),
        (
            own(Path::Close, lingering(0)),
            C::ProcessDied,
            Some(Counter::AbortOnData),
        ),
        (
            own(Path::Close, lingering(0)),
            C::LingerAbort,
            Some(Counter::AbortOnData),
        ),
        (
            own(Path::Close, lingering(64)),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnClose),
        ),
        (
            own(Path::Close, lingering(1)),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnClose),
        ),
        // That byte is the FIN.
        (
            in_close_wait(lingering(1)),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnData),
        ),
        (
            in_close_wait(lingering(2)),
            C::ClosedWithUnreadData,
            Some(Counter::AbortOnClose),
        ),
        (
            own(Path::Mptcp, lingering(0)),
            C::Mptcp,
            Some(Counter::AbortOnData),
        ),
        (own(Path::Mptcp, subflow()), C::Mptcp, None),
        (
            own(Path::Close, none),
            C::FinWait2Timeout,
            Some(Counter::AbortOnLinger),
        ),
        (own(Path::KeepaliveTimer, none), C::FinWait2Timeout, None),
        (in_interrupt, C::FinWait2Timeout, None),
        (
            own(Path::WriteTimer, none),
            C::OrphanLimit,
            Some(Counter::AbortOnMemory),
        ),
        (
            own(Path::KeepaliveTimer, none),
            C::KeepaliveTimeout,
            Some(Counter::AbortOnTimeout),
        ),
        (own(Path::Disconnect, none), C::Disconnect, None),
        (own(Path::ListenerClose, none), C::ListenerClosed, None),
        (own(Path::Destroy, none), C::SocketDestroyed, None),
        (own(Path::Unknown, none), C::Unknown, None),
    ]);
}

#[test]
fn without_a_reason_the_cause_says_what_an_answer_bumps() {
    use CauseId as C;
    use TcpState as S;
    let answered = |flags, state| answer(flags, state, None);
    check_inferred(&[
        (
            answered(TcpFlags::ACK, Some(S::FinWait1)),
            C::DataAfterClose,
            Some(Counter::AbortOnData),
        ),
        (
            answered(TcpFlags::ACK, Some(S::FinWait2)),
            C::FinWait2Timeout,
            Some(Counter::AbortOnData),
        ),
        (answered(TcpFlags::ACK, None), C::DataAfterClose, None),
        (
            answered(TcpFlags::ACK, Some(S::Listen)),
            C::DataAfterClose,
            None,
        ),
        (
            answered(TcpFlags::ACK, Some(S::Listen)),
            C::AcceptQueueOverflow,
            Some(Counter::EmbryonicRsts),
        ),
        (
            answered(TcpFlags::SYN, Some(S::Listen)),
            C::BadSegment,
            Some(Counter::EmbryonicRsts),
        ),
        (
            answered(TcpFlags::ACK, Some(S::Listen)),
            C::BadSegment,
            None,
        ),
        (
            answered(TcpFlags::SYN, Some(S::SynSent)),
            C::BadSegment,
            None,
        ),
        (answered(TcpFlags::SYN, None), C::ClosedPort, None),
    ]);
}

#[test]
fn every_sent_reset_is_in_tcp_out_rsts() {
    let mut traced = Traced::default();
    traced.note(&fixture::unread(), CauseId::ClosedWithUnreadData, 1);
    traced.note(&fixture::closed_port(), CauseId::ClosedPort, 1);
    for counter in Counter::ALL {
        let expected = match counter {
            Counter::OutRsts => 2,
            Counter::AbortOnClose => 1,
            _ => 0,
        };
        assert_eq!(traced.get(counter), expected, "{}", counter.name());
    }
}

fn compared(
    abilities: Abilities,
    counter: Counter,
    growth: Option<(u64, u64)>,
    (low, high): (u64, u64),
) -> Comparison {
    let growth = growth.map(|(low, high)| Bounds::between(low, high));
    *Reconciled::new(abilities, |_| (growth, Bounds::between(low, high))).get(counter)
}

#[test]
fn ranges_decide_as_far_as_they_do_not_overlap() {
    // Growth, traced; difference, whether they agree.
    let cases = [
        (Some((5, 5)), (5, 5), Some(0), Some(true)),
        (Some((4, 6)), (5, 5), Some(0), Some(true)),
        (Some((4, 6)), (4, 6), Some(0), Some(true)),
        (Some((4, 6)), (7, 9), Some(1), Some(false)),
        (Some((4, 6)), (0, 1), Some(-3), Some(false)),
        (Some((4, 6)), (0, 4), None, None),
        (Some((4, 6)), (6, 7), None, None),
        (Some((5, 5)), (0, u64::MAX), None, None),
        (None, (5, 5), None, None),
        (
            Some((u64::MAX, u64::MAX)),
            (0, 0),
            Some(-i64::MAX),
            Some(false),
        ),
        (
            Some((0, 0)),
            (u64::MAX, u64::MAX),
            Some(i64::MAX),
            Some(false),
        ),
        // A counter that was read the wrong way round is a range all the same.
        (Some((6, 4)), (5, 5), Some(0), Some(true)),
    ];
    for (growth, traced, difference, agrees) in cases {
        let comparison = compared(NEW, Counter::AbortOnClose, growth, traced);
        assert_eq!(comparison.difference(), difference, "{comparison:?}");
        assert_eq!(comparison.agrees(), agrees, "{comparison:?}");
    }
}

#[test]
fn known_differences_have_names() {
    use Counter as C;
    let untraced = (Some((5, 5)), (3, 3));
    let uncounted = (Some((3, 3)), (5, 5));
    let agreeing = (Some((3, 3)), (3, 3));
    let cases = [
        (NEW, C::OutRsts, untraced, None),
        (OLD, C::OutRsts, untraced, Some("no-hook-without-socket")),
        (NEW, C::OutRsts, uncounted, Some("answer-without-route")),
        (NEW, C::OutRsts, agreeing, None),
        (NEW, C::AbortOnData, untraced, Some("linger-without-rst")),
        (OLD, C::AbortOnData, untraced, Some("cause-inferred")),
        (NEW, C::AbortOnData, uncounted, None),
        (OLD, C::AbortOnData, uncounted, Some("cause-inferred")),
        (NEW, C::AbortOnClose, untraced, None),
        (OLD, C::AbortOnClose, untraced, Some("cause-inferred")),
        (NEW, C::AbortOnMemory, untraced, Some("orphan-without-rst")),
        (
            NEW,
            C::AbortOnTimeout,
            untraced,
            Some("timeout-without-rst"),
        ),
        (
            OLD,
            C::AbortOnTimeout,
            untraced,
            Some("timeout-without-rst"),
        ),
        (NEW, C::AbortOnTimeout, uncounted, None),
        (NEW, C::AbortOnLinger, untraced, None),
        (OLD, C::AbortOnLinger, uncounted, Some("cause-inferred")),
        (NEW, C::AbortFailed, untraced, Some("rst-not-sent")),
        (NEW, C::EmbryonicRsts, untraced, Some("handshake-reset")),
        (NEW, C::EmbryonicRsts, uncounted, Some("handshake-gone")),
        (NEW, C::EmbryonicRsts, (None, (1, 1)), Some("not-read")),
        (
            NEW,
            C::EmbryonicRsts,
            (Some((5, 5)), (3, 7)),
            Some("detail-missing"),
        ),
    ];
    for (abilities, counter, (growth, traced), expected) in cases {
        let comparison = compared(abilities, counter, growth, traced);
        assert_eq!(comparison.reason(), expected, "{comparison:?}");
    }
}

#[test]
fn each_known_difference_can_be_found() {
    // None stands behind another that always comes first.
    for known in KNOWN {
        let numbers = match known.side {
            Side::Untraced => (Some((5, 5)), (3, 3)),
            Side::Uncounted => (Some((3, 3)), (5, 5)),
        };
        let found = [NEW, OLD].iter().any(|abilities| {
            compared(*abilities, known.counter, numbers.0, numbers.1).known() == Some(known)
        });
        assert!(found, "{known:?}");
    }
}

#[test]
fn there_is_something_to_tell_when_anything_was_counted() {
    let zero = Bounds::default();
    let reconciled =
        |of: &dyn Fn(Counter) -> (Option<Bounds>, Bounds)| Reconciled::new(NEW, of).is_something();
    assert!(!Reconciled::default().is_something());
    assert!(!reconciled(&|_| (Some(zero), Bounds::between(0, 7))));
    for told in Counter::ALL {
        let one = |counter| Bounds::exactly(u64::from(counter == told));
        assert!(reconciled(&|counter| (Some(one(counter)), zero)));
        assert!(reconciled(&|counter| (None, one(counter))));
    }
}

#[test]
fn every_counter_and_difference_is_explained() {
    let page = include_str!("../../../docs/ARCHITECTURE.md");
    let told = |name: &str| page.contains(&format!("`{name}`"));
    for counter in Counter::ALL {
        assert!(told(counter.name()), "{}", counter.name());
    }
    for known in KNOWN {
        assert!(told(known.id), "{}", known.id);
    }
}
