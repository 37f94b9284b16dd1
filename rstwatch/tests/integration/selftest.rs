//! `rstwatch selftest` and `rstwatch demo`: what they say here, and that nothing is left of them,
//! however they end.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstwatch::cause::catalogue;
use serde_json::Value;

use crate::tracer::{binary, calm, storm};

/// For how long something may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// What this kernel, or any, cannot make without being asked to touch the host.
const NOT_MADE: [&str; 4] = ["orphan-limit", "firewall-reject", "forged-reset", "unknown"];

fn selftest(args: &[&str]) -> Output {
    Command::new(binary())
        .arg("selftest")
        .args(args)
        .output()
        .expect("cannot start the binary")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The rows, and the verdict.
fn objects(output: &Output) -> (Vec<Value>, Value) {
    let text = stdout(output);
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
    let mut rows: Vec<Value> = text.lines().map(parse).collect();
    let last = rows.pop().expect("no verdict");
    (rows, last["verdict"].clone())
}

#[test]
fn every_cause_is_right_or_cannot_be_made() {
    let _alone = storm();
    let output = selftest(&["-j"]);
    let (rows, verdict) = objects(&output);
    let causes: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["cause"].as_str())
        .collect();
    let all: Vec<&str> = catalogue::ENTRIES.iter().map(|entry| entry.name).collect();
    assert_eq!(causes, all);
    for row in &rows {
        let cause = row["cause"].as_str().expect("a cause");
        let notes = row["notes"].as_array().expect("notes");
        if NOT_MADE.contains(&cause) {
            assert_eq!(row["verdict"], "cannot", "{row}");
            assert_eq!(notes.len(), 1, "{row}");
        } else {
            assert_eq!(row["verdict"], "right", "{row}");
            assert_eq!(row["seen"], row["expected"], "{row}");
            assert_ne!(row["expected"], 0, "{row}");
            assert_eq!(row["owner"]["wrong"], 0, "{row}");
        }
        assert!(row["kernel"].is_string(), "{row}");
    }
    assert!(output.status.success(), "{verdict}");
    assert_eq!(verdict["right"], true, "{verdict}");
    assert_eq!(verdict["causes"]["cannot"], NOT_MADE.len(), "{verdict}");
    // Nothing else happens in these namespaces.
    assert_eq!(
        verdict["out_rsts"]["low"], verdict["sent_seen"],
        "{verdict}"
    );
    assert_eq!(
        verdict["out_rsts"]["high"], verdict["sent_seen"],
        "{verdict}"
    );
    assert_eq!(verdict["lost_detail"], 0, "{verdict}");
}

#[test]
fn a_limit_of_the_host_is_touched_only_when_asked_for_and_put_back() {
    const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_orphans";
    let _alone = storm();
    let before = fs::read_to_string(LIMIT).expect("no limit");
    let output = selftest(&["-j", "--only", "orphan-limit", "--host-limits"]);
    let (rows, verdict) = objects(&output);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["verdict"], "right", "{}", rows[0]);
    assert_eq!(verdict["right"], true, "{verdict}");
    assert_eq!(fs::read_to_string(LIMIT).expect("no limit"), before);
}

#[test]
fn the_causes_asked_for_are_made_and_no_others() {
    let _calm = calm();
    let output = selftest(&["--only", "linger-abort,forged-reset"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let row_of = |cause: &str| {
        rows.iter()
            .find(|row| row.first() == Some(&cause))
            .unwrap_or_else(|| panic!("no {cause}: {text}"))
    };
    assert_eq!(row_of("linger-abort")[4..6], ["certain", "right"], "{text}");
    assert_eq!(row_of("linger-abort").last(), Some(&"right"), "{text}");
    assert_eq!(
        row_of("forged-reset")[5..],
        ["cannot", "be", "made"],
        "{text}"
    );
    assert!(!text.contains("peer-aborted"), "{text}");
    assert!(text.contains("\n2 causes: 1 right, 0 right but less sure, 1 cannot be made, 0 wrong"));
}

#[test]
fn a_role_that_dies_makes_its_row_wrong() {
    let _calm = calm();
    let run = Run::start(&["selftest", "-j", "--only", "idle-drop"]);
    let roles = run.await_roles();
    for (pid, _) in roles.iter().filter(|(_, role)| role.comm == "client") {
        let pid = Pid::from_raw((*pid).try_into().expect("a PID"));
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
    }
    let output = run.finish();
    let (rows, verdict) = objects(&output);
    assert_eq!(output.status.code(), Some(1), "{verdict}");
    assert_eq!(rows[0]["verdict"], "wrong", "{}", rows[0]);
    assert_eq!(verdict["right"], false, "{verdict}");
    assert_gone(&roles);
}

#[test]
fn nothing_is_left_after_a_signal() {
    let _calm = calm();
    for command in ["selftest", "demo"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let run = Run::start(&[command]);
            let roles = run.await_roles();
            let pid = Pid::from_raw(run.child.id().try_into().expect("a PID"));
            kill(pid, signal).expect("cannot send a signal");
            let output = run.finish();
            assert!(!output.status.success(), "{command}, {signal}");
            assert_gone(&roles);
        }
    }
}

#[test]
fn the_demo_shows_rows_and_sentences() {
    let _calm = calm();
    let output = Command::new(binary())
        .arg("demo")
        .output()
        .expect("cannot start the binary");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("TIME "), "{text}");
    // Multipath TCP came with 5.6, but not every kernel is built with it.
    let lacking = usize::from(!Path::new("/proc/sys/net/mptcp").exists());
    assert_eq!(text.matches("cannot be made").count(), lacking, "{text}");
    for part in [
        "\n# the accepting side is killed with unread data\n",
        " process-died\n    server[",
        "was killed by SIGKILL",
        "tried to connect to port 9, where nobody listens\n",
        " idle-drop",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_demo_that_nobody_reads_ends_quietly() {
    let _calm = calm();
    let mut child = Command::new(binary())
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot start the binary");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("cannot wait");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
}

/// The binary, with processes in roles.
struct Run {
    child: Child,
}

/// A process that plays a role.
#[derive(Debug)]
struct Role {
    comm: String,
    netns: u64,
}

impl Run {
    /// A shell has what it starts in the background ignore SIGINT, and so would the binary if these tests did.
    fn start(args: &[&str]) -> Self {
        let child = Command::new("env")
            .arg("--default-signal=INT")
            .arg(binary())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start the binary");
        Self { child }
    }

    /// Its children in network namespaces of their own, by PID.
    fn roles(&self) -> BTreeMap<u32, Role> {
        let own = netns_of(&self.child.id().to_string());
        processes()
            .filter(|pid| parent_of(pid) == Some(self.child.id()))
            .filter_map(|pid| {
                let netns = netns_of(&pid).filter(|netns| Some(*netns) != own)?;
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                let comm = comm.trim_end().to_owned();
                Some((pid.parse().ok()?, Role { comm, netns }))
            })
            .collect()
    }

    /// Waits until one has taken its name, and gives those that there are.
    fn await_roles(&self) -> BTreeMap<u32, Role> {
        let mut roles = BTreeMap::new();
        let named = poll(|| {
            roles = self.roles();
            roles.values().any(|role| role.comm == "client")
        });
        assert!(named, "no role was started");
        roles
    }

    /// Waits until it has ended.
    fn finish(mut self) -> Output {
        let mut stdout = Vec::new();
        let mut pipe = self.child.stdout.take().expect("a pipe");
        pipe.read_to_end(&mut stdout).expect("cannot read");
        Output {
            status: self.child.wait().expect("cannot wait"),
            stdout,
            stderr: Vec::new(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No process and no namespace of theirs is left.
fn assert_gone(roles: &BTreeMap<u32, Role>) {
    let gone = poll(|| {
        processes().all(|pid| {
            let netns = netns_of(&pid);
            roles.values().all(|role| netns != Some(role.netns))
        })
    });
    assert!(gone, "left behind: {roles:?}");
}

fn processes() -> impl Iterator<Item = String> {
    fs::read_dir("/proc")
        .expect("no /proc")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

fn netns_of(pid: &str) -> Option<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    fs::metadata(path).ok().map(|file| file.ino())
}

fn parent_of(pid: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn poll(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}
