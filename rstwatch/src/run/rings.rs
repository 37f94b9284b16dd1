//! The two rings as one. Processors that share a ring wait for each other with every record, and in a storm on
//! all of them that was half of what a hook took; so those with even numbers have one and the others another.
//!
//! Records come out in the order of their time. What they mean is not decided here.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use zerocopy::IntoBytes as _;

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

/// The rings, and the first record of each.
pub(super) struct Rings<S> {
    even: Ring<S>,
    odd: Ring<S>,
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

    /// Takes the next record out of the ring, unless there is one already. Returns whether there is one.
    fn fetch(&mut self) -> bool {
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
                    .map_or(0, u64::from_ne_bytes);
                *len = record.len();
            });
        }
        self.len != 0
    }

    /// The first record, which is there.
    fn take(&mut self) -> &[u8] {
        let len = std::mem::take(&mut self.len);
        &self.first.as_bytes()[..len]
    }
}

impl<S: Source> Rings<S> {
    pub(super) fn new([even, odd]: [S; 2]) -> Self {
        Self {
            even: Ring::new(even),
            odd: Ring::new(odd),
        }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let Self { even, odd } = self;
        let mut has_even = even.fetch();
        let has_odd = odd.fetch();
        // What led to a record is in its ring before that record is: it may have come since the look.
        if has_odd && !has_even {
            has_even = even.fetch();
        }
        match (has_even, has_odd) {
            (true, true) if odd.time_ns < even.time_ns => Some(odd.take()),
            (true, _) => Some(even.take()),
            (false, true) => Some(odd.take()),
            (false, false) => None,
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

    use super::*;

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
            let mut rings = Rings::new([of(false), of(true)]);
            for (time_ns, odd, len) in times {
                prop_assert_eq!(rings.next(), Some(&record(time_ns, len)[..]), "{}", odd);
            }
            prop_assert_eq!(rings.next(), None);
        }
    }

    #[test]
    fn what_is_too_short_for_a_time_comes_first() {
        let mut rings = Rings::new([
            VecDeque::from([record(1, 16)]),
            VecDeque::from([vec![1, 2, 3]]),
        ]);
        assert_eq!(rings.next(), Some(&[1, 2, 3][..]));
        assert_eq!(rings.next(), Some(&record(1, 16)[..]));
        assert_eq!(rings.next(), None);
    }
}
