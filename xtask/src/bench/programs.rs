//! How long BPF programs take, while the kernel counts it (`kernel.bpf_stats_enabled`), by the hook
//! that each is attached to.
//!
//! A program's name would not do: the kernel keeps 15 characters of it, and bpftrace's are all alike
//! so far. The link says the hook, whoever attached it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// Where the switch is.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What the programs at one hook took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct HookTime {
    /// The tracepoint, or the program's number where the kernel does not tell.
    pub(super) hook: String,
    /// Of the program that has run most often: where there are several, each event runs all.
    pub(super) runs: u64,
    /// All runs of all programs together.
    pub(super) ns: u64,
}

impl HookTime {
    #[expect(clippy::cast_precision_loss, reason = "2^52 ns are 52 days")]
    pub(super) fn ns_a_run(&self) -> f64 {
        self.ns as f64 / self.runs as f64
    }
}

/// The kernel counts as long as this is there. It costs time, so it is not on while rates are
/// measured.
pub(super) struct Counting {
    before: String,
}

/// What the switch is at.
fn switch() -> Result<String> {
    fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))
}

/// Fails when the kernel counts already: then every rate would hold what counting costs.
pub(super) fn ensure_off() -> Result<()> {
    ensure!(
        switch()?.trim() == "0",
        "the kernel counts the time of BPF programs, which costs each of them some: turn it off with \
         `sysctl kernel.bpf_stats_enabled=0`, unless somebody needs it now, then start this again"
    );
    Ok(())
}

impl Counting {
    pub(super) fn begin() -> Result<Self> {
        let before = switch()?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!(
                "bench: cannot restore {SWITCH} to {}: {error}",
                self.before.trim()
            );
        }
    }
}

/// The numbers of the programs that are attached by links among the open files of a process.
pub(super) fn attached_in(files: &[String]) -> Vec<u32> {
    files
        .iter()
        .filter(|file| field(file, "tp_name").is_some())
        .filter_map(|file| u32::try_from(number(file, "prog_id")?).ok())
        .collect()
}

/// The times of the programs among the open files of a process, as `fdinfo` tells them; without
/// those that have not run.
pub(super) fn times_in(files: &[String]) -> Vec<HookTime> {
    let mut hooks = BTreeMap::new();
    let mut programs = BTreeMap::new();
    for file in files {
        let Some(program) = number(file, "prog_id") else {
            continue;
        };
        // A link names its program too.
        if let Some(hook) = field(file, "tp_name") {
            hooks.insert(program, hook);
        }
        if let (Some(ns), Some(runs)) = (number(file, "run_time_ns"), number(file, "run_cnt")) {
            // By number, since a program may be open twice.
            programs.insert(program, (runs, ns));
        }
    }
    let mut times: Vec<HookTime> = Vec::new();
    for (program, (runs, ns)) in programs {
        let hook = hooks
            .get(&program)
            .map_or_else(|| format!("program {program}"), |&hook| hook.to_owned());
        if let Some(time) = times.iter_mut().find(|time| time.hook == hook) {
            time.runs = time.runs.max(runs);
            time.ns += ns;
        } else if runs > 0 {
            times.push(HookTime { hook, runs, ns });
        }
    }
    times
}

fn field<'t>(file: &'t str, name: &str) -> Option<&'t str> {
    file.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn number(file: &str, name: &str) -> Option<u64> {
    field(file, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_time_is_told_by_its_hook() {
        let program = |id: u32, ns: u32, runs: u32| {
            format!("prog_type:\t26\nprog_id:\t{id}\nrun_time_ns:\t{ns}\nrun_cnt:\t{runs}\n")
        };
        let files = [
            "pos:\t0\nflags:\t02\n".to_owned(),
            program(42, 300, 3),
            program(42, 300, 3),
            program(43, 0, 0),
            program(44, 10, 1),
            program(45, 30, 2),
            "link_type:\tperf\nprog_id:\t42\ntp_name:\ttcp_send_reset\n".to_owned(),
            "link_type:\tperf\nprog_id:\t45\ntp_name:\ttcp_send_reset\n".to_owned(),
        ];
        let times = times_in(&files);
        let times: Vec<_> = times
            .iter()
            .map(|time| (&*time.hook, time.runs, time.ns_a_run()))
            .collect();
        assert_eq!(
            times,
            [("tcp_send_reset", 3, 110.0), ("program 44", 1, 10.0)]
        );
    }
}
