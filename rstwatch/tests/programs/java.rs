//! HTTP clients and sockets in Java, one after the other: a virtual machine takes long to start.

use std::net::TcpListener;

use rstwatch::{cause::catalogue::Symptom, event::TcpState};

use crate::{
    client::{ANSWER, Client},
    expect::{Pair, Party::Test, Reset, Who, aborted, data_after_close, refused},
    nginx::Nginx,
    place::{FRONT, Place, UPSTREAM, at, resume, stop},
    script::{Script, words},
};

#[test]
fn it_resets_and_is_reset() {
    let place = Place::new();
    place.large_file();
    let nginx = Nginx::start(&place, "");
    let source = place.write("Client.java", include_str!("Client.java"));
    // Quick to start, and without files outside of the place.
    let args = ["-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"].map(Into::into);
    let mut java = Script::start(
        &place,
        "java",
        "java",
        args.into_iter().chain([source.into_os_string()]),
    );
    let who = java.who();
    let watched = place.trace();
    let mut expected = Vec::new();
    expected.extend(nobody_listens(&mut java, who));
    expected.extend(leaves(&place, &mut java, who, &nginx));
    let server = place.listen(UPSTREAM);
    expected.extend(pooled(&place, &mut java, who, &server));
    expected.extend(aborts(&mut java, who, &server));
    let (reset, pipe) = (words(Symptom::Reset, "Java"), words(Symptom::Pipe, "Java"));
    let nio_reset = words(Symptom::Reset, "Java NIO, Netty");
    let nio_pipe = words(Symptom::Pipe, "Java NIO, Tomcat");
    for asked in [
        [("open 9000", "open"), ("read", reset), ("write", pipe)],
        [
            ("open-channel 9000", "open"),
            // Since Java 13 as a read of a socket says it.
            ("read-channel", reset),
            ("write-channel", nio_pipe),
        ],
        [
            ("open-channel 9000", "open"),
            ("write-channel", nio_reset),
            ("write-channel", nio_pipe),
        ],
    ] {
        expected.extend(is_reset(&place, &mut java, who, &server, &asked));
    }
    watched.expect(&expected);
}

fn nobody_listens(java: &mut Script, who: Who) -> Pair {
    let error = java.ask("fetch http://127.0.0.1:9000/");
    assert!(
        error.starts_with(words(Symptom::Refused, "Java")),
        "{error}"
    );
    refused(at(UPSTREAM), "closed-port", who)
}

/// It closes in the middle of an answer.
fn leaves(place: &Place, java: &mut Script, who: Who, nginx: &Nginx) -> Pair {
    assert_eq!(java.ask("leave http://127.0.0.1:8080/large"), "reading");
    let server = place.await_full(FRONT);
    // Java shuts its side down before it closes; nginx is kept from noticing that between the two.
    stop(nginx.worker());
    assert_eq!(java.ask("now"), "closed");
    place.await_none("the connection", |row| row.remote == server.remote);
    resume(nginx.worker());
    [
        Reset::sent(server.remote, server.local, "closed-with-unread-data")
            .owner(who)
            .by(who),
        Reset::received(server.local, server.remote, "peer-aborted")
            .state("CLOSE_WAIT")
            .owner(nginx.who()),
    ]
}

/// The server closes a pooled connection, and Java uses it once more before it opens another.
fn pooled(place: &Place, java: &mut Script, who: Who, server: &TcpListener) -> Pair {
    java.tell("fetch http://127.0.0.1:9000/");
    let first = Client::accept(server);
    first.hear_request();
    first.say(ANSWER);
    assert_eq!(java.answer(), "done");
    let (own, peer) = (first.own(), first.peer());
    first.close();
    place.await_row("the server's FIN", |row| {
        (row.local, row.remote) == (peer, own) && row.state == TcpState::CloseWait
    });
    java.tell("fetch http://127.0.0.1:9000/");
    let second = Client::accept(server);
    second.hear_request();
    second.say(&ANSWER.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    assert_eq!(java.answer(), "done");
    data_after_close(Test, own, peer, who)
}

/// It closes with `SO_LINGER` 0.
fn aborts(java: &mut Script, who: Who, server: &TcpListener) -> Pair {
    assert_eq!(java.ask("open 9000"), "open");
    let behind = Client::accept(server);
    behind.hear("more");
    assert_eq!(java.ask("abort"), "closed");
    behind.hears_reset();
    aborted(who, behind.peer(), behind.own(), "linger-abort", Test)
}

/// The server closes with unread data.
fn is_reset(
    place: &Place,
    java: &mut Script,
    who: Who,
    server: &TcpListener,
    asked: &[(&str, &str)],
) -> Pair {
    assert_eq!(java.ask(asked[0].0), asked[0].1);
    let behind = Client::accept(server);
    let (own, peer) = (behind.own(), behind.peer());
    place.await_unread(own, peer, 4);
    behind.close();
    for (command, answer) in &asked[1..] {
        assert_eq!(java.ask(command), *answer, "to {command}");
    }
    aborted(Test, own, peer, "closed-with-unread-data", who)
}
