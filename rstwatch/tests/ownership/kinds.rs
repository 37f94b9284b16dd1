//! Every kind of socket, from the one that connects to the one whose process is gone.

use nix::sys::signal::Signal;

use crate::{
    Situation, Take,
    cast::{Scene, loopback},
    live,
    score::{Doer, Wanted},
};

pub const ALL: &[Situation] = &[
    live("connecting", connecting),
    live("listening, an ACK for no connection", listening),
    live("accepted, the process closes at once", accepted_closes),
    live("accepted, the process holds on", accepted_holds),
    live("accepted, never touched", accepted_untouched),
    live("not yet accepted, the client resets", not_accepted),
    live("not yet accepted, the listener is closed", listener_closed),
    live(
        "not yet accepted, the listener's process is killed",
        listener_killed,
    ),
    live("shut down in both directions, then data", shut_down),
    live("closed and orphaned", orphaned),
    live("TIME_WAIT", time_wait),
    live("exited after its close, then data", exited),
    live("killed, then data", killed),
];

/// A port at which nobody listens (discard).
const NOBODY: u16 = 9;

fn connecting(scene: &Scene, rep: usize) -> Take {
    let mut client = scene.role("client");
    let nobody = (loopback(rep), NOBODY).into();
    let port = client.refused(nobody);
    let from = (loopback(rep), port).into();
    let wanted = [
        Wanted::sent(client.netns(), nobody, from),
        Wanted::received(client.netns(), from, nobody).owner(client.who()),
    ];
    Take::new(wanted, [client])
}

fn listening(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let pair = scene.resumed(server, at);
    // A listener has done nothing: there is an owner, and no actor.
    let sent = pair.server_sends().owner(pair.server.who());
    Take::new([sent, pair.client_receives()], pair.cast())
}

fn accepted_closes(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let wanted = [pair.client_aborts(), pair.server_closes_reset()];
    Take::new(wanted, pair.cast())
}

fn accepted_holds(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let sent = pair.client_aborts();
    pair.server.is_reset();
    Take::new([sent, pair.server_receives()], pair.cast())
}

fn accepted_untouched(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let sent = pair.client_aborts();
    pair.server.say("close");
    Take::new([sent, pair.server_receives()], pair.cast())
}

fn not_accepted(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut pair = scene.connected(server, at);
    let sent = pair.client_aborts();
    Take::new([sent, pair.server_receives()], pair.cast())
}

fn listener_closed(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut pair = scene.connected(server, at);
    pair.server.say("unlisten");
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::process(pair.server.who()));
    let received = pair.client_closes_reset();
    Take::new([sent, received], pair.cast())
}

fn listener_killed(scene: &Scene, rep: usize) -> Take {
    let (server, at) = scene.listening(rep);
    let mut pair = scene.connected(server, at);
    let who = pair.server.who();
    pair.server.is_killed(Signal::SIGKILL);
    let actor = Doer::killed(who, Signal::SIGKILL as i32, false);
    let sent = pair.server_sends().owner(who).actor(actor).gone();
    Take::new([sent, pair.client_closes_reset()], pair.cast())
}

fn shut_down(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("shutdown rdwr");
    pair.client.say("eof");
    pair.client.sends_in_vain();
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::process(pair.server.who()));
    Take::new([sent, pair.client_receives()], pair.cast())
}

fn orphaned(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("fill");
    pair.server.say("close");
    pair.client.say("send 5");
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::process(pair.server.who()));
    pair.client.fail("send 5", "ECONNRESET");
    pair.client.say("close");
    Take::new([sent, pair.client_receives()], pair.cast())
}

fn time_wait(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("close");
    pair.client.say("eof");
    pair.client.sends_in_vain();
    let sent = pair
        .server_sends()
        .owner(pair.server.who())
        .actor(Doer::process(pair.server.who()));
    Take::new([sent, pair.client_receives()], pair.cast())
}

fn exited(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.server.say("close");
    pair.client.say("eof");
    let who = pair.server.who();
    pair.server.ends_by("exit");
    pair.client.sends_in_vain();
    let sent = pair.server_sends().owner(who).actor(Doer::process(who));
    Take::new([sent.gone(), pair.client_receives()], pair.cast())
}

fn killed(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let who = pair.server.who();
    pair.server.is_killed(Signal::SIGKILL);
    pair.client.say("eof");
    pair.client.sends_in_vain();
    let actor = Doer::killed(who, Signal::SIGKILL as i32, false);
    let sent = pair.server_sends().owner(who).actor(actor);
    Take::new([sent.gone(), pair.client_receives()], pair.cast())
}
