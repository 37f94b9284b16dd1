//! What came of the runs: figures, as they were measured. Making sense of them is the report's.

use serde::Serialize;

use super::{cases::Case, programs::HookTime, statistics::Spread};
use crate::load::Done;

/// What a tracer says that it saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// Resets sent.
    pub(super) sent: u64,
    /// Resets received.
    pub(super) received: u64,
    /// Resets of which the detail was lost.
    pub(super) lost: u64,
}

/// What a run with a tracer was like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Traced {
    /// What the load did meanwhile.
    pub(super) done: Done,
    /// What the tracer saw, in every network namespace.
    pub(super) seen: Seen,
    /// Until every hook was attached, in milliseconds.
    pub(super) ready_ms: f64,
    /// CPU time from then until it had caught up, in seconds: in its own code, and in the kernel.
    pub(super) user_s: f64,
    pub(super) system_s: f64,
    /// Peak resident memory, in MiB.
    pub(super) peak_mib: f64,
}

/// A load without and with a tracer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Pair {
    pub(super) without: Done,
    /// What its rate with a tracer is told by: the traced run, or, by turns, what came after it.
    pub(super) with: Done,
    pub(super) traced: Traced,
}

impl Pair {
    /// Of a run without a tracer and one with it.
    pub(super) fn new(without: Done, traced: Traced) -> Self {
        Self {
            without,
            with: traced.done,
            traced,
        }
    }
}

/// What BPF programs took in a run of their own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BpfTime {
    /// What the load did.
    pub(super) done: Done,
    pub(super) hooks: Vec<HookTime>,
}

impl BpfTime {
    /// Nanoseconds a run of the programs at `hook`; `None` where none ran.
    pub(super) fn of(&self, hook: &str) -> Option<f64> {
        self.hooks
            .iter()
            .find(|time| time.hook == hook)
            .map(HookTime::ns_a_run)
    }

    /// Nanoseconds of all programs together for each connection, or segment, of the load.
    #[expect(clippy::cast_precision_loss, reason = "2^52 ns are 52 days")]
    pub(super) fn a_connection(&self) -> Option<f64> {
        let ns: u64 = self.hooks.iter().map(|time| time.ns).sum();
        (self.done.with_warm_up > 0).then(|| ns as f64 / self.done.with_warm_up as f64)
    }
}

/// All that was measured of a case.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) pairs: Vec<Pair>,
    pub(super) bpf: BpfTime,
}

impl Outcome {
    /// Connections, or resets, a second without the tracer.
    pub(super) fn without(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.without.rate()))
    }

    /// The same with it.
    pub(super) fn with(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.with.rate()))
    }

    /// One over the other, of each pair.
    pub(super) fn ratio(&self) -> Option<Spread> {
        Spread::of(
            self.pairs
                .iter()
                .map(|pair| pair.with.rate() / pair.without.rate()),
        )
    }

    /// Resets of which the detail was lost, in all runs.
    pub(super) fn lost(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.traced.seen.lost).sum()
    }

    /// Resets that the load brought about, in all runs: as many as were sent, and as many again
    /// where a socket received each.
    pub(super) fn resets(&self) -> u64 {
        self.pairs.iter().map(|pair| self.resets_of(pair)).sum()
    }

    fn resets_of(&self, pair: &Pair) -> u64 {
        self.case.load.resets_each() * pair.traced.done.out_rsts
    }

    /// Resets that the tracer saw sent, anywhere, in per cent of those that the load sent.
    #[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 resets")]
    pub(super) fn sent_seen(&self) -> Option<f64> {
        let sum = |sent: fn(&Traced) -> u64| -> u64 {
            self.pairs.iter().map(|pair| sent(&pair.traced)).sum()
        };
        let seen = sum(|traced| traced.seen.sent);
        let sent = sum(|traced| traced.done.out_rsts);
        (self.resets() > 0).then(|| 100.0 * seen as f64 / sent as f64)
    }

    /// CPU time of the tracer's own code for a million resets, in seconds; `None` for a load without
    /// resets.
    pub(super) fn user_a_million(&self) -> Option<Spread> {
        self.a_million(|traced| traced.user_s)
    }

    /// The same in the kernel on its behalf.
    pub(super) fn system_a_million(&self) -> Option<Spread> {
        self.a_million(|traced| traced.system_s)
    }

    #[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 resets")]
    fn a_million(&self, seconds: fn(&Traced) -> f64) -> Option<Spread> {
        Spread::of(self.pairs.iter().filter_map(|pair| {
            let resets = self.resets_of(pair);
            (resets > 0).then(|| seconds(&pair.traced) * 1e6 / resets as f64)
        }))
    }

    /// Until every hook was attached, in milliseconds.
    pub(super) fn ready_ms(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.traced.ready_ms))
    }

    /// Peak resident memory, in MiB.
    pub(super) fn peak_mib(&self) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| pair.traced.peak_mib))
    }
}

/// Made-up figures for the tests of what is made of them.
#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::bench::cases::chosen;

    pub(in crate::bench) fn done(made: u64, out_rsts: u64) -> Done {
        Done {
            made,
            with_warm_up: made,
            seconds: 2.0,
            out_rsts,
            netns: 7,
        }
    }

    /// The case `name`, in one pair at half the rate.
    pub(in crate::bench) fn outcome(name: &str) -> Outcome {
        let case = chosen(&[name.to_owned()], true).expect("a case")[0];
        let traced = Traced {
            done: done(1000, 1000),
            seen: Seen {
                sent: 1000,
                received: 990,
                lost: 10,
            },
            ready_ms: 120.0,
            user_s: 0.001,
            system_s: 0.002,
            peak_mib: 50.5,
        };
        Outcome {
            case,
            pairs: vec![Pair::new(done(2000, 2000), traced)],
            bpf: BpfTime {
                done: done(100, 100),
                hooks: vec![
                    HookTime {
                        hook: "tcp_receive_reset".to_owned(),
                        runs: 100,
                        ns: 30_000,
                    },
                    HookTime {
                        hook: "tcp_send_reset".to_owned(),
                        runs: 100,
                        ns: 45_000,
                    },
                ],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_runs() {
        let outcome = fixture::outcome("refused-json");
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        assert_eq!(median(outcome.without()), Some(1000.0));
        assert_eq!(median(outcome.with()), Some(500.0));
        assert_eq!(median(outcome.ratio()), Some(0.5));
        assert_eq!((outcome.lost(), outcome.resets()), (10, 2000));
        assert_eq!(median(outcome.user_a_million()), Some(0.5));
        assert_eq!(median(outcome.system_a_million()), Some(1.0));
        assert_eq!(outcome.sent_seen(), Some(100.0));
        assert_eq!(outcome.bpf.of("tcp_send_reset"), Some(450.0));
        assert_eq!(outcome.bpf.of("tcp_destroy_sock"), None);
        assert_eq!(outcome.bpf.a_connection(), Some(750.0));
    }

    #[test]
    fn rates_by_turns_are_not_those_of_the_traced_run() {
        let mut outcome = fixture::outcome("refused-filtered");
        outcome.pairs[0].with = fixture::done(1900, 0);
        assert_eq!(outcome.ratio().map(|ratio| ratio.median), Some(0.95));
        assert_eq!((outcome.resets(), outcome.lost()), (2000, 10));
    }

    #[test]
    fn loads_differ_in_how_many_resets_are_seen() {
        assert_eq!(fixture::outcome("raw-syn-json").resets(), 1000);
        let short = fixture::outcome("short-json");
        assert_eq!((short.resets(), short.sent_seen()), (0, None));
        assert_eq!(short.user_a_million(), None);
    }
}
