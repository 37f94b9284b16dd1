//! How old a connection is: its beginning is what the clock said earlier in the same jiffy.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::{
        signal::Signal,
        socket::{setsockopt, sockopt},
    },
};
use rstwatch::scenario::netns::Netns;

use crate::tracer::{Tracer, calm};

/// So many that most begin in a jiffy that another one has begun in.
const CONNECTIONS: usize = 200;

/// How old they become.
const AGE: Duration = Duration::from_millis(100);

/// How much too old a connection may be said to be. A jiffy is 10 ms at the most, but begins late where the
/// processor that counts them is taken away.
const TOO_OLD: Duration = Duration::from_millis(200);

/// A connection, and when it began at the earliest and at the latest.
struct Connection {
    client: TcpStream,
    /// Held until the other end has reset it.
    _server: TcpStream,
    earliest: Instant,
    latest: Instant,
}

/// Opens connections to itself, lets them grow old, and resets them. Returns how old each was, by its
/// client's port: at the least and at the most.
fn grow_old() -> HashMap<u64, (Duration, Duration)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let earliest = Instant::now();
            let client = TcpStream::connect(address).expect("a connection");
            let latest = Instant::now();
            let (server, _) = listener.accept().expect("a connection");
            Connection {
                client,
                _server: server,
                earliest,
                latest,
            }
        })
        .collect();
    thread::sleep(AGE);
    let abort = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let aborted = connections.into_iter().map(|connection| {
        let client = connection.client;
        let port = client.local_addr().expect("an address").port();
        setsockopt(&client, sockopt::Linger, &abort).expect("an option");
        let least = connection.latest.elapsed();
        drop(client);
        (u64::from(port), (least, connection.earliest.elapsed()))
    });
    aborted.collect()
}

#[test]
fn connections_are_as_old_as_they_are() {
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let tracer = Tracer::watching([netns.inode()], ["-j", "--sent"]);
    let ages = netns.run(grow_old).expect("a job");
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    assert_eq!(events.len(), CONNECTIONS);
    for event in &events {
        let port = event["local"]["port"].as_u64().expect("a port");
        let (least, most) = ages[&port];
        let age = event["socket"]["age_s"].as_f64().expect("an age");
        // Told to the microsecond.
        let told = Duration::from_secs_f64(age) + Duration::from_micros(1);
        assert!(
            least <= told && told <= most + TOO_OLD,
            "{least:?} to {most:?}, and told as {told:?}: {event}"
        );
    }
}
