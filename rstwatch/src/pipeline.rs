//! The stages in a row, from a record's bytes to the sink's: decode, interpret, owner, cause,
//! filter, sink. No I/O but what `owner::details` reads, no waiting: time and found owners come
//! from outside.

use std::collections::{BTreeSet, HashMap};

use bytes::BytesMut;

use crate::{
    cause::{self, CauseId, HostFacts, catalogue},
    clock::Clock,
    decode,
    event::{Direction, Event},
    filter::Filter,
    interpret::Interpreter,
    owner::{
        Owners,
        details::ProcessDetails,
        procfs::{Holders, Procfs},
    },
    sink::{Sink, summary::Summary},
};

/// How many resets had which cause, by direction. An array: counting is on the way of every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseCounts([[u64; catalogue::ENTRIES.len()]; 2]);

impl CauseCounts {
    fn add(&mut self, direction: Direction, id: CauseId) {
        self.0[direction as usize][id as usize] += 1;
    }

    /// Those that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, CauseId, u64)> {
        [Direction::Sent, Direction::Received]
            .into_iter()
            .flat_map(move |direction| {
                catalogue::ENTRIES.iter().map(move |entry| {
                    (
                        direction,
                        entry.id,
                        self.0[direction as usize][entry.id as usize],
                    )
                })
            })
            .filter(|(_, _, count)| *count > 0)
    }
}

/// What went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Resets by direction and cause.
    pub causes: CauseCounts,
    /// Resets written to the sink.
    pub shown: u64,
    /// Resets that the filter kept back.
    pub filtered: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Sent resets by the inode of their network namespace.
    pub sent_by_netns: HashMap<u32, u64>,
}

/// The stages and what they keep.
#[derive(Debug)]
pub struct Pipeline {
    interpreter: Interpreter,
    owners: Owners<Procfs>,
    rear: Rear,
}

/// The stages behind the owner's, which take an event on at once.
#[derive(Debug)]
struct Rear {
    details: ProcessDetails,
    host: HostFacts,
    filter: Filter,
    sink: Sink,
    tally: Tally,
    /// Events to show at the most.
    most: u64,
    buffer: BytesMut,
}

impl Rear {
    fn complete(&mut self, mut event: Event) {
        self.details.complete(&mut event);
        let verdict = cause::classify(&event, &self.host);
        self.tally.causes.add(event.direction, verdict.id);
        if event.direction == Direction::Sent
            && let Some(netns) = event.netns
        {
            *self.tally.sent_by_netns.entry(netns).or_default() += 1;
        }
        if self.tally.shown < self.most && self.filter.matches(&event, &verdict) {
            self.tally.shown += 1;
            self.sink.event(&mut self.buffer, &event, &verdict);
        } else {
            self.tally.filtered += 1;
        }
    }
}

impl Pipeline {
    /// Puts the stages together. At most `most` events are shown.
    pub fn new(
        interpreter: Interpreter,
        snapshot: Holders,
        host: HostFacts,
        filter: Filter,
        sink: Sink,
        most: u64,
    ) -> Self {
        Self {
            interpreter,
            owners: Owners::new(snapshot, Procfs),
            rear: Rear {
                details: ProcessDetails::watch(),
                host,
                filter,
                sink,
                tally: Tally::default(),
                most,
                buffer: BytesMut::new(),
            },
        }
    }

    /// Takes in a record.
    ///
    /// # Errors
    ///
    /// When the bytes are none; it is counted, and the next one can follow.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), decode::DecodeError> {
        match decode::decode(bytes) {
            Ok(record) => {
                let observation = self.interpreter.interpret(record);
                let rear = &mut self.rear;
                self.owners
                    .observe(observation, &mut |event| rear.complete(event));
                Ok(())
            }
            Err(error) => {
                self.rear.tally.undecoded += 1;
                Err(error)
            }
        }
    }

    /// Moves on what has waited long enough at `now_ns` of `CLOCK_MONOTONIC`.
    pub fn tick(&mut self, now_ns: u64) {
        let rear = &mut self.rear;
        self.owners.tick(now_ns, &mut |event| rear.complete(event));
    }

    /// Inodes of sockets whose holders are to be searched for.
    pub fn take_wanted(&mut self) -> Option<BTreeSet<u64>> {
        self.owners.take_wanted()
    }

    /// Takes in what the search found.
    pub fn found(&mut self, searched: &BTreeSet<u64>, holders: &Holders) {
        let rear = &mut self.rear;
        self.owners
            .found(searched, holders, &mut |event| rear.complete(event));
    }

    /// Ends all waiting for a close: who still holds the socket is to be searched for now.
    pub fn hurry(&mut self) {
        // The first ends the waiting for a sign that no RST had come, the second that for a close.
        self.tick(u64::MAX);
        self.tick(u64::MAX);
    }

    /// Lets go of what still waits.
    pub fn finish(&mut self) {
        let rear = &mut self.rear;
        self.owners.finish(&mut |event| rear.complete(event));
    }

    /// What went through so far.
    pub const fn tally(&self) -> &Tally {
        &self.rear.tally
    }

    /// Events that went on without waiting for their owner.
    pub fn unawaited(&self) -> u64 {
        self.owners.overflowed()
    }

    /// Whether as many events have been shown as were asked for.
    pub const fn is_complete(&self) -> bool {
        self.rear.tally.shown >= self.rear.most
    }

    /// What is to be written.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.rear.buffer
    }

    /// Writes what comes before the first event.
    pub fn begin(&mut self) {
        let rear = &mut self.rear;
        rear.sink.begin(&mut rear.buffer);
    }

    /// Writes a summary.
    pub fn summary(&mut self, summary: &Summary) {
        let rear = &mut self.rear;
        rear.sink.summary(&mut rear.buffer, summary);
    }

    /// The clocks, to follow a step of the wall clock.
    pub const fn clock(&mut self) -> &mut Clock {
        &mut self.interpreter.clock
    }
}
