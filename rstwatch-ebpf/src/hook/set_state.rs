//! `inet_sock_set_state`: who connects, listens and closes, and the state before it.
//!
//! Only changes that the process makes itself name a process. The others are looked at for the
//! state before CLOSE alone, and leave at once where they belong to the normal end of a
//! connection that nothing is known about.

use core::ptr::write_volatile;

use aya_ebpf::EbpfContext;
use rstwatch_common::{
    entry::{
        MARK_ABORTED, MARK_RESET, SocketEntry, Task, Tuple, VIA_CLOSE, VIA_CONNECT, VIA_LISTEN,
        VIA_NONE,
    },
    record::{KIND_LISTEN, KIND_LISTEN_END, Listener},
    stats::Stat,
};

use super::{
    IF_READ, fill_header, lost,
    state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
};
use crate::{
    clock, desk, filter, history, live, maps,
    memory::{KernelPtr, Memory},
    socket, task,
};

/// `sk_err` of a connection that a retransmission, probe or user timeout ended.
const ETIMEDOUT: u32 = 110;

/// `sk_err` of a connect that met a RST or an ICMP error (`tcp_reset`, `tcp_v4_err`).
const ECONNREFUSED: u32 = 111;

/// The hook. `old` and `new` are TCP states; `sock` is a full socket of any inet protocol.
#[inline(always)]
pub fn set_state<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: i32, new: i32) {
    let (old, new) = (old as u8, new as u8);
    if new == ESTABLISHED || new > LISTEN || sock.is_null() {
        return;
    }
    match (old, new) {
        (CLOSE, SYN_SENT) => M::apart(|| opened::<M, C>(ctx, sock, VIA_CONNECT)),
        (CLOSE, LISTEN) => {
            M::apart(|| opened::<M, C>(ctx, sock, VIA_LISTEN));
            report_listener::<M, C>(ctx, sock, KIND_LISTEN);
        }
        (_, FIN_WAIT1 | LAST_ACK) => M::apart(|| closed::<M, C>(ctx, sock, old)),
        (ESTABLISHED | SYN_SENT | SYN_RECV | CLOSE_WAIT, CLOSE) => {
            M::apart(|| aborted::<M, C>(ctx, sock, old));
        }
        (LISTEN, CLOSE) => stopped::<M, C>(ctx, sock),
        (_, CLOSE) => M::apart(|| ended::<M, C>(ctx, sock, old)),
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
    // SAFETY: as above.
    if via == VIA_CONNECT && filter::is_on() && !unsafe { may_pass::<M>(sock) } {
        live::forget::<M>(M::address(sock));
        return;
    }
    let address = M::address(sock);
    let Some((place, entry)) = live::open::<M, C>(ctx, address) else {
        return;
    };
    let now_ns = match desk::get() {
        Some(desk) => {
            if via == VIA_CONNECT {
                // SAFETY: the map gave the pointer.
                unsafe { write_volatile(&raw mut (*desk).connecting, address) };
            }
            clock::lately_by(desk)
        }
        None => clock::lately(),
    };
    // SAFETY: the entry is this program's; every field is written.
    unsafe {
        task::fill_current::<M>(&raw mut (*entry).owner, now_ns);
        (*entry).closer = Task::NONE;
        (*entry).born_ns = now_ns;
        (*entry).closed_ns = 0;
        (*entry).via = via;
        (*entry).prev_state = 0;
        (*entry).marks = 0;
        (*entry).pad = 0;
        (*entry).error = 0;
        (*entry).pad2 = 0;
    }
    live::publish(address, place);
}

/// Whether resets of a connection that is being opened may be wanted. A function of its own, as
/// [`passes`] is: the stack has no room for its tuple as well.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(never)]
unsafe fn may_pass<M: Memory>(sock: KernelPtr) -> bool {
    let mut tuple = Tuple::EMPTY;
    // SAFETY: the caller's promise; `tuple` is ours.
    unsafe { socket::fill_ends::<M>(&raw mut tuple, sock, socket::open_port::<M>(sock)) };
    filter::may_admit(&tuple)
}

/// Whether resets of a connection are wanted.
///
/// # Safety
///
/// As [`may_pass`].
#[inline(never)]
unsafe fn passes<M: Memory>(sock: KernelPtr, local_port: u16) -> bool {
    let mut tuple = Tuple::EMPTY;
    // SAFETY: the caller's promise; `tuple` is ours.
    unsafe { socket::fill_ends::<M>(&raw mut tuple, sock, local_port) };
    filter::admits(&tuple)
}

/// `close()` or `shutdown()`: only they lead to FIN_WAIT1 and LAST_ACK (`tcp_close_state`). What is
/// known of a connection that its process is done with goes into the history now, and is found there
/// from now on, while the kernel goes on with the goodbye: most connections then need no entry among
/// the live sockets.
#[inline(always)]
fn closed<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8) {
    // SAFETY: the hook's socket is full and not null.
    let (port, done) = unsafe {
        if !socket::is_tcp::<M>(sock) {
            return;
        }
        // `close()` and `shutdown(SHUT_RDWR)` set both halves before they change the state.
        (
            socket::open_port::<M>(sock),
            socket::shutdown::<M>(sock) == socket::SHUTDOWN_MASK,
        )
    };
    // SAFETY: as above.
    if filter::is_on() && !unsafe { passes::<M>(sock, port) } {
        live::forget::<M>(M::address(sock));
        return;
    }
    let address = M::address(sock);
    if done {
        let mut tuple = Tuple::EMPTY;
        // SAFETY: as above; `tuple` is ours.
        let net = unsafe {
            socket::fill_ends::<M>(&raw mut tuple, sock, port);
            socket::net::<M>(sock)
        };
        if let Some(draft) = history::begin(ctx, &tuple, net) {
            let known = live::locate::<M>(address);
            // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
            unsafe { draft.keep_closed::<M>(old, known.map(|(_, entry)| entry)) };
            if let Some((place, _)) = known {
                live::forget_at(address, place);
            }
            return;
        }
    }
    if let Some(entry) = live::find::<M>(address) {
        // SAFETY: as above.
        unsafe { set_closer::<M>(entry, old) };
        return;
    }
    let mut entry = SocketEntry::EMPTY;
    // SAFETY: `entry` is ours.
    unsafe { set_closer::<M>(&raw mut entry, old) };
    live::remember::<M, C>(ctx, address, &entry);
}

/// The end of a listener (`__tcp_close`, `tcp_disconnect`): what its last connections still draw is
/// its closer's.
#[inline(always)]
fn stopped<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr) {
    if let Some(entry) = live::find::<M>(M::address(sock)) {
        // SAFETY: the map gave the pointer, whose key is a socket of ours; the socket's lock keeps
        // other writers off.
        unsafe { set_closer::<M>(entry, LISTEN) };
    }
    report_listener::<M, C>(ctx, sock, KIND_LISTEN_END);
}

/// From an open state straight to CLOSE: a reset in either direction, a timeout, a failed connect,
/// or a `close()` that aborts.
#[inline(always)]
fn aborted<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8) {
    // SAFETY: the hook's socket is full and not null.
    let (sock, error) = unsafe {
        let error = socket::error::<M>(sock);
        // Of a refused connect nothing more is asked.
        if (old == SYN_SENT && error == ECONNREFUSED) || !socket::is_tcp::<M>(sock) {
            return;
        }
        (M::tcp_sock(sock), error)
    };
    if sock.is_null() {
        return;
    }
    // SAFETY: it is the `tcp_sock` of the hook's socket, and not null.
    let closing = unsafe { socket::is_closing::<M>(sock) };
    // What still comes for it draws a reset; its process may close it much later, or has already.
    let timed_out = error == ETIMEDOUT;
    let address = M::address(sock);
    if let Some(entry) = live::find::<M>(address) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe {
            note_end(entry, old, error);
            if closing {
                set_closer::<M>(entry, old);
                (*entry).marks |= MARK_ABORTED;
            }
            if closing || timed_out {
                remember_now::<M, C>(ctx, sock, entry);
            }
        }
        return;
    }
    let mut entry = SocketEntry::EMPTY;
    // SAFETY: `entry` is ours.
    unsafe {
        note_end(&raw mut entry, old, error);
        if closing {
            set_closer::<M>(&raw mut entry, old);
            entry.marks |= MARK_ABORTED;
        }
        if closing || timed_out {
            remember_now::<M, C>(ctx, sock, &raw const entry);
        }
    }
    live::remember::<M, C>(ctx, address, &entry);
}

/// The end of a connection that both sides closed, or of one that ended while it was closing.
#[inline(always)]
fn ended<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8) {
    history::settle_own();
    // SAFETY: the hook's socket is full and not null.
    let error = unsafe { socket::error::<M>(sock) };
    if let Some(entry) = live::find::<M>(M::address(sock)) {
        // SAFETY: the map gave the pointer, whose key is a socket of ours; the socket's lock keeps
        // other writers off.
        unsafe { note_end(entry, old, error) };
    } else if error != 0 {
        ended_badly::<M, C>(ctx, sock, old, error);
    }
}

/// A timeout or a reset ended a connection that is in the history already.
#[inline(always)]
fn ended_badly<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, old: u8, error: u32) {
    let (mut tuple, mut past) = (Tuple::EMPTY, SocketEntry::EMPTY);
    // SAFETY: the hook's socket is full and not null; the others are ours.
    unsafe {
        if !socket::is_tcp::<M>(sock) {
            return;
        }
        let sock = M::tcp_sock(sock);
        if sock.is_null() {
            return;
        }
        let net = socket::net::<M>(sock);
        socket::fill_ends::<M>(&raw mut tuple, sock, socket::local_port::<M>(sock));
        if history::recall(&tuple, net, &raw mut past) {
            note_end(&raw mut past, old, error);
            history::remember_anew(ctx, &tuple, net, &past);
        }
    }
}

/// Notes the state before CLOSE, unless a reset has noted it already, and the error.
///
/// # Safety
///
/// `entry` must be valid for reads and writes.
#[inline(always)]
unsafe fn note_end(entry: *mut SocketEntry, old: u8, error: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if error == ETIMEDOUT && (*entry).closed_ns == 0 {
            (*entry).closed_ns = clock::lately();
        }
        if (*entry).marks & MARK_RESET == 0 {
            (*entry).prev_state = old;
        }
        (*entry).error = error as u16;
    }
}

/// Tells user space that a listener begins or ends. Rare, and in the process's own context.
#[inline(always)]
fn report_listener<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr, kind: u16) {
    // SAFETY: the hook's socket is full and not null.
    let sock = unsafe {
        if !socket::is_tcp::<M>(sock) {
            return;
        }
        M::tcp_sock(sock)
    };
    if sock.is_null() {
        return;
    }
    let Some(mut slot) = maps::reserve::<Listener>() else {
        lost(ctx, Stat::LostListener);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written.
    unsafe {
        fill_header(&raw mut (*record).header, kind, sock as u64);
        clock::listeners_change((*record).header.time_ns);
        socket::fill_tuple::<M>(&raw mut (*record).tuple, sock);
        task::fill_current::<M>(&raw mut (*record).task, (*record).header.time_ns);
        (*record).inode = socket::inode::<M>(sock);
    }
    slot.submit(IF_READ);
}

/// Puts a connection into the history now: `tcp_disconnect` clears the remote port before the
/// socket is destroyed, a timed-out one may be held for long, and segments that were on their way
/// draw resets of their own. Returns whether it could.
///
/// # Safety
///
/// `sock` must be the non-null `tcp_sock` of the hook's socket, `entry` valid for reads.
#[inline(always)]
unsafe fn remember_now<M: Memory, C: EbpfContext>(
    ctx: &C,
    sock: KernelPtr,
    entry: *const SocketEntry,
) -> bool {
    let mut tuple = Tuple::EMPTY;
    // SAFETY: the caller's promise.
    unsafe {
        socket::fill_ends::<M>(&raw mut tuple, sock, socket::local_port::<M>(sock));
        history::remember(ctx, &tuple, socket::net::<M>(sock), entry)
    }
}

/// # Safety
///
/// `entry` must be valid for reads and writes.
#[inline(always)]
unsafe fn set_closer<M: Memory>(entry: *mut SocketEntry, old: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let now_ns = clock::lately();
        task::fill_current::<M>(&raw mut (*entry).closer, now_ns);
        (*entry).closed_ns = now_ns;
        (*entry).prev_state = old;
        if (*entry).via == VIA_NONE {
            (*entry).owner = (*entry).closer;
            (*entry).via = VIA_CLOSE;
        }
    }
}
