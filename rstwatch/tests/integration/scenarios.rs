//! Every scenario, over both IP versions: the events that it must show, no more and no fewer.

use nix::sys::signal::Signal;
use rstwatch::{
    event::Direction,
    scenario::{Family, catalogue, verdict},
};

use crate::tracer::{Tracer, calm, check_pairs, names_reasons, reconciled, stage, storm};

/// Plays a scenario under the tracer's eyes.
fn check(name: &str, family: Family) {
    check_with(name, family, &[]);
}

/// The same, with further options of the tracer.
fn check_with(name: &str, family: Family, options: &[&str]) {
    let of_the_host = catalogue::find(name).is_some_and(|scenario| scenario.of_the_host);
    let _alone = of_the_host.then(storm);
    let _calm = (!of_the_host).then(calm);
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
    data_after_close: "data-after-close",
    peer_gone: "peer-gone",
    data_after_close_orphan: "data-after-close-orphan",
    data_after_shutdown: "data-after-shutdown",
    half_open: "half-open",
    half_open_listener: "half-open-listener",
    snapshot_listener: "snapshot-listener",
    listener_gone: "listener-gone",
    listener_killed: "listener-killed",
    scan: "scan",
    late_segment: "late-segment",
    late_syn_ack: "late-syn-ack",
    backscatter: "backscatter",
    accept_queue_overflow: "accept-queue-overflow",
    connection_timed_out: "connection-timed-out",
    no_fin_wait2_orphan: "no-fin-wait2-orphan",
    bad_handshake_ack: "bad-handshake-ack",
    bad_flags: "bad-flags",
    early_syn: "early-syn",
    unread_accepted: "unread-accepted",
    unread_connected: "unread-connected",
    peer_holds_on: "peer-holds-on",
    unread_after_fin: "unread-after-fin",
    linger_accepted: "linger-accepted",
    linger_connected: "linger-connected",
    keepalive_connected: "keepalive-connected",
    keepalive_accepted: "keepalive-accepted",
    snapshot_connection: "snapshot-connection",
    killed: "killed",
    exited: "exited",
    forked: "forked",
    crashed: "crashed",
    failed: "failed",
    listener_closed: "listener-closed",
    no_fin_wait2: "no-fin-wait2",
    orphan_limit: "orphan-limit",
    disconnect: "disconnect",
    socket_destroyed: "socket-destroyed",
    mptcp: "mptcp",
    reset_in_fin_wait1: "reset-in-fin-wait1",
    reset_of_an_orphan: "reset-of-an-orphan",
    reset_elsewhere: "reset-elsewhere",
    idle_drop: "idle-drop",
    handshake_reset: "handshake-reset",
}

#[test]
fn every_scenario_has_its_tests() {
    let all: Vec<&str> = catalogue::all().map(|scenario| scenario.name).collect();
    assert_eq!(TESTED, all);
}
