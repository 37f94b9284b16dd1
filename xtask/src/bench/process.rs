//! What a process has used, as the kernel tells it in `/proc`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process that is observed.
pub(super) struct Process {
    directory: PathBuf,
}

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// CPU time of its own code, in seconds.
    pub(super) user_s: f64,
    /// CPU time of the kernel on its behalf, in seconds.
    pub(super) system_s: f64,
    /// Peak resident memory, in MiB.
    pub(super) peak_mib: f64,
}

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            directory: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: has the tracer ended early?",
                path.display()
            )
        })
    }

    /// What it has used up to now.
    pub(super) fn used(&self) -> Result<Used> {
        let stat = self.read("stat")?;
        let status = self.read("status")?;
        let ticks = sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| i32::try_from(ticks).ok())
            .context("the system does not tell its clock ticks")?;
        parse(&stat, &status, f64::from(ticks)).context("cannot make out what the tracer used")
    }

    /// CPU time of its threads that are there now, in nanoseconds: finer than ticks.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        let tasks = self.directory.join("task");
        let entries = fs::read_dir(&tasks)
            .with_context(|| format!("cannot read {}: has the tracer ended?", tasks.display()))?;
        let mut sum = 0;
        for entry in entries {
            // A thread may end meanwhile.
            let schedstat = fs::read_to_string(entry?.path().join("schedstat")).unwrap_or_default();
            sum += schedstat
                .split(' ')
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(sum)
    }

    /// What each open file is, as `fdinfo` tells it.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let path = self.directory.join("fdinfo");
        let entries =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut files = Vec::new();
        for entry in entries {
            // It may be closed meanwhile.
            files.push(fs::read_to_string(entry?.path()).unwrap_or_default());
        }
        Ok(files)
    }
}

/// From `/proc/PID/stat` and `/proc/PID/status`, with so many ticks a second.
fn parse(stat: &str, status: &str, ticks: f64) -> Option<Used> {
    // Behind the name, which may hold anything: state is field 3, utime 14 and stime 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kib: f64 = peak.split_whitespace().next()?.parse().ok()?;
    Some(Used {
        user_s: user / ticks,
        system_s: system / ticks,
        peak_mib: peak_kib / 1024.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_used_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 0 0 20 0 2 0 5 1 1";
        let status = "Name:\ta\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n";
        let used = Used {
            user_s: 0.12,
            system_s: 0.03,
            peak_mib: 2.0,
        };
        assert_eq!(parse(stat, status, 100.0), Some(used));
        assert_eq!(parse("", status, 100.0), None);
        assert_eq!(parse(stat, "", 100.0), None);
    }

    #[test]
    fn this_process_is_observed() {
        let own = Process::new(std::process::id());
        let used = own.used().expect("a process");
        assert!(used.peak_mib > 0.0, "{used:?}");
        assert!(own.cpu_ns().expect("a process") > 0);
        assert!(!own.files().expect("a process").is_empty());
    }
}
