//! The shape of a storm: how many resets a second, above what is usual, since when, and what they
//! have in common. Values and a clock come in, reports go out; nothing is read from the system.
//!
//! - [`rates`]: resets a second over one, ten and sixty seconds.
//! - [`detect`]: what is usual, when a storm begins and when it is over.
//! - [`heavy`]: the most frequent keys of a stream, in bounded memory, with a bound on the error.
//! - [`tables`]: what is counted of an event. `gone`: who listened until lately.
//! - [`shape`]: what stands out of what was counted.
//! - [`words`]: a report as a person reads it.
//! - [`limit`]: how many rows a second a terminal gets.
//!
//! How a report looks as JSON or in a table stands in `sink`.

pub mod detect;
mod gone;
pub mod heavy;
pub mod limit;
pub mod rates;
pub mod shape;
pub mod tables;
pub mod words;

use std::time::Duration;

use self::{
    detect::{Detector, Turn},
    gone::Listeners,
    rates::{Rates, SECOND_NS},
    tables::Tables,
};
pub use self::{
    gone::Gone,
    rates::{Counted, Rate},
    shape::{Lead, Shape},
};
use crate::{
    cause::Verdict,
    event::{Direction, Event},
};

/// What is frequent "now" is so in the last one to two of these.
const GENERATION_NS: u64 = 5 * SECOND_NS;

/// For how long something else must stand out before it is said.
const CHANGE_NS: u64 = 2 * SECOND_NS;

/// Between two reports of a change.
const CHANGES_APART_NS: u64 = 10 * SECOND_NS;

/// A rate that grew so many times, or fell to this part, is a change.
const CHANGE_TIMES: f64 = 4.0;

/// Rows of a kind in a report.
const ROWS: usize = 5;

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: u64,
}

impl Now {
    /// The wall clock's time at `then_ns` of the other clock, as seen from now.
    const fn wall_at(self, then_ns: u64) -> u64 {
        self.wall_ns
            .saturating_sub(self.monotonic_ns.saturating_sub(then_ns))
    }
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A storm began.
    Begin,
    /// The storm is another than before: another cause, port or source, or much stronger or weaker.
    Change,
    /// The storm is over.
    End,
    /// How things are.
    Shape,
}

impl Phase {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Change => "change",
            Self::End => "end",
            Self::Shape => "shape",
        }
    }
}

/// The storm that a report is about. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When it began.
    pub since_ns: u64,
    /// Whether it was there when the counting began.
    pub from_start: bool,
    /// When it was over.
    pub until_ns: Option<u64>,
    /// The resets in it so far.
    pub counted: Counted,
    /// The most resets in a second.
    pub peak: f64,
}

/// How things are, or were in a storm.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What it is about.
    pub phase: Phase,
    /// When it was made: nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The storm, when there is one.
    pub storm: Option<Span>,
    /// Resets a second over the last 1, 10 and 60 seconds.
    pub rates: [Rate; 3],
    /// Resets a second that are usual; `None` while that is not known.
    pub usual: Option<f64>,
    /// What was counted of late; at the end of a storm, in it.
    pub shape: Shape,
}

/// The part of what is counted that a shape is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last five to ten seconds.
    Lately,
    /// All since the start.
    Ever,
}

/// Watches for storms.
#[derive(Debug, Default)]
pub struct Watch {
    /// What is counted now, and what was in the generation before.
    young: Box<Tables>,
    old: Box<Tables>,
    /// What older generations counted, in the storm that there is and since the start.
    storm: Box<Tables>,
    ever: Box<Tables>,
    /// Where generations are put together.
    scratch: Box<Tables>,
    listeners: Listeners,
    seen: Counted,
    /// Set by the first tick.
    clock: Option<Clock>,
    detector: Detector,
    /// The totals when the storm began, and the time of the wall clock: it may be set meanwhile.
    before_storm: Counted,
    storm_since_wall_ns: u64,
    /// What was said last of the storm.
    said: Option<Said>,
}

#[derive(Debug)]
struct Clock {
    started_ns: u64,
    /// When the young generation and the old one began.
    generation_ns: u64,
    old_ns: u64,
    rates: Rates,
}

/// What was reported, and since when it is no longer so.
#[derive(Debug)]
struct Said {
    lead: Option<Lead>,
    rate: f64,
    at_ns: u64,
    other_since_ns: Option<u64>,
}

impl Watch {
    /// Counts an event.
    pub fn note(&mut self, event: &Event, verdict: &Verdict) {
        self.note_times(event, verdict, 1);
    }

    /// Counts so many events that are alike but for their times and the ports that the kernel picked.
    #[inline]
    pub fn note_times(&mut self, event: &Event, verdict: &Verdict, times: u64) {
        if times == 0 {
            return;
        }
        match event.direction {
            Direction::Sent => self.seen.sent += times,
            Direction::Received => self.seen.received += times,
        }
        self.young.note(event, verdict.id, times);
        self.listeners.note(event);
    }

    /// Whether [`Self::tick`] has something to do: four times a second. What it is to be told need
    /// not be found out in between.
    pub fn is_due(&self, monotonic_ns: u64) -> bool {
        self.clock
            .as_ref()
            .is_none_or(|clock| clock.rates.is_due(monotonic_ns))
    }

    /// Looks at what was counted. `counted` are exact totals since any moment, when there are any:
    /// rates then come from them, since detail may be missing; else from the events. They must
    /// always be given, or never. Returns what is to be said.
    pub fn tick(&mut self, now: Now, counted: Option<Counted>) -> Option<Report> {
        let now_ns = now.monotonic_ns;
        let totals = counted.unwrap_or(self.seen);
        let Some(clock) = &mut self.clock else {
            self.clock = Some(Clock {
                started_ns: now_ns,
                generation_ns: now_ns,
                old_ns: now_ns,
                rates: Rates::new(now_ns, totals),
            });
            return None;
        };
        if !clock.rates.is_due(now_ns) {
            return None;
        }
        let second = clock.rates.sample(now_ns, totals);
        let (of_second, latest) = (clock.rates.over(1), clock.rates.latest());
        let turn = self.detector.step(now_ns, of_second, latest, second);
        if turn == Some(Turn::Begin)
            && let Some(storm) = self.detector.storm()
        {
            self.before_storm = clock.rates.totals_at(storm.since_ns);
            self.storm_since_wall_ns = now.wall_at(storm.since_ns);
        }
        if now_ns.saturating_sub(clock.generation_ns) >= GENERATION_NS {
            clock.old_ns = std::mem::replace(&mut clock.generation_ns, now_ns);
            self.turn_over();
        }
        match turn {
            Some(Turn::Begin) => Some(self.say(Phase::Begin, now)),
            Some(Turn::End) => {
                let report = self.say(Phase::End, now);
                self.detector.end();
                self.storm.clear();
                self.said = None;
                Some(report)
            }
            None if second && self.detector.storm().is_some() => self
                .has_changed(now_ns, of_second.total())
                .then(|| self.say(Phase::Change, now)),
            None => None,
        }
    }

    /// How things are.
    pub fn report(&mut self, now: Now) -> Report {
        self.make(Phase::Shape, now)
    }

    /// The shape, with at most `most` rows of a kind.
    pub fn shape(&mut self, window: Window, most: usize) -> Shape {
        self.gather(window);
        let before = self.said.as_ref().and_then(|said| said.lead.as_ref());
        Shape::of(&self.scratch, &self.listeners, before, most)
    }

    /// The rates; `None` before the first tick.
    pub fn rates(&self) -> Option<&Rates> {
        self.clock.as_ref().map(|clock| &clock.rates)
    }

    /// How long [`Window::Lately`] reaches back from the last tick, in seconds: at most ten and a
    /// little.
    pub fn lately_s(&self) -> f64 {
        let now_ns = self.clock.as_ref().map_or(0, |clock| clock.rates.now_ns());
        let from_ns = self.clock.as_ref().map_or(0, |clock| clock.old_ns);
        Duration::from_nanos(now_ns.saturating_sub(from_ns)).as_secs_f64()
    }

    /// What was noted.
    pub const fn seen(&self) -> Counted {
        self.seen
    }

    /// Makes the young generation the old one.
    fn turn_over(&mut self) {
        self.ever.merge(&self.old);
        if self.detector.storm().is_some() {
            self.storm.merge(&self.old);
        }
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
    }

    fn gather(&mut self, window: Window) {
        self.scratch.clear();
        if window == Window::Ever {
            self.scratch.merge(&self.ever);
        }
        self.scratch.merge(&self.old);
        self.scratch.merge(&self.young);
    }

    /// Whether the storm has been another than was said for long enough.
    fn has_changed(&mut self, now_ns: u64, rate: f64) -> bool {
        self.gather(Window::Lately);
        let Some(said) = &mut self.said else {
            return false;
        };
        let lead = shape::lead(&self.scratch, &self.listeners, said.lead.as_ref());
        let same_lead = match (&lead, &said.lead) {
            (Some(lead), Some(said)) => lead.is_like(said),
            (None, None) => true,
            _ => false,
        };
        // A rate of nothing is the end of the storm, which takes a moment to be sure of.
        let calm = rate < self.detector.usual.threshold();
        let same_rate =
            calm || (rate < said.rate * CHANGE_TIMES && rate * CHANGE_TIMES > said.rate);
        if same_lead && same_rate {
            said.other_since_ns = None;
            return false;
        }
        let since_ns = *said.other_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) >= CHANGE_NS
            && now_ns.saturating_sub(said.at_ns) >= CHANGES_APART_NS
    }

    fn say(&mut self, phase: Phase, now: Now) -> Report {
        let report = self.make(phase, now);
        self.said = Some(Said {
            lead: report.shape.lead.clone(),
            rate: report.rates[0].total(),
            at_ns: now.monotonic_ns,
            other_since_ns: None,
        });
        report
    }

    fn make(&mut self, phase: Phase, now: Now) -> Report {
        self.gather(Window::Lately);
        if phase == Phase::End {
            self.scratch.merge(&self.storm);
        }
        let before = self.said.as_ref().and_then(|said| said.lead.as_ref());
        let shape = Shape::of(&self.scratch, &self.listeners, before, ROWS);
        let gone = shape.lead.as_ref().and_then(|lead| lead.gone.as_ref());
        self.storm_since_wall_ns = began_ns(self.storm_since_wall_ns, gone.map(|gone| gone.at_ns));
        let clock = self.clock.as_ref();
        let storm = self.detector.storm().zip(clock).map(|(storm, clock)| {
            let over = phase == Phase::End;
            let to_ns = if over {
                storm.until_ns
            } else {
                now.monotonic_ns
            };
            Span {
                since_ns: self.storm_since_wall_ns,
                from_start: storm.since_ns <= clock.started_ns,
                until_ns: over.then(|| now.wall_at(storm.until_ns)),
                counted: clock.rates.totals_at(to_ns) - self.before_storm,
                peak: storm.peak,
            }
        });
        Report {
            phase,
            time_ns: now.wall_ns,
            storm,
            rates: clock.map_or_else(Default::default, |clock| {
                [1, 10, 60].map(|seconds| clock.rates.over(seconds))
            }),
            usual: self.detector.usual.rate(),
            shape,
        }
    }
}

/// When a storm began that is known to have begun in the second after `since_ns`: not before the
/// listener was gone that its resets are for.
fn began_ns(since_ns: u64, gone_ns: Option<u64>) -> u64 {
    gone_ns
        .filter(|gone_ns| (since_ns..since_ns.saturating_add(SECOND_NS)).contains(gone_ns))
        .unwrap_or(since_ns)
}

#[cfg(test)]
mod tests;
