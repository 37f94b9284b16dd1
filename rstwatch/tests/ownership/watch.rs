//! The tracer's output, read while it is written.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    PATIENCE,
    tracer::{Scratch, Tracer, binary},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A tracer, and the events that it has shown so far.
pub struct Watch {
    tracer: Tracer,
    shown: Mutex<Shown>,
    start: Duration,
}

/// What it has shown.
struct Shown {
    output: BufReader<File>,
    line: String,
    events: Vec<Value>,
}

impl Watch {
    /// Starts the tracer for these network namespaces and waits until it traces.
    pub fn start(netns: impl IntoIterator<Item = u32>) -> Self {
        let mut command = Command::new(binary());
        command.arg("-j");
        for netns in netns {
            command.args(["--netns", &netns.to_string()]);
        }
        let scratch = Scratch::new();
        let path = scratch.path("stdout");
        command.stdout(File::create(&path).expect("cannot make a file"));
        let output = BufReader::new(File::open(&path).expect("cannot open a file"));
        let begun = Instant::now();
        let tracer = Tracer::spawn(command, scratch);
        Self {
            start: begun.elapsed(),
            tracer,
            shown: Mutex::new(Shown {
                output,
                line: String::new(),
                events: Vec::new(),
            }),
        }
    }

    /// How long the tracer took until it traced.
    pub fn start_time(&self) -> Duration {
        self.start
    }

    /// The tracer's PID.
    pub fn pid(&self) -> u32 {
        self.tracer.pid()
    }

    /// Waits until `count` events of these namespaces were shown, or for as long as they may take,
    /// and gives them.
    pub fn await_events(&self, netns: &[u32], count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.shown.lock().expect("no panic").of(netns);
            if seen.len() >= count || Instant::now() >= deadline {
                return seen;
            }
            thread::sleep(LOOK);
        }
    }

    /// Stops the tracer and gives its summary.
    pub fn stop(self, signal: Signal) -> Value {
        self.tracer.stop(signal).json().1
    }
}

impl Shown {
    /// The events of these namespaces so far.
    fn of(&mut self, netns: &[u32]) -> Vec<Value> {
        self.read();
        let of_these = |event: &&Value| netns.iter().any(|netns| event["netns"] == *netns);
        self.events.iter().filter(of_these).cloned().collect()
    }

    /// Takes in the lines that are complete.
    fn read(&mut self) {
        while self
            .output
            .read_line(&mut self.line)
            .expect("cannot read the output")
            > 0
        {
            if !self.line.ends_with('\n') {
                return;
            }
            let event = serde_json::from_str(&self.line)
                .unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.line));
            self.events.push(event);
            self.line.clear();
        }
    }
}
