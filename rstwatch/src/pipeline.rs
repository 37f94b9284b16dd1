//! The stages in a row, from a record's bytes to the sink's: decode, interpret, owner, cause,
//! filter, sink. No I/O but what `owner::details` reads, no waiting: time and found owners come
//! from outside.

mod end;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, num::NonZeroU32};

use bytes::BytesMut;
use rstwatch_common::record::{Refused, SegmentReset};

use self::end::End;
pub use self::tally::{CauseCounts, Tally};
use crate::{
    alike::Alike,
    cause::HostFacts,
    clock::Clock,
    decode::{self, Record},
    event::{Direction, Event, Reason},
    filter::Filter,
    interpret::{Interpreter, Observation},
    owner::{
        Owners,
        listeners::Listeners,
        procfs::{Holders, Procfs},
    },
    pair::{Coming, Pairs},
    sink::{Sink, recent::Recent, summary::Summary},
    storm::{Counted, Now, Watch, limit::Limit},
};

/// The stages and what they keep.
#[derive(Debug)]
pub struct Pipeline {
    interpreter: Interpreter,
    owners: Owners<Procfs>,
    alike: Box<Alike>,
    rear: Rear,
    seen_to_ns: u64,
}

/// The stages behind the owner's.
#[derive(Debug)]
struct Rear {
    pairs: Pairs,
    end: End,
}

impl Rear {
    /// Takes in an event that is complete: the one that was `coming`.
    fn complete(&mut self, coming: Coming, event: Box<Event>) {
        let end = &mut self.end;
        self.pairs
            .complete(coming, event, &mut |paired| end.take(paired));
    }

    /// The same of one that had to wait for that, and was expected.
    fn complete_at_last(&mut self, event: Box<Event>) {
        let coming = Coming::of(&event);
        self.pairs.forget(coming);
        self.complete(coming, event);
    }

    fn tick(&mut self, now_ns: u64) {
        let end = &mut self.end;
        self.pairs.tick(now_ns, &mut |paired| end.take(paired));
    }

    fn finish(&mut self) {
        let end = &mut self.end;
        self.pairs.finish(&mut |paired| end.take(paired));
    }
}

impl Pipeline {
    /// Puts the stages together. At most `most` events are shown.
    pub fn new(
        interpreter: Interpreter,
        snapshot: Holders,
        listeners: Listeners,
        host: HostFacts,
        filter: Filter,
        sink: Sink,
        most: u64,
    ) -> Self {
        Self {
            interpreter,
            owners: Owners::new(snapshot, listeners, Procfs),
            alike: Box::default(),
            seen_to_ns: 0,
            rear: Rear {
                pairs: Pairs::default(),
                end: End::new(host, filter, sink, most),
            },
        }
    }

    /// Shows at most so many events a second from now on.
    pub fn limit_rate(&mut self, most: NonZeroU32) {
        self.rear.end.limit = Some(Limit::new(most.get()));
    }

    /// Takes in a record.
    ///
    /// # Errors
    ///
    /// When the bytes are none; it is counted, and the next one can follow.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), decode::DecodeError> {
        match decode::decode(bytes) {
            Ok(Record::Segment(opening)) => self.opening(opening),
            Ok(Record::Refused(refused)) => self.refused(refused),
            Ok(record) => {
                self.let_openings_go();
                // It may change what is known of processes and listeners.
                let end = &mut self.rear.end;
                for mut both in self.alike.forget() {
                    end.settle(&mut both);
                    end.done_with(*both);
                }
                self.take_in(record);
            }
            Err(error) => {
                self.rear.end.tally.undecoded += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes in a segment that met no socket: in a storm that of a connect like one before.
    fn opening(&mut self, opening: &SegmentReset) {
        let coming = Coming::of_record(&opening.reset, Direction::Sent);
        if !self.rear.pairs.knows(coming) && self.alike.holds_back(opening) {
            self.seen_to_ns = opening.reset.header.time_ns;
            return;
        }
        self.let_openings_go();
        self.alike.note(opening);
        self.take_in(Record::Segment(opening));
    }

    /// Takes in the end of a connect.
    fn refused(&mut self, refused: &Refused) {
        if let Some(found) = self.alike.find(refused) {
            let (opening, both) = self.alike.take(&found);
            (self.interpreter).interpret_again(
                &opening,
                refused,
                &mut both.sent,
                &mut both.received,
            );
            if both.sent.listener.is_some() {
                (self.owners).ask_listeners(&mut both.sent, opening.reset.header.time_ns);
            }
            self.seen_to_ns = refused.reset.header.time_ns;
            self.rear.end.show_again(both);
            return;
        }
        self.let_openings_go();
        let opening = self.alike.opening_of(refused);
        self.rear.end.keeps_both = opening.is_some();
        self.take_in(Record::Refused(refused));
        let end = &mut self.rear.end;
        end.keeps_both = false;
        if let (Some(opening), Some(both)) = (opening, end.kept_both.take()) {
            // Of several segments between the same ends it may be another.
            let is_its =
                both.sent.time_ns == self.interpreter.clock.wall_ns(opening.reset.header.time_ns);
            let old = if is_its {
                self.alike.learn(opening, *refused, both)
            } else {
                Some(both)
            };
            if let Some(mut old) = old {
                end.settle(&mut old);
                end.done_with(*old);
            }
        }
    }

    /// Lets openings go on whose other end has not come, or is like none before.
    fn let_openings_go(&mut self) {
        for opening in self.alike.take_openings() {
            self.take_in(Record::Segment(&opening));
        }
    }

    /// Catches up with what was put off while records came: everything is counted then.
    fn settle(&mut self) {
        self.let_openings_go();
        for both in self.alike.all() {
            self.rear.end.settle(both);
        }
    }

    fn take_in(&mut self, record: Record<'_>) {
        let coming = (record.reset()).map(|(reset, direction)| Coming::of_record(reset, direction));
        let observation = (self.interpreter).interpret(record, &mut self.rear.end.spare);
        let rear = &mut self.rear;
        if let (Observation::Reset(sighting), Some(coming)) = (&observation, coming) {
            self.seen_to_ns = sighting.monotonic_ns;
            rear.end.details.learn(&sighting.event);
            // If any comes out, it is this one.
            let mut waits = true;
            self.owners.observe(observation, &mut |event| {
                waits = false;
                rear.complete(coming, event);
            });
            if waits {
                rear.pairs.expect(coming);
            }
            for event in self.owners.take_unreceived() {
                rear.pairs.forget(Coming::of(&event));
            }
        } else {
            self.owners
                .observe(observation, &mut |event| rear.complete_at_last(event));
        }
    }

    /// The reset reason with the kernel's number `number`.
    pub fn reason(&self, number: u32) -> Option<Reason> {
        self.interpreter.reasons.get(number)
    }

    /// When the last reset taken in was seen, in nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn seen_to_ns(&self) -> u64 {
        self.seen_to_ns
    }

    /// To be told before records are read: `now_ns` of `CLOCK_MONOTONIC`.
    pub fn reading_at(&mut self, now_ns: u64) {
        self.rear.pairs.reading_at(now_ns);
    }

    /// Moves on what has waited long enough at `now_ns` of `CLOCK_MONOTONIC`, which must not be
    /// ahead of the records that have been taken in.
    pub fn tick(&mut self, now_ns: u64) {
        self.settle();
        self.tick_owners(now_ns);
        self.rear.tick(now_ns);
    }

    fn tick_owners(&mut self, now_ns: u64) {
        let rear = &mut self.rear;
        self.owners
            .tick(now_ns, &mut |event| rear.complete_at_last(event));
    }

    /// Inodes of sockets whose holders are to be searched for.
    pub fn take_wanted(&mut self) -> Option<BTreeSet<u64>> {
        self.owners.take_wanted()
    }

    /// Takes in what the search found.
    pub fn found(&mut self, searched: &BTreeSet<u64>, holders: &Holders) {
        let rear = &mut self.rear;
        self.owners
            .found(searched, holders, &mut |event| rear.complete_at_last(event));
    }

    /// Ends all waiting for a close: who still holds the socket is to be searched for now.
    pub fn hurry(&mut self) {
        self.settle();
        // The first ends the waiting for a sign that no RST had come, the second that for a close.
        self.tick_owners(u64::MAX);
        self.tick_owners(u64::MAX);
    }

    /// Lets go of what still waits.
    pub fn finish(&mut self) {
        self.settle();
        let rear = &mut self.rear;
        self.owners
            .finish(&mut |event| rear.complete_at_last(event));
        rear.finish();
        rear.end.say_limited(None);
    }

    /// Whether [`Self::watch_storm`] has something to do.
    pub fn is_storm_due(&self, monotonic_ns: u64) -> bool {
        self.rear.end.storm.is_due(monotonic_ns)
    }

    /// Looks whether a storm has begun, changed or ended, and says so. `counted`: the kernel side's
    /// exact totals, when there are any; always or never.
    pub fn watch_storm(&mut self, monotonic_ns: u64, counted: Option<Counted>) {
        let now = self.now(monotonic_ns);
        let end = &mut self.rear.end;
        end.say_limited(Some(monotonic_ns));
        if let Some(report) = end.storm.tick(now, counted) {
            end.sink.report(&mut end.buffer, &report);
        }
    }

    /// Says what the resets of late have in common.
    pub fn shape(&mut self, monotonic_ns: u64) {
        let now = self.now(monotonic_ns);
        let end = &mut self.rear.end;
        let report = end.storm.report(now);
        end.sink.report(&mut end.buffer, &report);
    }

    /// The time at `monotonic_ns` by both clocks.
    pub fn now(&self, monotonic_ns: u64) -> Now {
        Now {
            monotonic_ns,
            wall_ns: self.interpreter.clock.wall_ns(monotonic_ns),
        }
    }

    /// What is counted of the shape of things, and the last events, when the sink keeps them.
    pub fn storm_and_recent(&mut self) -> (&mut Watch, Option<&mut Recent>) {
        let end = &mut self.rear.end;
        let recent = match &mut end.sink {
            Sink::Recent(recent) => Some(&mut **recent),
            Sink::Json(_) | Sink::Table(_) => None,
        };
        (&mut *end.storm, recent)
    }

    /// What went through so far.
    pub const fn tally(&self) -> &Tally {
        &self.rear.end.tally
    }

    /// Events that went on without waiting for their owner.
    pub fn unawaited(&self) -> u64 {
        self.owners.overflowed()
    }

    /// Listeners that were not remembered.
    pub fn forgotten_listeners(&self) -> u64 {
        self.owners.listeners_overflowed()
    }

    /// Whether as many events have been shown as were asked for.
    pub const fn is_complete(&self) -> bool {
        self.rear.end.tally.shown >= self.rear.end.most
    }

    /// What is to be written.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.rear.end.buffer
    }

    /// Has it said why an event has no owner.
    pub fn note_unknown_owners(&mut self) {
        self.rear.end.notes = Some(Vec::new());
    }

    /// What is to be said since the last call.
    pub fn take_notes(&mut self) -> Vec<String> {
        self.rear
            .end
            .notes
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Writes what comes before the first event.
    pub fn begin(&mut self) {
        let end = &mut self.rear.end;
        end.sink.begin(&mut end.buffer);
    }

    /// Writes a summary.
    pub fn summary(&mut self, summary: &Summary) {
        let end = &mut self.rear.end;
        end.sink.summary(&mut end.buffer, summary);
    }

    /// The clocks, to follow a step of the wall clock.
    pub const fn clock(&mut self) -> &mut Clock {
        &mut self.interpreter.clock
    }
}
