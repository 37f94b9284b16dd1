//! `tcp_receive_reset`: a RST arrived for a full socket, or data arrived after its receiving side
//! had been shut down, for which the kernel calls `tcp_reset` as well.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};
use rstwatch_common::{
    desk::Desk,
    entry::{MARK_AWAIT_CLOSE, MARK_MAYBE_DATA, MARK_RESET, MARK_UNTOLD, SocketEntry, Tuple},
    record::{IS_KERNEL, KIND_RECEIVED, KIND_REFUSED, Refused, Reset, SOCK_HELD, SocketReset},
    stats::Stat,
};

use super::{
    IF_READ, awaits_close, copy_entry, fill_header_at, is_closing, lost,
    state::{CLOSE_WAIT, SYN_SENT},
};
use crate::{
    clock, desk, filter, history,
    lane::Room,
    live::{self, Place},
    maps,
    memory::{KernelPtr, Memory},
    netns, segment, socket, tally,
};

/// The hook. `sock` is a full TCP socket, in its state before the reset.
#[inline(always)]
pub fn receive_reset<M: Memory, C: EbpfContext>(ctx: &C, sock: KernelPtr) {
    let Some(desk) = desk::for_reset(Stat::Received) else {
        return;
    };
    // SAFETY: the map gave the pointer.
    maps::increment_alone(unsafe { &raw mut (*desk).received });
    if sock.is_null() {
        return;
    }
    // SAFETY: the hook's socket is not null.
    if unsafe { socket::state::<M>(sock) } == SYN_SENT
        && let Some((place, entry)) = live::locate::<M>(M::address(sock))
    {
        refused::<M, C>(ctx, desk, sock, place, entry);
        return;
    }
    // SAFETY: as above.
    let sock = unsafe { M::tcp_sock(sock) };
    if sock.is_null() {
        return;
    }
    // SAFETY: as above.
    let (state, shutdown) = unsafe { (socket::state::<M>(sock), socket::shutdown::<M>(sock)) };
    // `tcp_rcv_state_process` answers data with `tcp_reset` and then a RST only in these states and
    // only when no more is received (`net/ipv4/tcp_input.c`, step 7, 5.10 to 7.2).
    let maybe_data =
        shutdown & socket::RCV_SHUTDOWN != 0 && (state == CLOSE_WAIT || is_closing(state));
    // SAFETY: the hook's socket is not null.
    let held = unsafe { socket::is_held::<M>(sock) };
    let mut tuple = Tuple::EMPTY;
    // SAFETY: the hook's socket is not null; `tuple` is ours.
    unsafe { socket::fill_ends::<M>(&raw mut tuple, sock, socket::local_port::<M>(sock)) };
    tally::received(state, &tuple);
    let passes = filter::admits(&tuple);
    if !passes {
        maps::count_alone(Stat::ReceivedFiltered);
        if !maybe_data {
            return;
        }
    }
    // SAFETY: as above.
    tuple.netns = unsafe { netns::inode::<M>(socket::net::<M>(sock)) };
    let known = live::find::<M>(M::address(sock));
    let mut marks = MARK_RESET;
    if maybe_data {
        marks |= MARK_MAYBE_DATA;
        if !passes {
            marks |= MARK_UNTOLD;
        }
    }
    let met = Met {
        state,
        marks,
        awaits_close: passes && awaits_close(held, state),
    };
    let mut unseen = SocketEntry::EMPTY;
    let entry: *const SocketEntry = if let Some(entry) = known {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe { met.note(entry) };
        entry
    } else {
        met.note_unseen::<M, C>(ctx, sock, &tuple, &mut unseen);
        &raw const unseen
    };
    if !passes {
        return;
    }
    let Some(mut slot) = maps::reserve::<SocketReset>() else {
        lost(ctx, Stat::LostReset);
        if maybe_data {
            note_untold::<M, C>(ctx, sock, &tuple, &mut unseen);
        }
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written.
    unsafe {
        let time_ns = bpf_ktime_get_ns();
        fill_reset(
            &raw mut (*record).reset,
            KIND_RECEIVED,
            sock,
            &tuple,
            state,
            time_ns,
        );
        socket::fill_facts::<M>(&raw mut (*record).socket, sock, state);
        copy_entry(&raw mut (*record).entry, entry);
        if !held {
            (*record).socket.flags &= !SOCK_HELD;
        }
    }
    slot.submit(IF_READ);
}

/// The reset of a connect under way, which has an entry since `connect()` and needs it no more: the
/// hooks that follow, of which a storm has two for each connect, then have nothing to find.
#[inline(always)]
fn refused<M: Memory, C: EbpfContext>(
    ctx: &C,
    desk: *mut Desk,
    sock: KernelPtr,
    place: Place,
    entry: *mut SocketEntry,
) {
    let address = M::address(sock);
    let mut tuple = Tuple::EMPTY;
    // SAFETY: the hook's socket is not null, and not in CLOSE yet; `tuple` is ours.
    unsafe { socket::fill_ends::<M>(&raw mut tuple, sock, socket::open_port::<M>(sock)) };
    tally::refused_here(&tuple);
    if !filter::admits(&tuple) {
        maps::count_alone(Stat::ReceivedFiltered);
        return;
    }
    // SAFETY: as above.
    let sock = unsafe { M::tcp_sock(sock) };
    if sock.is_null() {
        return;
    }
    // SAFETY: as above.
    tuple.netns = unsafe { netns::inode_here::<M>(socket::net::<M>(sock)) };
    let Some(room) = Room::<Refused>::reserve::<false>(desk) else {
        lost(ctx, Stat::LostReset);
        return;
    };
    // SAFETY: as above. TCP has read it for the segment that carries the reset (`tcp_rcv_state_process`).
    let time_ns =
        unsafe { clock::of_socket::<M>(desk, sock).unwrap_or_else(|| bpf_ktime_get_ns()) };
    let record = room.record();
    // SAFETY: the ring gave room for a whole record; every field is written. The map gave `entry`,
    // and the hook's socket is not null.
    unsafe {
        let reset: *mut Reset = &raw mut (*record).reset;
        fill_reset(reset, KIND_REFUSED, sock, &tuple, SYN_SENT, time_ns);
        if socket::is_kernel_owned::<M>(sock) {
            (*reset).flags |= IS_KERNEL;
        }
        (*record).owner = (*entry).owner;
        (*record).born_ns = (*entry).born_ns;
        (*record).cgroup = socket::cgroup::<M>(sock);
    }
    room.submit(IF_READ);
    live::forget_at(address, place);
}

/// # Safety
///
/// `reset` must be valid for writes.
#[inline(always)]
unsafe fn fill_reset(
    reset: *mut Reset,
    kind: u16,
    sock: KernelPtr,
    tuple: &Tuple,
    state: u8,
    time_ns: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        fill_header_at(&raw mut (*reset).header, kind, sock as u64, time_ns);
        segment::clear(reset);
        (*reset).tuple = *tuple;
        (*reset).reason = 0;
        (*reset).state = state;
        (*reset).substate = 0;
        (*reset).flags = 0;
        (*reset).pad = 0;
    }
}

/// Notes, of a reset that may be none, that user space has not heard of it. `past` is room for what the
/// history knows: the stack has none for another entry.
#[inline(never)]
fn note_untold<M: Memory, C: EbpfContext>(
    ctx: &C,
    sock: KernelPtr,
    tuple: &Tuple,
    past: &mut SocketEntry,
) {
    if let Some(entry) = live::find::<M>(M::address(sock)) {
        // SAFETY: the map gave the pointer; the socket's lock keeps other writers off.
        unsafe { (*entry).marks |= MARK_UNTOLD };
        return;
    }
    // SAFETY: the hook's socket is not null; `past` is the caller's own.
    unsafe {
        if history::recall(tuple, socket::net::<M>(sock), &raw mut *past) {
            past.marks |= MARK_UNTOLD;
            history::remember_anew(ctx, tuple, socket::net::<M>(sock), past);
        }
    }
}

/// What the reset met.
struct Met {
    /// The state before it.
    state: u8,
    /// What to mark the socket with.
    marks: u8,
    /// Whether the socket's close is worth waiting for.
    awaits_close: bool,
}

impl Met {
    /// Notes the reset and the state that it met.
    ///
    /// # Safety
    ///
    /// `entry` must be valid for reads and writes, and nobody else write to it.
    #[inline(always)]
    unsafe fn note(&self, entry: *mut SocketEntry) {
        // SAFETY: the caller's promise.
        unsafe {
            (*entry).marks |= self.marks;
            if self.awaits_close {
                (*entry).marks |= MARK_AWAIT_CLOSE;
            }
            (*entry).prev_state = self.state;
        }
    }

    /// The same for a socket without an entry: of one that has been closed the history knows, the
    /// others get an entry if anything is still to come. `entry`, which is empty, becomes what is
    /// known then.
    #[inline(always)]
    fn note_unseen<M: Memory, C: EbpfContext>(
        &self,
        ctx: &C,
        sock: KernelPtr,
        tuple: &Tuple,
        entry: &mut SocketEntry,
    ) {
        let known = &raw mut *entry;
        // SAFETY: the hook's socket is not null; `entry` is the caller's own.
        unsafe {
            if is_closing(self.state) && history::recall(tuple, socket::net::<M>(sock), known) {
                entry.marks |= self.marks;
                entry.prev_state = self.state;
                history::remember_anew(ctx, tuple, socket::net::<M>(sock), entry);
                return;
            }
        }
        *entry = SocketEntry::EMPTY;
        if self.awaits_close || self.marks & MARK_MAYBE_DATA != 0 {
            // SAFETY: as above.
            unsafe { self.note(known) };
            live::remember::<M, C>(ctx, M::address(sock), entry);
        }
    }
}
