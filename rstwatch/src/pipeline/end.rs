//! The stages that take an event on at once, once it is complete and its other end has come or is not waited for: its
//! place, its cause, the filter, the counts and the sink.

use arrayvec::ArrayVec;
use bytes::BytesMut;

use super::tally::Tally;
use crate::{
    alike::{Both, Repeats},
    cause::{self, HostFacts, Verdict},
    event::{Direction, Event, Peer, Spare},
    filter::Filter,
    owner::{self, details::ProcessDetails},
    pair::Paired,
    scan::Scans,
    sink::{Mark, Sink},
    storm::{Watch, limit::Limit},
};

/// Those stages, and what they keep.
#[derive(Debug)]
pub(super) struct End {
    pub(super) details: ProcessDetails,
    /// Memory of peers that have been shown.
    spare_peers: ArrayVec<Box<Peer>, 2>,
    /// And of events.
    pub(super) spare: Spare,
    /// Whether both ends that are shown next are to be kept, and those that were.
    pub(super) keeps_both: bool,
    pub(super) kept_both: Option<Box<Both>>,
    scans: Scans,
    host: HostFacts,
    filter: Filter,
    /// Whether that keeps anything back.
    filters: bool,
    pub(super) sink: Sink,
    pub(super) storm: Box<Watch>,
    /// How many rows a second are shown, when that is limited.
    pub(super) limit: Option<Limit>,
    pub(super) tally: Tally,
    /// Events to show at the most.
    pub(super) most: u64,
    pub(super) buffer: BytesMut,
    /// Why shown events have no owner, when that is asked for.
    pub(super) notes: Option<Vec<String>>,
}

/// Notes that are kept until they are taken; what is beyond is not said.
const MOST_NOTES: usize = 1_024;

impl End {
    pub(super) fn new(host: HostFacts, filter: Filter, sink: Sink, most: u64) -> Self {
        Self {
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
        }
    }

    pub(super) fn take(&mut self, paired: Paired) {
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
    pub(super) fn show_again(&mut self, both: &mut Both) {
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
        let mut ends = both.ends();
        if ends[0].0.time_ns > ends[1].0.time_ns {
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
    pub(super) fn settle(&mut self, both: &mut Both) {
        for (event, verdict, repeats) in both.ends() {
            self.count(event, verdict, repeats);
        }
    }

    /// Keeps the memory of events for those to come.
    pub(super) fn done_with(&mut self, both: Both) {
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
    pub(super) fn say_limited(&mut self, now_ns: Option<u64>) {
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
