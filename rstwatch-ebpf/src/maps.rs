//! The maps, all bounded; what does not fit is counted.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use aya_log_ebpf::warn;
use rstwatch_common::{
    entry::{SocketEntry, Tuple},
    stats::{STAT_COUNT, Stat},
};

use crate::globals;

/// Records on their way to user space. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Live sockets that something is known about, by kernel address. The loader sets the size.
#[map]
static SOCKETS: HashMap<u64, SocketEntry> = HashMap::with_max_entries(65_536, 0);

/// Connections closed a short while ago; the least recently used goes first.
#[map]
static HISTORY: LruHashMap<Tuple, SocketEntry> = LruHashMap::with_max_entries(32_768, 0);

/// Counters, by [`Stat`].
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(STAT_COUNT, 0);

/// `BPF_NOEXIST`: insert only what is not there yet.
const NO_EXIST: u64 = 1;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(value) = STATS.get_ptr_mut(stat.index()) {
        // SAFETY: the map gave an aligned, live pointer. Atomic, because a softirq may run the same
        // program on this CPU between a load and a store; in assembly, because Rust has no atomic
        // addition for this target, and this form of it exists on every kernel.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) 1_u64) };
    }
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

/// What is known of a connection closed a short while ago.
#[inline(always)]
pub fn past(tuple: &Tuple) -> Option<*mut SocketEntry> {
    HISTORY.get_ptr_mut(tuple)
}

/// Moves what is known of a socket to the history.
#[inline(always)]
pub fn remember_past<C: EbpfContext>(ctx: &C, tuple: &Tuple, entry: *const SocketEntry) {
    // SAFETY: `entry` points to a map value, or to an entry of ours, and is not null; the helper
    // copies it.
    let entry = unsafe { &*entry };
    if HISTORY.insert(tuple, entry, NO_EXIST).is_ok() {
        count(Stat::Remembered);
    } else if HISTORY.insert(tuple, entry, 0).is_err() {
        count(Stat::HistoryFailed);
        warn!(ctx, "the history refused a closed connection");
    }
}
