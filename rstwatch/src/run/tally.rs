//! What the kernel side's tally says, in names.

use std::collections::HashMap;

use rstwatch_common::tally::{NOT_RECEIVED, OF_OWN_ACCORD, RECEIVED, SENT, TallyKey};

use crate::{
    event::{Direction, Reason, TcpState},
    mib::Counter,
    reconcile::{Bounds, Bump},
    sink::summary::Kind,
};

/// The kinds of resets that there were. What seemed to be received and was not is taken off.
pub(super) fn kinds(
    counts: Vec<(TallyKey, u64)>,
    reason: impl Fn(u32) -> Option<Reason>,
) -> Vec<Kind> {
    let mut by_kind: HashMap<TallyKey, u64> = HashMap::new();
    let mut withdrawn = Vec::new();
    for (key, count) in counts {
        if key.direction == NOT_RECEIVED {
            withdrawn.push((key, count));
        } else {
            *by_kind.entry(key).or_default() += count;
        }
    }
    for (mut key, count) in withdrawn {
        key.direction = RECEIVED;
        // Without its port when there was no room for one of the two with it.
        for port in [key.port, 0] {
            key.port = port;
            if let Some(all) = by_kind.get_mut(&key).filter(|all| **all >= count) {
                *all -= count;
                break;
            }
        }
    }
    by_kind
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(key, count)| Kind {
            direction: if key.direction == SENT {
                Direction::Sent
            } else {
                Direction::Received
            },
            reason: (key.reason != u16::MAX)
                .then(|| reason(u32::from(key.reason)))
                .flatten(),
            own_accord: key.path == OF_OWN_ACCORD,
            state: TcpState::from_kernel(key.state),
            port: (key.port != 0).then_some(key.port),
            count,
        })
        .collect()
}

/// How many of all sent resets bump `counter`, as far as their kinds tell.
pub(super) fn bumping(kinds: &[Kind], counter: Counter) -> Bounds {
    let sent = kinds
        .iter()
        .filter(|kind| kind.direction == Direction::Sent);
    sent.fold(Bounds::default(), |sum, kind| {
        sum.plus(match bumps(kind, counter) {
            Some(true) => Bounds::exactly(kind.count),
            Some(false) => Bounds::default(),
            None => Bounds::between(0, kind.count),
        })
    })
}

/// Whether resets of this kind bump `counter`; `None` when some may.
fn bumps(kind: &Kind, counter: Counter) -> Option<bool> {
    let can = match counter {
        Counter::OutRsts => return Some(true),
        // That a RST could not be sent shows nowhere.
        Counter::AbortFailed => return Some(false),
        Counter::AbortOnClose
        | Counter::AbortOnLinger
        | Counter::AbortOnMemory
        | Counter::AbortOnTimeout => kind.own_accord,
        Counter::AbortOnData => kind.state == Some(TcpState::Close),
        Counter::EmbryonicRsts => kind.state == Some(TcpState::Listen),
    };
    match kind.reason.filter(|reason| *reason != Reason::NotSpecified) {
        // The fast close of a multipath connection leaves the state as it is (`mptcp_do_fastclose`),
        // a close with unread data does not.
        Some(Reason::AbortOnClose) => {
            Some(counter == Counter::AbortOnClose && kind.state == Some(TcpState::Close))
        }
        Some(reason) => match Bump::named(reason, kind.state) {
            Bump::Surely(named) => Some(named == counter),
            Bump::Maybe(named) if named == counter => None,
            Bump::Maybe(_) | Bump::Nothing => Some(false),
        },
        None => (!can).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use rstwatch_common::tally::BY_SEGMENT;

    use super::*;

    const KEY: TallyKey = TallyKey {
        port: 80,
        reason: u16::MAX,
        state: 4,
        direction: RECEIVED,
        path: BY_SEGMENT,
        pad: 0,
    };

    fn told(counts: Vec<(TallyKey, u64)>) -> Vec<(Direction, Option<u16>, u64)> {
        let mut told: Vec<_> = kinds(counts, |_| Some(Reason::NoSocket))
            .iter()
            .map(|kind| (kind.direction, kind.port, kind.count))
            .collect();
        told.sort_by_key(|kind| (kind.1, kind.2));
        told
    }

    #[test]
    fn what_was_not_received_is_taken_off() {
        let not = TallyKey {
            direction: NOT_RECEIVED,
            ..KEY
        };
        assert_eq!(
            told(vec![(not, 2), (KEY, 5)]),
            [(Direction::Received, Some(80), 3)]
        );
        assert_eq!(told(vec![(KEY, 2), (not, 2)]), []);
        let elsewhere = TallyKey { port: 0, ..KEY };
        assert_eq!(
            told(vec![(not, 2), (KEY, 1), (elsewhere, 5)]),
            [
                (Direction::Received, None, 3),
                (Direction::Received, Some(80), 1)
            ]
        );
    }

    #[test]
    fn kinds_tell_which_counters_may_have_grown() {
        use Counter as C;
        use Reason as R;
        use TcpState as S;
        const MAY: Bounds = Bounds { low: 0, high: 5 };
        const IS: Bounds = Bounds::exactly(5);
        // Of its own accord or not, the reason, the state; and what grows.
        type Case = (bool, Option<R>, S, &'static [(C, Bounds)]);
        let cases: &[Case] = &[
            (true, Some(R::AbortOnClose), S::Established, &[]),
            (
                true,
                Some(R::AbortOnClose),
                S::Close,
                &[(C::AbortOnClose, IS)],
            ),
            (
                true,
                Some(R::AbortOnLinger),
                S::Close,
                &[(C::AbortOnLinger, IS)],
            ),
            (
                true,
                Some(R::AbortOnMemory),
                S::FinWait1,
                &[(C::AbortOnMemory, IS)],
            ),
            (
                true,
                Some(R::KeepaliveTimeout),
                S::Established,
                &[(C::AbortOnTimeout, IS)],
            ),
            (true, Some(R::State), S::Close, &[(C::AbortOnData, MAY)]),
            (
                true,
                Some(R::DisconnectWithData),
                S::Close,
                &[(C::AbortOnData, MAY)],
            ),
            (
                false,
                Some(R::AbortOnData),
                S::Close,
                &[(C::AbortOnData, IS)],
            ),
            (
                false,
                Some(R::InvalidSyn),
                S::Listen,
                &[(C::EmbryonicRsts, IS)],
            ),
            (false, Some(R::InvalidSyn), S::SynRecv, &[]),
            (false, Some(R::TimewaitSocket), S::TimeWait, &[]),
            (false, None, S::Listen, &[(C::EmbryonicRsts, MAY)]),
            (
                false,
                Some(R::NotSpecified),
                S::Close,
                &[(C::AbortOnData, MAY)],
            ),
            (
                true,
                None,
                S::Close,
                &[
                    (C::AbortOnData, MAY),
                    (C::AbortOnClose, MAY),
                    (C::AbortOnMemory, MAY),
                    (C::AbortOnTimeout, MAY),
                    (C::AbortOnLinger, MAY),
                ],
            ),
        ];
        for (own_accord, reason, state, grows) in cases {
            let sent = Kind {
                direction: Direction::Sent,
                reason: *reason,
                own_accord: *own_accord,
                state: Some(*state),
                port: None,
                count: 5,
            };
            let received = Kind {
                direction: Direction::Received,
                ..sent
            };
            for counter in Counter::of_parts() {
                let expected = grows.iter().find(|(grows, _)| *grows == counter);
                assert_eq!(
                    bumping(&[sent, received], counter),
                    expected.map(|(_, by)| *by).unwrap_or_default(),
                    "{reason:?} {state:?} {}",
                    counter.name()
                );
            }
            assert_eq!(bumping(&[sent, sent], C::OutRsts), Bounds::exactly(10));
        }
    }

    #[test]
    fn kinds_have_names() {
        let sent = TallyKey {
            direction: SENT,
            reason: 1,
            state: 0,
            ..KEY
        };
        let kind = kinds(vec![(sent, 1)], |number| {
            (number == 1).then_some(Reason::NoSocket)
        })[0];
        assert_eq!(kind.reason, Some(Reason::NoSocket));
        assert_eq!((kind.state, kind.own_accord), (None, false));
        let own = TallyKey {
            path: OF_OWN_ACCORD,
            reason: u16::MAX,
            state: 7,
            ..sent
        };
        let kind = kinds(vec![(own, 1)], |_| panic!("there is no reason"))[0];
        assert_eq!((kind.reason, kind.own_accord), (None, true));
        assert_eq!(kind.state, Some(TcpState::Close));
    }
}
