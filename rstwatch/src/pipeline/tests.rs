//! What is put off or taken over from an event before must not show.

use foldhash::HashMap;
use jiff::tz::TimeZone;
use proptest::{collection::vec, prelude::*, sample};
use rstwatch_common::{
    COMM_LEN,
    entry::{Task, Tuple},
    record::{
        Closed, HAS_SEGMENT, Header, KIND_CLOSED, KIND_LISTEN, KIND_LISTEN_END, KIND_REFUSED,
        KIND_SEGMENT_RESET, LAYOUT_VERSION, Listener, Reset,
    },
};
use zerocopy::IntoBytes as _;

use super::*;
use crate::{
    cause::Reasons,
    event::{TcpFlags, TcpState},
    kernel::{reasons, stack::Stacks},
    sink::{
        json::Json,
        table::{Table, TableOptions},
    },
    storm::Window,
};

const MS: u64 = 1_000_000;

/// When the records begin, and the clock of all processes is well ahead of their birth.
const START_NS: u64 = 1_000_000 * MS;

fn pipeline(sink: Sink, filter: Filter) -> Pipeline {
    let interpreter = Interpreter {
        clock: Clock::fixed(i128::from(crate::fixture::TIME_NS), 4 * MS),
        reasons: reasons::Reasons::default(),
        stacks: Stacks::unreadable(),
    };
    let host = HostFacts {
        uptime: None,
        reasons: Reasons::All,
    };
    let (holders, listeners) = (Holders::default(), Listeners::default());
    Pipeline::new(interpreter, holders, listeners, host, filter, sink, 1_000)
}

fn header(kind: u16, time_ns: u64) -> Header {
    Header {
        kind,
        version: LAYOUT_VERSION,
        cpu: 0,
        time_ns,
        sock: 0,
    }
}

fn reset(kind: u16, time_ns: u64, tuple: Tuple) -> Reset {
    Reset {
        header: header(kind, time_ns),
        tuple,
        ..Reset::EMPTY
    }
}

/// A record that tells of nothing, but could: nothing is taken over beyond it.
fn nothing() -> Closed {
    Closed {
        header: header(KIND_CLOSED, START_NS),
        closer: Task::NONE,
    }
}

/// A connect that is refused: what connects may have in common, and their own.
#[derive(Clone, Debug)]
struct Connect {
    service: u16,
    v6: bool,
    netns: u32,
    ttl: u8,
    ack: bool,
    pid: u32,
    cgroup: u64,
    port: u16,
    seq: u32,
    tid: u32,
    age_ns: u64,
    /// Of those before, how long after them it comes; then when.
    at_us: u64,
    /// Makes the times of its records, in nanoseconds, none of another's: events of one time are in any order.
    number: u64,
    answered_after_us: u64,
    lost: Option<Direction>,
    backwards: bool,
}

/// A refused connect, that of the number.
fn connect(number: u64) -> Connect {
    Connect {
        service: 8_080,
        v6: false,
        netns: 1,
        ttl: 64,
        ack: false,
        pid: 4_000_001,
        cgroup: 0,
        port: 40_000 + number as u16,
        seq: 1,
        tid: 1,
        age_ns: 1_000,
        at_us: 10 * number,
        number: 0,
        answered_after_us: 2,
        lost: None,
        backwards: false,
    }
}

impl Connect {
    fn local(&self) -> [u8; 16] {
        let mut addr = [0; 16];
        if self.v6 {
            addr[15] = 1;
        } else {
            addr[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        }
        addr
    }

    /// Its records, with their times.
    fn records(&self) -> Vec<(u64, Vec<u8>)> {
        let time_ns = START_NS + self.at_us * 1_000 + 2 * self.number;
        let tuple = Tuple {
            local: self.local(),
            remote: self.local(),
            local_port: self.service,
            remote_port: self.port,
            netns: self.netns,
        };
        let mut opening = SegmentReset {
            reset: reset(KIND_SEGMENT_RESET, time_ns, tuple),
        };
        opening.reset.flags = HAS_SEGMENT;
        opening.reset.tcp_flags = TcpFlags::SYN | if self.ack { TcpFlags::ACK } else { 0 };
        opening.reset.ttl = self.ttl;
        opening.reset.seq = self.seq;
        let after_ns = time_ns + self.answered_after_us * 1_000 + 1;
        let tuple = Tuple {
            local_port: self.port,
            remote_port: self.service,
            ..tuple
        };
        let mut comm = [0; COMM_LEN];
        comm[..3].copy_from_slice(b"app");
        let mut refused = Refused {
            reset: reset(KIND_REFUSED, after_ns, tuple),
            owner: Task {
                pid: self.pid,
                tid: self.tid,
                comm,
                start_ns: 5 * MS,
                ..Task::NONE
            },
            born_ns: after_ns - self.age_ns,
            cgroup: self.cgroup,
        };
        refused.reset.state = TcpState::SynSent as u8;
        let mut records = vec![
            (time_ns, opening.as_bytes().to_vec()),
            (after_ns, refused.as_bytes().to_vec()),
        ];
        if self.backwards {
            (records[0].0, records[1].0) = (records[1].0, records[0].0);
        }
        match self.lost {
            Some(Direction::Sent) => drop(records.remove(0)),
            Some(Direction::Received) => drop(records.remove(1)),
            None => {}
        }
        records
    }
}

/// Mostly the first of `values`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = T> {
    let first = values[0].clone();
    prop_oneof![6 => Just(first), 1 => sample::select(values)]
}

fn any_connect() -> impl Strategy<Value = Connect> {
    let common = (
        mostly(vec![8_080, 81]),
        mostly(vec![false, true]),
        mostly(vec![1, 2]),
        mostly(vec![64, 63]),
        mostly(vec![false, true]),
        mostly(vec![4_000_001, 4_000_002]),
        mostly(vec![0, 7]),
    );
    let own = (
        40_000..40_006_u16,
        any::<u32>(),
        1..3_u32,
        0..3 * MS,
        prop_oneof![8 => 0..60_u64, 1 => 0..20_000_u64],
        0..60_u64,
        mostly(vec![None, Some(Direction::Sent), Some(Direction::Received)]),
        mostly(vec![false, true]),
    );
    (common, own).prop_map(|(common, own)| {
        let (service, v6, netns, ttl, ack, pid, cgroup) = common;
        let (port, seq, tid, age_ns, at_us, answered_after_us, lost, backwards) = own;
        Connect {
            service,
            v6,
            netns,
            ttl,
            ack,
            pid,
            cgroup,
            port,
            seq,
            tid,
            age_ns,
            at_us,
            number: 0,
            answered_after_us,
            lost,
            backwards,
        }
    })
}

/// A listener on the service that begins, and ends.
fn any_listener() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    (0..40_000_u64, 0..20_000_u64).prop_map(|(at_us, for_us)| {
        vec![
            listener(KIND_LISTEN, at_us),
            listener(KIND_LISTEN_END, at_us + for_us),
        ]
    })
}

/// The record of a listener on the service, with its time.
fn listener(kind: u16, at_us: u64) -> (u64, Vec<u8>) {
    let time_ns = START_NS + at_us * 1_000;
    let listener = Listener {
        header: header(kind, time_ns),
        tuple: Tuple {
            local: [0; 16],
            local_port: 8_080,
            netns: 1,
            ..Tuple::EMPTY
        },
        task: Task {
            pid: 4_000_003,
            start_ns: 5 * MS,
            ..Task::NONE
        },
        inode: 9,
    };
    (time_ns, listener.as_bytes().to_vec())
}

fn any_filter() -> impl Strategy<Value = Filter> {
    sample::select(vec![
        Filter::default(),
        Filter {
            remote_ports: vec![8_080, 40_001, 40_002],
            ..Filter::default()
        },
        Filter {
            pids: vec![4_000_001],
            ..Filter::default()
        },
    ])
}

/// Connects one after the other: a port is used again when the connect before is over.
fn any_connects() -> impl Strategy<Value = Vec<Connect>> {
    vec(any_connect(), 1..60).prop_map(|mut connects| {
        let mut now_us = 0;
        let mut free_us = HashMap::<u16, u64>::default();
        for (number, connect) in (1..).zip(&mut connects) {
            connect.number = number;
            let free_us = free_us.entry(connect.port).or_default();
            now_us = (now_us + connect.at_us).max(*free_us);
            connect.at_us = now_us;
            *free_us = now_us + connect.answered_after_us + 1;
        }
        connects
    })
}

/// What was counted of a storm, in an order of its own: rows that are equally frequent have none.
fn counted(pipeline: &mut Pipeline) -> Vec<String> {
    let (storm, _) = pipeline.storm_and_recent();
    let shape = storm.shape(Window::Ever, 99);
    let mut rows = vec![format!(
        "{} {} {}",
        shape.sent, shape.received, shape.both_ends
    )];
    rows.extend(shape.causes.rows.iter().map(|row| format!("{row:?}")));
    rows.extend(shape.owners.rows.iter().map(|row| format!("{row:?}")));
    rows.extend(shape.ports.rows.iter().map(|row| format!("{row:?}")));
    rows.extend(shape.addrs.rows.iter().map(|row| format!("{row:?}")));
    rows.extend(shape.nets.rows.iter().map(|row| format!("{row:?}")));
    rows.sort();
    rows
}

proptest! {
    #[test]
    fn connects_that_are_alike_read_as_if_each_were_alone(
        connects in any_connects(),
        listener in prop::option::of(any_listener()),
        ticks in vec(0..60_u64, 0..4),
        filter in any_filter(),
        table: bool,
        limit in prop::option::weighted(0.2, 1..20_u32),
    ) {
        let mut records: Vec<_> = connects.iter().flat_map(Connect::records).collect();
        records.extend(listener.into_iter().flatten());
        records.sort_by_key(|(time_ns, _)| *time_ns);
        let mut both = [(); 2].map(|()| {
            let sink = if table {
                Sink::Table(Table::new(TableOptions::default(), TimeZone::UTC))
            } else {
                Sink::Json(Json::default())
            };
            let mut pipeline = pipeline(sink, filter.clone());
            if let Some(limit) = limit.and_then(NonZeroU32::new) {
                pipeline.limit_rate(limit);
            }
            pipeline.reading_at(START_NS);
            pipeline
        });
        for (at, (time_ns, record)) in records.iter().enumerate() {
            let [together, alone] = &mut both;
            alone.record(nothing().as_bytes()).expect("a record");
            for pipeline in [together, alone] {
                pipeline.record(record).expect("a record");
                if ticks.contains(&(at as u64)) {
                    pipeline.reading_at(*time_ns);
                    pipeline.tick(*time_ns);
                }
            }
        }
        let told = both.map(|mut pipeline| {
            pipeline.finish();
            let text = String::from_utf8(pipeline.buffer().to_vec()).expect("UTF-8");
            (counted(&mut pipeline), pipeline.tally().clone(), text)
        });
        let [together, alone] = told;
        prop_assert_eq!(together.2, alone.2);
        prop_assert_eq!(together.1, alone.1);
        prop_assert_eq!(together.0, alone.0);
    }
}

/// The events of records, in the order of their times.
fn told(mut records: Vec<(u64, Vec<u8>)>) -> Vec<serde_json::Value> {
    records.sort_by_key(|(time_ns, _)| *time_ns);
    let mut pipeline = pipeline(Sink::Json(Json::default()), Filter::default());
    for (_, record) in records {
        pipeline.record(&record).expect("a record");
    }
    pipeline.finish();
    let text = String::from_utf8(pipeline.buffer().to_vec()).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The ports that connected, and the evidence of their being refused.
fn evidence(events: &[serde_json::Value]) -> Vec<(u64, String)> {
    (events.iter())
        .filter(|event| event["direction"] == "sent")
        .map(|event| {
            let port = event["remote"]["port"].as_u64().expect("a port");
            (port, event["cause"]["evidence"].to_string())
        })
        .collect()
}

#[test]
fn a_scan_shows_in_connects_like_those_before_it() {
    let mut connects: Vec<_> = (0..20).map(connect).collect();
    for (service, connect) in (9_000..).zip(&mut connects[4..16]) {
        connect.service = service;
    }
    let told = told(connects.iter().flat_map(Connect::records).collect());
    for (port, evidence) in evidence(&told) {
        // The tenth port is that of the thirteenth connect.
        assert_eq!(
            evidence.contains("closed ports"),
            port >= 40_012,
            "{port}: {evidence}"
        );
    }
}

#[test]
fn connects_are_not_like_one_from_before_a_listener() {
    let mut first = connect(0);
    first.answered_after_us = 20;
    let mut records = first.records();
    records.push(listener(KIND_LISTEN, 5));
    records.extend([4, 5, 6].map(connect).iter().flat_map(Connect::records));
    let told = evidence(&told(records));
    assert_eq!(told.len(), 4);
    for (port, evidence) in told {
        let listens = evidence.contains("listens on this port");
        assert_eq!(listens, port > 40_000, "{port}: {evidence}");
    }
}
