//! Whether there is a storm: what is usual, when it begins and when it is over.

use super::rates::{Rate, SECOND_NS};

/// A storm is at least so many resets a second.
const LEAST: f64 = 100.0;

/// The same while it is not known what is usual: at the start of a run, which is often in the middle
/// of a storm.
const LEAST_UNKNOWN: f64 = 500.0;

/// A storm is at least so many times what is usual.
const TIMES_USUAL: f64 = 10.0;

/// It is over at this part of the rate that it begins at.
const LEAVE: f64 = 0.5;

/// For how long the rate must be high before a storm has begun: a deploy that resets some hundred
/// connections at once is none.
const RISE_NS: u64 = 3 * SECOND_NS / 2;

/// For how long the rate must be low before a storm is over.
const CALM_NS: u64 = 5 * SECOND_NS;

/// Calm seconds after which it is known what is usual.
const LEARNT: u32 = 10;

/// Calm seconds over which what is usual is forgotten.
const MEMORY: u32 = 300;

/// The usual rate: learnt slowly, from calm seconds alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usual {
    mean: f64,
    seconds: u32,
}

impl Usual {
    /// Takes in the rate of a calm second.
    pub fn learn(&mut self, rate: f64) {
        self.seconds = (self.seconds + 1).min(MEMORY);
        self.mean += (rate - self.mean) / f64::from(self.seconds);
    }

    /// Resets a second; `None` while it is not known.
    pub fn rate(&self) -> Option<f64> {
        (self.seconds >= LEARNT).then_some(self.mean)
    }

    /// The rate from which on there is a storm.
    pub fn threshold(&self) -> f64 {
        self.rate()
            .map_or(LEAST_UNKNOWN, |rate| LEAST.max(rate * TIMES_USUAL))
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A storm began.
    Begin,
    /// It is over.
    End,
}

/// A storm: times are of the clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When the rate rose.
    pub since_ns: u64,
    /// When it was high last.
    pub until_ns: u64,
    /// The highest rate of a second.
    pub peak: f64,
    /// The rate at which it is over; what is usual does not change in a storm.
    leave: f64,
    /// When the rate of a whole second was high last.
    high_ns: u64,
}

/// The first look at which the rate was high.
#[derive(Clone, Copy, Debug)]
struct Rise {
    /// The look before it.
    before_ns: u64,
    at_ns: u64,
    /// The rate between the two.
    rate: f64,
}

impl Rise {
    /// When the rate rose to `rate`, somewhere between the two looks.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a quarter of a second in nanoseconds, and a part of it"
    )]
    fn began_ns(&self, rate: f64) -> u64 {
        let between = self.at_ns.saturating_sub(self.before_ns);
        let part = (self.rate / rate).clamp(0.0, 1.0);
        self.at_ns - (between as f64 * part).round() as u64
    }
}

/// Tells calm from storm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detector {
    /// What is usual.
    pub usual: Usual,
    rising: Option<Rise>,
    storm: Option<Span>,
}

impl Detector {
    /// The storm that there is.
    pub const fn storm(&self) -> Option<&Span> {
        self.storm.as_ref()
    }

    /// Takes in the rate of the last second and the one since `before_ns`, the last call. `second`:
    /// whether a second has passed that what is usual can be learnt from.
    pub fn step(
        &mut self,
        now_ns: u64,
        of_second: Rate,
        (before_ns, latest): (u64, Rate),
        second: bool,
    ) -> Option<Turn> {
        let (of_second, latest) = (of_second.total(), latest.total());
        let Some(storm) = &mut self.storm else {
            return self.step_calm(now_ns, of_second, (before_ns, latest), second);
        };
        storm.peak = storm.peak.max(of_second);
        if of_second >= storm.leave {
            storm.high_ns = now_ns;
        }
        if latest >= storm.leave {
            storm.until_ns = now_ns;
        }
        (now_ns.saturating_sub(storm.high_ns) >= CALM_NS).then_some(Turn::End)
    }

    /// Forgets the storm that is over, and returns it.
    pub const fn end(&mut self) -> Option<Span> {
        self.storm.take()
    }

    fn step_calm(
        &mut self,
        now_ns: u64,
        of_second: f64,
        (before_ns, latest): (u64, f64),
        second: bool,
    ) -> Option<Turn> {
        let threshold = self.usual.threshold();
        if of_second < threshold && latest < threshold {
            self.rising = None;
            if second {
                self.usual.learn(of_second);
            }
            return None;
        }
        let rise = *self.rising.get_or_insert(Rise {
            before_ns,
            at_ns: now_ns,
            rate: latest,
        });
        if of_second < threshold || now_ns.saturating_sub(rise.before_ns) < RISE_NS {
            return None;
        }
        self.rising = None;
        self.storm = Some(Span {
            since_ns: rise.began_ns(of_second),
            until_ns: now_ns,
            peak: of_second,
            leave: threshold * LEAVE,
            high_ns: now_ns,
        });
        Some(Turn::Begin)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP_NS: u64 = SECOND_NS / 4;

    /// Feeds quarters of a second of these rates; returns what turned, and in which quarter.
    fn run(detector: &mut Detector, quarters: &[f64]) -> Vec<(usize, Turn)> {
        let mut turns = Vec::new();
        for (i, latest) in quarters.iter().enumerate() {
            let window = &quarters[i.saturating_sub(3)..=i];
            let rate = |sent: f64| Rate {
                sent,
                received: 0.0,
            };
            let of_second = window.iter().sum::<f64>() / 4.0;
            let now_ns = (i as u64 + 1) * STEP_NS;
            let turn = detector.step(
                now_ns,
                rate(of_second),
                (i as u64 * STEP_NS, rate(*latest)),
                i % 4 == 3,
            );
            if turn == Some(Turn::End) {
                detector.end();
            }
            turns.extend(turn.map(|turn| (i, turn)));
        }
        turns
    }

    fn seconds(rates: &[(f64, usize)]) -> Vec<f64> {
        let quarters = rates
            .iter()
            .flat_map(|(rate, seconds)| std::iter::repeat_n(*rate, 4 * seconds));
        quarters.collect()
    }

    #[test]
    fn a_storm_begins_and_ends_once() {
        let mut detector = Detector::default();
        let rates = seconds(&[(2.0, 20), (5_000.0, 30), (2.0, 20)]);
        let turns = run(&mut detector, &rates);
        assert_eq!(turns.len(), 2, "{turns:?}");
        assert_eq!(turns[0], (85, Turn::Begin));
        assert_eq!(turns[1].1, Turn::End);
        // The low rate has lasted five seconds, after the one in which the last of it was high.
        assert!((220..=224).contains(&turns[1].0), "{turns:?}");
    }

    #[test]
    fn the_times_and_the_peak_are_the_storms() {
        let mut detector = Detector::default();
        run(
            &mut detector,
            &seconds(&[(2.0, 20), (5_000.0, 10), (9_000.0, 1), (2.0, 2)]),
        );
        let storm = detector.storm().expect("a storm");
        assert_eq!(storm.since_ns, 20 * SECOND_NS);
        assert_eq!(storm.until_ns, 31 * SECOND_NS);
        assert!((storm.peak - 9_000.0).abs() < 0.1);
    }

    #[test]
    fn a_short_burst_is_no_storm_and_a_short_calm_is_no_end() {
        let mut detector = Detector::default();
        let burst = [seconds(&[(2.0, 20)]), vec![40_000.0], seconds(&[(2.0, 20)])].concat();
        assert_eq!(run(&mut detector, &burst), []);
        let gap = seconds(&[(2.0, 20), (5_000.0, 10), (0.0, 3), (5_000.0, 10)]);
        let turns = run(&mut detector, &gap);
        assert_eq!(turns.len(), 1, "{turns:?}");
    }

    #[test]
    fn a_rate_about_the_threshold_does_not_flap() {
        let mut detector = Detector::default();
        let mut rates = seconds(&[(2.0, 20)]);
        for _ in 0..50 {
            rates.extend(seconds(&[(130.0, 1), (80.0, 1)]));
        }
        assert_eq!(run(&mut detector, &rates).len(), 1);
    }

    #[test]
    fn what_is_usual_on_a_busy_host_is_no_storm() {
        let mut detector = Detector::default();
        assert_eq!(
            run(&mut detector, &seconds(&[(450.0, 60), (2_000.0, 30)])),
            []
        );
        let turns = run(&mut detector, &seconds(&[(450.0, 60), (30_000.0, 3)]));
        assert_eq!(turns.len(), 1, "{turns:?}");
    }

    #[test]
    fn a_storm_at_the_start_is_one() {
        let mut detector = Detector::default();
        let turns = run(&mut detector, &seconds(&[(2_000.0, 10)]));
        assert_eq!(turns.len(), 1, "{turns:?}");
        assert_eq!(detector.storm().expect("a storm").since_ns, 0);
        assert_eq!(detector.usual.rate(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However high a storm is and however long it lasts, nothing of it is learnt.
        #[test]
        fn a_storm_does_not_change_what_is_usual(
            usual in 0.0..50.0_f64,
            times in 11.0..10_000.0_f64,
            lasts in 2..400_usize,
        ) {
            let mut detector = Detector::default();
            run(&mut detector, &seconds(&[(usual, 60)]));
            let before = detector.usual.rate().expect("known");
            let high = (before * times).max(LEAST * 1.1);
            let turns = run(&mut detector, &seconds(&[(high, lasts)]));
            prop_assert_eq!(turns.len(), 1);
            let after = detector.usual.rate().expect("known");
            prop_assert!((after - before).abs() < 1e-9, "{} became {}", before, after);
        }

        /// Turns alternate, and each takes its time.
        #[test]
        fn turns_alternate(rates in prop::collection::vec(0.0..3_000.0, 0..400)) {
            let mut detector = Detector::default();
            let turns = run(&mut detector, &rates);
            for (i, (_, turn)) in turns.iter().enumerate() {
                prop_assert_eq!(*turn, if i % 2 == 0 { Turn::Begin } else { Turn::End });
            }
            for pair in turns.windows(2) {
                let ns = (pair[1].0 - pair[0].0) as u64 * STEP_NS;
                let least = if pair[0].1 == Turn::Begin { CALM_NS } else { RISE_NS - 4 * STEP_NS };
                prop_assert!(ns >= least, "{:?}", pair);
            }
        }
    }
}
