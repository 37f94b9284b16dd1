//! An HTTP client in Python.

use rstwatch::{cause::catalogue::Symptom, event::TcpState};

use crate::{
    client::{ANSWER, Client},
    expect::{Party::Test, aborted, data_after_close, refused},
    nginx::Nginx,
    place::{FRONT, Place, UPSTREAM, at},
    script::{Script, words},
};

fn start(place: &Place) -> Script {
    let source = place.write("client.py", include_str!("client.py"));
    Script::start(place, "python3", "/usr/bin/python3", [source])
}

#[test]
fn it_closes_in_the_middle_of_the_answer() {
    let place = Place::new();
    place.large_file();
    let nginx = Nginx::start(&place, "");
    let mut python = start(&place);
    let watched = place.trace();
    assert_eq!(python.ask("leave http://127.0.0.1:8080/large"), "reading");
    let server = place.await_full(FRONT);
    assert_eq!(python.ask("now"), "closed");
    watched.expect(&aborted(
        python.who(),
        server.remote,
        server.local,
        "closed-with-unread-data",
        nginx.who(),
    ));
}

#[test]
fn nobody_listens() {
    let place = Place::new();
    let mut python = start(&place);
    let watched = place.trace();
    let error = python.ask("fetch http://127.0.0.1:9000/");
    assert_eq!(error, words(Symptom::Refused, "Python"));
    watched.expect(&refused(at(UPSTREAM), "closed-port", python.who()));
}

#[test]
fn the_server_closes_without_having_read_the_request() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let mut python = start(&place);
    let watched = place.trace();
    python.tell("keep 9000");
    let behind = Client::accept(&server);
    let (own, peer) = (behind.own(), behind.peer());
    place.await_unread(own, peer, 1);
    behind.close();
    assert_eq!(python.answer(), words(Symptom::Reset, "Python"));
    let pair = aborted(Test, own, peer, "closed-with-unread-data", python.who());
    watched.expect(&pair);
}

#[test]
fn a_kept_connection_was_closed_by_the_server() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let mut python = start(&place);
    let watched = place.trace();
    python.tell("keep 9000");
    let behind = Client::accept(&server);
    behind.hear_request();
    behind.say(ANSWER);
    assert_eq!(python.answer(), "done");
    let (own, peer) = (behind.own(), behind.peer());
    behind.close();
    place.await_row("the server's FIN", |row| {
        (row.local, row.remote) == (peer, own) && row.state == TcpState::CloseWait
    });
    // The first request draws the reset; and what comes after it fails.
    assert_eq!(python.ask("push"), "sent");
    assert_eq!(python.ask("push"), words(Symptom::Pipe, "Python"));
    watched.expect(&data_after_close(Test, own, peer, python.who()));
}

/// The end of the stream instead of an answer, which is no reset.
#[test]
fn the_server_closes_without_an_answer() {
    let place = Place::new();
    let server = place.listen(UPSTREAM);
    let mut python = start(&place);
    let watched = place.trace();
    python.tell("keep 9000");
    let behind = Client::accept(&server);
    behind.hear_request();
    behind.close();
    assert_eq!(python.answer(), words(Symptom::End, "Python"));
    watched.expect(&[]);
}
