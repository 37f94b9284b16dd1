//! Resets that the kernel sends in the middle of another one's hook: a timer or a segment interrupts the
//! process that is resetting a connection itself. The kernel lets no program interrupt itself.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use rstwatch::{
    mib::Counter,
    netns::read_counters,
    scenario::netns::{Address, Netns},
};

use crate::{
    load::{accounted_for, counted},
    tracer::{Tracer, storm},
};

/// Connections whose peer falls silent.
const SILENT: u64 = 1_000;

/// Descriptors for both ends of each, and for the rest.
const DESCRIPTORS: u64 = 2 * SILENT + 256;

/// Between two of them, so that many timers expire rather than one for all.
const APART: Duration = Duration::from_millis(2);

/// How many resets may be missing at the most. With the first program alone it was 81 to 138 of a
/// thousand in three runs. With both it is none in most runs; but timers of 32 ms expire together, and now and
/// then such a bunch or two, of 14 each, reach neither program, with one as with two.
const MISSING: u64 = 64;

/// Who aborts connections, one after the other: on each of two processors.
const ABORTERS: usize = 2;

static DONE: AtomicBool = AtomicBool::new(false);

/// Ends the aborts when it goes, in a panic as well: the scope would wait for them for ever.
struct Calms;

impl Drop for Calms {
    fn drop(&mut self) {
        DONE.store(true, Ordering::Relaxed);
    }
}

/// Closes connections with unread data, which resets them in this process's own system call, until
/// [`DONE`]. Returns how many.
fn abort_again_and_again() -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut aborted = 0;
    while !DONE.load(Ordering::Relaxed) {
        let mut client = TcpStream::connect(address).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        client.write_all(b"x").expect("sent");
        drop(server);
        aborted += 1;
    }
    aborted
}

/// A connection to `listener` that resets itself when it has heard nothing for two seconds.
fn watched(from: &Netns, listener: &TcpListener) -> [TcpStream; 2] {
    let address = listener.local_addr().expect("an address");
    let own = from
        .run(move || TcpStream::connect(address))
        .expect("a job")
        .expect("a connection");
    let (other, _) = listener.accept().expect("a connection");
    setsockopt(&own, sockopt::TcpKeepIdle, &1).expect("an option");
    setsockopt(&own, sockopt::TcpKeepInterval, &1).expect("an option");
    setsockopt(&own, sockopt::TcpKeepCount, &1).expect("an option");
    setsockopt(&own, sockopt::KeepAlive, &true).expect("an option");
    [own, other]
}

#[test]
fn what_interrupts_a_hook_is_counted_and_shown() {
    let _storm = storm();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let descriptors = soft.max(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard.max(descriptors)).expect("a limit");
    let [here, there] = [1, 2].map(|number| Address {
        address: Ipv4Addr::new(10, 77, 9, number).into(),
        prefix: 24,
    });
    let netns = Netns::new().expect("a namespace");
    let peer = Netns::new().expect("a namespace");
    netns.wire(&peer, &[here], &[there]).expect("a wire");
    let aborting: Vec<Netns> = (0..ABORTERS)
        .map(|_| Netns::new().expect("a namespace"))
        .collect();

    let watched = [&netns].into_iter().chain(&aborting).map(Netns::inode);
    let tracer = Tracer::watching(watched, ["-j", "--cause", "keepalive-timeout"]);

    let aborted: u64 = thread::scope(|scope| {
        let storms: Vec<_> = aborting
            .iter()
            .map(|netns| scope.spawn(|| netns.run(abort_again_and_again)))
            .collect();
        {
            let _calms = Calms;
            fall_silent(&netns, &peer, there);
        }
        let aborted = storms
            .into_iter()
            .map(|storm| storm.join().expect("no panic").expect("a namespace"));
        aborted.sum()
    });

    let (events, summary) = tracer.stop(Signal::SIGINT).json();
    let seen: u64 = summary["namespaces"]
        .as_array()
        .expect("namespaces")
        .iter()
        .filter_map(|namespace| namespace["sent_seen"].as_u64())
        .sum();
    let (all, tally) = counted(&summary);
    assert_eq!((accounted_for(&summary), tally), (all, all), "{summary}");
    let sent: u64 = [&netns].into_iter().chain(&aborting).map(sent_resets).sum();
    let skipped = summary["lost_detail"]["skipped"].as_u64().expect("a count");
    let what = format!("{aborted} aborts, {seen} of {sent} seen, {skipped} skipped");
    assert_eq!(events.len() as u64, seen - aborted, "{what}");
    assert!(sent.abs_diff(seen) <= MISSING, "{what}");
}

/// How many RSTs the kernel says that it has sent in a namespace.
fn sent_resets(netns: &Netns) -> u64 {
    netns
        .run(|| read_counters(Path::new("/proc/thread-self/net")))
        .expect("a job")
        .and_then(|counts| counts.get(Counter::OutRsts))
        .expect("TcpOutRsts")
}

/// Makes the connections, cuts them off, and waits until all have been reset.
fn fall_silent(netns: &Netns, peer: &Netns, there: Address) {
    let bind = move || TcpListener::bind((there.address, 0));
    let listener = peer.run(bind).expect("a job").expect("a listener");
    let connections: Vec<_> = (0..SILENT)
        .map(|_| {
            thread::sleep(APART);
            watched(netns, &listener)
        })
        .collect();
    peer.go_deaf(&[there]).expect("deaf");
    for [own, _] in &connections {
        let error = (&*own).read(&mut [0]).expect_err("nobody sends");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}
