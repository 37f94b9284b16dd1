//! The shape of what was counted: the most frequent of each kind, and what stands out.

use std::{cmp::Reverse, collections::HashMap, hash::Hash};

use arrayvec::ArrayVec;

use super::{
    gone::{Gone, Listeners},
    heavy::Heavy,
    tables::{Addr, Net, OwnerName, Port, Tables, Way},
};
use crate::{
    cause::{CauseId, catalogue},
    event::Direction,
};

/// A cause stands out when it has so many of the resets of its direction.
const LEADS: f64 = 0.6;

/// One that stood out does so until it has less than this.
const STILL_LEADS: f64 = 0.4;

/// An owner, a port or a network stands out when it has so many.
const DOMINATES: f64 = 0.5;

/// An address is the source when it has so many.
const IS_SOURCE: f64 = 0.9;

/// Keys of less than this share are not counted as different ones, when the others have nearly all:
/// what is there on any day beside a storm.
const NOISE: f64 = 0.001;

/// The part that those others must have.
const NEARLY_ALL: f64 = 0.99;

/// So many ports that one address asks for, and none of them more than others, are a scan.
const SCAN: usize = 16;

/// How often something came: at least `count` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<K> {
    /// What came.
    pub key: K,
    /// How often.
    pub count: u64,
}

/// The most frequent of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking<K> {
    /// The most frequent first.
    pub rows: Vec<Row<K>>,
    /// How many different ones there are; the least that there are unless [`Self::is_exact`].
    pub distinct: usize,
    /// How many times more often than its row says each may have come.
    pub error: u64,
}

impl<K> Default for Ranking<K> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            distinct: 0,
            error: 0,
        }
    }
}

impl<K> Ranking<K> {
    /// Whether every count is exact and none is missing but for the rows' limit.
    pub const fn is_exact(&self) -> bool {
        self.error == 0
    }

    fn new(mut rows: Vec<Row<K>>, error: u64, most: usize) -> Self {
        let distinct = rows.len();
        rows.sort_by_key(|row| Reverse(row.count));
        rows.truncate(most);
        Self {
            rows,
            distinct,
            error,
        }
    }
}

/// Whose resets they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sources {
    /// Nearly all with one address, which has this share.
    One(Addr, f64),
    /// Most with one network of several addresses, which has this share.
    Network(Net, f64),
    /// Neither.
    Many,
}

impl Sources {
    /// Whether both are of one kind: the share may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(a, _), Self::One(b, _)) => a == b,
            (Self::Network(a, _), Self::Network(b, _)) => a == b,
            (Self::Many, Self::Many) => true,
            _ => false,
        }
    }
}

/// Different ones that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distinct {
    /// How many.
    pub count: usize,
    /// Whether that is all: else there are more.
    pub exact: bool,
}

/// What stands out: the cause that most resets of a direction have.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// Sent or received.
    pub direction: Direction,
    /// The cause.
    pub cause: CauseId,
    /// The port that most of these are at.
    pub port: Option<Port>,
    /// How many of the direction's resets have this cause, and this port when there is one: 0 to 1.
    pub share: f64,
    /// Different ports that resets of this direction and cause are at.
    pub ports: Distinct,
    /// The process that most resets of the direction belong to, and how many: 0 to 1.
    pub owner: Option<(OwnerName, f64)>,
    /// With whom.
    pub sources: Sources,
    /// Different remote addresses.
    pub addresses: Distinct,
    /// Who listened on the port until lately.
    pub gone: Option<Gone>,
}

impl Lead {
    /// Whether one address asks for one port after another.
    pub const fn is_scan(&self) -> bool {
        self.port.is_none()
            && self.ports.count >= SCAN
            && matches!(
                self.cause,
                CauseId::ClosedPort | CauseId::ListenerGone | CauseId::Refused
            )
            && matches!(self.sources, Sources::One(..))
    }

    /// Whether both say the same but for the numbers.
    pub fn is_like(&self, other: &Self) -> bool {
        self.direction == other.direction
            && self.cause == other.cause
            && self.port == other.port
            && self.is_scan() == other.is_scan()
            && self.sources.is_like(&other.sources)
            && self.gone.as_ref().map(|gone| gone.pid) == other.gone.as_ref().map(|gone| gone.pid)
    }
}

/// What was counted, in short.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Resets whose detail was seen, sent.
    pub sent: u64,
    /// The same, received.
    pub received: u64,
    /// Whether most of them have both ends on this host.
    pub both_ends: bool,
    /// What stands out.
    pub lead: Option<Lead>,
    /// Causes by direction: exact.
    pub causes: Ranking<(Direction, CauseId)>,
    /// Owners.
    pub owners: Ranking<OwnerName>,
    /// Ports of services.
    pub ports: Ranking<Port>,
    /// Remote addresses.
    pub addrs: Ranking<Addr>,
    /// Remote networks.
    pub nets: Ranking<Net>,
}

impl Shape {
    /// Resets whose detail was seen.
    pub const fn total(&self) -> u64 {
        self.sent + self.received
    }

    /// The shape of `tables`, with at most `most` rows of a kind. `before` stood out before.
    pub(super) fn of(
        tables: &Tables,
        listeners: &Listeners,
        before: Option<&Lead>,
        most: usize,
    ) -> Self {
        let (sent, received) = (tables.of(Direction::Sent), tables.of(Direction::Received));
        let both = tables.both_ends(Direction::Sent) + tables.both_ends(Direction::Received);
        let causes = tables.causes().map(|(key, count)| Row { key, count });
        Self {
            sent,
            received,
            both_ends: both > 0 && 2 * both >= sent + received,
            lead: lead(tables, listeners, before),
            causes: Ranking::new(causes.collect(), 0, most),
            owners: ranking(&tables.owners, |key| key, most),
            ports: ranking(&tables.ports, |key| key, most),
            addrs: ranking(&tables.addrs, |key| key, most),
            nets: ranking(&tables.nets, Net::new, most),
        }
    }
}

/// Both directions of a table as one.
fn ranking<K: Copy + Default + Eq + Hash, R: Ord + Copy>(
    table: &Heavy<Way<K>>,
    name: impl Fn(K) -> R,
    most: usize,
) -> Ranking<R> {
    let mut counts: HashMap<K, u64> = HashMap::new();
    for (way, count) in table.iter() {
        *counts.entry(way.key).or_default() += count;
    }
    let mut rows: Vec<Row<R>> = counts
        .into_iter()
        .map(|(key, count)| Row {
            key: name(key),
            count,
        })
        .collect();
    // So that those that came equally often do not change places from one look to the next.
    rows.sort_by_key(|row| row.key);
    // Each direction may have come as much more often as the table says.
    Ranking::new(rows, 2 * table.error(), most)
}

/// What stands out, without allocating: it is asked for every second of a storm.
pub(super) fn lead(tables: &Tables, listeners: &Listeners, before: Option<&Lead>) -> Option<Lead> {
    let top = |wanted| {
        tables
            .causes()
            .filter(|((direction, _), _)| *direction == wanted)
            .max_by_key(|(_, count)| *count)
    };
    let (sent, received) = (top(Direction::Sent), top(Direction::Received));
    // With both ends on this host, what is received is the effect of what is sent. The two are
    // counted a moment apart.
    let ((direction, cause), count) = match (sent, received) {
        (Some(sent), Some(received)) if 10 * sent.1 < 9 * received.1 => received,
        (Some(sent), _) => sent,
        (None, received) => received?,
    };
    let all = tables.of(direction);
    let stood_out = before.is_some_and(|lead| (lead.direction, lead.cause) == (direction, cause));
    if share(count, all) < if stood_out { STILL_LEADS } else { LEADS } {
        return None;
    }
    let mut ports = Distinct {
        count: 0,
        exact: tables.whats.is_exact(),
    };
    let mut first: Option<(Port, u64)> = None;
    for (way, times) in tables.whats.iter() {
        let (of, port) = way.key;
        if way.direction() == direction && of == cause as u8 {
            ports.count += 1;
            if first.is_none_or(|(_, most)| times > most) {
                first = Some((port, times));
            }
        }
    }
    let first = first.filter(|(_, times)| share(*times, count) >= DOMINATES);
    let port = first.map(|(port, _)| port);
    let (addr, addresses) = foremost(&tables.addrs, direction);
    let (net, _) = foremost(&tables.nets, direction);
    let sources = match (addr, net) {
        (Some((addr, times)), _) if share(times, all) >= IS_SOURCE => {
            Sources::One(addr, share(times, all))
        }
        (_, Some((net, times))) if share(times, all) >= DOMINATES && addresses.count > 1 => {
            Sources::Network(Net::new(net), share(times, all))
        }
        _ => Sources::Many,
    };
    let owner = foremost(&tables.owners, direction)
        .0
        .map(|(owner, times)| (owner, share(times, all)))
        .filter(|(owner, share)| owner.is_known() && *share >= DOMINATES);
    let is_answer = matches!(cause, CauseId::ClosedPort | CauseId::ListenerGone);
    Some(Lead {
        direction,
        cause,
        port,
        share: share(first.map_or(count, |(_, times)| times), all),
        ports,
        owner,
        sources,
        addresses,
        gone: port
            .filter(|port| port.local && is_answer)
            .and_then(|port| listeners.find(port.number)),
    })
}

/// The most frequent of a direction, and how many there are.
fn foremost<K: Copy + Default + Eq + Hash>(
    table: &Heavy<Way<K>>,
    direction: Direction,
) -> (Option<(K, u64)>, Distinct) {
    let of_direction = || {
        table
            .iter()
            .filter(|(way, _)| way.direction() == direction)
            .map(|(way, count)| (way.key, count))
    };
    let first = of_direction().max_by_key(|(_, count)| *count);
    let all: u64 = of_direction().map(|(_, count)| count).sum();
    let (mut louder, mut of_louder, mut distinct) = (0, 0, 0);
    for (_, count) in of_direction() {
        distinct += 1;
        if share(count, all) >= NOISE {
            louder += 1;
            of_louder += count;
        }
    }
    let count = if table.is_exact() && share(of_louder, all) >= NEARLY_ALL {
        louder
    } else {
        distinct
    };
    let exact = table.is_exact();
    (first, Distinct { count, exact })
}

/// The part that `count` is of `all`: 0 to 1.
#[expect(
    clippy::cast_precision_loss,
    reason = "shares are told with three digits"
)]
pub fn share(count: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        count as f64 / all as f64
    }
}

/// The most frequent causes of a direction, for when none stands out: at most three.
pub(super) fn foremost_causes(
    shape: &Shape,
) -> ArrayVec<(&'static catalogue::Entry, Direction, f64), 3> {
    let rows = shape.causes.rows.iter().take(3);
    rows.map(|row| {
        let (direction, cause) = row.key;
        (
            catalogue::entry(cause),
            direction,
            share(row.count, shape.total()),
        )
    })
    .collect()
}
