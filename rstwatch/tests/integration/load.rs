//! Many resets, and more than one tracer.

use nix::sys::signal::Signal;
use rstwatch::scenario::{Family, verdict};

use crate::tracer::{Tracer, calm, names_reasons, reconciled, run, stage, storm};

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
