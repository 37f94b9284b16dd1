//! bpftrace, to compare with: the newest that Debian has, since that of an older suite is several
//! times slower and would be no rival. It is unpacked into `target/bench` with all its libraries, and
//! run by its own loader, so that neither this system's C library nor its packages matter.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::outcome::Seen;
use crate::{
    archive::{Archive, field},
    command,
};

/// How to go on without it.
const ADVICE: &str = "mend what it says, or leave the rival out with --no-rival";

/// Where the parts are below the directory in which the packages are unpacked.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const PROGRAM: &str = "usr/bin/bpftrace";

/// What bpftrace prints once all is attached, when it is asked to by a variable of the same name.
pub(super) const READY: &str = "__BPFTRACE_NOTIFY_PROBES_ATTACHED";

/// What bpftrace prints at its end before the number of events that its ring buffer had no room for.
const LOST: &str = "Total lost event count: ";

/// What bpftrace is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Print a line for each reset.
    Print,
    /// Count resets by key.
    Count,
}

impl Script {
    const fn text(self) -> &'static str {
        match self {
            Self::Print => include_str!("print.bt"),
            Self::Count => include_str!("count.bt"),
        }
    }
}

/// A bpftrace that can be run.
pub(super) struct Bpftrace {
    directory: PathBuf,
    /// What it says of itself: `bpftrace v0.27.1`.
    pub(super) version: String,
}

impl Bpftrace {
    /// Finds it in `directory`, or fetches it.
    pub(super) fn find_or_fetch(directory: &Path, refresh: bool) -> Result<Self> {
        Self::find(directory, refresh)
            .with_context(|| format!("cannot have bpftrace to compare with: {ADVICE}"))
    }

    fn find(directory: &Path, refresh: bool) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "Debian's packages are fetched for x86-64 only"
        );
        let archive = Archive::open(refresh)?;
        let stanza = archive.show("bpftrace")?;
        let version =
            field(&stanza, "Version").context("none of Debian's suites has a package bpftrace")?;
        let directory = directory.join(format!("bpftrace-{version}"));
        if !directory.exists() {
            archive.unpack(&archive.with_dependencies("bpftrace")?, &directory)?;
        }
        let mut bpftrace = Self {
            directory,
            version: String::new(),
        };
        let mut ask = Command::new(bpftrace.directory.join(LOADER));
        ask.args(bpftrace.loaded()).arg("--version");
        command::output(&mut ask)?
            .trim()
            .clone_into(&mut bpftrace.version);
        Ok(bpftrace)
    }

    /// The loader's arguments up to the program.
    fn loaded(&self) -> [PathBuf; 3] {
        [
            PathBuf::from("--library-path"),
            self.directory.join(LIBRARIES),
            self.directory.join(PROGRAM),
        ]
    }

    /// Runs a script, under this very process number.
    pub(super) fn command(&self, script: Script) -> Command {
        // Reading the tracepoints' formats takes a file system that may not be mounted; it is so for
        // this process alone.
        let prepare = "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs \
                       /sys/kernel/tracing && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", prepare, "sh"])
            .arg(self.directory.join(LOADER))
            .args(self.loaded())
            .args(["-e", script.text()])
            .env(READY, "1");
        command
    }
}

/// What bpftrace saw, from what it printed.
pub(super) fn seen_in(output: impl BufRead) -> Result<Seen> {
    let mut seen = Seen::default();
    for line in output.split(b'\n') {
        let line = line.context("cannot read what bpftrace printed")?;
        let line = String::from_utf8_lossy(&line);
        // "@sent[0, SK_RST_REASON_NO_SOCKET, 9]: 17888", or "14493287124144 sent 127.0.0.1:9 ...".
        if let Some(count) = line.strip_prefix("@sent") {
            seen.sent += counted(count);
        } else if let Some(count) = line.strip_prefix("@received") {
            seen.received += counted(count);
        } else if let Some(lost) = line.split_once(LOST) {
            seen.lost += lost.1.trim().parse::<u64>().unwrap_or(0);
        } else {
            match line.split(' ').nth(1) {
                Some("sent") => seen.sent += 1,
                Some("received") => seen.received += 1,
                _ => {}
            }
        }
    }
    Ok(seen)
}

/// What bpftrace saw, from the files that it wrote.
pub(super) fn seen_in_files(files: &[&Path]) -> Result<Seen> {
    let mut seen = Seen::default();
    for path in files {
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let more = seen_in(BufReader::new(file))?;
        seen.sent += more.sent;
        seen.received += more.received;
        seen.lost += more.lost;
    }
    Ok(seen)
}

/// The number behind a map's key.
fn counted(entry: &str) -> u64 {
    entry
        .rsplit_once("]: ")
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(output: &str) -> (u64, u64, u64) {
        let seen = seen_in(output.as_bytes()).expect("a buffer can be read");
        (seen.sent, seen.received, seen.lost)
    }

    #[test]
    fn printed_events_are_counted() {
        let printed = "__BPFTRACE_NOTIFY_PROBES_ATTACHED\n\
                       14 sent 127.0.0.1:9 127.0.0.1:40542 0 xtask 32726\n\
                       15 received 127.0.0.1:40542 127.0.0.1:9 - xtask 32726\n\
                       16 sent 127.0.0.1:9 127.0.0.1:40543 0 xtask 32726\n\n\n\
                       WARNING: Total lost event count: 12\n";
        assert_eq!(seen(printed), (2, 1, 12));
    }

    #[test]
    fn counts_are_added_up() {
        let printed = "@received[9]: 7\n@sent[0, SK_RST_REASON_NO_SOCKET, 9]: 5\n\
                       @sent[1, SK_RST_REASON_NOT_SPECIFIED, 80]: 2\n";
        assert_eq!(seen(printed), (7, 7, 0));
        assert_eq!(seen(""), (0, 0, 0));
    }
}
