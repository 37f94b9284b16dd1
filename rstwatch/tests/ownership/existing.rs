//! What existed before the tracer started.

use crate::{Later, Situation, Take, cast::Scene, existing, score::Doer};

pub const ALL: &[Situation] = &[
    existing(
        "existing connection, the accepted end closes",
        accepted_closes,
    ),
    existing(
        "existing connection, the accepted end is held",
        accepted_holds,
    ),
    existing(
        "existing connection, the connected end is held",
        connected_holds,
    ),
    existing("existing connection, closed, then data", time_wait),
    existing("existing connection, forked, both hold", forked),
    existing("existing listener, an ACK for no connection", listening),
    existing("existing listener, not yet accepted", not_accepted),
    existing("existing listener, closed with a queue", listener_closed),
    existing("existing listener of eight workers", preforked),
    existing("existing listener of a daemon", daemon),
];

fn accepted_closes(scene: &Scene, rep: usize) -> Later {
    let mut pair = scene.pair(rep);
    Box::new(|_| {
        let wanted = [pair.client_aborts(), pair.server_closes_reset()];
        Take::new(wanted, pair.cast())
    })
}

fn accepted_holds(scene: &Scene, rep: usize) -> Later {
    let mut pair = scene.pair(rep);
    Box::new(|_| {
        let wanted = [pair.client_aborts(), pair.server_receives()];
        Take::new(wanted, pair.cast())
    })
}

fn connected_holds(scene: &Scene, rep: usize) -> Later {
    let mut pair = scene.pair(rep);
    Box::new(|_| {
        let wanted = [pair.server_aborts(), pair.client_receives()];
        Take::new(wanted, pair.cast())
    })
}

fn time_wait(scene: &Scene, rep: usize) -> Later {
    let mut pair = scene.pair(rep);
    Box::new(|_| {
        pair.server.say("close");
        pair.client.say("eof");
        pair.client.sends_in_vain();
        let sent = pair
            .server_sends()
            .owner(pair.server.who())
            .actor(Doer::process(pair.server.who()));
        Take::new([sent, pair.client_receives()], pair.cast())
    })
}

fn forked(scene: &Scene, rep: usize) -> Later {
    let mut pair = scene.pair(rep);
    let child = pair.server.branch();
    Box::new(move |_| {
        let sent = pair.client_aborts();
        let received = pair.server_receives().holders([pair.server.pid(), child]);
        Take::new([sent, received], pair.cast())
    })
}

fn listening(scene: &Scene, rep: usize) -> Later {
    let (server, at) = scene.listening(rep);
    Box::new(move |scene| {
        let pair = scene.resumed(server, at);
        let sent = pair.server_sends().owner(pair.server.who());
        Take::new([sent, pair.client_receives()], pair.cast())
    })
}

fn not_accepted(scene: &Scene, rep: usize) -> Later {
    let (server, at) = scene.listening(rep);
    Box::new(move |scene| {
        let mut pair = scene.connected(server, at);
        let sent = pair.client_aborts();
        Take::new([sent, pair.server_receives()], pair.cast())
    })
}

fn listener_closed(scene: &Scene, rep: usize) -> Later {
    let (server, at) = scene.listening(rep);
    Box::new(move |scene| {
        let mut pair = scene.connected(server, at);
        pair.server.say("unlisten");
        let sent = pair
            .server_sends()
            .owner(pair.server.who())
            .actor(Doer::process(pair.server.who()));
        Take::new([sent, pair.client_closes_reset()], pair.cast())
    })
}

fn preforked(scene: &Scene, rep: usize) -> Later {
    let (mut server, at) = scene.listening(rep);
    let workers: Vec<u32> = (0..8).map(|_| server.branch()).collect();
    Box::new(move |scene| {
        let which = rep % workers.len();
        let mut pair = scene.connected(server, at);
        pair.server.say(&format!("tell {which} accept"));
        let sent = pair.client_aborts();
        let worker = pair.server.as_pid(workers[which]);
        let received = pair.server_receives().owner(worker);
        Take::new([sent, received], pair.cast())
    })
}

fn daemon(scene: &Scene, rep: usize) -> Later {
    let (mut server, at) = scene.listening(rep);
    server.becomes_daemon();
    Box::new(move |scene| {
        let mut pair = scene.connected(server, at);
        let sent = pair.client_aborts();
        Take::new([sent, pair.server_receives()], pair.cast())
    })
}
