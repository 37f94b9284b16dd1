//! Sockets that change hands, or that are in several at once.

use crate::{
    Situation, Take,
    cast::{Pair, Role, Scene},
    live,
    score::{Doer, Who},
    tracer::is_since,
};

pub const ALL: &[Situation] = &[
    live(
        "passed (SCM_RIGHTS), the accepted end, held on to",
        passed_accepted,
    ),
    live(
        "passed (SCM_RIGHTS), the connected end, closed",
        passed_connected,
    ),
    live("passed (SCM_RIGHTS), the receiver resets", passed_resets),
    live("duplicated, one copy closed", duplicated),
    live("duplicated, both copies held", duplicated_both),
    live("forked, parent and child hold", forked_both),
    live("forked, only the child holds", forked_child),
    live("forked, the child resets", forked_resets),
    live("pre-forked, one of eight workers, closes", preforked_closes),
    live(
        "pre-forked, one of eight workers, holds on",
        preforked_holds,
    ),
    live(
        "listener of a daemon, an ACK for no connection",
        daemon_listening,
    ),
    live(
        "listener of a daemon, not yet accepted",
        daemon_not_accepted,
    ),
    live("io_uring, connected and accepted", uring),
    live(
        "io_uring, direct, accepted, closed by the ring",
        direct_accepted,
    )
    .since(5, 19),
    live(
        "io_uring, direct, connected, closed by the ring",
        direct_connected,
    )
    .since(5, 19),
    live(
        "io_uring, direct, connected, closed by its end",
        direct_connected_ended,
    )
    .since(5, 19),
];

/// Another process of the same host has the server's connection.
fn pass_on(scene: &Scene, giver: &mut Role) -> Role {
    let mut heir = scene.role("receiver");
    let name = format!("to-{}", heir.pid());
    heir.say(&format!("hear {name}"));
    giver.say(&format!("pass {name}"));
    giver.say("close");
    heir.say("take");
    heir
}

fn passed_accepted(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let heir = pass_on(scene, &mut pair.server);
    let sent = pair.client_aborts();
    let received = pair.server_receives().owner(heir.who());
    Take::new([sent, received], pair.cast().into_iter().chain([heir]))
}

fn passed_connected(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let mut heir = pass_on(scene, &mut pair.client);
    let sent = pair.server_aborts();
    heir.is_reset();
    heir.say("close");
    let received = pair.client_receives().owner(heir.who());
    Take::new([sent, received], pair.cast().into_iter().chain([heir]))
}

fn passed_resets(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let mut heir = pass_on(scene, &mut pair.client);
    heir.say("linger0");
    heir.say("close");
    let sent = pair
        .client_sends()
        .owner(heir.who())
        .actor(Doer::process(heir.who()));
    let received = pair.server_closes_reset();
    Take::new([sent, received], pair.cast().into_iter().chain([heir]))
}

fn duplicated(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("dup");
    pair.server.say("close");
    let sent = pair.client_aborts();
    Take::new([sent, pair.server_receives()], pair.cast())
}

fn duplicated_both(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("dup");
    let sent = pair.client_aborts();
    let received = pair.server_closes_reset();
    Take::new([sent, received], pair.cast())
}

fn forked_both(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let child = pair.server.branch();
    let sent = pair.client_aborts();
    let received = pair.server_receives().holders([pair.server.pid(), child]);
    Take::new([sent, received], pair.cast())
}

fn forked_child(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let child = pair.server.branch();
    pair.server.say("close");
    let sent = pair.client_aborts();
    let received = pair.server_receives().owner(pair.server.as_pid(child));
    Take::new([sent, received], pair.cast())
}

fn forked_resets(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let child = pair.server.branch();
    let child = pair.server.as_pid(child);
    pair.leave_unread();
    pair.server.say("close");
    pair.server.say("tell 0 close");
    let sent = pair.server_sends().owner(child).actor(Doer::process(child));
    Take::new([sent, pair.client_closes_reset()], pair.cast())
}

/// A server whose eight workers share a listener, of which one has accepted; and that one.
fn preforked(scene: &Scene, rep: usize) -> (Pair, usize, u32) {
    let (mut server, at) = scene.listening(rep);
    let workers: Vec<u32> = (0..8).map(|_| server.branch()).collect();
    let mut pair = scene.connected(server, at);
    let which = rep % workers.len();
    pair.server.say(&format!("tell {which} accept"));
    (pair, which, workers[which])
}

fn preforked_closes(scene: &Scene, rep: usize) -> Take {
    let (mut pair, which, worker) = preforked(scene, rep);
    let sent = pair.client_aborts();
    pair.server
        .fail(&format!("tell {which} recv 1"), "ECONNRESET");
    pair.server.say(&format!("tell {which} close"));
    let received = pair.server_receives().owner(pair.server.as_pid(worker));
    Take::new([sent, received], pair.cast())
}

fn preforked_holds(scene: &Scene, rep: usize) -> Take {
    let (mut pair, _, worker) = preforked(scene, rep);
    let sent = pair.client_aborts();
    let received = pair.server_receives().owner(pair.server.as_pid(worker));
    Take::new([sent, received], pair.cast())
}

fn daemon_listening(scene: &Scene, rep: usize) -> Take {
    let (mut server, at) = scene.listening(rep);
    server.becomes_daemon();
    let pair = scene.resumed(server, at);
    let sent = pair.server_sends().owner(pair.server.who());
    Take::new([sent, pair.client_receives()], pair.cast())
}

fn daemon_not_accepted(scene: &Scene, rep: usize) -> Take {
    let (mut server, at) = scene.listening(rep);
    server.becomes_daemon();
    let mut pair = scene.connected(server, at);
    let sent = pair.client_aborts();
    Take::new([sent, pair.server_receives()], pair.cast())
}

fn uring(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut client = scene.role("client");
    let port = client.say(&format!("uring-connect {at}"));
    let from = (at.ip(), port.parse().expect("a port")).into();
    let mut pair = Pair {
        server,
        client,
        at,
        from,
    };
    pair.server.say("uring-accept");
    // One end resets and the other closes, in turn.
    let wanted = if rep.is_multiple_of(2) {
        [pair.client_aborts(), pair.server_closes_reset()]
    } else {
        [pair.server_aborts(), pair.client_closes_reset()]
    };
    Take::new(wanted, pair.cast())
}

fn direct_accepted(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut pair = scene.connected(server, at);
    pair.server.say("direct-accept");
    pair.client.say("send 64");
    pair.server
        .await_row((pair.at, pair.from), "64 unread bytes", |row| {
            row.unread == 64
        });
    pair.server.say("direct-close");
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(ring_of(pair.server.who()));
    Take::new([sent, pair.client_closes_reset()], pair.cast())
}

/// Who closes what a process's ring lets go of: once the process itself, and a worker of the kernel
/// where the ring leaves that to a work queue (`io_rsrc_put_work`, seen in 6.1 and not in 6.18).
fn ring_of(who: Who) -> Doer {
    if is_since(6, 18) {
        Doer::process(who)
    } else {
        Doer::process_or_kernel_thread(who)
    }
}

/// A client that has connected as a direct descriptor, with data that it will not read.
fn direct(scene: &Scene, rep: usize) -> Pair {
    let (mut server, at) = scene.listening(rep);
    let mut client = scene.role("client");
    client.say(&format!("direct-connect {at}"));
    let from = server.say("accept").parse().expect("an address");
    let mut pair = Pair {
        server,
        client,
        at,
        from,
    };
    pair.server.say("send 64");
    pair.server
        .await_row((pair.from, pair.at), "64 unread bytes", |row| {
            row.unread == 64
        });
    pair
}

fn direct_connected(scene: &Scene, rep: usize) -> Take {
    let mut pair = direct(scene, rep);
    pair.client.say("direct-close");
    let sent = pair
        .client_sends()
        .owner(pair.client.who())
        .actor(ring_of(pair.client.who()));
    Take::new([sent, pair.server_closes_reset()], pair.cast())
}

/// The kernel takes the ring apart in a thread of its own, after the process is gone.
fn direct_connected_ended(scene: &Scene, rep: usize) -> Take {
    let mut pair = direct(scene, rep);
    let who = pair.client.who();
    pair.client.ends_by("exit");
    let sent = pair.client_sends().owner(who).actor(Doer::KernelThread);
    Take::new([sent.gone(), pair.server_closes_reset()], pair.cast())
}
