//! The time of what happens to every connection, resets or none. That of a reset is read by its hook.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};

use rstwatch_common::desk::Desk;

use crate::{desk, memory::barrier};

/// The time in nanoseconds of `CLOCK_MONOTONIC`, or what it was earlier in the same jiffy: exact where
/// little happens. Reading the clock waits until all that was loaded before has come, and took 15 % of the
/// samples in the hooks; and the kernel's own coarse clock is not for programs of this kind
/// (`bpf_tracing_func_proto`, `kernel/trace/bpf_trace.c`, 6.18).
#[inline(always)]
pub fn lately() -> u64 {
    match desk::get() {
        Some(desk) => lately_by(desk),
        // SAFETY: the helper takes no argument.
        None => unsafe { bpf_ktime_get_ns() },
    }
}

/// The same, for who has the desk at hand.
#[inline(always)]
pub fn lately_by(last: *mut Desk) -> u64 {
    // SAFETY: the helper takes no argument.
    let jiffies = unsafe { bpf_jiffies64() };
    // SAFETY: the map gave the pointer; only this CPU writes to it. A program that runs in the middle of this
    // one leaves what it has read in the same jiffy, or another jiffy than is looked for next.
    unsafe {
        if read_volatile(&raw const (*last).jiffies) == jiffies {
            return read_volatile(&raw const (*last).time_ns);
        }
        let ns = bpf_ktime_get_ns();
        write_volatile(&raw mut (*last).time_ns, ns);
        barrier(last);
        write_volatile(&raw mut (*last).jiffies, jiffies);
        ns
    }
}
