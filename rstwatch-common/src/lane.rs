//! Lanes: where the records that storms consist of reach user space without a lock, a helper or a wake-up.
//!
//! Each CPU has one: slots that it fills in turn, and that user space, which maps them, gives back. What
//! finds no room there, or finds user space asleep, goes by the ring buffer as all other records do.
//!
//! A refused connect on one host is two records of different length, one after the other. So a slot has two
//! halves, of which the second is longer, and both together are four cache lines.

use crate::plain_data;

/// Double words of a record in a slot's first half.
pub const FIRST_WORDS: usize = 11;

/// Double words of a record in its second half.
pub const SECOND_WORDS: usize = 19;

plain_data! {
    /// A slot of a lane.
    #[repr(align(64))]
    pub struct Slot {
        /// Length of the first record in bytes; 0: none has fitted in there.
        pub first_len: u32,
        /// The lower half of `jiffies_64` when it was written.
        pub first_jiffies: u32,
        /// The first record.
        pub first: [u64; FIRST_WORDS],
        /// As of the first one, with the next.
        pub second_len: u32,
        /// The lower half of `jiffies_64` when it was written.
        pub second_jiffies: u32,
        /// The second record.
        pub second: [u64; SECOND_WORDS],
    }
    size 256
}

plain_data! {
    /// How far a lane is filled and emptied. What each side writes is in cache lines of its own; and so is
    /// what user space seldom writes.
    pub struct Ends {
        /// Halves filled since the start. The CPU's; a half is whole before this counts it.
        pub filled: u64,
        /// What [`Ends::emptied`] was when the CPU looked last.
        pub emptied_then: u64,
        /// Not zero while a half is being filled: by a program that this one has interrupted.
        pub busy: u64,
        /// Nothing.
        pub of_cpu: [u64; 5],
        /// Not zero while user space looks into the lane by itself. User space's.
        pub watched: u64,
        /// Nothing.
        pub of_both: [u64; 7],
        /// Halves emptied since the start. User space's.
        pub emptied: u64,
        /// Nothing.
        pub of_user: [u64; 15],
    }
    size 256
}
