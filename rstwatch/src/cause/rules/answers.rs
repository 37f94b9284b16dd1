//! This host answered a segment with a RST (`tcp_v4_send_reset`, `tcp_v6_send_reset`).

use super::{
    Case, CauseId, Confidence, Decided, Ended, Event, Fact, LATELY_BOOTED_S, Past, Reason, Rule,
    SAME_CONNECTION_NS, Segment, Socket, TcpFlags, TcpState, Verdict, is_mptcp_reason, shutdown,
    state_is_after_close,
};

/// From how many closed ports on their sender counts as scanning.
pub const SCAN_PORTS: u32 = 10;

/// The most specific first.
pub(super) const RULES: &[Rule] = &[
    mptcp,
    bad_segment,
    accept_queue_overflow,
    fin_wait2_timeout,
    late_syn_ack,
    backscatter,
    connection_timed_out,
    data_after_close,
    late_segment,
    listener_gone,
    closed_port,
    half_open,
];

/// Those of them that may speak where [`Case::is_stray_opening`]: most storms are such, and asking all the others took
/// longer than all else of their verdict.
pub(super) const RULES_OF_OPENINGS: &[Rule] = &[listener_gone, closed_port];

/// `mptcp`. Decides: the kernel's `MPTCP_RST_*` (since 6.10): a join or a SYN was rejected.
fn mptcp(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    case.reason().filter(|reason| is_mptcp_reason(*reason))?;
    Some(verdict.is(
        CauseId::Mptcp,
        Confidence::Certain,
        [case.why(), case.met(), case.drew()],
    ))
}

/// `bad-segment`. Decides, in this order:
/// - the kernel's reason (since 6.10) names a wrong ACK or timestamp;
/// - a SYN for a connection whose handshake is under way, which on a silent kernel could be a
///   rejected MPTCP join as well;
/// - a SYN for a TIME_WAIT socket in its FIN_WAIT2 sub-state: its ports are used again too early;
/// - on a silent kernel: any segment that a socket in SYN_SENT answers with a RST;
/// - neither SYN nor ACK for no socket: no TCP sends that, a scanner does.
fn bad_segment(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    use Reason::{AckUnsentData, InvalidAckSequence, InvalidSyn, OldAck, Paws, TooOldAck};
    let Event {
        state,
        segment,
        time_wait,
        ..
    } = case.event;
    let has = |flag| segment.is_some_and(|segment| segment.flags.has(flag));
    let confidence = match case.reason() {
        Some(InvalidAckSequence | Paws | TooOldAck | AckUnsentData | OldAck) => Confidence::Certain,
        Some(InvalidSyn) if case.met_listener() && has(TcpFlags::SYN) => Confidence::Certain,
        Some(Reason::TimewaitSocket) if has(TcpFlags::SYN) => Confidence::Certain,
        None if *time_wait == Some(TcpState::FinWait2) && has(TcpFlags::SYN) => {
            Confidence::certain_if(case.is_silent())
        }
        None if case.is_silent() && case.met_listener() && has(TcpFlags::SYN) => {
            // A SYN-ACK for a listener is somebody's mistake too, but one with a name.
            if has(TcpFlags::ACK) {
                return None;
            }
            Confidence::Likely
        }
        None if *state == Some(TcpState::SynSent) => Confidence::certain_if(case.is_silent()),
        None | Some(Reason::NoSocket)
            if case.met_no_socket()
                && segment.is_some()
                && !has(TcpFlags::SYN)
                && !has(TcpFlags::ACK) =>
        {
            Confidence::certain_if(case.is_told(Reason::NoSocket))
        }
        _ => return None,
    };
    Some(verdict.is(
        CauseId::BadSegment,
        confidence,
        [case.why(), case.drew(), case.met(), case.past()],
    ))
}

/// `accept-queue-overflow`. Decides: a listener whose queue is beyond its limit resets the end of a
/// handshake (`tcp_check_req` with `net.ipv4.tcp_abort_on_overflow`). The kernel calls that
/// `INVALID_SYN` (since 6.10) although the segment is no SYN; the queue may have been emptied in
/// the meantime. On a silent kernel a stray ACK for a listener with a full queue looks the same.
fn accept_queue_overflow(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let segment = case.event.segment?;
    if !case.met_listener() || segment.flags.has(TcpFlags::SYN) {
        return None;
    }
    let full = case.queue_is_full() == Some(true);
    let confidence = match case.reason() {
        Some(Reason::InvalidSyn) => Confidence::certain_if(full),
        None if full => Confidence::Likely,
        _ => return None,
    };
    Some(verdict.is(
        CauseId::AcceptQueueOverflow,
        confidence,
        [
            case.why(),
            case.backlog(),
            Some(Fact::Listener),
            case.drew(),
        ],
    ))
}

/// `fin-wait2-timeout`, in answer to a segment. Decides: a socket with a negative `TCP_LINGER2`,
/// that no process holds, is reset as soon as the peer acknowledges its FIN. The kernel calls it
/// `TCP_ABORT_ON_DATA`; a segment without data tells the two apart, a FIN out of order does not.
fn fin_wait2_timeout(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let segment = case.event.segment.filter(|segment| segment.payload == 0)?;
    let socket = case.event.socket.filter(|socket| socket.no_fin_wait2)?;
    let told = match case.reason() {
        Some(Reason::AbortOnData) => true,
        None => {
            case.is_silent() && socket.orphan && case.event.state.is_some_and(state_is_after_close)
        }
        Some(_) => false,
    };
    told.then(|| {
        verdict.is(
            CauseId::FinWait2Timeout,
            Confidence::certain_if(socket.orphan && !segment.flags.has(TcpFlags::FIN)),
            [
                Some(Fact::NoFinWait2),
                case.why(),
                case.drew(),
                case.event.state.map(Fact::State),
                socket.orphan.then_some(Fact::Orphan),
            ],
        )
    })
}

/// `late-syn-ack`. Decides: a SYN-ACK for a connect that this host is remembered to have given up.
fn late_syn_ack(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let met = case.met_no_connection()?;
    let past = case.event.past.as_ref()?;
    let gave_up = past.ended == Ended::NeverConnected || past.state == Some(TcpState::SynSent);
    (gave_up && case.event.segment.as_ref().is_some_and(is_syn_ack)).then(|| {
        verdict.is(
            CauseId::LateSynAck,
            case.sure_of(past),
            [case.past(), case.why(), case.drew(), Some(met)],
        )
    })
}

/// `backscatter`. Decides: a SYN-ACK for no connection, and nothing is remembered of a connect.
/// Never certain: the connect may have been given up longer ago than is remembered.
fn backscatter(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let met = case.met_no_connection()?;
    let unasked = case.event.past.is_none() && case.event.segment.as_ref().is_some_and(is_syn_ack);
    unasked.then(|| {
        verdict.is(
            CauseId::Backscatter,
            Confidence::Likely,
            [case.why(), case.drew(), Some(met)],
        )
    })
}

/// `connection-timed-out`. Decides: a segment, no SYN, for a connection that is remembered to have
/// died of a timeout, which itself sends no RST.
fn connection_timed_out(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let (met, past) = case.stray()?;
    (past.ended == Ended::TimedOut).then(|| {
        verdict.is(
            CauseId::ConnectionTimedOut,
            case.sure_of(past),
            [case.past(), case.why(), case.drew(), Some(met)],
        )
    })
}

/// `data-after-close`. Decides, in this order:
/// - a segment that is no SYN met a TIME_WAIT socket in its FIN_WAIT2 sub-state (a true TIME_WAIT
///   never resets);
/// - the kernel's `TCP_ABORT_ON_DATA` (since 6.10); but a pure ACK on a socket with a negative
///   `TCP_LINGER2` is reset with it as well;
/// - on a silent kernel: data for a full socket whose receiving side is shut down;
/// - data for a connection that is remembered as closed in order: its sequence numbers are not
///   checked, so no more than likely.
fn data_after_close(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let Event {
        segment,
        socket,
        time_wait,
        state,
        ..
    } = case.event;
    let has_data = segment.is_some_and(|segment| segment.payload > 0);
    let mut says = |confidence, facts| Some(verdict.is(CauseId::DataAfterClose, confidence, facts));
    let is_fin_wait2 = *time_wait == Some(TcpState::FinWait2);
    let starts_anew = segment.is_some_and(|segment| segment.flags.has(TcpFlags::SYN));
    if (is_fin_wait2 || case.reason() == Some(Reason::TimewaitSocket)) && !starts_anew {
        return says(
            Confidence::certain_if(segment.is_some()),
            [
                case.why(),
                time_wait.map(Fact::TimeWait),
                case.drew(),
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
                    case.drew(),
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
                        case.drew(),
                        Some(Fact::State(state)),
                        Some(shutdown(socket)),
                        socket.orphan.then_some(Fact::Orphan),
                    ],
                );
            }
        }
        _ => {}
    }
    let (met, past) = case.stray()?;
    if has_data && past.ended == Ended::Closed && past.closed_ago_ns.is_some() {
        return says(
            Confidence::Likely,
            [case.past(), case.why(), case.drew(), Some(met), None],
        );
    }
    None
}

/// `late-segment`. Decides: a segment for a connection that is remembered to have ended here, in
/// whatever way. Certain for as long as its tuple cannot belong to another one.
fn late_segment(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let (met, past) = case.stray()?;
    Some(verdict.is(
        CauseId::LateSegment,
        case.sure_of(past),
        [case.past(), case.why(), case.drew(), Some(met)],
    ))
}

/// `listener-gone`. Decides: a SYN met no socket, on a port whose last listener is remembered to
/// have ended.
fn listener_gone(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let segment = case.first_syn()?;
    let listener = case.event.listener.as_ref()?;
    listener.ended.as_ref()?;
    Some(verdict.is(
        CauseId::ListenerGone,
        Confidence::certain_if(case.is_told(Reason::NoSocket)),
        [
            Some(Fact::listened(listener)),
            case.why(),
            Some(Fact::NoSocket),
            Some(Fact::segment(segment)),
        ],
    ))
}

/// `closed-port`. Decides: a SYN without ACK met no socket. On every kernel; nothing else looks so.
/// A listener that is known for the port all the same listens at another address.
fn closed_port(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let segment = case.first_syn()?;
    Some(
        verdict.is(
            CauseId::ClosedPort,
            Confidence::certain_if(case.is_told(Reason::NoSocket)),
            [
                case.why(),
                Some(Fact::NoSocket),
                Some(Fact::segment(segment)),
                case.event.listener.as_deref().map(Fact::listened),
                case.event
                    .scan
                    .filter(|ports| *ports >= SCAN_PORTS)
                    .map(Fact::Scan),
            ],
        ),
    )
}

/// `half-open`. Decides: an ACK or data, no SYN, met no socket or a listener, and nothing is
/// remembered of the connection. Never certain: it may have been closed here longer ago than is
/// remembered.
fn half_open(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let segment = case.event.segment.as_ref()?;
    let met = case.met_no_connection()?;
    let belongs = segment.flags.has(TcpFlags::ACK) && !segment.flags.has(TcpFlags::SYN);
    if case.event.past.is_some() || !belongs {
        return None;
    }
    let uptime = case.host.uptime.map(|uptime| uptime.as_secs());
    Some(verdict.is(
        CauseId::HalfOpen,
        Confidence::Likely,
        [
            case.why(),
            Some(met),
            Some(Fact::segment(segment)),
            uptime.filter(|s| *s < LATELY_BOOTED_S).map(Fact::Booted),
        ],
    ))
}

impl Case<'_> {
    /// That the segment met no socket, or a listener that does not know its connection, as
    /// evidence. A listener whose queue is full answers the end of a handshake in the same way: the
    /// kernel's reason tells the two apart, or else the queue.
    fn met_no_connection(&self) -> Option<Fact> {
        match self.reason() {
            None | Some(Reason::NoSocket) if self.met_no_socket() => Some(Fact::NoSocket),
            Some(Reason::Flags) if self.met_listener() => Some(Fact::Listener),
            None if self.met_listener() && self.queue_is_full() != Some(true) => {
                Some(Fact::Listener)
            }
            _ => None,
        }
    }

    /// A segment that starts nothing, for a connection that is remembered and gone: what it met,
    /// and what is remembered.
    fn stray(&self) -> Option<(Fact, &Past)> {
        let segment = self.event.segment.as_ref()?;
        let starts_anew = is_first_syn(segment);
        let past = self.event.past.as_ref().filter(|_| !starts_anew)?;
        Some((self.met_no_connection()?, past))
    }

    /// How sure it is that a segment belongs to the remembered connection: certain within the time
    /// in which the tuple is not used again, unless a full queue could look the same.
    fn sure_of(&self, past: &Past) -> Confidence {
        let lately = past.closed_ago_ns.is_some_and(|ns| ns < SAME_CONNECTION_NS);
        let told = if self.met_listener() {
            self.reason() == Some(Reason::Flags)
        } else {
            self.is_told(Reason::NoSocket)
        };
        Confidence::certain_if(lately && told)
    }

    /// The SYN that opens a connection, if it met no socket.
    fn first_syn(&self) -> Option<&Segment> {
        self.event
            .segment
            .as_ref()
            .filter(|segment| self.met_no_socket() && is_first_syn(segment))
    }

    /// Whether the SYN that opens a connection met no socket, and the kernel has nothing else to say.
    pub(super) fn is_stray_opening(&self) -> bool {
        self.first_syn().is_some() && matches!(self.reason(), None | Some(Reason::NoSocket))
    }

    /// The listener's queue and its limit, as evidence.
    fn backlog(&self) -> Option<Fact> {
        let (waiting, limit) = self
            .event
            .socket
            .as_ref()
            .and_then(|Socket { backlog, .. }| *backlog)?;
        Some(Fact::Backlog(waiting, limit))
    }
}

/// Whether `segment` opens a connection.
const fn is_first_syn(segment: &Segment) -> bool {
    segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::ACK)
}

/// Whether `segment` accepts a connect.
const fn is_syn_ack(segment: &Segment) -> bool {
    segment.flags.has(TcpFlags::SYN | TcpFlags::ACK)
}
