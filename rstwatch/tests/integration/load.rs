//! Many resets, and more than one tracer.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rstwatch::scenario::{Family, verdict};
use serde_json::Value;

use crate::tracer::{Scratch, Tracer, binary, calm, names_reasons, reconciled, run, stage, storm};

/// Connects in the storm; each gives a reset sent and one received.
const CONNECTS: u64 = 100_000;

#[test]
fn every_reset_of_a_storm_is_shown_and_counted() {
    let _storm = storm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let before = stage.sent_resets().expect("TcpOutRsts");
    let tracer = Tracer::json::<&str>(&stage, &[]);
    run(&mut stage, &format!("client flood nobody {CONNECTS}"));
    let done = tracer.stop(Signal::SIGINT);
    let growth = stage.sent_resets().expect("TcpOutRsts") - before;
    let (events, summary) = done.json();

    assert_eq!(growth, CONNECTS, "the kernel did not reset every connect");
    assert_eq!(summary["lost_detail"]["total"], 0, "{summary}");
    assert_eq!(
        reconciled(&summary, &stage),
        (growth, growth, growth),
        "{summary}"
    );
    for (direction, cause) in [("sent", "closed-port"), ("received", "refused")] {
        let count = events
            .iter()
            .filter(|event| event["direction"] == direction && event["cause"]["id"] == cause)
            .count() as u64;
        assert_eq!(count, CONNECTS, "{direction}, {cause}: {summary}");
    }
    assert_eq!(events.len() as u64, 2 * CONNECTS);
    let client = stage.pid("client").expect("a PID");
    let strangers = events
        .iter()
        .filter(|event| event["direction"] == "received" && event["owner"]["pid"] != client)
        .count();
    assert_eq!(strangers, 0, "received resets without their owner");
}

/// What a summary says became of the resets: shown, filtered, limited, without room in the ring.
pub(crate) fn accounted_for(summary: &Value) -> u64 {
    let number = |value: &Value| value.as_u64().expect("a number");
    number(&summary["shown"])
        + number(&summary["filtered"])
        + number(&summary["limited"])
        + number(&summary["lost_detail"]["ring_full"])
}

/// What the kernel side counted, and the sum of its tally.
pub(crate) fn counted(summary: &Value) -> (u64, u64) {
    let number = |value: &Value| value.as_u64().expect("a number");
    let kinds = summary["tally"].as_array().expect("a tally");
    (
        number(&summary["sent"]) + number(&summary["received"]),
        kinds.iter().map(|kind| number(&kind["count"])).sum(),
    )
}

#[test]
fn what_a_stopped_reader_loses_is_counted() {
    let _storm = storm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let before = stage.sent_resets().expect("TcpOutRsts");
    let tracer = Tracer::json(&stage, &["--ring-size", "1M"]);
    tracer.signal(Signal::SIGSTOP);
    run(&mut stage, &format!("client flood nobody {CONNECTS}"));
    tracer.signal(Signal::SIGCONT);
    run(&mut stage, "client flood nobody 1000");
    let (_, summary) = tracer.stop(Signal::SIGINT).json();
    let growth = stage.sent_resets().expect("TcpOutRsts") - before;

    let lost = summary["lost_detail"]["ring_full"].as_u64();
    assert!(lost > Some(CONNECTS), "too little was lost: {summary}");
    let (all, tally) = counted(&summary);
    assert!(all >= 2 * growth, "{growth} were sent: {summary}");
    assert_eq!(accounted_for(&summary), all, "{summary}");
    assert_eq!(tally, all, "{summary}");
    let port = summary["tally"]
        .as_array()
        .and_then(|kinds| kinds.iter().find(|kind| kind["reason"] == "NO_SOCKET"));
    if names_reasons() {
        let count = port.and_then(|kind| kind["count"].as_u64());
        assert!(count >= Some(growth), "{growth} were sent: {summary}");
    }
}

#[test]
fn what_nobody_asked_for_is_filtered_in_the_kernel_and_counted() {
    let _storm = storm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let tracer = Tracer::json(&stage, &["-L", "1"]);
    run(&mut stage, "client flood nobody 1000");
    let (events, summary) = tracer.stop(Signal::SIGINT).json();
    assert_eq!(events.len(), 0);
    assert!(
        summary["filtered_in_kernel"].as_u64() >= Some(2_000),
        "{summary}"
    );
    let (all, tally) = counted(&summary);
    assert_eq!((accounted_for(&summary), tally), (all, all), "{summary}");
}

#[test]
fn a_pipe_that_nobody_reads_costs_no_memory() {
    /// What the tracer may use.
    const MOST_KIB: u64 = 64 << 10;
    let _storm = storm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut command = Command::new(binary());
    command
        .args(["-j", "--netns", &stage.netns()[0].to_string()])
        .stdout(Stdio::piped());
    let tracer = Tracer::spawn(command, Scratch::new());
    // The pipe holds some 100 of them.
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        run(&mut stage, "client flood nobody 20000");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", tracer.pid())).expect("a status");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    assert!(resident.is_some_and(|kib| kib < MOST_KIB), "{status}");
    let done = tracer.stop(Signal::SIGINT);
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
}

#[test]
fn two_tracers_see_everything() {
    let _calm = calm();
    let mut stage = stage("unread-accepted", Family::Ipv4);
    let mut tracers = [(); 2].map(|()| Tracer::json::<&str>(&stage, &[]));
    stage.play().unwrap_or_else(|e| panic!("{e:#}"));
    let expected = stage
        .expected(names_reasons())
        .unwrap_or_else(|e| panic!("{e:#}"));
    for tracer in &mut tracers {
        tracer.await_lines(expected.len());
    }
    for tracer in tracers {
        let (events, _) = tracer.stop(Signal::SIGINT).json();
        assert_eq!(verdict::compare(&expected, &events), Vec::<String>::new());
    }
}
