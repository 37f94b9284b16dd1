//! `inet_sock_set_state`: who connects, listens and closes, and the state before it.
//!
//! Only changes that the process makes itself name a process. The others are looked at for the
//! state before CLOSE alone, and leave at once where they belong to the normal end of a
//! connection that nothing is known about.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};
use rstwatch_common::entry::{
    MARK_RESET, SocketEntry, Tuple, VIA_CLOSE, VIA_CONNECT, VIA_LISTEN, VIA_NONE,
};

use super::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT,
};
use crate::{
    maps,
    memory::{KernelPtr, Memory},
    socket, task,
};

/// The hook. `old` and `new` are TCP states; `sock` is a full socket of any inet protocol.
#[inline(always)]
pub fn set_state<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: i32, new: i32) {
    let (old, new) = (old as u8, new as u8);
    if new == ESTABLISHED || new > LISTEN || sock.is_null() {
        return;
    }
    match (old, new) {
        (CLOSE, SYN_SENT) => opened::<M, C>(ctx, sock, VIA_CONNECT),
        (CLOSE, LISTEN) => opened::<M, C>(ctx, sock, VIA_LISTEN),
        (_, FIN_WAIT1 | LAST_ACK) => closed::<M, C>(ctx, sock, old),
        (ESTABLISHED | SYN_SENT | SYN_RECV | CLOSE_WAIT, CLOSE) => aborted::<M, C>(ctx, sock, old),
        (LISTEN, CLOSE) => closed::<M, C>(ctx, sock, old),
        (_, CLOSE) => ended(sock, old),
        _ => {}
    }
}

/// `connect()` or `listen()`: both run in the process's own system call (`tcp_v4_connect`,
/// `tcp_v6_connect`, `inet_csk_listen_start`).
#[inline(always)]
fn opened<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, via: u8) {
    // SAFETY: the hook's socket is full and not null.
    if !unsafe { socket::is_tcp::<M>(sock) } {
        return;
    }
    let mut entry = SocketEntry::EMPTY;
    // SAFETY: `entry` is ours; the helper takes no argument.
    unsafe {
        task::fill_current::<M>(&raw mut entry.owner);
        entry.born_ns = bpf_ktime_get_ns();
    }
    entry.via = via;
    // Whatever an earlier socket at this address left is replaced.
    maps::remember(ctx, sock as u64, &entry);
}

/// `close()` or `shutdown()`: only they lead to FIN_WAIT1 and LAST_ACK (`tcp_close_state`), and a
/// listener to CLOSE (`__tcp_close`, `tcp_disconnect`).
#[inline(always)]
fn closed<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8) {
    // SAFETY: the hook's socket is full and not null.
    if !unsafe { socket::is_tcp::<M>(sock) } {
        return;
    }
    if let Some(entry) = maps::socket(sock as u64) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe { set_closer::<M>(entry, old) };
    } else {
        let mut entry = SocketEntry::EMPTY;
        // SAFETY: `entry` is ours.
        unsafe { set_closer::<M>(&raw mut entry, old) };
        maps::remember(ctx, sock as u64, &entry);
    }
}

/// From an open state straight to CLOSE: a reset in either direction, a timeout, a failed connect,
/// or a `close()` that aborts.
#[inline(always)]
fn aborted<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8) {
    // SAFETY: the hook's socket is full and not null.
    let (tcp, closing) = unsafe {
        if !socket::is_tcp::<M>(sock) {
            return;
        }
        (M::tcp_sock(sock), socket::is_closing::<M>(sock))
    };
    if tcp.is_null() {
        return;
    }
    if let Some(entry) = maps::socket(sock as u64) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe {
            if closing {
                set_closer::<M>(entry, old);
                remember_abort::<M, C>(ctx, sock, tcp, entry);
            } else if (*entry).marks & MARK_RESET == 0 {
                (*entry).prev_state = old;
            }
        }
    } else {
        let mut entry = SocketEntry::EMPTY;
        entry.prev_state = old;
        if closing {
            // SAFETY: `entry` is ours.
            unsafe {
                set_closer::<M>(&raw mut entry, old);
                remember_abort::<M, C>(ctx, sock, tcp, &raw const entry);
            }
        }
        maps::remember(ctx, sock as u64, &entry);
    }
}

/// The end of a connection that both sides closed, or of one reset while closing.
#[inline(always)]
fn ended(sock: KernelPtr, old: u8) {
    if let Some(entry) = maps::socket(sock as u64) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe {
            if (*entry).marks & MARK_RESET == 0 {
                (*entry).prev_state = old;
            }
        }
    }
}

/// Remembers an aborted connection now: `tcp_disconnect` clears the remote port before the socket
/// is destroyed, and segments that were on their way draw resets of their own.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook, `tcp` its `tcp_sock`, `entry` valid
/// for reads.
#[inline(always)]
unsafe fn remember_abort<M: Memory, C: EbpfContext>(
    ctx: &C,
    sock: KernelPtr,
    tcp: KernelPtr,
    entry: *const SocketEntry,
) {
    let mut tuple = Tuple {
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        netns: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { socket::fill_tuple::<M>(&raw mut tuple, sock, tcp) };
    maps::remember_past(ctx, &tuple, entry);
}

/// # Safety
///
/// `entry` must be valid for reads and writes.
#[inline(always)]
unsafe fn set_closer<M: Memory>(entry: *mut SocketEntry, old: u8) {
    // SAFETY: the caller's promise; the helper takes no argument.
    unsafe {
        task::fill_current::<M>(&raw mut (*entry).closer);
        (*entry).closed_ns = bpf_ktime_get_ns();
        (*entry).prev_state = old;
        if (*entry).via == VIA_NONE {
            (*entry).owner = (*entry).closer;
            (*entry).via = VIA_CLOSE;
        }
    }
}
