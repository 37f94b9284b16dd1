//! This CPU's desk ([`rstwatch_common::desk`]): what several hooks have at hand, in one cache line.
//!
//! What the words are for is the business of those who use them: [`crate::clock`], [`crate::lane`] and
//! [`crate::hook`].

use aya_ebpf::macros::map;
use rstwatch_common::{desk::Desk, stats::Stat};

use crate::{maps, per_cpu::PerCpu};

#[map]
static DESKS: PerCpu<Desk> = PerCpu::new();

/// This CPU's. `None` for one that user space took for impossible.
#[inline(always)]
pub fn get() -> Option<*mut Desk> {
    DESKS.get()
}

/// Adds one to a counter that its program alone adds to: to that on the desk, or where there is none among the
/// others.
#[inline(always)]
pub fn count_alone(desk: Option<*mut Desk>, counter: fn(*mut Desk) -> *mut u64, stat: Stat) {
    match desk {
        Some(desk) => maps::increment_alone(counter(desk)),
        None => maps::count_alone(stat),
    }
}
