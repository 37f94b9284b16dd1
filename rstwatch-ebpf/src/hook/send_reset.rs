//! `tcp_send_reset`: this host sends a RST, in answer to a segment or of its own accord.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_ktime_get_ns, generated::bpf_get_stack},
};
use rstwatch_common::{
    desk::Desk,
    entry::{MARK_AWAIT_CLOSE, MARK_MAYBE_DATA, MARK_RESET, MARK_UNTOLD, SocketEntry, Tuple},
    record::{
        ActiveReset, HAS_REASON, KIND_ACTIVE_RESET, KIND_LATE_RESET, KIND_SEGMENT_RESET,
        KIND_SOCKET_RESET, LateReset, Reset, STACK_FRAMES, SegmentReset, SocketReset,
    },
    stats::Stat,
    tally::{BY_SEGMENT, OF_OWN_ACCORD},
};

use super::{
    IF_READ, NO_WAKEUP, awaits_close, copy_entry, fill_header, fill_header_at, is_closing, lost,
    state::{CLOSE, LISTEN, NEW_SYN_RECV, TIME_WAIT},
};
use crate::{
    clock, filter,
    globals::offset_of_field,
    history,
    lane::Room,
    live, maps,
    memory::{KernelPtr, Memory, Probe, read_if_present},
    netns,
    segment::{self, Headers},
    socket, tally, task,
};

/// TCP flag bits SYN and ACK.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What is put together on the stack, of which there is little: one for all paths. Most resets of a storm need none of
/// it, so whoever does makes it empty first.
pub(super) struct Scratch {
    tuple: MaybeUninit<Tuple>,
    later: MaybeUninit<Later>,
}

/// What is known of a connection, or before that is asked, a segment's headers.
#[derive(Clone, Copy)]
union Later {
    known: SocketEntry,
    headers: Headers,
}

impl Scratch {
    pub(super) const fn new() -> Self {
        Self {
            tuple: MaybeUninit::uninit(),
            later: MaybeUninit::uninit(),
        }
    }

    #[inline(always)]
    fn empty(&mut self) -> (&mut Tuple, &mut SocketEntry) {
        let known = SocketEntry::EMPTY;
        let later = self.later.write(Later { known });
        // SAFETY: it has just been written.
        (self.tuple.write(Tuple::EMPTY), unsafe { &mut later.known })
    }

    #[inline(always)]
    fn headers(&mut self) -> &mut Headers {
        let headers = Headers::NONE;
        let later = self.later.write(Later { headers });
        // SAFETY: it has just been written.
        unsafe { &mut later.headers }
    }
}

/// The hook. `desk` is this CPU's; `sock` is null, a TIME_WAIT socket or a full one; `skb` is the segment, null when the
/// host resets of its own accord; `reason` is the kernel's, on 6.10 and later. `SECOND` is the program that may be
/// in the middle of the first.
#[inline(always)]
pub fn send_reset<M: Memory, C: EbpfContext, const SECOND: bool>(
    ctx: &C,
    desk: *mut Desk,
    sock: KernelPtr,
    skb: KernelPtr,
    reason: Option<u32>,
) {
    let mut scratch = Scratch::new();
    if sock.is_null() {
        if !skb.is_null() {
            without_socket::<M, C, SECOND>(ctx, desk, sock, skb, reason, 0, &mut scratch);
        }
        return;
    }
    // SAFETY: the hook's socket is not null.
    let state = unsafe { socket::state::<M>(sock) };
    if state == TIME_WAIT || state == NEW_SYN_RECV {
        if !skb.is_null() {
            without_socket::<M, C, SECOND>(ctx, desk, sock, skb, reason, state, &mut scratch);
        }
        return;
    }
    // SAFETY: as above.
    let sock = unsafe { M::tcp_sock(sock) };
    if sock.is_null() {
        return;
    }
    if skb.is_null() {
        active::<M, C, SECOND>(ctx, sock, reason, state, &mut scratch);
    } else {
        answer::<M, C, SECOND>(ctx, sock, skb, reason, state, &mut scratch);
    }
}

/// Counts a reset that the filter holds back: each of the two programs for itself.
#[inline(always)]
fn count_filtered<const SECOND: bool>() {
    maps::count_alone(if SECOND {
        Stat::InterruptingFiltered
    } else {
        Stat::SentFiltered
    });
}

/// A segment met no socket, or one in TIME_WAIT, of which only the common part may be read.
#[inline(always)]
pub(super) fn without_socket<M: Memory, C: EbpfContext, const SECOND: bool>(
    ctx: &C,
    desk: *mut Desk,
    sock: KernelPtr,
    skb: KernelPtr,
    reason: Option<u32>,
    state: u8,
    scratch: &mut Scratch,
) {
    if filter::is_on() {
        let tuple = scratch.tuple.write(Tuple::EMPTY);
        // SAFETY: the hook's `skb` is not null.
        unsafe { segment::fill_tuple::<M>(tuple, skb) };
        if !passes(tuple) {
            tally::sent_here::<SECOND>(reason, state, tuple.local_port);
            count_filtered::<SECOND>();
            return;
        }
    }
    let Some(room) = Room::<SegmentReset>::reserve::<SECOND>(desk) else {
        let tuple = scratch.tuple.write(Tuple::EMPTY);
        // SAFETY: as above.
        unsafe { segment::fill_tuple::<M>(tuple, skb) };
        tally::sent::<SECOND>(reason, state, BY_SEGMENT, tuple.local_port);
        lost(ctx, Stat::LostReset);
        return;
    };
    let record = room.record();
    // SAFETY: the ring gave room for a whole record; every field is written. The hook's `skb` is
    // not null, and neither is its `sock` where the state says so.
    unsafe {
        let reset = &raw mut (*record).reset;
        let segment = segment::fill::<M>(reset, skb, scratch.headers());
        let time_ns = clock::of_segment::<M>(desk, &segment);
        fill_reset(reset, sock as u64, reason, state, segment.read, time_ns);
        tally::sent_here::<SECOND>(reason, state, segment.local_port);
        let (net, inum) = if state == TIME_WAIT {
            // With the helper: the verifier takes the socket for a full one, and 6.1 and 6.6 have a
            // pointer at that offset of a full one.
            (*reset).substate = read_if_present::<Probe, u8>(sock, offset_of_field!(tw_substate));
            let net = socket::net::<M>(sock);
            (net, netns::inode::<M>(net))
        } else {
            segment::net::<M>(skb)
        };
        (*reset).tuple.netns = inum;
        (*reset).header.kind = KIND_SEGMENT_RESET;
        // The common case, a connect to a closed port, has no past.
        if segment.tcp_flags & (SYN | ACK) == SYN {
            room.submit(IF_READ);
            return;
        }
        let (tuple, known) = scratch.empty();
        *tuple = (*reset).tuple;
        if !history::recall(tuple, net, known) {
            room.submit(IF_READ);
            return;
        }
        if submit_late(reset, known) {
            room.discard(NO_WAKEUP);
        } else {
            // The short record tells less, but loses nothing that was counted.
            room.submit(IF_READ);
        }
    }
}

/// Reports `reset` with what is remembered of its connection. Returns whether there was room.
///
/// # Safety
///
/// `reset` and `past` must be valid for reads.
#[inline(always)]
unsafe fn submit_late(reset: *const Reset, past: *const SocketEntry) -> bool {
    let Some(mut late) = maps::reserve::<LateReset>() else {
        return false;
    };
    let to = late.as_mut_ptr();
    // SAFETY: the caller's promise; the ring gave room for a whole record; every field is written.
    unsafe {
        (*to).reset = *reset;
        (*to).reset.header.kind = KIND_LATE_RESET;
        copy_entry(&raw mut (*to).past, past);
    }
    late.submit(IF_READ);
    true
}

/// A segment met a full socket and is answered with a RST.
#[inline(always)]
fn answer<M: Memory, C: EbpfContext, const SECOND: bool>(
    ctx: &C,
    sock: KernelPtr,
    skb: KernelPtr,
    reason: Option<u32>,
    state: u8,
    scratch: &mut Scratch,
) {
    let (tuple, known) = scratch.empty();
    // SAFETY: the hook's socket is full and not null; the others are ours.
    unsafe {
        socket::fill_tuple::<M>(tuple, sock);
        note::<M, C>(ctx, sock, state, tuple, known);
    }
    tally::sent::<SECOND>(reason, state, BY_SEGMENT, tuple.local_port);
    let passes = if state == LISTEN {
        // A listener has no other end.
        if filter::is_on() {
            // SAFETY: the hook's `skb` is not null.
            unsafe { segment::fill_tuple::<M>(tuple, skb) };
        }
        passes(tuple)
    } else {
        filter::admits(tuple)
    };
    // When this is the RST for which `tcp_receive_reset` fired, none had come.
    let none_came = known.marks & MARK_MAYBE_DATA != 0;
    let untold = known.marks & MARK_UNTOLD != 0;
    if !passes {
        count_filtered::<SECOND>();
        if none_came && untold {
            withdraw::<SECOND>(known, tuple);
            maps::count(Stat::NotReceivedFiltered);
        }
        return;
    }
    let Some(mut slot) = maps::reserve::<SocketReset>() else {
        lost(ctx, Stat::LostReset);
        // If user space has heard of the other, it goes on to take it for a RST.
        if none_came && untold {
            withdraw::<SECOND>(known, tuple);
            maps::count(Stat::NotReceivedLost);
        }
        return;
    };
    if none_came {
        withdraw::<SECOND>(known, tuple);
        if untold {
            maps::count(Stat::NotReceivedLost);
        }
    }
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written. The hook's pointers
    // are not null.
    unsafe {
        let reset = &raw mut (*record).reset;
        let segment = segment::fill_apart::<M>(reset, skb);
        let time_ns = bpf_ktime_get_ns();
        fill_reset(reset, sock as u64, reason, state, segment.read, time_ns);
        (*reset).header.kind = KIND_SOCKET_RESET;
        (*reset).tuple.netns = tuple.netns;
        socket::fill_facts::<M>(&raw mut (*record).socket, sock, state);
        // A listener stands where the connection once was, unless it resets because its queue is
        // full.
        let facts = &raw const (*record).socket;
        let is_full = (*facts).ack_backlog > (*facts).max_ack_backlog;
        if state == LISTEN && !is_full && segment.tcp_flags & (SYN | ACK) != SYN {
            *tuple = (*reset).tuple;
            let past = &raw mut (*record).entry;
            if history::recall(tuple, socket::net::<M>(sock), past) && submit_late(reset, past) {
                slot.discard(NO_WAKEUP);
                return;
            }
        }
        copy_entry(&raw mut (*record).entry, known);
    }
    slot.submit(IF_READ);
}

/// Takes back that a RST had been received.
#[inline(always)]
fn withdraw<const SECOND: bool>(known: &SocketEntry, tuple: &Tuple) {
    maps::count(Stat::NotReceived);
    tally::not_received::<SECOND>(known.prev_state, tuple.local_port);
}

/// Whether user space wants to hear of the connection that a segment belongs to. What could not be
/// read passes.
#[inline(always)]
fn passes(tuple: &Tuple) -> bool {
    tuple.remote_port == 0 || filter::admits(tuple)
}

/// The host resets a connection of its own accord.
#[inline(always)]
fn active<M: Memory, C: EbpfContext, const SECOND: bool>(
    ctx: &C,
    sock: KernelPtr,
    reason: Option<u32>,
    state: u8,
    scratch: &mut Scratch,
) {
    let (tuple, known) = scratch.empty();
    maps::count(Stat::OfOwnAccord);
    // SAFETY: the hook's socket is full and not null; the others are ours.
    unsafe {
        socket::fill_tuple::<M>(tuple, sock);
        note::<M, C>(ctx, sock, state, tuple, known);
    }
    tally::sent::<SECOND>(reason, state, OF_OWN_ACCORD, tuple.local_port);
    if !filter::admits(tuple) {
        count_filtered::<SECOND>();
        return;
    }
    let Some(mut slot) = maps::reserve::<ActiveReset>() else {
        lost(ctx, Stat::LostReset);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record; every field is written. The hook's socket is
    // not null.
    unsafe {
        let reset = &raw mut (*record).reset;
        fill_header(&raw mut (*reset).header, KIND_ACTIVE_RESET, sock as u64);
        segment::clear(reset);
        (*reset).tuple = *tuple;
        fill_reason(reset, reason, 0);
        (*reset).state = state;
        (*reset).substate = 0;
        (*reset).pad = 0;
        socket::fill_facts::<M>(&raw mut (*record).socket, sock, state);
        copy_entry(&raw mut (*record).entry, known);
        task::fill_current::<M>(&raw mut (*record).current, (*reset).header.time_ns);
        let stack = &raw mut (*record).stack;
        let taken = bpf_get_stack(
            ctx.as_ptr(),
            stack.cast(),
            size_of::<[u64; STACK_FRAMES]>() as u32,
            0,
        );
        let frames = if taken < 0 {
            maps::count(Stat::StackFailed);
            0
        } else {
            taken as usize / 8
        };
        for index in 0..STACK_FRAMES {
            if index >= frames {
                (*stack)[index] = 0;
            }
        }
    }
    slot.submit(IF_READ);
}

/// Fills in all but the segment. `read` are the flags that say what of it could be read.
///
/// # Safety
///
/// `reset` must be valid for writes.
#[inline(always)]
unsafe fn fill_reset(
    reset: *mut Reset,
    sock: u64,
    reason: Option<u32>,
    state: u8,
    read: u8,
    time_ns: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        fill_header_at(&raw mut (*reset).header, KIND_SOCKET_RESET, sock, time_ns);
        fill_reason(reset, reason, read);
        (*reset).state = state;
        (*reset).substate = 0;
        (*reset).pad = 0;
    }
}

/// Fills in the reason, and the flags, to which it adds.
///
/// # Safety
///
/// `reset` must be valid for writes.
#[inline(always)]
unsafe fn fill_reason(reset: *mut Reset, reason: Option<u32>, flags: u8) {
    let (reason, has_reason) = reason.map_or((0, 0), |reason| (reason, HAS_REASON));
    // SAFETY: the caller's promise.
    unsafe {
        (*reset).reason = reason;
        (*reset).flags = flags | has_reason;
    }
}

/// Notes the reset, and copies what is known of the socket. One that a process holds and that has no
/// owner yet gets one when that process closes it; of one that its process has closed the history
/// knows.
///
/// # Safety
///
/// `sock` must be a full socket argument of the hook, `tuple` valid for reads, `copy` for writes.
#[inline(never)]
unsafe fn note<M: Memory, C: EbpfContext>(
    ctx: &C,
    sock: KernelPtr,
    state: u8,
    tuple: *const Tuple,
    copy: *mut SocketEntry,
) {
    // SAFETY: the caller's promise. The map gave `entry`, and the socket's lock keeps other writers
    // off.
    unsafe {
        let awaits_close = awaits_close(socket::is_held::<M>(sock), state);
        if let Some(entry) = live::find::<M>(M::address(sock)) {
            if state != LISTEN {
                (*entry).marks |= MARK_RESET;
                // In CLOSE with a known closer the socket is being closed right now.
                let closing = state == CLOSE && (*entry).closer.is_known();
                if awaits_close && !closing {
                    (*entry).marks |= MARK_AWAIT_CLOSE;
                }
            }
            copy_entry(copy, entry);
            (*entry).marks &= !MARK_MAYBE_DATA;
            return;
        }
        // A reset orphan is in CLOSE, and may be destroyed, before its RST goes out.
        if (is_closing(state) || state == CLOSE)
            && history::recall(&*tuple, socket::net::<M>(sock), copy)
        {
            return;
        }
        *copy = SocketEntry::EMPTY;
        if awaits_close {
            (*copy).marks = MARK_RESET | MARK_AWAIT_CLOSE;
            (*copy).prev_state = state;
            if !live::remember::<M, C>(ctx, M::address(sock), &*copy) {
                *copy = SocketEntry::EMPTY;
            }
        }
    }
}
