//! The rings and the counters. What does not fit into a map is counted.

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use rstwatch_common::stats::{STAT_COUNT, Stat};

use crate::globals;

/// `BPF_F_MMAPABLE`, for the alignment that comes with it: the elements of an array begin at a page's
/// border. Without it they begin behind `struct bpf_array`, on 6.18 56 bytes behind the border of a cache
/// line (`array_map_alloc`, `kernel/bpf/arraymap.c`).
pub const ALIGNED: u32 = 1 << 10;

/// Records on their way to user space. The loader sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The same of CPUs with odd numbers, where they have a ring of their own: CPUs that share one wait for each
/// other.
#[map]
static EVENTS_ODD: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Counters, by [`Stat`].
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(STAT_COUNT, 0);

/// Room for a record in this CPU's ring.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    // SAFETY: the helper takes no argument.
    if globals::has_two_rings() && unsafe { bpf_get_smp_processor_id() } & 1 != 0 {
        EVENTS_ODD.reserve::<T>(0)
    } else {
        EVENTS.reserve::<T>(0)
    }
}

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

/// The same of a counter to which one program alone adds.
#[inline(always)]
pub fn count_alone(stat: Stat) {
    if let Some(value) = STATS.get_ptr_mut(stat.index()) {
        increment_alone(value);
    }
}

/// Adds one to a counter of this CPU to which one program alone adds. Where that is never in the middle of
/// itself nothing can come between a load and a store; and an atomic addition waits until all
/// that was stored before has left the processor.
#[inline(always)]
pub fn increment_alone(value: *mut u64) {
    if globals::is_never_within_itself() {
        // SAFETY: a map gave the aligned, live pointer.
        unsafe { write_volatile(value, read_volatile(value) + 1) };
    } else {
        increment(value);
    }
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
