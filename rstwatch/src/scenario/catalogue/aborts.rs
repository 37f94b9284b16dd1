//! This host resets a connection of its own accord.

use super::super::{
    Doer::{Dying, Role},
    Expected, Ground,
    Host::{A, B},
    Scenario,
};
use super::AT_HOME;
use crate::event::Via;

/// Why a socket cannot be destroyed from outside.
const NO_DESTROY: &str =
    "the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY; modules inet_diag, tcp_diag)";

/// The scenarios.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "unread-accepted",
        about: "the accepting side closes with unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client send 64
            server await-unread 64
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server"))
                .unread(64),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "unread-connected",
        about: "the connecting side closes with unread data; the accepting side closes at once",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server send 64
            client await-unread 64
            client close
            server recv 1 -> ECONNRESET
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("client", Via::Connect)
                .by(Role("client"))
                .unread(64),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "peer-holds-on",
        about: "the connecting side closes with unread data; the accepting side keeps the dead socket",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server send 64
            client await-unread 64
            client close
            server recv 1 -> ECONNRESET
        ",
        expected: &[
            Expected::sent("client", "server", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("client", Via::Connect)
                .by(Role("client"))
                .unread(64),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Procfs),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "unread-after-fin",
        about: "the accepting side closes with unread data after the client's FIN",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client send 64
            client shutdown wr
            client await FIN_WAIT2
            server await CLOSE_WAIT
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("CLOSE_WAIT")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server"))
                .unread(64),
            Expected::received("client", "server", "reset-during-close")
                .state("FIN_WAIT2")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "linger-accepted",
        about: "the accepting side closes with SO_LINGER 0",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server linger0
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "linger-abort")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "linger-connected",
        about: "the connecting side closes with SO_LINGER 0",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client linger0
            client close
            server recv 1 -> ECONNRESET
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "linger-abort")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("client", Via::Connect)
                .by(Role("client")),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "keepalive-connected",
        about: "the peer falls silent; keepalive on the connecting side notices",
        ground: Ground::Wire,
        roles: &[("client", A), ("server", B)],
        script: "
            server listen
            client connect server
            server accept
            client keepalive
            cut
            client recv 1 -> ETIMEDOUT
            client close
        ",
        expected: &[Expected::sent("client", "server", "keepalive-timeout")
            .state("ESTABLISHED")
            .reason("TCP_KEEPALIVE_TIMEOUT")
            .evidence(&["1 probe without an answer", "peer last heard"])
            .owner("client", Via::Connect)],
        ..Scenario::BLANK
    },
    Scenario {
        name: "keepalive-accepted",
        about: "the peer falls silent; keepalive on the accepting side notices",
        ground: Ground::Wire,
        roles: &[("server", A), ("client", B)],
        script: "
            server listen
            client connect server
            server accept
            server keepalive
            cut
            server recv 1 -> ETIMEDOUT
            server close
        ",
        expected: &[Expected::sent("server", "client", "keepalive-timeout")
            .state("ESTABLISHED")
            .reason("TCP_KEEPALIVE_TIMEOUT")
            .evidence(&["1 probe without an answer", "peer last heard"])
            .owner("server", Via::Close)],
        ..Scenario::BLANK
    },
    Scenario {
        name: "snapshot-connection",
        about: "a connection older than the tracer is closed with unread data",
        roles: AT_HOME,
        before: "
            server listen
            client connect server
            server accept
            client send 64
            server await-unread 64
        ",
        script: "
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server"))
                .unread(64),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Snapshot),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "killed",
        about: "the accepting side is killed with unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client send 64
            server await-unread 64
            server kill
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "process-died")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Dying("server", Some(9)))
                .unread(64),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "exited",
        about: "the connecting side exits with unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server send 64
            client await-unread 64
            client exit
            server recv 1 -> ECONNRESET
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("client", Via::Connect)
                .by(Dying("client", None))
                .unread(64),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "forked",
        about: "the server forks, its parent closes first, the worker closes with unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server fork
            client send 64
            server await-unread 64
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server"))
                .unread(64),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "crashed",
        about: "the connecting side crashes with unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server send 64
            client await-unread 64
            client crash
            server recv 1 -> ECONNRESET
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "process-died")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("client", Via::Connect)
                .by(Dying("client", Some(11)))
                .unread(64)
                .evidence(&["the process was killed by SIGSEGV"]),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "failed",
        about: "the accepting side ends with an error and unread data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client send 64
            server await-unread 64
            server exit 3
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "process-died")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Dying("server", None))
                .unread(64)
                .evidence(&["the process exited with status 3"]),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "listener-closed",
        about: "a listener is closed with a connection that nobody has accepted",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server unlisten
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "listener-closed")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("server", Via::Listener)
                .by(Role("server"))
                .evidence(&["no process had accepted the connection"]),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "no-fin-wait2",
        about: "a socket is closed that must not wait for the peer's FIN, its own acknowledged",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client no-fin-wait2
            client shutdown wr
            client await FIN_WAIT2
            client close
            server eof
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "fin-wait2-timeout")
                .state("FIN_WAIT2")
                .reason("TCP_ABORT_ON_LINGER")
                .owner("client", Via::Connect)
                .by(Role("client"))
                .evidence(&["TCP_LINGER2 negative"]),
            Expected::received("server", "client", "peer-gone")
                .state("CLOSE_WAIT")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "orphan-limit",
        about: "a socket is closed while the host has too many orphans",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server fill
            server squeeze
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "orphan-limit")
                .state("FIN_WAIT1")
                .reason("TCP_ABORT_ON_MEMORY")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        of_the_host: true,
        ..Scenario::BLANK
    },
    Scenario {
        name: "disconnect",
        about: "a process takes its socket off its peer with connect(AF_UNSPEC)",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client disconnect
            server recv 1 -> ECONNRESET
            server close
            client close
        ",
        expected: &[
            Expected::sent("client", "server", "disconnect")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("client", Via::Connect)
                .by(Role("client")),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "socket-destroyed",
        about: "an administrator destroys the client's socket, as `ss -K` does",
        roles: &[("server", A), ("client", A), ("killer", A)],
        script: "
            server listen
            client connect server
            server accept
            killer destroy client
            client recv 1 -> ECONNABORTED
            server recv 1 -> ECONNRESET
            server close
            client close
        ",
        expected: &[
            Expected::sent("client", "server", "socket-destroyed")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("client", Via::Connect)
                .by(Role("killer"))
                .evidence(&["destroyed by {killer}"]),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        unless: &[
            ("EOPNOTSUPP", NO_DESTROY),
            // No module to ask.
            ("ENOENT", NO_DESTROY),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "mptcp",
        about: "a multipath TCP connection is closed with unread data",
        roles: AT_HOME,
        script: "
            server mptcp
            client mptcp
            server listen
            client connect server
            server accept
            client send 64
            server peek 64
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        // Subflows are sockets of the kernel's own.
        expected: &[
            Expected::sent("server", "client", "mptcp")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .by(Role("server")),
            Expected::received("client", "server", "peer-aborted").state("ESTABLISHED"),
        ],
        unless: &[
            (
                "EPROTONOSUPPORT",
                "the kernel has no multipath TCP (CONFIG_MPTCP)",
            ),
            (
                "ENOPROTOOPT",
                "multipath TCP is switched off (net.mptcp.enabled)",
            ),
        ],
        ..Scenario::BLANK
    },
];
