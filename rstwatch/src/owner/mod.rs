//! Whose socket it was: joins resets with what tells the owner later than the reset itself.
//!
//! The kernel side names who connected, listened or closed, and the [snapshot](procfs) who held
//! what existed before the start. But a socket can be passed on, inherited or accepted unseen. So
//! while a process holds the reset socket the event waits a moment for its close, which names
//! whoever held it last; a process that holds on to it, and all holders of one that is shared, are
//! searched for in `/proc`, where the socket still is. What none of these tells stays unknown: it
//! is never guessed.
//!
//! [`Owners`] is a state machine without I/O: time, found processes and the question whether a
//! process still lives come from outside. [`listeners`] remembers who listens and listened,
//! [`procfs`] does the reading. [`details`] adds where the owner lives: [`place`] reads cgroup
//! paths, [`cgroup`] finds them by the socket's cgroup, and [`namespace`] names network namespaces.

pub mod cgroup;
pub mod details;
pub mod listeners;
pub mod namespace;
pub mod place;
pub mod procfs;
mod recent;

use std::collections::BTreeSet;

use foldhash::{HashMap, HashMapExt as _};

use crate::{
    event::{Direction, Event, Owner, Process, TcpState, Via},
    interpret::{Observation, Sighting, prefer_known},
    owner::{listeners::Listeners, procfs::Holders},
};

/// How long a received reset waits for the sign that it was none, in nanoseconds. The two hooks run
/// in the same softirq, microseconds apart.
const MAYBE_DATA_NS: u64 = 5_000_000;

/// How long an event waits for its socket to be closed, in nanoseconds. An application that is told
/// of a reset closes the socket at once; one that is busy is found through `/proc`.
const AWAIT_CLOSE_NS: u64 = 200_000_000;

/// For how long a process that was found alive counts as alive, in nanoseconds.
const ALIVE_NS: u64 = 20_000_000;

/// Events that wait at the same time. Beyond, those that come go on without their owner.
const MOST_WAITING: usize = 8_192;

/// Tells whether a process is still the one it was.
pub trait Liveness {
    /// Whether the process with this PID lives and started when `process` did.
    fn is_alive(&self, process: &Process) -> bool;
}

/// What an event waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Whether a RST had come at all.
    Answer,
    /// The close of its socket.
    Close,
    /// A search of `/proc`.
    Search,
}

#[derive(Debug)]
struct Held {
    sighting: Sighting,
    waiting: Waiting,
    deadline_ns: u64,
    /// Its socket is gone: what comes from the same address is another one.
    closed: bool,
    /// Who closed the socket while its holders were searched for.
    closer: Option<Process>,
}

/// Joins resets with their owners.
#[derive(Debug)]
pub struct Owners<L> {
    liveness: L,
    snapshot: Holders,
    listeners: Listeners,
    held: HashMap<u64, Vec<Held>>,
    waiting: usize,
    /// No event's deadline is earlier.
    next_deadline_ns: u64,
    /// The process that was last found alive, and when.
    alive: Option<(Process, u64)>,
    /// Inodes to search for.
    wanted: BTreeSet<u64>,
    /// Events of resets that had not been received.
    unreceived: Vec<Event>,
    overflowed: u64,
}

impl<L: Liveness> Owners<L> {
    /// With the sockets that processes held, and the listeners that there were, at the start.
    pub fn new(snapshot: Holders, listeners: Listeners, liveness: L) -> Self {
        Self {
            liveness,
            snapshot,
            listeners,
            held: HashMap::new(),
            waiting: 0,
            next_deadline_ns: u64::MAX,
            alive: None,
            wanted: BTreeSet::new(),
            unreceived: Vec::new(),
            overflowed: 0,
        }
    }

    /// Events that went on without waiting for their owner, because too many waited.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Listeners that were not remembered, because there were too many.
    pub fn listeners_overflowed(&self) -> u64 {
        self.listeners.overflowed()
    }

    /// When [`Self::tick`] has something to do, in nanoseconds of `CLOCK_MONOTONIC`.
    #[cfg(test)]
    fn next_deadline_ns(&self) -> Option<u64> {
        (self.waiting > 0).then_some(self.next_deadline_ns)
    }

    /// Takes in an observation; events that are complete go to `out`.
    pub fn observe(&mut self, observation: Observation, out: &mut impl FnMut(Box<Event>)) {
        match observation {
            Observation::Reset(sighting) => {
                if sighting.answers_data {
                    self.drop_unreceived(&sighting);
                }
                if sighting.maybe_data {
                    self.hold(sighting, Waiting::Answer, MAYBE_DATA_NS, out);
                } else {
                    self.seek(sighting, out);
                }
            }
            Observation::Closed { sock, closer } => self.closed(sock, closer.as_ref(), out),
            Observation::Listener(listener) => self.listeners.observe(listener),
        }
    }

    /// The events that were dropped since the last call: no RST had come.
    pub fn take_unreceived(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.unreceived)
    }

    /// Moves on what has waited long enough. `now_ns` must not be ahead of the records that have
    /// been taken in: the one that is waited for could be among those that have not.
    pub fn tick(&mut self, now_ns: u64, out: &mut impl FnMut(Box<Event>)) {
        if self.waiting == 0 || now_ns < self.next_deadline_ns {
            return;
        }
        let due: Vec<Held> = self.take(|held| held.deadline_ns <= now_ns);
        for held in due {
            match held.waiting {
                Waiting::Answer => self.seek(held.sighting, out),
                Waiting::Close if inode(&held.sighting.event) != 0 => {
                    self.wanted.insert(inode(&held.sighting.event));
                    self.hold(held.sighting, Waiting::Search, u64::MAX, out);
                }
                Waiting::Close | Waiting::Search => self.release(held, out),
            }
        }
    }

    /// The inodes to search for, when there are any. The answer goes to [`Self::found`].
    pub fn take_wanted(&mut self) -> Option<BTreeSet<u64>> {
        (!self.wanted.is_empty()).then(|| std::mem::take(&mut self.wanted))
    }

    /// Takes in who holds the sockets of `searched`.
    pub fn found(
        &mut self,
        searched: &BTreeSet<u64>,
        holders: &Holders,
        out: &mut impl FnMut(Box<Event>),
    ) {
        let answered = self.take(|held| {
            held.waiting == Waiting::Search
                && searched.contains(&sought_inode(&held.sighting.event))
        });
        for mut held in answered {
            let event = &mut held.sighting.event;
            let inode = sought_inode(event);
            let via = if is_unaccepted(event) {
                Via::Listener
            } else {
                Via::Procfs
            };
            let Some(found) = holders.owner(inode, via) else {
                self.release(held, out);
                continue;
            };
            event.owner = Some(match event.owner.take() {
                Some(known) if holders.holds(inode, &known.process) => Owner {
                    holders: found.holders,
                    ..known
                },
                _ => found,
            });
            out(held.sighting.event);
        }
    }

    /// Lets go of everything, with what is known.
    pub fn finish(&mut self, out: &mut impl FnMut(Box<Event>)) {
        for held in self.take(|_| true) {
            if held.waiting == Waiting::Answer {
                // The answer can only be in the ring, which has been read to its end.
                let mut sighting = held.sighting;
                sighting.await_close = false;
                self.seek(sighting, out);
            } else {
                self.release(held, out);
            }
        }
    }

    /// The received reset that `answer` is the sign of was none: it is the last one of the same
    /// connection. Another that waits at this address is that of an earlier socket there, and came.
    fn drop_unreceived(&mut self, answer: &Sighting) {
        let ends = |event: &Event| (event.netns, event.local, event.remote);
        let Some(list) = self.held.get_mut(&answer.sock) else {
            return;
        };
        let unreceived = list.iter().rposition(|held| {
            held.waiting == Waiting::Answer && ends(&held.sighting.event) == ends(&answer.event)
        });
        if let Some(at) = unreceived {
            self.unreceived.push(*list.remove(at).sighting.event);
            self.waiting -= 1;
            if list.is_empty() {
                self.held.remove(&answer.sock);
            }
        }
    }

    /// Finds the owner, or holds the event until it can be found.
    fn seek(&mut self, mut sighting: Sighting, out: &mut impl FnMut(Box<Event>)) {
        let event = &mut sighting.event;
        if is_kernel_owned(event) {
            event.owner = None;
            out(sighting.event);
            return;
        }
        let inode = inode(event);
        if event.owner.is_none() && inode != 0 {
            event.owner = self.snapshot.owner(inode, Via::Snapshot);
        }
        self.ask_listeners(event, sighting.monotonic_ns);
        if !sighting.await_close {
            if let Some(owner) = &event.owner
                && must_live(event, owner)
                && !self.is_alive(&owner.process, sighting.monotonic_ns)
            {
                event.owner = None;
                let listener = sought_inode(event);
                if listener != 0 && must_search(event) {
                    // A daemon's parent listened and is gone; the daemon holds the listener.
                    self.wanted.insert(listener);
                    self.hold(sighting, Waiting::Search, u64::MAX, out);
                    return;
                }
            }
            out(sighting.event);
        } else if sighting.shared && inode != 0 {
            self.wanted.insert(inode);
            self.hold(sighting, Waiting::Search, u64::MAX, out);
        } else {
            self.hold(sighting, Waiting::Close, AWAIT_CLOSE_NS, out);
        }
    }

    /// Whether a process lives. Asked anew only after a while, since a storm asks about one process.
    fn is_alive(&mut self, process: &Process, now_ns: u64) -> bool {
        if let Some((known, at_ns)) = &self.alive
            && now_ns.abs_diff(*at_ns) < ALIVE_NS
            && known.is_same(process)
        {
            return true;
        }
        let alive = self.liveness.is_alive(process);
        if alive {
            self.alive = Some((process.clone(), now_ns));
        }
        alive
    }

    /// What the listener on the port tells: about a segment that met no connection, and about a
    /// connection that nobody has accepted.
    pub fn ask_listeners(&self, event: &mut Event, now_ns: u64) {
        let Some(netns) = event.netns else {
            return;
        };
        match &event.socket {
            None if event.direction == Direction::Sent && event.owner.is_none() => {
                event.listener = self
                    .listeners
                    .find(netns, event.local, now_ns)
                    .map(Box::new);
            }
            // Neither held nor given up: it waits to be accepted.
            Some(_) if is_unaccepted(event) && event.owner.is_none() => {
                let closer = event.actor.as_ref().map(|actor| &actor.process);
                event.listener = self
                    .listeners
                    .find_for_waiting(netns, event.local, closer, now_ns)
                    .map(Box::new);
                event.owner = event.listener.as_ref().map(|listener| Owner {
                    process: listener.process.clone(),
                    via: Via::Listener,
                    holders: Vec::new(),
                });
            }
            _ => {}
        }
    }

    fn closed(&mut self, sock: u64, closer: Option<&Process>, out: &mut impl FnMut(Box<Event>)) {
        let Some(list) = self.held.get_mut(&sock) else {
            return;
        };
        // The kernel gives an address to a new socket within milliseconds.
        let open: Vec<Held> = list.extract_if(.., |held| !held.closed).collect();
        if list.is_empty() {
            self.held.remove(&sock);
        }
        self.waiting -= open.len();
        for mut held in open {
            held.closed = true;
            held.closer = closer.cloned();
            match held.waiting {
                Waiting::Close => self.release(held, out),
                // No answer will come: it goes out under the socket's lock, which its process's
                // close takes as well, so it would have come first.
                Waiting::Answer => {
                    let mut sighting = held.sighting;
                    sighting.await_close = false;
                    let event = &mut sighting.event;
                    event.owner = with_closer(event.owner.take(), held.closer);
                    self.seek(sighting, out);
                }
                // A search under way tells more than the close.
                Waiting::Search => {
                    held.sighting.await_close = false;
                    held.sighting.event.owner =
                        with_closer(held.sighting.event.owner.take(), held.closer.clone());
                    self.waiting += 1;
                    self.held.entry(sock).or_default().push(held);
                }
            }
        }
    }

    /// Lets an event go on with the owner that is known by now.
    fn release(&mut self, held: Held, out: &mut impl FnMut(Box<Event>)) {
        let Held {
            mut sighting,
            closer,
            ..
        } = held;
        let nobody_closed = closer.is_none();
        let now_ns = sighting.monotonic_ns;
        sighting.event.owner = with_closer(sighting.event.owner.take(), closer).filter(|owner| {
            // It neither closed the socket nor was found to hold it: then it must at least live.
            !nobody_closed || owner.via == Via::Close || self.is_alive(&owner.process, now_ns)
        });
        out(sighting.event);
    }

    fn hold(
        &mut self,
        sighting: Sighting,
        waiting: Waiting,
        for_ns: u64,
        out: &mut impl FnMut(Box<Event>),
    ) {
        let deadline_ns = sighting.monotonic_ns.saturating_add(for_ns);
        let held = Held {
            sighting,
            waiting,
            deadline_ns,
            closed: false,
            closer: None,
        };
        if self.waiting >= MOST_WAITING {
            self.overflowed += 1;
            self.release(held, out);
            return;
        }
        self.next_deadline_ns = self.next_deadline_ns.min(deadline_ns);
        self.waiting += 1;
        self.held.entry(held.sighting.sock).or_default().push(held);
    }

    /// Takes out what `which` picks, in the order of time, and sets the next deadline anew.
    fn take(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut taken = Vec::new();
        let mut next = u64::MAX;
        self.held.retain(|_, list| {
            taken.extend(list.extract_if(.., |held| which(held)));
            next = list
                .iter()
                .fold(next, |next, held| next.min(held.deadline_ns));
            !list.is_empty()
        });
        self.waiting -= taken.len();
        self.next_deadline_ns = next;
        taken.sort_by_key(|held| held.sighting.monotonic_ns);
        taken
    }
}

/// Whether an owner is one only as long as it lives: nothing else tells whether who held the socket
/// at the start still does, or whether who listened has left the listener to a child.
fn must_live(event: &Event, owner: &Owner) -> bool {
    match owner.via {
        Via::Snapshot => true,
        Via::Listen => event.state == Some(TcpState::Listen),
        Via::Listener => event
            .listener
            .as_ref()
            .is_none_or(|listener| listener.ended.is_none()),
        _ => false,
    }
}

/// Whoever closed the socket held it last, even when another process had opened it.
fn with_closer(known: Option<Owner>, closer: Option<Process>) -> Option<Owner> {
    match closer {
        Some(closer) => Some(prefer_known(known, closer, Via::Close)),
        None => known,
    }
}

/// Why a complete event names no owner; `None` when it does, or when there is no connection that
/// anybody could own.
pub fn why_unknown(event: &Event) -> Option<&'static str> {
    if event.owner.is_some() {
        return None;
    }
    let Some(socket) = &event.socket else {
        let was_one = event.state.is_some() || event.past.is_some();
        return was_one.then_some("it was closed unseen, before rstwatch began or too long ago");
    };
    Some(if socket.kernel_owned {
        "the socket is the kernel's own"
    } else if socket.held {
        "no process closed it in time, and none was found to hold it"
    } else if socket.orphan {
        "its process had closed it unseen"
    } else {
        "nobody has accepted it, and whoever listens is not known"
    })
}

fn inode(event: &Event) -> u64 {
    event.socket.as_ref().map_or(0, |socket| socket.inode)
}

/// Whether the connection waits to be accepted: neither held by a process nor given up by one.
fn is_unaccepted(event: &Event) -> bool {
    event
        .socket
        .as_ref()
        .is_some_and(|socket| !socket.held && !socket.orphan)
}

/// The inode to search for: the socket's, or that of the listener whose queue it is in.
fn sought_inode(event: &Event) -> u64 {
    match (&event.listener, inode(event)) {
        (Some(listener), 0) if is_unaccepted(event) => listener.inode,
        (_, inode) => inode,
    }
}

/// Whether a search can find a listener's holder.
fn must_search(event: &Event) -> bool {
    event.state == Some(TcpState::Listen) || is_unaccepted(event)
}

fn is_kernel_owned(event: &Event) -> bool {
    event
        .socket
        .as_ref()
        .is_some_and(|socket| socket.kernel_owned)
}

#[cfg(test)]
mod tests;
