//! HAProxy.

use nix::sys::signal::Signal;
use rstwatch::{
    cause::catalogue::symptom::{self, Line},
    event::TcpState,
};

use crate::{
    client::Client,
    expect::{Reset, Who, who},
    place::{FRONT, Place, Program, UPSTREAM, at, resume, stop},
};

/// HAProxy in front of a server.
struct Haproxy {
    program: Program,
}

impl Haproxy {
    /// Starts it with `lines` in its frontend and its backend.
    fn start(place: &Place, lines: &str) -> Self {
        place.write("haproxy.cfg", &config(lines));
        // In the foreground, as one process.
        let program = place.start("haproxy", "haproxy", ["-db", "-f", "haproxy.cfg"]);
        place.await_listener(FRONT);
        Self { program }
    }

    fn who(&self) -> Who {
        who(self.program.pid(), "haproxy")
    }
}

fn config(lines: &str) -> String {
    format!(
        "global\n log stdout format raw local0\n nbthread 1\n\
         defaults\n mode http\n log global\n option httplog\n option dontlognull\n retries 0\n\
         timeout connect 20s\n timeout client 20s\n timeout server 20s\n\
         listen service\n bind 127.0.0.1:{FRONT}\n server only 127.0.0.1:{UPSTREAM}\n{lines}\n"
    )
}

/// Waits until HAProxy has logged how a session ended: as the line of the catalogue says.
fn await_log(place: &Place, line: &Line) {
    let state = line.text.split(' ').next().expect("a word");
    place.await_text("haproxy.out", &format!(" {state}-- "));
}

/// A client whose request has reached the server, and the server.
fn asked(place: &Place, server: &std::net::TcpListener) -> (Client, Client) {
    let client = Client::connect(place, FRONT);
    client.get("/");
    let behind = Client::accept(server);
    behind.hear_request();
    (client, behind)
}

#[test]
fn the_server_is_down() {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    assert_eq!(place.curl_status(&["http://127.0.0.1:8080/"]), "503");
    await_log(&place, &symptom::HAPROXY_SC);
    watched.expect(&[
        Reset::sent_to_connect(at(UPSTREAM), "closed-port"),
        Reset::received_by_connect(at(UPSTREAM), "refused")
            .state("SYN_SENT")
            .owner(haproxy.who()),
    ]);
}

#[test]
fn the_server_closes_without_having_read_the_request() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/");
    let behind = Client::accept(&server);
    let (own, peer) = (behind.own(), behind.peer());
    place.await_unread(own, peer, 1);
    behind.close();
    client.hear("HTTP/1.1 502 ");
    await_log(&place, &symptom::HAPROXY_SH);
    watched.expect(&[
        Reset::sent(own, peer, "closed-with-unread-data")
            .state("ESTABLISHED")
            .owner_is_test()
            .by_test(),
        Reset::received(peer, own, "peer-aborted")
            .state("ESTABLISHED")
            .owner(haproxy.who()),
    ]);
}

#[test]
fn the_server_aborts_in_the_middle_of_its_answer() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let (client, behind) = asked(&place, &server);
    behind.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it");
    client.hear("half of it");
    let (own, peer) = (behind.own(), behind.peer());
    behind.abort();
    await_log(&place, &symptom::HAPROXY_SD);
    watched.expect(&[
        Reset::sent(own, peer, "linger-abort")
            .state("ESTABLISHED")
            .owner_is_test()
            .by_test(),
        Reset::received(peer, own, "peer-aborted")
            .state("ESTABLISHED")
            .owner(haproxy.who()),
    ]);
}

/// With `option abortonclose`.
#[test]
fn a_client_gives_up_before_the_answer() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, " option abortonclose");
    let watched = place.trace();
    let (client, behind) = asked(&place, &server);
    client.close();
    await_log(&place, &symptom::HAPROXY_CH);
    let end = behind.ends();
    println!("{end:?} {}", place.read("haproxy.out"));
    let (own, peer) = (behind.own(), behind.peer());
    watched.expect(&[
        Reset::sent(peer, own, "linger-abort")
            .state("ESTABLISHED")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(own, peer, "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]);
}

#[test]
fn a_client_aborts_in_a_download() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let (client, behind) = asked(&place, &server);
    behind.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhalf of it");
    behind.fill();
    place.await_full(UPSTREAM);
    place.await_full(FRONT);
    let from = client.own();
    client.abort();
    await_log(&place, &symptom::HAPROXY_CD);
    let (own, peer) = (behind.own(), behind.peer());
    behind.hears_reset();
    watched.expect(&[
        Reset::sent(from, at(FRONT), "closed-with-unread-data")
            .state("ESTABLISHED")
            .owner_is_test()
            .by_test(),
        Reset::received(at(FRONT), from, "peer-aborted")
            .state("ESTABLISHED")
            .owner(haproxy.who()),
        Reset::sent(peer, own, "closed-with-unread-data")
            .state("ESTABLISHED")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(own, peer, "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]);
}

fn rejected(rule: &str, cause: &str) {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, rule);
    let watched = place.trace();
    stop(haproxy.program.pid());
    let client = Client::connect(&place, FRONT);
    client.get("/");
    place.await_unread(at(FRONT), client.own(), 1);
    resume(haproxy.program.pid());
    println!("{:?}", client.ends());
    println!("{}", place.read("haproxy.out"));
    watched.expect(&[
        Reset::sent(at(FRONT), client.own(), cause)
            .state("ESTABLISHED")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(client.own(), at(FRONT), "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]);
}

#[test]
fn a_connection_is_rejected() {
    rejected(" tcp-request connection reject", "closed-with-unread-data");
}

#[test]
fn content_is_rejected() {
    rejected(" tcp-request inspect-delay 5s\n tcp-request content reject if HTTP", "closed-with-unread-data");
}

#[test]
fn a_request_is_rejected() {
    rejected(" http-request reject", "linger-abort");
}

#[test]
fn a_request_is_dropped_in_silence() {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, " http-request silent-drop");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/");
    place.await_none("HAProxy's end", |row| {
        (row.local, row.remote) == (at(FRONT), client.own())
    });
    client.say("still there?");
    client.hears_reset();
    println!("{}", place.read("haproxy.out"));
    watched.expect(&[
        Reset::sent(at(FRONT), client.own(), "late-segment")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(client.own(), at(FRONT), "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]);
}

#[test]
fn the_server_takes_too_long() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, " timeout server 200ms");
    let watched = place.trace();
    let (client, behind) = asked(&place, &server);
    client.hear("HTTP/1.1 504 ");
    place.await_text("haproxy.out", " sH-- ");
    println!("{:?}", behind.ends());
    let (own, peer) = (behind.own(), behind.peer());
    watched.expect(&[
        Reset::sent(peer, own, "linger-abort")
            .state("ESTABLISHED")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(own, peer, "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]);
}

#[test]
fn the_client_takes_too_long() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, " timeout client 200ms\n timeout http-request 200ms");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.say("GET / HTTP/1.1\r\n");
    client.hear("HTTP/1.1 408 ");
    println!("{:?}", client.ends());
    println!("{}", place.read("haproxy.out"));
    drop(server);
    watched.expect(&[Reset::sent(at(FRONT), client.own(), "?").owner(haproxy.who())]);
}

/// Two processes share the port, each with a listener of its own.
#[test]
fn a_reload_takes_over() {
    let place = Place::new();
    place.write("haproxy.cfg", &config(" http-request return status 200 content-type text/plain string done"));
    let mut old = place.start("haproxy", "haproxy", ["-db", "-f", "haproxy.cfg"]);
    place.await_listener(FRONT);
    let watched = place.trace();
    let idle: Vec<Client> = (0..8).map(|_| Client::served(&place)).collect();
    stop(old.pid());
    let clients: Vec<Client> = (0..16).map(|_| Client::connect(&place, FRONT)).collect();
    let pid = old.pid().to_string();
    let new = place.start("haproxy2", "haproxy", ["-db", "-f", "haproxy.cfg", "-sf", &pid]);
    place.await_row("a second listener", |_| place.rows().iter().filter(|row| row.local == at(FRONT) && row.state == TcpState::Listen).count() == 2);
    resume(old.pid());
    let mut expected = Vec::new();
    for client in &clients {
        if client.is_served() { continue; }
        expected.extend([
            Reset::sent(at(FRONT), client.own(), "listener-closed")
                .state("ESTABLISHED")
                .owner(who(old.pid(), "haproxy"))
                .by(who(old.pid(), "haproxy")),
            Reset::received(client.own(), at(FRONT), "peer-aborted")
                .state("ESTABLISHED")
                .owner_is_test(),
        ]);
    }
    println!("{} of {}", expected.len() / 2, clients.len());
    println!("{}", place.read("haproxy.out"));
    println!("{}", place.read("haproxy2.out"));
    println!("{}", place.read("haproxy.err"));
    for c in idle { println!("{:?}", c.ends()); }
    let _ = new;
    old.signal(Signal::SIGTERM);
    watched.expect(&expected);
}
