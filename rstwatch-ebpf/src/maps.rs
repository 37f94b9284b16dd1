//! The maps, all bounded; what does not fit is counted.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use aya_log_ebpf::warn;
use rstwatch_common::{
    entry::SocketEntry,
    stats::{STAT_COUNT, Stat},
};

use crate::globals;

/// Records on their way to user space. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Live sockets that something is known about, by kernel address. The loader sets the size.
#[map]
static SOCKETS: HashMap<u64, SocketEntry> = HashMap::with_max_entries(65_536, 0);

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

/// Adds one to a counter that a per-CPU map holds.
#[inline(always)]
pub fn increment(value: *mut u64) {
    // SAFETY: a map gave the aligned, live pointer. Atomic, because a softirq may run the same
    // program on this CPU between a load and a store; in assembly, because Rust has no atomic
    // addition for this target, and this form of it exists on every kernel.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) 1_u64) };
}

/// What is known of a live socket.
#[inline(always)]
pub fn socket(sock: u64) -> Option<*mut SocketEntry> {
    SOCKETS.get_ptr_mut(sock)
}

/// Remembers a socket. Returns whether there was room. Where nothing tells when it goes, none is: the
/// next one at its address would be taken for it.
#[inline(always)]
pub fn remember<C: EbpfContext>(ctx: &C, sock: u64, entry: &SocketEntry) -> bool {
    if !globals::has_destroy_sock() {
        return false;
    }
    let stored = SOCKETS.insert(sock, entry, 0).is_ok();
    if !stored {
        count(Stat::SocketsFull);
        warn!(ctx, "the map of live sockets is full");
    }
    stored
}

/// Forgets a live socket.
#[inline(always)]
pub fn forget(sock: u64) {
    // Nothing to do when it is not there: another CPU may have been faster.
    let _ = SOCKETS.remove(sock);
}
