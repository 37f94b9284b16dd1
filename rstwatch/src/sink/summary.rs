//! What a run, or an interval of it, saw: counts and what was lost. As text for people, and as one JSON
//! object a line.
//!
//! The counting is done elsewhere; this is how it reads.

use std::{cmp::Reverse, fmt, time::Duration};

use bytes::BytesMut;

use super::{
    json::{Clock, Writer},
    namespaces::{self, NamespaceCount, Sent},
};
use crate::{
    cause::CauseId,
    event::{Direction, Reason, TcpState},
    mib::Counter,
    reconcile::Reconciled,
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
    /// Network namespaces in which resets were sent, or in which the kernel counted anything.
    pub namespaces: Vec<NamespaceCount>,
    /// All of them together, with what the kernel side counted without detail.
    pub everywhere: Reconciled,
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
            w.raw(if i > 0 { ",{" } else { "{" });
            namespace.append_json(&mut w);
            w.raw("}");
        }
        w.raw("],\"all_namespaces\":{");
        namespaces::append_json(&mut w, &self.everywhere);
        w.raw("}}}\n");
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
        // What one namespace leaves open all of them may decide.
        let decided = self.everywhere.get(Counter::OutRsts).agrees().is_some();
        if decided && self.namespaces.iter().any(NamespaceCount::is_undecided) {
            writeln!(f, "all network namespaces{}", Sent(&self.everywhere))?;
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

/// A number of things: `1 reset`, `2 resets`.
pub(super) struct Count(pub(super) u64, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, reconcile::Bounds};

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
            namespaces: namespaces::tests::some(),
            everywhere: namespaces::tests::counters(
                |_| None,
                Some(Bounds::between(1_204, 1_206)),
                Bounds::exactly(1_203),
            ),
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
    fn all_namespaces_are_told_when_they_decide_what_one_leaves_open() {
        let with = |growth| Summary {
            namespaces: namespaces::tests::some(),
            everywhere: namespaces::tests::counters(|_| None, growth, Bounds::exactly(9)),
            ..Summary::default()
        };
        let all = "all network namespaces: the kernel counted 9 resets sent, 9 seen: they agree\n";
        assert!(text(&with(Some(Bounds::exactly(9)))).ends_with(all));
        assert!(!text(&with(None)).contains("all network namespaces"));
        let mut decided = with(Some(Bounds::exactly(9)));
        decided.namespaces.retain(|one| !one.is_undecided());
        assert!(!text(&decided).contains("all network namespaces"));
    }

    #[test]
    fn an_empty_summary() {
        insta::assert_snapshot!(text(&Summary::default()) + &json(&Summary::default()));
    }
}
