//! Real storms, and what is said of them.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use rstwatch::scenario::{
    netns::Netns,
    player::{Player, STEP},
};
use serde_json::Value;

use crate::tracer::{Scratch, Tracer, binary, storm};

/// Has clients connect in `netns` to one port of `ports` after the other, each time to be refused,
/// while `meanwhile` runs.
fn refuse<T>(netns: &Netns, ports: Range<u16>, meanwhile: impl FnOnce() -> T) -> T {
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let until = std::sync::Arc::clone(&done);
    let connect = move || {
        for port in ports.cycle() {
            if until.load(Ordering::Relaxed) {
                return;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // A port that happens to be the client's own connects to itself; that is no reset.
            drop(TcpStream::connect(address));
        }
    };
    thread::scope(|scope| {
        let storm = scope.spawn(|| netns.run(connect));
        // A panic must end the storm as well, or the scope would wait for it for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        done.store(true, Ordering::Relaxed);
        let ended = storm.join().expect("the storm panicked");
        ended.expect("a namespace");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A tracer whose lines are those of storms alone.
fn tracer(format: &[&str]) -> Tracer {
    let scratch = Scratch::new();
    let mut command = std::process::Command::new(binary());
    let stdout = std::fs::File::create(scratch.path("stdout")).expect("cannot make a file");
    // No reset has this cause, and a storm is told whatever the filter shows.
    command.args(["--cause", "firewall-reject"]).args(format);
    command.stdout(stdout);
    Tracer::spawn(command, scratch)
}

fn report(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).expect("JSON");
    value["storm"].clone()
}

#[test]
fn a_crash_is_told_from_beginning_to_end() {
    let _storm = storm();
    let netns = Netns::new().expect("a namespace");
    let mut server = Player::start("server", &netns, &binary()).expect("a server");
    let mut tracer = tracer(&["-j"]);
    let port = server
        .ask("listen 127.0.0.1:0", STEP)
        .and_then(|answer| answer.demand(None))
        .expect("a port");
    let port: u16 = port.parse().expect("a port");
    let pid = server.pid();
    server.end_by("crash").expect("a process");

    let begin = refuse(&netns, port..port + 1, || {
        report(&tracer.await_text("{\"storm\":{\"phase\":\"begin\""))
    });
    let lead = &begin["lead"];
    assert_eq!(lead["cause"], "listener-gone", "{begin}");
    assert_eq!(lead["direction"], "sent", "{begin}");
    assert_eq!(
        (&lead["port"], &lead["side"]),
        (&port.into(), &"local".into())
    );
    assert_eq!(lead["listener"]["pid"], pid, "{begin}");
    assert_eq!(lead["listener"]["end"], "was killed by SIGSEGV", "{begin}");
    assert_eq!(lead["source"], "127.0.0.1", "{begin}");
    assert!(
        lead["share"].as_f64().is_some_and(|share| share > 0.9),
        "{begin}"
    );
    assert_eq!(begin["detail"]["both_ends_here"], true, "{begin}");
    let verdict = begin["verdict"].as_str().expect("a sentence");
    let who =
        format!("listener-gone on :{port}, whose listener server[{pid}] was killed by SIGSEGV at ");
    assert!(verdict.contains(&who), "{verdict}");
    // RFC 3339 in UTC: they compare as text.
    let gone = lead["listener"]["time"].as_str().expect("a time");
    let since = begin["since"].as_str().expect("a time");
    assert!(gone <= since, "{since} is before {gone}");

    let end = report(&tracer.await_text("{\"storm\":{\"phase\":\"end\""));
    assert_eq!(end["since"], begin["since"]);
    assert_eq!(end["lead"]["listener"], lead["listener"]);
    assert!(end["until"].as_str() > end["since"].as_str(), "{end}");
    let counted = |report: &Value| report["counted"]["sent"].as_u64().expect("a number");
    assert!(counted(&end) >= counted(&begin), "{begin}, {end}");
    let done = tracer.stop(Signal::SIGINT);
    let (events, summary) = done.json();
    assert_eq!(events, Vec::<Value>::new());
    assert!(
        counted(&end) <= summary["sent"].as_u64().expect("a number"),
        "{end}, {summary}"
    );
}

#[test]
fn a_scan_is_told_in_words() {
    let _storm = storm();
    let netns = Netns::new().expect("a namespace");
    let mut tracer = tracer(&[]);
    let line = refuse(&netns, 1..200, || tracer.await_text("storm since "));
    assert!(line.starts_with("== "), "{line}");
    let shape = refuse(&netns, 1..200, || tracer.await_text(" a scan of "));
    assert!(shape.contains("closed-port"), "{shape}");
    let (_, ports) = shape.split_once(" a scan of ").expect("a scan");
    let ports = ports.trim_start_matches("more than ");
    let count = ports.split(' ').next().and_then(|n| n.parse().ok());
    // Others on this host may have met a closed port of their own.
    assert!(count.is_some_and(|count: u32| count >= 199), "{shape}");
    let done = tracer.stop(Signal::SIGINT);
    assert!(done.status.success(), "{done:?}");
}
