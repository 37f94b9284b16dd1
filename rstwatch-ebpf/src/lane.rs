//! Room for the records that storms consist of: in this CPU's lane, or else in the ring.
//!
//! To reserve room in the kernel's ring and to give it back filled are two calls, a lock, and now and then an
//! interrupt to wake whoever reads: 50 to 80 ns a record more than here. A lane is memory that
//! user space has mapped, which it looks into by itself while there are records. All of a lane is this CPU's,
//! so that there is nothing to lock.

use core::{
    mem::offset_of,
    ptr::{null_mut, read_volatile, write_volatile},
};

use aya_ebpf::{
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_ringbuf_discard, bpf_ringbuf_submit},
    },
    macros::map,
    maps::Array,
};
use rstwatch_common::{
    desk::Desk,
    lane::{FIRST_WORDS, SECOND_WORDS, Slot},
};

use crate::{globals, maps, memory::barrier};

/// The slots, lane by lane. The loader sets the size.
#[map]
static LANES: Array<Slot> = Array::with_max_entries(1, maps::ALIGNED);

/// Room for a record, which must be submitted or discarded.
#[must_use = "the verifier rejects a program that keeps room in the ring"]
pub struct Room<T> {
    record: *mut T,
    /// That of the CPU whose lane the room is in; null: it is in the ring.
    desk: *mut Desk,
}

impl<T: 'static> Room<T> {
    /// Room for a record in the lane of this CPU, whose desk that is, or in its ring. In that alone for the `SECOND`
    /// program, which is there for few.
    #[inline(always)]
    pub fn reserve<const SECOND: bool>(desk: *mut Desk) -> Option<Self> {
        if !SECOND && let Some(room) = Self::in_lane(desk) {
            return Some(room);
        }
        let record = maps::reserve::<T>()?.as_mut_ptr();
        Some(Self {
            record,
            desk: null_mut(),
        })
    }

    /// There is none while user space waits to be woken, nor for a program that has interrupted another one that
    /// is filling a half.
    #[inline(always)]
    fn in_lane(desk: *mut Desk) -> Option<Self> {
        const { assert!(size_of::<T>() <= SECOND_WORDS * 8) };
        let slots = globals::lane_slots();
        if slots == 0 {
            return None;
        }
        // SAFETY: the maps gave the pointers; only this CPU writes to its lane, and only one program at a time.
        unsafe {
            if read_volatile(&raw const (*desk).busy) != 0
                || read_volatile(&raw const (*desk).watched) == 0
            {
                return None;
            }
            write_volatile(&raw mut (*desk).busy, 1);
            // A record that does not fit into a first half leaves it empty.
            let fits = size_of::<T>() <= FIRST_WORDS * 8;
            let filled = read_volatile(&raw const (*desk).filled) | u64::from(!fits);
            // The last half is never filled, so that two are free wherever one is.
            let most = 2 * slots as u64 - 1;
            if filled.wrapping_sub(read_volatile(&raw const (*desk).emptied_then)) >= most {
                let emptied = read_volatile(&raw const (*desk).emptied);
                write_volatile(&raw mut (*desk).emptied_then, emptied);
                if filled.wrapping_sub(emptied) >= most {
                    write_volatile(&raw mut (*desk).busy, 0);
                    return None;
                }
            }
            let slot = bpf_get_smp_processor_id() * slots + ((filled >> 1) as u32 & (slots - 1));
            let Some(slot) = LANES.get_ptr_mut(slot) else {
                write_volatile(&raw mut (*desk).busy, 0);
                return None;
            };
            if !fits && read_volatile(&raw const (*desk).filled) & 1 == 0 {
                (*slot).first_len = 0;
            }
            // Calculated: for each branch the verifier would go through the rest again.
            let half = slot.byte_add((filled & 1) as usize * offset_of!(Slot, second_len));
            (*half).first_len = size_of::<T>() as u32;
            Some(Self {
                record: (&raw mut (*half).first).cast(),
                desk,
            })
        }
    }

    /// Where the record is to be written.
    #[inline(always)]
    pub fn record(&self) -> *mut T {
        self.record
    }

    /// Hands the record, which has been written whole, over to user space. `flags` are for the ring.
    #[inline(always)]
    pub fn submit(self, flags: u64) {
        // SAFETY: the maps gave the pointers; the slot, or the room in the ring, is this program's until here.
        unsafe {
            if self.desk.is_null() {
                bpf_ringbuf_submit(self.record.cast(), flags);
                return;
            }
            barrier(self.desk);
            let fits = size_of::<T>() <= FIRST_WORDS * 8;
            let filled = read_volatile(&raw const (*self.desk).filled) | u64::from(!fits);
            write_volatile(&raw mut (*self.desk).filled, filled + 1);
            write_volatile(&raw mut (*self.desk).busy, 0);
        }
    }

    /// Gives the room back. `flags` are for the ring.
    #[inline(always)]
    pub fn discard(self, flags: u64) {
        // SAFETY: as above.
        unsafe {
            if self.desk.is_null() {
                bpf_ringbuf_discard(self.record.cast(), flags);
            } else {
                write_volatile(&raw mut (*self.desk).busy, 0);
            }
        }
    }
}
