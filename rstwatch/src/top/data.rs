//! What there is to show at a moment.

use std::{collections::HashMap, hash::Hash, time::Duration};

use jiff::tz::TimeZone;

use crate::{
    cause::{CauseId, catalogue, summary},
    event::{Direction, Event},
    sink::recent::{Kept, Recent},
    storm::{
        Now, Rate, Watch, Window,
        shape::{Ranking, Shape},
        tables::{Addr, Net, OwnerName, Port},
        words,
    },
};

/// Rows that a table is given at the most.
const ROWS: usize = 200;

/// Events that a list is given at the most.
const EVENTS: usize = 200;

/// Seconds of the sparkline that are given: more than screens have columns.
const HISTORY: usize = 300;

/// The tables.
pub const TABLES: [&str; 4] = ["CAUSE", "OWNER", "PORT", "PEER"];

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A cause of a direction.
    Cause(Direction, CauseId),
    /// An owner.
    Owner(OwnerName),
    /// The port of a service.
    Port(Port),
    /// A remote address.
    Addr(Addr),
    /// A remote network.
    Net(Net),
}

impl Key {
    /// What it is called in a table.
    pub fn name(&self) -> String {
        match self {
            Self::Cause(direction, cause) => format!("{} {}", short(*direction), cause.name()),
            Self::Owner(owner) if owner.is_known() => owner.to_string(),
            Self::Owner(_) => "no owner known".to_owned(),
            Self::Port(port) => port.to_string(),
            Self::Addr(addr) => addr.to_string(),
            Self::Net(net) => net.to_string(),
        }
    }

    /// Whether an event is one of those that the row counts.
    pub fn has(&self, event: &Event, cause: CauseId) -> bool {
        match self {
            Self::Cause(direction, id) => event.direction == *direction && cause == *id,
            Self::Owner(owner) => OwnerName::of(event) == *owner,
            Self::Port(port) => Port::of(event) == *port,
            Self::Addr(addr) => addr.is_of(event),
            Self::Net(net) => net.has(event),
        }
    }
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it stands for.
    pub key: Key,
    /// What it is called.
    pub name: String,
    /// How often it came, at least: in the last seconds or since the start.
    pub count: u64,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The most frequent first.
    pub rows: Vec<Row>,
    /// How many different ones there are, at least.
    pub distinct: usize,
    /// How many times more often than its row says each may have come; 0: the counts are exact.
    pub error: u64,
}

/// An event of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The n-th of all events.
    pub number: u64,
    /// Its cause.
    pub cause: CauseId,
    /// When, by the clock on the wall, to the millisecond.
    pub time: String,
    /// `sent` or `recv`.
    pub direction: Direction,
    /// Its owner, or `-`.
    pub owner: String,
    /// This host's end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// The cause's name, with a mark when it is not certain.
    pub verdict: String,
    /// Why, in a sentence; the evidence; what to look at next.
    pub sentence: String,
    /// The evidence.
    pub evidence: Vec<String>,
}

/// Which numbers tables have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// Those of the last seconds.
    #[default]
    Lately,
    /// Those since the start.
    Ever,
}

/// What the screen asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Which numbers tables have.
    pub span: Span,
    /// Peers as networks.
    pub networks: bool,
    /// The events of this row, or of all.
    pub events: Option<Option<Key>>,
}

/// How many resets went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Counted here: they match the filter.
    pub counted: u64,
    /// Held back by the filter.
    pub filtered: u64,
    /// Detail lost because the ring was full.
    pub lost: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// The time of day.
    pub time: String,
    /// How long it has run.
    pub running: Duration,
    /// Resets a second over the last 1, 10 and 60 seconds.
    pub rates: [Rate; 3],
    /// Resets a second, second by second, the newest last.
    pub history: Vec<u64>,
    /// Whether there is a storm.
    pub in_storm: bool,
    /// How many, since when, how much above what is usual.
    pub headline: String,
    /// What most of them have in common.
    pub what: String,
    /// By cause, owner, port and peer.
    pub tables: [Table; 4],
    /// Resets that the tables count.
    pub total: u64,
    /// Seconds in which they came; `None` for all since the start.
    pub seconds: Option<f64>,
    /// How many resets went where.
    pub totals: Totals,
    /// Events, the newest first.
    pub events: Vec<Line>,
}

impl Data {
    /// What there is to show `now`.
    pub fn gather(
        watch: &mut Watch,
        recent: Option<&Recent>,
        now: Now,
        zone: &TimeZone,
        wish: &Wish,
    ) -> Self {
        let report = watch.report(now);
        let verdict = words::Verdict::new(&report, zone);
        let (window, seconds) = match wish.span {
            Span::Lately => (Window::Lately, Some(watch.lately_s())),
            Span::Ever => (Window::Ever, None),
        };
        let shape = watch.shape(window, ROWS);
        let history = watch.rates().map_or_else(Vec::new, |rates| {
            let newest = rates.history().iter().rev().take(HISTORY);
            let mut history: Vec<u64> = newest.map(|rate| whole(rate.total())).collect();
            history.reverse();
            history
        });
        let events = match (&wish.events, recent) {
            (Some(wanted), Some(recent)) => recent
                .last(EVENTS, |kept| {
                    wanted.is_none_or(|key| key.has(&kept.event, kept.verdict.id))
                })
                .into_iter()
                .map(|kept| line(kept, zone))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            time: words::Time(now.wall_ns, zone).to_string(),
            running: Duration::ZERO,
            rates: report.rates,
            history,
            in_storm: report.storm.is_some(),
            headline: verdict.headline,
            what: verdict.what.unwrap_or_default(),
            total: shape.total(),
            seconds,
            tables: tables(&shape, wish.networks),
            totals: Totals::default(),
            events,
        }
    }
}

fn tables(shape: &Shape, networks: bool) -> [Table; 4] {
    [
        table(&shape.causes, |(direction, cause)| {
            Key::Cause(direction, cause)
        }),
        table(&shape.owners, Key::Owner),
        table(&shape.ports, Key::Port),
        if networks {
            table(&shape.nets, Key::Net)
        } else {
            table(&shape.addrs, Key::Addr)
        },
    ]
}

fn table<K: Copy + Eq + Hash>(ranking: &Ranking<K>, key: impl Fn(K) -> Key) -> Table {
    let rows = ranking.rows.iter().map(|row| {
        let key = key(row.key);
        Row {
            key,
            name: key.name(),
            count: row.count,
        }
    });
    Table {
        rows: rows.collect(),
        distinct: ranking.distinct,
        error: ranking.error,
    }
}

fn line(kept: &Kept, zone: &TimeZone) -> Line {
    let Kept {
        number,
        event,
        verdict,
    } = kept;
    let mark = verdict.confidence.mark();
    Line {
        number: *number,
        cause: verdict.id,
        time: format!(
            "{}.{:03}",
            words::Time(event.time_ns, zone),
            event.time_ns / 1_000_000 % 1_000
        ),
        direction: event.direction,
        owner: OwnerName::of(event).to_string(),
        local: event.local.to_string(),
        remote: event.remote.to_string(),
        verdict: format!("{}{mark}", verdict.id.name()),
        sentence: summary(event, verdict).to_string(),
        evidence: verdict.facts.iter().map(ToString::to_string).collect(),
    }
}

/// What to look at next for a cause.
pub fn advice(cause: CauseId) -> &'static str {
    catalogue::entry(cause).advice
}

/// The direction in four letters.
pub const fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Sent => "sent",
        Direction::Received => "recv",
    }
}

/// A rate as a whole number; what is above none is at least 1, so that it is seen.
#[expect(clippy::cast_sign_loss, reason = "rates are not negative")]
fn whole(rate: f64) -> u64 {
    rate.ceil() as u64
}

/// Puts rows into the order that they had; new ones come behind.
pub fn keep_order(rows: &mut [Row], order: &[Key]) {
    let place: HashMap<&Key, usize> = order.iter().zip(0..).collect();
    rows.sort_by_key(|row| place.get(&row.key).copied().unwrap_or(usize::MAX));
}
