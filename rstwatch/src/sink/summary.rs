//! What a run, or an interval of it, saw: counts, what was lost, and how the resets that were seen
//! compare with the kernel's own counter. As text for people, and as one JSON object a line.
//!
//! The counting is done elsewhere; this is how it reads.

use std::{cmp::Reverse, fmt, time::Duration};

use bytes::BytesMut;

use super::json::{Clock, Writer};
use crate::{
    cause::CauseId,
    event::{Direction, Escaped, Reason, TcpState},
};

/// [`Lost::name`] of resets for whose record the ring buffer had no room.
pub const RING_FULL: &str = "ring_full";

/// Kinds that a person is shown.
const MOST_KINDS: usize = 12;

/// How many resets had a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseCount {
    /// The cause.
    pub id: CauseId,
    /// Sent or received.
    pub direction: Direction,
    /// How many.
    pub count: u64,
}

/// Detail that was lost: the resets were counted, and could not be shown, or not fully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its key in JSON: lower case and underscores.
    pub name: &'static str,
    /// What a person reads, after the number: "resets not shown, the ring buffer was full".
    pub text: &'static str,
    /// How many.
    pub count: u64,
}

/// Resets of one kind, as the kernel side counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Sent or received.
    pub direction: Direction,
    /// The kernel's reason, where it gives one.
    pub reason: Option<Reason>,
    /// Whether this host sent them of its own accord.
    pub own_accord: bool,
    /// The socket's state when the hook ran; `None` without a socket.
    pub state: Option<TcpState>,
    /// The local port; of a connect under way the remote one. `None` where the ports of many kinds
    /// were too many to tell apart.
    pub port: Option<u16>,
    /// How many.
    pub count: u64,
}

/// The resets sent from one network namespace, beside the kernel's counter `TcpOutRsts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceCount {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Its name under `/run/netns`, when it has one.
    pub name: Option<String>,
    /// By how much the counter grew: the least and the most that it can have been, since it cannot
    /// be read at the very moment in which the hooks begin and end. `None`: it could not be read.
    pub out_rsts_growth: Option<(u64, u64)>,
    /// Resets that were seen sent there.
    pub sent: u64,
}

impl NamespaceCount {
    /// How many more resets were seen than the kernel counted, negative for fewer, 0 within what
    /// the counter leaves open; `None` when it could not be read.
    pub fn difference(&self) -> Option<i64> {
        let (low, high) = self.out_rsts_growth?;
        let nearest = self.sent.clamp(low.min(high), high.max(low));
        let distance = |more: u64, less: u64| i64::try_from(more - less).unwrap_or(i64::MAX);
        Some(if self.sent >= nearest {
            distance(self.sent, nearest)
        } else {
            -distance(nearest, self.sent)
        })
    }
}

/// What a run, or an interval of it, saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// When it ended: nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How long it took.
    pub duration: Duration,
    /// Resets sent, counted in the kernel.
    pub sent: u64,
    /// Resets received, counted in the kernel.
    pub received: u64,
    /// Resets by cause, in any order.
    pub causes: Vec<CauseCount>,
    /// Events that were shown.
    pub shown: u64,
    /// Events that the filter held back.
    pub filtered: u64,
    /// Those of them that it held back in the kernel already: they are in no cause's count.
    pub filtered_in_kernel: u64,
    /// All resets by kind, in any order.
    pub kinds: Vec<Kind>,
    /// Events that were not shown because too many came in a second (`--max-rate`).
    pub limited: u64,
    /// Detail that was lost, by what; kinds with a count of 0 are not printed as text.
    pub lost: Vec<Lost>,
    /// Network namespaces in which resets were sent.
    pub namespaces: Vec<NamespaceCount>,
}

impl Summary {
    /// Appends it as text for people, of several lines.
    pub fn append_text(&self, out: &mut BytesMut) {
        // Appending to a buffer in memory does not fail.
        let _ = fmt::Write::write_fmt(out, format_args!("{self}"));
    }

    /// Appends it as one JSON object and a newline: `{"summary":{...}}`.
    pub fn append_json(&self, out: &mut BytesMut) {
        let mut w = Writer::default();
        w.raw("{\"summary\":{\"time\":\"");
        Clock::default().append(&mut w, self.time_ns);
        w.raw("\",\"duration_s\":");
        w.seconds(Some(
            u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX),
        ));
        w.raw(",\"sent\":");
        w.number(self.sent);
        w.raw(",\"received\":");
        w.number(self.received);
        w.raw(",\"causes\":[");
        for (i, cause) in self.by_count().into_iter().enumerate() {
            w.raw(if i > 0 { ",{\"id\":" } else { "{\"id\":" });
            w.name(Some(cause.id.name()));
            w.raw(",\"direction\":");
            w.name(Some(cause.direction.name()));
            w.raw(",\"count\":");
            w.number(cause.count);
            w.raw("}");
        }
        w.raw("],\"shown\":");
        w.number(self.shown);
        w.raw(",\"filtered\":");
        w.number(self.filtered);
        w.raw(",\"limited\":");
        w.number(self.limited);
        w.raw(",\"filtered_in_kernel\":");
        w.number(self.filtered_in_kernel);
        w.raw(",\"tally\":[");
        for (i, kind) in self.kinds_by_count().into_iter().enumerate() {
            w.raw(if i > 0 { ",{" } else { "{" });
            kind.append_json(&mut w);
            w.raw("}");
        }
        w.raw("],\"lost_detail\":{\"total\":");
        w.number(self.lost_total());
        for lost in &self.lost {
            w.raw(",\"");
            w.raw(lost.name);
            w.raw("\":");
            w.number(lost.count);
        }
        w.raw("},\"namespaces\":[");
        for (i, namespace) in self.namespaces.iter().enumerate() {
            w.raw(if i > 0 { ",{\"netns\":" } else { "{\"netns\":" });
            w.number(namespace.netns);
            w.raw(",\"name\":");
            w.foreign(namespace.name.as_deref());
            w.raw(",\"out_rsts\":");
            w.or_null(namespace.out_rsts_growth, |w, (low, high)| {
                w.raw("{\"low\":");
                w.number(low);
                w.raw(",\"high\":");
                w.number(high);
                w.raw("}");
            });
            w.raw(",\"sent_seen\":");
            w.number(namespace.sent);
            w.raw(",\"difference\":");
            w.or_null(namespace.difference(), Writer::number);
            w.raw("}");
        }
        w.raw("]}}\n");
        out.extend_from_slice(w.bytes());
    }

    /// The causes, the most frequent first.
    fn by_count(&self) -> Vec<CauseCount> {
        let mut causes = self.causes.clone();
        causes.sort_by_key(|cause| (Reverse(cause.count), cause.id, cause.direction.name()));
        causes
    }

    /// The kinds, the most frequent first.
    fn kinds_by_count(&self) -> Vec<Kind> {
        let mut kinds = self.kinds.clone();
        kinds.sort_by_key(|kind| {
            (
                Reverse(kind.count),
                kind.direction.name(),
                kind.reason.map(Reason::name),
                kind.port,
                kind.state,
            )
        });
        kinds
    }

    /// Whether there are resets of which nothing more is known than the kernel's count.
    fn has_undetailed(&self) -> bool {
        self.filtered_in_kernel > 0
            || self
                .lost
                .iter()
                .any(|lost| lost.name == RING_FULL && lost.count > 0)
    }

    fn lost_total(&self) -> u64 {
        self.lost
            .iter()
            .fold(0, |sum, lost| sum.saturating_add(lost.count))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.sent.saturating_add(self.received);
        writeln!(
            f,
            "{} in {:.1} s: {} sent, {} received",
            Count(total, "reset"),
            self.duration.as_secs_f64(),
            self.sent,
            self.received
        )?;
        for cause in self.by_count() {
            writeln!(
                f,
                "  {:>10}  {:8}  {}",
                cause.count,
                cause.direction.name(),
                cause.id.name()
            )?;
        }
        write!(f, "{} shown, {} filtered out", self.shown, self.filtered)?;
        if self.limited > 0 {
            write!(f, ", {} held back by --max-rate", self.limited)?;
        }
        writeln!(f)?;
        if self.has_undetailed() {
            writeln!(f, "all of them, as the kernel counted them:")?;
            let kinds = self.kinds_by_count();
            for kind in kinds.iter().take(MOST_KINDS) {
                writeln!(f, "  {:>10}  {kind}", kind.count)?;
            }
            if let Some(rest) = kinds.get(MOST_KINDS..).filter(|rest| !rest.is_empty()) {
                let count = rest
                    .iter()
                    .fold(0, |sum: u64, kind| sum.saturating_add(kind.count));
                writeln!(f, "  {count:>10}  of {} other kinds", rest.len())?;
            }
        }
        if self.lost_total() == 0 {
            writeln!(f, "no detail was lost")?;
        }
        for lost in self.lost.iter().filter(|lost| lost.count > 0) {
            writeln!(f, "lost: {} {}", lost.count, lost.text)?;
        }
        for namespace in &self.namespaces {
            writeln!(f, "{namespace}")?;
        }
        Ok(())
    }
}

impl Kind {
    /// Appends the members of its JSON object.
    fn append_json(self, w: &mut Writer) {
        w.raw("\"direction\":");
        w.name(Some(self.direction.name()));
        w.raw(",\"reason\":");
        w.name(self.reason.map(Reason::name));
        w.raw(",\"own_accord\":");
        w.raw(if self.own_accord { "true" } else { "false" });
        w.raw(",\"state\":");
        w.name(self.state.map(TcpState::name));
        w.raw(",\"port\":");
        w.or_null(self.port, |w, port| w.number(u64::from(port)));
        w.raw(",\"count\":");
        w.number(self.count);
    }
}

impl fmt::Display for Kind {
    /// Direction, the kernel's reason or what stands for it, port and state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match (self.direction, self.reason) {
            (_, Some(reason)) => reason.name(),
            (Direction::Received, None) => "from the peer",
            (Direction::Sent, None) if self.own_accord => "of its own accord",
            (Direction::Sent, None) => "in answer to a segment",
        };
        write!(f, "{:8}  {reason}", self.direction.name())?;
        match self.port {
            Some(port) => write!(f, ", port {port}")?,
            None => f.write_str(", other ports")?,
        }
        match self.state {
            Some(state) => write!(f, ", {}", state.name()),
            None => f.write_str(", no socket"),
        }
    }
}

impl fmt::Display for NamespaceCount {
    /// One sentence: whether what was seen agrees with the kernel's counter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.netns)?;
        if let Some(name) = &self.name {
            write!(f, " ({})", Escaped(name.as_bytes()))?;
        }
        let Self { sent, .. } = self;
        let (Some((low, high)), Some(difference)) = (self.out_rsts_growth, self.difference())
        else {
            return write!(
                f,
                ": {} seen sent; the kernel's counter could not be read",
                Count(*sent, "reset")
            );
        };
        f.write_str(": the kernel counted ")?;
        if low == high {
            write!(f, "{} sent", Count(low, "reset"))?;
        } else {
            write!(f, "{low} to {high} resets sent")?;
        }
        match difference {
            0 => write!(f, ", {sent} seen: they agree"),
            1.. => write!(f, ", {sent} seen: {difference} more than counted"),
            _ => write!(f, ", {sent} seen: {} missed", difference.unsigned_abs()),
        }
    }
}

/// A number of things: `1 reset`, `2 resets`.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn namespace(netns: u32, growth: Option<(u64, u64)>, sent: u64) -> NamespaceCount {
        NamespaceCount {
            netns,
            name: None,
            out_rsts_growth: growth,
            sent,
        }
    }

    fn full() -> Summary {
        Summary {
            time_ns: fixture::TIME_NS,
            duration: Duration::from_millis(60_250),
            sent: 1_203,
            received: 7,
            causes: vec![
                CauseCount {
                    id: CauseId::Refused,
                    direction: Direction::Received,
                    count: 7,
                },
                CauseCount {
                    id: CauseId::ClosedPort,
                    direction: Direction::Sent,
                    count: 1_200,
                },
                CauseCount {
                    id: CauseId::Unknown,
                    direction: Direction::Sent,
                    count: 3,
                },
            ],
            shown: 1_150,
            filtered: 50,
            filtered_in_kernel: 20,
            kinds: vec![
                Kind {
                    direction: Direction::Received,
                    reason: None,
                    own_accord: false,
                    state: Some(TcpState::SynSent),
                    port: Some(8080),
                    count: 7,
                },
                Kind {
                    direction: Direction::Sent,
                    reason: Some(Reason::NoSocket),
                    own_accord: false,
                    state: None,
                    port: Some(8080),
                    count: 1_202,
                },
                Kind {
                    direction: Direction::Sent,
                    reason: None,
                    own_accord: true,
                    state: Some(TcpState::Close),
                    port: None,
                    count: 1,
                },
            ],
            limited: 3,
            lost: vec![
                Lost {
                    name: "ring_full",
                    text: "resets not shown, the ring buffer was full",
                    count: 10,
                },
                Lost {
                    name: "read_failed",
                    text: "reads of kernel memory failed",
                    count: 0,
                },
            ],
            namespaces: vec![
                namespace(4_026_531_840, Some((1_199, 1_201)), 1_200),
                NamespaceCount {
                    name: Some("we\x1b[b\"".to_owned()),
                    ..namespace(4_026_532_000, Some((5, 5)), 3)
                },
                namespace(4_026_532_001, None, 0),
            ],
        }
    }

    fn text(summary: &Summary) -> String {
        let mut out = BytesMut::new();
        summary.append_text(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    fn json(summary: &Summary) -> String {
        let mut out = BytesMut::new();
        summary.append_json(&mut out);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_full_summary_as_text() {
        insta::assert_snapshot!(text(&full()));
    }

    #[test]
    fn a_full_summary_as_json() {
        let line = json(&full());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["summary"]["lost_detail"]["total"], 10);
        insta::assert_snapshot!(line);
    }

    #[test]
    fn an_empty_summary() {
        insta::assert_snapshot!(text(&Summary::default()) + &json(&Summary::default()));
    }

    #[test]
    fn namespaces_say_whether_the_counts_agree() {
        let cases = [
            (
                namespace(1, Some((5, 5)), 5),
                Some(0),
                "network namespace 1: the kernel counted 5 resets sent, 5 seen: they agree",
            ),
            (
                namespace(1, Some((4, 6)), 6),
                Some(0),
                "network namespace 1: the kernel counted 4 to 6 resets sent, 6 seen: they agree",
            ),
            (
                namespace(1, Some((1, 1)), 0),
                Some(-1),
                "network namespace 1: the kernel counted 1 reset sent, 0 seen: 1 missed",
            ),
            (
                namespace(1, Some((4, 6)), 9),
                Some(3),
                "network namespace 1: the kernel counted 4 to 6 resets sent, 9 seen: 3 more than \
                 counted",
            ),
            (
                namespace(1, None, 1),
                None,
                "network namespace 1: 1 reset seen sent; the kernel's counter could not be read",
            ),
        ];
        for (namespace, difference, sentence) in cases {
            assert_eq!(namespace.difference(), difference);
            assert_eq!(namespace.to_string(), sentence);
        }
    }

    #[test]
    fn differences_do_not_overflow() {
        assert_eq!(
            namespace(1, Some((u64::MAX, u64::MAX)), 0).difference(),
            Some(-i64::MAX)
        );
        assert_eq!(
            namespace(1, Some((0, 0)), u64::MAX).difference(),
            Some(i64::MAX)
        );
        // A counter that was read the wrong way round is a range all the same.
        assert_eq!(namespace(1, Some((6, 4)), 5).difference(), Some(0));
    }
}
