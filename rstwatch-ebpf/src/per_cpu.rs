//! What each CPU has for itself.
//!
//! It is an element of an ordinary array. One of a per-CPU array takes two more loads to find, which
//! wait for each other: a pointer from a table, and where this CPU's memory begins. User space reads all
//! elements of a per-CPU array with one call, and of these one with each: what it reads often is not here.

use aya_ebpf::{helpers::bpf_get_smp_processor_id, maps::Array};

use crate::maps;

/// A `T` for each CPU. The loader sets the size of such a map, by
/// [`rstwatch_common::PER_CPU_MAPS`].
#[repr(transparent)]
pub struct PerCpu<T>(Array<Apart<T>>);

/// A value in cache lines of its own, two of which processors fetch together: other CPUs write to those beside it.
#[repr(C, align(128))]
struct Apart<T>(T);

impl<T> PerCpu<T> {
    pub const fn new() -> Self {
        Self(Array::with_max_entries(1, maps::ALIGNED))
    }

    /// This CPU's. `None` for one that user space took for impossible.
    #[inline(always)]
    pub fn get(&self) -> Option<*mut T> {
        // SAFETY: the helper takes no argument.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        self.0.get_ptr_mut(cpu).map(<*mut Apart<T>>::cast)
    }
}

impl<T, const N: usize> PerCpu<[T; N]> {
    /// A place in this CPU's; `N`, a power of two, is what `at` wraps around at.
    #[inline(always)]
    pub fn place(&self, at: usize) -> Option<*mut T> {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: the place lies in the array.
        self.get()
            .map(|places| unsafe { places.cast::<T>().add(at & (N - 1)) })
    }
}
