//! The ring and the counters. What does not fit into a map is counted.

use core::{arch::asm, ptr::read_volatile};

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use rstwatch_common::stats::{STAT_COUNT, Stat};

/// `BPF_F_MMAPABLE`, for the alignment that comes with it: the elements of an array begin at a page's
/// border, and not 56 bytes behind the border of a cache line (`array_map_alloc`,
/// `kernel/bpf/arraymap.c`).
pub const ALIGNED: u32 = 1 << 10;

/// Records on their way to user space. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// 1 while user space waits for the ring to be readable, which writes it.
#[map]
static READER: Array<u32> = Array::with_max_entries(1, ALIGNED);

/// How to submit a record. While events come the reader looks by itself, and a wake-up an event would cost
/// more than the event (`BPF_RB_NO_WAKEUP`); where none have come for a while it sleeps
/// (`BPF_RB_FORCE_WAKEUP`).
#[inline(always)]
pub fn wakeup() -> u64 {
    const NO_WAKEUP: u64 = 1;
    const FORCE_WAKEUP: u64 = 2;
    match READER.get_ptr(0) {
        // SAFETY: the map gave the pointer. Volatile: user space writes to it.
        Some(asleep) if unsafe { read_volatile(asleep) } != 0 => FORCE_WAKEUP,
        _ => NO_WAKEUP,
    }
}

/// Counters, by [`Stat`].
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(STAT_COUNT, 0);

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(value) = STATS.get_ptr_mut(stat.index()) {
        increment(value);
    }
}

/// Adds one to a counter that a per-CPU map holds. Atomic, because a softirq may run the same program
/// on this CPU between a load and a store.
#[inline(always)]
pub fn increment(value: *mut u64) {
    // SAFETY: a map gave the aligned, live pointer.
    unsafe { add(value, 1) };
}

/// Adds atomically: in assembly, because Rust has no atomic addition for this target, and this form of
/// it exists on every kernel.
///
/// # Safety
///
/// `value` must be valid for writes and aligned.
#[inline(always)]
pub unsafe fn add(value: *mut u64, number: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) number) };
}
