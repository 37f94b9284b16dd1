//! The most frequent keys of a stream, in bounded memory, with a bound on the error.
//!
//! Misra and Gries' summary in the form of Anderson and others, "A High-Performance Algorithm for
//! Identifying Frequent Items in Data Streams" (2017): a table of counters; when it is full, the
//! median of them is taken from all, and those that have nothing left make room. At least half do,
//! so that an addition costs constant time on average. Nothing is allocated after the start.

use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;

/// Counters that a table holds at the most.
pub const COUNTERS: usize = 512;

/// Places in the table: twice as many, so that runs of taken places stay short.
const PLACES: usize = 2 * COUNTERS;

/// How often each of the most frequent keys came.
///
/// A key came at least as often as [`Heavy::get`] says, and at the most [`Heavy::error`] times more
/// often. The error is at most 2 / [`COUNTERS`] of [`Heavy::total`], and 0 as long as no more than
/// [`COUNTERS`] keys have come.
#[derive(Clone, Debug)]
pub struct Heavy<K> {
    /// Open addressing, linear probing. A count of 0 marks a free place.
    places: Vec<(K, u64)>,
    used: usize,
    total: u64,
    error: u64,
    /// Where the last two keys stand: in a storm the next is often the same, or by turns one of two.
    last: [usize; 2],
    hasher: RandomState,
    /// What outlives a purge, and the counts it is decided by: kept for their memory.
    kept: Vec<(K, u64)>,
    counts: Vec<u64>,
}

impl<K: Copy + Default + Eq + Hash> Default for Heavy<K> {
    fn default() -> Self {
        Self {
            places: vec![(K::default(), 0); PLACES],
            used: 0,
            total: 0,
            error: 0,
            last: [0; 2],
            hasher: RandomState::default(),
            kept: Vec::with_capacity(COUNTERS),
            counts: Vec::with_capacity(COUNTERS),
        }
    }
}

impl<K: Copy + Default + Eq + Hash> Heavy<K> {
    /// Counts `key` so many times; 0 is none.
    #[inline]
    pub fn note(&mut self, key: K, times: u64) {
        for last in self.last {
            let (last, count) = &mut self.places[last];
            if *last == key && *count > 0 {
                *count += times;
                self.total += times;
                return;
            }
        }
        self.add(key, times);
    }

    /// The same of any key.
    fn add(&mut self, key: K, times: u64) {
        if times == 0 {
            return;
        }
        self.total += times;
        let mut place = self.place(&key);
        if self.places[place].1 == 0 {
            if self.used == COUNTERS {
                self.purge();
                place = self.place(&key);
            }
            self.places[place].0 = key;
            self.used += 1;
        }
        self.places[place].1 += times;
        self.last = [place, self.last[0]];
    }

    /// Counts all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        let total = self.total + other.total;
        for (key, count) in other.iter() {
            self.add(key, count);
        }
        self.error += other.error;
        self.total = total;
    }

    /// How often `key` came, at least.
    pub fn get(&self, key: &K) -> u64 {
        self.places[self.place(key)].1
    }

    /// How many times more often than [`Self::get`] says a key may have come.
    pub const fn error(&self) -> u64 {
        self.error
    }

    /// How many keys came, each as often as it did.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The keys that are counted, in no order, and how often each came, at least.
    pub fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        self.places
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(key, count)| (*key, *count))
    }

    /// Whether every key that came is counted, and exactly.
    pub const fn is_exact(&self) -> bool {
        self.error == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.fill((K::default(), 0));
        self.used = 0;
        self.total = 0;
        self.error = 0;
    }

    /// Where `key` stands, or the free place for it. There is a free one: the table is never more
    /// than half full.
    fn place(&self, key: &K) -> usize {
        let mut place = self.hasher.hash_one(key) as usize % PLACES;
        loop {
            let (known, count) = &self.places[place];
            if *count == 0 || known == key {
                return place;
            }
            place = (place + 1) % PLACES;
        }
    }

    fn purge(&mut self) {
        let Self {
            places,
            kept,
            counts,
            ..
        } = self;
        let taken = places.iter().filter(|(_, count)| *count > 0);
        counts.clear();
        counts.extend(taken.clone().map(|(_, count)| *count));
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        kept.clear();
        kept.extend(
            taken
                .filter(|(_, count)| *count > median)
                .map(|(key, count)| (*key, count - median)),
        );
        places.fill((K::default(), 0));
        self.error += median;
        self.used = self.kept.len();
        for i in 0..self.used {
            let (key, count) = self.kept[i];
            let place = self.place(&key);
            self.places[place] = (key, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Checks what the type promises against an exact count.
    fn check(heavy: &Heavy<u32>, stream: &[u32]) {
        let mut exact: HashMap<u32, u64> = HashMap::new();
        for key in stream {
            *exact.entry(*key).or_default() += 1;
        }
        assert_eq!(heavy.total(), stream.len() as u64);
        assert!(heavy.error() * COUNTERS as u64 <= 2 * heavy.total());
        assert!(heavy.iter().count() <= COUNTERS);
        for (key, count) in &exact {
            let (low, high) = (heavy.get(key), heavy.get(key) + heavy.error());
            assert!((low..=high).contains(count), "{low} <= {count} <= {high}");
        }
        for (key, _) in heavy.iter() {
            assert!(exact.contains_key(&key), "{key} never came");
        }
        if exact.len() <= COUNTERS {
            assert!(heavy.is_exact());
            assert_eq!(heavy.iter().count(), exact.len());
        }
    }

    fn counted(stream: &[u32]) -> Heavy<u32> {
        let mut heavy = Heavy::default();
        for key in stream {
            heavy.note(*key, 1);
        }
        heavy
    }

    /// Streams in which a few keys are frequent and many are not, in any order.
    fn streams() -> impl Strategy<Value = Vec<u32>> {
        let key = prop_oneof![0..4_u32, 0..300_u32, 0..100_000_u32];
        prop::collection::vec(key, 0..6_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn counts_are_within_their_bounds(stream in streams()) {
            check(&counted(&stream), &stream);
        }

        #[test]
        fn merged_counts_are_within_their_bounds(a in streams(), b in streams()) {
            let mut heavy = counted(&a);
            heavy.merge(&counted(&b));
            check(&heavy, &[a, b].concat());
        }
    }

    #[test]
    fn a_flood_of_keys_that_come_once_does_not_hide_the_frequent_one() {
        let stream: Vec<u32> = (1..100_000).flat_map(|n| [n, 0]).collect();
        let heavy = counted(&stream);
        check(&heavy, &stream);
        assert!(heavy.error() > 0);
        let first = heavy.iter().max_by_key(|(_, count)| *count);
        assert_eq!(first.map(|(key, _)| key), Some(0));
    }

    #[test]
    fn nothing_is_left_after_clearing() {
        let mut heavy = counted(&[1, 1, 2]);
        heavy.clear();
        heavy.note(1, 1);
        check(&heavy, &[1]);
    }

    #[test]
    fn no_times_are_no_key() {
        let mut heavy = Heavy::default();
        heavy.add(7_u32, 0);
        check(&heavy, &[]);
    }
}
