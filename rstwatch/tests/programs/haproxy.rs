//! HAProxy.

use std::io::{BufRead as _, BufReader};

use nix::sys::signal::Signal;
use rstwatch::cause::catalogue::symptom::{self, Line};

use crate::{
    client::Client,
    expect::{Pair, Party::Test, Reset, Who, aborted, data_after_close, refused, who},
    load::{HTTP, Load},
    place::{FRONT, Place, Program, UPSTREAM, at, await_pending, await_that, resume, stop},
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

/// It answers every request by itself.
const RETURN: &str = " http-request return status 200 content-type text/plain string done";

/// Waits until HAProxy has logged how a session ended: as the line of the catalogue says.
fn await_log(place: &Place, line: &Line) {
    let state = line.text.split(' ').next().expect("a word");
    place.await_text("haproxy.out", &format!(" {state}-- "));
}

#[test]
fn the_server_is_down() {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    assert_eq!(place.curl_status(&["http://127.0.0.1:8080/"]), "503");
    await_log(&place, &symptom::HAPROXY_SC);
    watched.expect(&refused(at(UPSTREAM), "closed-port", haproxy.who()));
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
    let pair = aborted(Test, own, peer, "closed-with-unread-data", haproxy.who());
    watched.expect(&pair);
}

/// A server that accepts a connection, and does not read.
const DEAF_SERVER: &str = "
import socket
listener = socket.create_server(('127.0.0.1', 9000))
connection, _ = listener.accept()
print('accepted', flush=True)
input()
";

#[test]
fn the_server_is_killed() {
    let place = Place::new();
    let mut server = place.start_piped("server", "/usr/bin/python3", ["-c", DEAF_SERVER]);
    place.await_listener(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/");
    BufReader::new(server.stdout())
        .read_line(&mut String::new())
        .expect("the server accepts");
    let end = place.await_row("the request", |row| {
        row.local.port() == UPSTREAM && row.unread > 0
    });
    let killed = who(server.pid(), "python3");
    server.end_by(Signal::SIGKILL);
    client.hear("HTTP/1.1 502 ");
    await_log(&place, &symptom::HAPROXY_SH);
    // What comes now meets nobody.
    let late = Client::connect(&place, FRONT);
    late.get("/");
    late.hear("HTTP/1.1 503 ");
    await_log(&place, &symptom::HAPROXY_SC);
    let pairs = [
        aborted(
            killed.killed_by(Signal::SIGKILL),
            end.local,
            end.remote,
            "process-died",
            haproxy.who(),
        ),
        refused(at(UPSTREAM), "listener-gone", haproxy.who()),
    ];
    watched.expect(pairs.as_flattened());
}

#[test]
fn the_server_aborts_in_the_middle_of_its_answer() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &server);
    behind.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it");
    client.hear("half of it");
    let (own, peer) = (behind.own(), behind.peer());
    behind.abort();
    await_log(&place, &symptom::HAPROXY_SD);
    watched.expect(&aborted(Test, own, peer, "linger-abort", haproxy.who()));
}

/// With `option abortonclose`.
#[test]
fn a_client_gives_up_before_the_answer() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, " option abortonclose");
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &server);
    let from = client.own();
    client.close();
    await_log(&place, &symptom::HAPROXY_CH);
    behind.hears_reset();
    let (own, peer) = (behind.own(), behind.peer());
    let pairs = [
        // HAProxy tells the client, too, that the request was given up.
        data_after_close(Test, from, at(FRONT), haproxy.who()),
        aborted(haproxy.who(), peer, own, "linger-abort", Test),
    ];
    watched.expect(pairs.as_flattened());
}

#[test]
fn a_client_aborts_in_a_download() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, "");
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &server);
    behind.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nhalf of it");
    let is_full = |port| {
        let rows = place.rows();
        rows.iter()
            .any(|row| row.local.port() == port && row.probing)
    };
    await_that("full connections", || {
        behind.fill();
        is_full(UPSTREAM) && is_full(FRONT)
    });
    let from = client.own();
    client.abort();
    await_log(&place, &symptom::HAPROXY_CD);
    let (own, peer) = (behind.own(), behind.peer());
    behind.hears_reset();
    let pairs = [
        aborted(
            Test,
            from,
            at(FRONT),
            "closed-with-unread-data",
            haproxy.who(),
        ),
        aborted(haproxy.who(), peer, own, "closed-with-unread-data", Test),
    ];
    watched.expect(pairs.as_flattened());
}

/// HAProxy rejects what a client sends, at once or when it has read it.
fn rejected(rule: &str, reset: impl Fn(&Place, &Client, Who) -> Pair) {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, rule);
    let watched = place.trace();
    stop(haproxy.program.pid());
    let client = Client::connect(&place, FRONT);
    client.get("/");
    place.await_unread(at(FRONT), client.own(), 1);
    resume(haproxy.program.pid());
    watched.expect(&reset(&place, &client, haproxy.who()));
}

/// It has read nothing.
fn is_reset_unread(_: &Place, client: &Client, haproxy: Who) -> Pair {
    client.hears_reset();
    aborted(
        haproxy,
        at(FRONT),
        client.own(),
        "closed-with-unread-data",
        Test,
    )
}

/// It has read the request, so that only what comes after it draws a reset.
fn is_reset_later(place: &Place, client: &Client, haproxy: Who) -> Pair {
    client.hears_end();
    place.await_closed(at(FRONT), client.own());
    client.get("/again");
    data_after_close(haproxy, at(FRONT), client.own(), Test)
}

#[test]
fn a_connection_is_rejected() {
    rejected(" tcp-request connection reject", is_reset_unread);
}

#[test]
fn content_is_rejected() {
    let rule = " tcp-request inspect-delay 5s\n tcp-request content reject if HTTP";
    rejected(rule, is_reset_later);
}

#[test]
fn a_request_is_rejected() {
    rejected(" http-request reject", is_reset_later);
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
    watched.expect(&[
        Reset::sent(at(FRONT), client.own(), "late-segment")
            .owner(haproxy.who())
            .by(haproxy.who()),
        Reset::received(client.own(), at(FRONT), "peer-aborted")
            .state("ESTABLISHED")
            .owner(Test),
    ]);
}

#[test]
fn the_server_takes_too_long() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let haproxy = Haproxy::start(&place, " timeout server 200ms");
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &server);
    client.hear("HTTP/1.1 504 ");
    place.await_text("haproxy.out", " sH-- ");
    behind.hears_reset();
    let (own, peer) = (behind.own(), behind.peer());
    watched.expect(&aborted(haproxy.who(), peer, own, "linger-abort", Test));
}

#[test]
fn the_client_takes_too_long() {
    let place = Place::new();
    let haproxy = Haproxy::start(&place, " timeout client 200ms\n timeout http-request 200ms");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.say("GET / HTTP/1.1\r\n");
    client.hear("HTTP/1.1 408 ");
    place.await_text("haproxy.out", " cR-- ");
    watched.expect(&is_reset_later(&place, &client, haproxy.who()));
}

/// Two processes share the port, each with a listener of its own.
#[test]
fn a_reload_closes_a_listener() {
    let place = Place::new();
    let old = Haproxy::start(&place, RETURN);
    let watched = place.trace();
    let kept: Vec<Client> = (0..8).map(|_| Client::served(&place)).collect();
    stop(old.program.pid());
    let waiting: Vec<Client> = (0..16).map(|_| Client::connect(&place, FRONT)).collect();
    let pid = old.program.inner_pid();
    let _new = place.start(
        "haproxy-2",
        "haproxy",
        ["-db", "-f", "haproxy.cfg", "-sf", &pid],
    );
    await_pending(old.program.pid(), Signal::SIGUSR1);
    resume(old.program.pid());
    let mut expected = Vec::new();
    for client in &waiting {
        client.hears_reset();
        let pair = aborted(old.who(), at(FRONT), client.own(), "listener-closed", Test);
        expected.extend(pair);
    }
    // Those that had been accepted are idle, and closed in order.
    for client in &kept {
        client.hears_end();
    }
    // The new one serves.
    Client::served(&place).close();
    watched.expect(&expected);
}

/// It is killed while some connections wait for it, some are idle and some have a request that it
/// has not read.
#[test]
fn haproxy_is_killed_under_load() {
    let place = Place::new();
    let mut haproxy = Haproxy::start(&place, RETURN);
    let watched = place.trace();
    let expected = Load::new(&place, haproxy.program.pid(), HTTP).is_killed(haproxy.who(), || {
        haproxy.program.end_by(Signal::SIGKILL);
    });
    watched.expect(&expected);
}
