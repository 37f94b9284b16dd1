//! The scenarios. What the kernel does in each was read in `net/ipv4/tcp*.c`; how a script is read
//! stands at [`Scenario`].

use super::{
    Doer::{Dying, Role},
    Expected, Ground,
    Host::{A, B, C},
    Scenario,
};
use crate::event::Via;

/// Who plays where there is one host.
const AT_HOME: &[(&str, super::Host)] = &[("server", A), ("client", A)];

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "closed-port",
        about: "a connect to a port where nobody listens",
        ground: Ground::Loopback,
        roles: &[("client", A)],
        before: "",
        script: "client connect nobody -> ECONNREFUSED",
        expected: &[
            Expected::sent("nobody", "client", "closed-port").reason("NO_SOCKET"),
            Expected::received("client", "nobody", "refused")
                .state("SYN_SENT")
                .owner("client", Via::Connect),
        ],
    },
    Scenario {
        name: "unread-accepted",
        about: "the accepting side closes with unread data",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "unread-connected",
        about: "the connecting side closes with unread data; the accepting side closes at once",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "peer-holds-on",
        about: "the connecting side closes with unread data; the accepting side keeps the dead socket",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "unread-after-fin",
        about: "the accepting side closes with unread data after the client's FIN",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "linger-accepted",
        about: "the accepting side closes with SO_LINGER 0",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "linger-connected",
        about: "the connecting side closes with SO_LINGER 0",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "data-after-close",
        about: "the client sends after the server has closed; the kernel keeps a TIME_WAIT socket",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "peer-gone",
        about: "the server sends after the client has closed",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "data-after-close-orphan",
        about: "the client sends while the closed server still has data to deliver",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "data-after-shutdown",
        about: "the client sends after the server has shut down both directions, its socket still open",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "reset-in-fin-wait1",
        about: "the peer aborts while our FIN waits behind our data",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "reset-of-an-orphan",
        about: "the peer aborts after we have closed, our data still on its way",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "keepalive-connected",
        about: "the peer falls silent; keepalive on the connecting side notices",
        ground: Ground::Wire,
        roles: &[("client", A), ("server", B)],
        before: "",
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
            .owner("client", Via::Connect)],
    },
    Scenario {
        name: "keepalive-accepted",
        about: "the peer falls silent; keepalive on the accepting side notices",
        ground: Ground::Wire,
        roles: &[("server", A), ("client", B)],
        before: "",
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
            .owner("server", Via::Close)],
    },
    Scenario {
        name: "half-open",
        about: "the peer comes back without memory of the connection",
        ground: Ground::Spare,
        // The reborn host does nothing but live: a namespace without a process is hard to see.
        roles: &[("client", A), ("server", B), ("reborn", C)],
        before: "",
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
            Expected::sent("server", "client", "half-open").reason("NO_SOCKET"),
            Expected::received("client", "server", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
    },
    Scenario {
        name: "half-open-listener",
        about: "the peer comes back without memory of the connection, and listens again",
        ground: Ground::Spare,
        roles: &[("client", A), ("server", B), ("reborn", C)],
        before: "",
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
                .owner("reborn", Via::Listen),
            Expected::received("client", "reborn", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Connect),
        ],
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
        script: "
            client send 5
            client recv 1 -> ECONNRESET
            client close
        ",
        expected: &[
            Expected::sent("reborn", "client", "half-open")
                .state("LISTEN")
                .reason("TCP_FLAGS")
                .owner("reborn", Via::Snapshot),
            Expected::received("client", "reborn", "peer-aborted")
                .state("ESTABLISHED")
                .owner("client", Via::Snapshot),
        ],
    },
    Scenario {
        name: "snapshot-connection",
        about: "a connection older than the tracer is closed with unread data",
        ground: Ground::Loopback,
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
    },
    Scenario {
        name: "killed",
        about: "the accepting side is killed with unread data",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "exited",
        about: "the connecting side exits with unread data",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
    Scenario {
        name: "forked",
        about: "the server forks, its parent closes first, the worker closes with unread data",
        ground: Ground::Loopback,
        roles: AT_HOME,
        before: "",
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
    },
];

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn only_roles_that_play_are_expected() {
        for scenario in ALL {
            let plays = |name: &str| scenario.roles.iter().any(|(role, _)| *role == name);
            for expected in scenario.expected {
                let ends = [expected.local, expected.remote];
                assert!(
                    ends.iter().all(|end| plays(end) || *end == "nobody"),
                    "{}: an end that does not play",
                    scenario.name
                );
                let owner = expected.owner.map(|(role, _)| role);
                assert!(owner.is_none_or(plays), "{}: owner", scenario.name);
            }
        }
    }

    #[test]
    fn only_hosts_of_the_ground_are_played_on() {
        for scenario in ALL {
            for (role, host) in scenario.roles {
                assert!(
                    scenario.ground.hosts().contains(host),
                    "{}: {role} plays nowhere",
                    scenario.name
                );
            }
        }
    }
}
