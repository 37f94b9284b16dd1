//! The kernel's counters of each namespace beside what was traced there: every counter that a reset
//! bumps agrees, and what differs by the kernel's design is named.

use nix::sys::signal::Signal;
use rstwatch::{
    mib::Counter,
    scenario::{Family, catalogue, stage::Stage},
};
use serde_json::Value;

use crate::tracer::{Tracer, calm, is_since, names_reasons, reconciled, run, stage, storm};

/// A counter that grows: by how much, how many traced resets bumped it, and the name of the
/// difference.
type Grows = (Counter, u64, u64, Option<&'static str>);

/// A counter, and nothing but the one traced reset behind it.
const fn once(counter: Counter) -> Grows {
    (counter, 1, 1, None)
}

/// What each scenario makes grow besides `TcpOutRsts`; no other counter may.
const SCENARIOS: &[(&str, &[Grows])] = &[
    ("unread-accepted", &[once(Counter::AbortOnClose)]),
    ("unread-after-fin", &[once(Counter::AbortOnClose)]),
    ("killed", &[once(Counter::AbortOnClose)]),
    ("linger-accepted", &[once(Counter::AbortOnData)]),
    ("data-after-close-orphan", &[once(Counter::AbortOnData)]),
    ("data-after-shutdown", &[once(Counter::AbortOnData)]),
    ("no-fin-wait2-orphan", &[once(Counter::AbortOnData)]),
    ("no-fin-wait2", &[once(Counter::AbortOnLinger)]),
    ("orphan-limit", &[once(Counter::AbortOnMemory)]),
    ("keepalive-connected", &[once(Counter::AbortOnTimeout)]),
    (
        "connection-timed-out",
        &[(Counter::AbortOnTimeout, 1, 0, Some("timeout-without-rst"))],
    ),
    ("accept-queue-overflow", &[once(Counter::EmbryonicRsts)]),
    // Resets that no counter has but the one of all.
    ("data-after-close", &[]),
    ("closed-port", &[]),
    ("half-open-listener", &[]),
    ("disconnect", &[]),
    ("listener-closed", &[]),
    ("socket-destroyed", &[]),
    ("bad-handshake-ack", &[]),
    ("handshake-reset", &[]),
    ("early-syn", &[]),
];

/// A SYN whose answer meets no socket, as in a scan of open ports: the scanner's kernel resets it.
const SCANNED: &str = "
    server listen
    scanner inject scanner server syn
";

/// What a summary says of a counter in the namespaces of `stage`: growth, traced, and the names of
/// the differences.
fn told(summary: &Value, stage: &Stage, counter: Counter) -> (u64, u64, Vec<String>) {
    let namespaces = summary["namespaces"].as_array().expect("no namespaces");
    let own = namespaces
        .iter()
        .filter(|own| stage.netns().iter().any(|netns| own["netns"] == *netns));
    let mut told = (0, 0, Vec::new());
    for namespace in own {
        let counters = namespace["counters"].as_array().expect("no counters");
        let found = counters.iter().find(|told| told["name"] == counter.name());
        let found = found.unwrap_or_else(|| panic!("no {} in {namespace}", counter.name()));
        let exactly = |range: &Value| {
            assert_eq!(range["low"], range["high"], "in {found}");
            range["low"].as_u64().expect("no number")
        };
        let (growth, traced) = (exactly(&found["growth"]), exactly(&found["traced"]));
        let difference = found["difference"].as_i64().expect("no difference");
        let growth_and_difference = i64::try_from(growth).expect("small") + difference;
        assert_eq!(Ok(growth_and_difference), i64::try_from(traced), "{found}");
        assert_eq!(found["agrees"], difference == 0, "in {found}");
        told.0 += growth;
        told.1 += traced;
        told.2.extend(found["reason"].as_str().map(str::to_owned));
    }
    told
}

/// Every counter but `TcpOutRsts` is as `grows` says, and 0 otherwise.
fn check_counters(summary: &Value, stage: &Stage, grows: &[Grows]) {
    for counter in Counter::of_parts() {
        let (growth, traced, name) = grows
            .iter()
            .find(|(grows, ..)| *grows == counter)
            .map_or((0, 0, None), |(_, growth, traced, name)| {
                (*growth, *traced, *name)
            });
        let names: Vec<String> = name.into_iter().map(str::to_owned).collect();
        assert_eq!(
            told(summary, stage, counter),
            (growth, traced, names),
            "{} in {summary}",
            counter.name()
        );
    }
}

/// The events and the summary of a tracer that watches `play`, which gives how many events must show.
fn traced(stage: &mut Stage, play: impl FnOnce(&mut Stage) -> usize) -> (Vec<Value>, Value) {
    let mut tracer = Tracer::json(stage, &[] as &[&str]);
    tracer.await_lines(play(stage));
    tracer.stop(Signal::SIGINT).json()
}

/// Plays the scenario of the stage.
fn scenario(stage: &mut Stage) -> usize {
    stage.play().unwrap_or_else(|e| panic!("{e:#}"));
    let expected = stage.expected(names_reasons());
    expected.unwrap_or_else(|e| panic!("{e:#}")).len()
}

/// Plays steps of which one event comes.
fn script(steps: &str) -> impl FnOnce(&mut Stage) -> usize {
    move |stage| {
        run(stage, steps);
        1
    }
}

/// What a person is told below the sentence that the resets of `stage` agree.
fn below_they_agree<'a>(stdout: &'a str, stage: &Stage) -> Option<&'a str> {
    let own = format!("network namespace {}", stage.netns()[0]);
    let mut lines = stdout.lines();
    let sentence = lines.find(|line| line.starts_with(&own));
    let sentence = sentence.unwrap_or_else(|| panic!("not told: {stdout}"));
    assert!(sentence.ends_with("they agree"), "{sentence}");
    lines.next()
}

#[test]
fn each_counter_agrees_with_what_was_traced() {
    for (name, grows) in SCENARIOS {
        for family in Family::ALL {
            let of_the_host = catalogue::find(name).is_some_and(|scenario| scenario.of_the_host);
            let _alone = of_the_host.then(storm);
            let _calm = (!of_the_host).then(calm);
            let mut stage = stage(name, family);
            let (_, summary) = traced(&mut stage, scenario);
            check_counters(&summary, &stage, grows);
            let (sent, low, high) = reconciled(&summary, &stage);
            assert_eq!((low, high), (sent, sent), "{name}: {summary}");
        }
    }
}

/// A fast close has a reason of its own since 6.12, and no counter here.
#[test]
fn a_fast_close_is_no_close_with_unread_data() {
    if !is_since(6, 12) {
        return;
    }
    let _calm = calm();
    let mut stage = stage("mptcp", Family::Ipv4);
    let (_, summary) = traced(&mut stage, scenario);
    check_counters(&summary, &stage, &[]);
}

#[test]
fn handshakes_that_the_peer_resets_are_told() {
    let _calm = calm();
    for family in Family::ALL {
        let mut stage = stage("handshake-reset", family);
        let (_, summary) = traced(&mut stage, |stage| {
            run(stage, SCANNED);
            run(stage, "scanner inject scanner server syn");
            2
        });
        let embryonic = (Counter::EmbryonicRsts, 2, 0, Some("handshake-reset"));
        check_counters(&summary, &stage, &[embryonic]);
        assert_eq!(reconciled(&summary, &stage), (2, 2, 2), "{summary}");
    }
}

#[test]
fn a_person_is_told_what_no_hook_sees() {
    let _calm = calm();
    let mut stage = stage("handshake-reset", Family::Ipv4);
    let mut tracer = Tracer::start(&stage, &[] as &[&str]);
    run(&mut stage, SCANNED);
    tracer.await_text("backscatter");
    let finished = tracer.stop(Signal::SIGINT);
    assert_eq!(
        below_they_agree(&finished.stdout, &stage),
        Some("  also counted: 1 unfinished handshake reset by the peer, seen by no hook")
    );
}

/// Where there is nothing to tell but that all agrees, nothing else is said.
#[test]
fn a_person_is_not_told_what_agrees() {
    let _calm = calm();
    let mut stage = stage("unread-accepted", Family::Ipv4);
    let mut tracer = Tracer::start(&stage, &[] as &[&str]);
    stage.play().unwrap_or_else(|e| panic!("{e:#}"));
    tracer.await_text("closed-with-unread-data");
    let finished = tracer.stop(Signal::SIGINT);
    let below = below_they_agree(&finished.stdout, &stage);
    assert_ne!(
        below.map(|line| line.starts_with("  also counted")),
        Some(true)
    );
}

#[test]
fn a_rst_that_finds_no_route_is_told() {
    let _calm = calm();
    let mut stage = stage("linger-accepted", Family::Ipv6);
    // The route goes with the address.
    let (events, summary) = traced(
        &mut stage,
        script(
            "
        server listen
        client connect server
        server accept
        server linger0
        server sysctl net/ipv6/conf/all/disable_ipv6 1
        server close
        ",
        ),
    );
    assert_eq!(events[0]["cause"]["id"], "linger-abort", "{events:?}");
    let grows = [
        once(Counter::AbortOnData),
        (Counter::AbortFailed, 1, 0, Some("rst-not-sent")),
    ];
    check_counters(&summary, &stage, &grows);
    assert_eq!(reconciled(&summary, &stage), (1, 1, 1), "{summary}");
}

/// `SO_LINGER` 0 on a connect under way: counted, and nothing is sent.
#[test]
fn a_close_that_needs_no_rst_is_told() {
    let _calm = calm();
    let mut stage = stage("late-syn-ack", Family::Ipv4);
    let (_, summary) = traced(
        &mut stage,
        script(
            "
        server listen
        server backlog 0
        other connect server
        client begin server
        client await SYN_SENT
        client linger0
        client close
        other linger0
        other close
        ",
        ),
    );
    // Where causes are inferred, a wrong one would look the same.
    let name = if names_reasons() {
        "linger-without-rst"
    } else {
        "cause-inferred"
    };
    let grows = [(Counter::AbortOnData, 2, 1, Some(name))];
    check_counters(&summary, &stage, &grows);
}

/// A filter in the kernel holds the detail back: that is not taken for a difference, and the kernel
/// side's own count of the kinds still decides what it can.
#[test]
fn what_a_filter_holds_back_is_no_difference() {
    let _calm = calm();
    let mut stage = stage("unread-accepted", Family::Ipv4);
    let tracer = Tracer::json(&stage, &["--local-port", "1"]);
    stage.play().unwrap_or_else(|e| panic!("{e:#}"));
    let (events, summary) = tracer.stop(Signal::SIGINT).json();
    assert!(events.is_empty(), "{events:?}");
    let namespaces = summary["namespaces"].as_array().expect("no namespaces");
    let netns = stage.netns()[0];
    let own = namespaces.iter().find(|own| own["netns"] == netns);
    let own = own.unwrap_or_else(|| panic!("not told: {summary}"));
    assert_eq!(own["out_rsts"]["low"], 1, "{own}");
    assert_eq!(own["sent_seen"], 0, "{own}");
    assert_eq!(own["agrees"], Value::Null, "{own}");
    assert_eq!(own["difference"], Value::Null, "{own}");
    assert_eq!(own["reason"], "detail-missing", "{own}");
    let everywhere = &summary["all_namespaces"];
    // Other namespaces may have come and gone, with counters that nobody has read.
    assert_ne!(everywhere["agrees"], false, "{everywhere}");
    assert_eq!(everywhere["sent_seen"], summary["sent"], "{everywhere}");
}
