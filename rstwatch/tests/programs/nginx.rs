//! nginx.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use rstwatch::{cause::catalogue::symptom, event::TcpState};
use serde_json::Value;

use crate::{
    client::{ANSWER, Client, Outcome},
    expect::{Party::Test, Reset, Who, aborted, data_after_close, refused, who},
    load::{HTTP, Load},
    place::{
        FRONT, Place, Program, UPSTREAM, at, await_end, await_some, await_that, resume, send,
        sent_among, stop,
    },
};

/// nginx, and its only worker.
pub struct Nginx {
    master: Program,
    worker: u32,
}

impl Nginx {
    /// Starts it with `directives` in its server.
    pub fn start(place: &Place, directives: &str) -> Self {
        place.write("nginx.conf", &config(place, 1, "", directives));
        let master = Self::run(place);
        let worker = master.await_children(1)[0];
        Self { master, worker }
    }

    /// Starts it as `nginx.conf` says.
    fn run(place: &Place) -> Program {
        let args = ["-p", ".", "-e", "error.log", "-c", "nginx.conf"];
        let master = place.start("nginx", "nginx", args);
        place.await_listener(FRONT);
        master
    }

    /// The worker's PID.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The worker.
    pub fn who(&self) -> Who {
        who(self.worker, "nginx")
    }
}

/// With so many workers, `listen` behind its address, and `directives` in its server.
fn config(place: &Place, workers: usize, listen: &str, directives: &str) -> String {
    let root = place.path("");
    let root = root.display();
    format!(
        "daemon off; user root; pid nginx.pid; worker_processes {workers};
         events {{ worker_connections 512; }}
         error_log error.log info;
         http {{
           log_format brief '$remote_port $status $body_bytes_sent';
           access_log access.log brief;
           root {root};
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           scgi_temp_path scgi; uwsgi_temp_path uwsgi;
           upstream service {{ server 127.0.0.1:{UPSTREAM}; keepalive 4; }}
           proxy_http_version 1.1; proxy_set_header Connection '';
           server {{ listen 127.0.0.1:{FRONT} {listen}; {directives} }}
         }}"
    )
}

/// Where everything that curl is to do with nginx begins.
const URL: &str = "http://127.0.0.1:8080/";

/// Everything is passed on to the upstream.
const PROXY: &str = "location / { proxy_pass http://service; }";

#[test]
fn a_client_is_killed_in_a_download() {
    let place = Place::new();
    place.large_file();
    let nginx = Nginx::start(&place, "");
    let watched = place.trace();
    // Nobody reads what curl writes, so that it stops reading.
    let mut curl = place.start_piped("curl", "curl", ["-sS", &format!("{URL}large")]);
    let server = place.await_full(FRONT);
    let curls = who(curl.pid(), "curl");
    curl.end_by(Signal::SIGKILL);
    let reset = "(104: Connection reset by peer) while sending response to client";
    place.await_text("error.log", reset);
    watched.expect(&aborted(
        curls.killed_by(Signal::SIGKILL),
        server.remote,
        server.local,
        "process-died",
        nginx.who(),
    ));
}

#[test]
fn a_client_gives_up_before_the_answer() {
    let place = Place::new();
    let upstream = place.listen(UPSTREAM);
    let nginx = Nginx::start(&place, PROXY);
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &upstream);
    let from = client.own();
    client.abort();
    // The status 499, in the format of the test.
    assert_eq!(symptom::NGINX_CLIENT.text, "499 in the access log");
    place.await_text("access.log", &format!("{} 499 ", from.port()));
    behind.close();
    watched.expect(&aborted(Test, from, at(FRONT), "linger-abort", nginx.who()));
}

#[test]
fn the_upstream_is_down() {
    let place = Place::new();
    let nginx = Nginx::start(&place, PROXY);
    let watched = place.trace();
    assert_eq!(place.curl_status(&[URL]), "502");
    place.await_text("error.log", symptom::NGINX_REFUSED.text);
    watched.expect(&refused(at(UPSTREAM), "closed-port", nginx.who()));
}

#[test]
fn the_upstream_closes_without_having_read_the_request() {
    let place = Place::new();
    let upstream = place.listen(UPSTREAM);
    let nginx = Nginx::start(&place, PROXY);
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/");
    let behind = Client::accept(&upstream);
    let (own, peer) = (behind.own(), behind.peer());
    place.await_unread(own, peer, 1);
    behind.close();
    client.hear("HTTP/1.1 502 ");
    place.await_text("error.log", symptom::NGINX_RESET.text);
    let pair = aborted(Test, own, peer, "closed-with-unread-data", nginx.who());
    watched.expect(&pair);
}

#[test]
fn the_upstream_aborts_in_the_middle_of_its_answer() {
    let place = Place::new();
    let upstream = place.listen(UPSTREAM);
    let nginx = Nginx::start(
        &place,
        "location / { proxy_buffering off; proxy_pass http://service; }",
    );
    let watched = place.trace();
    let (client, behind) = Client::asked(&place, &upstream);
    behind.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it");
    client.hear("half of it");
    let (own, peer) = (behind.own(), behind.peer());
    behind.abort();
    place.await_text("error.log", symptom::NGINX_RESET_BODY.text);
    watched.expect(&aborted(Test, own, peer, "linger-abort", nginx.who()));
}

/// The upstream closes an idle connection at the moment at which nginx uses it again.
#[test]
fn a_kept_connection_is_closed_just_before_it_is_used() {
    let place = Place::new();
    let upstream = place.listen(UPSTREAM);
    let nginx = Nginx::start(&place, PROXY);
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/first");
    let behind = Client::accept(&upstream);
    behind.hear_request();
    behind.say(ANSWER);
    client.hear("done");
    place.await_text("access.log", " 200 ");
    let (own, peer) = (behind.own(), behind.peer());
    // nginx learns of the request first, and of the close after it.
    stop(nginx.worker);
    client.get("/second");
    place.await_unread(at(FRONT), client.own(), 1);
    behind.close();
    resume(nginx.worker);
    // It tries a new connection, so the client notices nothing.
    let again = Client::accept(&upstream);
    again.hear_request();
    again.say(ANSWER);
    client.hear("done");
    watched.expect(&data_after_close(Test, own, peer, nginx.who()));
}

/// The head of a request whose body is larger than nginx takes, and the first part of that.
const TOO_LARGE: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nsome of it";

/// nginx reads what has come of the body before it closes, so what the client sends after that is
/// what draws the reset.
#[test]
fn a_body_is_too_large_and_nginx_closes_at_once() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "client_max_body_size 1k; lingering_close off;");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.say(TOO_LARGE);
    client.hear("413 Request Entity Too Large");
    client.hears_end();
    client.say("more of it");
    let pair = data_after_close(nginx.who(), at(FRONT), client.own(), Test);
    watched.expect(&pair);
}

/// By default nginx reads on after its answer, so that nobody is reset.
#[test]
fn a_body_is_too_large_and_nginx_lingers() {
    let place = Place::new();
    let _nginx = Nginx::start(&place, "client_max_body_size 1k;");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.say(TOO_LARGE);
    client.hear("</html>\r\n");
    client.say("more of it");
    let from = client.own();
    client.close();
    place.await_none("nginx's end", |row| {
        (row.local, row.remote) == (at(FRONT), from)
    });
    watched.expect(&[]);
}

/// What is no request is answered, and what follows it is not read. (By default nginx reads it.)
#[test]
fn a_client_does_not_speak_http() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "lingering_close off; return 200;");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    stop(nginx.worker);
    let nonsense = format!("no request\r\n{}", "x".repeat(50_000));
    client.say(&nonsense);
    place.await_unread(at(FRONT), client.own(), nonsense.len() as u32);
    resume(nginx.worker);
    client.hear("400 Bad Request");
    client.hears_reset();
    watched.expect(&aborted(
        nginx.who(),
        at(FRONT),
        client.own(),
        "closed-with-unread-data",
        Test,
    ));
}

#[test]
fn a_request_gets_no_answer_but_a_reset() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "reset_timedout_connection on; return 444;");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/");
    client.hears_reset();
    let pair = aborted(nginx.who(), at(FRONT), client.own(), "linger-abort", Test);
    watched.expect(&pair);
}

#[test]
fn a_client_that_does_not_read_is_timed_out() {
    let place = Place::new();
    place.large_file();
    let nginx = Nginx::start(&place, "reset_timedout_connection on; send_timeout 500ms;");
    let watched = place.trace();
    let client = Client::connect(&place, FRONT);
    client.get("/large");
    place.await_text(
        "error.log",
        "client timed out (110: Connection timed out) while sending response to client",
    );
    let pair = aborted(nginx.who(), at(FRONT), client.own(), "linger-abort", Test);
    watched.expect(&pair);
}

/// The old worker closes connections that are idle, and their clients use them again.
#[test]
fn a_reload_closes_idle_connections() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "return 200 done;");
    let watched = place.trace();
    let clients: Vec<Client> = (0..8).map(|_| Client::served(&place)).collect();
    nginx.master.signal(Signal::SIGHUP);
    await_end(nginx.worker);
    let mut expected = Vec::new();
    for client in clients {
        let from = client.own();
        place.await_row("nginx's FIN", |row| {
            row.local == from && row.state == TcpState::CloseWait
        });
        client.get("/");
        expected.extend(data_after_close(nginx.who(), at(FRONT), from, Test));
        client.close();
    }
    watched.expect(&expected);
}

/// With a listener a worker, the connections that wait for a worker that is no longer wanted go with
/// its listener.
#[test]
fn a_reload_to_fewer_workers_closes_a_listener() {
    let place = Place::new();
    place.write(
        "nginx.conf",
        &config(&place, 2, "reuseport", "return 200 done;"),
    );
    let nginx = Nginx::run(&place);
    let old = nginx.await_children(2);
    let watched = place.trace();
    for worker in &old {
        stop(*worker);
    }
    let clients: Vec<Client> = (0..32).map(|_| Client::connect(&place, FRONT)).collect();
    place.write(
        "nginx.conf",
        &config(&place, 1, "reuseport", "return 200 done;"),
    );
    nginx.signal(Signal::SIGHUP);
    nginx.await_children(3);
    // The master tells them so a moment later. Both have the listener of the worker that is no
    // longer wanted, and the second is the last to close it.
    for worker in &old {
        send(*worker, Signal::SIGQUIT);
        resume(*worker);
        await_end(*worker);
    }
    let mut expected = Vec::new();
    for client in &clients {
        if client.ask() == Outcome::Served {
            continue;
        }
        expected.extend([
            Reset::sent(at(FRONT), client.own(), "listener-closed")
                .state("ESTABLISHED")
                .owner(who(nginx.pid(), "nginx"))
                .by(who(old[1], "nginx")),
            Reset::received(client.own(), at(FRONT), "peer-aborted")
                .state("ESTABLISHED")
                .owner(Test),
        ]);
    }
    assert!(!expected.is_empty(), "every client was served");
    watched.expect(&expected);
}

/// A worker is killed while some connections wait for it, some are idle and some have a request that
/// it has not read.
#[test]
fn a_worker_is_killed_under_load() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "return 200 done;");
    let watched = place.trace();
    let expected = Load::new(&place, nginx.worker, HTTP).worker_is_replaced(nginx.who(), || {
        send(nginx.worker, Signal::SIGKILL);
    });
    watched.expect(&expected);
}

/// How often each of the reload and the kill comes under traffic.
const ROUNDS: usize = 3;

/// How many clients make that traffic.
const CLIENTS: usize = 3;

/// nginx is reloaded, and its worker killed, again and again while clients ask as fast as they can:
/// what is reset then is a matter of chance, but each reset must have a cause that can be, the right
/// worker, and the client that saw it.
#[test]
fn reloads_and_kills_under_traffic() {
    let place = Place::new();
    let nginx = Nginx::start(&place, "return 200 done;");
    let watched = place.trace();
    let (mut workers, mut killed) = (vec![nginx.worker], Vec::new());
    let traffic = AtomicBool::new(true);
    let was_reset: Vec<SocketAddr> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| make_requests(&place, &traffic)))
            .collect();
        for _ in 0..ROUNDS {
            let worker = workers[workers.len() - 1];
            nginx.master.signal(Signal::SIGHUP);
            await_end(worker);
            let worker = nginx.master.await_children(1)[0];
            workers.push(worker);
            // Once every client waits for it.
            stop(worker);
            await_that("requests", || {
                let rows = place.rows();
                let unread = rows
                    .iter()
                    .filter(|row| row.local == at(FRONT) && row.unread > 0);
                unread.count() >= CLIENTS
            });
            send(worker, Signal::SIGKILL);
            killed.push(worker);
            let next = await_some("another worker", || {
                nginx
                    .master
                    .children()
                    .into_iter()
                    .find(|pid| *pid != worker)
            });
            workers.push(next);
        }
        traffic.store(false, Ordering::Relaxed);
        let ends = clients.into_iter().map(thread::ScopedJoinHandle::join);
        ends.flat_map(|end| end.expect("no panic")).collect()
    });

    let (events, counts) = watched.events(was_reset.len());
    let sent = sent_among(&events);
    assert_eq!(counts, (sent, sent, sent), "seen sent, and TcpOutRsts");
    let is_of = |event: &Value, pids: &[u32]| {
        let (owner, actor) = (&event["owner"], &event["actor"]);
        owner["comm"] == "nginx"
            && pids.iter().any(|pid| owner["pid"] == *pid)
            && owner["pid"] == actor["pid"]
    };
    for event in &events {
        let right = match (event["direction"].as_str(), event["cause"]["id"].as_str()) {
            (Some("received"), Some("peer-aborted" | "peer-gone" | "reset-during-close")) => {
                event["owner"]["pid"] == std::process::id()
            }
            (Some("sent"), Some("process-died")) => {
                is_of(event, &killed) && event["actor"]["signal"] == Signal::SIGKILL as i32
            }
            (Some("sent"), Some("closed-with-unread-data")) => {
                is_of(event, &workers) && event["actor"]["exiting"] == false
            }
            (Some("sent"), Some("data-after-close" | "late-segment")) => is_of(event, &workers),
            _ => false,
        };
        assert!(right, "{event}");
    }
    for client in &was_reset {
        let port = client.port();
        let is_shown =
            |event: &Value| event["direction"] == "received" && event["local"]["port"] == port;
        assert!(
            events.iter().any(is_shown),
            "the reset of port {port} was not shown"
        );
    }
}

/// Makes requests, several on a connection, for as long as there is to be traffic. Gives the ends
/// of the connections that were reset.
fn make_requests(place: &Place, traffic: &AtomicBool) -> Vec<SocketAddr> {
    let mut was_reset = Vec::new();
    while traffic.load(Ordering::Relaxed) {
        let client = Client::connect(place, FRONT);
        for _ in 0..50 {
            match client.ask() {
                Outcome::Served => {}
                Outcome::Closed => break,
                Outcome::Reset => {
                    was_reset.push(client.own());
                    break;
                }
            }
        }
    }
    was_reset
}
