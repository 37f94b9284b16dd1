//! Judging and printing an event must not allocate: in a storm that is done a million times a few
//! seconds.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::Ipv4Addr,
};

use bytes::BytesMut;
use jiff::tz::TimeZone;
use rstwatch::{
    cause::{HostFacts, classify},
    event::{
        Actor, Comm, Direction, Endpoint, Event, ListenerEnd, Listening, Owner, Peer, Process,
        Reason, Segment, Socket, TcpFlags, TcpState, Trigger, Via,
    },
    filter::Filter,
    owner::{details::ProcessDetails, procfs},
    sink::{
        json::Json,
        table::{Table, TableOptions},
    },
    storm::{Now, Watch, limit::Limit},
};

/// The system's allocator, which counts what this thread asks it for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises hold for `System` as well.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` through `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn events() -> [Event; 4] {
    let end = |last, port| Endpoint {
        addr: Ipv4Addr::new(10, 0, 0, last).into(),
        port,
    };
    let closed_port = Event {
        netns: Some(1),
        reason: Some(Reason::NoSocket),
        segment: Some(Segment {
            flags: TcpFlags(TcpFlags::SYN),
            seq: 1,
            ack: 2,
            payload: 0,
            window: 3,
            ttl: 64,
        }),
        ..Event::new(
            1_795_208_400_123_456_789,
            Direction::Sent,
            Trigger::Segment,
            end(5, 8080),
            end(9, 51234),
        )
    };
    let refused = Event {
        direction: Direction::Received,
        state: Some(TcpState::SynSent),
        reason: None,
        trigger: Trigger::Received,
        segment: None,
        socket: Some(Socket::default()),
        owner: Some(Owner {
            process: Process {
                pid: 1,
                start_ns: None,
                comm: Comm::from_text(b"hostile\x1b[2J"),
                uid: None,
                exe: None,
            },
            via: Via::Connect,
            holders: Vec::new(),
        }),
        ..closed_port.clone()
    };
    let process = |pid| Process {
        pid,
        start_ns: None,
        comm: Comm::from_text(b"nginx"),
        uid: None,
        exe: None,
    };
    let dead = Actor {
        process: process(2),
        tid: 2,
        exiting: true,
        signal: Some(11),
        exit_status: None,
        oom: false,
        kernel_thread: false,
    };
    let listener_gone = Event {
        listener: Some(Box::new(Listening {
            inode: 0,
            process: process(2),
            age_ns: None,
            ended: Some(ListenerEnd {
                closer: dead.clone(),
                ago_ns: 1_000_000_000,
            }),
        })),
        scan: Some(12),
        ..closed_port.clone()
    };
    let idle_drop = Event {
        state: Some(TcpState::Established),
        socket: Some(Socket {
            idle_rx_ns: Some(350_000_000_000),
            idle_tx_ns: Some(1_000_000),
            unacked: 9,
            ..Socket::default()
        }),
        peer: Some(Box::new(Peer {
            owner: None,
            actor: Some(dead),
            cause: "half-open",
        })),
        ..refused.clone()
    };
    [closed_port, refused, listener_gone, idle_drop]
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocations(|| drop(std::hint::black_box(Box::new(1_u64)))),
        1
    );
}

#[test]
fn an_event_is_judged_and_printed_without_allocating() {
    let host = HostFacts::default();
    let filter = Filter::default();
    let mut json = Json::default();
    let wide = TableOptions {
        wide: true,
        colour: true,
        date: true,
        sentence: false,
    };
    let mut table = Table::new(wide, TimeZone::UTC);
    let mut out = BytesMut::with_capacity(1 << 16);
    let mut run = |events: &[Event]| {
        for event in events {
            let verdict = classify(event, &host);
            assert!(filter.matches(event, &verdict));
            json.append(&mut out, event, &verdict);
            table.append(&mut out, event, &verdict);
        }
    };
    let events = events();
    // The first event of a second works out the date, which may allocate.
    run(&events);
    assert_eq!(allocations(|| run(&events)), 0);
}

#[test]
fn a_known_process_is_looked_up_without_allocating() {
    let [_, mut event, ..] = events();
    let owner = event.owner.as_mut().expect("an owner");
    owner.process = procfs::read_process(std::process::id()).expect("this process");
    event.netns = rstwatch::netns::inode_of("/proc/self/ns/net".as_ref()).ok();
    let mut details = ProcessDetails::watch();
    details.complete(&mut event);
    assert!(
        event
            .owner
            .as_ref()
            .is_some_and(|owner| owner.process.exe.is_some())
    );
    assert_eq!(allocations(|| details.complete(&mut event)), 0);
}

#[test]
fn an_event_is_counted_for_the_shape_without_allocating() {
    let events = events();
    let verdicts = events
        .each_ref()
        .map(|event| classify(event, &HostFacts::default()));
    let mut storm = Watch::default();
    let mut limit = Limit::new(100);
    let mut now = Now::default();
    // Other ports and addresses each time, so that the tables overflow.
    let mut run = |rounds: std::ops::Range<u32>| {
        for round in rounds {
            for (event, verdict) in events.iter().zip(&verdicts) {
                let mut event = event.clone();
                event.local.port = round as u16;
                event.remote.addr = Ipv4Addr::from_bits(round.wrapping_mul(0x9e37_79b9)).into();
                ALLOCATIONS.with(|count| count.set(0));
                storm.note(&event, verdict);
                limit.lets_through(event.direction, verdict.id);
                assert_eq!(ALLOCATIONS.with(Cell::get), 0);
            }
            if round % 100 == 0 {
                now.monotonic_ns += 250_000_000;
                ALLOCATIONS.with(|count| count.set(0));
                let said = storm.tick(now, None);
                // What is said of a storm may allocate: it is said once.
                assert!(said.is_some() || round == 0 || ALLOCATIONS.with(Cell::get) == 0);
            }
        }
    };
    run(0..10_000);
}
