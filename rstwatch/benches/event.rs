//! What one event costs between `decode` and the output: what is added about its processes, its
//! verdict, and the line that is printed.
//!
//! The budget of the JSON line is 350 ns, that of `complete` for a known process 60 ns, that of the
//! shape of a storm 50 ns, and that of all the stages together 1,000 ns for a refused connect with both
//! ends on this host, which is two events.

use std::{hint::black_box, net::Ipv4Addr, rc::Rc};

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use rstwatch::{
    cause::{HostFacts, Reasons, classify},
    clock::Clock,
    event::{
        Actor, Comm, Context, Direction, Endpoint, Event, Owner, Path, Process, Reason, Segment,
        Socket, TcpFlags, TcpState, Trigger, Via,
    },
    filter::Filter,
    interpret::Interpreter,
    kernel::{self, stack::Stacks},
    netns,
    owner::{
        details::ProcessDetails,
        listeners::Listeners,
        procfs::{self, Holders},
    },
    pipeline::Pipeline,
    sink::{
        Sink,
        json::Json,
        table::{Table, TableOptions},
    },
    storm::Watch,
};
use rstwatch_common::{
    entry::{Task, Tuple},
    record::{
        HAS_SEGMENT, Header, KIND_REFUSED, KIND_SEGMENT_RESET, LAYOUT_VERSION, Refused, Reset,
        SegmentReset,
    },
};
use zerocopy::IntoBytes as _;

const HOST: HostFacts = HostFacts {
    uptime: None,
    reasons: Reasons::All,
};

fn closed_port() -> Event {
    let end = |last, port| Endpoint {
        addr: Ipv4Addr::new(192, 168, 100, last).into(),
        port,
    };
    Event {
        netns: Some(4_026_531_840),
        reason: Some(Reason::NoSocket),
        segment: Some(Segment {
            flags: TcpFlags(TcpFlags::SYN),
            seq: 3_141_592_653,
            ack: 0,
            payload: 0,
            window: 64_240,
            ttl: 64,
        }),
        ..Event::new(
            1_795_208_400_123_456_789,
            Direction::Sent,
            Trigger::Segment,
            end(10, 8080),
            end(20, 51234),
        )
    }
}

fn process() -> Process {
    Process {
        pid: 812_345,
        start_ns: Some(1),
        comm: Comm::from_text(b"nginx"),
        uid: Some(33),
        exe: Some(Rc::from("/usr/sbin/nginx")),
    }
}

fn refused() -> Event {
    Event {
        direction: Direction::Received,
        state: Some(TcpState::SynSent),
        reason: None,
        trigger: Trigger::Received,
        segment: None,
        socket: Some(Socket {
            age_ns: Some(61_234_567),
            held: true,
            ..Socket::default()
        }),
        owner: Some(Owner {
            process: process(),
            via: Via::Connect,
            holders: Vec::new(),
        }),
        ..closed_port()
    }
}

fn unread() -> Event {
    Event {
        state: Some(TcpState::Established),
        reason: Some(Reason::AbortOnClose),
        trigger: Trigger::Active {
            path: Path::Close,
            context: Context::Process,
        },
        segment: None,
        socket: Some(Socket {
            age_ns: Some(12_345_678_901),
            idle_rx_ns: Some(200_000_000),
            idle_tx_ns: Some(100_000_000),
            bytes_sent: 123_456,
            bytes_received: 654_321,
            unread: 64,
            ..Socket::default()
        }),
        actor: Some(Actor {
            process: process(),
            tid: 812_346,
            exiting: false,
            signal: None,
            exit_status: None,
            oom: false,
            kernel_thread: false,
        }),
        ..refused()
    }
}

fn event(c: &mut Criterion) {
    for (name, event) in [
        ("closed-port", closed_port()),
        ("refused", refused()),
        ("closed-with-unread-data", unread()),
    ] {
        let mut group = c.benchmark_group(name);
        group.bench_function("classify", |b| {
            b.iter(|| classify(black_box(&event), black_box(&HOST)));
        });
        let verdict = classify(&event, &HOST);
        let mut out = BytesMut::with_capacity(1 << 16);
        let mut json = Json::default();
        group.bench_function("json", |b| {
            b.iter(|| {
                out.clear();
                json.append(&mut out, black_box(&event), black_box(&verdict));
            });
        });
        let mut table = Table::new(TableOptions::default(), TimeZone::UTC);
        group.bench_function("table", |b| {
            b.iter(|| {
                out.clear();
                table.append(&mut out, black_box(&event), black_box(&verdict));
            });
        });
        group.finish();
    }
}

/// This process stands for the owner and the actor, since it is certain to live.
fn complete(c: &mut Criterion) {
    let mut event = unread();
    let process = procfs::read_process(std::process::id());
    if let (Some(process), Some(owner), Some(actor)) = (process, &mut event.owner, &mut event.actor)
    {
        owner.process.clone_from(&process);
        actor.process = process;
    }
    event.netns = netns::inode_of("/proc/self/ns/net".as_ref()).ok();
    let mut details = ProcessDetails::watch();
    c.bench_function("complete", |b| {
        b.iter(|| details.complete(black_box(&mut event)));
    });
    // Nobody is known to own it: its cgroup tells the place.
    event.owner = None;
    event.actor = None;
    if let Some(socket) = &mut event.socket {
        socket.cgroup = 1;
    }
    c.bench_function("complete by cgroup", |b| {
        b.iter(|| details.complete(black_box(&mut event)));
    });
}

/// What counting an event for the shape of a storm costs: a few clients that come back, which is
/// what storms are; events of several kinds in turn; a scan; a flood from everywhere, in which every
/// address is new.
fn shape(c: &mut Criterion) {
    let mut group = c.benchmark_group("shape");
    let kinds = [closed_port(), refused(), unread()];
    let verdicts = kinds.each_ref().map(|event| classify(event, &HOST));
    let mut n = 0_u32;
    let mut bench = |name, change: &dyn Fn(&mut Event, u32), kinds: &mut [Event]| {
        let mut storm = Watch::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                n = n.wrapping_add(1);
                let kind = n as usize % kinds.len();
                change(&mut kinds[kind], n);
                storm.note(black_box(&kinds[kind]), black_box(&verdicts[kind]));
            });
        });
    };
    let addr = |n: u32| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b9)).into();
    bench(
        "three clients",
        &|event, n| event.remote.addr = Ipv4Addr::new(192, 168, 100, (n % 3) as u8).into(),
        &mut kinds.clone()[..1],
    );
    bench("three kinds", &|_, _| {}, &mut kinds.clone());
    bench(
        "a scan",
        &|event, n| event.local.port = n as u16,
        &mut kinds.clone()[..1],
    );
    bench(
        "a flood",
        &|event, n| event.remote.addr = addr(n),
        &mut kinds.clone()[..1],
    );
    group.finish();
}

/// All stages, from the records of a refused connect over loopback to two lines of JSON. Each connect
/// has another port, as they have.
fn stages(c: &mut Criterion) {
    let interpreter = Interpreter {
        clock: Clock::fixed(0, 4_000_000),
        reasons: kernel::reasons::Reasons::default(),
        stacks: Stacks::unreadable(),
    };
    let mut pipeline = Pipeline::new(
        interpreter,
        Holders::default(),
        Listeners::default(),
        HOST,
        Filter::default(),
        Sink::Json(Json::default()),
        u64::MAX,
    );
    let [mut local, mut remote] = [[0; 16]; 2];
    for addr in [&mut local, &mut remote] {
        addr[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    }
    let tuple = |local_port, remote_port| Tuple {
        local,
        remote,
        local_port,
        remote_port,
        netns: 1,
    };
    let reset = |kind, tuple| Reset {
        header: Header {
            kind,
            version: LAYOUT_VERSION,
            cpu: 0,
            time_ns: 1,
            sock: 0,
        },
        tuple,
        ..Reset::EMPTY
    };
    let process = procfs::read_process(std::process::id()).expect("this process");
    let owner = Task {
        pid: process.pid,
        tid: process.pid,
        start_ns: process.start_ns.unwrap_or_default(),
        ..Task::NONE
    };
    let mut port = 32_768_u16;
    c.bench_function("a refused connect, all stages", |b| {
        b.iter(|| {
            port = port.wrapping_add(1) | 32_768;
            let mut sent = SegmentReset {
                reset: reset(KIND_SEGMENT_RESET, tuple(8080, port)),
            };
            sent.reset.flags = HAS_SEGMENT;
            sent.reset.tcp_flags = TcpFlags::SYN;
            sent.reset.seq = u32::from(port) << 16;
            let mut refused = Refused {
                reset: reset(KIND_REFUSED, tuple(port, 8080)),
                owner,
                born_ns: 1,
                cgroup: 0,
            };
            refused.reset.state = TcpState::SynSent as u8;
            pipeline.record(sent.as_bytes()).expect("a record");
            pipeline.record(refused.as_bytes()).expect("a record");
            if pipeline.buffer().len() > 1 << 16 {
                pipeline.buffer().clear();
            }
        });
    });
}

criterion_group!(benches, event, complete, shape, stages);
criterion_main!(benches);
