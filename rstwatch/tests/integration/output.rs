//! What reaches the reader: the table, names that lie, pipes that close, and the last words.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use rstwatch::scenario::Family;

use crate::tracer::{Scratch, Tracer, binary, calm, run, stage};

const CONNECT: &str = "client connect nobody -> ECONNREFUSED";

/// A name that turns a terminal red and begins a line of its own, and how it must be shown.
const HOSTILE_HEX: &str = "651b5b33316d0a76696c";
const HOSTILE_SHOWN: &str = "e\\x1b[31m\\nvil";

#[test]
fn the_table_has_a_header_and_a_line_an_event() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::start::<&str>(&stage, []);
    run(&mut stage, CONNECT);
    tracer.await_lines(3);
    let done = tracer.stop(Signal::SIGINT);
    assert!(done.status.success(), "{done:?}");
    assert!(!done.stdout.contains('\x1b'), "colour without a terminal");

    let rows: Vec<Vec<&str>> = done
        .stdout
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let header = [
        "TIME", "DIR", "PID", "COMM", "LOCAL", "REMOTE", "STATE", "CAUSE",
    ];
    assert_eq!(rows[0], header, "{}", done.stdout);
    let pid = stage.pid("client").expect("a PID").to_string();
    let client = stage.end("client").expect("an address").to_string();
    let nobody = stage.end("nobody").expect("an address").to_string();
    let mut events: Vec<&[&str]> = rows[1..3].iter().map(|row| &row[1..]).collect();
    events.sort_unstable();
    assert_eq!(
        events,
        [
            &[
                "recv", &pid, "client", &client, &nobody, "SYN_SENT", "refused"
            ][..],
            &["sent", "-", "-", &nobody, &client, "-", "closed-port"][..],
        ],
        "{}",
        done.stdout
    );
}

#[test]
fn the_table_fits_a_hundred_columns() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::start::<&str>(&stage, []);
    run(&mut stage, CONNECT);
    tracer.await_lines(3);
    let done = tracer.stop(Signal::SIGINT);
    for line in done.stdout.lines().take(3) {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn a_hostile_name_is_escaped_in_json() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::json(&stage, &["--received"]);
    run(&mut stage, &format!("client name {HOSTILE_HEX}\n{CONNECT}"));
    tracer.await_lines(1);
    let done = tracer.stop(Signal::SIGINT);
    let (events, _) = done.json();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["owner"]["comm"], HOSTILE_SHOWN);
    assert_no_control(&done.stdout);
}

#[test]
fn a_hostile_name_is_escaped_in_the_table() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::start(&stage, ["--received"]);
    run(&mut stage, &format!("client name {HOSTILE_HEX}\n{CONNECT}"));
    tracer.await_lines(2);
    let done = tracer.stop(Signal::SIGINT);
    let row = done.stdout.lines().nth(1).expect("no row");
    assert!(row.contains(HOSTILE_SHOWN), "{row}");
    assert_no_control(&done.stdout);
}

fn assert_no_control(text: &str) {
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "in {text:?}");
}

#[test]
fn sigterm_ends_with_the_summary_as_well() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut tracer = Tracer::json::<&str>(&stage, &[]);
    run(&mut stage, CONNECT);
    tracer.await_lines(2);
    let (events, summary) = tracer.stop(Signal::SIGTERM).json();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(summary["shown"], 2, "{summary}");
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let mut command = Command::new(binary());
    command
        .args(["-j", "--netns", &stage.netns()[0].to_string()])
        .stdout(Stdio::piped());
    let mut tracer = Tracer::spawn(command, Scratch::new());
    // As `rstwatch -j | head -1` does it: a line is read, and the pipe is closed.
    let mut reader = BufReader::new(tracer.take_stdout());
    run(&mut stage, CONNECT);
    let mut line = String::new();
    reader.read_line(&mut line).expect("cannot read");
    assert!(line.starts_with('{'), "{line}");
    drop(reader);
    run(&mut stage, CONNECT);
    let done = tracer.finish();
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    assert_eq!(done.stderr, "");
}
