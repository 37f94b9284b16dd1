//! Every scenario, over both IP versions: the events that it must show, no more and no fewer.

use nix::sys::signal::Signal;
use rstwatch::{
    event::Direction,
    scenario::{Family, catalogue, verdict},
};

use crate::tracer::{Tracer, calm, check_pairs, names_reasons, reconciled, stage};

/// Plays a scenario under the tracer's eyes.
fn check(name: &str, family: Family) {
    check_with(name, family, &[]);
}

/// The same, with further options of the tracer.
fn check_with(name: &str, family: Family, options: &[&str]) {
    let _calm = calm();
    let mut stage = stage(name, family);
    let mut tracer = Tracer::json(&stage, options);
    stage.play().unwrap_or_else(|e| panic!("{e:#}"));
    let expected = stage
        .expected(names_reasons())
        .unwrap_or_else(|e| panic!("{e:#}"));
    tracer.await_lines(expected.len());
    let (events, summary) = tracer.stop(Signal::SIGINT).json();

    let complaints = verdict::compare(&expected, &events);
    assert!(
        complaints.is_empty(),
        "scenario {name} ({family}):\n- {}",
        complaints.join("\n- ")
    );
    check_pairs(&events);
    let sent = expected
        .iter()
        .filter(|event| event["direction"] == Direction::Sent.name())
        .count() as u64;
    // Seen, and what the kernel counted: nothing else can have happened in these namespaces.
    assert_eq!(
        reconciled(&summary, &stage),
        (sent, sent, sent),
        "in the summary: {summary}"
    );
    assert_eq!(summary["lost_detail"]["total"], 0, "in {summary}");
}

/// What kernels fall back to that refuse BTF tracepoints tells the same: one scenario for each kind
/// of record.
#[test]
fn raw_tracepoints_tell_the_same() {
    for name in [
        "closed-port",
        "unread-accepted",
        "data-after-close",
        "data-after-shutdown",
        "half-open-listener",
    ] {
        for family in [Family::Ipv4, Family::Ipv6] {
            check_with(name, family, &["--raw-tracepoints"]);
        }
    }
}

/// One module a scenario, so that a failure names it, with a test for each IP version.
macro_rules! scenarios {
    ($($module:ident: $name:literal,)*) => {
        /// What is tested below.
        const TESTED: &[&str] = &[$($name,)*];

        $(mod $module {
            use super::*;

            #[test]
            fn ipv4() {
                check($name, Family::Ipv4);
            }

            #[test]
            fn ipv6() {
                check($name, Family::Ipv6);
            }
        })*
    };
}

scenarios! {
    closed_port: "closed-port",
    unread_accepted: "unread-accepted",
    unread_connected: "unread-connected",
    peer_holds_on: "peer-holds-on",
    unread_after_fin: "unread-after-fin",
    linger_accepted: "linger-accepted",
    linger_connected: "linger-connected",
    data_after_close: "data-after-close",
    peer_gone: "peer-gone",
    data_after_close_orphan: "data-after-close-orphan",
    data_after_shutdown: "data-after-shutdown",
    reset_in_fin_wait1: "reset-in-fin-wait1",
    reset_of_an_orphan: "reset-of-an-orphan",
    keepalive_connected: "keepalive-connected",
    keepalive_accepted: "keepalive-accepted",
    half_open: "half-open",
    half_open_listener: "half-open-listener",
    snapshot_listener: "snapshot-listener",
    snapshot_connection: "snapshot-connection",
    killed: "killed",
    exited: "exited",
    forked: "forked",
}

#[test]
fn every_scenario_has_its_tests() {
    let all: Vec<&str> = catalogue::ALL
        .iter()
        .map(|scenario| scenario.name)
        .collect();
    assert_eq!(TESTED, all);
}
