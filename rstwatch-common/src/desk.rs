//! Desks: what the hooks of a CPU have at hand for every reset.
//!
//! In a storm a reset passes some hooks within microseconds, each of which wants a few words that its CPU
//! keeps for them: counters, the time, how far its lane is filled. Each in a cache line of its own would be one
//! more for every hook to fetch, and one less for the kernel's own.

use crate::plain_data;

plain_data! {
    /// What the hooks of a CPU have at hand: in one cache line, but for what user space often writes.
    #[repr(align(256))]
    pub struct Desk {
        /// Halves of its lane's slots filled since the start; a half is whole before this counts it.
        pub filled: u64,
        /// What [`Desk::emptied`] was when the CPU looked last.
        pub emptied_then: u64,
        /// Resets for which `tcp_send_reset` fired, but for those that `STATS` counts.
        pub sent: u64,
        /// Resets for which `tcp_receive_reset` fired.
        pub received: u64,
        /// `jiffies_64` when the clock was read last, which is never 0 (`INITIAL_JIFFIES`,
        /// `include/linux/jiffies.h`).
        pub jiffies: u64,
        /// `bpf_ktime_get_ns` then.
        pub time_ns: u64,
        /// The address of the socket whose connect began last, or 0. It may be no socket any more.
        pub connecting: u64,
        /// Not zero while user space looks into the lane by itself. User space's, which seldom writes it.
        pub watched: u32,
        /// Not zero while a half is being filled: by a program that this one has interrupted.
        pub busy: u16,
        /// Not zero while the first program of `tcp_send_reset` is telling of a reset.
        pub telling: u16,
        /// Nothing: processors fetch lines in pairs.
        pub of_cpu: [u64; 8],
        /// Halves emptied since the start. User space's.
        pub emptied: u64,
        /// Nothing.
        pub of_user: [u64; 15],
    }
    size 256
}
