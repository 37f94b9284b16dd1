//! A report as a person reads it.

use std::fmt::{self, Write as _};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Gone, Lead, Phase, Report, Span,
    shape::{Distinct, Ranking, Row, Shape, Sources, foremost_causes, share},
};
use crate::{cause::CauseId, event::Direction};

const NS_PER_S: u64 = 1_000_000_000;

/// Below this share of its total a direction is not mentioned.
const MENTIONED: f64 = 0.02;

/// When less of the resets was seen in detail, it is said.
const SEEN: f64 = 0.9;

/// A usual rate below this is none.
const NONE: f64 = 0.05;

/// What a report says: the first line, then what stands out, when something does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many, since when, how much above what is usual.
    pub headline: String,
    /// What most of them have in common.
    pub what: Option<String>,
}

impl Verdict {
    /// The verdict of `report`, its times in the time zone `zone`.
    pub fn new(report: &Report, zone: &TimeZone) -> Self {
        let Report { phase, storm, .. } = report;
        let mut headline = String::new();
        // A String takes all that is written.
        let _ = match (phase, storm) {
            (Phase::End, Some(storm)) => over(&mut headline, storm, report, zone),
            (_, Some(storm)) => ongoing(&mut headline, storm, report, zone),
            _ => calm(&mut headline, report),
        };
        Self {
            headline,
            what: what(report, zone),
        }
    }

    /// Both in one sentence.
    pub fn sentence(&self) -> String {
        match &self.what {
            Some(what) => format!("{}; {what}", self.headline),
            None => self.headline.clone(),
        }
    }
}

fn ongoing(
    out: &mut String,
    storm: &Span,
    report: &Report,
    zone: &TimeZone,
) -> Result<(), fmt::Error> {
    out.push_str(match report.phase {
        Phase::Change => "the storm changed; since ",
        _ => "storm since ",
    });
    write!(out, "{}", Time(storm.since_ns, zone))?;
    if storm.from_start {
        out.push_str(" or longer");
    }
    out.push_str(": ");
    rate(out, report)?;
    above_usual(out, report.rates[0].total(), report.usual)
}

fn over(
    out: &mut String,
    storm: &Span,
    report: &Report,
    zone: &TimeZone,
) -> Result<(), fmt::Error> {
    let until_ns = storm.until_ns.unwrap_or(report.time_ns);
    let lasted_ns = until_ns.saturating_sub(storm.since_ns);
    write!(
        out,
        "the storm is over: from {} to {} ({}), {} resets, up to {}/s",
        Time(storm.since_ns, zone),
        Time(until_ns, zone),
        Lasted(lasted_ns),
        Grouped(storm.counted.total()),
        PerSecond(storm.peak),
    )?;
    let (sent, received) = (storm.counted.sent, storm.counted.received);
    if share(sent.min(received), sent + received) >= MENTIONED {
        write!(
            out,
            "; {} sent, {} received",
            Grouped(sent),
            Grouped(received)
        )?;
    }
    both_ends(out, &report.shape);
    Ok(())
}

fn calm(out: &mut String, report: &Report) -> Result<(), fmt::Error> {
    rate(out, report)?;
    match report.usual {
        Some(usual) if usual >= NONE => write!(out, ", usually {}/s", PerSecond(usual)),
        Some(_) => write!(out, ", usually none"),
        None => Ok(()),
    }
}

/// The rate of the last second, by direction where both count.
fn rate(out: &mut String, report: &Report) -> Result<(), fmt::Error> {
    let rate = report.rates[0];
    let (sent, received) = (PerSecond(rate.sent), PerSecond(rate.received));
    let mentioned = MENTIONED * rate.total();
    if rate.sent > mentioned && rate.received > mentioned {
        write!(out, "{sent}/s sent, {received}/s received")?;
    } else if rate.received > rate.sent {
        write!(out, "{received}/s received")?;
    } else {
        write!(out, "{sent}/s sent")?;
    }
    both_ends(out, &report.shape);
    Ok(())
}

fn both_ends(out: &mut String, shape: &Shape) {
    if shape.both_ends {
        out.push_str(" (both ends are on this host)");
    }
}

fn above_usual(out: &mut String, rate: f64, usual: Option<f64>) -> Result<(), fmt::Error> {
    match usual {
        None => write!(out, "; what is usual is not known yet"),
        Some(usual) if usual < NONE => write!(out, "; usually none"),
        // Nobody thinks in hundred thousands of times next to nothing.
        Some(usual) if usual < 1.0 => write!(out, "; usually {}/s", PerSecond(usual)),
        Some(usual) => write!(
            out,
            ", {} times the usual {}/s",
            PerSecond(rate / usual),
            PerSecond(usual)
        ),
    }
}

/// What most resets have in common; `None` when there are none.
fn what(report: &Report, zone: &TimeZone) -> Option<String> {
    let shape = &report.shape;
    if shape.total() == 0 {
        return None;
    }
    let mut out = String::new();
    let _ = match &shape.lead {
        Some(lead) => stands_out(&mut out, lead, shape, zone),
        None => nothing_stands_out(&mut out, shape),
    };
    if let Some(seen) = seen(report) {
        let _ = write!(out, "; told by the {} seen in detail", Percent(seen));
    }
    Some(out)
}

/// The part of the storm's resets that were seen in detail, when it is small.
fn seen(report: &Report) -> Option<f64> {
    let storm = report.storm.filter(|_| report.phase == Phase::End)?;
    let seen = share(report.shape.total(), storm.counted.total());
    (seen < SEEN).then_some(seen)
}

fn stands_out(
    out: &mut String,
    lead: &Lead,
    shape: &Shape,
    zone: &TimeZone,
) -> Result<(), fmt::Error> {
    write!(out, "{}", Percent(lead.share))?;
    let other = match lead.direction {
        Direction::Sent => shape.received,
        Direction::Received => shape.sent,
    };
    if share(other, shape.total()) >= MENTIONED {
        write!(out, " of those {}", lead.direction.name())?;
    }
    write!(out, " {}", lead.cause.name())?;
    match lead.port {
        Some(port) if port.local => write!(out, " on :{}", port.number)?,
        Some(port) => write!(out, " at port {} of the other end", port.number)?,
        None if lead.is_scan() => {
            write!(out, ", a scan of {}", Number(lead.ports, "port", "ports"))?;
        }
        None => write!(out, " on {}", Number(lead.ports, "port", "ports"))?,
    }
    if let Some(gone) = &lead.gone {
        write_gone(out, gone, zone)?;
    }
    if let Some((owner, share)) = &lead.owner {
        if *share >= 0.995 {
            write!(out, ", of {owner}")?;
        } else {
            write!(out, ", {} of {owner}", Percent(*share))?;
        }
    }
    let preposition = if is_drawn(lead) { "from" } else { "to" };
    let addresses = Number(lead.addresses, "address", "addresses");
    match lead.sources {
        Sources::One(addr, part) if part >= 0.995 => write!(out, ", {preposition} {addr}"),
        Sources::One(addr, part) => write!(
            out,
            ", {} {preposition} {addr}, the rest {preposition} {} more",
            Percent(part),
            Number(
                Distinct {
                    count: lead.addresses.count.saturating_sub(1),
                    ..lead.addresses
                },
                "address",
                "addresses"
            )
        ),
        Sources::Network(net, part) if lead.addresses.count > MANY => {
            write!(
                out,
                ", {preposition} {addresses}, {} in {net}",
                Percent(part)
            )
        }
        _ => write!(out, ", {preposition} {addresses}"),
    }
}

/// So many addresses are told by their network.
const MANY: usize = 8;

/// Whether the other end drew or sent the resets, so that they are "from" it.
const fn is_drawn(lead: &Lead) -> bool {
    matches!(lead.direction, Direction::Received)
        || matches!(
            lead.cause,
            CauseId::ClosedPort
                | CauseId::ListenerGone
                | CauseId::LateSegment
                | CauseId::HalfOpen
                | CauseId::LateSynAck
                | CauseId::Backscatter
                | CauseId::AcceptQueueOverflow
                | CauseId::DataAfterClose
                | CauseId::ConnectionTimedOut
                | CauseId::BadSegment
        )
}

fn write_gone(out: &mut String, gone: &Gone, zone: &TimeZone) -> Result<(), fmt::Error> {
    write!(out, ", whose listener {}[{}] ", gone.comm, gone.pid)?;
    if let Some((pid, comm)) = gone.closer {
        write!(out, "ended when {comm}[{pid}] ")?;
    }
    write!(out, "{} at {}", gone.end, Time(gone.at_ns, zone))
}

fn nothing_stands_out(out: &mut String, shape: &Shape) -> Result<(), fmt::Error> {
    out.push_str("no cause stands out: ");
    for (i, (entry, direction, share)) in foremost_causes(shape).iter().enumerate() {
        let before = if i == 0 { "" } else { ", " };
        let direction = direction.name();
        write!(
            out,
            "{before}{} {direction} {}",
            Percent(*share),
            entry.name
        )?;
    }
    Ok(())
}

/// The rankings of a shape, a line a kind, each with a name: for a table.
pub fn rankings(shape: &Shape) -> Vec<(&'static str, String)> {
    let total = shape.total();
    if total == 0 {
        return Vec::new();
    }
    vec![
        (
            "causes",
            line(&shape.causes, total, |(direction, cause)| {
                format!("{} {}", direction.name(), cause.name())
            }),
        ),
        (
            "owners",
            line(&shape.owners, total, |owner| {
                if owner.is_known() {
                    owner.to_string()
                } else {
                    "no owner known".to_owned()
                }
            }),
        ),
        ("ports", line(&shape.ports, total, ToString::to_string)),
        ("addresses", line(&shape.addrs, total, ToString::to_string)),
        ("networks", line(&shape.nets, total, ToString::to_string)),
    ]
}

fn line<K>(ranking: &Ranking<K>, total: u64, name: impl Fn(&K) -> String) -> String {
    let mut out = String::new();
    for (i, Row { key, count }) in ranking.rows.iter().enumerate() {
        let before = if i == 0 { "" } else { ", " };
        let _ = write!(
            out,
            "{before}{} {}",
            name(key),
            Percent(share(*count, total))
        );
    }
    let rest = ranking.distinct - ranking.rows.len();
    if rest > 0 {
        let than = if ranking.is_exact() { "" } else { "more than " };
        let _ = write!(out, ", and {than}{rest} more");
    }
    if !ranking.is_exact() {
        let error = share(ranking.error, total);
        let _ = write!(out, " (each up to {} more)", Percent(error));
    }
    out
}

/// The time of day of nanoseconds since the Unix epoch.
pub(crate) struct Time<'a>(pub(crate) u64, pub(crate) &'a TimeZone);

impl fmt::Display for Time<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A u64 of nanoseconds ends in 2554, which is well before the last `Timestamp`.
        let time = i64::try_from(self.0 / NS_PER_S)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok())
            .unwrap_or(Timestamp::MAX);
        let time = time.to_zoned(self.1.clone()).time();
        write!(
            f,
            "{:02}:{:02}:{:02}",
            time.hour(),
            time.minute(),
            time.second()
        )
    }
}

/// A duration in nanoseconds: `52 s`, `6 min 52 s`, `3 h 10 min`.
pub(crate) struct Lasted(pub(crate) u64);

impl fmt::Display for Lasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.0 + NS_PER_S / 2) / NS_PER_S;
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
        }
    }
}

/// A number of different things, the least there are when there may be more.
struct Number(Distinct, &'static str, &'static str);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Distinct { count, exact }, one, many) = self;
        let than = if *exact { "" } else { "more than " };
        let what = if *count == 1 && *exact { one } else { many };
        write!(f, "{than}{} {what}", Grouped(*count as u64))
    }
}

/// A whole number with commas: `16,900,000`.
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        f.pad_integral(true, "", &out)
    }
}

/// A rate to three digits: `0.3`, `12`, `412`, `41,000`.
pub(crate) struct PerSecond(pub(crate) f64);

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.0.max(0.0);
        if rate < 9.95 {
            let text = format!("{rate:.1}");
            return f.pad_integral(true, "", text.strip_suffix(".0").unwrap_or(&text));
        }
        // Positive and far below 2^64: rates are counts over time.
        #[expect(clippy::cast_sign_loss, reason = "it was just made positive")]
        let mut whole = rate.round() as u64;
        let mut unit = 1;
        while whole / unit >= 1_000 {
            unit *= 10;
        }
        whole = (whole + unit / 2) / unit * unit;
        Grouped(whole).fmt(f)
    }
}

/// A part from 0 to 1 as `99.8 %`, rounded down, so that only all is 100 %.
pub(crate) struct Percent(pub(crate) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.clamp(0.0, 1.0) * 1_000.0 + 1e-6).floor();
        if tenths >= 1_000.0 {
            f.write_str("100 %")
        } else {
            write!(f, "{:.1} %", tenths / 10.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_the_digits_that_matter() {
        let rates = [
            (0.0, "0"),
            (0.31, "0.3"),
            (2.0, "2"),
            (9.96, "10"),
            (412.4, "412"),
            (999.7, "1,000"),
            (41_049.0, "41,000"),
            (1_236_000.0, "1,240,000"),
        ];
        for (rate, text) in rates {
            assert_eq!(PerSecond(rate).to_string(), text);
        }
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (16_900_000, "16,900,000"),
        ] {
            assert_eq!(Grouped(count).to_string(), text);
        }
        let parts = [
            (0.0, "0.0 %"),
            (0.998, "99.8 %"),
            (0.9999, "99.9 %"),
            (1.0, "100 %"),
        ];
        for (part, text) in parts {
            assert_eq!(Percent(part).to_string(), text);
        }
        let times = [
            (400_000_000, "0 s"),
            (52_000_000_000, "52 s"),
            (412_000_000_000, "6 min 52 s"),
            (11_400_000_000_000, "3 h 10 min"),
        ];
        for (ns, text) in times {
            assert_eq!(Lasted(ns).to_string(), text);
        }
    }
}
