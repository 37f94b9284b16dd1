//! The stages in a row, from a record's bytes to the sink's: decode, interpret, owner, cause,
//! filter, sink. No I/O but what `owner::details` reads, no waiting: time and found owners come
//! from outside.

use std::{collections::BTreeSet, num::NonZeroU32};

use arrayvec::ArrayVec;
use bytes::BytesMut;
use foldhash::HashMap;

use rstwatch_common::record::{Refused, SegmentReset};

use crate::{
    alike::{Alike, Both, Repeats},
    cause::{self, CauseId, HostFacts, Verdict, catalogue},
    clock::Clock,
    decode::{self, Record},
    event::{Direction, Event, Peer, Reason, Spare},
    filter::Filter,
    interpret::{Interpreter, Observation},
    owner::{
        self, Owners,
        details::ProcessDetails,
        listeners::Listeners,
        procfs::{Holders, Procfs},
    },
    pair::{Coming, Paired, Pairs},
    reconcile::Traced,
    scan::Scans,
    sink::{Mark, Sink, recent::Recent, summary::Summary},
    storm::{Counted, Now, Watch, limit::Limit},
};

/// How many resets had which cause, by direction. An array: counting is on the way of every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseCounts([[u64; catalogue::ENTRIES.len()]; 2]);

impl CauseCounts {
    fn add(&mut self, direction: Direction, id: CauseId, times: u64) {
        self.0[direction as usize][id as usize] += times;
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
    /// Resets that the limit of rows a second kept back.
    pub limited: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Sent resets by the inode of their network namespace.
    pub sent_by_netns: HashMap<u32, Traced>,
}

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

/// The stages that take an event on at once.
#[derive(Debug)]
struct End {
    details: ProcessDetails,
    /// Memory of peers that have been shown.
    spare_peers: ArrayVec<Box<Peer>, 2>,
    /// And of events.
    spare: Spare,
    /// Whether both ends that are shown next are to be kept, and those that were.
    keeps_both: bool,
    kept_both: Option<Box<Both>>,
    scans: Scans,
    host: HostFacts,
    filter: Filter,
    /// Whether that keeps anything back.
    filters: bool,
    sink: Sink,
    storm: Box<Watch>,
    /// How many rows a second are shown, when that is limited.
    limit: Option<Limit>,
    tally: Tally,
    /// Events to show at the most.
    most: u64,
    buffer: BytesMut,
    /// Why shown events have no owner, when that is asked for.
    notes: Option<Vec<String>>,
}

/// Notes that are kept until they are taken; what is beyond is not said.
const MOST_NOTES: usize = 1_024;

impl End {
    fn take(&mut self, paired: Paired) {
        match paired {
            Paired::Single(mut event) => {
                self.details.complete(&mut event);
                event.scan = self.scans.note(&event);
                let mut verdict = Verdict::default();
                cause::judge(&event, &self.host, &mut verdict);
                self.show(&event, &verdict);
                self.spare.keep(event);
            }
            Paired::Both { sent, received } => self.show_both(sent, received),
        }
    }

    /// Each end learns of the other.
    fn show_both(&mut self, mut sent: Box<Event>, mut received: Box<Event>) {
        // The end with an owner first: its place may name the namespace of both.
        if sent.owner.is_some() {
            self.details.complete(&mut sent);
            self.details.complete(&mut received);
        } else {
            self.details.complete(&mut received);
            self.details.complete(&mut sent);
        }
        sent.scan = self.scans.note(&sent);
        let mut both = Both {
            sent,
            received,
            why: Verdict::default(),
            effect: Verdict::default(),
            repeats: Default::default(),
        };
        self.judge_both(&mut both);
        self.show_in_order(&mut both);
        self.settle(&mut both);
        if self.keeps_both {
            self.kept_both = Some(Box::new(both));
        } else {
            self.done_with(both);
        }
    }

    /// The same for a refused connect like one that has been shown: its numbers have been put into what is known of
    /// that one.
    fn show_again(&mut self, both: &mut Both) {
        let scan = self.scans.note(&both.sent);
        if both.sent.scan != scan {
            self.settle(both);
            both.sent.scan = scan;
            self.judge_both(both);
            both.repeats = Default::default();
        } else if both.sent.listener.is_some() {
            // How long ago it ended is part of the evidence. The cause stays.
            cause::judge(&both.sent, &self.host, &mut both.why);
        }
        self.show_in_order(both);
    }

    /// The sender's cause is decided first: that the other end was reset tells nothing about why.
    fn judge_both(&mut self, both: &mut Both) {
        let Both {
            sent,
            received,
            why,
            effect,
            ..
        } = both;
        cause::judge(sent, &self.host, why);
        received.peer = Some(self.peer(sent, why.id.name()));
        cause::judge(received, &self.host, effect);
        sent.peer = Some(self.peer(received, effect.id.name()));
    }

    /// Shows both ends; how often they came is [settled](Self::settle) later.
    fn show_in_order(&mut self, both: &mut Both) {
        let Both {
            sent,
            received,
            why,
            effect,
            repeats: [sent_repeats, received_repeats],
        } = both;
        let in_order = sent.time_ns <= received.time_ns;
        let mut ends = [
            (&**sent, &*why, sent_repeats),
            (&**received, &*effect, received_repeats),
        ];
        if !in_order {
            ends.reverse();
        }
        for (event, verdict, repeats) in ends {
            let matches = self.matches(event, verdict);
            repeats.times += 1;
            repeats.of_storm += u64::from(self.is_for_storm(matches));
            self.put(event, verdict, matches, &mut repeats.line);
        }
    }

    /// Counts both ends as often as they have been shown.
    fn settle(&mut self, both: &mut Both) {
        let Both {
            sent,
            received,
            why,
            effect,
            repeats: [sent_repeats, received_repeats],
        } = both;
        self.count(sent, why, sent_repeats);
        self.count(received, effect, received_repeats);
    }

    /// Keeps the memory of events for those to come.
    fn done_with(&mut self, both: Both) {
        self.spare_peers.clear();
        for mut event in [both.sent, both.received] {
            self.spare_peers.extend(event.peer.take());
            self.spare.keep(event);
        }
    }

    /// What the other end is told of `event`.
    fn peer(&mut self, event: &Event, cause: &'static str) -> Box<Peer> {
        let mut peer = self.spare_peers.pop().unwrap_or_else(|| {
            Box::new(Peer {
                owner: None,
                actor: None,
                cause,
            })
        });
        peer.owner.clone_from(&event.owner);
        peer.actor.clone_from(&event.actor);
        peer.cause = cause;
        peer
    }

    fn show(&mut self, event: &Event, verdict: &Verdict) {
        let matches = self.matches(event, verdict);
        let mut once = Repeats {
            times: 1,
            of_storm: u64::from(self.is_for_storm(matches)),
            ..Repeats::default()
        };
        self.count(event, verdict, &mut once);
        self.put(event, verdict, matches, &mut once.line);
    }

    fn matches(&self, event: &Event, verdict: &Verdict) -> bool {
        !self.filters || self.filter.matches(event, verdict)
    }

    /// A storm outside of the filter is said as well; a screen has room for what was asked for.
    fn is_for_storm(&self, matches: bool) -> bool {
        matches || !matches!(self.sink, Sink::Recent(_))
    }

    /// Counts events that are alike, and have not been counted.
    fn count(&mut self, event: &Event, verdict: &Verdict, repeats: &mut Repeats) {
        let times = std::mem::take(&mut repeats.times);
        if times == 0 {
            return;
        }
        self.tally.causes.add(event.direction, verdict.id, times);
        if event.direction == Direction::Sent
            && let Some(netns) = event.netns
        {
            let sent = self.tally.sent_by_netns.entry(netns).or_default();
            sent.note(event, verdict.id, times);
        }
        let times = std::mem::take(&mut repeats.of_storm);
        self.storm.note_times(event, verdict, times);
    }

    /// Writes an event, if it is wanted.
    fn put(&mut self, event: &Event, verdict: &Verdict, matches: bool, line: &mut Mark) {
        if self.tally.shown >= self.most || !matches {
            self.tally.filtered += 1;
        } else if let Some(limit) = &mut self.limit
            && !limit.lets_through(event.direction, verdict.id)
        {
            self.tally.limited += 1;
        } else {
            self.tally.shown += 1;
            self.sink.event(&mut self.buffer, event, verdict, line);
            if let Some(notes) = &mut self.notes
                && notes.len() < MOST_NOTES
                && let Some(why) = owner::why_unknown(event)
            {
                let (local, remote) = (event.local, event.remote);
                notes.push(format!("no owner for {local} {remote}: {why}"));
            }
        }
    }

    /// Says how many rows were held back until now, when some were.
    fn say_limited(&mut self, now_ns: Option<u64>) {
        if let Some(limit) = &mut self.limit
            && let Some(limited) = match now_ns {
                Some(now_ns) => limit.tick(now_ns),
                None => limit.finish(),
            }
        {
            self.sink.limited(&mut self.buffer, &limited);
        }
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
                end: End {
                    details: ProcessDetails::watch(),
                    spare_peers: ArrayVec::new(),
                    spare: Spare::default(),
                    keeps_both: false,
                    kept_both: None,
                    scans: Scans::default(),
                    host,
                    filters: filter != Filter::default(),
                    filter,
                    sink,
                    storm: Box::default(),
                    limit: None,
                    tally: Tally::default(),
                    most,
                    buffer: BytesMut::new(),
                    notes: None,
                },
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

#[cfg(test)]
mod tests;
