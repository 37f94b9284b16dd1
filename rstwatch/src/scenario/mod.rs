//! Resets made on purpose, by real sockets in processes of their own, in private network
//! namespaces: what the integration tests and `rstwatch selftest` check the tracer with.
//!
//! A [`Scenario`] is data: who plays, what they do step by step, and which events a tracer must
//! show for it. All of them stand in [`catalogue`]. [`stage`] sets one up and plays it, each step
//! when the one before is done; [`player`] is the director's side of a process, [`role`] what the
//! process runs. [`verdict`] holds what was expected against what was seen. [`netns`], [`netlink`],
//! [`sock_diag`], [`segment`], [`tcp_table`], `orphans` and `uring` are the tools.
//!
//! Nothing here traces, and nothing outside of the namespaces that a stage makes is touched, but by
//! the scenarios that are [`Scenario::of_the_host`].

pub mod catalogue;
pub mod netlink;
pub mod netns;
mod orphans;
pub mod player;
pub mod role;
pub mod segment;
pub mod sock_diag;
pub mod stage;
pub mod tcp_table;
mod uring;
pub mod verdict;

use std::fmt;

use crate::{
    cause::Confidence,
    event::{Direction, Via},
};

/// The hidden subcommand under which the binary plays a role.
pub const ROLE_COMMAND: &str = "role";

/// The IP version that a scenario is played over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host of a scenario's private network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The first. Where there is no other, everything happens on its loopback device.
    A,
    /// The one at the other end of A's wire.
    B,
    /// One with B's addresses, which takes B's place when the script says `replace`: B after a
    /// reboot, or the other half of a pair that fails over.
    C,
}

/// The network that a scenario takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Host A alone.
    Loopback,
    /// A and B on a wire.
    Wire,
    /// A and B on a wire, and C without one.
    Spare,
}

impl Ground {
    /// The hosts on it.
    pub const fn hosts(self) -> &'static [Host] {
        match self {
            Self::Loopback => &[Host::A],
            Self::Wire => &[Host::A, Host::B],
            Self::Spare => &[Host::A, Host::B, Host::C],
        }
    }
}

/// A way to make resets, and what a tracer must show for it.
///
/// # Scripts
///
/// A line is a step; empty ones are passed over. `NAME STEP` has the role NAME take a step (see
/// [`role`] for most of them). With `-> ERRNO` at its end the step must fail so, else succeed. The
/// director adds what a role cannot know or do:
///
/// - `NAME listen` listens on the role's host at a free port; `NAME listen END` where END does.
/// - `NAME connect END`, `NAME flood END N`: END is the name of a role that has listened, or
///   `nobody`: a port at which nobody ever listens, on the last host that stands at a wire at the
///   start.
/// - `NAME await STATE` waits until the kernel has the role's connection in that state, be it closed
///   already; CLOSE is that it is in the kernel's table no more.
/// - `NAME await-unread N` waits until N received bytes are unread in it.
/// - `NAME kill` kills the process with SIGKILL.
/// - `NAME begin END` is the beginning of a connect, which nothing waits for.
/// - `NAME inject FROM TO FLAGS [N]` sends a segment with N bytes from the end FROM, which is NAME's
///   host's, to the end TO, with sequence numbers that belong to nothing. When FROM has no end yet,
///   it gets one: a port of its host that no socket has.
/// - `NAME forge OTHER FLAGS [N]` sends a segment with N bytes to OTHER as its peer would, with the
///   sequence numbers that OTHER expects.
/// - `NAME mimic OTHER FLAGS [N]` sends one to OTHER's peer as OTHER would.
/// - `NAME destroy OTHER` destroys OTHER's connection.
/// - `cut` makes B deaf: it loses its addresses; `mend` gives them back.
/// - `replace` puts C in B's place.
///
/// Wherever an END is read, `END+N` is one with a port that is higher by N.
#[derive(Debug)]
pub struct Scenario {
    /// Its name: lower case, with hyphens.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// The network it takes.
    pub ground: Ground,
    /// Who plays, and where.
    pub roles: &'static [(&'static str, Host)],
    /// What exists before the tracer starts, as a script.
    pub before: &'static str,
    /// What happens under the tracer's eyes.
    pub script: &'static str,
    /// What the tracer must show, in any order, and nothing else.
    pub expected: &'static [Expected],
    /// The errors with which a kernel refuses a step that it has no means for, by name, and what is
    /// missing then.
    pub unless: &'static [(&'static str, &'static str)],
    /// Whether a limit of the whole host is touched for a moment.
    pub of_the_host: bool,
}

impl Scenario {
    /// Nothing on a lone host, to begin a scenario from.
    const BLANK: Self = Self {
        name: "",
        about: "",
        ground: Ground::Loopback,
        roles: &[],
        before: "",
        script: "",
        expected: &[],
        unless: &[],
        of_the_host: false,
    };
}

/// Who pulled the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doer {
    /// Nobody that can be named.
    Nobody,
    /// The process in this role, of its own will.
    Role(&'static str),
    /// The process in this role, at its end: by its own will, or by a signal.
    Dying(&'static str, Option<i32>),
}

/// An event that a tracer must show.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Sent or received.
    pub direction: Direction,
    /// The role at this host's end.
    pub local: &'static str,
    /// The role at the other end.
    pub remote: &'static str,
    /// The cause's id.
    pub cause: &'static str,
    /// The state before.
    pub state: Option<&'static str>,
    /// The kernel's reason, which 6.12 and later give.
    pub reason: Option<&'static str>,
    /// The role whose socket it is, and how the tracer must have learnt that.
    pub owner: Option<(&'static str, Via)>,
    /// Who pulled the trigger.
    pub actor: Doer,
    /// Bytes in the socket's receive queue, where that is evidence.
    pub unread: Option<u32>,
    /// How sure the cause must be where the kernel names its reasons. A kernel that does not may
    /// leave it less sure.
    pub confidence: Confidence,
    /// What lines of the evidence must hold, each in one of them. `{NAME}` stands for the name and
    /// the PID of the role, as evidence gives them.
    pub evidence: &'static [&'static str],
}

impl Expected {
    /// A reset sent by this host.
    pub const fn sent(local: &'static str, remote: &'static str, cause: &'static str) -> Self {
        Self::new(Direction::Sent, local, remote, cause)
    }

    /// A reset received by this host.
    pub const fn received(local: &'static str, remote: &'static str, cause: &'static str) -> Self {
        Self::new(Direction::Received, local, remote, cause)
    }

    const fn new(
        direction: Direction,
        local: &'static str,
        remote: &'static str,
        cause: &'static str,
    ) -> Self {
        Self {
            direction,
            local,
            remote,
            cause,
            state: None,
            reason: None,
            owner: None,
            actor: Doer::Nobody,
            unread: None,
            confidence: Confidence::Certain,
            evidence: &[],
        }
    }

    /// No more than likely.
    #[must_use]
    pub const fn likely(mut self) -> Self {
        self.confidence = Confidence::Likely;
        self
    }

    /// With these pieces in its evidence.
    #[must_use]
    pub const fn evidence(mut self, pieces: &'static [&'static str]) -> Self {
        self.evidence = pieces;
        self
    }

    /// Whether the reset has no full socket: a tracepoint of the kernel reports those since 6.10
    /// (`tcp_send_reset`), and none before.
    pub fn is_without_socket(&self) -> bool {
        matches!(self.reason, Some("NO_SOCKET" | "TCP_TIMEWAIT_SOCKET"))
    }

    /// In this state.
    #[must_use]
    pub const fn state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }

    /// For this reason.
    #[must_use]
    pub const fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// With this owner.
    #[must_use]
    pub const fn owner(mut self, role: &'static str, via: Via) -> Self {
        self.owner = Some((role, via));
        self
    }

    /// By this doer.
    #[must_use]
    pub const fn by(mut self, actor: Doer) -> Self {
        self.actor = actor;
        self
    }

    /// With so many bytes unread.
    #[must_use]
    pub const fn unread(mut self, bytes: u32) -> Self {
        self.unread = Some(bytes);
        self
    }
}
