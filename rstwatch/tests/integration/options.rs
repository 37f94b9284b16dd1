//! The options that choose what is shown, and for how long.
//!
//! Most are held against a connect to a port where nobody listens, which gives two events: one sent
//! (from that port, without an owner) and one received (by the client).

use nix::sys::signal::Signal;
use rstwatch::scenario::{Family, stage::Stage};
use serde_json::Value;

use crate::tracer::{Tracer, calm, run, stage};

const CONNECT: &str = "client connect nobody -> ECONNREFUSED";

/// The directions shown with `args` of a connect to a closed port, in no particular order.
fn shown(stage: &mut Stage, args: &[&str], count: usize) -> Vec<String> {
    let mut tracer = Tracer::json(stage, args);
    run(stage, CONNECT);
    tracer.await_lines(count);
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    let mut directions: Vec<String> = events.iter().map(direction).collect();
    directions.sort_unstable();
    directions
}

fn direction(event: &Value) -> String {
    event["direction"]
        .as_str()
        .expect("no direction")
        .to_owned()
}

/// Checks that `args` leave exactly `expected` of the two events.
fn check(family: Family, args: &[&str], expected: &[&str]) {
    let _calm = calm();
    let mut stage = stage("closed-port", family);
    assert_eq!(
        shown(&mut stage, args, expected.len()),
        expected,
        "with {args:?}"
    );
}

const BOTH: &[&str] = &["received", "sent"];
const SENT: &[&str] = &["sent"];
const RECEIVED: &[&str] = &["received"];
const NONE: &[&str] = &[];

#[test]
fn by_pid() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let pid = stage.pid("client").expect("the client's PID").to_string();
    assert_eq!(shown(&mut stage, &["-p", &pid], 1), RECEIVED);
    // PID 1 holds none of these sockets.
    assert_eq!(shown(&mut stage, &["-p", "1"], 0), NONE);
}

#[test]
fn by_comm() {
    check(Family::Ipv4, &["--comm", "client"], RECEIVED);
    check(Family::Ipv4, &["--comm", "cli"], NONE);
}

#[test]
fn by_local_port() {
    check(Family::Ipv4, &["-L", "9"], SENT);
    check(Family::Ipv6, &["-L", "10"], NONE);
}

#[test]
fn by_remote_port() {
    check(Family::Ipv4, &["-D", "9"], RECEIVED);
    check(Family::Ipv6, &["-D", "10"], NONE);
}

/// What a filter by port keeps out of the kernel's memory is never what it lets through: each end still
/// knows who connects.
#[test]
fn by_port_with_the_owner() {
    let _calm = calm();
    for (option, whose) in [("-D", "/owner/comm"), ("-L", "/peer/owner/comm")] {
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut stage = stage("closed-port", family);
            let mut tracer = Tracer::json(&stage, &[option, "9"]);
            run(&mut stage, CONNECT);
            tracer.await_lines(1);
            let (events, _) = tracer.stop(Signal::SIGINT).json();
            let comms: Vec<_> = events.iter().map(|event| event.pointer(whose)).collect();
            assert_eq!(comms, [Some(&"client".into())], "{option} {family:?}");
        }
    }
}

#[test]
fn by_family() {
    check(Family::Ipv4, &["-4"], BOTH);
    check(Family::Ipv4, &["-6"], NONE);
    check(Family::Ipv6, &["-6"], BOTH);
    check(Family::Ipv6, &["-4"], NONE);
}

#[test]
fn by_address() {
    check(Family::Ipv4, &["--addr", "127.0.0.0/8"], BOTH);
    check(Family::Ipv4, &["--addr", "10.0.0.0/8"], NONE);
    check(Family::Ipv6, &["--addr", "::1"], BOTH);
}

#[test]
fn by_direction() {
    check(Family::Ipv4, &["--sent"], SENT);
    check(Family::Ipv4, &["--received"], RECEIVED);
}

#[test]
fn by_cause() {
    check(Family::Ipv4, &["--cause", "closed-port"], SENT);
    check(Family::Ipv4, &["--cause", "refused"], RECEIVED);
    check(Family::Ipv4, &["--cause", "linger-abort"], NONE);
}

#[test]
fn filters_of_different_kinds_must_all_agree() {
    check(Family::Ipv4, &["--sent", "--cause", "refused"], NONE);
    check(Family::Ipv4, &["-L", "9", "--sent", "-4"], SENT);
}

#[test]
fn by_network_namespace() {
    let _calm = calm();
    let mut watched = stage("closed-port", Family::Ipv4);
    let mut other = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::json::<&str>(&watched, &[]);
    run(&mut other, CONNECT);
    run(&mut watched, CONNECT);
    tracer.await_lines(2);
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    let netns = watched.netns()[0];
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(
        events.iter().all(|event| event["netns"] == netns),
        "{events:?}"
    );
}

#[test]
fn a_network_namespace_may_be_given_by_its_path() {
    let _calm = calm();
    let mut watched = stage("closed-port", Family::Ipv4);
    // A namespace beside the ones that are given by number: both are shown.
    let mut other = stage("closed-port", Family::Ipv4);
    let path = format!("/proc/{}/ns/net", other.pid("client").expect("a PID"));
    let mut tracer = Tracer::json(&watched, &["--netns", &path]);
    run(&mut other, CONNECT);
    run(&mut watched, CONNECT);
    tracer.await_lines(4);
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    assert_eq!(events.len(), 4, "{events:?}");
}

#[test]
fn a_duration_ends_the_run() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    let run = Tracer::json(&stage, &["--duration", "300ms"]).finish();
    let (events, summary) = run.json();
    assert!(events.is_empty(), "{events:?}");
    let lasted = summary["duration_s"].as_f64().expect("a duration");
    assert!((0.3..5.0).contains(&lasted), "it lasted {lasted} s");
}

#[test]
fn a_count_ends_the_run() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let tracer = Tracer::json(&stage, &["--count", "3"]);
    run(&mut stage, &[CONNECT; 3].join("\n"));
    let (events, summary) = tracer.finish().json();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(summary["shown"], 3, "{summary}");
}

#[test]
fn a_limit_of_rows_holds_the_rest_back_and_counts_it() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let tracer = Tracer::json(&stage, &["--max-rate", "4"]);
    run(&mut stage, "client flood nobody 500");
    let done = tracer.stop(Signal::SIGINT);
    let (lines, summary) = done.json();
    let is_limited = |line: &&Value| line["limited"].is_object();
    let held_back: u64 = lines
        .iter()
        .filter(is_limited)
        .map(|line| line["limited"]["total"].as_u64().expect("a number"))
        .sum();
    let shown = lines.iter().filter(|line| !is_limited(line)).count() as u64;
    assert_eq!(shown + held_back, 1_000, "{summary}");
    assert_eq!(
        (&summary["shown"], &summary["limited"]),
        (&shown.into(), &held_back.into())
    );
    // It may have begun in one second and ended in another.
    assert!((3..=12).contains(&shown), "{shown} shown");
}

#[test]
fn an_interval_gives_summaries_in_between() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::json(&stage, &["--interval", "100ms"]);
    tracer.await_lines(6);
    let done = tracer.stop(Signal::SIGINT);
    let shapes = done
        .stdout
        .matches("{\"storm\":{\"phase\":\"shape\"")
        .count();
    let (in_between, _) = done.json();
    assert_eq!(shapes, in_between.len());
    assert!(in_between.len() >= 3, "{in_between:?}");
    assert!(
        in_between.iter().all(|line| line["summary"].is_object()),
        "{in_between:?}"
    );
}
