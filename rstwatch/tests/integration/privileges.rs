//! The least privileges: a user that is not root, with the capabilities that are documented, sees what
//! root sees; one that lacks any of them is told which. And nothing is kept that is not needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::Instant,
};

use nix::sys::signal::Signal;
use rstwatch::{
    privileges::NEEDS,
    scenario::{Family, verdict},
};

use crate::tracer::{
    LOOK, PATIENCE, Scratch, Tracer, binary, calm, is_since, names_reasons, stage,
};

/// The user and group that own nothing.
const NOBODY: &str = "65534";

/// A directory that everyone may write to, with a copy of the binary, which the user nobody may not
/// run where it was built.
fn scratch() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let copy = scratch.path("rstwatch");
    fs::copy(binary(), &copy).expect("cannot copy the binary");
    let everyone = fs::Permissions::from_mode(0o777);
    fs::set_permissions(scratch.path(""), everyone).expect("cannot open the directory");
    (scratch, copy)
}

/// The names of all documented capabilities but `without`, as `setpriv` writes them.
fn all_but(without: &str) -> Vec<String> {
    NEEDS
        .iter()
        .map(|need| need.capability.to_string())
        // Where maps count as locked memory, it takes the right to lock more.
        .chain((!is_since(5, 11)).then(|| "CAP_SYS_RESOURCE".to_owned()))
        .filter(|name| name != without)
        .map(|name| name.trim_start_matches("CAP_").to_lowercase())
        .collect()
}

/// The binary at `path`, as nobody with these ambient capabilities and no others.
fn as_nobody(path: &PathBuf, capabilities: &[String]) -> Command {
    let set = format!("-all,+{}", capabilities.join(",+"));
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(format!("--inh-caps={set}"))
        .arg(format!("--ambient-caps={set}"))
        .arg(format!("--bounding-set={set}"))
        .arg(path);
    command
}

/// Without `capability`, for a moment.
fn without(capability: &str) -> Output {
    let _calm = calm();
    let (_scratch, copy) = scratch();
    as_nobody(&copy, &all_but(capability))
        .args(["-j", "--duration", "100ms"])
        .output()
        .expect("cannot start setpriv")
}

/// Checks that without `capability` nothing starts, and that the one sentence names it.
#[track_caller]
fn is_refused_without(capability: &str) {
    let output = without(capability);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("({capability} missing)")),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
}

/// Checks that without `capability` it traces, and says what is not known for want of it.
#[track_caller]
fn is_told_without(capability: &str) {
    let output = without(capability);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(capability), "{stderr}");
}

#[test]
fn without_cap_bpf() {
    is_refused_without("CAP_BPF");
}

#[test]
fn without_cap_perfmon() {
    is_refused_without("CAP_PERFMON");
}

#[test]
fn without_cap_sys_ptrace() {
    is_told_without("CAP_SYS_PTRACE");
}

#[test]
fn without_cap_dac_read_search() {
    is_told_without("CAP_DAC_READ_SEARCH");
}

#[test]
fn without_cap_syslog() {
    is_told_without("CAP_SYSLOG");
}

#[test]
fn with_all_that_is_documented_nothing_is_complained_of() {
    let output = without("");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// One scenario for each way in which an owner is learnt, and one that takes the kernel's symbols.
#[test]
fn a_user_with_these_capabilities_sees_what_root_sees() {
    for name in [
        "closed-port",
        "unread-accepted",
        "snapshot-connection",
        "peer-holds-on",
        "killed",
    ] {
        let _calm = calm();
        let mut stage = stage(name, Family::Ipv4);
        let (scratch, copy) = scratch();
        let mut command = as_nobody(&copy, &all_but(""));
        command.arg("-j");
        for netns in stage.netns() {
            command.args(["--netns", &netns.to_string()]);
        }
        let stdout = fs::File::create(scratch.path("stdout")).expect("cannot make a file");
        command.stdout(stdout);
        let mut tracer = Tracer::spawn(command, scratch);
        stage.play().unwrap_or_else(|e| panic!("{e:#}"));
        let expected = stage
            .expected(names_reasons())
            .unwrap_or_else(|e| panic!("{e:#}"));
        tracer.await_lines(expected.len());
        let (events, _) = tracer.stop(Signal::SIGINT).json();
        assert_eq!(
            verdict::compare(&expected, &events),
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn what_has_served_is_given_up_by_every_thread() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    let tracer = Tracer::json::<&str>(&stage, &[]);
    // CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE; and CAP_BPF, where only that may read the counters.
    let to_the_end = 1_u64 << 2 | 1 << 19;
    let bounding = format!("{to_the_end:016x}");
    let kept = if is_since(5, 19) {
        bounding.clone()
    } else {
        format!("{:016x}", to_the_end | 1 << 39)
    };
    let none = format!("{:016x}", 0);
    let expected = [
        ("CapEff:", &kept),
        ("CapPrm:", &kept),
        ("CapBnd:", &bounding),
        ("CapInh:", &none),
        ("CapAmb:", &none),
        ("NoNewPrivs:", &"1".to_owned()),
    ];
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", tracer.pid())).expect("its threads");
        // One that has ended meanwhile has nothing to give up.
        let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
        tasks
            .filter_map(|task| read(task.expect("a thread")))
            .collect::<Vec<String>>()
    };
    let holds_more = |status: &String| {
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        expected
            .iter()
            .any(|(name, expected)| value(name).map(str::trim) != Some(expected))
    };
    // The one that read the kernel's symbols, as root still, may be on its way out.
    let deadline = Instant::now() + PATIENCE;
    let threads = loop {
        let threads = threads();
        match threads.iter().find(|status| holds_more(status)) {
            None => break threads,
            Some(status) => assert!(Instant::now() < deadline, "{expected:?} {status}"),
        }
        thread::sleep(LOOK);
    };
    assert!(threads.len() >= 2, "{threads:?}");
    assert!(tracer.stop(Signal::SIGINT).status.success());
}
