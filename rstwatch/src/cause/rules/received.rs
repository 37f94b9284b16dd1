//! This host received a RST (`tcp_reset`).

use super::{
    Case, CauseId, Confidence, Decided, Event, Fact, Rule, Socket, TcpState, Verdict, idle,
};

/// The most specific first.
pub(super) const RULES: &[Rule] = &[
    refused,
    handshake_reset,
    idle_drop,
    peer_gone,
    reset_during_close,
    peer_aborted,
];

/// How lately the peer must have been heard for an exchange to count as active: the shortest idle
/// limit in common use (Node.js and Apache keep-alive), less what a timer may be early.
const ACTIVE_NS: u64 = 4_900_000_000;

/// From which silence on an idle limit is likelier than a failure of the peer at this very moment.
const IDLE_NS: u64 = 60_000_000_000;

/// How lately data must have been sent for a RST to be the answer to it: above any usual round trip.
const ANSWER_NS: u64 = 1_000_000_000;

/// `refused`. Decides: the RST came in SYN_SENT. That the connect was refused is certain; whether
/// by the peer or by a firewall, the evidence leaves open.
fn refused(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    (case.event.state == Some(TcpState::SynSent)).then(|| {
        verdict.is(
            CauseId::Refused,
            Confidence::Certain,
            [
                Some(Fact::State(TcpState::SynSent)),
                Some(Fact::HostOrFirewall),
            ],
        )
    })
}

/// `handshake-reset`. Decides: the RST came in SYN_RECV. Only a fast open or a simultaneous open
/// has a socket then; for a usual handshake the kernel drops its request and no hook sees it.
fn handshake_reset(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    (case.event.state == Some(TcpState::SynRecv)).then(|| {
        verdict.is(
            CauseId::HandshakeReset,
            Confidence::Certain,
            [Some(Fact::State(TcpState::SynRecv)), case.unacked()],
        )
    })
}

/// `idle-drop`. Decides: in ESTABLISHED, what this host sent after a silence was answered with the
/// RST. Likely after a minute, or where the silence is a known limit; never certain, because the
/// peer may have failed at just that request. When the peer is on this host, its own end says
/// whether it had forgotten the connection.
fn idle_drop(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let Event {
        state: Some(TcpState::Established),
        socket: Some(socket),
        peer,
        ..
    } = case.event
    else {
        return None;
    };
    let sent_ns = socket.idle_tx_ns.filter(|ns| *ns < ANSWER_NS)?;
    let idle_ns = case
        .silence_ns()?
        .checked_sub(sent_ns)
        .filter(|ns| socket.unacked > 0 && *ns >= ACTIVE_NS)?;
    let forgotten = peer.as_ref().is_none_or(|peer| {
        [
            CauseId::HalfOpen,
            CauseId::LateSegment,
            CauseId::ConnectionTimedOut,
            CauseId::DataAfterClose,
        ]
        .into_iter()
        .any(|cause| cause.name() == peer.cause)
    });
    let limit = idle::limit(idle_ns);
    forgotten.then(|| {
        verdict.is(
            CauseId::IdleDrop,
            if limit.is_some() || idle_ns >= IDLE_NS {
                Confidence::Likely
            } else {
                Confidence::Possible
            },
            [
                Some(Fact::State(TcpState::Established)),
                Some(Fact::Idle(idle_ns)),
                limit.map(Fact::IdleLimit),
                case.sent(),
                case.unacked(),
            ],
        )
    })
}

/// `peer-gone`. Decides: the RST came in `CLOSE_WAIT`. Likely where this host has just sent; else
/// the peer may as well have aborted after its FIN, and when it is on this host, its own end says
/// so. The silence before the FIN (which is the last ACK that was heard) may be an idle limit of the
/// peer.
fn peer_gone(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    (case.event.state == Some(TcpState::CloseWait) && !peer_is_aborting(case)).then(|| {
        let socket = case.event.socket.as_ref();
        let has_sent = socket.is_some_and(|socket| {
            socket.unacked > 0 || socket.idle_tx_ns.is_some_and(|ns| ns < ANSWER_NS)
        });
        let before_fin = socket.and_then(
            |Socket {
                 idle_rx_ns,
                 idle_ack_ns,
                 ..
             }| idle_rx_ns.as_ref()?.checked_sub((*idle_ack_ns)?),
        );
        verdict.is(
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
                before_fin.and_then(idle::limit).map(Fact::IdleLimit),
            ],
        )
    })
}

/// `reset-during-close`. Decides: the RST came after this host's FIN, which the state alone says.
fn reset_during_close(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let state = case.event.state?;
    let ours_first = matches!(
        state,
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck
    );
    ours_first.then(|| {
        let orphan = case.event.socket.is_some_and(|socket| socket.orphan);
        verdict.is(
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

/// Whether the peer, on this host, reset the connection of its own accord, and not in answer to
/// what was sent to it.
fn peer_is_aborting(case: &Case<'_>) -> bool {
    case.event.peer.as_ref().is_some_and(|peer| {
        [
            CauseId::ClosedWithUnreadData,
            CauseId::LingerAbort,
            CauseId::ProcessDied,
            CauseId::SocketDestroyed,
            CauseId::Disconnect,
        ]
        .into_iter()
        .any(|cause| cause.name() == peer.cause)
    })
}

/// `peer-aborted`. Decides: the RST came in ESTABLISHED; or in `CLOSE_WAIT`, where the peer's own end
/// says that it aborted after its FIN. Likely while the exchange was active; after a silence a load
/// balancer or NAT that forgot the connection looks the same.
fn peer_aborted(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let state = case.event.state.filter(|state| match state {
        TcpState::Established => true,
        TcpState::CloseWait => peer_is_aborting(case),
        _ => false,
    });
    state.map(|state| {
        let active = case.silence_ns().is_some_and(|ns| ns < ACTIVE_NS);
        verdict.is(
            CauseId::PeerAborted,
            if active {
                Confidence::Likely
            } else {
                Confidence::Possible
            },
            [
                Some(Fact::State(state)),
                case.silence_ns().map(Fact::Heard),
                case.sent(),
                case.unacked(),
                Some(Fact::HostOrFirewall),
            ],
        )
    })
}
