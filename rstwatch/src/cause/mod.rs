//! Why a reset happened, and how sure that is.
//!
//! - [`rules`]: what decides each cause, in one place, most specific first.
//! - [`fact`]: the evidence that a verdict rests on.
//! - [`catalogue`]: what each cause means and what to look at next; data, written once.
//! - [`sentence`]: the one sentence that an operator reads.
//!
//! Everything here is a function of values: nothing reads the system or the clock, and nothing
//! allocates. Who owns the connection is decided before, and what is shown after.

pub mod catalogue;
pub mod fact;
pub mod rules;
pub mod sentence;

use std::time::Duration;

use arrayvec::ArrayVec;

pub use self::{fact::Fact, rules::classify, sentence::summary};

/// The most facts that a verdict carries.
pub const MAX_FACTS: usize = 8;

/// A cause. Its name, which scripts rely on, and all that is said of it stand in [`catalogue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CauseId {
    /// A SYN came for a port where nobody listens.
    ClosedPort,
    /// A segment came for a connection that this host does not know.
    HalfOpen,
    /// The peer kept sending after the process had closed.
    DataAfterClose,
    /// The process closed with unread bytes in its receive queue.
    ClosedWithUnreadData,
    /// The process closed with `SO_LINGER` 0.
    LingerAbort,
    /// Keepalive probes went unanswered.
    KeepaliveTimeout,
    /// A connect was answered with a RST.
    Refused,
    /// The peer reset an established connection.
    PeerAborted,
    /// This host sent after the peer had closed its side.
    PeerGone,
    /// The peer reset the connection after this host's FIN.
    ResetDuringClose,
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
