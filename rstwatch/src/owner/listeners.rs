//! Who listens, and who listened until lately, by network namespace, address and port. No I/O:
//! what was there before the start, and what begins and ends since, comes from outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::HashMap;

use crate::{
    event::{Actor, Endpoint, ListenerEnd, Listening, Process},
    interpret::Listener,
};

/// Addresses and ports that are remembered. Beyond, the one that ended first is forgotten; while
/// all of them listen, new ones are counted and not remembered.
const MOST: usize = 4_096;

/// Sockets that listen on one address and port (`SO_REUSEPORT`). Beyond, they are not told apart.
const MOST_SOCKETS: usize = 256;

/// Network namespace, address and port.
type Key = (u32, IpAddr, u16);

/// A listening socket.
#[derive(Clone, Debug)]
struct Open {
    /// Its kernel address; `None` when it was there before the start.
    sock: Option<u64>,
    inode: u64,
    process: Process,
    since_ns: Option<u64>,
}

/// The last socket of an address and port to end.
#[derive(Clone, Debug)]
struct Ended {
    process: Process,
    since_ns: Option<u64>,
    closer: Actor,
    at_ns: u64,
}

impl Open {
    /// What is said of it at `now_ns`.
    fn at(&self, now_ns: u64) -> Listening {
        Listening {
            process: self.process.clone(),
            inode: self.inode,
            age_ns: self.since_ns.map(|since| now_ns.saturating_sub(since)),
            ended: None,
        }
    }
}

impl Ended {
    /// What is said of it at `now_ns`.
    fn at(&self, now_ns: u64) -> Listening {
        Listening {
            process: self.process.clone(),
            inode: 0,
            age_ns: self.since_ns.map(|since| now_ns.saturating_sub(since)),
            ended: Some(ListenerEnd {
                closer: self.closer.clone(),
                ago_ns: now_ns.saturating_sub(self.at_ns),
            }),
        }
    }
}

/// Words that have a bit for each port number.
const NUMBER_WORDS: usize = (1 << 16) / 64;

/// The word and the bit in it of a port number.
const fn bit_of(port: u16) -> (usize, u64) {
    (port as usize / 64, 1 << (port % 64))
}

#[derive(Clone, Debug, Default)]
struct Port {
    open: Vec<Open>,
    ended: Option<Ended>,
}

/// The listeners of this host.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    ports: HashMap<Key, Port>,
    /// A bit for each port number that anybody has listened on: in a storm of connects to closed ports
    /// most of what is asked for is not there.
    numbers: Vec<u64>,
    overflowed: u64,
}

impl Listeners {
    /// Adds one that was there before the start.
    pub fn add_existing(&mut self, netns: u32, local: Endpoint, inode: u64, process: Process) {
        self.open(
            (netns, local.addr, local.port),
            Open {
                sock: None,
                inode,
                process,
                since_ns: None,
            },
        );
    }

    /// Takes in that one begins or ends.
    pub fn observe(&mut self, listener: Listener) {
        let key = (listener.netns, listener.local.addr, listener.local.port);
        if listener.ends {
            self.close(key, listener);
        } else {
            self.open(
                key,
                Open {
                    sock: Some(listener.sock),
                    inode: listener.inode,
                    process: listener.by.process,
                    since_ns: Some(listener.monotonic_ns),
                },
            );
        }
    }

    /// Listeners that were not remembered, because too many listen.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Who listens on `local` at `now_ns` of `CLOCK_MONOTONIC`, or listened there last: on the very
    /// address first, then on all addresses.
    pub fn find(&self, netns: u32, local: Endpoint, now_ns: u64) -> Option<Listening> {
        let (word, bit) = bit_of(local.port);
        if self.numbers.get(word).is_none_or(|bits| bits & bit == 0) {
            return None;
        }
        let ports = || self.ports_for(netns, local);
        if let Some(open) = ports().find_map(|port| port.open.first()) {
            return Some(open.at(now_ns));
        }
        ports()
            .filter_map(|port| port.ended.as_ref())
            .max_by_key(|ended| ended.at_ns)
            .map(|ended| ended.at(now_ns))
    }

    /// Whose listener a connection to `local` waits at, or waited at when `closer` closed that. `None`
    /// when several processes listen there: nothing tells for which of them the kernel chose it.
    pub fn find_for_waiting(
        &self,
        netns: u32,
        local: Endpoint,
        closer: Option<&Process>,
        now_ns: u64,
    ) -> Option<Listening> {
        // The end of a listener comes before the resets of what waited at it (`__tcp_close`,
        // `net/ipv4/tcp.c`).
        let its_own = closer.and_then(|closer| {
            self.ports_for(netns, local)
                .filter_map(|port| port.ended.as_ref())
                .filter(|ended| ended.closer.process.is_same(closer))
                .max_by_key(|ended| ended.at_ns)
        });
        if let Some(ended) = its_own {
            return Some(ended.at(now_ns));
        }
        let found = self.find(netns, local, now_ns)?;
        let is_only = self
            .ports_for(netns, local)
            .flat_map(|port| &port.open)
            .all(|open| open.process.is_same(&found.process));
        is_only.then_some(found)
    }

    /// What is known of `local`: of the very address first, then of all addresses.
    fn ports_for(&self, netns: u32, local: Endpoint) -> impl Iterator<Item = &Port> {
        // A socket for all IPv6 addresses takes IPv4 as well, unless IPV6_V6ONLY is set.
        let any = [
            local.addr,
            match local.addr {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            },
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        any.into_iter()
            .filter_map(move |addr| self.ports.get(&(netns, addr, local.port)))
    }

    fn open(&mut self, key: Key, open: Open) {
        if !self.ports.contains_key(&key) && self.ports.len() >= MOST && !self.forget_oldest() {
            self.overflowed += 1;
            return;
        }
        let port = self.port(key);
        if port.open.len() < MOST_SOCKETS {
            port.open.push(open);
        }
    }

    fn close(&mut self, key: Key, listener: Listener) {
        if !self.ports.contains_key(&key) && self.ports.len() >= MOST && !self.forget_oldest() {
            self.overflowed += 1;
            return;
        }
        let port = self.port(key);
        // One from before the start has no known socket: it is the closer's, if any is.
        let at = port
            .open
            .iter()
            .position(|open| open.sock == Some(listener.sock))
            .or_else(|| {
                port.open.iter().position(|open| {
                    open.sock.is_none() && open.process.is_same(&listener.by.process)
                })
            })
            .or_else(|| port.open.iter().position(|open| open.sock.is_none()));
        let open = at.map(|at| port.open.remove(at));
        port.ended = Some(Ended {
            process: open
                .as_ref()
                .map_or_else(|| listener.by.process.clone(), |open| open.process.clone()),
            since_ns: open.and_then(|open| open.since_ns),
            closer: listener.by,
            at_ns: listener.monotonic_ns,
        });
    }

    /// What is known of an address and port, from now on if nothing was.
    fn port(&mut self, key: Key) -> &mut Port {
        let (word, bit) = bit_of(key.2);
        self.numbers.resize(NUMBER_WORDS, 0);
        self.numbers[word] |= bit;
        self.ports.entry(key).or_default()
    }

    /// Makes room. Returns whether there was any to make.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self
            .ports
            .iter()
            .filter(|(_, port)| port.open.is_empty())
            .min_by_key(|(_, port)| port.ended.as_ref().map_or(0, |ended| ended.at_ns))
            .map(|(key, _)| *key);
        oldest.is_some_and(|key| self.ports.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn at(addr: &str, port: u16) -> Endpoint {
        fixture::endpoint(addr, port)
    }

    fn change(local: Endpoint, sock: u64, pid: u32, time: u64, ends: bool) -> Listener {
        Listener {
            netns: 1,
            local,
            sock,
            inode: sock,
            monotonic_ns: time,
            by: fixture::actor(pid, "nginx"),
            ends,
        }
    }

    fn found(listeners: &Listeners, local: Endpoint) -> Option<(u32, Option<u64>)> {
        let found = listeners.find(1, local, 1_000)?;
        Some((found.process.pid, found.ended.map(|end| end.ago_ns)))
    }

    #[test]
    fn a_listener_is_found_while_it_listens_and_after() {
        let mut listeners = Listeners::default();
        let local = at("127.0.0.1", 80);
        listeners.observe(change(local, 5, 10, 100, false));
        assert_eq!(found(&listeners, local), Some((10, None)));
        assert_eq!(found(&listeners, at("127.0.0.2", 80)), None);
        assert_eq!(found(&listeners, at("127.0.0.1", 81)), None);
        assert_eq!(listeners.find(2, local, 1_000), None);
        listeners.observe(change(local, 5, 11, 400, true));
        assert_eq!(found(&listeners, local), Some((10, Some(600))));
    }

    #[test]
    fn listeners_on_all_addresses_count_for_each() {
        let mut listeners = Listeners::default();
        listeners.observe(change(at("::", 80), 5, 10, 100, false));
        assert_eq!(found(&listeners, at("10.0.0.1", 80)), Some((10, None)));
        assert_eq!(found(&listeners, at("2001:db8::1", 80)), Some((10, None)));
        listeners.observe(change(at("0.0.0.0", 81), 6, 11, 100, false));
        assert_eq!(found(&listeners, at("10.0.0.1", 81)), Some((11, None)));
        assert_eq!(found(&listeners, at("2001:db8::1", 81)), None);
    }

    #[test]
    fn of_several_sockets_on_a_port_the_last_to_go_ends_it() {
        let mut listeners = Listeners::default();
        let local = at("0.0.0.0", 80);
        listeners.observe(change(local, 5, 10, 100, false));
        listeners.observe(change(local, 6, 11, 200, false));
        listeners.observe(change(local, 5, 10, 300, true));
        assert_eq!(found(&listeners, local), Some((11, None)));
        listeners.observe(change(local, 6, 11, 400, true));
        assert_eq!(found(&listeners, local), Some((11, Some(600))));
    }

    #[test]
    fn a_waiting_connection_is_its_closers_or_nobodys_where_several_listen() {
        let mut listeners = Listeners::default();
        let local = at("0.0.0.0", 80);
        let waiting = |listeners: &Listeners, closer: Option<u32>| {
            let closer = closer.map(|pid| fixture::process(pid, "nginx"));
            let found = listeners.find_for_waiting(1, local, closer.as_ref(), 1_000);
            found.map(|found| found.process.pid)
        };
        listeners.observe(change(local, 5, 10, 100, false));
        assert_eq!(waiting(&listeners, None), Some(10));
        listeners.observe(change(local, 6, 11, 200, false));
        assert_eq!(waiting(&listeners, None), None);
        assert_eq!(waiting(&listeners, Some(10)), None);
        listeners.observe(change(local, 5, 10, 300, true));
        assert_eq!(waiting(&listeners, Some(10)), Some(10));
        assert_eq!(waiting(&listeners, Some(12)), Some(11));
        assert_eq!(waiting(&listeners, None), Some(11));
    }

    #[test]
    fn one_from_before_the_start_is_ended_by_whoever_closes_it() {
        let mut listeners = Listeners::default();
        let local = at("0.0.0.0", 80);
        listeners.add_existing(1, local, 4_711, fixture::process(10, "nginx"));
        listeners.add_existing(1, local, 4_711, fixture::process(11, "nginx"));
        listeners.observe(change(local, 9, 11, 400, true));
        assert_eq!(found(&listeners, local), Some((10, None)));
        listeners.observe(change(local, 8, 12, 500, true));
        assert_eq!(found(&listeners, local), Some((10, Some(500))));
    }

    #[test]
    fn a_new_one_is_remembered_at_the_cost_of_the_first_to_end() {
        let mut listeners = Listeners::default();
        for port in 0..u16::try_from(MOST).unwrap() {
            let local = at("0.0.0.0", port + 1);
            listeners.observe(change(local, u64::from(port), 10, 100, false));
        }
        listeners.observe(change(at("0.0.0.0", 60_000), 1, 10, 100, false));
        assert_eq!(listeners.overflowed(), 1);
        for (port, time) in [(7, 300), (5, 200)] {
            let local = at("0.0.0.0", port);
            listeners.observe(change(local, u64::from(port) - 1, 10, time, true));
        }
        listeners.observe(change(at("0.0.0.0", 60_000), 1, 10, 400, false));
        assert_eq!(listeners.overflowed(), 1);
        assert_eq!(found(&listeners, at("10.0.0.1", 5)), None);
        assert!(found(&listeners, at("10.0.0.1", 7)).is_some());
        assert!(found(&listeners, at("10.0.0.1", 60_000)).is_some());
    }
}
