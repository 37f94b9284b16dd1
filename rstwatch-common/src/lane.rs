//! Lanes: where the records that storms consist of reach user space without a lock, a helper or a wake-up.
//!
//! Each CPU has one: slots that it fills in turn, and that user space, which maps them, gives back; how far, the CPU's
//! [`Desk`](crate::desk::Desk) says. What
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
        /// Nothing.
        pub first_pad: u32,
        /// The first record.
        pub first: [u64; FIRST_WORDS],
        /// As of the first one, with the next.
        pub second_len: u32,
        /// Nothing.
        pub second_pad: u32,
        /// The second record.
        pub second: [u64; SECOND_WORDS],
    }
    size 256
}
