//! How the binary fails: with the right status and a sentence that says what to do.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use crate::tracer::{Scratch, binary};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

#[test]
fn what_is_no_option_is_a_usage_error() {
    for args in [
        &["--nonsense"][..],
        &["-p", "abc"],
        &["-L", "70000"],
        &["--cause", "bad-luck"],
        &["--addr", "10.0.0.0/99"],
        &["--duration", "soon"],
        &["-4", "stray"],
    ] {
        let output = Command::new(binary())
            .args(args)
            .output()
            .expect("cannot start the binary");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr.contains("--help"), "{args:?}: {stderr}");
    }
}

#[test]
fn without_privileges_it_says_which() {
    // Where nobody may run it, wherever it was built.
    let scratch = Scratch::new();
    let copy = scratch.path("rstwatch");
    fs::copy(binary(), &copy).expect("cannot copy the binary");
    let output = Command::new(&copy)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("cannot start the copy");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(
        stderr.trim_end().lines().count(),
        1,
        "more than a sentence: {stderr}"
    );
    assert!(
        stderr.contains(
            "loading BPF programs needs root, or the capabilities CAP_BPF and CAP_PERFMON"
        ),
        "{stderr}"
    );
}
