use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::event::{Comm, Endpoint, Socket, TcpState, Trigger};

const MS: u64 = 1_000_000;

struct Alive(bool);

impl Liveness for Alive {
    fn is_alive(&self, _: &Process) -> bool {
        self.0
    }
}

fn process(pid: u32) -> Process {
    Process {
        pid,
        start_ns: Some(u64::from(pid)),
        comm: Comm::from_text(b"app"),
        uid: Some(0),
        exe: None,
    }
}

fn reset(sock: u64, direction: Direction, trigger: Trigger) -> Sighting {
    let end = |port| Endpoint {
        addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
    };
    Sighting {
        event: Box::new(Event {
            state: Some(TcpState::Established),
            socket: Some(Socket {
                inode: 77,
                held: true,
                ..Socket::default()
            }),
            ..Event::new(0, direction, trigger, end(1), end(2))
        }),
        sock,
        monotonic_ns: 1_000 * MS,
        await_close: false,
        shared: false,
        maybe_data: false,
        answers_data: false,
    }
}

fn received(sock: u64) -> Sighting {
    reset(sock, Direction::Received, Trigger::Received)
}

/// The host's own RST after data for a closed receiving side.
fn answer(sock: u64) -> Observation {
    let mut sighting = reset(sock, Direction::Sent, Trigger::Segment);
    sighting.answers_data = true;
    Observation::Reset(sighting)
}

fn waiting(mut sighting: Sighting) -> Observation {
    sighting.await_close = true;
    Observation::Reset(sighting)
}

/// What came out: whether it was sent, and owner's PID and way.
type Seen = Vec<(Direction, Option<(u32, Via)>)>;

struct Bench {
    owners: Owners<Alive>,
    out: Seen,
}

impl Bench {
    fn new(snapshot: Holders, alive: bool) -> Self {
        Self {
            owners: Owners::new(snapshot, Listeners::default(), Alive(alive)),
            out: Vec::new(),
        }
    }

    fn run(&mut self, step: impl FnOnce(&mut Owners<Alive>, &mut dyn FnMut(Box<Event>))) -> Seen {
        let out = &mut self.out;
        step(&mut self.owners, &mut |event: Box<Event>| {
            out.push((
                event.direction,
                event.owner.map(|owner| (owner.process.pid, owner.via)),
            ));
        });
        std::mem::take(&mut self.out)
    }

    fn observe(&mut self, observation: Observation) -> Seen {
        self.run(|owners, mut out| owners.observe(observation, &mut out))
    }

    fn found(&mut self, holders: &Holders) -> Seen {
        let wanted = self.owners.take_wanted().expect("nothing is searched for");
        self.run(|owners, mut out| owners.found(&wanted, holders, &mut out))
    }

    fn tick(&mut self, after_ms: u64) -> Seen {
        self.run(|owners, mut out| owners.tick((1_000 + after_ms) * MS, &mut out))
    }
}

fn bench() -> Bench {
    Bench::new(Holders::default(), true)
}

#[test]
fn the_process_that_closes_the_reset_socket_owns_it() {
    let mut bench = bench();
    assert_eq!(bench.observe(waiting(received(5))), vec![]);
    assert_eq!(
        bench.observe(Observation::Closed {
            sock: 6,
            closer: Some(process(1)),
        }),
        vec![]
    );
    assert_eq!(
        bench.observe(Observation::Closed {
            sock: 5,
            closer: Some(process(9)),
        }),
        vec![(Direction::Received, Some((9, Via::Close)))]
    );
    assert_eq!(bench.owners.next_deadline_ns(), None);
}

#[test]
fn a_kernel_thread_that_closes_is_no_owner() {
    let mut bench = bench();
    bench.observe(waiting(received(5)));
    assert_eq!(
        bench.observe(Observation::Closed {
            sock: 5,
            closer: None,
        }),
        vec![(Direction::Received, None)]
    );
}

#[test]
fn a_process_that_holds_on_is_searched_for_after_200_ms() {
    let mut bench = bench();
    bench.observe(waiting(received(5)));
    assert_eq!(bench.tick(199), vec![]);
    assert_eq!(bench.owners.take_wanted(), None);
    assert_eq!(bench.tick(200), vec![]);
    let wanted = bench.owners.take_wanted().unwrap();
    assert_eq!(wanted, BTreeSet::from([77]));
    let mut holders = Holders::default();
    holders.add(77, &process(4));
    assert_eq!(
        bench.run(|owners, mut out| owners.found(&wanted, &holders, &mut out)),
        vec![(Direction::Received, Some((4, Via::Procfs)))]
    );
}

#[test]
fn a_search_that_finds_nobody_gives_no_owner() {
    let mut bench = bench();
    bench.observe(waiting(received(5)));
    bench.tick(300);
    let wanted = bench.owners.take_wanted().unwrap();
    assert_eq!(
        bench.run(|owners, mut out| owners.found(&wanted, &Holders::default(), &mut out)),
        vec![(Direction::Received, None)]
    );
}

#[test]
fn what_existed_before_the_start_is_known_while_its_process_lives() {
    let mut snapshot = Holders::default();
    snapshot.add(77, &process(3));
    let mut alive = Bench::new(snapshot.clone(), true);
    assert_eq!(
        alive.observe(Observation::Reset(received(5))),
        vec![(Direction::Received, Some((3, Via::Snapshot)))]
    );
    let mut dead = Bench::new(snapshot, false);
    assert_eq!(
        dead.observe(Observation::Reset(received(5))),
        vec![(Direction::Received, None)]
    );
}

#[test]
fn a_received_reset_that_a_sent_one_follows_was_none() {
    let mut bench = bench();
    let mut maybe = received(5);
    maybe.maybe_data = true;
    assert_eq!(bench.observe(Observation::Reset(maybe.clone())), vec![]);
    assert_eq!(bench.observe(answer(5)), vec![(Direction::Sent, None)]);
    assert_eq!(bench.tick(1_000), vec![]);

    // On another socket it is not its answer.
    bench.observe(Observation::Reset(maybe));
    bench.observe(answer(6));
    // Nor is another reset of a socket that got its address.
    bench.observe(Observation::Reset(reset(
        5,
        Direction::Sent,
        Trigger::Segment,
    )));
    assert_eq!(bench.owners.take_unreceived().len(), 1);
    assert_eq!(bench.tick(4), vec![]);
    assert_eq!(bench.tick(5), vec![(Direction::Received, None)]);
}

#[test]
fn an_answer_takes_back_the_last_reset_of_its_own_connection_only() {
    let mut bench = bench();
    let port = |mut sighting: Sighting, port| {
        sighting.event.remote.port = port;
        sighting
    };
    let maybe = |at| {
        let mut sighting = port(received(5), at);
        sighting.maybe_data = true;
        Observation::Reset(sighting)
    };
    let answer = |at| {
        let mut sighting = port(reset(5, Direction::Sent, Trigger::Segment), at);
        sighting.answers_data = true;
        Observation::Reset(sighting)
    };
    // An orphan got a RST and was gone; the next socket got its address, and data after its close.
    bench.observe(maybe(1));
    bench.observe(maybe(2));
    bench.observe(answer(2));
    let taken = bench.owners.take_unreceived();
    assert_eq!(
        taken
            .iter()
            .map(|event| event.remote.port)
            .collect::<Vec<_>>(),
        [2]
    );
    // What that one met had no room in the ring: nothing of it waits.
    bench.observe(answer(3));
    assert!(bench.owners.take_unreceived().is_empty());
    assert_eq!(bench.tick(5), vec![(Direction::Received, None)]);
}

fn closed(sock: u64, pid: u32) -> Observation {
    Observation::Closed {
        sock,
        closer: Some(process(pid)),
    }
}

#[test]
fn after_the_close_of_its_socket_no_answer_is_waited_for() {
    let mut bench = bench();
    let mut maybe = received(5);
    maybe.maybe_data = true;
    bench.observe(waiting(maybe));
    let shown = vec![(Direction::Received, Some((2, Via::Close)))];
    assert_eq!(bench.observe(closed(5, 2)), shown);
    assert_eq!(bench.tick(1_000), vec![]);
}

#[test]
fn who_closes_the_next_socket_at_an_address_does_not_own_the_one_before() {
    let mut bench = bench();
    let mut shared = received(5);
    shared.shared = true;
    bench.observe(waiting(shared));
    assert_eq!(bench.observe(closed(5, 2)), vec![]);
    assert_eq!(bench.observe(closed(5, 3)), vec![]);
    assert_eq!(
        bench.found(&Holders::default()),
        vec![(Direction::Received, Some((2, Via::Close)))]
    );
}

fn of_a_listener(via: Via) -> Sighting {
    let mut sighting = reset(5, Direction::Sent, Trigger::Segment);
    sighting.event.state = Some(TcpState::Listen);
    sighting.event.owner = Some(Owner {
        process: process(2),
        via,
        holders: Vec::new(),
    });
    sighting
}

#[test]
fn a_listener_that_outlived_who_listened_is_searched_for() {
    for via in [Via::Listen, Via::Snapshot] {
        let mut bench = Bench::new(Holders::default(), false);
        assert_eq!(
            bench.observe(Observation::Reset(of_a_listener(via))),
            vec![]
        );
        let mut holders = Holders::default();
        holders.add(77, &process(3));
        assert_eq!(
            bench.found(&holders),
            vec![(Direction::Sent, Some((3, Via::Procfs)))]
        );
    }
}

#[test]
fn a_listener_belongs_to_who_listens_while_that_lives() {
    assert_eq!(
        bench().observe(Observation::Reset(of_a_listener(Via::Listen))),
        vec![(Direction::Sent, Some((2, Via::Listen)))]
    );
}

#[test]
fn nothing_is_lost_at_the_end() {
    let mut bench = bench();
    let mut maybe = received(5);
    maybe.maybe_data = true;
    bench.observe(Observation::Reset(maybe));
    bench.observe(waiting(received(6)));
    bench.observe(waiting(received(7)));
    bench.tick(4);
    let seen = bench.run(|owners, mut out| owners.finish(&mut out));
    assert_eq!(seen.len(), 3);
    assert_eq!(bench.owners.next_deadline_ns(), None);
}

#[test]
fn more_than_may_wait_go_on_and_are_counted() {
    let mut bench = bench();
    for sock in 1..=MOST_WAITING as u64 {
        assert_eq!(bench.observe(waiting(received(sock))), vec![]);
    }
    assert_eq!(bench.observe(waiting(received(0))).len(), 1);
    assert_eq!(bench.owners.overflowed(), 1);
}

#[test]
fn who_held_a_socket_and_is_gone_does_not_own_it_when_too_many_wait() {
    let mut snapshot = Holders::default();
    snapshot.add(77, &process(3));
    let mut bench = Bench::new(snapshot, false);
    for sock in 1..=MOST_WAITING as u64 {
        bench.observe(waiting(received(sock)));
    }
    assert_eq!(
        bench.observe(waiting(received(0))),
        vec![(Direction::Received, None)]
    );
}

#[test]
fn the_kernels_own_sockets_have_no_owner_and_do_not_wait() {
    let mut bench = bench();
    let mut sighting = received(5);
    sighting.await_close = true;
    if let Some(socket) = &mut sighting.event.socket {
        socket.kernel_owned = true;
    }
    assert_eq!(
        bench.observe(Observation::Reset(sighting)),
        vec![(Direction::Received, None)]
    );
}

#[test]
fn a_socket_that_was_passed_on_belongs_to_whoever_closes_it() {
    let mut bench = bench();
    let mut sighting = received(5);
    sighting.event.owner = Some(Owner {
        process: process(1),
        via: Via::Connect,
        holders: vec![],
    });
    let close = |pid| Observation::Closed {
        sock: 5,
        closer: Some(process(pid)),
    };
    bench.observe(waiting(sighting.clone()));
    assert_eq!(
        bench.observe(close(1)),
        vec![(Direction::Received, Some((1, Via::Connect)))]
    );
    bench.observe(waiting(sighting));
    assert_eq!(
        bench.observe(close(2)),
        vec![(Direction::Received, Some((2, Via::Close)))]
    );
}

#[test]
fn the_holders_of_a_shared_socket_are_searched_for_at_once() {
    let mut bench = bench();
    let mut sighting = received(5);
    sighting.event.owner = Some(Owner {
        process: process(4),
        via: Via::Connect,
        holders: vec![],
    });
    sighting.shared = true;
    bench.observe(waiting(sighting));
    let wanted = bench.owners.take_wanted().unwrap();
    // Its close meanwhile tells less.
    assert_eq!(
        bench.observe(Observation::Closed {
            sock: 5,
            closer: Some(process(3)),
        }),
        vec![]
    );
    let mut holders = Holders::default();
    holders.add(77, &process(3));
    holders.add(77, &process(4));
    let mut named = Vec::new();
    bench.owners.found(&wanted, &holders, &mut |event| {
        let owner = event.owner.unwrap();
        named.push((owner.process.pid, owner.via, owner.holders));
    });
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].2, [3, 4]);
}

#[test]
fn a_connection_not_yet_accepted_is_its_listeners_holders() {
    let mut bench = Bench::new(Holders::default(), false);
    bench
        .owners
        .observe(Observation::Listener(listening(2, 99)), &mut |_| {});
    let mut sighting = received(5);
    sighting.event.netns = Some(1);
    if let Some(socket) = &mut sighting.event.socket {
        socket.held = false;
        socket.inode = 0;
    }
    assert_eq!(bench.observe(Observation::Reset(sighting)), vec![]);
    let mut holders = Holders::default();
    holders.add(99, &process(3));
    assert_eq!(
        bench.found(&holders),
        vec![(Direction::Received, Some((3, Via::Listener)))]
    );
}

fn listening(pid: u32, inode: u64) -> crate::interpret::Listener {
    crate::interpret::Listener {
        netns: 1,
        local: received(5).event.local,
        sock: 9,
        inode,
        monotonic_ns: 0,
        by: crate::fixture::actor(pid, "parent"),
        ends: false,
    }
}

#[test]
fn an_unknown_owner_has_its_reason() {
    let why = |change: &dyn Fn(&mut Event)| {
        let mut event = received(5).event;
        change(&mut event);
        why_unknown(&event)
    };
    let socket = |held, orphan, kernel_owned| {
        why(&|event| {
            event.socket = Some(Socket {
                orphan,
                held,
                kernel_owned,
                ..Socket::default()
            });
        })
    };
    let reasons = [
        socket(true, false, true),
        socket(true, false, false),
        socket(false, true, false),
        socket(false, false, false),
        why(&|event| event.socket = None),
    ];
    let distinct: BTreeSet<_> = reasons.iter().map(|reason| reason.unwrap()).collect();
    assert_eq!(distinct.len(), reasons.len());
    // A port where nobody listens has no owner to be known.
    assert_eq!(
        why(&|event| {
            event.socket = None;
            event.state = None;
        }),
        None
    );
    assert_eq!(
        why(&|event| event.owner = crate::fixture::unread().owner),
        None
    );
}
