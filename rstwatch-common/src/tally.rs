//! The tally: how many resets there were of each kind, counted in the kernel for every one of them,
//! whatever becomes of its record.

use crate::plain_data;

/// [`TallyKey::direction`]: this host sent it.
pub const SENT: u8 = 0;
/// [`TallyKey::direction`]: `tcp_receive_reset` fired.
pub const RECEIVED: u8 = 1;
/// [`TallyKey::direction`]: `tcp_receive_reset` had fired for data on a closed receiving side. The
/// same key with [`RECEIVED`] counts it as well, and is to be lowered by this.
pub const NOT_RECEIVED: u8 = 2;

/// [`TallyKey::path`]: an answer to a segment, or received.
pub const BY_SEGMENT: u8 = 0;
/// [`TallyKey::path`]: of this host's own accord.
pub const OF_OWN_ACCORD: u8 = 1;

/// Kinds that are told apart. What goes beyond is counted without its port.
pub const TALLY_KINDS: u32 = 4_096;

/// Kinds without the port: reasons, states and directions come in fewer combinations than this.
pub const TALLY_KINDS_WITHOUT_PORT: u32 = 1_024;

/// Kinds that each CPU counts without a hash map, the first that it meets. A power of two.
pub const QUICK_KINDS: usize = 64;

plain_data! {
    /// A kind of reset that a CPU has met, of which the map `TALLY_QUICK` has [`QUICK_KINDS`] for each.
    pub struct QuickTally {
        /// The kind; all zero while there is none.
        pub key: TallyKey,
        /// How many there were.
        pub count: u64,
    }
    size 16
}

plain_data! {
    /// A kind of reset, the key of the map `TALLY`.
    pub struct TallyKey {
        /// The local port, in host byte order; of a connect under way, whose local port says
        /// nothing, the remote one. 0: not told apart.
        pub port: u16,
        /// `enum sk_rst_reason` as the running kernel numbers it; [`u16::MAX`] where it gives none.
        pub reason: u16,
        /// `sk_state` when the hook ran; 0 without a socket.
        pub state: u8,
        /// [`SENT`], [`RECEIVED`] or [`NOT_RECEIVED`].
        pub direction: u8,
        /// [`BY_SEGMENT`] or [`OF_OWN_ACCORD`].
        pub path: u8,
        /// Zero.
        pub pad: u8,
    }
    size 8
}
