//! The memory of the lanes ([`rstwatch_common::lane`]), which the BPF programs fill and user space maps.
//!
//! Reading records out of it in their order is not done here.

use std::{io, mem::offset_of, os::fd::AsRawFd, sync::atomic::AtomicU64};

use memmap2::{MmapOptions, MmapRaw};
use rstwatch_common::lane::{Ends, Slot};

/// Both maps of the lanes. Kept as long as this is.
#[derive(Debug)]
pub struct LaneMemory {
    ends: MmapRaw,
    slots: MmapRaw,
    cpus: u32,
    /// Of each lane: a power of two.
    places: u32,
}

impl LaneMemory {
    /// Maps them. They must have `cpus` elements, and `cpus` times `places`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to map one.
    pub fn map(
        ends: &impl AsRawFd,
        slots: &impl AsRawFd,
        cpus: u32,
        places: u32,
    ) -> io::Result<Self> {
        let (cpu_count, place_count) = (cpus as usize, places as usize);
        let bytes = cpu_count * place_count * size_of::<Slot>();
        Ok(Self {
            ends: MmapOptions::new()
                .len(cpu_count * size_of::<Ends>())
                .map_raw(ends.as_raw_fd())?,
            slots: MmapOptions::new()
                .len(bytes)
                .map_raw_read_only(slots.as_raw_fd())?,
            cpus,
            places,
        })
    }

    /// How many lanes there are.
    pub const fn cpus(&self) -> usize {
        self.cpus as usize
    }

    /// How many halves each of them has.
    pub const fn halves(&self) -> u64 {
        2 * self.places as u64
    }

    /// Halves that a CPU has filled.
    pub fn filled(&self, cpu: usize) -> &AtomicU64 {
        self.end(cpu, offset_of!(Ends, filled))
    }

    /// Halves of a CPU that have been emptied.
    pub fn emptied(&self, cpu: usize) -> &AtomicU64 {
        self.end(cpu, offset_of!(Ends, emptied))
    }

    /// Not zero while somebody looks into a CPU's lane.
    pub fn watched(&self, cpu: usize) -> &AtomicU64 {
        self.end(cpu, offset_of!(Ends, watched))
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
    fn end(&self, cpu: usize, field: usize) -> &AtomicU64 {
        assert!(cpu < self.cpus(), "there is no lane {cpu}");
        // SAFETY: the element of that CPU lies in the mapping, which is there as long as `self` is, and a field
        // of it is an aligned `u64`. All that other threads and the kernel do with it is to load and to store it
        // whole.
        unsafe {
            let end = self.ends.as_mut_ptr().cast::<Ends>().add(cpu);
            AtomicU64::from_ptr(end.byte_add(field).cast())
        }
    }

    /// The record in the half that a CPU filled as the one of this number, counted from 0; empty where none
    /// fitted.
    ///
    /// # Safety
    ///
    /// The half must be filled, and not said to be emptied as long as it is borrowed.
    ///
    /// # Panics
    ///
    /// When there is no lane `cpu`.
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
    pub unsafe fn record(&self, cpu: usize, number: u64) -> &[u64] {
        assert!(cpu < self.cpus(), "there is no lane {cpu}");
        let place = (number / 2) as usize & (self.places as usize - 1);
        let at = cpu * self.places as usize + place;
        // SAFETY: the slot lies in the mapping; of it only the half is borrowed, which the BPF programs leave alone by
        // the caller's promise.
        let (len, record): (u32, &[u64]) = unsafe {
            let slot = self.slots.as_ptr().cast::<Slot>().add(at);
            if number & 1 == 0 {
                ((*slot).first_len, &(*slot).first)
            } else {
                ((*slot).second_len, &(*slot).second)
            }
        };
        // One that is too long is none of ours, which is found out where it is decoded.
        let words = usize::try_from(len.div_ceil(8)).unwrap_or(usize::MAX);
        &record[..words.min(record.len())]
    }
}
