//! Processes that are easily taken for others, or that cannot be seen from here.
//!
//! A socket of the kernel's own is not among the situations: its users (NFS, SMB, RDS, SMC, network
//! block devices and the like) are in few of the kernels that this runs on, and nothing in user
//! space makes one without them. That such a socket gets no owner is tested with values, in
//! `owner`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Situation, Take,
    cast::{Pair, Scene},
    live,
    score::Doer,
};

/// More than the unit of a process's start in `/proc`.
const TICKS: Duration = Duration::from_millis(20);

pub const ALL: &[Situation] = &[
    live("in two network namespaces, joined by a wire", two_netns),
    live(
        "in another PID namespace, the process closes",
        pid_namespace_closes,
    ),
    live(
        "in another PID namespace, the process holds on",
        pid_namespace_holds,
    ),
    live(
        "its PID is another process's by now, then data",
        reused_after_close,
    ),
    live(
        "its opener's PID is another process's by now",
        reused_after_passing,
    ),
    live("connected by a thread, closed by another thread", threads),
];

fn two_netns(scene: &Scene, _: usize) -> Take {
    let mut server = scene.role("server");
    let at = server.listen(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)));
    let mut client = scene.far_role("client");
    let port = client.connect(at).port();
    server.say("accept");
    let mut pair = Pair {
        server,
        client,
        at,
        from: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), port),
    };
    let wanted = [pair.client_aborts(), pair.server_closes_reset()];
    Take::new(wanted, pair.cast())
}

/// A server that is the first process of a PID namespace, and a client that is not.
fn apart(scene: &Scene, rep: usize) -> Pair {
    let mut server = scene.apart("server");
    let at = server.listen(crate::cast::loopback(rep));
    let mut pair = scene.connected(server, at);
    pair.server.say("accept");
    pair
}

fn pid_namespace_closes(scene: &Scene, rep: usize) -> Take {
    let mut pair = apart(scene, rep);
    pair.leave_unread();
    pair.server.say("close");
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::process(pair.server.who()));
    Take::new([sent, pair.client_closes_reset()], pair.cast())
}

fn pid_namespace_holds(scene: &Scene, rep: usize) -> Take {
    let mut pair = apart(scene, rep);
    let sent = pair.client_aborts();
    Take::new([sent, pair.server_receives()], pair.cast())
}

/// A connection that a worker of the client has opened, the worker's PID, and when it was there.
fn opened_by_worker(scene: &Scene, rep: usize) -> (Pair, u32, Instant) {
    let (mut server, at) = scene.listening(rep);
    let mut client = scene.role("client");
    let worker = client.branch();
    let begun = Instant::now();
    let port = client.say(&format!("tell 0 connect {at}"));
    let from = SocketAddr::new(at.ip(), port.parse().expect("a port"));
    server.say("accept");
    let pair = Pair {
        server,
        client,
        at,
        from,
    };
    (pair, worker, begun)
}

/// Another worker gets the PID of the first, which has ended, and another name.
fn reuse(pair: &mut Pair, pid: u32, begun: Instant) {
    // `/proc` tells a start to ten milliseconds. To come to a PID again within that takes millions
    // of forks a second.
    while begun.elapsed() < TICKS {
        thread::yield_now();
    }
    pair.client.say("end 0");
    assert_eq!(pair.client.say(&format!("branch {pid}")), pid.to_string());
    pair.client.say("tell 1 name 6f74686572");
}

fn reused_after_close(scene: &Scene, rep: usize) -> Take {
    let (mut pair, pid, begun) = opened_by_worker(scene, rep);
    pair.client.say("tell 0 close");
    pair.server.say("eof");
    reuse(&mut pair, pid, begun);
    pair.server.sends_in_vain();
    let who = pair.client.as_pid(pid);
    let sent = pair.client_sends().owner(who).actor(Doer::process(who));
    Take::new([sent.gone(), pair.server_receives()], pair.cast())
}

fn reused_after_passing(scene: &Scene, rep: usize) -> Take {
    let (mut pair, pid, begun) = opened_by_worker(scene, rep);
    let mut heir = scene.role("receiver");
    let name = format!("to-{}", heir.pid());
    heir.say(&format!("hear {name}"));
    pair.client.say(&format!("tell 0 pass {name}"));
    heir.say("take");
    reuse(&mut pair, pid, begun);
    let sent = pair.server_aborts();
    let received = pair.client_receives().owner(heir.who());
    Take::new([sent, received], pair.cast().into_iter().chain([heir]))
}

fn threads(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut client = scene.role("client");
    let answer = client.say(&format!("thread connect {at}"));
    let port = answer.split(' ').nth(1).expect("a port");
    let from = SocketAddr::new(at.ip(), port.parse().expect("a port"));
    let mut pair = Pair {
        server,
        client,
        at,
        from,
    };
    pair.server.say("accept");
    pair.leave_unread();
    let answer = pair.server.say("thread close");
    let tid = answer.trim().parse().expect("a thread's id");
    assert_ne!(tid, pair.server.pid());
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::thread(pair.server.who(), tid));
    Take::new([sent, pair.client_closes_reset()], pair.cast())
}
