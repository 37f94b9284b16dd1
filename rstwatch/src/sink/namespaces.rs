//! What was traced in each network namespace beside the kernel's counters: as text, a sentence each
//! and what else there is to tell; as JSON, every counter.
//!
//! What differs and why is decided in `reconcile`; this is how it reads.

use std::fmt;

use super::{json::Writer, summary::Count};
use crate::{
    event::Escaped,
    mib::Counter,
    reconcile::{Bounds, Comparison, Outcome, Reconciled, Side, Words},
};

/// A network namespace's counters, beside what was traced there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceCount {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Its name under `/run/netns`, when it has one.
    pub name: Option<String>,
    /// Every counter.
    pub counters: Reconciled,
}

impl NamespaceCount {
    /// Whether too much detail is missing to say whether all resets sent from it were seen.
    pub(super) fn is_undecided(&self) -> bool {
        self.counters.get(Counter::OutRsts).outcome() == Outcome::Undecided
    }

    /// Appends the members of its JSON object.
    pub(super) fn append_json(&self, w: &mut Writer) {
        w.raw("\"netns\":");
        w.number(self.netns);
        w.raw(",\"name\":");
        w.foreign(self.name.as_deref());
        w.raw(",");
        append_json(w, &self.counters);
    }
}

/// Appends every counter as members of a JSON object.
pub(super) fn append_json(w: &mut Writer, counters: &Reconciled) {
    let sent = counters.get(Counter::OutRsts);
    w.raw("\"out_rsts\":");
    w.or_null(sent.growth, bounds);
    w.raw(",\"sent_seen\":");
    w.number(sent.traced.low);
    outcome(w, sent);
    w.raw(",\"counters\":[");
    for (i, counter) in Counter::of_parts().enumerate() {
        let comparison = counters.get(counter);
        w.raw(if i > 0 { ",{\"name\":" } else { "{\"name\":" });
        w.name(Some(counter.name()));
        w.raw(",\"growth\":");
        w.or_null(comparison.growth, bounds);
        w.raw(",\"traced\":");
        bounds(w, comparison.traced);
        outcome(w, comparison);
        w.raw("}");
    }
    w.raw("]");
}

fn bounds(w: &mut Writer, Bounds { low, high }: Bounds) {
    w.raw("{\"low\":");
    w.number(low);
    w.raw(",\"high\":");
    w.number(high);
    w.raw("}");
}

/// The members that say what a comparison came to.
fn outcome(w: &mut Writer, comparison: &Comparison) {
    w.raw(",\"difference\":");
    w.or_null(comparison.difference(), Writer::number);
    w.raw(",\"agrees\":");
    w.or_null(comparison.agrees(), |w, agrees| {
        w.raw(if agrees { "true" } else { "false" });
    });
    w.raw(",\"reason\":");
    w.name(comparison.reason());
}

impl fmt::Display for NamespaceCount {
    /// One sentence: whether what was seen agrees with the kernel's counter of sent resets. What
    /// else there is to tell stands on a line below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.netns)?;
        if let Some(name) = &self.name {
            write!(f, " ({})", Escaped(name.as_bytes()))?;
        }
        write!(f, "{}", Sent(&self.counters))?;
        let differing = Counter::of_parts()
            .map(|counter| self.counters.get(counter))
            .filter(|comparison| matches!(comparison.outcome(), Outcome::Differs(..)));
        for (i, comparison) in differing.enumerate() {
            f.write_str(if i > 0 { "; " } else { "\n  also counted: " })?;
            write!(f, "{}", Part(comparison))?;
        }
        Ok(())
    }
}

/// How the resets that were seen sent compare with `TcpOutRsts`: what stands behind the namespace.
pub(super) struct Sent<'a>(pub(super) &'a Reconciled);

impl fmt::Display for Sent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comparison = self.0.get(Counter::OutRsts);
        let seen = comparison.traced.low;
        let Some(growth) = comparison.growth else {
            return write!(
                f,
                ": {} seen sent; the kernel's counter could not be read",
                Count(seen, "reset")
            );
        };
        f.write_str(": the kernel counted ")?;
        match growth.exact() {
            Some(count) => write!(f, "{} sent", Count(count, "reset"))?,
            None => write!(f, "{} resets sent", Range(growth))?,
        }
        match comparison.outcome() {
            Outcome::Agrees | Outcome::Unread => write!(f, ", {seen} seen: they agree"),
            Outcome::Undecided => write!(f, ", {seen} seen in detail"),
            Outcome::Differs(side, count) => {
                write!(f, ", {seen} seen: {count} ")?;
                f.write_str(match side {
                    Side::Untraced => "missed",
                    Side::Uncounted => "more than counted",
                })?;
                why(f, comparison)
            }
        }
    }
}

/// A counter that differs from what was traced.
struct Part<'a>(&'a Comparison);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(comparison) = self;
        let Outcome::Differs(_, count) = comparison.outcome() else {
            return Ok(());
        };
        if let Some(Words::Each(one, several)) = comparison.known().map(|known| known.words) {
            return write!(f, "{count} {}", if count == 1 { one } else { several });
        }
        let growth = Range(comparison.growth.unwrap_or_default());
        let seen = Range(comparison.traced);
        write!(f, "{} {growth}, {seen} seen", comparison.counter.name())?;
        why(f, comparison)
    }
}

/// Why a difference is there, in brackets, when that is known.
fn why(f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
    match comparison.known().map(|known| known.words) {
        Some(Words::Why(why)) => write!(f, " ({why})"),
        Some(Words::Each(..)) | None => Ok(()),
    }
}

/// A number, or from which to which.
struct Range(Bounds);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.exact() {
            Some(number) => write!(f, "{number}"),
            None => write!(f, "{} to {}", self.0.low, self.0.high),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        cause::Abilities,
        fixture::{NEW, OLD},
    };

    /// Counters that did not grow, but `TcpOutRsts` and those that `part` knows: growth, traced.
    pub(crate) fn counters(
        part: impl Fn(Counter) -> Option<(u64, u64)>,
        out_rsts: Option<Bounds>,
        sent: Bounds,
    ) -> Reconciled {
        counters_of(NEW, part, out_rsts, sent)
    }

    fn counters_of(
        abilities: Abilities,
        part: impl Fn(Counter) -> Option<(u64, u64)>,
        out_rsts: Option<Bounds>,
        sent: Bounds,
    ) -> Reconciled {
        Reconciled::new(abilities, |counter| {
            if counter == Counter::OutRsts {
                return (out_rsts, sent);
            }
            let (growth, traced) = part(counter).unwrap_or_default();
            let read = out_rsts.map(|_| Bounds::exactly(growth));
            (read, Bounds::exactly(traced))
        })
    }

    fn named(netns: u32, name: Option<&str>, counters: &Reconciled) -> NamespaceCount {
        NamespaceCount {
            netns,
            name: name.map(str::to_owned),
            counters: *counters,
        }
    }

    /// One of each kind.
    pub(crate) fn some() -> Vec<NamespaceCount> {
        let besides = |counter| match counter {
            Counter::AbortOnClose => Some((2, 2)),
            Counter::AbortOnTimeout => Some((3, 1)),
            Counter::EmbryonicRsts | Counter::AbortFailed => Some((1, 0)),
            Counter::AbortOnLinger => Some((1, 2)),
            _ => None,
        };
        let between = |low, high| Some(Bounds::between(low, high));
        let exactly = Bounds::exactly;
        vec![
            named(
                4_026_531_840,
                None,
                &counters(|_| None, between(1_199, 1_201), exactly(1_200)),
            ),
            named(
                4_026_532_000,
                Some("we\x1b[b\""),
                &counters(besides, between(5, 5), exactly(3)),
            ),
            named(4_026_532_001, None, &counters(|_| None, None, exactly(0))),
            named(
                4_026_532_002,
                None,
                &counters(|_| None, between(7, 7), Bounds::between(2, 12)),
            ),
        ]
    }

    #[test]
    fn namespaces_say_whether_the_counts_agree() {
        let cases = [
            (
                Some((5, 5)),
                (5, 5),
                Some(0),
                "the kernel counted 5 resets sent, 5 seen: they agree",
            ),
            (
                Some((4, 6)),
                (6, 6),
                Some(0),
                "the kernel counted 4 to 6 resets sent, 6 seen: they agree",
            ),
            (
                Some((1, 1)),
                (0, 0),
                Some(-1),
                "the kernel counted 1 reset sent, 0 seen: 1 missed",
            ),
            (
                Some((4, 6)),
                (9, 9),
                Some(3),
                "the kernel counted 4 to 6 resets sent, 9 seen: 3 more than counted (an answer over \
                 IPv6 without a route back is seen and not counted)",
            ),
            (
                None,
                (1, 1),
                None,
                "1 reset seen sent; the kernel's counter could not be read",
            ),
            // Of those without detail any may be the one that is missing.
            (
                Some((9, 9)),
                (2, 12),
                None,
                "the kernel counted 9 resets sent, 2 seen in detail",
            ),
            (
                Some((9, 9)),
                (2, 6),
                Some(-3),
                "the kernel counted 9 resets sent, 2 seen: 3 missed",
            ),
        ];
        for (growth, (low, high), difference, sentence) in cases {
            let growth = growth.map(|(low, high)| Bounds::between(low, high));
            let counters = counters(|_| None, growth, Bounds::between(low, high));
            assert_eq!(counters.get(Counter::OutRsts).difference(), difference);
            assert_eq!(
                named(1, None, &counters).to_string(),
                format!("network namespace 1: {sentence}")
            );
        }
    }

    #[test]
    fn what_else_was_counted_stands_below() {
        use Counter as C;
        type Case = (Abilities, &'static [(C, (u64, u64))], &'static str);
        let cases: &[Case] = &[
            (
                NEW,
                &[(C::AbortOnClose, (4, 4)), (C::AbortOnData, (2, 2))],
                "",
            ),
            (
                NEW,
                &[(C::AbortOnTimeout, (3, 2))],
                "1 timeout without a RST",
            ),
            (
                NEW,
                &[(C::EmbryonicRsts, (40, 1)), (C::AbortOnTimeout, (7, 0))],
                "7 timeouts without a RST; 39 unfinished handshakes reset by the peer, seen by no hook",
            ),
            (
                NEW,
                &[(C::AbortFailed, (1, 0))],
                "1 RST that could not be sent (no route, a firewall or no memory)",
            ),
            (
                NEW,
                &[(C::AbortOnClose, (5, 4))],
                "TcpExtTCPAbortOnClose 5, 4 seen",
            ),
            (
                OLD,
                &[(C::AbortOnClose, (5, 4)), (C::AbortOnData, (1, 2))],
                "TcpExtTCPAbortOnData 1, 2 seen (this kernel names no reason, so causes are \
                 inferred); TcpExtTCPAbortOnClose 5, 4 seen (this kernel names no reason, so \
                 causes are inferred)",
            ),
        ];
        for (abilities, parts, expected) in cases {
            let part = |counter| {
                let part = parts.iter().find(|(part, _)| *part == counter);
                part.map(|(_, numbers)| *numbers)
            };
            let out_rsts = Some(Bounds::exactly(0));
            let counters = counters_of(*abilities, part, out_rsts, Bounds::exactly(0));
            let told = named(1, None, &counters).to_string();
            let (first, rest) = told.split_once('\n').unwrap_or((&told, ""));
            assert_eq!(
                first,
                "network namespace 1: the kernel counted 0 resets sent, 0 seen: they agree"
            );
            let rest = rest.strip_prefix("  also counted: ").unwrap_or(rest);
            assert_eq!(rest, *expected);
        }
    }

    #[test]
    fn old_kernels_may_miss_what_has_no_socket() {
        let missed = Some(Bounds::exactly(9));
        let counters = counters_of(OLD, |_| None, missed, Bounds::exactly(2));
        assert_eq!(
            named(1, None, &counters).to_string(),
            "network namespace 1: the kernel counted 9 resets sent, 2 seen: 7 missed (resets without \
             a socket pass no hook here)"
        );
    }
}
