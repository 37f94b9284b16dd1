//! This host receives a RST, and what that means is the matter; who sends it is in the other lists
//! as well.

use super::super::{
    Doer::Role,
    Expected, Ground,
    Host::{A, B, C},
    Scenario,
};
use super::AT_HOME;
use crate::event::Via;

/// The scenarios.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "reset-in-fin-wait1",
        about: "the peer aborts while our FIN waits behind our data",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client fill
            client shutdown wr
            client await FIN_WAIT1
            server close
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "reset-during-close")
                .state("FIN_WAIT1")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "reset-of-an-orphan",
        about: "the peer aborts after we have closed, our data still on its way",
        roles: AT_HOME,
        script: "
            server listen
            client connect server
            server accept
            client fill
            client close
            client await FIN_WAIT1
            server close
        ",
        expected: &[
            Expected::sent("server", "client", "closed-with-unread-data")
                .state("ESTABLISHED")
                .reason("TCP_ABORT_ON_CLOSE")
                .owner("server", Via::Close)
                .by(Role("server")),
            Expected::received("client", "server", "reset-during-close")
                .state("FIN_WAIT1")
                .owner("client", Via::Connect),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "reset-elsewhere",
        about: "a peer whose own end is not seen resets an active connection",
        ground: Ground::Wire,
        roles: &[("client", A), ("server", B)],
        // A forged segment is no event of its sender's host, as if that were another.
        script: "
            server listen
            client connect server
            server accept
            client send 5
            server recv 5
            server forge client rst
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[Expected::received("client", "server", "peer-aborted")
            .state("ESTABLISHED")
            .owner("client", Via::Connect)
            .likely()
            .evidence(&["cannot be told apart"])],
        ..Scenario::BLANK
    },
    Scenario {
        name: "idle-drop",
        about: "what is sent after five seconds of silence meets a host that has forgotten the connection",
        ground: Ground::Spare,
        // The other half of a pair of load balancers, which takes over in the meantime.
        roles: &[("client", A), ("server", B), ("heir", C)],
        script: "
            server listen
            client connect server
            server accept
            client send 5
            server recv 5
            server send 5
            client recv 5
            replace
            client send 5 after 4940
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("server", "client", "half-open")
                .reason("NO_SOCKET")
                .likely(),
            Expected::received("client", "server", "idle-drop")
                .state("ESTABLISHED")
                .owner("client", Via::Connect)
                .evidence(&[
                    "before data was sent",
                    "possibly the idle limit of 5 s (within 2 %): Node.js",
                ]),
        ],
        ..Scenario::BLANK
    },
    Scenario {
        name: "handshake-reset",
        about: "a scanner sends data in its SYN, and its kernel resets what comes back",
        roles: &[("server", A), ("scanner", A)],
        // Fast open for every listener, without a cookie: TFO_SERVER_ENABLE,
        // TFO_SERVER_COOKIE_NOT_REQD, TFO_SERVER_WO_SOCKOPT1.
        script: "
            server sysctl net/ipv4/tcp_fastopen 1538
            server listen
            scanner inject scanner server syn 5
        ",
        expected: &[
            Expected::sent("scanner", "server", "backscatter")
                .reason("NO_SOCKET")
                .likely(),
            Expected::received("server", "scanner", "handshake-reset")
                .state("SYN_RECV")
                .owner("server", Via::Listener),
        ],
        ..Scenario::BLANK
    },
];
