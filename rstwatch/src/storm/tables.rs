//! What is counted of each event: its cause, its owner, its service's port, its remote address and
//! network, each in bounded memory.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::heavy::Heavy;
use crate::{
    cause::{CauseId, catalogue},
    event::{Comm, Direction, Event, TcpFlags, TcpState, Via},
};

/// Leading bits of an IPv4 address that make its network.
const V4_PREFIX: u8 = 24;

/// Leading bits of an IPv6 address that make its network: what a site gets.
const V6_PREFIX: u8 = 48;

/// The port of the service that a connection is to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Whether it is this host's; else the other end's.
    pub local: bool,
    /// In host byte order.
    pub number: u16,
}

impl Port {
    /// The service's port of the connection of `event`. The other end of it is a port that the
    /// kernel picked, and tells nothing.
    ///
    /// What connected or listened tells which is which; without that, the lower one is taken.
    pub fn of(event: &Event) -> Self {
        let opener = event.segment.map(|segment| segment.flags);
        let via = event.owner.as_ref().map(|owner| owner.via);
        let local = match (via, event.state) {
            (Some(Via::Connect), _) | (_, Some(TcpState::SynSent)) => false,
            (Some(Via::Listen | Via::Listener), _)
            | (_, Some(TcpState::Listen | TcpState::SynRecv | TcpState::NewSynRecv)) => true,
            _ => match opener {
                Some(flags) if flags.has(TcpFlags::SYN) => !flags.has(TcpFlags::ACK),
                _ => event.local.port <= event.remote.port,
            },
        };
        Self {
            local,
            number: if local {
                event.local.port
            } else {
                event.remote.port
            },
        }
    }
}

impl fmt::Display for Port {
    /// `:8080` on this host, `remote :443` at the other end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.local { "" } else { "remote " };
        write!(f, "{side}:{}", self.number)
    }
}

/// Whose connections they are; without a PID those that have no owner, or whose owner is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerName {
    /// The process; 0: none.
    pub pid: u32,
    /// Its name.
    pub comm: Comm,
}

impl OwnerName {
    /// The owner of `event`.
    pub fn of(event: &Event) -> Self {
        event
            .owner
            .as_ref()
            .map_or_else(Self::default, |owner| Self {
                pid: owner.process.pid,
                comm: owner.process.comm,
            })
    }

    /// Whether it stands for a process.
    pub const fn is_known(&self) -> bool {
        self.pid != 0
    }
}

impl fmt::Display for OwnerName {
    /// `nginx[812]`, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_known() {
            write!(f, "{}[{}]", self.comm, self.pid)
        } else {
            f.write_str("-")
        }
    }
}

/// An address or a network, as two halves of an IPv6 address: IPv4 is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr([u64; 2]);

impl Addr {
    fn of(addr: IpAddr) -> Self {
        let bits = match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self([(bits >> 64) as u64, bits as u64])
    }

    /// Whether it is `event`'s other end.
    pub fn is_of(self, event: &Event) -> bool {
        Self::of(event.remote.addr) == self
    }

    const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] >> 32 == 0xffff
    }

    fn network(self) -> Self {
        let [high, low] = self.0;
        if self.is_v4() {
            Self([high, low & !0 << (32 - V4_PREFIX)])
        } else {
            Self([high & !0 << (64 - V6_PREFIX), 0])
        }
    }

    fn get(self) -> IpAddr {
        let [high, low] = self.0;
        if self.is_v4() {
            Ipv4Addr::from_bits(low as u32).into()
        } else {
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A network: the leading 24 bits of IPv4 addresses, 48 of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Net(Addr);

impl Net {
    /// The network whose first address is `addr`.
    pub(super) const fn new(addr: Addr) -> Self {
        Self(addr)
    }

    /// Whether `event`'s other end is in it.
    pub fn has(self, event: &Event) -> bool {
        Addr::of(event.remote.addr).network() == self.0
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.0.is_v4() { V4_PREFIX } else { V6_PREFIX };
        write!(f, "{}/{prefix}", self.0)
    }
}

/// A key of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Way<K> {
    received: bool,
    pub(super) key: K,
}

impl<K> Way<K> {
    const fn new(direction: Direction, key: K) -> Self {
        Self {
            received: matches!(direction, Direction::Received),
            key,
        }
    }

    pub(super) const fn direction(&self) -> Direction {
        if self.received {
            Direction::Received
        } else {
            Direction::Sent
        }
    }
}

/// A cause, as its place in the catalogue, at a port.
pub(super) type What = (u8, Port);

/// Counts of events, by what they have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// By direction and cause: exact.
    causes: [[u64; catalogue::ENTRIES.len()]; 2],
    /// Those whose other end is on this host too, by direction.
    both_ends: [u64; 2],
    pub(super) whats: Heavy<Way<What>>,
    pub(super) owners: Heavy<Way<OwnerName>>,
    pub(super) ports: Heavy<Way<Port>>,
    pub(super) addrs: Heavy<Way<Addr>>,
    pub(super) nets: Heavy<Way<Addr>>,
}

impl Tables {
    /// Counts so many events that are alike.
    pub(super) fn note(&mut self, event: &Event, cause: CauseId, times: u64) {
        let direction = event.direction;
        self.causes[direction as usize][cause as usize] += times;
        if event.peer.is_some() {
            self.both_ends[direction as usize] += times;
        }
        let port = Port::of(event);
        let addr = Addr::of(event.remote.addr);
        let what = (cause as u8, port);
        self.whats.note(Way::new(direction, what), times);
        self.ports.note(Way::new(direction, port), times);
        let owner = OwnerName::of(event);
        self.owners.note(Way::new(direction, owner), times);
        self.addrs.note(Way::new(direction, addr), times);
        self.nets.note(Way::new(direction, addr.network()), times);
    }

    /// Counts all that `other` has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.total() == 0 {
            return;
        }
        for (own, others) in self.causes.iter_mut().zip(&other.causes) {
            for (own, others) in own.iter_mut().zip(others) {
                *own += others;
            }
        }
        for (own, others) in self.both_ends.iter_mut().zip(other.both_ends) {
            *own += others;
        }
        self.whats.merge(&other.whats);
        self.owners.merge(&other.owners);
        self.ports.merge(&other.ports);
        self.addrs.merge(&other.addrs);
        self.nets.merge(&other.nets);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        if self.total() == 0 {
            return;
        }
        self.causes = Default::default();
        self.both_ends = [0; 2];
        self.whats.clear();
        self.owners.clear();
        self.ports.clear();
        self.addrs.clear();
        self.nets.clear();
    }

    /// How many events were counted.
    pub(super) const fn total(&self) -> u64 {
        self.whats.total()
    }

    /// How many of a direction.
    pub(super) fn of(&self, direction: Direction) -> u64 {
        self.causes[direction as usize].iter().sum()
    }

    /// How many of a direction have their other end on this host too.
    pub(super) const fn both_ends(&self, direction: Direction) -> u64 {
        self.both_ends[direction as usize]
    }

    /// The causes that came.
    pub(super) fn causes(&self) -> impl Iterator<Item = ((Direction, CauseId), u64)> {
        [Direction::Sent, Direction::Received]
            .into_iter()
            .flat_map(|direction| {
                let counts = &self.causes[direction as usize];
                catalogue::ENTRIES
                    .iter()
                    .zip(counts)
                    .map(move |(entry, count)| ((direction, entry.id), *count))
            })
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_port_is_the_services() {
        let port = |event: &Event| Port::of(event).to_string();
        assert_eq!(port(&fixture::closed_port()), ":8080");
        assert_eq!(port(&fixture::received(TcpState::SynSent)), "remote :443");
        assert_eq!(
            port(&fixture::received(TcpState::Established)),
            "remote :443"
        );
        let mut accepted = fixture::unread();
        assert_eq!(port(&accepted), ":8080");
        accepted.owner.as_mut().expect("an owner").via = Via::Connect;
        assert_eq!(port(&accepted), "remote :51234");
        let mut high = fixture::closed_port();
        high.local.port = 60_000;
        assert_eq!(port(&high), ":60000");
        high.segment = Some(fixture::segment(TcpFlags::SYN | TcpFlags::ACK, 0));
        assert_eq!(port(&high), "remote :51234");
    }

    #[test]
    fn addresses_and_their_networks() {
        let cases = [
            ("10.0.0.9", "10.0.0.9", "10.0.0.0/24"),
            ("2001:db8:1:2::5", "2001:db8:1:2::5", "2001:db8:1::/48"),
            ("::1", "::1", "::/48"),
            ("0.0.0.0", "0.0.0.0", "0.0.0.0/24"),
        ];
        for (text, addr, net) in cases {
            let mut event = fixture::closed_port();
            event.remote = fixture::endpoint(text, 1);
            let own = Addr::of(event.remote.addr);
            assert_eq!(own.to_string(), addr);
            assert_eq!(Net(own.network()).to_string(), net);
            assert!(own.is_of(&event) && Net(own.network()).has(&event));
            assert!(!own.is_of(&fixture::closed_port()) || text == "10.0.0.9");
        }
    }

    #[test]
    fn merged_tables_count_both() {
        let (mut a, mut b) = (Tables::default(), Tables::default());
        a.note(&fixture::closed_port(), CauseId::ClosedPort, 1);
        b.note(&fixture::closed_port(), CauseId::ClosedPort, 1);
        b.note(&fixture::received(TcpState::SynSent), CauseId::Refused, 1);
        a.merge(&b);
        assert_eq!(
            (a.total(), a.of(Direction::Sent), a.of(Direction::Received)),
            (3, 2, 1)
        );
        let causes: Vec<_> = a.causes().collect();
        assert_eq!(
            causes,
            [
                ((Direction::Sent, CauseId::ClosedPort), 2),
                ((Direction::Received, CauseId::Refused), 1),
            ]
        );
        a.clear();
        assert_eq!((a.total(), a.causes().count()), (0, 0));
    }
}
