//! This host reset a connection of its own accord (`tcp_send_active_reset`).

use super::{
    Case, CauseId, Confidence, Context, Decided, End, Fact, MAX_FACTS, Path, Reason, Rule, Socket,
    TcpState, Trigger, Verdict, is_mptcp_reason, shutdown,
};

/// The most specific first: what the kernel's reason alone decides stands before what takes a
/// stack.
pub(super) const RULES: &[Rule] = &[
    mptcp,
    socket_destroyed,
    listener_closed,
    process_died,
    closed_with_unread_data,
    linger_abort,
    fin_wait2_timeout,
    orphan_limit,
    keepalive_timeout,
    disconnect,
];

/// `mptcp`. Decides: the kernel's `MPTCP_RST_*` (since 6.12 here); its `TCP_ABORT_ON_CLOSE` for a
/// subflow, whose bytes nobody reads but the connection above it: the fast close; else a stack
/// through `mptcp_*`, or on a silent kernel the close of a subflow.
fn mptcp(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let Trigger::Active { path, context } = case.event.trigger else {
        return None;
    };
    let subflow = case.event.socket.is_some_and(|socket| socket.mptcp);
    let confidence = match (case.reason(), path) {
        (Some(reason), _) if is_mptcp_reason(reason) => Confidence::Certain,
        (Some(Reason::AbortOnClose), _) if subflow => Confidence::Certain,
        (Some(Reason::State | Reason::DisconnectWithData), Path::Mptcp) => {
            Confidence::certain_if(subflow)
        }
        (None, Path::Mptcp) => Confidence::certain_if(subflow && case.is_silent()),
        (None, Path::Close | Path::Unknown) if subflow && context != Context::Interrupt => {
            Confidence::Likely
        }
        _ => return None,
    };
    Some(verdict.is(
        CauseId::Mptcp,
        confidence,
        [
            case.why(),
            subflow.then_some(Fact::Mptcp),
            case.path(),
            case.ending(),
        ],
    ))
}

/// `socket-destroyed`. Decides: the stack goes through `tcp_abort`. Since 6.12 the kernel calls it
/// `TCP_STATE`, as it calls much else: without a stack it cannot be told.
fn socket_destroyed(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let confidence = case.on_path(Path::Destroy)?;
    let killer = case.event.actor.as_ref();
    Some(verdict.is(
        CauseId::SocketDestroyed,
        confidence,
        [
            case.path(),
            killer.map(|actor| Fact::Destroyer {
                comm: actor.process.comm,
                pid: actor.process.pid,
            }),
            case.why(),
            case.event.state.map(Fact::State),
        ],
    ))
}

/// `listener-closed`. Decides: the stack goes through `inet_csk_listen_stop`. Without a stack: a
/// connection that no process has held yet (it has no file, and is no orphan), with neither side
/// shut down.
fn listener_closed(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let confidence = case
        .on_path(Path::ListenerClose)
        .or_else(|| looks_unclaimed(case).then_some(Confidence::Likely))?;
    let unclaimed = case
        .event
        .socket
        .filter(|socket| !socket.held && !socket.orphan);
    Some(verdict.is(
        CauseId::ListenerClosed,
        confidence,
        [
            case.path(),
            unclaimed.map(|_| Fact::NotAccepted),
            case.why(),
            case.ending(),
        ],
    ))
}

/// Whether a reset without a stack is that of a connection which nobody had accepted.
fn looks_unclaimed(case: &Case<'_>) -> bool {
    let Trigger::Active {
        path: Path::Unknown,
        context: Context::Process | Context::Unknown,
    } = case.event.trigger
    else {
        return false;
    };
    let told = match case.reason() {
        Some(reason) => reason == Reason::State,
        None => case.is_silent(),
    };
    told && case.event.socket.is_some_and(|socket| {
        let open = !socket.rcv_shutdown && !socket.send_shutdown;
        open && !socket.held && !socket.orphan && !socket.mptcp
    })
}

/// `process-died`. Decides: the process was killed by a signal or by the OOM killer, or ended with
/// a status other than 0, as an uncaught error makes a program do, and the kernel closed its
/// sockets for it. That alone sends no RST: the unread bytes or `SO_LINGER` 0 that did stand in the
/// evidence, and the verdict is as sure as they are. A process that ends with 0 closes as any other
/// does, and keeps their causes.
fn process_died(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let death = case
        .ending()
        .filter(|ending| matches!(ending, Fact::Ending(end) if end.is_death()))?;
    let decided = closed_with_unread_data(case, verdict).or_else(|| linger_abort(case, verdict))?;
    verdict.id = CauseId::ProcessDied;
    verdict.facts.retain(|fact| *fact != death);
    // The mechanism has fewer facts than there is room for, its own death among them.
    const { assert!(MECHANISM_FACTS <= MAX_FACTS) };
    verdict.facts.insert(0, death);
    Some(decided)
}

/// The most facts of the rules that [`process_died`] builds on.
const MECHANISM_FACTS: usize = 6;

/// `closed-with-unread-data`. Decides: the kernel's `TCP_ABORT_ON_CLOSE` (since 6.12), which the
/// fast close of a multipath connection gives as well; on a silent kernel: unread bytes in a socket
/// that its process closes. There `SO_LINGER` 0 looks the same, if the one byte that counts as
/// unread is the peer's FIN.
fn closed_with_unread_data(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
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
    let facts: [_; MECHANISM_FACTS] = [
        case.why(),
        socket
            .filter(|socket| socket.unread > 0)
            .map(|socket| Fact::Unread(socket.unread)),
        case.path(),
        case.ending(),
        socket.and_then(|socket| socket.linger_s).map(Fact::Linger),
        None,
    ];
    Some(verdict.is(CauseId::ClosedWithUnreadData, confidence, facts))
}

/// `linger-abort`. Decides: `SO_LINGER` on with 0 in a socket that its process closes. Since 6.12
/// the kernel calls that `TCP_STATE` or `TCP_DISCONNECT_WITH_DATA`, as it calls a disconnect, which
/// without a stack looks the same after a shutdown of both sides.
fn linger_abort(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
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
    let facts: [_; MECHANISM_FACTS] = [
        Some(Fact::Linger(0)),
        case.why(),
        case.path(),
        Some(shutdown(socket)),
        (socket.unacked > 0).then_some(Fact::Unacked(socket.unacked)),
        case.ending(),
    ];
    Some(verdict.is(
        CauseId::LingerAbort,
        Confidence::certain_if(told && path == Path::Close && !socket.orphan),
        facts,
    ))
}

/// `fin-wait2-timeout`, of the host's own accord. Decides, in this order:
/// - the kernel's `TCP_ABORT_ON_LINGER` (since 6.12): a close in FIN_WAIT2 with a negative
///   `TCP_LINGER2`; on a silent kernel the socket and the stack say as much;
/// - the keepalive timer, which also ends orphans in FIN_WAIT2, and then says `TCP_STATE`.
///
/// Most connections that wait in FIN_WAIT2 become TIME_WAIT sockets and end without a RST.
fn fin_wait2_timeout(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let Trigger::Active { path, context } = case.event.trigger else {
        return None;
    };
    let socket = case.event.socket;
    let orphan = socket.is_some_and(|socket| socket.orphan);
    let no_wait = socket.is_some_and(|socket| socket.no_fin_wait2);
    let waited = case.event.state == Some(TcpState::FinWait2);
    let may_have_waited = waited || case.event.state.is_none();
    let confidence = match (case.reason(), path) {
        (Some(Reason::AbortOnLinger), _) | (Some(Reason::State), Path::KeepaliveTimer) => {
            Confidence::Certain
        }
        (None, Path::Close) if orphan && no_wait && waited => {
            Confidence::certain_if(case.is_silent())
        }
        (None, Path::KeepaliveTimer) if orphan && may_have_waited => {
            Confidence::certain_if(case.is_silent() && waited)
        }
        (None | Some(Reason::State), Path::Unknown)
            if orphan && waited && context == Context::Interrupt =>
        {
            Confidence::Likely
        }
        _ => return None,
    };
    Some(verdict.is(
        CauseId::FinWait2Timeout,
        confidence,
        [
            case.why(),
            no_wait.then_some(Fact::NoFinWait2),
            case.event.state.map(Fact::State),
            orphan.then_some(Fact::Orphan),
            case.path(),
            case.silence_ns().map(Fact::Heard),
        ],
    ))
}

/// `orphan-limit`. Decides: the kernel's `TCP_ABORT_ON_MEMORY` (since 6.12); on a silent kernel:
/// the retransmission timer, which resets for nothing else, or a close that had already let go of
/// the socket and does not end a FIN_WAIT2 that it must not wait in.
fn orphan_limit(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let Trigger::Active { path, .. } = case.event.trigger else {
        return None;
    };
    let socket = case.event.socket;
    let orphan = socket.is_some_and(|socket| socket.orphan);
    let confidence = match (case.reason(), path) {
        (Some(Reason::AbortOnMemory), _) => Confidence::Certain,
        (None, Path::WriteTimer) => Confidence::certain_if(case.is_silent()),
        (None, Path::Close) if orphan => {
            let no_wait = socket.is_some_and(|socket| socket.no_fin_wait2);
            let state_says = case
                .event
                .state
                .is_some_and(|state| state != TcpState::FinWait2);
            Confidence::certain_if(case.is_silent() && (state_says || !no_wait))
        }
        _ => return None,
    };
    Some(verdict.is(
        CauseId::OrphanLimit,
        confidence,
        [
            case.why(),
            case.path(),
            orphan.then_some(Fact::Orphan),
            case.event.state.map(Fact::State),
            case.unacked(),
        ],
    ))
}

/// `keepalive-timeout`. Decides: the kernel's `TCP_KEEPALIVE_TIMEOUT` (since 6.12); on a silent
/// kernel: the keepalive timer reset a socket with `SO_KEEPALIVE` and probes without an answer,
/// that a process still held (that timer ends an orphan in FIN_WAIT2 as well).
fn keepalive_timeout(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
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
    Some(
        verdict.is(
            CauseId::KeepaliveTimeout,
            confidence,
            [
                case.why(),
                case.path(),
                socket
                    .filter(|socket| socket.probes_out > 0)
                    .map(|socket| Fact::Probes(socket.probes_out)),
                case.silence_ns().map(Fact::Heard),
                socket
                    .and_then(|socket| socket.user_timeout_ms)
                    .map(Fact::UserTimeout),
            ],
        ),
    )
}

/// `disconnect`. Decides: the stack goes through `tcp_disconnect` and no close. Since 6.12 the
/// kernel calls it `TCP_STATE` or `TCP_DISCONNECT_WITH_DATA`; without a stack the second one, for a
/// socket that is not shut down, is no close.
fn disconnect(case: &Case<'_>, verdict: &mut Verdict) -> Option<Decided> {
    let confidence = case
        .on_path(Path::Disconnect)
        .or_else(|| looks_disconnected(case).then_some(Confidence::Likely))?;
    Some(verdict.is(
        CauseId::Disconnect,
        confidence,
        [
            case.why(),
            case.path(),
            case.event.state.map(Fact::State),
            case.unacked(),
        ],
    ))
}

/// Whether a reset without a stack is that of a socket which is taken off its peer.
fn looks_disconnected(case: &Case<'_>) -> bool {
    let Trigger::Active {
        path: Path::Unknown,
        ..
    } = case.event.trigger
    else {
        return false;
    };
    let closed = |socket: Socket| socket.rcv_shutdown && socket.send_shutdown;
    case.reason() == Some(Reason::DisconnectWithData)
        && case.event.socket.is_some_and(|socket| !closed(socket))
}

impl Case<'_> {
    /// How sure a path of the stack is that the kernel calls `TCP_STATE` or
    /// `TCP_DISCONNECT_WITH_DATA` since 6.12; `None` when the stack shows another one, or the reason
    /// contradicts it.
    fn on_path(&self, wanted: Path) -> Option<Confidence> {
        let Trigger::Active { path, .. } = self.event.trigger else {
            return None;
        };
        match self.reason() {
            _ if path != wanted => None,
            Some(Reason::State | Reason::DisconnectWithData) => Some(Confidence::Certain),
            None => Some(Confidence::certain_if(self.is_silent())),
            Some(_) => None,
        }
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

    /// How the actor was ending, as evidence. A signal that was only pending ended nothing.
    pub(super) fn ending(&self) -> Option<Fact> {
        let actor = self.event.actor.as_ref()?;
        if !actor.exiting || actor.kernel_thread {
            return None;
        }
        Some(Fact::Ending(End::of(actor)))
    }
}
