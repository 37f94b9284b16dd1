//! What tracing may cost, and whether it is held.

use serde::Serialize;

use super::{
    cases::{Case, Tracing},
    outcome::Outcome,
    rival::Script,
};
use crate::load::Load;

/// A hook that every tracer of resets has, for each direction.
const SENT_HOOK: &str = "tcp_send_reset";
const RECEIVED_HOOK: &str = "tcp_receive_reset";

/// A figure beside its budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// What it is about.
    pub(super) what: &'static str,
    /// In words: "at least 0.95".
    pub(super) budget: String,
    /// What was measured; `None` where it was not.
    pub(super) measured: Option<f64>,
    /// The same of bpftrace.
    pub(super) rival: Option<f64>,
    /// `None` where it was not measured.
    pub(super) met: Option<bool>,
    /// How the figures are written: so many decimals.
    #[serde(skip)]
    pub(super) decimals: usize,
    /// And behind them.
    pub(super) unit: &'static str,
}

/// A bound that a figure is to keep.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn words(self, decimals: usize, unit: &str) -> String {
        let (words, bound) = match self {
            Self::AtLeast(bound) => ("at least", bound),
            Self::AtMost(bound) => ("at most", bound),
        };
        format!("{words} {bound:.decimals$}{unit}")
    }
}

/// Where a figure is found.
type Figure = fn(&Outcome) -> Option<f64>;

/// A budget, and where the figures for it are found.
struct Budget {
    what: &'static str,
    bound: Bound,
    figure: Figure,
    case: (Load, Tracing),
    rival: Option<Script>,
    decimals: usize,
    unit: &'static str,
}

const fn ratio(
    what: &'static str,
    least: f64,
    case: (Load, Tracing),
    rival: Option<Script>,
) -> Budget {
    Budget {
        what,
        bound: Bound::AtLeast(least),
        figure: |outcome| Some(outcome.ratio()?.median),
        case,
        rival,
        decimals: 3,
        unit: "",
    }
}

const fn none_lost(what: &'static str, load: Load) -> Budget {
    Budget {
        what,
        bound: Bound::AtMost(0.0),
        figure: lost_share,
        case: (load, Tracing::Json),
        rival: Some(Script::Print),
        decimals: 2,
        unit: " %",
    }
}

/// A figure that is printed for `connects from one thread` with all detail.
const fn of_one_thread(
    what: &'static str,
    most: f64,
    figure: Figure,
    decimals: usize,
    unit: &'static str,
) -> Budget {
    Budget {
        what,
        bound: Bound::AtMost(most),
        figure,
        case: (Load::Refused, Tracing::Json),
        rival: Some(Script::Print),
        decimals,
        unit,
    }
}

const ONE: (Load, Tracing) = (Load::Refused, Tracing::Json);
const TWO: (Load, Tracing) = (Load::RefusedTwice, Tracing::Json);
const TWO_FILTERED: (Load, Tracing) = (Load::RefusedTwice, Tracing::Filtered);
const SHORT: (Load, Tracing) = (Load::Short, Tracing::Json);

const BUDGETS: [Budget; 12] = [
    ratio(
        "1 thread, every event printed: rate over untraced",
        0.95,
        ONE,
        Some(Script::Print),
    ),
    none_lost("1 thread, every event printed: detail lost", Load::Refused),
    ratio(
        "2 threads, every event printed: rate over untraced",
        0.80,
        TWO,
        Some(Script::Print),
    ),
    none_lost(
        "2 threads, every event printed: detail lost",
        Load::RefusedTwice,
    ),
    ratio(
        "2 threads, detail filtered out (bpftrace: counted by key): rate over untraced",
        0.92,
        TWO_FILTERED,
        Some(Script::Count),
    ),
    of_one_thread(
        "BPF time of a sent reset",
        400.0,
        |outcome| outcome.bpf.of(SENT_HOOK),
        0,
        " ns",
    ),
    of_one_thread(
        "BPF time of a received reset",
        400.0,
        |outcome| outcome.bpf.of(RECEIVED_HOOK),
        0,
        " ns",
    ),
    of_one_thread(
        "user-space CPU for a million resets",
        1.0,
        |outcome| Some(outcome.user_a_million()?.median),
        2,
        " s",
    ),
    of_one_thread(
        "memory, 1 thread: the highest peak RSS",
        40.0,
        highest_peak,
        1,
        " MiB",
    ),
    Budget {
        case: TWO,
        ..of_one_thread(
            "memory, 2 threads: the highest peak RSS",
            40.0,
            highest_peak,
            1,
            " MiB",
        )
    },
    ratio("short connections: rate over untraced", 0.97, SHORT, None),
    of_one_thread(
        "start to ready",
        300.0,
        |outcome| Some(outcome.ready_ms()?.median),
        0,
        " ms",
    ),
];

fn highest_peak(outcome: &Outcome) -> Option<f64> {
    Some(outcome.peak_mib()?.highest)
}

/// Part of the detail that was lost, in per cent.
#[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 resets")]
pub(super) fn lost_share(outcome: &Outcome) -> Option<f64> {
    let resets = outcome.resets();
    (resets > 0).then(|| 100.0 * outcome.lost() as f64 / resets as f64)
}

/// Puts what was measured beside the budgets.
pub(super) fn judge(outcomes: &[Outcome]) -> Vec<Verdict> {
    let figure = |(load, tracing): (Load, Tracing), get: Figure| {
        let is_it = |case: &Case| case.load == load && case.tracing == tracing;
        get(outcomes.iter().find(|outcome| is_it(&outcome.case))?)
    };
    BUDGETS
        .iter()
        .map(|budget| {
            let measured = figure(budget.case, budget.figure);
            let rival = budget
                .rival
                .map(|script| figure((budget.case.0, Tracing::Bpftrace(script)), budget.figure));
            Verdict {
                what: budget.what,
                budget: budget.bound.words(budget.decimals, budget.unit),
                measured,
                rival: rival.flatten(),
                met: measured.map(|value| budget.bound.holds(value)),
                decimals: budget.decimals,
                unit: budget.unit,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::fixture::outcome;

    fn verdict<'v>(verdicts: &'v [Verdict], what: &str) -> &'v Verdict {
        let mut found = verdicts
            .iter()
            .filter(|verdict| verdict.what.starts_with(what));
        let verdict = found.next().expect("a budget");
        assert!(found.next().is_none(), "{what} is more than one budget");
        verdict
    }

    #[test]
    fn figures_are_put_beside_their_budgets() {
        let verdicts = judge(&[outcome("refused-json"), outcome("refused-bpftrace-print")]);
        let rate = verdict(&verdicts, "1 thread, every event printed: rate");
        assert_eq!(rate.budget, "at least 0.950");
        assert_eq!((rate.measured, rate.rival), (Some(0.5), Some(0.5)));
        assert_eq!(rate.met, Some(false));
        let cpu = verdict(&verdicts, "user-space CPU");
        assert_eq!((cpu.measured, cpu.met), (Some(0.5), Some(true)));
        let lost = verdict(&verdicts, "1 thread, every event printed: detail");
        assert_eq!((lost.measured, lost.met), (Some(0.5), Some(false)));
        let sent = verdict(&verdicts, "BPF time of a sent");
        assert_eq!((sent.measured, sent.met), (Some(450.0), Some(false)));
        let received = verdict(&verdicts, "BPF time of a received");
        assert_eq!((received.measured, received.met), (Some(300.0), Some(true)));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_not() {
        let verdicts = judge(&[outcome("raw-syn-json")]);
        assert_eq!(verdicts.len(), BUDGETS.len());
        assert!(verdicts.iter().all(|verdict| verdict.met.is_none()));
    }
}
