//! The lanes: memory that each CPU's BPF programs fill with the records of storms, and that is read here
//! without a call ([`rstwatch_common::lane`]).
//!
//! Merging them with the rings is not done here.

use std::sync::atomic::Ordering;

use zerocopy::IntoBytes as _;

use crate::load::LaneMemory;

/// Which word of a record its time is (`rstwatch_common::record::Header`).
const TIME: usize = 1;

/// The time of a record that is not there.
pub(super) const NEVER: u64 = u64::MAX;

/// All CPUs' lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    memory: LaneMemory,
    /// How far each has been read.
    read: Vec<Lane>,
    /// The time of each lane's first record, or [`NEVER`]. Beside each other, for all are looked through for
    /// each record.
    times: Vec<u64>,
    /// The earliest of them, if any has a record.
    earliest: Option<usize>,
    watched: bool,
}

/// How far a lane has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Halves of slots filled, by the last look.
    filled: u64,
    /// Halves emptied.
    emptied: u64,
    /// Those of them that the CPU may fill again.
    given_back: u64,
}

impl Lanes {
    /// Nobody has read from that memory yet.
    pub(super) fn new(memory: LaneMemory) -> Self {
        let cpus = memory.desks().cpus();
        Self {
            read: vec![Lane::default(); cpus],
            times: vec![NEVER; cpus],
            earliest: None,
            watched: false,
            memory,
        }
    }

    /// Tells the programs whether anybody looks into the lanes. Returns whether that is news.
    pub(super) fn watch(&mut self, watched: bool) -> bool {
        if self.watched == watched {
            return false;
        }
        self.watched = watched;
        for cpu in 0..self.read.len() {
            self.memory
                .desks()
                .watched(cpu)
                .store(watched.into(), Ordering::Release);
        }
        true
    }

    /// Looks how far each has been filled, and gives back what has been emptied.
    pub(super) fn look(&mut self) {
        for cpu in 0..self.read.len() {
            self.give_back(cpu);
            // What was written to the slots before is there with it.
            self.read[cpu].filled = self.memory.desks().filled(cpu).load(Ordering::Acquire);
            self.times[cpu] = self.time_of_first(cpu);
        }
        self.earliest = self.find_earliest();
    }

    /// The time of the first record, or [`NEVER`].
    pub(super) fn first_ns(&self) -> u64 {
        self.earliest.map_or(NEVER, |cpu| self.times[cpu])
    }

    /// The first record, if there is one. It is whole double words.
    pub(super) fn take(&mut self) -> Option<&[u8]> {
        let cpu = self.earliest?;
        let number = self.read[cpu].emptied;
        if number - self.read[cpu].given_back >= self.memory.halves() / 4 {
            self.give_back(cpu);
        }
        self.read[cpu].emptied += 1;
        self.times[cpu] = self.time_of_first(cpu);
        self.earliest = self.find_earliest();
        // SAFETY: it was filled, and is given back by a later call.
        Some(unsafe { self.memory.record(cpu, number) }.as_bytes())
    }

    /// Lets a CPU fill again what has been emptied.
    fn give_back(&mut self, cpu: usize) {
        let Lane {
            emptied,
            given_back,
            ..
        } = &mut self.read[cpu];
        if *given_back != *emptied {
            *given_back = *emptied;
            self.memory
                .desks()
                .emptied(cpu)
                .store(*emptied, Ordering::Release);
        }
    }

    /// The time of a lane's first record. Goes past halves without one.
    fn time_of_first(&mut self, cpu: usize) -> u64 {
        let Lane {
            filled, emptied, ..
        } = &mut self.read[cpu];
        while *emptied != *filled {
            // SAFETY: it is filled, and is not given back before it has been taken.
            if let Some(time) = unsafe { self.memory.record(cpu, *emptied) }.get(TIME) {
                return (*time).min(NEVER - 1);
            }
            *emptied += 1;
        }
        NEVER
    }

    fn find_earliest(&self) -> Option<usize> {
        let first = self.times.iter().enumerate().min_by_key(|(_, time)| **time);
        first.and_then(|(cpu, time)| (*time != NEVER).then_some(cpu))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::VecDeque, fs::File};

    use memmap2::{MmapOptions, MmapRaw};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use proptest::{collection::vec, prelude::*};
    use rstwatch_common::{
        desk::Desk,
        lane::{FIRST_WORDS, SECOND_WORDS, Slot},
    };

    use super::*;
    use crate::load::Desks;

    pub(in crate::run) const CPUS: usize = 2;

    /// Slots of a lane: few, so that it is often full.
    const PLACES: u64 = 4;

    /// Fills lanes as the BPF programs do (`rstwatch-ebpf/src/lane.rs`).
    pub(in crate::run) struct Filler {
        desks: MmapRaw,
        slots: MmapRaw,
    }

    /// Empty lanes, and who fills them.
    pub(in crate::run) fn lanes() -> (Lanes, Filler) {
        let memory = |bytes: usize| {
            let file = File::from(memfd_create(c"lanes", MFdFlags::empty()).unwrap());
            file.set_len(bytes as u64).unwrap();
            file
        };
        let desks = memory(CPUS * size_of::<Desk>());
        let slots = memory(CPUS * usize::try_from(PLACES).unwrap() * size_of::<Slot>());
        let (cpus, places) = (u32::try_from(CPUS).unwrap(), u32::try_from(PLACES).unwrap());
        let memory = LaneMemory::map(Desks::map(&desks, cpus).unwrap(), &slots, places);
        let lanes = Lanes::new(memory.unwrap());
        let filler = Filler {
            desks: MmapOptions::new().map_raw(&desks).unwrap(),
            slots: MmapOptions::new().map_raw(&slots).unwrap(),
        };
        (lanes, filler)
    }

    impl Filler {
        /// Puts a record of that time into a lane, when there is room. Returns whether there was.
        pub(in crate::run) fn fill(&mut self, cpu: usize, time_ns: u64, long: bool) -> bool {
            let words = if long { SECOND_WORDS } else { FIRST_WORDS };
            #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
            // SAFETY: both lie in their mappings, of which no other thread knows; user space's side only reads what
            // is not written to here.
            unsafe {
                let desk = self.desks.as_mut_ptr().cast::<Desk>().add(cpu);
                let filled = (*desk).filled | u64::from(long);
                if filled - (*desk).emptied >= 2 * PLACES - 1 {
                    return false;
                }
                let at = cpu * usize::try_from(PLACES).unwrap()
                    + usize::try_from(filled / 2 % PLACES).unwrap();
                let slot = self.slots.as_mut_ptr().cast::<Slot>().add(at);
                let len = u32::try_from(words * 8).unwrap();
                if filled % 2 == 0 {
                    (*slot).first_len = len;
                    (*slot).first = [time_ns; FIRST_WORDS];
                } else {
                    if (*desk).filled % 2 == 0 {
                        (*slot).first_len = 0;
                    }
                    (*slot).second_len = len;
                    (*slot).second = [time_ns; SECOND_WORDS];
                    if !long {
                        (*slot).second_len = u32::try_from(FIRST_WORDS * 8).unwrap();
                    }
                }
                (*desk).filled = filled + 1;
            }
            true
        }
    }

    proptest! {
        #[test]
        fn all_that_finds_room_comes_out_whole_and_in_the_order_of_its_time(
            steps in vec((0_usize..CPUS, any::<bool>(), 0_u8..4), 0..200),
        ) {
            let (mut lanes, mut filler) = lanes();
            let mut there = VecDeque::new();
            for (time_ns, (cpu, long, taken)) in (1..).zip(steps) {
                if filler.fill(cpu, time_ns, long) {
                    there.push_back((time_ns, if long { SECOND_WORDS } else { FIRST_WORDS }));
                }
                if taken > 0 {
                    lanes.look();
                }
                for _ in 1..taken {
                    prop_assert_eq!(lanes.first_ns(), there.front().map_or(NEVER, |first| first.0));
                    let record = lanes.take().map(<[u8]>::to_vec);
                    let expected = there.pop_front();
                    let expected = expected.map(|(time_ns, words)| vec![time_ns; words].as_bytes().to_vec());
                    prop_assert_eq!(record, expected);
                }
            }
        }
    }

    #[test]
    fn a_full_lane_takes_more_once_it_has_been_looked_into() {
        let (mut lanes, mut filler) = lanes();
        let fills = (1..99)
            .take_while(|time| filler.fill(0, *time, true))
            .count();
        // Each of them leaves a first half empty, and the last slot stays.
        assert_eq!(fills, 3);
        lanes.look();
        lanes.take();
        assert!(!filler.fill(0, 9, true), "it has not been given back yet");
        lanes.look();
        assert!(filler.fill(0, 9, true));
        lanes.look();
        let mut times = Vec::new();
        while lanes.first_ns() != NEVER {
            times.push(lanes.first_ns());
            lanes.take();
        }
        assert_eq!(times, [2, 3, 9]);
    }

    #[test]
    fn what_is_emptied_is_given_back_on_the_way() {
        let (mut lanes, mut filler) = lanes();
        let fills = (1..99)
            .take_while(|time| filler.fill(1, *time, false))
            .count();
        assert_eq!(fills, 7);
        lanes.look();
        for _ in 0..3 {
            lanes.take();
        }
        assert!(filler.fill(1, 8, false));
    }

    #[test]
    fn watching_is_told_to_all_and_is_news_once() {
        let (mut lanes, filler) = lanes();
        assert!(!lanes.watch(false));
        assert!(lanes.watch(true));
        assert!(!lanes.watch(true));
        for cpu in 0..CPUS {
            #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins with a page")]
            // SAFETY: as in `fill`.
            let watched = unsafe { (*filler.desks.as_ptr().cast::<Desk>().add(cpu)).watched };
            assert_eq!(watched, 1);
        }
    }
}
