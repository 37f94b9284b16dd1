//! Resets that the kernel sends in the middle of another one's hook.
//!
//! A process that resets a connection itself does so with interrupts on: a timer or a segment may then
//! make the kernel send a reset of its own. From 6.1 on it lets no program interrupt itself on the same
//! CPU, and would skip that reset. So the same program hangs on the tracepoint twice: the second tells of
//! what the first was skipped for.
//!
//! It has to be a second program, with a stack of its own: newer kernels give a program one for each CPU,
//! since it is never there twice. And it makes every reset dearer, so user space attaches it only when there
//! are resets that can be interrupted.

use core::ptr::{read_volatile, write_volatile};

use rstwatch_common::{desk::Desk, stats::Stat};

use crate::{desk, maps};

/// The first program begins to tell of a reset; [`told`] ends that. No closure around it all: the compiler
/// makes that a function, and to call one costs every reset some nanoseconds.
///
/// What interrupts it in the few instructions before it says so, or after, is told by neither: the kernel
/// counts it as skipped.
#[inline(always)]
pub fn interruptible() -> Option<*mut Desk> {
    let desk = desk::for_reset(Stat::Sent)?;
    // SAFETY: the map gave the pointer.
    maps::increment_alone(unsafe { &raw mut (*desk).sent });
    say(desk, 1);
    Some(desk)
}

/// The first program has told of a reset.
#[inline(always)]
pub fn told(desk: *mut Desk) {
    say(desk, 0);
}

#[inline(always)]
fn say(desk: *mut Desk, telling: u16) {
    // SAFETY: the map gave the pointer, and no other CPU writes to it.
    unsafe { write_volatile(&raw mut (*desk).telling, telling) };
}

/// The second program, with `tell` of a reset. While the first is at another one, it was skipped for this.
#[inline(always)]
pub fn interrupting(tell: impl FnOnce(*mut Desk)) {
    let Some(desk) = desk::get() else {
        return;
    };
    // SAFETY: the map gave the pointer.
    if unsafe { read_volatile(&raw const (*desk).telling) } == 0 {
        return;
    }
    maps::count_alone(Stat::Interrupting);
    tell(desk);
}
