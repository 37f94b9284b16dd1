//! What is run in each kernel when no command is named: the doctor, the selftest and, when they are asked
//! for, the tests that need nothing but the binary.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    command,
    static_binary::{self, StaticBinary},
};

/// With what the script marks the begin and the end of a step.
const MARK: &str = "rstwatch-vm: ";

/// A step of the suite.
struct Step {
    name: &'static str,
    /// For the guest's shell.
    command: &'static str,
    /// Whether it is one of the tests, which take many minutes where QEMU interprets.
    test: bool,
}

/// The tests, each a program of its own below the package's `tests`.
const TESTS: [&str; 3] = ["integration", "ownership", "leftovers"];

const STEPS: [Step; 6] = [
    Step {
        name: "doctor",
        command: "rstwatch doctor -j",
        test: false,
    },
    Step {
        name: "filters",
        // As many as the kernel side takes: the verifier has the most to go through then.
        command: "filters='-4 -L 1,2,3,4,5,6,7,8 -D 1,2,3,4,5,6,7,8 \
                  --addr 10.0.0.0/8 --addr fd00::/8 --addr 192.168.0.0/16 --addr 127.0.0.0/8'; \
                  rstwatch --duration 1s $filters && \
                  rstwatch --duration 1s --raw-tracepoints $filters",
        test: false,
    },
    Step {
        name: "selftest",
        // The machine is nobody's: its limits may be touched. From 7.0 on a process may be preempted in the
        // middle of a hook, and the kernel skips that hook for whoever runs meanwhile. Where QEMU
        // interprets, hooks take long, and this is taken for the reason why a connection's last state
        // was once not known there.
        command: "play() { rstwatch selftest -j --host-limits > /tmp/selftest; }; \
                  play; status=$?; \
                  case $status-$(uname -r) in \
                  1-[789].*) cat /tmp/selftest >&2; play; status=$? ;; \
                  esac; \
                  cat /tmp/selftest; (exit $status)",
        test: false,
    },
    Step {
        name: "integration",
        // The selftest has just played every scenario, under one tracer rather than one each, which
        // takes a tenth of the time; and what an old kernel lacks is judged there. Screens are looked
        // at through tmux, and depend on no kernel.
        command: "/tests/integration --skip ::ipv4 --skip ::ipv6 --skip selftest::every_cause \
                  --skip top::",
        test: true,
    },
    Step {
        name: "ownership",
        // Without those that measure time and memory, which a guest has in another measure, and a
        // few times each.
        command: "RSTWATCH_REPETITIONS=4 /tests/ownership --skip crowd:: --nocapture",
        test: true,
    },
    Step {
        name: "leftovers",
        command: "/tests/leftovers",
        test: true,
    },
];

/// Names of the steps, in order, with the tests or without.
pub(super) fn steps(tests: bool) -> impl Iterator<Item = &'static str> {
    chosen(tests).map(|step| step.name)
}

fn chosen(tests: bool) -> impl Iterator<Item = &'static Step> {
    STEPS.iter().filter(move |step| tests || !step.test)
}

/// Programs of the host that the tests use.
const TOOLS: [&str; 3] = ["setpriv", "ss", "unshare"];

/// The test programs and what they use, for the guest.
pub(super) fn files(binary: &StaticBinary) -> Result<Vec<(String, PathBuf)>> {
    let mut files = BTreeMap::new();
    for name in TESTS {
        let program = static_binary::test_program(&binary.linking, &binary.object, name)?;
        files.insert(format!("tests/{name}"), program);
    }
    for name in TOOLS {
        let program = command::find(name).with_context(|| {
            format!("there is no {name}: `cargo xtask setup` installs what the tests use")
        })?;
        let libraries = command::output(Command::new("ldd").arg(&program))?;
        for library in libraries_in(&libraries) {
            files.insert(library.trim_start_matches('/').to_owned(), library.into());
        }
        files.insert(format!("bin/{name}"), program);
    }
    Ok(files.into_iter().collect())
}

/// The files in what `ldd` prints: libraries behind an arrow, and the loader without one.
fn libraries_in(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| {
        let path = line.rsplit("=>").next()?.trim();
        path.split(' ').next().filter(|path| path.starts_with('/'))
    })
}

/// The script that runs the steps, one after the other, whatever becomes of each.
pub(super) fn script(tests: bool) -> String {
    let mut text = String::from("#!/bin/sh\nexport RSTWATCH_BIN=/bin/rstwatch\n");
    for Step { name, command, .. } in chosen(tests) {
        let _ = writeln!(
            text,
            "echo '{MARK}begin {name}'\n{command}\necho \"{MARK}end $?\""
        );
    }
    text
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) name: String,
    /// Its exit status; `None` when it did not come to its end.
    pub(super) status: Option<i32>,
    /// Its standard output.
    pub(super) lines: Vec<String>,
}

impl Done {
    /// Whether it ended well.
    pub(super) fn is_well(&self) -> bool {
        self.status == Some(0)
    }

    /// The objects among its lines.
    pub(super) fn objects(&self) -> impl Iterator<Item = Value> {
        self.lines
            .iter()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
    }

    /// The result in a few words: of a test program, how many passed and failed.
    pub(super) fn summary(&self) -> String {
        let result = self
            .lines
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("test result: "));
        match (self.status, result) {
            (None, _) => "DID NOT END".to_owned(),
            (_, Some(result)) => {
                let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
                let counts = counts.split("; ").take(2).collect::<Vec<_>>();
                counts.join(", ")
            }
            (Some(0), None) => "well".to_owned(),
            (Some(status), None) => format!("EXIT STATUS {status}"),
        }
    }
}

/// Takes the output of the script apart.
pub(super) fn parse(stdout: &str) -> Vec<Done> {
    let mut all: Vec<Done> = Vec::new();
    for line in stdout.lines() {
        let mark = line.strip_prefix(MARK);
        if let Some(name) = mark.and_then(|mark| mark.strip_prefix("begin ")) {
            all.push(Done {
                name: name.to_owned(),
                ..Done::default()
            });
        } else if let Some(done) = all.last_mut() {
            match mark.and_then(|mark| mark.strip_prefix("end ")) {
                Some(status) => done.status = status.parse().ok(),
                None => done.lines.push(line.to_owned()),
            }
        }
    }
    all
}

/// A line for whoever watches: which step begins or ends; `None` for any other.
pub(super) fn progress(line: &str) -> Option<&str> {
    line.strip_prefix(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_apart() {
        let stdout = "rstwatch-vm: begin doctor\n{\"doctor\":{}}\nrstwatch-vm: end 0\n\
                      rstwatch-vm: begin integration\nrunning 2 tests\n\n\
                      test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n\
                      rstwatch-vm: end 101\nrstwatch-vm: begin leftovers\n";
        let done = parse(stdout);
        let all: Vec<_> = done
            .iter()
            .map(|done| (&*done.name, done.is_well(), done.summary()))
            .collect();
        assert_eq!(
            all,
            [
                ("doctor", true, "well".to_owned()),
                ("integration", false, "1 passed, 1 failed".to_owned()),
                ("leftovers", false, "DID NOT END".to_owned()),
            ]
        );
        assert_eq!(done[0].objects().count(), 1);
    }

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibcap-ng.so.0 => /lib/libcap-ng.so.0 (0x7f2)\n\
                   \tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2c)\n";
        let all: Vec<_> = libraries_in(ldd).collect();
        assert_eq!(all, ["/lib/libcap-ng.so.0", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn the_script_marks_every_step() {
        for tests in [false, true] {
            let script = script(tests);
            for name in steps(tests) {
                assert!(script.contains(&format!("begin {name}'")), "{script}");
            }
            for name in TESTS {
                assert_eq!(steps(tests).any(|step| step == name), tests, "{name}");
            }
        }
    }
}
