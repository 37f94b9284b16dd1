//! Tables for the rules of [`super::super::aborts`] that the tables beside this do not have.

use super::*;

const STATE: Option<Reason> = Some(Reason::State);

fn dying(event: Event, change: impl FnOnce(&mut Actor)) -> Event {
    with(event, |event| {
        let actor = event.actor.as_mut().expect("an actor");
        actor.exiting = true;
        change(actor);
    })
}

/// A connection that no process holds, in `state`.
fn orphan(path: Path, context: Context, reason: Option<Reason>, state: TcpState) -> Event {
    with(active(path, context, reason), |event| {
        event.state = Some(state);
        let socket = event.socket.as_mut().expect("a socket");
        socket.unread = 0;
        socket.orphan = true;
        socket.held = false;
    })
}

fn no_wait(event: Event) -> Event {
    with_socket(event, |socket| socket.no_fin_wait2 = true)
}

/// A connection that nobody has accepted.
fn unclaimed(path: Path, context: Context, reason: Option<Reason>) -> Event {
    with_socket(active(path, context, reason), |socket| {
        socket.unread = 0;
        socket.held = false;
        socket.rcv_shutdown = false;
        socket.send_shutdown = false;
    })
}

fn open(path: Path, reason: Option<Reason>) -> Event {
    with_socket(active(path, Context::Process, reason), |socket| {
        socket.unread = 0;
        socket.rcv_shutdown = false;
        socket.send_shutdown = false;
    })
}

#[track_caller]
fn sentence(event: &Event, sentence: &str) {
    let verdict = classify(event, &TALKS);
    assert_eq!(summary(event, &verdict).to_string(), sentence);
}

#[test]
fn a_process_that_was_killed_or_failed_is_told_from_one_that_ended() {
    use CauseId::{ClosedWithUnreadData, LingerAbort, ProcessDied, Unknown};
    use Confidence::{Certain, Likely, Possible};
    let on_close = Some(Reason::AbortOnClose);
    let signal = |event, signal| dying(event, |actor| actor.signal = Some(signal));
    let status = |event, status| dying(event, |actor| actor.exit_status = Some(status));
    check(vec![
        (
            "killed",
            signal(unread(on_close), 9),
            TALKS,
            ProcessDied,
            Certain,
        ),
        (
            "killed, silent",
            signal(unread(None), 9),
            SILENT,
            ProcessDied,
            Certain,
        ),
        (
            "killed, silent, no stack",
            signal(active(Path::Unknown, Context::Process, None), 9),
            SILENT,
            ProcessDied,
            Likely,
        ),
        (
            "crashed",
            signal(unread(on_close), 11),
            TALKS,
            ProcessDied,
            Certain,
        ),
        (
            "failed",
            status(unread(on_close), 1),
            TALKS,
            ProcessDied,
            Certain,
        ),
        (
            "killed, SO_LINGER 0",
            signal(linger(Path::Close, STATE), 9),
            TALKS,
            ProcessDied,
            Certain,
        ),
        (
            "exit(0)",
            status(unread(on_close), 0),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "status unknown",
            dying(unread(on_close), |_| {}),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "exit(0), SO_LINGER 0",
            status(linger(Path::Close, STATE), 0),
            TALKS,
            LingerAbort,
            Certain,
        ),
        (
            "a signal that is only pending",
            with(signal(unread(on_close), 9), |event| {
                event.actor.as_mut().expect("an actor").exiting = false;
            }),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "kernel thread",
            with(signal(unread(on_close), 9), |event| {
                event.actor.as_mut().expect("an actor").kernel_thread = true;
            }),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "killed, but no mechanism",
            signal(with_socket(unread(STATE), |socket| socket.unread = 0), 9),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
    let oom = dying(unread(on_close), |actor| {
        actor.signal = Some(9);
        actor.oom = true;
    });
    let verdict = classify(&oom, &TALKS);
    assert_eq!(
        verdict.facts.as_slice(),
        [
            Fact::Ending(End::OomKilled),
            Fact::Reason(Reason::AbortOnClose),
            Fact::Unread(64),
            Fact::Path(Path::Close),
        ]
    );
    sentence(
        &oom,
        "nginx[812] was killed by the OOM killer with the connection to 10.0.0.9:51234 open, \
         64 bytes still unread",
    );
    sentence(
        &status(unread(on_close), 1),
        "nginx[812] exited with status 1 with the connection to 10.0.0.9:51234 open, \
         64 bytes still unread",
    );
    sentence(
        &status(unread(on_close), 0),
        "nginx[812] exited with 64 bytes still unread",
    );
}

#[test]
fn a_closed_listener_is_told_from_a_closed_connection() {
    use CauseId::{ListenerClosed, Unknown};
    use Confidence::{Certain, Likely, Possible};
    use Context::{Interrupt, Process};
    check(vec![
        (
            "named",
            unclaimed(Path::ListenerClose, Process, STATE),
            TALKS,
            ListenerClosed,
            Certain,
        ),
        (
            "silent",
            unclaimed(Path::ListenerClose, Process, None),
            SILENT,
            ListenerClosed,
            Certain,
        ),
        (
            "talking kernel, no reason",
            unclaimed(Path::ListenerClose, Process, None),
            TALKS,
            ListenerClosed,
            Likely,
        ),
        (
            "no stack",
            unclaimed(Path::Unknown, Context::Unknown, STATE),
            TALKS,
            ListenerClosed,
            Likely,
        ),
        (
            "silent, no stack",
            unclaimed(Path::Unknown, Process, None),
            SILENT,
            ListenerClosed,
            Likely,
        ),
        (
            "in a timer",
            unclaimed(Path::Unknown, Interrupt, STATE),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "held",
            with_socket(unclaimed(Path::Unknown, Process, STATE), |socket| {
                socket.held = true;
            }),
            TALKS,
            Unknown,
            Possible,
        ),
    ]);
    let closed = unclaimed(Path::ListenerClose, Process, STATE);
    sentence(
        &closed,
        "nginx[812] closed its listener before it had accepted 10.0.0.9:51234 on port 8080",
    );
    sentence(
        &dying(closed, |actor| actor.signal = Some(9)),
        "nginx[812] was killed by SIGKILL before it had accepted 10.0.0.9:51234 on port 8080",
    );
}

#[test]
fn an_end_in_fin_wait2_is_told_from_too_many_orphans() {
    use CauseId::{FinWait2Timeout, OrphanLimit, Unknown};
    use Confidence::{Certain, Likely, Possible};
    use Context::{Interrupt, Process};
    use TcpState::{Established, FinWait1, FinWait2};
    let close = |reason, state| orphan(Path::Close, Process, reason, state);
    let timer = |path, reason, state| orphan(path, Interrupt, reason, state);
    let on_linger = Some(Reason::AbortOnLinger);
    let on_memory = Some(Reason::AbortOnMemory);
    let keepalive = Path::KeepaliveTimer;
    check(vec![
        (
            "TCP_LINGER2",
            no_wait(close(on_linger, FinWait2)),
            TALKS,
            FinWait2Timeout,
            Certain,
        ),
        (
            "TCP_LINGER2, silent",
            no_wait(close(None, FinWait2)),
            SILENT,
            FinWait2Timeout,
            Certain,
        ),
        (
            "TCP_LINGER2, no reason",
            no_wait(close(None, FinWait2)),
            TALKS,
            FinWait2Timeout,
            Likely,
        ),
        (
            "timer",
            timer(keepalive, STATE, FinWait2),
            TALKS,
            FinWait2Timeout,
            Certain,
        ),
        (
            "timer, silent",
            timer(keepalive, None, FinWait2),
            SILENT,
            FinWait2Timeout,
            Certain,
        ),
        (
            "timer, silent, state unseen",
            with(timer(keepalive, None, FinWait2), |event| event.state = None),
            SILENT,
            FinWait2Timeout,
            Likely,
        ),
        (
            "timer, no stack",
            timer(Path::Unknown, STATE, FinWait2),
            TALKS,
            FinWait2Timeout,
            Likely,
        ),
        (
            "timer, other state",
            timer(keepalive, None, FinWait1),
            SILENT,
            Unknown,
            Possible,
        ),
        (
            "memory",
            close(on_memory, Established),
            TALKS,
            OrphanLimit,
            Certain,
        ),
        (
            "memory, timer",
            timer(Path::WriteTimer, on_memory, FinWait1),
            TALKS,
            OrphanLimit,
            Certain,
        ),
        (
            "memory, silent",
            close(None, Established),
            SILENT,
            OrphanLimit,
            Certain,
        ),
        (
            "memory, silent, FIN_WAIT2",
            close(None, FinWait2),
            SILENT,
            OrphanLimit,
            Certain,
        ),
        (
            "memory or TCP_LINGER2, silent",
            with(no_wait(close(None, FinWait2)), |event| event.state = None),
            SILENT,
            OrphanLimit,
            Likely,
        ),
        (
            "memory, silent, timer",
            timer(Path::WriteTimer, None, FinWait1),
            SILENT,
            OrphanLimit,
            Certain,
        ),
        (
            "memory, no reason",
            close(None, Established),
            TALKS,
            OrphanLimit,
            Likely,
        ),
    ]);
    sentence(
        &no_wait(close(on_linger, FinWait2)),
        "nginx[812] had closed the connection, and 10.0.0.9:51234 did not close it too at once \
         (TCP_LINGER2)",
    );
    sentence(
        &timer(keepalive, STATE, FinWait2),
        "nginx[812] had closed the connection, and 10.0.0.9:51234 did not close it too in time",
    );
    sentence(
        &close(on_memory, Established),
        "the kernel has too many closed connections to finish, or no memory for them: it gave up \
         that of nginx[812] with 10.0.0.9:51234",
    );
}

#[test]
fn a_disconnect_is_told_from_a_close_and_from_a_killer() {
    use CauseId::{Disconnect, SocketDestroyed, Unknown};
    use Confidence::{Certain, Likely, Possible};
    let with_data = Some(Reason::DisconnectWithData);
    check(vec![
        (
            "named",
            open(Path::Disconnect, STATE),
            TALKS,
            Disconnect,
            Certain,
        ),
        (
            "with data",
            open(Path::Disconnect, with_data),
            TALKS,
            Disconnect,
            Certain,
        ),
        (
            "silent",
            open(Path::Disconnect, None),
            SILENT,
            Disconnect,
            Certain,
        ),
        (
            "no reason",
            open(Path::Disconnect, None),
            TALKS,
            Disconnect,
            Likely,
        ),
        (
            "with data, no stack",
            open(Path::Unknown, with_data),
            TALKS,
            Disconnect,
            Likely,
        ),
        (
            "no stack",
            open(Path::Unknown, STATE),
            TALKS,
            Unknown,
            Possible,
        ),
        (
            "killer",
            open(Path::Destroy, STATE),
            TALKS,
            SocketDestroyed,
            Certain,
        ),
        (
            "killer, silent",
            open(Path::Destroy, None),
            SILENT,
            SocketDestroyed,
            Certain,
        ),
        (
            "killer, no reason",
            open(Path::Destroy, None),
            TALKS,
            SocketDestroyed,
            Likely,
        ),
    ]);
    let killed = with(open(Path::Destroy, STATE), |event| {
        event.actor = Some(fixture::actor(99, "ss"));
    });
    sentence(
        &killed,
        "ss[99] destroyed the connection of nginx[812] with 10.0.0.9:51234",
    );
    assert!(classify(&killed, &TALKS).facts.contains(&Fact::Destroyer {
        comm: fixture::process(99, "ss").comm,
        pid: 99
    }));
    sentence(
        &open(Path::Disconnect, STATE),
        "nginx[812] took its socket off 10.0.0.9:51234 (connect to AF_UNSPEC)",
    );
}

#[test]
fn multipath_tcp_is_told_from_what_it_does_like_tcp() {
    use CauseId::{ClosedWithUnreadData, KeepaliveTimeout, Mptcp, SocketDestroyed};
    use Confidence::{Certain, Likely};
    let subflow = |path, reason| {
        with_socket(active(path, Context::Process, reason), |socket| {
            socket.mptcp = true;
        })
    };
    let rule = Some(Reason::Other("MPTCP_RST_EBADPERF"));
    check(vec![
        ("rule", subflow(Path::Unknown, rule), TALKS, Mptcp, Certain),
        (
            "fast close",
            subflow(Path::Mptcp, Some(Reason::AbortOnClose)),
            TALKS,
            Mptcp,
            Certain,
        ),
        ("stack", subflow(Path::Mptcp, STATE), TALKS, Mptcp, Certain),
        (
            "stack, silent",
            subflow(Path::Mptcp, None),
            SILENT,
            Mptcp,
            Certain,
        ),
        (
            "no stack, silent",
            subflow(Path::Unknown, None),
            SILENT,
            Mptcp,
            Likely,
        ),
        (
            "no subflow",
            active(Path::Mptcp, Context::Process, STATE),
            TALKS,
            Mptcp,
            Likely,
        ),
        (
            "no subflow, unread",
            active(Path::Mptcp, Context::Process, Some(Reason::AbortOnClose)),
            TALKS,
            ClosedWithUnreadData,
            Certain,
        ),
        (
            "destroyed",
            subflow(Path::Destroy, STATE),
            TALKS,
            SocketDestroyed,
            Certain,
        ),
        (
            "keepalive",
            subflow(Path::KeepaliveTimer, Some(Reason::KeepaliveTimeout)),
            TALKS,
            KeepaliveTimeout,
            Certain,
        ),
    ]);
    sentence(
        &subflow(Path::Unknown, rule),
        "multipath TCP ended a subflow of nginx[812] to 10.0.0.9:51234, kernel reason \
         MPTCP_RST_EBADPERF",
    );
}

#[test]
fn a_keepalive_timeout_gives_probes_silence_and_user_timeout() {
    let event = with_socket(
        keepalive(
            Path::KeepaliveTimer,
            Context::Interrupt,
            Some(Reason::KeepaliveTimeout),
        ),
        |socket| {
            socket.idle_rx_ns = Some(75 * SECOND);
            socket.idle_ack_ns = Some(75 * SECOND);
            socket.user_timeout_ms = Some(3_000);
        },
    );
    assert_eq!(
        classify(&event, &TALKS).facts.as_slice(),
        [
            Fact::Reason(Reason::KeepaliveTimeout),
            Fact::Path(Path::KeepaliveTimer),
            Fact::Probes(3),
            Fact::Heard(75 * SECOND),
            Fact::UserTimeout(3_000),
        ]
    );
}
