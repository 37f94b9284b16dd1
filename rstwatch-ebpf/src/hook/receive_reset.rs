//! `tcp_receive_reset`: a RST arrived for a full socket, or data arrived after its receiving side
//! had been shut down, for which the kernel calls `tcp_reset` as well.

use aya_ebpf::EbpfContext;
use rstwatch_common::{
    entry::{MARK_AWAIT_CLOSE, MARK_MAYBE_DATA, MARK_RESET, SocketEntry},
    record::{IS_KERNEL, KIND_RECEIVED, KIND_REFUSED, Refused, Reset, SOCK_HELD, SocketReset},
    stats::Stat,
};

use super::{
    NO_WAKEUP, awaits_close, copy_entry, fill_header, lost,
    state::{CLOSE_WAIT, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_SENT},
};
use crate::{
    maps,
    memory::{KernelPtr, Memory},
    segment, socket,
};

/// The hook. `sock` is a full TCP socket, in its state before the reset.
#[inline(always)]
pub fn receive_reset<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr) {
    maps::count(Stat::Received);
    if sock.is_null() {
        return;
    }
    // SAFETY: the hook's socket is not null.
    let (tcp, state, shutdown) = unsafe {
        (
            M::tcp_sock(sock),
            socket::state::<M>(sock),
            socket::shutdown::<M>(sock),
        )
    };
    if tcp.is_null() {
        return;
    }
    // `tcp_rcv_state_process` answers data with `tcp_reset` and then a RST only in these states and
    // only when no more is received (`net/ipv4/tcp_input.c`, step 7, 5.10 to 7.2).
    let maybe_data = shutdown & socket::RCV_SHUTDOWN != 0
        && matches!(
            state,
            FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING
        );
    // SAFETY: the hook's socket is not null.
    let held = unsafe { socket::is_held::<M>(sock) };
    let entry = mark::<C>(ctx, sock as u64, state, held, maybe_data);
    if state == SYN_SENT
        && let Some(entry) = entry
    {
        refused::<M, C>(ctx, sock, tcp, entry);
        return;
    }

    let Some(mut slot) = maps::EVENTS.reserve::<SocketReset>(0) else {
        lost(ctx, Stat::LostReset);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written.
    unsafe {
        let reset: *mut Reset = &raw mut (*record).reset;
        fill_reset::<M>(reset, KIND_RECEIVED, sock, tcp, state);
        socket::fill_facts::<M>(&raw mut (*record).socket, sock, tcp, state);
        match entry {
            Some(entry) => copy_entry(&raw mut (*record).entry, entry),
            None => (*record).entry = SocketEntry::EMPTY,
        }
        if !held {
            (*record).socket.flags &= !SOCK_HELD;
        }
    }
    slot.submit(NO_WAKEUP);
}

/// The reset of a connect under way, which has an entry since `connect()`.
#[inline(always)]
fn refused<M: Memory, C: EbpfContext>(
    ctx: &C,
    sock: KernelPtr,
    tcp: KernelPtr,
    entry: *const SocketEntry,
) {
    let Some(mut slot) = maps::EVENTS.reserve::<Refused>(0) else {
        lost(ctx, Stat::LostReset);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written. The map gave `entry`,
    // and the hook's socket is not null.
    unsafe {
        let reset: *mut Reset = &raw mut (*record).reset;
        fill_reset::<M>(reset, KIND_REFUSED, sock, tcp, SYN_SENT);
        if socket::is_kernel_owned::<M>(sock) {
            (*reset).flags |= IS_KERNEL;
        }
        (*record).owner = (*entry).owner;
        (*record).born_ns = (*entry).born_ns;
        (*record).cgroup = socket::cgroup::<M>(sock);
    }
    slot.submit(NO_WAKEUP);
}

/// # Safety
///
/// `reset` must be valid for writes, `sock` be the hook's socket, not null, and `tcp` its
/// `tcp_sock`.
#[inline(always)]
unsafe fn fill_reset<M: Memory>(
    reset: *mut Reset,
    kind: u16,
    sock: KernelPtr,
    tcp: KernelPtr,
    state: u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        fill_header(&raw mut (*reset).header, kind, sock as u64);
        segment::clear(reset);
        socket::fill_tuple::<M>(&raw mut (*reset).tuple, sock, tcp);
        (*reset).reason = 0;
        (*reset).state = state;
        (*reset).substate = 0;
        (*reset).flags = 0;
        (*reset).pad = 0;
    }
}

/// Notes the reset and the state that it met. Gives the entry, when there is one now.
#[inline(always)]
fn mark<C: EbpfContext>(
    ctx: &C,
    sock: u64,
    state: u8,
    held: bool,
    maybe_data: bool,
) -> Option<*mut SocketEntry> {
    let mut marks = MARK_RESET;
    if maybe_data {
        marks |= MARK_MAYBE_DATA;
    }
    if let Some(entry) = maps::socket(sock) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe {
            if awaits_close(held, state) {
                marks |= MARK_AWAIT_CLOSE;
            }
            (*entry).marks |= marks;
            (*entry).prev_state = state;
        }
        return Some(entry);
    }
    if awaits_close(held, state) {
        marks |= MARK_AWAIT_CLOSE;
    } else if !maybe_data {
        // Nobody holds it and no second hook follows: there is nothing to remember.
        return None;
    }
    let mut entry = SocketEntry::EMPTY;
    entry.marks = marks;
    entry.prev_state = state;
    if !maps::remember(ctx, sock, &entry) {
        return None;
    }
    maps::socket(sock)
}
