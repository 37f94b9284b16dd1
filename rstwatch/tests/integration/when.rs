//! When a refused connect was reset: TCP's own reading of the clock is taken for it where there is one, and must be
//! no worse.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use rstwatch::scenario::netns::Netns;
use serde_json::Value;

use crate::tracer::{Tracer, calm};

/// So many that most begin in a jiffy that another one has begun in.
const CONNECTS: usize = 300;

/// By how much the wall clock may have been set since rstwatch learnt what it is.
const SET: Duration = Duration::from_millis(2);

fn time(event: &Value) -> SystemTime {
    let time = event["time"].as_str().expect("a time");
    time.parse::<jiff::Timestamp>().expect("a time").into()
}

#[test]
fn both_ends_of_a_refused_connect_are_told_in_their_order_and_within_it() {
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let mut tracer = Tracer::watching([netns.inode()], ["-j"]);
    let connects = netns.run(|| {
        let connect = |_| {
            let before = SystemTime::now();
            TcpStream::connect((Ipv4Addr::LOCALHOST, 9)).expect_err("nobody listens there");
            (before, SystemTime::now())
        };
        (0..CONNECTS).map(connect).collect::<Vec<_>>()
    });
    tracer.await_lines(2 * CONNECTS);
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    let (ends, rest) = events.as_chunks();
    assert!(rest.is_empty());
    for ([sent, received], (before, after)) in ends.iter().zip(connects.expect("a job")) {
        assert_eq!(
            (&sent["direction"], &received["direction"]),
            (&"sent".into(), &"received".into())
        );
        assert_eq!(sent["remote"], received["local"]);
        let (sent, received) = (time(sent), time(received));
        assert!(
            before - SET <= sent,
            "sent at {sent:?}, begun at {before:?}"
        );
        assert!(
            sent < received,
            "sent at {sent:?}, received at {received:?}"
        );
        assert!(
            received <= after + SET,
            "received at {received:?}, over at {after:?}"
        );
    }
}
