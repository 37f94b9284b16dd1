//! What tracing costs: the same load without and with a tracer, in pairs in one run, since machines
//! differ and are noisy. Prints medians and spread, beside the budgets, and writes them as JSON.
//!
//! - [`cases`]: what is measured.
//! - [`loaded`], [`tracer`], [`rival`]: the load, rstwatch and bpftrace as processes.
//! - [`process`], [`programs`], [`summary`]: what they used and saw.
//! - [`outcome`], [`statistics`]: the figures; [`budgets`], [`report`]: what they come to.

mod budgets;
mod cases;
mod loaded;
mod outcome;
mod process;
mod programs;
mod report;
mod rival;
mod statistics;
mod summary;
mod tracer;

use std::{
    env, fs,
    io::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    cases::Case,
    loaded::Loaded,
    outcome::{BpfTime, Outcome, Pair, Traced},
    programs::{Counting, attached_in, times_in},
    report::Conditions,
    rival::Bpftrace,
    tracer::{Tracer, Tracers},
};
use crate::{
    build, command,
    load::{Done, Load},
    packages, project,
};

/// What each run takes besides the load, about: making room for its output, starting a tracer, and
/// letting it catch up.
const BESIDES_S: f64 = 2.3;

/// How long all is quiet before each load, with a tracer and without: processors that have rested are
/// slower at first, by several parts in a hundred, and they are to have rested in both runs of a pair.
const QUIET: Duration = Duration::from_millis(500);

/// For how long a load works at a time that works by turns with hooks and without.
const TURN: Duration = Duration::from_millis(100);

/// The same where the tracer's reader has something to do: it lags behind by a few milliseconds, which go to
/// the next turn.
const TURN_WITH_READER: Duration = Duration::from_millis(300);

/// What is to be measured, and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measure this case only; a name that ends in * stands for all that begin so; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measure each case in so many pairs of runs, instead of 7, or 21 for the smallest difference
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Put the load on the kernel for so long in each run
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Leave bpftrace out
    #[arg(long)]
    no_rival: bool,
    /// Ask Debian's mirror for a newer bpftrace than it had the last time
    #[arg(long, conflicts_with = "no_rival")]
    refresh: bool,
}

fn seconds(value: &str) -> Result<f64> {
    let seconds: f64 = value.parse().context("no number")?;
    ensure!(
        (0.1..=3600.0).contains(&seconds),
        "a run takes from 0.1 to 3600 s"
    );
    Ok(seconds)
}

/// Measures what is asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut cases = cases::chosen(&arguments.only, !arguments.no_rival)?;
    if let Some(pairs) = arguments.pairs {
        for case in &mut cases {
            case.pairs = pairs.into();
        }
    }
    let built = build::all()?;
    ensure!(
        command::is_root()?,
        "the benchmark traces and makes network namespaces: run it as root, `sudo -E cargo xtask bench`"
    );
    programs::ensure_off()?;
    packages::for_loads()?;
    let directory = project::target().join("bench");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let needs_rival = cases
        .iter()
        .any(|case| case.tracing.rstwatch_args().is_none());
    let bpftrace = needs_rival
        .then(|| Bpftrace::find_or_fetch(&directory, arguments.refresh))
        .transpose()?;
    let bench = Bench {
        tracers: Tracers {
            rstwatch: built.binary,
            bpftrace,
            directory,
        },
        own: env::current_exe().context("cannot find this program")?,
        seconds: arguments.seconds,
    };
    eprintln!(
        "bench: {} cases, about {} min",
        cases.len(),
        minutes(&cases, arguments.seconds)
    );
    let load_before = report::load_average()?;
    let begin = Instant::now();
    let mut outcomes = Vec::new();
    let all = bench.measure_all(&cases, &mut outcomes);
    let rival = bench.tracers.bpftrace.map(|bpftrace| bpftrace.version);
    let conditions = Conditions {
        kernel: report::kernel()?,
        cpus: thread::available_parallelism()
            .context("cannot tell the number of processors")?
            .get(),
        load_before,
        load_after: report::load_average()?,
        rival,
        seconds: arguments.seconds,
        took_s: begin.elapsed().as_secs(),
    };
    // What was measured before a failure took long enough to be worth showing.
    if !outcomes.is_empty() {
        tell(&conditions, &outcomes)?;
    }
    all
}

/// Prints the tables, and writes the figures as JSON.
fn tell(conditions: &Conditions, outcomes: &[Outcome]) -> Result<()> {
    let verdicts = budgets::judge(outcomes);
    let mut out = std::io::stdout().lock();
    let text = report::text(conditions, outcomes, &verdicts);
    writeln!(out, "{}", text.trim_end())?;
    let path = project::target().join("bench.json");
    let json = report::json(conditions, outcomes, &verdicts);
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&json)?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "\nall figures are in {}", project::shown(&path))?;
    Ok(())
}

/// How long all of it takes, about, in minutes.
fn minutes(cases: &[Case], seconds: f64) -> u64 {
    let runs: f64 = cases
        .iter()
        .map(|case| {
            let traced = case.pairs as u32 + 1;
            // By turns the load works a third time, before them.
            let runs = if case.is_by_turns() && case.load.resets_each() > 0 {
                3.0
            } else {
                2.0
            };
            f64::from(traced) * runs * (seconds + BESIDES_S)
        })
        .sum();
    Duration::from_secs_f64(runs).as_secs().div_ceil(60)
}

struct Bench {
    tracers: Tracers,
    own: PathBuf,
    seconds: f64,
}

impl Bench {
    /// Measures the cases one after the other, up to the first that cannot be measured.
    fn measure_all(&self, cases: &[Case], outcomes: &mut Vec<Outcome>) -> Result<()> {
        for (number, case) in cases.iter().enumerate() {
            let name = case.name();
            eprintln!(
                "bench: {}/{} {name}: {} pairs of {} s",
                number + 1,
                cases.len(),
                case.pairs,
                self.seconds
            );
            let outcome = self.measure(*case);
            outcomes.push(outcome.with_context(|| format!("cannot measure {name}"))?);
        }
        Ok(())
    }

    fn measure(&self, case: Case) -> Result<Outcome> {
        let mut pairs = Vec::new();
        for pair in 0..case.pairs {
            let mut loaded = self.load(case.load)?;
            // Each goes first as often, so that what drifts meets both alike.
            let pair = if case.is_by_turns() {
                self.by_turns(case, &mut loaded)?
            } else if pair % 2 == 0 {
                let without = self.untraced(&mut loaded)?;
                Pair::new(without, self.traced(case, &mut loaded)?)
            } else {
                let traced = self.traced(case, &mut loaded)?;
                Pair::new(self.untraced(&mut loaded)?, traced)
            };
            loaded.end()?;
            pairs.push(pair);
        }
        let bpf = self.bpf_time(case)?;
        Ok(Outcome { case, pairs, bpf })
    }

    fn load(&self, load: Load) -> Result<Loaded> {
        Loaded::start(&self.own, load)
    }

    /// Lets it work for so many seconds.
    fn work(loaded: &mut Loaded, seconds: f64) -> Result<Done> {
        thread::sleep(QUIET);
        loaded.work(seconds)
    }

    /// As with a tracer, but for the tracer: the memory for its output is taken too.
    fn untraced(&self, loaded: &mut Loaded) -> Result<Done> {
        let _files = self.tracers.files()?;
        Self::work(loaded, self.seconds)
    }

    fn traced(&self, case: Case, loaded: &mut Loaded) -> Result<Traced> {
        let tracer = self.tracers.start(case.tracing, self.tracers.files()?)?;
        let done = Self::work(loaded, self.seconds)?;
        Self::end(tracer, case, done)
    }

    /// Ends a tracer that has seen the load do so much.
    fn end(tracer: Tracer, case: Case, done: Done) -> Result<Traced> {
        let ready = tracer.ready;
        let used = tracer.caught_up()?;
        let seen = tracer.end(case.load, &done)?;
        Ok(Traced {
            done,
            seen,
            ready_ms: ready.as_secs_f64() * 1e3,
            user_s: used.user_s,
            system_s: used.system_s,
            peak_mib: used.peak_mib,
        })
    }

    /// The load works while the tracer sees all of it, and then by turns without its hooks and with them, which
    /// it attaches and detaches itself; the reader is at work all the time.
    fn by_turns(&self, case: Case, loaded: &mut Loaded) -> Result<Pair> {
        let tracer = self.tracers.start(case.tracing, self.tracers.files()?)?;
        // Without resets it has nothing to count.
        let seconds = match case.load.resets_each() {
            0 => TURN.as_secs_f64(),
            _ => self.seconds,
        };
        let first = Self::work(loaded, seconds)?;
        tracer.caught_up()?;
        loaded.hold(attached_in(&tracer.files()?))?;
        tracer.let_go()?;
        thread::sleep(QUIET);
        let turn = if case.is_hooks_alone() {
            TURN
        } else {
            TURN_WITH_READER
        };
        let turns = Duration::from_secs_f64(self.seconds).as_millis() / turn.as_millis();
        let [without, with] = loaded.take_turns(turns.max(1) as u32, turn.as_secs_f64())?;
        Ok(Pair {
            without,
            with,
            traced: Self::end(tracer, case, first.and(with))?,
        })
    }

    /// What the tracer's BPF programs take, in a run of its own: that the kernel counts costs time.
    fn bpf_time(&self, case: Case) -> Result<BpfTime> {
        let mut loaded = self.load(case.load)?;
        let tracer = self.tracers.start(case.tracing, self.tracers.files()?)?;
        let counting = Counting::begin()?;
        let done = Self::work(&mut loaded, self.seconds)?;
        let hooks = times_in(&tracer.files()?);
        drop(counting);
        tracer.caught_up()?;
        tracer.end(case.load, &done)?;
        loaded.end()?;
        Ok(BpfTime { done, hooks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_beforehand() {
        let all = cases::chosen(&[], true).expect("cases");
        assert!((20..45).contains(&minutes(&all, 2.0)));
        assert_eq!(minutes(&all[1..2], 0.1), 1);
    }

    #[test]
    fn a_run_has_a_sensible_length() {
        assert!(seconds("0.5").is_ok());
        for wrong in ["0", "-1", "NaN", "two", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
