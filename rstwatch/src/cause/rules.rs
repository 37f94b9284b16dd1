//! What decides each cause. One function a rule, in one list for each way in which a reset comes
//! about, the most specific first; the first rule that speaks gives the verdict.
//!
//! "Silent kernel" below means one that names no reason for this kind of reset: before 6.10, and
//! before 6.12 for the resets that a host sends of its own accord. There the socket and the stack
//! must decide alone. What each path of the kernel leaves behind was read in `net/ipv4/tcp*.c` of 5.10
//! to 7.2.
//!
//! A rule says `certain` only from evidence that is present, never from a field that is `None`
//! (but a segment that met no socket is a fact), so that less evidence never makes a verdict surer.
//!
//! `firewall-reject` and `forged-reset` have no rule: they show on the wire only, which no hook sees.

use super::{CauseId, Confidence, Fact, HostFacts, MAX_FACTS, Reasons, Verdict, fact::End, idle};
use crate::event::{
    Context, Ended, Event, Past, Path, Reason, Segment, Socket, TcpFlags, TcpState, Trigger,
};

mod aborts;
pub(super) mod answers;
mod received;

/// The cause of `event`, and how sure it is. Never fails: what no rule knows is
/// [`CauseId::Unknown`], with all its evidence.
pub fn classify(event: &Event, host: &HostFacts) -> Verdict {
    let mut verdict = Verdict::default();
    judge(event, host, &mut verdict);
    verdict
}

/// The same, written where it belongs: a verdict is large, and returned by one function after another it is
/// copied by each.
pub fn judge(event: &Event, host: &HostFacts, verdict: &mut Verdict) {
    let case = Case { event, host };
    let rules = match event.trigger {
        Trigger::Segment if case.is_stray_opening() => answers::RULES_OF_OPENINGS,
        Trigger::Segment => answers::RULES,
        Trigger::Active { .. } => aborts::RULES,
        Trigger::Received => received::RULES,
    };
    if !rules.iter().any(|rule| rule(&case, verdict).is_some()) {
        unknown(&case, verdict);
    }
    if let Some(peer) = &event.peer
        && event.trigger == Trigger::Received
    {
        see_from_both_ends(verdict, peer.cause);
    }
}

/// Writes the verdict, if it has one.
type Rule = fn(&Case<'_>, &mut Verdict) -> Option<Decided>;

/// The verdict is written.
struct Decided;

/// For how long after boot peers still hold connections from before it.
const LATELY_BOOTED_S: u64 = 600;

/// For how long a tuple is not used again after its connection: `TCP_TIMEWAIT_LEN`.
const SAME_CONNECTION_NS: u64 = 60_000_000_000;

/// A received reset whose sender is on this host too: what the other end says is beyond doubt, and
/// no firewall is in question. What no rule knows stays unknown.
fn see_from_both_ends(verdict: &mut Verdict, cause: &'static str) {
    verdict.facts.retain(|fact| *fact != Fact::HostOrFirewall);
    if verdict.facts.is_full() {
        verdict.facts.pop();
    }
    verdict.facts.insert(0, Fact::Peer(cause));
    if verdict.id != CauseId::Unknown {
        verdict.confidence = Confidence::Certain;
    }
}

/// `unknown`: no rule spoke. All that is known stands in the evidence.
fn unknown(case: &Case<'_>, verdict: &mut Verdict) {
    let socket = case.event.socket.as_ref();
    let received = case.event.trigger == Trigger::Received;
    let Decided = verdict.is(
        CauseId::Unknown,
        Confidence::Possible,
        [
            if received {
                case.silence_ns().map(Fact::Heard)
            } else {
                case.why()
            },
            case.path(),
            case.event.segment.as_ref().map(Fact::segment),
            case.met(),
            case.past()
                .or_else(|| socket.filter(|socket| socket.mptcp).map(|_| Fact::Mptcp)),
            match socket {
                Some(Socket {
                    backlog: Some((waiting, limit)),
                    ..
                }) => Some(Fact::Backlog(*waiting, *limit)),
                Some(Socket { unread, .. }) if *unread > 0 => Some(Fact::Unread(*unread)),
                _ => case.unacked(),
            },
            socket.and_then(|socket| socket.linger_s).map(Fact::Linger),
            case.ending()
                .or_else(|| socket.filter(|s| s.orphan).map(|_| Fact::Orphan)),
        ],
    );
}

/// A reset under judgement.
struct Case<'a> {
    event: &'a Event,
    host: &'a HostFacts,
}

impl Case<'_> {
    /// The kernel's reason; that it does not specify one is none.
    fn reason(&self) -> Option<Reason> {
        self.event
            .reason
            .filter(|reason| *reason != Reason::NotSpecified)
    }

    /// Whether the kernel names no reason for this kind of reset, so that the lack of one is no
    /// evidence against any cause.
    fn is_silent(&self) -> bool {
        match self.event.trigger {
            Trigger::Segment => self.host.reasons == Reasons::None,
            Trigger::Active { .. } => self.host.reasons != Reasons::All,
            Trigger::Received => true,
        }
    }

    /// The reason as evidence, or that there can be none.
    fn why(&self) -> Option<Fact> {
        match self.event.reason {
            Some(reason) => Some(Fact::Reason(reason)),
            None => self.is_silent().then_some(Fact::NoReason),
        }
    }

    /// Whether the kernel says `reason`, or says nothing because it never does.
    fn is_told(&self, reason: Reason) -> bool {
        match self.reason() {
            Some(told) => told == reason,
            None => self.is_silent(),
        }
    }

    /// The segment that drew the reset, as evidence.
    fn drew(&self) -> Option<Fact> {
        self.event.segment.as_ref().map(Fact::segment)
    }

    /// Whether the segment met no socket of any kind.
    fn met_no_socket(&self) -> bool {
        let Event {
            socket,
            state,
            time_wait,
            ..
        } = self.event;
        socket.is_none() && state.is_none() && time_wait.is_none()
    }

    /// Whether the segment met a listener.
    fn met_listener(&self) -> bool {
        self.event.state == Some(TcpState::Listen)
    }

    /// What the segment met, as evidence.
    fn met(&self) -> Option<Fact> {
        let Event {
            state,
            time_wait,
            trigger,
            ..
        } = self.event;
        match (time_wait, state) {
            (Some(state), _) => Some(Fact::TimeWait(*state)),
            (None, Some(TcpState::Listen)) => Some(Fact::Listener),
            (None, Some(state)) => Some(Fact::State(*state)),
            (None, None) => {
                (*trigger == Trigger::Segment && self.met_no_socket()).then_some(Fact::NoSocket)
            }
        }
    }

    /// Whether the listener's queue was beyond its limit (`sk_acceptq_is_full`); `None` when that
    /// is not known.
    fn queue_is_full(&self) -> Option<bool> {
        let (waiting, limit) = self.event.socket?.backlog?;
        Some(waiting > limit)
    }

    /// What the kernel was doing, as evidence of an active reset.
    fn path(&self) -> Option<Fact> {
        match self.event.trigger {
            Trigger::Active { path, .. } => Some(Fact::Path(path)),
            Trigger::Segment | Trigger::Received => None,
        }
    }

    /// What is remembered of the closed connection, as evidence.
    fn past(&self) -> Option<Fact> {
        self.event.past.as_ref().map(|past| Fact::Past {
            ended: past.ended,
            closed_ago_ns: past.closed_ago_ns,
            lasted_ns: past.lasted_ns,
            state: past.state,
        })
    }

    /// See [`silence_ns`].
    fn silence_ns(&self) -> Option<u64> {
        self.event.socket.as_ref().and_then(silence_ns)
    }

    /// When data was last sent, as evidence.
    fn sent(&self) -> Option<Fact> {
        self.event.socket?.idle_tx_ns.map(Fact::Sent)
    }

    /// What the peer has not acknowledged, as evidence.
    fn unacked(&self) -> Option<Fact> {
        let unacked = self.event.socket?.unacked;
        (unacked > 0).then_some(Fact::Unacked(unacked))
    }
}

impl Confidence {
    /// Certain if the evidence excludes every other cause, else likely.
    const fn certain_if(excludes_all_others: bool) -> Self {
        if excludes_all_others {
            Self::Certain
        } else {
            Self::Likely
        }
    }
}

/// Nanoseconds since the peer of `socket` gave a sign: data, an ACK, or at least the connection
/// itself.
pub(super) fn silence_ns(socket: &Socket) -> Option<u64> {
    [socket.idle_rx_ns, socket.idle_ack_ns]
        .into_iter()
        .flatten()
        .min()
        .or(socket.age_ns)
}

impl Verdict {
    /// Makes it this one, with what there is of `facts`.
    #[expect(
        clippy::inline_always,
        reason = "facts are then made where they belong: read again right after they were made elsewhere they keep the processor waiting"
    )]
    #[expect(
        clippy::manual_flatten,
        reason = "what flattens keeps what it flattens in a place of its own"
    )]
    #[inline(always)]
    fn is<const N: usize>(
        &mut self,
        id: CauseId,
        confidence: Confidence,
        facts: [Option<Fact>; N],
    ) -> Decided {
        const { assert!(N <= MAX_FACTS) };
        self.id = id;
        self.confidence = confidence;
        self.facts.clear();
        for fact in facts {
            if let Some(fact) = fact {
                self.facts.push(fact);
            }
        }
        Decided
    }
}

/// Whether the kernel names a rule of multipath TCP.
fn is_mptcp_reason(reason: Reason) -> bool {
    matches!(reason, Reason::Other(name) if name.starts_with("MPTCP_RST_"))
}

/// Whether a socket in `state` may have been closed, or shut down, by its process.
const fn state_is_after_close(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::Closing
            | TcpState::LastAck
            | TcpState::CloseWait
    )
}

/// Which sides of `socket` are shut down, as evidence.
const fn shutdown(socket: &Socket) -> Fact {
    Fact::Shutdown {
        receive: socket.rcv_shutdown,
        send: socket.send_shutdown,
    }
}

#[cfg(test)]
mod tests;
