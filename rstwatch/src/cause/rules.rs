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

use super::{CauseId, Confidence, Fact, HostFacts, MAX_FACTS, Reasons, Verdict};
use crate::event::{Context, Event, Path, Reason, Segment, Socket, TcpFlags, TcpState, Trigger};

/// The cause of `event`, and how sure it is. Never fails: what no rule knows is
/// [`CauseId::Unknown`], with all its evidence.
pub fn classify(event: &Event, host: &HostFacts) -> Verdict {
    let rules = match event.trigger {
        Trigger::Segment => ANSWERS,
        Trigger::Active { .. } => ABORTS,
        Trigger::Received => RECEIVED,
    };
    let case = Case { event, host };
    rules
        .iter()
        .find_map(|rule| rule(&case))
        .unwrap_or_else(|| unknown(&case))
}

type Rule = fn(&Case<'_>) -> Option<Verdict>;

/// This host answered a segment with a RST.
const ANSWERS: &[Rule] = &[closed_port, data_after_close, half_open];

/// This host reset a connection of its own accord.
const ABORTS: &[Rule] = &[closed_with_unread_data, linger_abort, keepalive_timeout];

/// This host received a RST.
const RECEIVED: &[Rule] = &[refused, peer_gone, reset_during_close, peer_aborted];

/// How lately the peer must have been heard for an exchange to count as active: the shortest idle
/// limit in common use (Node.js and Apache keep-alive).
const ACTIVE_NS: u64 = 5_000_000_000;

/// How lately data must have been sent for a RST to be the answer to it: above any usual round trip.
const ANSWER_NS: u64 = 1_000_000_000;

/// For how long after boot peers still hold connections from before it.
const LATELY_BOOTED_S: u64 = 600;

/// `closed-port`. Decides: a SYN without ACK met no socket. On every kernel; nothing else looks so.
fn closed_port(case: &Case<'_>) -> Option<Verdict> {
    let segment = case.event.segment?;
    (case.met_no_socket() && is_first_syn(segment)).then(|| {
        verdict(
            CauseId::ClosedPort,
            Confidence::Certain,
            [
                case.why(),
                Some(Fact::NoSocket),
                Some(Fact::Segment(segment)),
            ],
        )
    })
}

/// `data-after-close`. Decides, in this order:
/// - a segment that is no SYN met a TIME_WAIT socket in its FIN_WAIT2 sub-state (a true TIME_WAIT
///   never resets);
/// - the kernel's `TCP_ABORT_ON_DATA` (since 6.10); but a pure ACK on a socket with a negative
///   `TCP_LINGER2` is reset with it as well;
/// - on a silent kernel: data for a full socket whose receiving side is shut down;
/// - data for a connection that is remembered as closed: its sequence numbers are not checked, so
///   no more than likely.
fn data_after_close(case: &Case<'_>) -> Option<Verdict> {
    let Event {
        segment,
        socket,
        time_wait,
        past,
        state,
        ..
    } = case.event;
    let drew = segment.map(Fact::Segment);
    let has_data = segment.is_some_and(|segment| segment.payload > 0);
    let says = |confidence, facts| Some(verdict(CauseId::DataAfterClose, confidence, facts));
    let is_fin_wait2 = *time_wait == Some(TcpState::FinWait2);
    let starts_anew = segment.is_some_and(|segment| segment.flags.has(TcpFlags::SYN));
    if (is_fin_wait2 || case.reason() == Some(Reason::TimewaitSocket)) && !starts_anew {
        return says(
            Confidence::certain_if(segment.is_some()),
            [
                case.why(),
                time_wait.map(Fact::TimeWait),
                drew,
                case.past(),
                None,
            ],
        );
    }
    match (case.reason(), *state) {
        (Some(Reason::AbortOnData), _) => {
            let waits = socket.is_some_and(|socket| !socket.no_fin_wait2);
            let confidence = Confidence::certain_if(has_data || waits);
            let no_wait = socket.filter(|socket| socket.no_fin_wait2);
            return says(
                confidence,
                [
                    case.why(),
                    drew,
                    state.map(Fact::State),
                    socket.filter(|socket| socket.orphan).map(|_| Fact::Orphan),
                    no_wait.map(|_| Fact::NoFinWait2),
                ],
            );
        }
        (None, Some(state)) if case.is_silent() && state_is_after_close(state) => {
            if let Some(socket) = socket.as_ref().filter(|socket| socket.rcv_shutdown) {
                return says(
                    Confidence::certain_if(has_data),
                    [
                        case.why(),
                        drew,
                        Some(Fact::State(state)),
                        Some(shutdown(socket)),
                        socket.orphan.then_some(Fact::Orphan),
                    ],
                );
            }
        }
        _ => {}
    }
    let closed = past
        .as_ref()
        .is_some_and(|past| past.closed_ago_ns.is_some());
    if closed && has_data && !starts_anew && (case.met_no_socket() || case.met_listener()) {
        return says(
            Confidence::Likely,
            [case.why(), case.past(), drew, case.met(), None],
        );
    }
    None
}

/// `half-open`. Decides: an ACK or data, no SYN, met no socket or a listener, and nothing is
/// remembered of the connection. Never certain: it may have been closed here longer ago than is
/// remembered. A listener whose queue is full resets the last ACK of a handshake as well
/// (`INVALID_SYN` where the kernel says so).
fn half_open(case: &Case<'_>) -> Option<Verdict> {
    let Event {
        segment,
        past: None,
        ..
    } = case.event
    else {
        return None;
    };
    let segment = (*segment)?;
    let flags = segment.flags;
    let belongs = flags.has(TcpFlags::ACK) || (segment.payload > 0 && case.met_no_socket());
    if !belongs || flags.has(TcpFlags::SYN) {
        return None;
    }
    let met = if case.met_no_socket() && matches!(case.reason(), None | Some(Reason::NoSocket)) {
        Fact::NoSocket
    } else if case.met_listener()
        && matches!(case.reason(), None | Some(Reason::Flags))
        && case.queue_is_full() != Some(true)
    {
        Fact::Listener
    } else {
        return None;
    };
    let uptime = case.host.uptime.map(|uptime| uptime.as_secs());
    Some(verdict(
        CauseId::HalfOpen,
        Confidence::Likely,
        [
            case.why(),
            Some(met),
            Some(Fact::Segment(segment)),
            uptime.filter(|s| *s < LATELY_BOOTED_S).map(Fact::Booted),
        ],
    ))
}

/// `closed-with-unread-data`. Decides: the kernel's `TCP_ABORT_ON_CLOSE` (since 6.12), which the
/// fast close of a multipath connection gives as well; on a silent kernel: unread bytes in a socket
/// that its process closes. There `SO_LINGER` 0 looks the same, if the one byte that counts as
/// unread is the peer's FIN.
fn closed_with_unread_data(case: &Case<'_>) -> Option<Verdict> {
    let socket = case.event.socket.as_ref();
    let confidence = match case.reason() {
        Some(Reason::AbortOnClose) => match socket {
            Some(socket) if socket.mptcp => return None,
            socket => Confidence::certain_if(socket.is_some()),
        },
        None => {
            let socket = socket.filter(|socket| socket.unread > 0 && !socket.orphan)?;
            let path = case.closing(socket)?;
            Confidence::certain_if(
                case.is_silent() && path == Path::Close && socket.linger_s != Some(0),
            )
        }
        Some(_) => return None,
    };
    Some(verdict(
        CauseId::ClosedWithUnreadData,
        confidence,
        [
            case.why(),
            socket
                .filter(|socket| socket.unread > 0)
                .map(|socket| Fact::Unread(socket.unread)),
            case.path(),
            case.ending(),
            socket.and_then(|socket| socket.linger_s).map(Fact::Linger),
        ],
    ))
}

/// `linger-abort`. Decides: `SO_LINGER` on with 0 in a socket that its process closes. Since 6.12
/// the kernel calls that `TCP_STATE` or `TCP_DISCONNECT_WITH_DATA`, as it calls a disconnect, which
/// without a stack looks the same after a shutdown of both sides.
fn linger_abort(case: &Case<'_>) -> Option<Verdict> {
    let socket = case.event.socket.as_ref()?;
    if socket.linger_s != Some(0) || !socket.rcv_shutdown || !socket.send_shutdown {
        return None;
    }
    let path = case.closing(socket)?;
    let told = match case.reason() {
        Some(Reason::State | Reason::DisconnectWithData) => true,
        None => case.is_silent(),
        Some(_) => return None,
    };
    Some(verdict(
        CauseId::LingerAbort,
        Confidence::certain_if(told && path == Path::Close && !socket.orphan),
        [
            Some(Fact::Linger(0)),
            case.why(),
            case.path(),
            Some(shutdown(socket)),
            (socket.unacked > 0).then_some(Fact::Unacked(socket.unacked)),
            case.ending(),
        ],
    ))
}

/// `keepalive-timeout`. Decides: the kernel's `TCP_KEEPALIVE_TIMEOUT` (since 6.12); on a silent
/// kernel: the keepalive timer reset a socket with `SO_KEEPALIVE` and probes without an answer,
/// that a process still held (that timer ends an orphan in FIN_WAIT2 as well).
fn keepalive_timeout(case: &Case<'_>) -> Option<Verdict> {
    let socket = case.event.socket.as_ref();
    let confidence = match (case.reason(), case.event.trigger) {
        (Some(Reason::KeepaliveTimeout), _) => Confidence::Certain,
        (None, Trigger::Active { path, context }) => {
            socket.filter(|s| s.keepalive && s.probes_out > 0 && !s.orphan)?;
            match (path, context) {
                (Path::KeepaliveTimer, _) => Confidence::certain_if(case.is_silent()),
                (Path::Unknown, Context::Interrupt) => Confidence::Likely,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(verdict(
        CauseId::KeepaliveTimeout,
        confidence,
        [
            case.why(),
            case.path(),
            socket
                .filter(|socket| socket.probes_out > 0)
                .map(|socket| Fact::Probes(socket.probes_out)),
            case.silence_ns().map(Fact::Heard),
        ],
    ))
}

/// `refused`. Decides: the RST came in SYN_SENT. That the connect was refused is certain; whether
/// by the peer or by a firewall, the evidence leaves open.
fn refused(case: &Case<'_>) -> Option<Verdict> {
    (case.event.state == Some(TcpState::SynSent)).then(|| {
        verdict(
            CauseId::Refused,
            Confidence::Certain,
            [
                Some(Fact::State(TcpState::SynSent)),
                Some(Fact::HostOrFirewall),
            ],
        )
    })
}

/// `peer-gone`. Decides: the RST came in `CLOSE_WAIT`. Likely where this host has just sent; else
/// the peer may as well have aborted after its FIN.
fn peer_gone(case: &Case<'_>) -> Option<Verdict> {
    (case.event.state == Some(TcpState::CloseWait)).then(|| {
        let socket = case.event.socket.as_ref();
        let has_sent = socket.is_some_and(|socket| {
            socket.unacked > 0 || socket.idle_tx_ns.is_some_and(|ns| ns < ANSWER_NS)
        });
        verdict(
            CauseId::PeerGone,
            if has_sent {
                Confidence::Likely
            } else {
                Confidence::Possible
            },
            [
                Some(Fact::State(TcpState::CloseWait)),
                case.unacked(),
                case.sent(),
                case.silence_ns().map(Fact::Heard),
            ],
        )
    })
}

/// `reset-during-close`. Decides: the RST came after this host's FIN, which the state alone says.
fn reset_during_close(case: &Case<'_>) -> Option<Verdict> {
    let state = case.event.state?;
    let ours_first = matches!(
        state,
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck
    );
    ours_first.then(|| {
        let orphan = case.event.socket.is_some_and(|socket| socket.orphan);
        verdict(
            CauseId::ResetDuringClose,
            Confidence::Certain,
            [
                Some(Fact::State(state)),
                orphan.then_some(Fact::Orphan),
                case.unacked(),
            ],
        )
    })
}

/// `peer-aborted`. Decides: the RST came in ESTABLISHED. Likely while the exchange was active; after
/// a silence a load balancer or NAT that forgot the connection looks the same.
fn peer_aborted(case: &Case<'_>) -> Option<Verdict> {
    (case.event.state == Some(TcpState::Established)).then(|| {
        let active = case.silence_ns().is_some_and(|ns| ns < ACTIVE_NS);
        verdict(
            CauseId::PeerAborted,
            if active {
                Confidence::Likely
            } else {
                Confidence::Possible
            },
            [
                Some(Fact::State(TcpState::Established)),
                case.silence_ns().map(Fact::Heard),
                case.sent(),
                case.unacked(),
                Some(Fact::HostOrFirewall),
            ],
        )
    })
}

/// `unknown`: no rule spoke. All that is known stands in the evidence.
fn unknown(case: &Case<'_>) -> Verdict {
    let socket = case.event.socket.as_ref();
    let received = case.event.trigger == Trigger::Received;
    verdict(
        CauseId::Unknown,
        Confidence::Possible,
        [
            if received {
                case.silence_ns().map(Fact::Heard)
            } else {
                case.why()
            },
            case.path(),
            case.event.segment.map(Fact::Segment),
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
    )
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

    /// The path of an active reset by the process that closed `socket`: [`Path::Close`], or
    /// [`Path::Unknown`] where the shutdown of both sides, which a close begins with, says as much.
    fn closing(&self, socket: &Socket) -> Option<Path> {
        let Trigger::Active { path, context } = self.event.trigger else {
            return None;
        };
        let may_be_close = socket.rcv_shutdown && socket.send_shutdown && !socket.mptcp;
        match path {
            Path::Close if !socket.mptcp => Some(path),
            Path::Unknown if may_be_close && context != Context::Interrupt => Some(path),
            _ => None,
        }
    }

    /// What the kernel was doing, as evidence of an active reset.
    fn path(&self) -> Option<Fact> {
        match self.event.trigger {
            Trigger::Active { path, .. } => Some(Fact::Path(path)),
            Trigger::Segment | Trigger::Received => None,
        }
    }

    /// How the actor was ending, as evidence.
    fn ending(&self) -> Option<Fact> {
        let actor = self.event.actor.as_ref().filter(|actor| actor.exiting)?;
        Some(actor.signal.map_or(Fact::Exiting, Fact::Killed))
    }

    /// What is remembered of the closed connection, as evidence.
    fn past(&self) -> Option<Fact> {
        self.event.past.as_ref().map(|past| Fact::Past {
            closed_ago_ns: past.closed_ago_ns,
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

/// A verdict from the facts that are known.
fn verdict<const N: usize>(
    id: CauseId,
    confidence: Confidence,
    facts: [Option<Fact>; N],
) -> Verdict {
    const { assert!(N <= MAX_FACTS) };
    Verdict {
        id,
        confidence,
        facts: facts.into_iter().flatten().collect(),
    }
}

/// Whether `segment` opens a connection.
const fn is_first_syn(segment: Segment) -> bool {
    segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::ACK)
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
