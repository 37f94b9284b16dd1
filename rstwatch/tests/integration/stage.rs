//! The stage itself: what goes wrong is said in full, and nothing outlives it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rstwatch::scenario::{Family, stage::Stage};

use crate::tracer::{run, stage};

/// For how long what was killed may still be seen.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_step_that_fails_is_named() {
    let mut stage = stage("closed-port", Family::Ipv4);
    for (step, why) in [
        ("client close", "nothing to close"),
        ("client connect nobody", "failed with ECONNREFUSED"),
        (
            "client connect nobody -> ETIMEDOUT",
            "failed with ECONNREFUSED, not ETIMEDOUT",
        ),
        (
            "client listen -> EPIPE",
            "succeeded, but should fail with EPIPE",
        ),
        (
            "client kill -> EPIPE",
            "a step that cannot be demanded to fail",
        ),
        ("client dance", "there is no such step: dance"),
        ("server listen", "there is no role server"),
        (
            "client connect server",
            "server has neither listened nor connected",
        ),
        ("cut", "there is no host B"),
    ] {
        let error = stage.run(step).expect_err(step);
        let text = format!("{error:#}");
        let place = format!("scenario closed-port (ipv4), step `{step}`");
        assert!(text.starts_with(&place), "{text}");
        assert!(text.ends_with(why), "{text}");
    }
}

#[test]
fn a_role_that_is_gone_is_missed() {
    let mut stage = stage("closed-port", Family::Ipv4);
    run(&mut stage, "client kill");
    let error = stage.run("client listen").expect_err("the client is dead");
    assert!(
        format!("{error:#}").ends_with("the role has ended"),
        "{error:#}"
    );
}

#[test]
fn no_process_outlives_the_stage() {
    let mut stage = stage("forked", Family::Ipv6);
    let pid = |stage: &Stage, role| {
        let pid = stage.pid(role).expect("a PID");
        PathBuf::from(format!("/proc/{pid}"))
    };
    let mut lives = vec![pid(&stage, "server"), pid(&stage, "client")];
    run(
        &mut stage,
        "server listen\nclient connect server\nserver accept\nserver fork",
    );
    // The worker, which the server's process leaves behind when it is killed.
    lives.push(pid(&stage, "server"));
    assert_ne!(lives[0], lives[2], "no worker");
    assert!(lives.iter().all(|life| life.exists()), "{lives:?}");
    drop(stage);
    let deadline = Instant::now() + PATIENCE;
    while lives.iter().any(|life| is_alive(life)) {
        assert!(Instant::now() < deadline, "left behind: {lives:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether there is such a process that is not dead and merely waited for.
fn is_alive(process: &Path) -> bool {
    fs::read_to_string(process.join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}
