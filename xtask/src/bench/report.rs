//! The figures as tables for people, and as JSON.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    budgets::{Verdict, lost_share},
    outcome::Outcome,
    statistics::Spread,
};
use crate::markdown;

/// Under what conditions it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    /// The kernel's release.
    pub(super) kernel: String,
    /// Processors.
    pub(super) cpus: usize,
    /// `load_average` before and after the runs: before, it is others' work alone.
    pub(super) load_before: String,
    pub(super) load_after: String,
    /// The version of bpftrace, where it took part.
    pub(super) rival: Option<String>,
    /// How long each run's load took.
    pub(super) seconds: f64,
    /// How long all of it took, in seconds.
    pub(super) took_s: u64,
}

/// How many processes ran or waited to, over 1, 5 and 15 minutes.
pub(super) fn load_average() -> Result<String> {
    let load = read("/proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// The kernel's release.
pub(super) fn kernel() -> Result<String> {
    read("/proc/sys/kernel/osrelease")
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

/// All tables.
pub(super) fn text(conditions: &Conditions, outcomes: &[Outcome], verdicts: &[Verdict]) -> String {
    let mut out = format!(
        "Linux {}, {} processors, load average {} before and {} after; {}; {} s a run, {} s in \
         all.\n\n",
        conditions.kernel,
        conditions.cpus,
        conditions.load_before,
        conditions.load_after,
        conditions.rival.as_deref().unwrap_or("no rival"),
        conditions.seconds,
        conditions.took_s,
    );
    out.push_str(
        "Rates: medians a second, and with / without of each pair (lowest to highest). What was \
         seen sent is beside TcpOutRsts of the load's network namespace.\n\n",
    );
    markdown::table(&mut out, &rates(outcomes));
    out.push_str("\nWhat the tracer used: medians; CPU for a million resets.\n\n");
    markdown::table(&mut out, &used(outcomes));
    out.push_str("\nTime in BPF programs, by the hook, in a run of their own.\n\n");
    markdown::table(&mut out, &bpf(outcomes));
    out.push_str("\nBudgets of rstwatch.\n\n");
    markdown::table(&mut out, &budgets(verdicts));
    out
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A figure, or `-` where there is none.
fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

fn rates(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "load",
        "tracer",
        "pairs",
        "without",
        "with",
        "ratio",
        "lost",
        "sent, seen",
    ])];
    for outcome in outcomes {
        let ratio = outcome.ratio().map_or_else(String::new, |ratio| {
            format!(
                "{:.3} ({:.3} to {:.3})",
                ratio.median, ratio.lowest, ratio.highest
            )
        });
        rows.push(vec![
            outcome.case.load.title().to_owned(),
            outcome.case.tracing.title().to_owned(),
            outcome.pairs.len().to_string(),
            cell(median(outcome.without()), 0),
            cell(median(outcome.with()), 0),
            ratio,
            lost_share(outcome).map_or_else(
                || outcome.lost().to_string(),
                |share| format!("{} ({share:.2} %)", outcome.lost()),
            ),
            outcome
                .sent_seen()
                .map_or_else(|| "-".to_owned(), |share| format!("{share:.2} %")),
        ]);
    }
    rows
}

fn used(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "load",
        "tracer",
        "user CPU, s",
        "system CPU, s",
        "peak RSS, MiB",
        "start to ready, ms",
    ])];
    for outcome in outcomes {
        rows.push(vec![
            outcome.case.load.title().to_owned(),
            outcome.case.tracing.title().to_owned(),
            cell(median(outcome.user_a_million()), 2),
            cell(median(outcome.system_a_million()), 2),
            cell(median(outcome.peak_mib()), 1),
            cell(median(outcome.ready_ms()), 0),
        ]);
    }
    rows
}

fn bpf(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "load",
        "tracer",
        "ns a run (runs), by hook",
        "all, ns a connection or segment",
    ])];
    for outcome in outcomes {
        let mut hooks = String::new();
        for time in &outcome.bpf.hooks {
            if !hooks.is_empty() {
                hooks.push_str(", ");
            }
            // Appending to a string does not fail.
            let _ = write!(
                hooks,
                "{} {:.0} ({})",
                time.hook,
                time.ns_a_run(),
                time.runs
            );
        }
        rows.push(vec![
            outcome.case.load.title().to_owned(),
            outcome.case.tracing.title().to_owned(),
            hooks,
            cell(outcome.bpf.a_connection(), 0),
        ]);
    }
    rows
}

fn budgets(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["what", "bpftrace", "rstwatch", "budget", "met"])];
    for verdict in verdicts {
        let cell = |value: Option<f64>| match value {
            Some(_) => cell(value, verdict.decimals) + verdict.unit,
            None => "-".to_owned(),
        };
        let met = match verdict.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        rows.push(vec![
            verdict.what.to_owned(),
            cell(verdict.rival),
            cell(verdict.measured),
            verdict.budget.clone(),
            met.to_owned(),
        ]);
    }
    rows
}

/// The same, and every single run.
pub(super) fn json(conditions: &Conditions, outcomes: &[Outcome], verdicts: &[Verdict]) -> Value {
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "case": outcome.case.name(),
                "load": outcome.case.load.title(),
                "tracer": outcome.case.tracing.title(),
                "without_per_s": outcome.without(),
                "with_per_s": outcome.with(),
                "ratio": outcome.ratio(),
                "lost": outcome.lost(),
                "resets": outcome.resets(),
                "sent_seen_percent": outcome.sent_seen(),
                "user_s_per_million": outcome.user_a_million(),
                "system_s_per_million": outcome.system_a_million(),
                "peak_mib": outcome.peak_mib(),
                "ready_ms": outcome.ready_ms(),
                "bpf": outcome.bpf,
                "pairs": outcome.pairs,
            })
        })
        .collect();
    json!({ "conditions": conditions, "cases": cases, "budgets": verdicts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{budgets::judge, outcome::fixture::outcome};

    fn all() -> (Conditions, Vec<Outcome>, Vec<Verdict>) {
        let outcomes = vec![outcome("refused-json"), outcome("refused-bpftrace-print")];
        let verdicts = judge(&outcomes);
        let conditions = Conditions {
            kernel: "6.18.0".to_owned(),
            cpus: 2,
            load_before: "0.10 0.20 0.30".to_owned(),
            load_after: "2.10 1.90 1.20".to_owned(),
            rival: Some("bpftrace v0.27.1".to_owned()),
            seconds: 2.0,
            took_s: 61,
        };
        (conditions, outcomes, verdicts)
    }

    #[test]
    fn the_tables_hold_every_figure() {
        let (conditions, outcomes, verdicts) = all();
        let text = text(&conditions, &outcomes, &verdicts);
        let first = text.lines().next().expect("a line");
        assert_eq!(
            first,
            "Linux 6.18.0, 2 processors, load average 0.10 0.20 0.30 before and 2.10 1.90 1.20 \
             after; bpftrace v0.27.1; 2 s a run, 61 s in all."
        );
        let squeezed: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for wanted in [
            "| connects to a closed port, 1 thread | rstwatch, JSON to a file | 1 | 1000 | 500 | \
             0.500 (0.500 to 0.500) | 10 (0.50 %) | 100.00 % |",
            "| connects to a closed port, 1 thread | rstwatch, JSON to a file | 0.50 | 1.00 | 50.5 | \
             120 |",
            "| connects to a closed port, 1 thread | rstwatch, JSON to a file | \
             tcp_receive_reset 300 (100), tcp_send_reset 450 (100) | 750 |",
            "| start to ready | 120 ms | 120 ms | at most 300 ms | met |",
            "| short connections: rate over untraced | - | - | at least 0.970 | not measured |",
        ] {
            assert!(
                squeezed.iter().any(|line| line == wanted),
                "{wanted}\n{text}"
            );
        }
    }

    #[test]
    fn json_holds_every_run() {
        let (conditions, outcomes, verdicts) = all();
        let json = json(&conditions, &outcomes, &verdicts);
        assert_eq!(json["conditions"]["rival"], "bpftrace v0.27.1");
        assert_eq!(json["cases"][0]["case"], "refused-json");
        assert_eq!(json["cases"][0]["ratio"]["median"], 0.5);
        assert_eq!(json["cases"][1]["pairs"][0]["traced"]["seen"]["lost"], 10);
        assert_eq!(
            json["cases"][0]["bpf"]["hooks"][1]["hook"],
            "tcp_send_reset"
        );
        assert_eq!(json["budgets"][0]["met"], false);
    }
}
