//! This host answers a segment with a RST.

use super::super::{
    Doer::Role,
    Expected, Ground,
    Host::{A, B, C},
    Scenario,
};
use super::AT_HOME;
use crate::event::Via;

/// A SYN of the scanner for a port.
const fn scanned(port: &'static str) -> Expected {
    Expected::sent(port, "scanner", "closed-port").reason("NO_SOCKET")
}

/// The scenarios.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "closed-port",
        about: "a connect to a port where nobody listens",
        roles: &[("client", A)],
        script: "client connect nobody -> ECONNREFUSED",
        expected: &[
            Expected::sent("nobody", "client", "closed-port").reason("NO_SOCKET"),
            Expected::received("client", "nobody", "refused")
                .state("SYN_SENT")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "data-after-close",
        about: "the client sends after the server has closed; the kernel keeps a TIME_WAIT socket",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server close
            server await FIN_WAIT2
            client await CLOSE_WAIT
            client send 5
            client send 5 -> EPIPE
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "data-after-close")
                .state("TIME_WAIT")
                .reason("TCP_TIMEWAIT_SOCKET")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "peer-gone")
                .state("CLOSE_WAIT")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "peer-gone",
        about: "the server sends after the client has closed",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client close
            client await FIN_WAIT2
            server await CLOSE_WAIT
            server send 5
            server send 5 -> EPIPE
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "data-after-close")
                .state("TIME_WAIT")
                .reason("TCP_TIMEWAIT_SOCKET")
                .owner("client", Via::Connect)
                .by(Role("client")),
            Expected::received("server", "client", "peer-gone")
                .state("CLOSE_WAIT")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "data-after-close-orphan",
        about: "the client sends while the closed server still has data to deliver",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server fill
            server close
            server await FIN_WAIT1
            client send 5
            client send 5 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "data-after-close")
                .state("FIN_WAIT1")
                .reason("TCP_ABORT_ON_DATA")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "data-after-shutdown",
        about: "the client sends after the server has shut down both directions, its socket still open",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server shutdown rdwr
            server await FIN_WAIT2
            client await CLOSE_WAIT
            client send 5
            client send 5 -> EPIPE
            client close
            server close
        ",
        expected: &[
            Expected::sent("server", "client", "data-after-close")
                .state("FIN_WAIT2")
                .reason("TCP_ABORT_ON_DATA")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "peer-gone")
                .state("CLOSE_WAIT")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "half-open",
        about: "the peer comes back without memory of the connection",
        ground: Ground::Spare,
        // The reborn host does nothing but live: a namespace without a process is hard to see.
        roles: &[("client", A), ("server", B), ("reborn", C)],
        script: "
            server listen
            client connect server
            server accept
            client send 5
            server recv 5
            server send 5
            client recv 5
            replace
            client send 5
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "half-open")
                .reason("NO_SOCKET")
                .likely(),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "half-open-listener",
        about: "the peer comes back without memory of the connection, and listens again",
        ground: Ground::Spare,
        roles: &[("client", A), ("server", B), ("reborn", C)],
        script: "
            server listen
            client connect server
            server accept
            client send 5
            server recv 5
            server send 5
            client recv 5
            replace
            reborn listen server
            client send 5
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("reborn", "client", "half-open")
                .state("LISTEN")
                .reason("TCP_FLAGS")
                .owner("reborn", Via::Listen)
                .likely(),
            Expected::received("client", "reborn", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "snapshot-listener",
        about: "the same, with listener and connection older than the tracer",
        ground: Ground::Spare,
        roles: &[("client", A), ("server", B), ("reborn", C)],
        before: "
            server listen
            client connect server
            server accept
            client send 5
            server recv 5
            server send 5
            client recv 5
            replace
            reborn listen server
        ",
        // The ACK ends the silence, which is long where the tracer starts slowly.
        script: "
            reborn forge client ack
            client send 5
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("reborn", "client", "half-open")
                .state("LISTEN")
                .reason("TCP_FLAGS")
                .owner("reborn", Via::Snapshot)
                .likely(),
            Expected::received("client", "reborn", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Snapshot),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "listener-gone",
        about: "a connect to a port whose listener was closed a moment ago",
        roles: AT_HOME,
        script: "
            server listen
            server unlisten
            client connect server -> ECONNREFUSED
        ",
        expected: &[
            Expected::sent("server", "client", "listener-gone")
                .reason("NO_SOCKET")
                .evidence(&["{server} listened on this port and closed it"]),
            Expected::received("client", "server", "refused")
                .state("SYN_SENT")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "listener-killed",
        about: "a connect to a port whose listener's process was killed a moment ago",
        roles: AT_HOME,
        script: "
            server listen
            server kill
            client connect server -> ECONNREFUSED
        ",
        expected: &[
            Expected::sent("server", "client", "listener-gone")
                .reason("NO_SOCKET")
                .evidence(&["{server} listened on this port and was killed by SIGKILL"]),
            Expected::received("client", "server", "refused")
                .state("SYN_SENT")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "scan",
        about: "one source tries ten closed ports",
        roles: &[("scanner", A), ("target", A)],
        script: "
            scanner inject scanner nobody syn
            scanner inject scanner nobody+1 syn
            scanner inject scanner nobody+2 syn
            scanner inject scanner nobody+3 syn
            scanner inject scanner nobody+4 syn
            scanner inject scanner nobody+5 syn
            scanner inject scanner nobody+6 syn
            scanner inject scanner nobody+7 syn
            scanner inject scanner nobody+8 syn
            scanner inject scanner nobody+9 syn
        ",
        expected: &[
            scanned("nobody"),
            scanned("nobody+1"),
            scanned("nobody+2"),
            scanned("nobody+3"),
            scanned("nobody+4"),
            scanned("nobody+5"),
            scanned("nobody+6"),
            scanned("nobody+7"),
            scanned("nobody+8"),
            scanned("nobody+9").evidence(&["its sender tried 10 closed ports"]),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "late-segment",
        about: "the client sends on a connection that the server has reset, the RST lost on its way",
        ground: Ground::Wire,
        roles: &[("server", A), ("client", B)],
        script: "
            server listen
            client connect server
            server accept
            server linger0
            cut
            server close
            mend
            client send 5
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "linger-abort")
                .state("ESTABLISHED")
                .reason("TCP_STATE")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::sent("server", "client", "late-segment")
                .state("LISTEN")
                .reason("TCP_FLAGS")
                .owner("server", Via::Close)
                .by(Role("server"))
                .evidence(&["this host had reset the connection"]),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "late-syn-ack",
        about: "the SYN-ACK of an overloaded server comes after the client has given up",
        roles: &[("server", A), ("other", A), ("client", A)],
        script: "
            server listen
            server backlog 0
            other connect server
            client begin server
            client await SYN_SENT
            client close
            server inject server client syn+ack
        ",
        expected: &[Expected::sent("client", "server", "late-syn-ack")
            .reason("NO_SOCKET")
            .owner("client", Via::Connect)
            .by(Role("client"))
            .evidence(&["the connect was given up", ", after ", "SYN_SENT"])],
        ..Scenario::BLANK
    },
    Scenario {
        name: "backscatter",
        about: "a SYN-ACK comes that nobody has asked for",
        roles: &[("stranger", A), ("target", A)],
        script: "stranger inject stranger nobody syn+ack",
        expected: &[Expected::sent("nobody", "stranger", "backscatter")
            .reason("NO_SOCKET")
            .likely()],
        ..Scenario::BLANK
    },
    Scenario {
        name: "accept-queue-overflow",
        about: "a handshake ends when the accept queue is full, and the host resets such connections",
        roles: &[("server", A), ("first", A), ("second", A)],
        // The queue must not be full yet when the second connection begins: its SYN would be
        // dropped. A listener that waits for data lets both begin, and takes one.
        script: "
            server sysctl net/ipv4/tcp_abort_on_overflow 1
            server listen
            server defer
            first connect server
            second connect server
            server backlog 0
            first send 5
            second send 5
            second recv 1 -> ECONNRESET
            second close
        ",
        expected: &[
            Expected::sent("server", "second", "accept-queue-overflow")
                .state("LISTEN")
                .reason("INVALID_SYN")
                .owner("server", Via::Listen)
                .evidence(&["1 connection waits to be accepted, limit 0"]),
            Expected::received("second", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("second", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "connection-timed-out",
        about: "the server sends on a connection that has timed out at the client",
        ground: Ground::Wire,
        roles: &[("client", A), ("server", B)],
        script: "
            server listen
            client connect server
            server accept
            client user-timeout 1
            cut
            client send 5
            client recv 1 -> ETIMEDOUT
            mend
            server send 5
            server recv 1 -> ECONNRESET
            client close
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "connection-timed-out")
                .reason("NO_SOCKET")
                .owner("client", Via::Connect)
                .evidence(&["the connection timed out"]),
            Expected::received("server", "client", "peer-aborted")
                .state("ESTABLISHED")
                .owner("server", Via::Close),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "no-fin-wait2-orphan",
        about: "a closed socket that must not wait for the peer's FIN, when its own is acknowledged",
        roles: AT_HOME,
        // The server's kernel acknowledges the FIN by itself after a moment; a FIN of the server's
        // own would tell less.
        script: "
            server listen
            client connect server
            server accept
            client no-fin-wait2
            client close
            server await CLOSE
            server close
        ",
        expected: &[
            Expected::sent("client", "server", "fin-wait2-timeout")
                .state("FIN_WAIT2")
                .reason("TCP_ABORT_ON_DATA")
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
        name: "bad-handshake-ack",
        about: "an ACK of what was never sent answers a connect",
        roles: &[("server", A), ("other", A), ("client", A)],
        script: "
            server listen
            server backlog 0
            other connect server
            client begin server
            client await SYN_SENT
            server inject server client syn+ack
            client close
        ",
        expected: &[Expected::sent("client", "server", "bad-segment")
            .state("SYN_SENT")
            .reason("TCP_INVALID_ACK_SEQUENCE")
            .owner("client", Via::Connect)],
        ..Scenario::BLANK
    },
    Scenario {
        name: "bad-flags",
        about: "a segment without SYN and ACK, as scanners send it, for no connection",
        roles: &[("scanner", A), ("target", A)],
        script: "scanner inject scanner nobody fin",
        expected: &[Expected::sent("nobody", "scanner", "bad-segment").reason("NO_SOCKET")],
        ..Scenario::BLANK
    },
    Scenario {
        name: "early-syn",
        about: "a client uses its port again while the server still waits for the client's FIN",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            server close
            server await FIN_WAIT2
            client await CLOSE_WAIT
            client mimic client syn
        ",
        // The RST answers a segment without ACK, and so fits no open connection.
        expected: &[Expected::sent("server", "client", "bad-segment")
            .state("TIME_WAIT")
            .reason("TCP_TIMEWAIT_SOCKET")],
        ..Scenario::BLANK
    },
];
