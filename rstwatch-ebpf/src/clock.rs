//! When it was.
//!
//! Reading the clock is a call that calls others, and waits until all that was loaded before has come: 45 ns of the 90 that a
//! sent reset took. TCP itself reads it for each segment, and keeps that with the socket.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use rstwatch_common::desk::Desk;

use crate::{
    desk,
    globals::{offset_of_field, present},
    maps,
    memory::{KernelPtr, Memory, barrier},
    segment::Segment,
};

/// The time in nanoseconds of `CLOCK_MONOTONIC`, or what it was earlier in the same jiffy: exact where
/// little happens. The kernel's own coarse clock is not for programs of this kind (`bpf_tracing_func_proto`,
/// `kernel/trace/bpf_trace.c`, 6.18).
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

/// Longer than any jiffy, in nanoseconds.
const JIFFY_NS: u64 = 10_000_001;

/// When a listener came or went last, in nanoseconds of `CLOCK_MONOTONIC`.
#[map]
static LISTENERS_CHANGED: Array<u64> = Array::with_max_entries(1, maps::ALIGNED);

/// A listener comes or goes, at that time.
#[inline(always)]
pub fn listeners_change(time_ns: u64) {
    if let Some(changed) = LISTENERS_CHANGED.get_ptr_mut(0) {
        // SAFETY: the map gave the pointer.
        unsafe { write_volatile(changed, time_ns) };
    }
}

/// When a segment that met no socket drew a reset: the time of the segment itself, where it is the SYN of the connect
/// that began last on this CPU, in this jiffy. It came by within some microseconds.
///
/// Not where a listener has come or gone since: user space must learn of that first, by the time. The listener's hook says so
/// before the kernel takes it out of its tables, and so before any segment meets no socket for that.
#[inline(always)]
pub fn of_segment<M: Memory>(desk: *mut Desk, segment: &Segment) -> u64 {
    // SAFETY: the map gave the pointers; anything may be read through the socket's, and whether it is the right one is asked.
    unsafe {
        let connecting = M::tcp_sock_at(read_volatile(&raw const (*desk).connecting));
        if !connecting.is_null()
            && M::read::<u32>(connecting, offset_of_field!(write_seq))
                == segment.seq.wrapping_add(1)
            && M::read::<u16>(connecting, offset_of_field!(skc_num)) == segment.remote_port
            && u16::from_be(M::read(connecting, offset_of_field!(skc_dport))) == segment.local_port
            && let Some(time_ns) = of_socket::<M>(desk, connecting)
            && let Some(changed) = LISTENERS_CHANGED.get_ptr(0)
            && read_volatile(changed) < time_ns
        {
            return time_ns;
        }
        bpf_ktime_get_ns()
    }
}

/// When TCP read the clock last for a socket (`tcp_mstamp_refresh`, `net/ipv4/tcp_output.c`), if it was in this jiffy, and after this
/// CPU had read it.
///
/// # Safety
///
/// `sock` must be one that may be read through as a `tcp_sock`.
#[inline(always)]
pub unsafe fn of_socket<M: Memory>(desk: *mut Desk, sock: KernelPtr) -> Option<u64> {
    let cache = offset_of_field!(tcp_clock_cache);
    // SAFETY: the helper takes no argument; the map gave the pointer; the caller's promise.
    unsafe {
        if !present(cache) || read_volatile(&raw const (*desk).jiffies) != bpf_jiffies64() {
            return None;
        }
        let time_ns: u64 = M::read(sock, cache);
        let since = time_ns.wrapping_sub(read_volatile(&raw const (*desk).time_ns));
        (since < JIFFY_NS).then_some(time_ns)
    }
}
