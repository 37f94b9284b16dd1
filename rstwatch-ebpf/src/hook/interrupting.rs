//! Resets that the kernel sends in the middle of another one's hook.
//!
//! A process that resets a connection itself does so with interrupts on: a timer or a segment may then
//! make the kernel send a reset of its own. From 6.1 on it lets no program interrupt itself on the same
//! CPU, and would skip that reset. So the same program hangs on the tracepoint twice: the second tells of
//! what the first was skipped for.
//!
//! It has to be a second program, with a stack of its own: newer kernels give a program one for each CPU,
//! since it is never there twice.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{EbpfContext, macros::map, maps::PerCpuArray};
use rstwatch_common::stats::Stat;

use crate::{
    maps,
    memory::{number, spread},
};

/// Places of a CPU for what the first program was called for, and the second was not yet: of resets that
/// interrupt each other in that moment, two that share a place would be told twice.
const PLACES: u32 = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 8;

/// What the first program was called for, by where it was called from: the kernel calls both from one
/// frame of its stack (`__traceiter_tcp_send_reset`), and what is interrupted has another frame than
/// what interrupts it.
#[map]
static TOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(PLACES, 0);

/// The first program, with `tell` of a reset.
#[inline(always)]
pub fn interruptible<C: EbpfContext>(ctx: &C, tell: impl FnOnce()) {
    let frame = number(ctx.as_ptr().cast());
    if let Some(told) = place(frame) {
        // SAFETY: the map gave the pointer.
        unsafe { write_volatile(told, frame) };
    }
    tell();
}

/// The second program, with `tell` of a reset.
#[inline(always)]
pub fn interrupting<C: EbpfContext>(ctx: &C, tell: impl FnOnce()) {
    let frame = number(ctx.as_ptr().cast());
    let Some(told) = place(frame) else {
        return;
    };
    // SAFETY: the map gave the pointer.
    unsafe {
        if read_volatile(told) == frame {
            write_volatile(told, 0);
            return;
        }
    }
    maps::count(Stat::Interrupting);
    tell();
}

/// The place for what was called from `frame`.
#[inline(always)]
fn place(frame: u64) -> Option<*mut u64> {
    TOLD.get_ptr_mut((spread(frame) >> (64 - PLACE_BITS)) as u32)
}
