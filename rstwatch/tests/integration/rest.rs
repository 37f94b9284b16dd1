//! A host on which nothing is reset: the tracer sleeps, and the next reset wakes it.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use rstwatch::scenario::netns::Netns;

use crate::tracer::{Tracer, storm};

/// For how long it is watched at rest.
const REST: Duration = Duration::from_secs(3);

/// Longer than it stays awake after a reset.
const CALM: Duration = Duration::from_secs(2);

/// How often it may run meanwhile: four times a second, to look at the counters, and more when somebody
/// else begins or ends to listen somewhere. Awake it would have run 150 times.
const MOST_RUNS: u64 = 75;

/// How often a process's first thread has gone to sleep.
fn rests(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).expect("a process");
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = count.expect("a count").trim();
    count.parse().expect("a number")
}

#[test]
fn it_sleeps_while_nothing_is_reset_and_tells_of_what_is_reset_then() {
    const RESETS: usize = 3;
    // Nothing else is reset meanwhile.
    let _storm = storm();
    let netns = Netns::new().expect("a namespace");
    let mut tracer = Tracer::watching([netns.inode()], ["-j", "--received"]);
    for reset in 1..=RESETS {
        thread::sleep(CALM);
        let before = rests(tracer.pid());
        thread::sleep(REST);
        let runs = rests(tracer.pid()) - before;
        assert!(runs <= MOST_RUNS, "it ran {runs} times in {REST:?}");
        let refused = netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9)));
        refused.expect("a job").expect_err("nobody listens there");
        tracer.await_lines(reset);
    }
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    assert_eq!(events.len(), RESETS);
}
