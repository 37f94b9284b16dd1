//! Who tries one closed port after another: a bounded memory of the senders of SYNs that met no
//! socket. Time comes with the events; nothing is read from the system, and nothing allocated after
//! the start.

use std::{net::IpAddr, time::Duration};

use foldhash::{HashMap, HashMapExt as _};

use crate::event::{Event, TcpFlags, Trigger};

/// For how long a port that was tried counts.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The most ports that are counted for one sender.
pub const MOST_PORTS: usize = 64;

/// The most senders that are remembered; the one that was quiet the longest is forgotten first.
const MOST_SENDERS: usize = 256;

/// The closed ports that each sender tried lately.
#[derive(Debug)]
pub struct Scans {
    slots: HashMap<Source, usize>,
    senders: Vec<Sender>,
}

/// An address, and the network namespace where it means something in that one only; else 0.
type Source = (u32, IpAddr);

#[derive(Clone, Copy, Debug)]
struct Sender {
    source: Source,
    last_ns: u64,
    /// Ports and when they were tried last; those that were not tried lately may be replaced.
    ports: [(u16, u64); MOST_PORTS],
    used: usize,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            slots: HashMap::with_capacity(MOST_SENDERS * 2),
            senders: Vec::with_capacity(MOST_SENDERS),
        }
    }
}

impl Scans {
    /// Notes `event` if it is a SYN that met no socket, and gives the number of different local
    /// ports that its sender tried so within [`WINDOW`], this one among them: [`MOST_PORTS`] at the
    /// most.
    pub fn note(&mut self, event: &Event) -> Option<u32> {
        let segment = event.segment.as_ref()?;
        let met_nothing =
            event.socket.is_none() && event.state.is_none() && event.time_wait.is_none();
        let opens = segment.flags.has(TcpFlags::SYN) && !segment.flags.has(TcpFlags::ACK);
        if event.trigger != Trigger::Segment || !met_nothing || !opens {
            return None;
        }
        let addr = event.remote.addr;
        let netns = event.netns.filter(|_| addr.is_loopback()).unwrap_or(0);
        let sender = self.sender((netns, addr), event.time_ns);
        Some(sender.note(event.local.port, event.time_ns))
    }

    fn sender(&mut self, source: Source, now_ns: u64) -> &mut Sender {
        let slot = match self.slots.get(&source) {
            Some(slot) => *slot,
            None => self.new_slot(source),
        };
        let sender = &mut self.senders[slot];
        sender.last_ns = now_ns;
        sender
    }

    fn new_slot(&mut self, source: Source) -> usize {
        let fresh = Sender {
            source,
            last_ns: 0,
            ports: [(0, 0); MOST_PORTS],
            used: 0,
        };
        let quietest = (0..self.senders.len()).min_by_key(|slot| self.senders[*slot].last_ns);
        let slot = match quietest {
            Some(slot) if self.senders.len() == MOST_SENDERS => {
                self.slots.remove(&self.senders[slot].source);
                self.senders[slot] = fresh;
                slot
            }
            _ => {
                self.senders.push(fresh);
                self.senders.len() - 1
            }
        };
        self.slots.insert(source, slot);
        slot
    }
}

impl Sender {
    /// Notes that `port` was tried, and gives the number of ports tried lately.
    fn note(&mut self, port: u16, now_ns: u64) -> u32 {
        let window_ns = WINDOW.as_nanos() as u64;
        // A step of the clock makes what lies in the future count as of now.
        let lately = |tried_ns: u64| now_ns.saturating_sub(tried_ns) < window_ns;
        // What is old goes; the order does not matter.
        let mut kept = 0;
        for i in 0..self.used {
            let (known, tried_ns) = self.ports[i];
            if known != port && lately(tried_ns) {
                self.ports[kept] = (known, tried_ns);
                kept += 1;
            }
        }
        if kept == MOST_PORTS {
            // As many as are counted: the new one takes the place of any.
            kept -= 1;
        }
        self.ports[kept] = (port, now_ns);
        self.used = kept + 1;
        self.used as u32
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{event::TcpState, fixture};

    const MS: u64 = 1_000_000;

    fn syn(addr: IpAddr, port: u16, at_ms: u64) -> Event {
        let mut event = fixture::closed_port();
        event.remote.addr = addr;
        event.local.port = port;
        event.time_ns = fixture::TIME_NS + at_ms * MS;
        event
    }

    fn addr(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low).into()
    }

    #[test]
    fn different_ports_of_one_sender_within_the_window_count() {
        // Sender, port, milliseconds, count.
        let steps = [
            (1, 80, 0, 1),
            (1, 80, 10, 1),
            (1, 81, 20, 2),
            (2, 82, 30, 1),
            (1, 83, 9_000, 3),
            // 80 was tried at 10 ms last.
            (1, 84, 10_010, 3),
            (1, 84, 10_030, 2),
            (1, 85, 60_000, 1),
            // The clock was set back.
            (1, 86, 1_000, 2),
        ];
        let mut scans = Scans::default();
        for (sender, port, at_ms, count) in steps {
            assert_eq!(
                scans.note(&syn(addr(sender), port, at_ms)),
                Some(count),
                "port {port} at {at_ms} ms"
            );
        }
    }

    #[test]
    fn loopback_in_another_namespace_is_another_sender() {
        let mut scans = Scans::default();
        let mut note = |addr: IpAddr, netns, port| {
            let mut event = syn(addr, port, 0);
            event.netns = Some(netns);
            scans.note(&event)
        };
        let loopback = Ipv4Addr::LOCALHOST.into();
        assert_eq!(note(loopback, 1, 80), Some(1));
        assert_eq!(note(loopback, 2, 81), Some(1));
        assert_eq!(note(loopback, 1, 82), Some(2));
        assert_eq!(note(addr(1), 1, 80), Some(1));
        assert_eq!(note(addr(1), 2, 81), Some(2));
    }

    #[test]
    fn only_a_syn_that_met_no_socket_counts() {
        let mut scans = Scans::default();
        let mut listener = syn(addr(1), 80, 0);
        listener.state = Some(TcpState::Listen);
        assert_eq!(scans.note(&listener), None);
        let mut ack = syn(addr(1), 80, 0);
        ack.segment = Some(fixture::segment(TcpFlags::ACK, 0));
        assert_eq!(scans.note(&ack), None);
        assert_eq!(scans.note(&fixture::received(TcpState::SynSent)), None);
        assert_eq!(scans.note(&fixture::unread()), None);
    }

    #[test]
    fn the_count_and_the_senders_are_bounded() {
        let mut scans = Scans::default();
        for port in 1..=1_000 {
            let count = scans.note(&syn(addr(1), port, 0)).expect("a SYN");
            assert_eq!(count as usize, usize::from(port).min(MOST_PORTS));
        }
        for sender in 2..=1_000 {
            assert_eq!(
                scans.note(&syn(addr(sender), 1, u64::from(sender))),
                Some(1)
            );
            assert!(scans.senders.len() <= MOST_SENDERS);
            assert_eq!(scans.senders.len(), scans.slots.len());
        }
        // The first one was quiet the longest, the last one is still known.
        assert_eq!(scans.note(&syn(addr(1_000), 2, 1_000)), Some(2));
        assert_eq!(scans.note(&syn(addr(1), 1_001, 1_000)), Some(1));
    }
}
