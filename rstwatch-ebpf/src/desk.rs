//! This CPU's desk ([`rstwatch_common::desk`]): what several hooks have at hand, in one cache line.
//!
//! What the words are for is the business of those who use them: [`crate::clock`], [`crate::lane`] and
//! [`crate::hook`].

use aya_ebpf::macros::map;
use rstwatch_common::{desk::Desk, stats::Stat};

use crate::{maps, per_cpu::PerCpu};

#[map]
static DESKS: PerCpu<Desk> = PerCpu::new();

/// This CPU's, which a hook looks for once and hands on. `None` for one that user space took for impossible.
#[inline(always)]
pub fn get() -> Option<*mut Desk> {
    DESKS.get()
}

/// This CPU's, for a reset that `fired` counts where there is none: then nothing else is known of it.
#[inline(always)]
pub fn for_reset(fired: Stat) -> Option<*mut Desk> {
    let desk = get();
    if desk.is_none() {
        for stat in [fired, Stat::Untallied, Stat::LostReset] {
            maps::count(stat);
        }
    }
    desk
}
