//! The desks ([`rstwatch_common::desk`]), which each CPU's BPF programs write to and user space maps.

use std::{
    io,
    mem::offset_of,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};
use rstwatch_common::desk::Desk;

/// All CPUs'. Kept as long as this is.
#[derive(Debug)]
pub struct Desks {
    memory: MmapRaw,
    cpus: u32,
}

impl Desks {
    /// Maps them. The map must have `cpus` elements.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to map it.
    pub fn map(desks: &impl AsRawFd, cpus: u32) -> io::Result<Self> {
        let bytes = cpus as usize * size_of::<Desk>();
        Ok(Self {
            memory: MmapOptions::new().len(bytes).map_raw(desks.as_raw_fd())?,
            cpus,
        })
    }

    /// How many there are.
    pub const fn cpus(&self) -> usize {
        self.cpus as usize
    }

    /// Halves of its lane that a CPU has filled.
    pub fn filled(&self, cpu: usize) -> &AtomicU64 {
        self.word(cpu, offset_of!(Desk, filled))
    }

    /// Halves of a CPU's lane that have been emptied.
    pub fn emptied(&self, cpu: usize) -> &AtomicU64 {
        self.word(cpu, offset_of!(Desk, emptied))
    }

    /// Not zero while somebody looks into a CPU's lane.
    pub fn watched(&self, cpu: usize) -> &AtomicU32 {
        let watched = self.field(cpu, offset_of!(Desk, watched));
        // SAFETY: as `word`'s, of an aligned `u32`.
        unsafe { AtomicU32::from_ptr(watched.cast()) }
    }

    /// Resets that `tcp_send_reset` has fired for, on all CPUs.
    pub fn sent(&self) -> u64 {
        self.sum(offset_of!(Desk, sent))
    }

    /// Resets that `tcp_receive_reset` has fired for, on all CPUs.
    pub fn received(&self) -> u64 {
        self.sum(offset_of!(Desk, received))
    }

    fn sum(&self, field: usize) -> u64 {
        let counts = (0..self.cpus()).map(|cpu| self.word(cpu, field).load(Ordering::Relaxed));
        counts.sum()
    }

    fn word(&self, cpu: usize, field: usize) -> &AtomicU64 {
        let word = self.field(cpu, field);
        // SAFETY: it is an aligned `u64` in the mapping, which is there as long as `self` is. All that other threads
        // and the kernel do with it is to load and to store it whole.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
    fn field(&self, cpu: usize, field: usize) -> *mut Desk {
        assert!(cpu < self.cpus(), "there is no CPU {cpu}");
        // SAFETY: the element of that CPU lies in the mapping, and the field in it.
        unsafe {
            let desk = self.memory.as_mut_ptr().cast::<Desk>().add(cpu);
            desk.byte_add(field)
        }
    }
}
