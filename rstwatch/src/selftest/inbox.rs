//! Where the tracer's output goes: its JSON, a line an object, kept until it is judged.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

/// The objects that have come.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Value>,
    summary: Value,
}

/// What the tracer counted, and the kernel, in the namespaces of the scenarios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Resets that were seen sent.
    pub(super) seen: u64,
    /// Resets that the kernel counted as sent, at least and at most.
    pub(super) counted: (u64, u64),
    /// Details that were lost, for whatever reason.
    pub(super) lost: u64,
}

impl Inbox {
    /// A writer whose lines come in here.
    pub(super) fn writer(self: &Arc<Self>) -> Writer {
        Writer {
            inbox: Arc::clone(self),
            rest: Vec::new(),
        }
    }

    /// The events of these network namespaces.
    pub(super) fn of(&self, netns: &[u32]) -> Vec<Value> {
        let state = self.lock();
        state.of(netns).cloned().collect()
    }

    /// Waits until `count` events of these network namespaces have come, or for as long as that may
    /// take.
    pub(super) fn await_events(&self, netns: &[u32], count: usize, patience: Duration) {
        let too_few = |state: &mut State| state.of(netns).count() < count;
        // Whether it took too long shows when the events are judged.
        drop(
            self.came
                .wait_timeout_while(self.lock(), patience, too_few)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// What the summary says; zeros before it has come.
    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let mut counts = Counts {
            lost: number(&state.summary["lost_detail"]["total"]),
            ..Counts::default()
        };
        for own in state.summary["namespaces"].as_array().into_iter().flatten() {
            if state.of_netns(&own["netns"]) {
                counts.seen += number(&own["sent_seen"]);
                counts.counted.0 += number(&own["out_rsts"]["low"]);
                counts.counted.1 += number(&own["out_rsts"]["high"]);
            }
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics that leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of<'a>(&'a self, netns: &'a [u32]) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(|event| netns.iter().any(|netns| event["netns"] == *netns))
    }

    /// Whether there are events of it: other namespaces of the host are counted as well.
    fn of_netns(&self, netns: &Value) -> bool {
        self.events.iter().any(|event| event["netns"] == *netns)
    }

    fn take(&mut self, mut object: Value) {
        let summary = object["summary"].take();
        if summary.is_null() {
            self.events.push(object);
        } else {
            self.summary = summary;
        }
    }
}

/// Takes lines apart.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: Arc<Inbox>,
    rest: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(bytes.len());
        };
        let mut state = self.inbox.lock();
        for line in self.rest[..end].split(|byte| *byte == b'\n') {
            state.take(serde_json::from_slice(line)?);
        }
        drop(state);
        self.rest.drain(..=end);
        self.inbox.came.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_whole_however_they_are_cut() {
        let inbox = Arc::new(Inbox::default());
        let mut writer = inbox.writer();
        for piece in ["{\"netns\":7}\n{\"net", "ns\":8}\n", "{\"netns\":7}\n"] {
            writer.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(inbox.of(&[7]).len(), 2);
        assert_eq!(inbox.of(&[7, 8]).len(), 3);
        inbox.await_events(&[8], 1, Duration::from_mins(1));
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let inbox = Arc::new(Inbox::default());
        assert!(inbox.writer().write(b"oops\n").is_err());
    }

    #[test]
    fn only_namespaces_of_scenarios_are_counted() {
        let inbox = Arc::new(Inbox::default());
        let summary = r#"{"summary":{"lost_detail":{"total":2},"namespaces":[
            {"netns":7,"out_rsts":{"low":3,"high":4},"sent_seen":3},
            {"netns":1,"out_rsts":{"low":90,"high":90},"sent_seen":80}]}}"#;
        let lines = format!("{{\"netns\":7}}\n{}\n", summary.replace('\n', ""));
        inbox.writer().write_all(lines.as_bytes()).unwrap();
        assert_eq!(
            inbox.counts(),
            Counts {
                seen: 3,
                counted: (3, 4),
                lost: 2
            }
        );
        assert_eq!(inbox.of(&[7]).len(), 1);
    }
}
