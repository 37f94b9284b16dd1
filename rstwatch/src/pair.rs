//! Both ends on one host: joins the reset that one end sent with the one that the other received.
//!
//! On loopback, and between network namespaces of one host, one RST makes two events. Which comes
//! first is open: the kernel reports a reset of its own accord after the RST has gone out, and so
//! mostly after it has arrived. An event waits a moment for its other end, and longer when that has
//! been seen and only its owner is still sought.
//!
//! Both ends have the same addresses and ports, with the sides exchanged; an address translated in
//! between (NAT) makes two connections of them, and no pair. Loopback addresses mean another host
//! in each network namespace. No I/O; time comes from outside.

use std::{
    collections::hash_map::Entry,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use arrayvec::ArrayVec;
use foldhash::HashMap;
use smallvec::SmallVec;

use rstwatch_common::record::Reset;

use crate::event::{Direction, Endpoint, Event};

/// How long an event waits for an other end that has not been seen, in nanoseconds. Both come
/// through one ring: the second is behind by what a softirq on another CPU takes.
const WINDOW_NS: u64 = 5_000_000;

/// The same where the other end must be on this host. A process that closes is often preempted
/// between its RST and the report of it, for that has woken the receiver; on busy cores it is long
/// before it runs again.
const LOOPBACK_WINDOW_NS: u64 = 200_000_000;

/// How long it waits at the most for one that has been seen and whose owner is sought, in
/// nanoseconds: longer than the search takes even where processes wait for a core.
const OWNER_NS: u64 = 5_000_000_000;

/// Events that wait at the most.
const MOST: usize = 8_192;

/// Events that wait at the most when nothing says that the other end is on this host. In a storm
/// from elsewhere the others do not wait.
const MOST_UNSURE: usize = 512;

/// Events that are looked for one by one: a few for each CPU of those that are busy at the same time.
const LATEST: usize = 4;

/// What went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paired {
    /// An event whose other end is elsewhere, or was not seen.
    Single(Box<Event>),
    /// Both ends of one RST.
    Both {
        /// The end that sent it.
        sent: Box<Event>,
        /// The end that received it.
        received: Box<Event>,
    },
}

impl Paired {
    /// Both ends of a connection, of which one sent the RST and the other received it.
    fn of(one: Box<Event>, other: Box<Event>) -> Self {
        match one.direction {
            Direction::Sent => Self::Both {
                sent: one,
                received: other,
            },
            Direction::Received => Self::Both {
                sent: other,
                received: one,
            },
        }
    }
}

/// A connection as the end sees it that sent the RST. In whole words, so that it is read again as it was written:
/// else the processor waits.
#[derive(Clone, Copy, Debug, Eq)]
struct Key {
    /// The namespace, where the addresses mean something in it only, else 0; the sender's port; the receiver's.
    netns_and_ports: u64,
    /// The sender's address as an IPv6 one, the receiver's: the upper and the lower half of each.
    addrs: [u64; 4],
}

impl PartialEq for Key {
    /// The first word tells nearly all apart.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.netns_and_ports == other.netns_and_ports && self.addrs == other.addrs
    }
}

/// An end of a connection: the halves of its address as an IPv6 one, and its port.
#[derive(Clone, Copy)]
struct End([u64; 2], u16);

impl End {
    fn of(end: Endpoint) -> Self {
        let bits = match end.addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        Self([(bits >> 64) as u64, bits as u64], end.port)
    }

    /// From an address in network byte order.
    fn of_record(addr: &[u8; 16], port: u16) -> Self {
        let bits = u128::from_be_bytes(*addr);
        Self([(bits >> 64) as u64, bits as u64], port)
    }

    /// Whether another host has the same address: `127.0.0.0/8`, also as an IPv6 one, or `::1`.
    const fn is_loopback(self) -> bool {
        let Self([high, low], _) = self;
        high == 0 && (low >> 24 == 0xff_ff7f || low == 1)
    }
}

impl Key {
    /// Of the connection between this host's end and the other one, in a network namespace.
    #[inline]
    fn new(netns: u32, local: End, remote: End, direction: Direction) -> Self {
        let (sender, receiver) = match direction {
            Direction::Sent => (local, remote),
            Direction::Received => (remote, local),
        };
        let netns = if receiver.is_loopback() || sender.is_loopback() {
            netns
        } else {
            0
        };
        let (End([a, b], sender_port), End([c, d], receiver_port)) = (sender, receiver);
        let ports = u64::from(sender_port) << 16 | u64::from(receiver_port);
        Self {
            netns_and_ports: u64::from(netns) << 32 | ports,
            addrs: [a, b, c, d],
        }
    }
}

impl Hash for Key {
    /// In few words, as every event needs it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.netns_and_ports);
        match self.addrs {
            // Both are IPv4, or of the few that look like it.
            [0, sender, 0, receiver] => state.write_u64(sender << 32 | receiver & 0xffff_ffff),
            addrs => {
                for half in addrs {
                    state.write_u64(half);
                }
            }
        }
    }
}

/// An event that will be complete later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    key: Key,
    direction: Direction,
}

impl Coming {
    /// That `event` will come.
    pub fn of(event: &Event) -> Self {
        let (local, remote) = (End::of(event.local), End::of(event.remote));
        let direction = event.direction;
        Self {
            key: Key::new(event.netns.unwrap_or(0), local, remote, direction),
            direction,
        }
    }

    /// That the event of a record will come. The same, sooner: what has just been put into an event is read again in
    /// other pieces, which keeps the processor waiting.
    #[inline]
    pub fn of_record(reset: &Reset, direction: Direction) -> Self {
        let tuple = &reset.tuple;
        let local = End::of_record(&tuple.local, tuple.local_port);
        let remote = End::of_record(&tuple.remote, tuple.remote_port);
        Self {
            key: Key::new(tuple.netns, local, remote, direction),
            direction,
        }
    }
}

#[derive(Debug)]
struct Held {
    event: Box<Event>,
    deadline_ns: u64,
    /// Whether it waits for an end that has been seen.
    seen: bool,
}

#[derive(Debug, Default)]
struct Ends {
    /// Events seen and not complete yet, sent and received.
    coming: [u32; 2],
    /// There is hardly ever more than one.
    held: SmallVec<[Held; 1]>,
}

impl Ends {
    fn are_done(&self) -> bool {
        self.held.is_empty() && self.coming == [0, 0]
    }
}

/// The events that wait for their other end.
#[derive(Debug, Default)]
pub struct Pairs {
    ends: HashMap<Key, Ends>,
    /// Of the events that came last those of whose connections there are no other ends: of most the other end is next.
    latest: ArrayVec<(Key, Held), LATEST>,
    /// How many wait, here and there.
    held: usize,
    now_ns: u64,
    next_deadline_ns: u64,
}

impl Pairs {
    /// From now on events come at `now_ns` of `CLOCK_MONOTONIC`: since the last [`Self::tick`] a busy
    /// host may have let much time pass.
    pub fn reading_at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Whether anything is known of the connection: one of its ends waits, or will come.
    #[inline]
    pub fn knows(&self, Coming { key, .. }: Coming) -> bool {
        self.latest.iter().any(|(known, _)| *known == key)
            || (!self.ends.is_empty() && self.ends.contains_key(&key))
    }

    /// Takes note of an event that will be complete later.
    pub fn expect(&mut self, Coming { key, direction }: Coming) {
        if let Some(held) = self.take_latest(&key) {
            self.keep(key, held);
        }
        if self.ends.len() < MOST {
            self.ends.entry(key).or_default().coming[direction as usize] += 1;
        }
    }

    /// Takes back [`Self::expect`]: the event will not come, or has come.
    pub fn forget(&mut self, Coming { key, direction }: Coming) {
        if let Entry::Occupied(mut ends) = self.ends.entry(key) {
            let coming = &mut ends.get_mut().coming[direction as usize];
            *coming = coming.saturating_sub(1);
            if ends.get().are_done() {
                ends.remove();
            }
        }
    }

    /// Takes in a complete event, which is the one that was `coming`; what has waited enough goes to `out`. One
    /// that was expected is to be forgotten first.
    pub fn complete(&mut self, coming: Coming, event: Box<Event>, out: &mut impl FnMut(Paired)) {
        let Coming { key, direction } = coming;
        let (most, window_ns) = if event.remote.addr.is_loopback() {
            (MOST, LOOPBACK_WINDOW_NS)
        } else {
            (MOST_UNSURE, WINDOW_NS)
        };
        let full = self.held >= most;
        if let Some(held) = self.take_latest(&key) {
            if held.event.direction != direction {
                self.held -= 1;
                out(Paired::of(event, held.event));
                return;
            }
            self.keep(key, held);
        }
        // Asked first: in a storm there are none.
        let known = if self.ends.is_empty() {
            None
        } else {
            self.ends.get_mut(&key)
        };
        let Some(ends) = known else {
            if full {
                out(Paired::Single(event));
            } else {
                let deadline_ns = self.now_ns.saturating_add(window_ns);
                self.keep_latest(
                    key,
                    Held {
                        event,
                        deadline_ns,
                        seen: false,
                    },
                );
                self.waits_until(deadline_ns);
            }
            return;
        };
        // When a RST was lost, the next one of the same connection may wait as well: the RST that
        // arrived is the one that was sent at that time.
        let other = (ends.held.iter())
            .enumerate()
            .filter(|(_, held)| held.event.direction != direction)
            .min_by_key(|(_, held)| held.event.time_ns.abs_diff(event.time_ns))
            .map(|(at, _)| at);
        if let Some(other) = other {
            let other = ends.held.swap_remove(other).event;
            if ends.are_done() {
                self.ends.remove(&key);
            }
            self.held -= 1;
            out(Paired::of(event, other));
            return;
        }
        let seen = ends.coming[1 - direction as usize] > 0;
        if full && !seen {
            out(Paired::Single(event));
            return;
        }
        let wait_ns = if seen { OWNER_NS } else { window_ns };
        let deadline_ns = self.now_ns.saturating_add(wait_ns);
        ends.held.push(Held {
            event,
            deadline_ns,
            seen,
        });
        self.waits_until(deadline_ns);
    }

    /// Takes the event of this connection out of the latest ones, if it is there.
    fn take_latest(&mut self, key: &Key) -> Option<Held> {
        let at = self.latest.iter().position(|(known, _)| known == key)?;
        Some(self.latest.swap_remove(at).1)
    }

    /// Keeps an event among the latest ones.
    #[inline]
    fn keep_latest(&mut self, key: Key, held: Held) {
        if self.latest.is_full() {
            let (key, held) = self.latest.swap_remove(0);
            self.keep(key, held);
        }
        self.latest.push((key, held));
    }

    /// Keeps an event that was among the latest ones.
    fn keep(&mut self, key: Key, held: Held) {
        self.ends.entry(key).or_default().held.push(held);
    }

    /// The same of all of them.
    fn keep_all(&mut self) {
        while let Some((key, held)) = self.latest.pop() {
            self.keep(key, held);
        }
    }

    /// One more waits, until then at the most.
    fn waits_until(&mut self, deadline_ns: u64) {
        self.next_deadline_ns = if self.held == 0 {
            deadline_ns
        } else {
            self.next_deadline_ns.min(deadline_ns)
        };
        self.held += 1;
    }

    /// Lets go of what has waited enough at `now_ns` of `CLOCK_MONOTONIC`.
    pub fn tick(&mut self, now_ns: u64, out: &mut impl FnMut(Paired)) {
        self.now_ns = now_ns;
        if self.held == 0 || now_ns < self.next_deadline_ns {
            return;
        }
        self.keep_all();
        let mut next = u64::MAX;
        let mut due = Vec::new();
        self.ends.retain(|_, ends| {
            let coming = ends.coming;
            for held in &mut ends.held {
                let other_comes = coming[1 - held.event.direction as usize] > 0;
                if held.deadline_ns <= now_ns && !held.seen && other_comes {
                    held.seen = true;
                    held.deadline_ns += OWNER_NS;
                }
            }
            let mut at = 0;
            while let Some(held) = ends.held.get(at) {
                if held.deadline_ns <= now_ns {
                    due.push(ends.held.remove(at));
                } else {
                    next = next.min(held.deadline_ns);
                    at += 1;
                }
            }
            !ends.are_done()
        });
        self.next_deadline_ns = next;
        self.held -= due.len();
        due.sort_by_key(|held| held.event.time_ns);
        for held in due {
            out(Paired::Single(held.event));
        }
    }

    /// Lets go of everything.
    pub fn finish(&mut self, out: &mut impl FnMut(Paired)) {
        self.keep_all();
        let mut left: Vec<Box<Event>> = self
            .ends
            .drain()
            .flat_map(|(_, ends)| ends.held)
            .map(|held| held.event)
            .collect();
        self.held = 0;
        left.sort_by_key(|event| event.time_ns);
        for event in left {
            out(Paired::Single(event));
        }
    }
}

#[cfg(test)]
impl Pairs {
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.latest.is_empty() && self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::{array::uniform2, prelude::*, sample};
    use rstwatch_common::entry::Tuple;

    use super::*;
    use crate::fixture;

    const MS: u64 = 1_000_000;

    fn event(direction: Direction, local: (&str, u16), remote: (&str, u16), netns: u32) -> Event {
        Event {
            direction,
            local: fixture::endpoint(local.0, local.1),
            remote: fixture::endpoint(remote.0, remote.1),
            netns: Some(netns),
            ..fixture::closed_port()
        }
    }

    fn sent(netns: u32) -> Event {
        event(
            Direction::Sent,
            ("127.0.0.1", 9),
            ("127.0.0.1", 40_000),
            netns,
        )
    }

    fn received(netns: u32) -> Event {
        event(
            Direction::Received,
            ("127.0.0.1", 40_000),
            ("127.0.0.1", 9),
            netns,
        )
    }

    /// What came out: 's' and 'r' for single events, 'b' for both ends.
    #[derive(Default)]
    struct Bench {
        pairs: Pairs,
        out: String,
    }

    impl Bench {
        fn run(&mut self, step: impl FnOnce(&mut Pairs, &mut dyn FnMut(Paired))) -> String {
            let out = &mut self.out;
            step(&mut self.pairs, &mut |paired| {
                out.push(match paired {
                    Paired::Single(event) if event.direction == Direction::Sent => 's',
                    Paired::Single(_) => 'r',
                    Paired::Both { sent, received } => {
                        assert_eq!(sent.direction, Direction::Sent);
                        assert_eq!(received.direction, Direction::Received);
                        'b'
                    }
                });
            });
            std::mem::take(&mut self.out)
        }

        fn seen_and_complete(&mut self, event: Event) -> String {
            self.pairs.expect(Coming::of(&event));
            self.complete(event)
        }

        fn complete(&mut self, event: Event) -> String {
            self.run(|pairs, mut out| {
                pairs.forget(Coming::of(&event));
                pairs.complete(Coming::of(&event), event.into(), &mut out);
            })
        }

        fn tick(&mut self, ms: u64) -> String {
            self.run(|pairs, mut out| pairs.tick(ms * MS, &mut out))
        }
    }

    proptest! {
        #[test]
        fn a_record_and_its_event_are_of_one_connection(
            ends in uniform2((
                sample::select(vec!["127.0.0.1", "127.9.9.9", "10.0.0.1", "::1", "2001:db8::1", "::2", "::"]),
                any::<u16>(),
            )),
            netns: u32,
            sent: bool,
        ) {
            let direction = if sent { Direction::Sent } else { Direction::Received };
            let event = event(direction, ends[0], ends[1], netns);
            let octets = |end: Endpoint| match end.addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            let reset = Reset {
                tuple: Tuple {
                    local: octets(event.local),
                    remote: octets(event.remote),
                    local_port: event.local.port,
                    remote_port: event.remote.port,
                    netns,
                },
                ..Reset::EMPTY
            };
            let is_loopback = event.local.addr.is_loopback() || event.remote.addr.is_loopback();
            let coming = Coming::of_record(&reset, direction);
            prop_assert_eq!(coming, Coming::of(&event));
            prop_assert_eq!(coming.key.netns_and_ports >> 32 != 0, is_loopback && netns != 0);
        }
    }

    #[test]
    fn both_ends_are_joined_whichever_comes_first() {
        let mut bench = Bench::default();
        assert_eq!(bench.seen_and_complete(received(1)), "");
        assert_eq!(bench.seen_and_complete(sent(1)), "b");
        assert_eq!(bench.seen_and_complete(sent(1)), "");
        assert_eq!(bench.seen_and_complete(received(1)), "b");
        assert_eq!(bench.tick(10_000), "");
        assert!(bench.pairs.is_empty());
    }

    #[test]
    fn of_two_resets_the_nearer_one_is_joined() {
        for first in [0, 1] {
            let mut pairs = Pairs::default();
            let mut joined = Vec::new();
            let at = |mut event: Event, us: u64| {
                event.time_ns += us * 1_000;
                event
            };
            let mut ends = [at(sent(1), 0), at(sent(1), 100)];
            ends.rotate_left(first);
            for event in ends.into_iter().chain([at(received(1), 102)]) {
                pairs.complete(Coming::of(&event), event.into(), &mut |paired| {
                    joined.push(paired);
                });
            }
            let [Paired::Both { sent, received }] = &joined[..] else {
                panic!("{joined:?}");
            };
            assert_eq!(received.time_ns - sent.time_ns, 2_000);
        }
    }

    #[test]
    fn loopback_in_another_namespace_is_another_host() {
        let mut bench = Bench::default();
        assert_eq!(bench.seen_and_complete(received(1)), "");
        assert_eq!(bench.seen_and_complete(sent(2)), "");
        // The other end of each is on this host, and may be long in coming.
        assert_eq!(bench.tick(199), "");
        assert_eq!(bench.tick(200).len(), 2);
    }

    #[test]
    fn the_time_that_passed_before_an_event_does_not_count() {
        let mut bench = Bench::default();
        bench.pairs.reading_at(5_000 * MS);
        assert_eq!(bench.seen_and_complete(received(1)), "");
        assert_eq!(bench.tick(5_000), "");
        assert_eq!(bench.seen_and_complete(sent(1)), "b");
    }

    #[test]
    fn namespaces_joined_by_a_wire_make_a_pair() {
        let mut bench = Bench::default();
        let (here, there) = (("10.0.0.1", 80), ("10.0.0.2", 40_000));
        bench.seen_and_complete(event(Direction::Sent, here, there, 1));
        assert_eq!(
            bench.seen_and_complete(event(Direction::Received, there, here, 2)),
            "b"
        );
        let translated = ("10.0.0.3", 40_000);
        bench.seen_and_complete(event(Direction::Sent, here, translated, 1));
        assert_eq!(
            bench.seen_and_complete(event(Direction::Received, there, here, 2)),
            ""
        );
        assert_eq!(bench.tick(5).len(), 2);
    }

    #[test]
    fn an_event_waits_longer_for_an_end_whose_owner_is_sought() {
        let mut bench = Bench::default();
        bench.pairs.expect(Coming::of(&received(1)));
        assert_eq!(bench.seen_and_complete(sent(1)), "");
        assert_eq!(bench.tick(4_999), "");
        assert_eq!(bench.complete(received(1)), "b");

        // Also when it is seen only after.
        assert_eq!(bench.seen_and_complete(sent(1)), "");
        bench.pairs.expect(Coming::of(&received(1)));
        assert_eq!(bench.tick(5_200), "");
        assert_eq!(bench.tick(10_198), "");
        assert_eq!(bench.tick(10_199), "s");
        assert_eq!(bench.complete(received(1)), "");
        assert_eq!(bench.tick(10_399), "r");
        assert!(bench.pairs.is_empty());
    }

    #[test]
    fn a_storm_from_elsewhere_does_not_wait() {
        let mut bench = Bench::default();
        for port in 0..=u16::try_from(MOST_UNSURE).unwrap() {
            let out = bench.seen_and_complete(event(
                Direction::Sent,
                ("10.0.0.1", 80),
                ("10.0.0.2", port),
                1,
            ));
            let last = usize::from(port) == MOST_UNSURE;
            assert_eq!(out, if last { "s" } else { "" });
        }
        assert_eq!(bench.seen_and_complete(sent(1)), "");
        assert_eq!(bench.tick(5).len(), MOST_UNSURE);
        assert_eq!(bench.tick(200), "s");
        assert_eq!(bench.pairs.held, 0);
    }

    #[test]
    fn nothing_is_lost_at_the_end_and_nothing_is_kept_of_what_does_not_come() {
        let mut bench = Bench::default();
        bench.pairs.expect(Coming::of(&received(1)));
        bench.pairs.forget(Coming::of(&received(1)));
        assert!(bench.pairs.is_empty());
        bench.seen_and_complete(sent(1));
        bench.seen_and_complete(received(2));
        assert_eq!(bench.run(|pairs, mut out| pairs.finish(&mut out)).len(), 2);
        assert_eq!(bench.pairs.held, 0);
    }
}
