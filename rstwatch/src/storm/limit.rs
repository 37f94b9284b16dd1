//! How many rows a second a terminal gets, and what is said of the rest.

use std::{cmp::Reverse, fmt};

use super::{rates::SECOND_NS, words::Grouped};
use crate::{
    cause::{CauseId, catalogue},
    event::Direction,
};

/// Counts by direction and cause.
type Counts = [[u32; catalogue::ENTRIES.len()]; 2];

/// Lets at most so many rows a second through. A part of them is kept for causes that few rows have
/// shown, so that the rare one is seen beside the storm.
#[derive(Clone, Debug)]
pub struct Limit {
    most: u32,
    shown: u32,
    /// What was shown and what was not, in this second.
    shown_of: Counts,
    limited: Counts,
    any_limited: bool,
    until_ns: u64,
}

impl Limit {
    /// At most `most` rows a second; at least 1.
    pub fn new(most: u32) -> Self {
        Self {
            most: most.max(1),
            shown: 0,
            shown_of: Counts::default(),
            limited: Counts::default(),
            any_limited: false,
            until_ns: 0,
        }
    }

    /// Whether an event may be shown. If not, it is counted.
    #[inline]
    pub fn lets_through(&mut self, direction: Direction, cause: CauseId) -> bool {
        let shown_of = &mut self.shown_of[direction as usize][cause as usize];
        let reserve = self.most / 4;
        let few = (self.most / 20).max(1);
        if self.shown < self.most - reserve || (self.shown < self.most && *shown_of < few) {
            self.shown += 1;
            *shown_of += 1;
            return true;
        }
        let limited = &mut self.limited[direction as usize][cause as usize];
        *limited = limited.saturating_add(1);
        self.any_limited = true;
        false
    }

    /// Begins a new second when the old one is over at `now_ns` of a clock that never goes back.
    /// Returns what the old one held back, when it did.
    pub fn tick(&mut self, now_ns: u64) -> Option<Limited> {
        if now_ns < self.until_ns {
            return None;
        }
        self.until_ns = now_ns + SECOND_NS;
        self.finish()
    }

    /// Ends the second. Returns what it held back.
    pub fn finish(&mut self) -> Option<Limited> {
        if self.shown > 0 {
            self.shown = 0;
            self.shown_of = Counts::default();
        }
        std::mem::take(&mut self.any_limited).then(|| Limited(std::mem::take(&mut self.limited)))
    }
}

/// Rows that were not shown. Prints as a line without its end: `... 40,902 more like these: 40,900
/// sent closed-port, 2 received refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited(Counts);

impl Limited {
    /// How many.
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().map(|count| u64::from(*count)).sum()
    }

    /// How many of each cause, by direction and the cause's name, the most frequent first.
    pub fn by_count(&self) -> Vec<(u32, Direction, &'static str)> {
        let mut counts = Vec::new();
        for direction in [Direction::Sent, Direction::Received] {
            let of = &self.0[direction as usize];
            let some = catalogue::ENTRIES.iter().zip(of).filter(|(_, n)| **n > 0);
            counts.extend(some.map(|(entry, n)| (*n, direction, entry.name)));
        }
        counts.sort_by_key(|(count, ..)| Reverse(*count));
        counts
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "... {} more like these", Grouped(self.total()))?;
        for (i, (count, direction, name)) in self.by_count().iter().enumerate() {
            let before = if i == 0 { ": " } else { ", " };
            let count = Grouped(u64::from(*count));
            write!(f, "{before}{count} {} {name}", direction.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_over_the_limit_is_counted_by_cause() {
        let mut limit = Limit::new(4);
        assert_eq!(limit.tick(5), None);
        let mut through = 0;
        for _ in 0..1_000 {
            through += u32::from(limit.lets_through(Direction::Sent, CauseId::ClosedPort));
        }
        assert_eq!(through, 3, "one place is kept");
        assert!(limit.lets_through(Direction::Received, CauseId::PeerGone));
        assert!(!limit.lets_through(Direction::Received, CauseId::PeerGone));
        assert_eq!(limit.tick(5 + SECOND_NS - 1), None);
        let limited = limit.tick(5 + SECOND_NS).expect("some");
        assert_eq!(
            limited.to_string(),
            "... 998 more like these: 997 sent closed-port, 1 received peer-gone"
        );
        assert!(limit.lets_through(Direction::Sent, CauseId::ClosedPort));
        assert_eq!(limit.finish(), None);
    }

    proptest! {
        /// Every event is shown or counted, and no more are shown than are allowed.
        #[test]
        fn nothing_is_lost(most in 1..200_u32, causes in prop::collection::vec(0..29_usize, 0..2_000)) {
            let mut limit = Limit::new(most);
            let mut shown = 0_usize;
            for cause in &causes {
                let id = catalogue::ENTRIES[*cause].id;
                shown += usize::from(limit.lets_through(Direction::Sent, id));
            }
            prop_assert!(shown <= most as usize);
            prop_assert!(shown == causes.len() || shown >= (most - most / 4) as usize);
            let limited = limit.finish().map_or(0, |limited| limited.total());
            prop_assert_eq!(shown as u64 + limited, causes.len() as u64);
        }
    }
}
