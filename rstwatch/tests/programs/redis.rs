//! Redis.

use nix::sys::signal::Signal;

use crate::{
    client::Client,
    expect::{Party::Test, Reset, Who, aborted, data_after_close, refused, who},
    load::{Load, Talk},
    place::{FRONT, Place, Program, at, resume, stop},
};

/// Redis, at the port at which the tests expect servers.
struct Redis {
    program: Program,
}

impl Redis {
    fn start(place: &Place, args: &[&str]) -> Self {
        let port = FRONT.to_string();
        let always = ["--port", &port, "--bind", "127.0.0.1", "--save", ""];
        let args = always.iter().chain(args).copied();
        let program = place.start("redis", "redis-server", args);
        place.await_text("redis.out", "Ready to accept connections");
        Self { program }
    }

    fn who(&self) -> Who {
        who(self.program.pid(), "redis-server")
    }
}

/// A command that it answers.
const PING: Talk = Talk {
    ask: "PING\r\n",
    answer: "+PONG\r\n",
};

/// A client that had a command answered.
fn served(place: &Place) -> Client {
    let client = Client::connect(place, FRONT);
    client.say(PING.ask);
    client.hear(PING.answer);
    client
}

/// It is killed while some clients wait for it, some are idle and some have sent commands that it
/// has not read; and then somebody connects.
#[test]
fn it_is_killed_under_load() {
    let place = Place::new();
    let mut redis = Redis::start(&place, &[]);
    let watched = place.trace();
    let mut expected = Load::new(&place, redis.program.pid(), PING).is_killed(redis.who(), || {
        redis.program.end_by(Signal::SIGKILL);
    });
    place.is_refused(FRONT);
    expected.extend(refused(at(FRONT), "listener-gone", Test));
    watched.expect(&expected);
}

/// `CLIENT KILL`: the client learns of it only when it sends its next command.
#[test]
fn a_client_is_killed() {
    let place = Place::new();
    let redis = Redis::start(&place, &[]);
    let watched = place.trace();
    let client = served(&place);
    let (port, from) = (FRONT.to_string(), client.own().to_string());
    let args = ["-p", &port, "CLIENT", "KILL", "ADDR", &from];
    place.start("redis-cli", "redis-cli", args).wait();
    assert_eq!(place.read("redis-cli.out"), "1\n");
    client.hears_end();
    client.say(PING.ask);
    let pair = data_after_close(redis.who(), at(FRONT), client.own(), Test);
    watched.expect(&pair);
}

/// A subscriber that does not read is given up: Redis closes in order, with much that is not sent
/// yet; and the subscriber, when it closes, has not read what was.
#[test]
fn a_subscriber_does_not_read() {
    let place = Place::new();
    let redis = Redis::start(&place, &["--client-output-buffer-limit", "pubsub 1mb 0 0"]);
    let watched = place.trace();
    let subscriber = Client::connect(&place, FRONT);
    subscriber.say("SUBSCRIBE news\r\n");
    subscriber.hear(":1\r\n");
    let publisher = served(&place);
    let news = "x".repeat(1 << 18);
    while !place
        .read("redis.out")
        .contains("for overcoming of output buffer limits")
    {
        publisher.say(&format!(
            "*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n${}\r\n{news}\r\n",
            news.len()
        ));
        publisher.hear("\r\n");
    }
    let from = subscriber.own();
    place.await_closed(at(FRONT), from);
    place.await_full(FRONT);
    subscriber.close();
    watched.expect(&[
        Reset::sent(from, at(FRONT), "closed-with-unread-data")
            .state("ESTABLISHED")
            .owner(Test)
            .by(Test),
        Reset::received(at(FRONT), from, "reset-during-close")
            .state("FIN_WAIT1")
            .owner(redis.who()),
    ]);
}

/// More clients than `maxclients` allows.
#[test]
fn there_are_too_many_clients() {
    let place = Place::new();
    let redis = Redis::start(&place, &["--maxclients", "1"]);
    let watched = place.trace();
    let _first = served(&place);
    stop(redis.program.pid());
    let client = Client::connect(&place, FRONT);
    client.say(PING.ask);
    place.await_unread(at(FRONT), client.own(), 1);
    resume(redis.program.pid());
    client.hear("-ERR max number of clients reached\r\n");
    client.hears_reset();
    watched.expect(&aborted(
        redis.who(),
        at(FRONT),
        client.own(),
        "closed-with-unread-data",
        Test,
    ));
}
