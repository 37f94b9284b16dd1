//! Why a reset happened, and how sure that is.
//!
//! - [`rules`]: what decides each cause, in one place, most specific first.
//! - [`fact`]: the evidence that a verdict rests on.
//! - [`idle`]: after which silence common middleboxes and servers drop a connection.
//! - [`catalogue`]: what each cause means and what to look at next; data, written once.
//! - [`sentence`]: the one sentence that an operator reads.
//! - [`prose`]: the pieces that it and the evidence are put together of.
//!
//! Everything here is a function of values: nothing reads the system or the clock, and nothing
//! allocates. Who owns the connection is decided before, and what is shown after.

pub mod catalogue;
pub mod fact;
pub mod idle;
pub mod prose;
pub mod rules;
pub mod sentence;

use std::time::Duration;

use arrayvec::ArrayVec;

pub use self::{
    fact::Fact,
    prose::Prose,
    rules::{answers::SCAN_PORTS, classify, judge},
    sentence::{names_remote_end_alone, summary, tell},
};
use crate::{event::Reason, kernel::reasons};

/// The most facts that a verdict carries.
pub const MAX_FACTS: usize = 8;

/// A cause. Its name, which scripts rely on, and all that is said of it stand in [`catalogue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CauseId {
    /// A SYN came for a port where nobody listens.
    ClosedPort,
    /// The same, where somebody listened until lately.
    ListenerGone,
    /// A segment came for a connection that had ended here.
    LateSegment,
    /// A segment came for a connection that this host does not know.
    HalfOpen,
    /// A SYN-ACK came after this host gave up connecting.
    LateSynAck,
    /// A SYN-ACK came that nobody here asked for.
    Backscatter,
    /// The accept queue was full, and the host is set to reset then.
    AcceptQueueOverflow,
    /// The process closed with unread bytes in its receive queue.
    ClosedWithUnreadData,
    /// The process closed with `SO_LINGER` 0.
    LingerAbort,
    /// A listener ended with connections that nobody had accepted.
    ListenerClosed,
    /// The process was killed, or failed, with the connection open.
    ProcessDied,
    /// The peer kept sending after the process had closed.
    DataAfterClose,
    /// A segment came for a connection that had died of a timeout.
    ConnectionTimedOut,
    /// Keepalive probes went unanswered.
    KeepaliveTimeout,
    /// The peer did not finish closing in time.
    FinWait2Timeout,
    /// Too many orphans, or out of TCP memory.
    OrphanLimit,
    /// `connect(AF_UNSPEC)`.
    Disconnect,
    /// Somebody destroyed the socket from outside.
    SocketDestroyed,
    /// The segment broke the protocol.
    BadSegment,
    /// A rule of multipath TCP.
    Mptcp,
    /// A firewall on this host answered for the service.
    FirewallReject,
    /// A connect was answered with a RST.
    Refused,
    /// The connection had been idle, and what was sent then was answered with a RST.
    IdleDrop,
    /// The peer reset an established connection.
    PeerAborted,
    /// This host sent after the peer had closed its side.
    PeerGone,
    /// The peer reset the connection after this host's FIN.
    ResetDuringClose,
    /// The peer reset its unfinished handshake.
    HandshakeReset,
    /// The RST does not look like the peer's.
    ForgedReset,
    /// None of these.
    Unknown,
}

impl CauseId {
    /// The name in JSON and in the table.
    pub const fn name(self) -> &'static str {
        catalogue::entry(self).name
    }

    /// The cause of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        catalogue::ENTRIES
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.id)
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Confidence {
    /// The evidence allows it, and other causes as well.
    Possible,
    /// The evidence speaks for it; another cause could look the same.
    Likely,
    /// No other cause can look the same.
    Certain,
}

impl Confidence {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }

    /// What stands behind a cause for people: nothing when it is certain.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Possible => "??",
            Self::Likely => "?",
            Self::Certain => "",
        }
    }
}

/// For which resets the running kernel names a reason (`enum sk_rst_reason`, read from its BTF).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasons {
    /// None: before 6.10.
    #[default]
    None,
    /// Those that answer a segment: 6.10 and 6.11.
    Passive,
    /// All: since 6.12, whose enumeration has `SK_RST_REASON_TCP_ABORT_ON_CLOSE`.
    All,
}

impl Reasons {
    /// What a kernel names that has these reasons.
    pub fn named_by(reasons: &reasons::Reasons) -> Self {
        if reasons.is_empty() {
            Self::None
        } else if reasons.knows(Reason::AbortOnClose) {
            Self::All
        } else {
            Self::Passive
        }
    }
}

/// What the running kernel tells of resets, by what it has and what could be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// For which resets it names a reason.
    pub reasons: Reasons,
    /// Whether resets show that a segment without a full socket drew.
    pub without_socket: bool,
}

/// What is known of the host, apart from the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Time since the host booted, at the event; `None` when unknown.
    pub uptime: Option<Duration>,
    /// For which resets the kernel names a reason: where it names none, that there is none is no
    /// evidence.
    pub reasons: Reasons,
}

/// The cause of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The cause.
    pub id: CauseId,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on, the decisive fact first.
    pub facts: ArrayVec<Fact, MAX_FACTS>,
}

impl Default for Verdict {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            id: CauseId::Unknown,
            confidence: Confidence::Possible,
            facts: ArrayVec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_ordered() {
        assert!(Confidence::Possible < Confidence::Likely);
        assert!(Confidence::Likely < Confidence::Certain);
    }

    #[test]
    fn causes_and_names_are_one_to_one() {
        for entry in &catalogue::ENTRIES {
            assert_eq!(entry.id.name(), entry.name);
            assert_eq!(CauseId::from_name(entry.name), Some(entry.id));
        }
        assert_eq!(CauseId::from_name("Closed-Port"), None);
        assert_eq!(CauseId::from_name(""), None);
    }
}
