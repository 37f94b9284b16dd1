//! `tcp_destroy_sock`: what was known of a socket moves to the history; and whoever closes a socket
//! that had been reset in its hands is its owner.

use aya_ebpf::EbpfContext;
use rstwatch_common::{
    entry::{MARK_AWAIT_CLOSE, MARK_RESET, Tuple},
    record::{Closed, KIND_CLOSED},
    stats::Stat,
};

use super::{IF_READ, fill_header, lost, state::SYN_SENT};
use crate::{
    history, live, maps,
    memory::{KernelPtr, Memory},
    socket, task,
};

/// The hook. `sock` is a full TCP socket in CLOSE.
#[inline(always)]
pub fn destroy_sock<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr) {
    if sock.is_null() {
        return;
    }
    let address = M::address(sock);
    let Some((place, entry)) = live::locate::<M>(address) else {
        return;
    };
    // SAFETY: the map gave the pointer; a socket is destroyed once.
    let (marks, closed_ns, prev_state) =
        unsafe { ((*entry).marks, (*entry).closed_ns, (*entry).prev_state) };
    if marks & MARK_AWAIT_CLOSE != 0 {
        report_closer::<M, C>(ctx, sock as u64);
    }
    // A refused connect has nothing that a later segment could be for.
    if closed_ns != 0 || (marks & MARK_RESET != 0 && prev_state != SYN_SENT) {
        let mut tuple = Tuple::EMPTY;
        // SAFETY: the hook's socket is full and not null; `tuple` is ours.
        unsafe {
            let sock = M::tcp_sock(sock);
            if !sock.is_null() {
                socket::fill_ends::<M>(&raw mut tuple, sock, socket::local_port::<M>(sock));
                // A listener has no remote port, nor has a socket after `tcp_disconnect`, whose
                // connection was remembered when it was aborted.
                if tuple.remote_port != 0 {
                    history::remember(ctx, &tuple, socket::net::<M>(sock), entry);
                }
            }
        }
    }
    live::forget_at(address, place);
}

/// Tells user space who closed a reset socket. After a reset the kernel destroys a socket that a
/// process holds only in that process's `close()` (`__tcp_close`, `net/ipv4/tcp.c`, 5.10 to 7.2).
#[inline(always)]
fn report_closer<M: Memory, C: EbpfContext>(ctx: &C, sock: u64) {
    let Some(mut slot) = maps::reserve::<Closed>() else {
        lost(ctx, Stat::LostClosed);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written.
    unsafe {
        fill_header(&raw mut (*record).header, KIND_CLOSED, sock);
        task::fill_current::<M>(&raw mut (*record).closer, (*record).header.time_ns);
    }
    slot.submit(IF_READ);
}
