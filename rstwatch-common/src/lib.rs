//! What crosses between the BPF programs and user space, defined once.
//!
//! - [`record`]: what the ring buffer carries, and the [`lane`]s, where storms have ways of their own.
//! - [`entry`]: keys and values of the maps, which records embed as well.
//! - [`desk`]: what each CPU's hooks have at hand.
//! - [`tally`]: the counts of all resets, by kind.
//! - [`filter`]: which of them user space wants to hear of.
//! - [`layout`]: where the fields of the running kernel's structures are, as read-only globals.
//! - [`cast`]: how they read memory without a call.
//! - [`stats`]: the per-CPU counters of what could not be recorded.
//! - [`claim`]: the one rule by which CPUs keep out of each other's way, to be tested.
//!
//! Everything here is `repr(C)`, has no hidden padding and asserts its size, because two compilers
//! for two machines must agree on it. Integers are in the host's byte order; network byte order
//! ends in the BPF programs. What the values *mean* to an operator is not decided here.

#![no_std]

pub mod cast;
pub mod claim;
pub mod desk;
pub mod entry;
pub mod filter;
pub mod lane;
pub mod layout;
pub mod record;
pub mod stats;
pub mod tally;

/// The maps that have an element for each CPU; their sizes are up to user space.
pub const PER_CPU_MAPS: [&str; 6] = [
    "DESKS",
    "FETCHED",
    "INODES",
    "RINGS",
    "TAKING",
    "TALLY_QUICK",
];

/// Length of a task's name in the kernel (`TASK_COMM_LEN`), its terminating NUL included.
pub const COMM_LEN: usize = 16;

/// Declares a record type: plain old data that user space decodes with checks.
///
/// `zerocopy` proves at compile time that the type has no padding and takes any bit pattern, so
/// decoding cannot be undefined behaviour whatever bytes arrive.
macro_rules! plain_data {
    ($(#[$doc:meta])* pub struct $name:ident { $($body:tt)* } size $size:expr) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(
            feature = "user",
            derive(
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct $name { $($body)* }

        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
    };
}
use plain_data;
