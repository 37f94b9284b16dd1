//! How many resets a second: over the last second, ten and sixty, and second by second for a while.

use std::{collections::VecDeque, ops::Sub};

/// How often the totals are looked at.
pub const SAMPLE_NS: u64 = 250_000_000;

/// Nanoseconds in a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// Samples that are kept: those of sixty seconds, and the one that they begin with.
const SAMPLES: usize = 60 * (SECOND_NS / SAMPLE_NS) as usize + 1;

/// Seconds that are kept one by one.
pub const HISTORY: usize = 600;

/// Resets counted since some moment, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Sent by this host.
    pub sent: u64,
    /// Received by this host.
    pub received: u64,
}

impl Counted {
    /// Both directions.
    pub const fn total(self) -> u64 {
        self.sent + self.received
    }
}

impl Sub for Counted {
    type Output = Self;

    /// What came between two moments. A counter that was set back counts as one that stood still.
    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

/// Resets a second, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Sent by this host.
    pub sent: f64,
    /// Received by this host.
    pub received: f64,
}

impl Rate {
    /// Both directions.
    pub const fn total(self) -> f64 {
        self.sent + self.received
    }
}

/// The totals over the last minute, and the rates that follow from them.
#[derive(Clone, Debug)]
pub struct Rates {
    /// When, in nanoseconds of a clock that never goes back, and the totals at that time; the
    /// newest is the last.
    samples: VecDeque<(u64, Counted)>,
    /// The rate of each second, the newest last.
    history: VecDeque<Rate>,
    /// The total at the end of the last second of the history.
    second: (u64, Counted),
}

impl Rates {
    /// Begins at `now_ns` with the totals of that time.
    pub fn new(now_ns: u64, totals: Counted) -> Self {
        let mut samples = VecDeque::with_capacity(SAMPLES);
        samples.push_back((now_ns, totals));
        Self {
            samples,
            history: VecDeque::with_capacity(HISTORY),
            second: (now_ns, totals),
        }
    }

    /// Whether it is time to look at the totals again.
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.newest().0) >= SAMPLE_NS
    }

    /// Takes in the totals at `now_ns`. Returns whether a second of the history is full.
    pub fn sample(&mut self, now_ns: u64, totals: Counted) -> bool {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ns, totals));
        let full = now_ns.saturating_sub(self.second.0) >= SECOND_NS;
        if full {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history
                .push_back(between(self.second, (now_ns, totals)));
            self.second = (now_ns, totals);
        }
        full
    }

    /// The rate over the last `seconds`, or since the beginning when that is less; at most 60.
    pub fn over(&self, seconds: u64) -> Rate {
        let newest = self.newest();
        let begin_ns = newest.0.saturating_sub(seconds * SECOND_NS);
        // From the last sample that is old enough: a window is not cut short by a late look.
        let from = self
            .samples
            .iter()
            .rev()
            .find(|(at_ns, _)| *at_ns <= begin_ns)
            .or(self.samples.front());
        from.map_or_else(Rate::default, |from| between(*from, newest))
    }

    /// The rate since the last sample but one, and when that was.
    pub fn latest(&self) -> (u64, Rate) {
        let newest = self.newest();
        let before = self.samples.iter().rev().nth(1).copied().unwrap_or(newest);
        (before.0, between(before, newest))
    }

    /// The totals of the newest sample that is not newer than `at_ns`, or of the oldest.
    pub fn totals_at(&self, at_ns: u64) -> Counted {
        let samples = self.samples.iter();
        let old = samples.rev().find(|(sample_ns, _)| *sample_ns <= at_ns);
        old.or(self.samples.front())
            .map_or_else(Counted::default, |(_, totals)| *totals)
    }

    /// When the totals were looked at last.
    pub fn now_ns(&self) -> u64 {
        self.newest().0
    }

    /// The rates of the last [`HISTORY`] seconds, the newest last.
    pub const fn history(&self) -> &VecDeque<Rate> {
        &self.history
    }

    fn newest(&self) -> (u64, Counted) {
        self.samples.back().copied().unwrap_or_default()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates are told with three digits"
)]
fn between(from: (u64, Counted), to: (u64, Counted)) -> Rate {
    let ns = to.0.saturating_sub(from.0);
    if ns == 0 {
        return Rate::default();
    }
    let counted = to.1 - from.1;
    let rate = |count: u64| count as f64 * SECOND_NS as f64 / ns as f64;
    Rate {
        sent: rate(counted.sent),
        received: rate(counted.received),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `seconds` of `per_second` sent resets, beginning with `totals` at `from_ns`.
    fn run(
        rates: &mut Rates,
        now_ns: &mut u64,
        totals: &mut Counted,
        per_second: u64,
        seconds: u64,
    ) {
        for _ in 0..seconds * SECOND_NS / SAMPLE_NS {
            *now_ns += SAMPLE_NS;
            totals.sent += per_second * SAMPLE_NS / SECOND_NS;
            rates.sample(*now_ns, *totals);
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers of a power of two")]
    fn each_window_has_its_rate() {
        let (mut now_ns, mut totals) = (5 * SECOND_NS, Counted::default());
        let mut rates = Rates::new(now_ns, totals);
        assert_eq!(rates.over(60).total(), 0.0);
        run(&mut rates, &mut now_ns, &mut totals, 400, 2);
        // No longer than since the beginning.
        assert_eq!(rates.over(60).sent, 400.0);
        run(&mut rates, &mut now_ns, &mut totals, 0, 58);
        assert_eq!(rates.over(1).sent, 0.0);
        assert_eq!(rates.over(10).sent, 0.0);
        assert!((rates.over(60).sent - 800.0 / 60.0).abs() < 0.01);
        run(&mut rates, &mut now_ns, &mut totals, 1_000, 5);
        assert_eq!(rates.over(1).sent, 1_000.0);
        assert_eq!(rates.over(10).sent, 500.0);
        let history: Vec<f64> = rates.history().iter().map(|rate| rate.sent).collect();
        assert_eq!(history.len(), 65);
        assert_eq!(history[..2], [400.0, 400.0]);
        assert_eq!(history[60..], [1_000.0; 5]);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn a_late_look_is_measured_by_the_time_that_passed() {
        let mut rates = Rates::new(0, Counted::default());
        let totals = Counted {
            sent: 300,
            received: 30,
        };
        rates.sample(3 * SECOND_NS, totals);
        let rate = Rate {
            sent: 100.0,
            received: 10.0,
        };
        assert_eq!(rates.over(1), rate);
        assert_eq!(rates.latest(), (0, rate));
        // A counter that was set back is no negative rate.
        rates.sample(4 * SECOND_NS, Counted::default());
        assert_eq!(rates.over(1).total(), 0.0);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut now_ns, mut totals) = (0, Counted::default());
        let mut rates = Rates::new(0, totals);
        run(&mut rates, &mut now_ns, &mut totals, 4, 2_000);
        assert_eq!(rates.samples.len(), SAMPLES);
        assert_eq!(rates.history.len(), HISTORY);
        assert!(rates.samples.capacity() < 2 * SAMPLES);
    }
}
