//! Resets made on purpose, by real sockets in processes of their own, in private network
//! namespaces: what the integration tests and `rstwatch selftest` check the tracer with.
//!
//! A [`Scenario`] is data: who plays, what they do step by step, and which events a tracer must
//! show for it. All of them stand in [`catalogue`]. [`stage`] sets one up and plays it, each step
//! when the one before is done; [`player`] is the director's side of a process, [`role`] what the
//! process runs. [`verdict`] holds what was expected against what was seen. [`netns`], [`netlink`],
//! [`tcp_table`] and `uring` are the tools.
//!
//! Nothing here traces, and nothing outside of the namespaces that a stage makes is touched.

pub mod catalogue;
pub mod netlink;
pub mod netns;
pub mod player;
pub mod role;
pub mod stage;
pub mod tcp_table;
mod uring;
pub mod verdict;

use std::fmt;

use crate::event::{Direction, Via};

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
///   already.
/// - `NAME await-unread N` waits until N received bytes are unread in it.
/// - `NAME kill` kills the process with SIGKILL.
/// - `cut` makes B deaf: it loses its addresses.
/// - `replace` puts C in B's place.
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
        }
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
