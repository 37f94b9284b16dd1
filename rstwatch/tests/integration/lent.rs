//! Hooks that are lent: the benchmark takes them while the reader goes on.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstwatch::scenario::netns::Netns;

use crate::tracer::{LOOK, PATIENCE, Tracer, calm};

/// How many hooks a process has attached.
fn links(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process");
    files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .filter(|file| file.contains("link_type:"))
        .count()
}

#[test]
fn what_is_reset_without_hooks_is_not_seen_and_the_rest_is_told() {
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let refuse = || {
        let refused = netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9)));
        refused.expect("a job").expect_err("nobody listens there");
    };
    let mut tracer = Tracer::watching([netns.inode()], ["-j", "--lend-hooks"]);
    assert!(links(tracer.pid()) >= 4);
    refuse();
    tracer.await_lines(2);
    let pid = Pid::from_raw(i32::try_from(tracer.pid()).expect("a PID"));
    kill(pid, Signal::SIGUSR1).expect("a process");
    let asked = Instant::now();
    while links(tracer.pid()) > 0 {
        assert!(asked.elapsed() < PATIENCE, "it keeps its hooks");
        thread::sleep(LOOK);
    }
    refuse();
    let (events, summary) = tracer.stop(Signal::SIGINT).json();
    assert_eq!(events.len(), 2);
    let namespaces = summary["namespaces"].as_array();
    let here = namespaces
        .expect("namespaces")
        .iter()
        .find(|there| there["netns"] == netns.inode())
        .expect("this one");
    assert_eq!(here["sent_seen"], 1);
}
