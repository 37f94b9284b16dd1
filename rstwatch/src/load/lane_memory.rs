//! The memory of the lanes ([`rstwatch_common::lane`]), which the BPF programs fill and user space maps.
//!
//! Reading records out of it in their order is not done here.

use std::{io, os::fd::AsRawFd};

use memmap2::{MmapOptions, MmapRaw};
use rstwatch_common::lane::Slot;

use super::Desks;

/// The lanes, and how far each is. Kept as long as this is.
#[derive(Debug)]
pub struct LaneMemory {
    desks: Desks,
    slots: MmapRaw,
    /// Of each lane: a power of two.
    places: u32,
}

impl LaneMemory {
    /// Maps the slots: `places` for each desk.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to map them.
    pub fn map(desks: Desks, slots: &impl AsRawFd, places: u32) -> io::Result<Self> {
        let bytes = desks.cpus() * places as usize * size_of::<Slot>();
        Ok(Self {
            desks,
            slots: MmapOptions::new()
                .len(bytes)
                .map_raw_read_only(slots.as_raw_fd())?,
            places,
        })
    }

    /// How far the lanes are filled and emptied.
    pub const fn desks(&self) -> &Desks {
        &self.desks
    }

    /// How many halves each of them has.
    pub const fn halves(&self) -> u64 {
        2 * self.places as u64
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
        assert!(cpu < self.desks.cpus(), "there is no lane {cpu}");
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
