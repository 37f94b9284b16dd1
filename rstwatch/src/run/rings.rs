//! The two rings and the lanes as one. Processors that share a ring wait for each other with every record, and in a
//! storm on all of them that was half of what a hook took; so those with even numbers have one and the others another.
//!
//! Records come out in the order of their time. What they mean is not decided here.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use zerocopy::IntoBytes as _;

use super::lanes::{Lanes, NEVER};

/// Where a record's header has the time (`rstwatch_common::record::Header`).
const TIME: std::ops::Range<usize> = 8..16;

/// What records are taken from.
pub(super) trait Source {
    /// Has `take` see the next record, when there is one.
    fn next(&mut self, take: impl FnOnce(&[u8]));
}

impl Source for RingBuf<MapData> {
    fn next(&mut self, take: impl FnOnce(&[u8])) {
        if let Some(record) = Self::next(self) {
            take(&record);
        }
    }
}

/// The rings, with the first record of each, and the lanes.
pub(super) struct Rings<S> {
    even: Ring<S>,
    odd: Ring<S>,
    /// Boxed, since what holds this is moved about.
    lanes: Option<Box<Lanes>>,
    until_ns: u64,
}

struct Ring<S> {
    source: S,
    /// The first record, in whole words: records are aligned to 8 bytes.
    first: Vec<u64>,
    /// Its length in bytes; 0: there is none.
    len: usize,
    time_ns: u64,
}

impl<S: Source> Ring<S> {
    fn new(source: S) -> Self {
        Self {
            source,
            first: Vec::new(),
            len: 0,
            time_ns: 0,
        }
    }

    /// The time of the first record, which is taken out of the ring for it; [`NEVER`]: there is none.
    fn first_ns(&mut self) -> u64 {
        if self.len == 0 {
            let Self {
                source,
                first,
                len,
                time_ns,
            } = self;
            source.next(|record| {
                first.resize(record.len().div_ceil(8), 0);
                first.as_mut_bytes()[..record.len()].copy_from_slice(record);
                // What is too short for a time is none of ours, and first.
                *time_ns = record
                    .get(TIME)
                    .and_then(|time| time.try_into().ok())
                    .map_or(0, |time| u64::from_ne_bytes(time).min(NEVER - 1));
                *len = record.len();
            });
        }
        if self.len == 0 { NEVER } else { self.time_ns }
    }

    /// The first record, which is there.
    fn take(&mut self) -> &[u8] {
        let len = std::mem::take(&mut self.len);
        &self.first.as_bytes()[..len]
    }
}

impl<S: Source> Rings<S> {
    pub(super) fn new([even, odd]: [S; 2], lanes: Option<Lanes>) -> Self {
        Self {
            even: Ring::new(even),
            odd: Ring::new(odd),
            lanes: lanes.map(Box::new),
            until_ns: 0,
        }
    }

    /// Says whether anybody looks here without being woken. Returns whether that is news.
    pub(super) fn watch(&mut self, watched: bool) -> bool {
        self.lanes
            .as_mut()
            .is_some_and(|lanes| lanes.watch(watched))
    }

    /// Looks for records until `until_ns`, which must have been the time before this call, as long as records come. A
    /// later one might follow from another that has come to where nothing was found.
    pub(super) fn look(&mut self, until_ns: u64) {
        self.until_ns = until_ns;
        if let Some(lanes) = &mut self.lanes {
            lanes.look();
        }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let (even_ns, odd_ns) = (self.even.first_ns(), self.odd.first_ns());
        let lanes_ns = self.lanes.as_ref().map_or(NEVER, |lanes| lanes.first_ns());
        let first_ns = even_ns.min(odd_ns).min(lanes_ns);
        if first_ns == NEVER || first_ns > self.until_ns {
            None
        } else if first_ns == lanes_ns {
            self.lanes.as_mut()?.take()
        } else if first_ns == even_ns {
            Some(self.even.take())
        } else {
            Some(self.odd.take())
        }
    }
}

impl<S: AsFd> Rings<S> {
    /// What to wait for.
    pub(super) fn as_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.even.source.as_fd(), self.odd.source.as_fd()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::{collection::vec, prelude::*};

    use super::{super::lanes::tests::lanes, *};

    impl Source for VecDeque<Vec<u8>> {
        fn next(&mut self, take: impl FnOnce(&[u8])) {
            if let Some(record) = self.pop_front() {
                take(&record);
            }
        }
    }

    fn record(time_ns: u64, len: usize) -> Vec<u8> {
        let mut record = vec![0xa5; len];
        record[TIME].copy_from_slice(&time_ns.to_ne_bytes());
        record
    }

    proptest! {
        #[test]
        fn records_of_both_come_in_the_order_of_their_time(
            times in vec((0_u64..50, any::<bool>(), 16_usize..70), 0..40),
        ) {
            let mut times = times;
            times.sort_unstable();
            let of = |odd| {
                let own = times.iter().filter(|time| time.1 == odd);
                own.map(|(time_ns, _, len)| record(*time_ns, *len)).collect::<VecDeque<_>>()
            };
            let mut rings = Rings::new([of(false), of(true)], None);
            rings.look(50);
            for (time_ns, odd, len) in times {
                prop_assert_eq!(rings.next(), Some(&record(time_ns, len)[..]), "{}", odd);
            }
            prop_assert_eq!(rings.next(), None);
        }

        #[test]
        fn all_until_a_time_come_in_its_order(
            times in vec((1_u64..50, 0_u8..4, 16_usize..70), 0..40),
            until_ns in 0_u64..60,
        ) {
            let mut times = times;
            times.sort_unstable();
            let (lanes, mut filler) = lanes();
            let (mut rings, mut expected) = ([VecDeque::new(), VecDeque::new()], Vec::new());
            for (time_ns, to, len) in times {
                // What a lane has no room for goes by the ring.
                let in_lane = to >= 2 && filler.fill(usize::from(to - 2), time_ns, len < 40);
                if !in_lane {
                    rings[usize::from(to % 2)].push_back(record(time_ns, len));
                }
                expected.push(time_ns);
            }
            let mut rings = Rings::new(rings, Some(lanes));
            let mut came = Vec::new();
            for until_ns in [until_ns, u64::MAX] {
                rings.look(until_ns);
                while let Some(record) = rings.next() {
                    let time_ns = u64::from_ne_bytes(record[TIME].try_into().unwrap());
                    prop_assert!(time_ns <= until_ns);
                    came.push(time_ns);
                }
                let by_then = expected.iter().filter(|time_ns| **time_ns <= until_ns);
                prop_assert_eq!(came.len(), by_then.count());
            }
            prop_assert_eq!(came, expected);
        }
    }

    #[test]
    fn what_is_too_short_for_a_time_comes_first() {
        let mut rings = Rings::new(
            [
                VecDeque::from([record(1, 16)]),
                VecDeque::from([vec![1, 2, 3]]),
            ],
            None,
        );
        rings.look(1);
        assert_eq!(rings.next(), Some(&[1, 2, 3][..]));
        assert_eq!(rings.next(), Some(&record(1, 16)[..]));
        assert_eq!(rings.next(), None);
    }
}
