//! What was traced, held against the kernel's counters: which counter a reset bumps, and what a
//! difference between the two means.
//!
//! Everything here is a function of values. The counters are read in `netns`, put beside what was
//! traced in `run`, and shown in `sink`.

use crate::{
    cause::{Abilities, CauseId, Reasons},
    event::{Context, Direction, Event, Path, Reason, TcpFlags, TcpState, Trigger},
    mib::Counter,
};

/// A number of which only this is known: at least, and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub low: u64,
    /// At most.
    pub high: u64,
}

impl Bounds {
    /// Between two numbers, whichever is the lower one.
    pub fn between(one: u64, other: u64) -> Self {
        Self {
            low: one.min(other),
            high: one.max(other),
        }
    }

    /// A number that is known.
    pub const fn exactly(number: u64) -> Self {
        Self {
            low: number,
            high: number,
        }
    }

    /// The number, when it is known.
    pub fn exact(self) -> Option<u64> {
        (self.low == self.high).then_some(self.low)
    }

    /// The sum with another.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            high: self.high.saturating_add(other.high),
        }
    }
}

/// What the kernel's reason alone says of the counter that a reset bumps besides `TcpOutRsts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bump {
    /// None.
    Nothing,
    /// This one.
    Surely(Counter),
    /// This one or none: the reason stands for several paths in the kernel.
    Maybe(Counter),
}

impl Bump {
    /// For a reset with this reason that met a socket in `state` (`include/net/rstreason.h` and where
    /// its names stand in `net/ipv4`, 6.12 to 7.2).
    pub fn named(reason: Reason, state: Option<TcpState>) -> Self {
        match reason {
            // The fast close of a multipath connection says the same, and bumps a counter of its own
            // (`mptcp_do_fastclose`).
            Reason::AbortOnClose => Self::Maybe(Counter::AbortOnClose),
            Reason::AbortOnData => Self::Surely(Counter::AbortOnData),
            Reason::AbortOnLinger => Self::Surely(Counter::AbortOnLinger),
            Reason::AbortOnMemory => Self::Surely(Counter::AbortOnMemory),
            Reason::KeepaliveTimeout => Self::Surely(Counter::AbortOnTimeout),
            // Of a fast open's child, in SYN_RECV, it is not counted.
            Reason::InvalidSyn if state == Some(TcpState::Listen) => {
                Self::Surely(Counter::EmbryonicRsts)
            }
            // What `tcp_disconnect` says, whoever calls it: a close with `SO_LINGER` 0, counted by
            // `__tcp_close`, or `connect(AF_UNSPEC)`, a listener's end, `tcp_abort`.
            Reason::State | Reason::DisconnectWithData => Self::Maybe(Counter::AbortOnData),
            _ => Self::Nothing,
        }
    }
}

/// Which of the kernel's counters this reset bumps besides `TcpOutRsts`, if any.
///
/// Where the kernel names its reason that decides, and the cause where one reason stands for several
/// paths; where it names none, the cause and its evidence do.
pub fn bumped_by(event: &Event, cause: CauseId) -> Option<Counter> {
    if event.direction != Direction::Sent {
        return None;
    }
    let reason = match event.reason {
        None | Some(Reason::NotSpecified) => return inferred(event, cause),
        Some(reason) => reason,
    };
    match Bump::named(reason, event.state) {
        Bump::Nothing => None,
        Bump::Surely(counter) => Some(counter),
        Bump::Maybe(counter @ Counter::AbortOnClose) => {
            (!event.socket.is_some_and(|socket| socket.mptcp)).then_some(counter)
        }
        Bump::Maybe(counter) => {
            matches!(cause, CauseId::LingerAbort | CauseId::ProcessDied).then_some(counter)
        }
    }
}

/// The counter, on a kernel that names no reason.
fn inferred(event: &Event, cause: CauseId) -> Option<Counter> {
    let socket = event.socket.unwrap_or_default();
    let lingers = socket.linger_s == Some(0);
    let met_listener = event.state == Some(TcpState::Listen);
    match (cause, event.trigger) {
        (
            CauseId::ClosedWithUnreadData | CauseId::LingerAbort | CauseId::ProcessDied,
            Trigger::Active { .. },
        ) => {
            // The peer's FIN stands in the receive queue like a byte, and is none for the kernel.
            let only_fin = socket.unread == 1 && event.state == Some(TcpState::CloseWait);
            Some(if lingers && (socket.unread == 0 || only_fin) {
                Counter::AbortOnData
            } else {
                Counter::AbortOnClose
            })
        }
        // Until 6.12 a fast close was the close of a subflow with this option.
        (CauseId::Mptcp, Trigger::Active { .. }) => lingers.then_some(Counter::AbortOnData),
        // Neither TIME_WAIT nor a connection that is remembered has a socket any more.
        (CauseId::DataAfterClose, Trigger::Segment) => {
            (event.socket.is_some() && !met_listener).then_some(Counter::AbortOnData)
        }
        (CauseId::FinWait2Timeout, Trigger::Segment) => Some(Counter::AbortOnData),
        (CauseId::FinWait2Timeout, Trigger::Active { path, context }) => {
            let in_timer = path == Path::KeepaliveTimer || context == Context::Interrupt;
            (!in_timer).then_some(Counter::AbortOnLinger)
        }
        (CauseId::OrphanLimit, Trigger::Active { .. }) => Some(Counter::AbortOnMemory),
        (CauseId::KeepaliveTimeout, Trigger::Active { .. }) => Some(Counter::AbortOnTimeout),
        (CauseId::AcceptQueueOverflow, Trigger::Segment) => Some(Counter::EmbryonicRsts),
        (CauseId::BadSegment, Trigger::Segment) => {
            let is_syn = event
                .segment
                .is_some_and(|segment| segment.flags.has(TcpFlags::SYN));
            (met_listener && is_syn).then_some(Counter::EmbryonicRsts)
        }
        _ => None,
    }
}

/// Resets that were traced in full, by the counters that they bump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced([u64; Counter::COUNT]);

impl Traced {
    /// Takes in sent resets that are alike, so many of them.
    pub fn note(&mut self, event: &Event, cause: CauseId, times: u64) {
        self.0[Counter::OutRsts as usize] += times;
        if let Some(counter) = bumped_by(event, cause) {
            self.0[counter as usize] += times;
        }
    }

    /// How many bump `counter`.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

/// Which of the two is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The kernel counted more than was traced.
    Untraced,
    /// More was traced than the kernel counted.
    Uncounted,
}

/// On which kernels a difference is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// On every one.
    Every,
    /// On one that does not name a reason for all of its resets.
    Unnamed,
    /// On one where a reset without a full socket passes no hook.
    Socketless,
}

/// How a known difference reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// What stands behind the number: one, and several.
    Each(&'static str, &'static str),
    /// Why there is a difference, in brackets behind both numbers.
    Why(&'static str),
}

/// A difference that is there by the kernel's design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name in JSON.
    pub id: &'static str,
    /// How it reads.
    pub words: Words,
    counter: Counter,
    side: Side,
    on: On,
}

const fn known(id: &'static str, counter: Counter, side: Side, on: On, words: Words) -> Known {
    Known {
        id,
        words,
        counter,
        side,
        on,
    }
}

/// A kernel that names no reason may have counted another reset than the evidence spoke for.
const fn inferred_otherwise(counter: Counter, side: Side) -> Known {
    known(
        "cause-inferred",
        counter,
        side,
        On::Unnamed,
        Words::Why("this kernel names no reason, so causes are inferred"),
    )
}

/// All known differences; of several that fit, the first.
pub const KNOWN: &[Known] = &[
    known(
        "no-hook-without-socket",
        Counter::OutRsts,
        Side::Untraced,
        On::Socketless,
        Words::Why("resets without a socket pass no hook here"),
    ),
    // `tcp_v6_send_response` counts when it has a route; the tracepoint stands before.
    known(
        "answer-without-route",
        Counter::OutRsts,
        Side::Uncounted,
        On::Every,
        Words::Why("an answer over IPv6 without a route back is seen and not counted"),
    ),
    inferred_otherwise(Counter::AbortOnData, Side::Untraced),
    inferred_otherwise(Counter::AbortOnData, Side::Uncounted),
    inferred_otherwise(Counter::AbortOnClose, Side::Untraced),
    inferred_otherwise(Counter::AbortOnClose, Side::Uncounted),
    inferred_otherwise(Counter::AbortOnMemory, Side::Uncounted),
    inferred_otherwise(Counter::AbortOnLinger, Side::Untraced),
    inferred_otherwise(Counter::AbortOnLinger, Side::Uncounted),
    // `__tcp_close` counts every close with `SO_LINGER` 0; `tcp_disconnect` sends a RST in the
    // states that need one, which SYN_SENT, CLOSING and LAST_ACK do not.
    known(
        "linger-without-rst",
        Counter::AbortOnData,
        Side::Untraced,
        On::Every,
        Words::Each(
            "close with SO_LINGER 0 that needed no RST",
            "closes with SO_LINGER 0 that needed no RST",
        ),
    ),
    // `tcp_out_of_resources` spares a peer that has been silent for long the RST.
    known(
        "orphan-without-rst",
        Counter::AbortOnMemory,
        Side::Untraced,
        On::Every,
        Words::Each(
            "orphan dropped without a RST",
            "orphans dropped without a RST",
        ),
    ),
    // `tcp_write_err` counts retransmissions, probes and SYNs without an answer, and
    // `TCP_USER_TIMEOUT`: none of them sends a RST.
    known(
        "timeout-without-rst",
        Counter::AbortOnTimeout,
        Side::Untraced,
        On::Every,
        Words::Each("timeout without a RST", "timeouts without a RST"),
    ),
    // `tcp_send_active_reset`: the tracepoint fires though the layer below refused the RST.
    known(
        "rst-not-sent",
        Counter::AbortFailed,
        Side::Untraced,
        On::Every,
        Words::Each(
            "RST that could not be sent (no route, a firewall or no memory)",
            "RSTs that could not be sent (no route, a firewall or no memory)",
        ),
    ),
    // `tcp_check_req` drops the request socket, and no tracepoint fires.
    known(
        "handshake-reset",
        Counter::EmbryonicRsts,
        Side::Untraced,
        On::Every,
        Words::Each(
            "unfinished handshake reset by the peer, seen by no hook",
            "unfinished handshakes reset by the peer, seen by no hook",
        ),
    ),
    // Since 5.13, and in the longer-lived older ones, `tcp_check_req` counts only when the request
    // was still there to be dropped.
    known(
        "handshake-gone",
        Counter::EmbryonicRsts,
        Side::Uncounted,
        On::Every,
        Words::Why("of segments that end one handshake together, the kernel counts one"),
    ),
];

/// What holding the two against each other came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They agree, within what reading a counter on either side of a moment leaves open.
    Agrees,
    /// The counter could not be read.
    Unread,
    /// Too much detail is missing to tell.
    Undecided,
    /// They differ by this much at least, on this side.
    Differs(Side, u64),
}

/// One counter, and what was traced of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The counter.
    pub counter: Counter,
    /// By how much it grew: the least and the most that it can have, since it cannot be read at the
    /// very moment in which the hooks begin and end. `None`: it could not be read.
    pub growth: Option<Bounds>,
    /// How many traced resets bump it; a range where detail is missing.
    pub traced: Bounds,
    abilities: Abilities,
}

impl Comparison {
    /// What it came to.
    pub fn outcome(&self) -> Outcome {
        let (Some(growth), traced) = (self.growth, self.traced) else {
            return Outcome::Unread;
        };
        if traced.low > growth.high {
            Outcome::Differs(Side::Uncounted, traced.low - growth.high)
        } else if traced.high < growth.low {
            Outcome::Differs(Side::Untraced, growth.low - traced.high)
        } else if traced.low >= growth.low && traced.high <= growth.high {
            Outcome::Agrees
        } else {
            Outcome::Undecided
        }
    }

    /// Whether they agree; `None` when that cannot be told.
    pub fn agrees(&self) -> Option<bool> {
        match self.outcome() {
            Outcome::Agrees => Some(true),
            Outcome::Differs(..) => Some(false),
            Outcome::Unread | Outcome::Undecided => None,
        }
    }

    /// How many more resets were traced than the kernel counted, negative for fewer, 0 when they
    /// agree; `None` when that cannot be told.
    pub fn difference(&self) -> Option<i64> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        match self.outcome() {
            Outcome::Agrees => Some(0),
            Outcome::Differs(Side::Uncounted, count) => Some(signed(count)),
            Outcome::Differs(Side::Untraced, count) => Some(-signed(count)),
            Outcome::Unread | Outcome::Undecided => None,
        }
    }

    /// The known difference that it is, if it is one.
    pub fn known(&self) -> Option<&'static Known> {
        let Outcome::Differs(side, _) = self.outcome() else {
            return None;
        };
        KNOWN.iter().find(|known| {
            known.counter == self.counter
                && known.side == side
                && match known.on {
                    On::Every => true,
                    On::Unnamed => self.abilities.reasons != Reasons::All,
                    On::Socketless => !self.abilities.without_socket,
                }
        })
    }

    /// Why they do not agree, by name: that of the known difference, or what is missing. `None` when
    /// they agree, and when nothing explains it.
    pub fn reason(&self) -> Option<&'static str> {
        match self.outcome() {
            Outcome::Agrees => None,
            Outcome::Unread => Some("not-read"),
            Outcome::Undecided => Some("detail-missing"),
            Outcome::Differs(..) => self.known().map(|known| known.id),
        }
    }
}

/// Every counter, and what was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciled([Comparison; Counter::COUNT]);

impl Reconciled {
    /// Holds what `of` says of each counter, its growth and what was traced, against each other.
    pub fn new(abilities: Abilities, of: impl Fn(Counter) -> (Option<Bounds>, Bounds)) -> Self {
        Self(Counter::ALL.map(|counter| {
            let (growth, traced) = of(counter);
            Comparison {
                counter,
                growth,
                traced,
                abilities,
            }
        }))
    }

    /// One of them.
    pub const fn get(&self, counter: Counter) -> &Comparison {
        &self.0[counter as usize]
    }

    /// Whether there is anything to tell: a counter grew, or a reset was traced.
    pub fn is_something(&self) -> bool {
        self.0.iter().any(|comparison| {
            comparison.traced.low > 0 || comparison.growth.is_some_and(|growth| growth.high > 0)
        })
    }
}

impl Default for Reconciled {
    /// Nothing was traced, and nothing read.
    fn default() -> Self {
        Self::new(Abilities::default(), |_| (None, Bounds::default()))
    }
}

#[cfg(test)]
mod tests;
