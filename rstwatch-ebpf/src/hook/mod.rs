//! What each tracepoint does: a file a hook.

mod destroy_sock;
mod interrupting;
mod old_send_reset;
mod receive_reset;
mod send_reset;
mod set_state;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_log_ebpf::warn;
use rstwatch_common::{
    entry::SocketEntry,
    record::{Header, LAYOUT_VERSION},
    stats::Stat,
};

pub use self::{
    destroy_sock::destroy_sock,
    interrupting::{interruptible, interrupting, told},
    old_send_reset::{IPV4, IPV6, old_send_reset},
    receive_reset::receive_reset,
    send_reset::send_reset,
    set_state::set_state,
};
use crate::maps;

/// TCP states (`include/net/tcp_states.h`, unchanged from 5.10 to 7.2).
mod state {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const SYN_SENT: u8 = 2;
    pub(super) const SYN_RECV: u8 = 3;
    pub(super) const FIN_WAIT1: u8 = 4;
    pub(super) const FIN_WAIT2: u8 = 5;
    pub(super) const TIME_WAIT: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CLOSE_WAIT: u8 = 8;
    pub(super) const LAST_ACK: u8 = 9;
    pub(super) const LISTEN: u8 = 10;
    pub(super) const CLOSING: u8 = 11;
    pub(super) const NEW_SYN_RECV: u8 = 12;
}

/// How to submit: whoever waits for the ring is woken if all before this record has been read, and not for
/// each record (`bpf_ringbuf_commit`, `kernel/bpf/ringbuf.c`). In a storm nobody waits.
const IF_READ: u64 = 0;

/// For what is discarded: there is nothing to read (`BPF_RB_NO_WAKEUP`).
const NO_WAKEUP: u64 = 1;

/// # Safety
///
/// `header` must be valid for writes.
#[inline(always)]
unsafe fn fill_header(header: *mut Header, kind: u16, sock: u64) {
    // SAFETY: the caller's promise; the helper takes no argument.
    unsafe { fill_header_at(header, kind, sock, bpf_ktime_get_ns()) };
}

/// The same of what was at `time_ns`.
///
/// # Safety
///
/// As [`fill_header`].
#[inline(always)]
unsafe fn fill_header_at(header: *mut Header, kind: u16, sock: u64, time_ns: u64) {
    // SAFETY: the caller's promise; the helper takes no argument.
    unsafe {
        (*header).kind = kind;
        (*header).version = LAYOUT_VERSION;
        (*header).cpu = bpf_get_smp_processor_id();
        (*header).time_ns = time_ns;
        (*header).sock = sock;
    }
}

/// Copies what is known of a socket into a record.
///
/// # Safety
///
/// `to` must be valid for writes; `from` valid for reads.
#[inline(always)]
unsafe fn copy_entry(to: *mut SocketEntry, from: *const SocketEntry) {
    // SAFETY: the caller's promise. The types are the same.
    unsafe { *to = *from };
}

/// Whether the close of a reset socket is worth waiting for: it names whoever held the socket last,
/// which may be another process than the one that opened it. A listener outlives the resets that it
/// draws; and a refused connect belongs to whoever connects, so that a storm of them costs no more.
#[inline(always)]
fn awaits_close(held: bool, state: u8) -> bool {
    held && state != state::LISTEN && state != state::SYN_SENT
}

/// States that only the process's own `close()` or `shutdown()` leads to (`tcp_close_state`,
/// `net/ipv4/tcp.c`): `set_state` has seen it, so that the connection's entry in the history, if it
/// has one, is its own and not that of an earlier one between the same ends.
#[inline(always)]
fn is_closing(state: u8) -> bool {
    matches!(
        state,
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK
    )
}

/// Counts a reset whose detail found no room in the ring.
#[inline(always)]
fn lost<C: aya_ebpf::EbpfContext>(ctx: &C, stat: Stat) {
    maps::count(stat);
    warn!(ctx, "the ring is full");
}
