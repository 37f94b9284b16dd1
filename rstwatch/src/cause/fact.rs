//! The evidence that a verdict rests on: small values that print one line each.
//!
//! Which facts speak for which cause is decided in [`super::rules`].

use std::fmt;

use super::{
    idle::{IdleLimit, TOLERANCE_PERCENT},
    prose::{Bytes, Piece, Prose, Seconds, Signal, Waiting, display, say},
};
use crate::event::{Actor, Comm, Ended, Listening, Path, Reason, Segment, TcpFlags, TcpState};

/// One piece of evidence. [`Fact::tell`] gives the line that an operator reads, and so does [`fmt::Display`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The kernel's own reason.
    Reason(Reason),
    /// The running kernel names no reason for this kind of reset.
    NoReason,
    /// The segment met no socket.
    NoSocket,
    /// The segment met a listener.
    Listener,
    /// Connections waiting to be accepted, and the limit of the listener's queue.
    Backlog(u32, u32),
    /// The segment met a TIME_WAIT socket in this sub-state.
    TimeWait(TcpState),
    /// The state before the reset.
    State(TcpState),
    /// Flags and bytes of payload of the segment that drew the reset.
    Segment(TcpFlags, u32),
    /// Bytes received and not read.
    Unread(u32),
    /// Bytes sent and not acknowledged.
    Unacked(u32),
    /// `SO_LINGER` is on with so many seconds.
    Linger(u64),
    /// `TCP_LINGER2` is negative.
    NoFinWait2,
    /// The sides of the socket that are shut down.
    Shutdown {
        /// Receiving.
        receive: bool,
        /// Sending.
        send: bool,
    },
    /// No process held the socket any more.
    Orphan,
    /// A subflow of a multipath TCP connection.
    Mptcp,
    /// What the kernel was doing.
    Path(Path),
    /// Keepalive or window probes without an answer.
    Probes(u8),
    /// Nanoseconds since the peer was last heard: data or an ACK.
    Heard(u64),
    /// Nanoseconds since data was last sent.
    Sent(u64),
    /// What is known of the closed connection that the segment belonged to.
    Past {
        /// How it ended.
        ended: Ended,
        /// Nanoseconds since it ended; `None` when that was not seen.
        closed_ago_ns: Option<u64>,
        /// Nanoseconds from its beginning until then.
        lasted_ns: Option<u64>,
        /// The state it was closed in.
        state: Option<TcpState>,
    },
    /// Who listens, or listened last, on the port.
    Listened {
        /// The process's name.
        comm: Comm,
        /// The process.
        pid: u32,
        /// How it ended, and nanoseconds since then; `None` while it listens, which is then at
        /// another address.
        ended: Option<(End, u64)>,
    },
    /// How the process was ending as it closed the connection.
    Ending(End),
    /// The connection waited to be accepted.
    NotAccepted,
    /// Who destroyed the socket.
    Destroyer {
        /// The process's name.
        comm: Comm,
        /// The process.
        pid: u32,
    },
    /// Nanoseconds without a sign of the peer before data was sent.
    Idle(u64),
    /// That silence is what this limit allows.
    IdleLimit(&'static IdleLimit),
    /// `TCP_USER_TIMEOUT` in milliseconds.
    UserTimeout(u32),
    /// Closed ports that the sender tried within [`crate::scan::WINDOW`].
    Scan(u32),
    /// The other end is on this host, and its cause is this.
    Peer(&'static str),
    /// The host booted so many seconds before.
    Booted(u64),
    /// The peer and a firewall before it cannot be told apart.
    HostOrFirewall,
}

/// How a process let go of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It closed it, and went on.
    Closed,
    /// It exited, with this status when it is known.
    Exited(Option<u8>),
    /// A signal killed it.
    Killed(u8),
    /// The OOM killer killed it.
    OomKilled,
}

impl End {
    /// What `actor` was doing. A signal that was only pending ended nothing.
    pub const fn of(actor: &Actor) -> Self {
        match (actor.exiting, actor.oom, actor.signal) {
            (false, ..) => Self::Closed,
            (true, true, Some(_)) => Self::OomKilled,
            (true, _, Some(signal)) => Self::Killed(signal),
            (true, _, None) => Self::Exited(actor.exit_status),
        }
    }

    /// Whether it was killed, or failed: ended with a status other than 0.
    pub const fn is_death(self) -> bool {
        match self {
            Self::Closed | Self::Exited(None | Some(0)) => false,
            Self::Exited(Some(_)) | Self::Killed(_) | Self::OomKilled => true,
        }
    }
}

impl Piece for End {
    /// Completes "the process".
    fn tell(self, to: &mut impl Prose) {
        match self {
            Self::Closed => to.words("closed it"),
            Self::Exited(None) => to.words("exited"),
            Self::Exited(Some(status)) => say!(to; "exited with status ", status),
            Self::Killed(signal) => say!(to; "was killed by ", Signal(signal)),
            Self::OomKilled => to.words("was killed by the OOM killer"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(f, |to| self.tell(to))
    }
}

impl Fact {
    /// The segment that drew the reset.
    pub const fn segment(segment: &Segment) -> Self {
        Self::Segment(segment.flags, segment.payload)
    }

    /// Whether it is often the same in many resets: it has no time in it and counts nothing.
    pub const fn repeats(&self) -> bool {
        match self {
            Self::Reason(_)
            | Self::NoReason
            | Self::NoSocket
            | Self::Listener
            | Self::TimeWait(_)
            | Self::State(_)
            | Self::Segment(..)
            | Self::Linger(_)
            | Self::NoFinWait2
            | Self::Shutdown { .. }
            | Self::Orphan
            | Self::Mptcp
            | Self::Path(_)
            | Self::Probes(_)
            | Self::Ending(_)
            | Self::NotAccepted
            | Self::Destroyer { .. }
            | Self::IdleLimit(_)
            | Self::UserTimeout(_)
            | Self::Peer(_)
            | Self::HostOrFirewall => true,
            Self::Backlog(..)
            | Self::Unread(_)
            | Self::Unacked(_)
            | Self::Heard(_)
            | Self::Sent(_)
            | Self::Past { .. }
            | Self::Listened { .. }
            | Self::Idle(_)
            | Self::Scan(_)
            | Self::Booted(_) => false,
        }
    }

    /// Who listens, or listened last, on the port.
    pub fn listened(listener: &Listening) -> Self {
        Self::Listened {
            comm: listener.process.comm,
            pid: listener.process.pid,
            ended: listener
                .ended
                .as_ref()
                .map(|end| (End::of(&end.closer), end.ago_ns)),
        }
    }

    /// Gives `to` the line that an operator reads.
    pub fn tell(&self, to: &mut impl Prose) {
        match *self {
            Self::Reason(reason) => say!(to; "kernel reason ", reason.name()),
            Self::NoReason => to.words("this kernel names no reason for such a reset"),
            Self::NoSocket => to.words("the segment met no socket"),
            Self::Listener => to.words("the segment met a listening socket"),
            Self::Backlog(waiting, limit) => {
                say!(to; Waiting(waiting), " to be accepted, limit ", limit);
            }
            Self::TimeWait(state) => {
                say!(to; "the segment met a TIME_WAIT socket in its ", state.name(), " sub-state");
            }
            Self::State(state) => say!(to; "state ", state.name(), " before the reset"),
            Self::Segment(flags, 0) => say!(to; "segment ", flags, " without data"),
            Self::Segment(flags, payload) => say!(to; "segment ", flags, " with ", Bytes(payload)),
            Self::Unread(bytes) => say!(to; Bytes(bytes), " in the receive queue at close"),
            Self::Unacked(bytes) => say!(to; Bytes(bytes), " sent and not acknowledged"),
            Self::Linger(seconds) => say!(to; "SO_LINGER on with ", seconds, " s"),
            Self::NoFinWait2 => to.words("TCP_LINGER2 negative: no wait for the peer's FIN"),
            Self::Shutdown { receive, send } => to.words(match (receive, send) {
                (true, true) => "both directions shut down",
                (true, false) => "receiving side shut down",
                (false, true) => "sending side shut down",
                (false, false) => "neither direction shut down",
            }),
            Self::Orphan => to.words("no process held the socket any more"),
            Self::Mptcp => to.words("subflow of a multipath TCP connection"),
            Self::Path(path) => to.words(path_line(path)),
            Self::Probes(1) => to.words("1 probe without an answer"),
            Self::Probes(probes) => say!(to; probes, " probes without an answer"),
            Self::Heard(ns) => say!(to; "peer last heard ", Seconds(ns), " before"),
            Self::Sent(ns) => say!(to; "data last sent ", Seconds(ns), " before"),
            Self::Past {
                ended,
                closed_ago_ns,
                lasted_ns,
                state,
            } => {
                to.words(ended_line(ended));
                if let Some(ns) = closed_ago_ns {
                    say!(to; " ", Seconds(ns), " before");
                }
                if let Some(ns) = lasted_ns {
                    say!(to; ", after ", Seconds(ns));
                }
                if let Some(state) = state {
                    say!(to; ", in state ", state.name());
                }
            }
            Self::Listened { comm, pid, ended } => {
                say!(to; comm, "[", pid);
                match ended {
                    Some((end, ago_ns)) => {
                        say!(to; "] listened on this port and ", end, " ", Seconds(ago_ns), " before");
                    }
                    None => to.words("] listens on this port at another address"),
                }
            }
            Self::Ending(end) => say!(to; "the process ", end),
            Self::NotAccepted => to.words("no process had accepted the connection"),
            Self::Destroyer { comm, pid } => say!(to; "destroyed by ", comm, "[", pid, "]"),
            Self::Idle(ns) => say!(to; "idle for ", Seconds(ns), " before data was sent"),
            Self::IdleLimit(limit) => say!(
                to; "possibly the idle limit of ", limit.seconds, " s (within ", TOLERANCE_PERCENT, " %): ",
                limit.whose,
            ),
            Self::UserTimeout(ms) => say!(to; "TCP_USER_TIMEOUT of ", ms, " ms"),
            Self::Scan(ports) => say!(
                to; "its sender tried ", ports, " closed ports within ", crate::scan::WINDOW.as_secs(), " s",
            ),
            Self::Peer(cause) => say!(to; "the other end is on this host: ", cause),
            Self::Booted(seconds) => say!(to; "this host booted ", seconds, " s before"),
            Self::HostOrFirewall => {
                to.words("the peer and a firewall before it cannot be told apart");
            }
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(f, |to| self.tell(to))
    }
}

/// How the connection ended that a segment came for.
const fn ended_line(ended: Ended) -> &'static str {
    match ended {
        Ended::Closed => "the connection was closed",
        Ended::Aborted => "this host had reset the connection",
        Ended::TimedOut => "the connection timed out",
        Ended::Reset => "the peer had reset the connection",
        Ended::NeverConnected => "the connect was given up",
    }
}

/// The line for [`Fact::Path`], with the kernel function that the stack showed.
const fn path_line(path: Path) -> &'static str {
    match path {
        Path::Close => "kernel stack: close (__tcp_close)",
        Path::Disconnect => "kernel stack: disconnect (tcp_disconnect)",
        Path::ListenerClose => "kernel stack: close of a listener (inet_csk_listen_stop)",
        Path::Destroy => "kernel stack: destroyed from outside (tcp_abort)",
        Path::KeepaliveTimer => "kernel stack: keepalive timer (tcp_keepalive_timer)",
        Path::WriteTimer => "kernel stack: retransmission timer (tcp_write_timer)",
        Path::Mptcp => "kernel stack: multipath TCP (mptcp_*)",
        Path::Unknown => "the kernel stack does not tell what the kernel was doing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::idle::LIMITS;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn each_fact_prints_one_line() {
        let segment = |flags, payload| Fact::Segment(TcpFlags(flags), payload);
        let cases = [
            (
                Fact::Reason(Reason::AbortOnClose),
                "kernel reason TCP_ABORT_ON_CLOSE",
            ),
            (
                Fact::NoReason,
                "this kernel names no reason for such a reset",
            ),
            (Fact::NoSocket, "the segment met no socket"),
            (Fact::Listener, "the segment met a listening socket"),
            (
                Fact::Backlog(129, 128),
                "129 connections wait to be accepted, limit 128",
            ),
            (
                Fact::TimeWait(TcpState::FinWait2),
                "the segment met a TIME_WAIT socket in its FIN_WAIT2 sub-state",
            ),
            (
                Fact::State(TcpState::Established),
                "state ESTABLISHED before the reset",
            ),
            (segment(TcpFlags::SYN, 0), "segment SYN without data"),
            (
                segment(TcpFlags::ACK | TcpFlags::PSH, 1),
                "segment PSH|ACK with 1 byte",
            ),
            (Fact::Unread(64), "64 bytes in the receive queue at close"),
            (Fact::Unacked(5), "5 bytes sent and not acknowledged"),
            (Fact::Linger(0), "SO_LINGER on with 0 s"),
            (
                Fact::NoFinWait2,
                "TCP_LINGER2 negative: no wait for the peer's FIN",
            ),
            (
                Fact::Shutdown {
                    receive: true,
                    send: true,
                },
                "both directions shut down",
            ),
            (
                Fact::Shutdown {
                    receive: true,
                    send: false,
                },
                "receiving side shut down",
            ),
            (
                Fact::Shutdown {
                    receive: false,
                    send: true,
                },
                "sending side shut down",
            ),
            (
                Fact::Shutdown {
                    receive: false,
                    send: false,
                },
                "neither direction shut down",
            ),
            (Fact::Orphan, "no process held the socket any more"),
            (Fact::Mptcp, "subflow of a multipath TCP connection"),
            (Fact::Path(Path::Close), "kernel stack: close (__tcp_close)"),
            (
                Fact::Path(Path::Unknown),
                "the kernel stack does not tell what the kernel was doing",
            ),
            (Fact::Probes(1), "1 probe without an answer"),
            (Fact::Probes(9), "9 probes without an answer"),
            (Fact::Heard(12_300_000_000), "peer last heard 12.3 s before"),
            (Fact::Sent(250_000), "data last sent 0.2 ms before"),
            (
                Fact::Past {
                    ended: Ended::Closed,
                    closed_ago_ns: Some(90_000_000_000),
                    lasted_ns: None,
                    state: Some(TcpState::Established),
                },
                "the connection was closed 90 s before, in state ESTABLISHED",
            ),
            (
                Fact::Past {
                    ended: Ended::NeverConnected,
                    closed_ago_ns: Some(2_000_000),
                    lasted_ns: Some(1_500_000_000),
                    state: None,
                },
                "the connect was given up 2.0 ms before, after 1.5 s",
            ),
            (
                Fact::Past {
                    ended: Ended::TimedOut,
                    closed_ago_ns: None,
                    lasted_ns: None,
                    state: None,
                },
                "the connection timed out",
            ),
            (
                Fact::Listened {
                    comm: Comm::from_text(b"nginx"),
                    pid: 812,
                    ended: Some((End::Killed(11), 3_000_000_000)),
                },
                "nginx[812] listened on this port and was killed by SIGSEGV 3.0 s before",
            ),
            (
                Fact::Listened {
                    comm: Comm::from_text(b"nginx"),
                    pid: 812,
                    ended: None,
                },
                "nginx[812] listens on this port at another address",
            ),
            (Fact::Ending(End::Closed), "the process closed it"),
            (Fact::Ending(End::Exited(None)), "the process exited"),
            (
                Fact::Ending(End::Exited(Some(1))),
                "the process exited with status 1",
            ),
            (
                Fact::Ending(End::Killed(9)),
                "the process was killed by SIGKILL",
            ),
            (
                Fact::Ending(End::Killed(34)),
                "the process was killed by signal 34",
            ),
            (
                Fact::Ending(End::OomKilled),
                "the process was killed by the OOM killer",
            ),
            (Fact::NotAccepted, "no process had accepted the connection"),
            (
                Fact::Destroyer {
                    comm: Comm::from_text(b"ss"),
                    pid: 99,
                },
                "destroyed by ss[99]",
            ),
            (
                Fact::Idle(350_000_000_000),
                "idle for 350 s before data was sent",
            ),
            (
                Fact::IdleLimit(&LIMITS[2]),
                "possibly the idle limit of 75 s (within 2 %): nginx (keepalive_timeout)",
            ),
            (Fact::UserTimeout(3_000), "TCP_USER_TIMEOUT of 3000 ms"),
            (
                Fact::Scan(12),
                "its sender tried 12 closed ports within 10 s",
            ),
            (
                Fact::Peer("linger-abort"),
                "the other end is on this host: linger-abort",
            ),
            (Fact::Booted(42), "this host booted 42 s before"),
            (
                Fact::HostOrFirewall,
                "the peer and a firewall before it cannot be told apart",
            ),
        ];
        for (fact, line) in cases {
            assert_eq!(fact.to_string(), line);
        }
    }
}
