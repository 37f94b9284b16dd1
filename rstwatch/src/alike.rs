//! Refused connects with both ends in one network namespace that are like one just before: in a storm on one host nearly
//! all are. What was found out about that one, from its owner to its cause, holds for them too; they differ in time, in
//! the port that the kernel picked for the end that connects, and in the sequence number that it chose.
//!
//! Which are alike is decided here, by their records: the segment that met no socket, and the end of the connect that
//! its answer was. Until that end has come the segment waits here, at most until the rings are empty. What the
//! numbers mean is for `interpret` to say, and nothing is shown here.

use arrayvec::ArrayVec;
use rstwatch_common::{
    COMM_LEN,
    entry::{Task, Tuple},
    record::{Header, Refused, Reset, SegmentReset},
};
use zerocopy::transmute_ref;

use crate::{
    cause::Verdict,
    event::{Event, TcpFlags},
    sink::Mark,
};

/// For how long after a connect others may be like it, in nanoseconds. Nothing that is asked about an event is asked
/// again sooner: names of network namespaces are, when they are in doubt, after this time.
const FOR_NS: u64 = 10_000_000;

/// Connects that others may be like.
const KNOWN: usize = 4;

/// Segments that wait for their other end, or are remembered until it comes: a few for each CPU that is busy.
const LATEST: usize = 4;

/// Both ends of a reset, as they were shown.
#[derive(Debug)]
pub struct Both {
    /// The end that sent it.
    pub sent: Box<Event>,
    /// The end that received it.
    pub received: Box<Event>,
    /// Why it was sent.
    pub why: Verdict,
    /// What that was for the other end.
    pub effect: Verdict,
    /// How often such were shown: of the end that sent, and of the one that received.
    pub repeats: [Repeats; 2],
}

impl Both {
    /// The end that sent it and the one that received it, with what is said of each.
    pub fn ends(&mut self) -> [(&Event, &Verdict, &mut Repeats); 2] {
        let [sent, received] = &mut self.repeats;
        [
            (&self.sent, &self.why, sent),
            (&self.received, &self.effect, received),
        ]
    }
}

/// Events that are alike.
#[derive(Debug, Default)]
pub struct Repeats {
    /// How many have been shown and not been counted.
    pub times: u64,
    /// How many of them count for a storm.
    pub of_storm: u64,
    /// Where the line of such an event is kept.
    pub line: Mark,
}

/// A connect, and what was found out about it.
#[derive(Debug)]
struct Known {
    opening: SegmentReset,
    refused: Refused,
    both: Box<Both>,
}

/// Where a connect is that another is like, and where that one's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    known: usize,
    opening: usize,
}

/// The connects of late, and segments whose other end has not come.
#[derive(Debug, Default)]
pub struct Alike {
    known: ArrayVec<Known, KNOWN>,
    /// Held back.
    waiting: ArrayVec<SegmentReset, LATEST>,
    /// Gone on.
    latest: ArrayVec<SegmentReset, LATEST>,
}

impl Alike {
    /// Keeps a segment that is like one before until its other end comes. Returns whether it does.
    pub fn holds_back(&mut self, opening: &SegmentReset) -> bool {
        let like_one = (self.known.iter())
            .any(|known| is_lately(known, opening) && are_openings_alike(&known.opening, opening));
        like_one && self.waiting.try_push(*opening).is_ok()
    }

    /// The segments that are held back, in the order that they came in.
    pub fn take_openings(&mut self) -> ArrayVec<SegmentReset, LATEST> {
        std::mem::take(&mut self.waiting)
    }

    /// The connect that this one is like, if its segment waits.
    pub fn find(&self, refused: &Refused) -> Option<Found> {
        // The last one, where more than one waits between the same ends: the others' answers were lost.
        let opening = (self.waiting.iter()).rposition(|opening| {
            opening.reset.tuple.remote_port == refused.reset.tuple.local_port
        })?;
        let waiting = &self.waiting[opening];
        let known = (self.known.iter()).position(|known| {
            are_refused_alike(&known.refused, refused)
                && is_lately(known, waiting)
                && are_openings_alike(&known.opening, waiting)
        })?;
        Some(Found { known, opening })
    }

    /// The segment, which waits no more, and what was found out about the connect before.
    pub fn take(&mut self, found: &Found) -> (SegmentReset, &mut Both) {
        let opening = self.waiting.remove(found.opening);
        (opening, &mut self.known[found.known].both)
    }

    /// Remembers a segment that goes on, in case that its connect is one that others will be like.
    pub fn note(&mut self, opening: &SegmentReset) {
        if opening.reset.tcp_flags & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN {
            if self.latest.is_full() {
                self.latest.remove(0);
            }
            self.latest.push(*opening);
        }
    }

    /// The remembered segment of a connect, if there is room for what will be found out about both.
    pub fn opening_of(&mut self, refused: &Refused) -> Option<SegmentReset> {
        let from = &refused.reset.tuple;
        let at = (self.latest.iter()).rposition(|opening| {
            let to = &opening.reset.tuple;
            (to.local_port, to.remote_port) == (from.remote_port, from.local_port)
                && (to.local, to.remote, to.netns) == (from.remote, from.local, from.netns)
        })?;
        let opening = self.latest.remove(at);
        self.room(&opening).is_some().then_some(opening)
    }

    /// Remembers what was found out about a connect. Returns what it takes the place of, or is itself of no use.
    pub fn learn(
        &mut self,
        opening: SegmentReset,
        refused: Refused,
        both: Box<Both>,
    ) -> Option<Box<Both>> {
        let Some(at) = self.room(&opening) else {
            return Some(both);
        };
        let known = Known {
            opening,
            refused,
            both,
        };
        if at == self.known.len() {
            self.known.push(known);
            None
        } else {
            Some(std::mem::replace(&mut self.known[at], known).both)
        }
    }

    /// Where there is room for a connect of that time: behind the others, or where one is that is too long ago.
    fn room(&self, opening: &SegmentReset) -> Option<usize> {
        if self.known.is_full() {
            (self.known.iter()).position(|known| !is_lately(known, opening))
        } else {
            Some(self.known.len())
        }
    }

    /// What was found out about each of the connects.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Both> {
        self.known.iter_mut().map(|known| &mut *known.both)
    }

    /// Forgets everything, and gives what was found out about connects.
    pub fn forget(&mut self) -> impl Iterator<Item = Box<Both>> {
        // What will be found out about their connects may hold no more, either.
        self.latest.clear();
        self.known.drain(..).map(|known| known.both)
    }
}

/// Whether a segment came so soon after that of a connect that it may be like it.
fn is_lately(known: &Known, opening: &SegmentReset) -> bool {
    let then_ns = known.opening.reset.header.time_ns;
    opening.reset.header.time_ns.abs_diff(then_ns) < FOR_NS
}

/// The bits of headers that are the same in records that are alike.
const HEADER: Header = Header {
    kind: !0,
    version: !0,
    cpu: 0,
    time_ns: 0,
    sock: 0,
};

/// All bits of a connection.
const TUPLE: Tuple = Tuple {
    local: [!0; 16],
    remote: [!0; 16],
    local_port: !0,
    remote_port: !0,
    netns: !0,
};

/// All bits of a reset but those of the header.
const RESET: Reset = Reset {
    header: HEADER,
    tuple: TUPLE,
    reason: !0,
    seq: !0,
    ack: !0,
    payload: !0,
    window: !0,
    tcp_flags: !0,
    ttl: !0,
    state: !0,
    substate: !0,
    flags: !0,
    pad: !0,
};

/// The bits that are the same in segments that are alike.
const OPENING: SegmentReset = SegmentReset {
    reset: Reset {
        tuple: Tuple {
            remote_port: 0,
            ..TUPLE
        },
        seq: 0,
        ..RESET
    },
};

/// And in ends of connects. Which thread connected is not said of them.
const REFUSED: Refused = Refused {
    reset: Reset {
        tuple: Tuple {
            local_port: 0,
            ..TUPLE
        },
        ..RESET
    },
    owner: Task {
        pid: !0,
        tid: 0,
        uid: !0,
        flags: !0,
        start_ns: !0,
        comm: [!0; COMM_LEN],
        exit_code: !0,
        marks: !0,
    },
    born_ns: 0,
    cgroup: !0,
};

fn are_openings_alike(a: &SegmentReset, b: &SegmentReset) -> bool {
    const WORDS: usize = size_of::<SegmentReset>() / 8;
    are_equal::<WORDS>(
        transmute_ref!(a),
        transmute_ref!(b),
        transmute_ref!(&OPENING),
    )
}

fn are_refused_alike(a: &Refused, b: &Refused) -> bool {
    const WORDS: usize = size_of::<Refused>() / 8;
    are_equal::<WORDS>(
        transmute_ref!(a),
        transmute_ref!(b),
        transmute_ref!(&REFUSED),
    )
}

/// Whether two records are equal in all bits of `same`.
fn are_equal<const WORDS: usize>(a: &[u64; WORDS], b: &[u64; WORDS], same: &[u64; WORDS]) -> bool {
    // Without a way out before the end, so that many words are looked at together.
    let mut difference = 0;
    for ((a, b), same) in a.iter().zip(b).zip(same) {
        difference |= (a ^ b) & same;
    }
    difference == 0
}
