//! The last events of each cause, for a screen: a bounded memory with a bounded price. Of a cause
//! that comes too often a sample is kept, so that a storm costs less than printing it.

use std::{array, collections::VecDeque};

use crate::{
    cause::{Verdict, catalogue},
    event::Event,
};

/// Events that are kept of a cause and direction.
const MOST: usize = 64;

/// Events of a cause and direction that are taken between two looks.
const A_LOOK: u8 = 16;

/// An event that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The n-th event of all that came.
    pub number: u64,
    /// The event.
    pub event: Event,
    /// Its verdict.
    pub verdict: Verdict,
}

#[derive(Debug, Default)]
struct OfCause {
    events: VecDeque<Kept>,
    /// Taken since the last look.
    taken: u8,
}

/// The last events.
#[derive(Debug)]
pub struct Recent {
    causes: [[OfCause; catalogue::ENTRIES.len()]; 2],
    came: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            causes: array::from_fn(|_| array::from_fn(|_| OfCause::default())),
            came: 0,
        }
    }
}

impl Recent {
    /// Takes in an event, unless enough of its kind have come since the last look.
    pub fn take(&mut self, event: &Event, verdict: &Verdict) {
        self.came += 1;
        let of = &mut self.causes[event.direction as usize][verdict.id as usize];
        if of.taken >= A_LOOK {
            return;
        }
        of.taken += 1;
        if of.events.len() == MOST {
            of.events.pop_front();
        }
        of.events.push_back(Kept {
            number: self.came,
            event: event.clone(),
            verdict: verdict.clone(),
        });
    }

    /// Begins a new look.
    pub fn look(&mut self) {
        for of in self.causes.iter_mut().flatten() {
            of.taken = 0;
        }
    }

    /// The newest `most` that `wanted` picks, the newest first.
    pub fn last(&self, most: usize, wanted: impl Fn(&Kept) -> bool) -> Vec<&Kept> {
        let all = self.causes.iter().flatten().flat_map(|of| &of.events);
        let mut found: Vec<&Kept> = all.filter(|kept| wanted(kept)).collect();
        found.sort_unstable_by_key(|kept| std::cmp::Reverse(kept.number));
        found.truncate(most);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cause::{HostFacts, classify},
        event::TcpState,
        fixture,
    };

    #[test]
    fn a_storm_does_not_push_out_the_rare_event() {
        let mut recent = Recent::default();
        let mut take = |event: &Event| {
            recent.take(event, &classify(event, &HostFacts::default()));
        };
        take(&fixture::received(TcpState::Established));
        for _ in 0..100_000 {
            take(&fixture::closed_port());
        }
        let last = recent.last(1_000, |_| true);
        assert_eq!(last.len(), usize::from(A_LOOK) + 1);
        assert_eq!((last[0].number, last[16].number), (17, 1));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut recent = Recent::default();
        let event = fixture::closed_port();
        let verdict = classify(&event, &HostFacts::default());
        for _ in 0..1_000 {
            recent.take(&event, &verdict);
            recent.look();
        }
        assert_eq!(recent.last(1_000, |_| true).len(), MOST);
        assert_eq!(recent.last(5, |kept| kept.number <= 990).len(), 5);
        assert_eq!(recent.last(1, |_| true)[0].number, 1_000);
    }
}
