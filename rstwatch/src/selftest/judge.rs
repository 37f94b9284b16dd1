//! From what was expected and seen in each scenario to a row for each cause. No I/O.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cause::{CauseId, Confidence, catalogue},
    scenario::{Family, Scenario, verdict},
};

/// Why no scenario makes a cause.
const CANNOT: [(CauseId, &str); 3] = [
    (
        CauseId::FirewallReject,
        "netfilter's own resets pass no tracepoint and no counter: they show on the wire only",
    ),
    (
        CauseId::ForgedReset,
        "the kernel keeps no TTL and sequence number of a RST that it took: they show on the wire only",
    ),
    (
        CauseId::Unknown,
        "it is what is left when no rule speaks: a reset that could be made on purpose would have one",
    ),
];

/// Why a limit of the host is not touched.
const NOT_ASKED: &str =
    "net.ipv4.tcp_max_orphans is one for the whole host: --host-limits lowers it for a moment";

/// Why an event is not shown.
const NO_HOOK: &str = "this kernel does not report resets without a full socket";

/// What was played.
#[derive(Debug)]
pub(super) struct Run {
    /// The causes asked for; none for all.
    pub(super) only: Vec<CauseId>,
    /// Whether limits of the host might be touched.
    pub(super) host_limits: bool,
    /// Every scenario, over each IP version.
    pub(super) played: Vec<Played>,
}

/// A scenario that was played.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) scenario: &'static Scenario,
    pub(super) family: Family,
    pub(super) outcome: Outcome,
    /// How long it took, until its events were shown.
    pub(super) took: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It went as it should.
    Played {
        /// In the order of the scenario's expectations.
        wanted: Vec<Wanted>,
        /// The events, as the tracer wrote them.
        seen: Vec<Value>,
    },
    /// The kernel has no means for it, for this reason.
    Cannot(String),
    /// A step failed.
    Failed(String),
}

/// An expected event.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The part of it that must be found.
    pub(super) event: Value,
    /// Whether the kernel tells of such resets at all.
    pub(super) shows: bool,
}

/// Whether a cause is told as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Judgement {
    /// It cannot be made, or not be seen.
    Cannot,
    /// It is.
    Right,
    /// It is, but for less confidence than on a kernel that names its reasons.
    LessSure,
    /// It is not.
    Wrong,
}

impl Judgement {
    /// The name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cannot => "cannot",
            Self::Right => "right",
            Self::LessSure => "right-less-sure",
            Self::Wrong => "wrong",
        }
    }
}

/// Whether owners are named as they must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners {
    /// Named, and rightly so.
    pub(super) right: usize,
    /// None is named where there is none.
    pub(super) none: usize,
    /// Missing, another one, or one where there is none.
    pub(super) wrong: usize,
}

/// All that is to be said of a cause.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cause: CauseId,
    /// Resets of this cause that were made, and that the kernel tells of.
    pub(super) expected: usize,
    /// How many of them were shown with it.
    pub(super) seen: usize,
    /// The least confidence with which.
    pub(super) confidence: Option<Confidence>,
    pub(super) owners: Owners,
    /// The longest scenario's.
    pub(super) took: Duration,
    pub(super) judgement: Judgement,
    /// What was wrong, less sure, or why it cannot be made.
    pub(super) notes: Vec<String>,
}

/// A row for each cause, in the order of the catalogue.
pub(super) fn rows(run: &Run) -> Vec<Row> {
    let mut rows: Vec<Row> = catalogue::ENTRIES
        .iter()
        .map(|entry| Row::new(entry.id))
        .collect();
    for played in &run.played {
        judge(played, &mut rows);
    }
    rows.retain(|row| run.only.is_empty() || run.only.contains(&row.cause));
    for row in &mut rows {
        if row.judgement == Judgement::Cannot && row.notes.is_empty() {
            row.notes.push(row.why_not_made(run.host_limits).to_owned());
        }
    }
    rows
}

impl Row {
    fn new(cause: CauseId) -> Self {
        Self {
            cause,
            expected: 0,
            seen: 0,
            confidence: None,
            owners: Owners::default(),
            took: Duration::ZERO,
            judgement: Judgement::Cannot,
            notes: Vec::new(),
        }
    }

    fn why_not_made(&self, host_limits: bool) -> &'static str {
        let known = CANNOT.iter().find(|(cause, _)| *cause == self.cause);
        match known {
            Some((_, why)) => why,
            None if !host_limits => NOT_ASKED,
            None => "no scenario makes it",
        }
    }

    fn say(&mut self, judgement: Judgement, place: &str, text: &str) {
        self.judgement = self.judgement.max(judgement);
        self.notes.push(format!("{place}: {text}"));
    }
}

fn judge(played: &Played, rows: &mut [Row]) {
    let place = format!("{} ({})", played.scenario.name, played.family);
    match &played.outcome {
        Outcome::Played { wanted, seen } => {
            let mut left: Vec<&Value> = seen.iter().collect();
            for (wanted, expected) in wanted.iter().zip(played.scenario.expected) {
                if let Some(row) = row_of(rows, expected.cause, played) {
                    judge_event(row, &place, wanted, &mut left);
                }
            }
            let first = played.scenario.expected.first();
            if let Some(row) = first.and_then(|expected| row_of(rows, expected.cause, played)) {
                for event in left {
                    let text = format!("shown, but not made: {}", in_short(event));
                    row.say(Judgement::Wrong, &place, &text);
                }
            }
        }
        Outcome::Cannot(why) | Outcome::Failed(why) => {
            let judgement = match played.outcome {
                Outcome::Cannot(_) => Judgement::Cannot,
                _ => Judgement::Wrong,
            };
            for expected in played.scenario.expected {
                if let Some(row) = row_of(rows, expected.cause, played) {
                    row.say(judgement, &place, why);
                }
            }
        }
    }
}

/// The row of a cause that `played` makes.
fn row_of<'a>(rows: &'a mut [Row], cause: &str, played: &Played) -> Option<&'a mut Row> {
    let id = CauseId::from_name(cause)?;
    let row = rows.iter_mut().find(|row| row.cause == id)?;
    row.took = row.took.max(played.took);
    Some(row)
}

fn judge_event(row: &mut Row, place: &str, wanted: &Wanted, left: &mut Vec<&Value>) {
    let found = verdict::take(&wanted.event, left);
    let Some(event) = found else {
        if wanted.shows {
            row.expected += 1;
            let text = format!("never shown: {}", in_short(&wanted.event));
            row.say(Judgement::Wrong, place, &text);
        } else {
            row.say(Judgement::Cannot, place, NO_HOOK);
        }
        return;
    };
    row.expected += 1;
    let mut wrong = Vec::new();
    let mut owner_is_wrong = false;
    for difference in verdict::differences(&wanted.event, event) {
        owner_is_wrong |= difference.path.starts_with("owner");
        if difference.path != CONFIDENCE {
            wrong.push(difference.text);
        }
    }
    if event["cause"]["id"] == wanted.event["cause"]["id"] {
        row.seen += 1;
    }
    let owners = &mut row.owners;
    match (owner_is_wrong, wanted.event["owner"].is_null()) {
        (true, _) => owners.wrong += 1,
        (false, true) => owners.none += 1,
        (false, false) => owners.right += 1,
    }
    let (sure, least) = (confidence(event), confidence(&wanted.event));
    row.confidence = match row.confidence {
        Some(other) => sure.map(|sure| sure.min(other)),
        None => sure,
    };
    if sure > least {
        wrong.push("surer than the evidence allows".to_owned());
    }
    if !wrong.is_empty() {
        row.say(Judgement::Wrong, place, &wrong.join("; "));
    } else if sure < least {
        let name = sure.map_or("not judged", Confidence::name);
        let text = format!("no more than {name}: {}", in_short(event));
        row.say(Judgement::LessSure, place, &text);
    } else {
        row.judgement = row.judgement.max(Judgement::Right);
    }
}

/// The path of an event's confidence.
const CONFIDENCE: &str = "cause.confidence";

fn confidence(event: &Value) -> Option<Confidence> {
    let name = event["cause"]["confidence"].as_str()?;
    [
        Confidence::Certain,
        Confidence::Likely,
        Confidence::Possible,
    ]
    .into_iter()
    .find(|confidence| confidence.name() == name)
}

/// An event in a few words.
fn in_short(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let end = |end: &Value| format!("{} port {}", text(&end["addr"]), end["port"]);
    format!(
        "{} by {}, peer {}, {}",
        text(&event["direction"]),
        end(&event["local"]),
        end(&event["remote"]),
        text(&event["cause"]["id"]),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::catalogue::find;

    fn events() -> Vec<Value> {
        vec![
            json!({
                "direction": "sent",
                "local": {"addr": "::1", "port": 9},
                "remote": {"addr": "::1", "port": 40000},
                "owner": null,
                "cause": {"id": "closed-port", "confidence": "certain", "evidence": []},
            }),
            json!({
                "direction": "received",
                "local": {"addr": "::1", "port": 40000},
                "remote": {"addr": "::1", "port": 9},
                "owner": {"pid": 5},
                "cause": {"id": "refused", "confidence": "certain", "evidence": []},
            }),
        ]
    }

    fn run(seen: Vec<Value>, shows: bool) -> Vec<Row> {
        let wanted = events();
        let wanted = wanted
            .into_iter()
            .enumerate()
            .map(|(number, event)| Wanted {
                event,
                shows: shows || number > 0,
            });
        outcome(Outcome::Played {
            wanted: wanted.collect(),
            seen,
        })
    }

    fn outcome(outcome: Outcome) -> Vec<Row> {
        rows(&Run {
            only: vec![CauseId::ClosedPort, CauseId::Refused],
            host_limits: false,
            played: vec![Played {
                scenario: find("closed-port").unwrap(),
                family: Family::Ipv6,
                outcome,
                took: Duration::from_millis(7),
            }],
        })
    }

    #[test]
    fn what_is_seen_as_it_must_be_is_right() {
        let rows = run(events(), true);
        assert_eq!(rows.len(), 2);
        for row in &rows {
            assert_eq!(row.judgement, Judgement::Right, "{row:?}");
            assert_eq!((row.expected, row.seen), (1, 1));
            assert_eq!(row.confidence, Some(Confidence::Certain));
            assert_eq!(row.took, Duration::from_millis(7));
            assert_eq!(row.notes, Vec::<String>::new());
        }
        assert_eq!((rows[0].owners.none, rows[1].owners.right), (1, 1));
    }

    #[test]
    fn another_cause_owner_or_event_is_wrong() {
        let mut cause = events();
        cause[0]["cause"]["id"] = "half-open".into();
        let rows = run(cause, true);
        assert_eq!(rows[0].judgement, Judgement::Wrong);
        assert_eq!((rows[0].expected, rows[0].seen), (1, 0));
        assert!(rows[0].notes[0].contains("cause.id is \"half-open\""));
        assert_eq!(rows[1].judgement, Judgement::Right);

        let mut owner = events();
        owner[0]["owner"] = json!({"pid": 6});
        owner[1]["owner"] = Value::Null;
        for row in run(owner, true) {
            assert_eq!(row.judgement, Judgement::Wrong);
            assert_eq!(row.owners.wrong, 1, "{row:?}");
        }

        let mut more = events();
        more.push(events()[0].clone());
        let rows = run(more, true);
        assert_eq!(rows[0].judgement, Judgement::Wrong);
        assert!(rows[0].notes[0].contains("shown, but not made"));
    }

    #[test]
    fn less_confidence_is_named_and_more_is_wrong() {
        let mut less = events();
        less[1]["cause"]["confidence"] = "likely".into();
        let rows = run(less.clone(), true);
        assert_eq!(rows[1].judgement, Judgement::LessSure);
        assert_eq!(rows[1].confidence, Some(Confidence::Likely));

        let wanted = less.into_iter().map(|event| Wanted { event, shows: true });
        let rows = outcome(Outcome::Played {
            wanted: wanted.collect(),
            seen: events(),
        });
        assert_eq!(rows[1].judgement, Judgement::Wrong);
    }

    #[test]
    fn a_missing_event_is_wrong_unless_the_kernel_has_no_hook_for_it() {
        let missing = || vec![events().remove(1)];
        assert_eq!(run(missing(), true)[0].judgement, Judgement::Wrong);
        let rows = run(missing(), false);
        assert_eq!(rows[0].judgement, Judgement::Cannot);
        assert!(rows[0].notes[0].ends_with(NO_HOOK));
        assert_eq!(rows[1].judgement, Judgement::Right);
        // Shown all the same, it is judged.
        assert_eq!(run(events(), false)[0].judgement, Judgement::Right);
    }

    #[test]
    fn what_was_not_made_is_never_right() {
        for row in outcome(Outcome::Failed("broken".to_owned())) {
            assert_eq!(row.judgement, Judgement::Wrong);
            assert_eq!(row.notes, ["closed-port (ipv6): broken"]);
        }
        for row in outcome(Outcome::Cannot("no means".to_owned())) {
            assert_eq!(row.judgement, Judgement::Cannot);
        }
        let nothing = rows(&Run {
            only: Vec::new(),
            host_limits: false,
            played: Vec::new(),
        });
        assert_eq!(nothing.len(), catalogue::ENTRIES.len());
        for row in nothing {
            assert_eq!(row.judgement, Judgement::Cannot);
            assert_eq!(row.notes.len(), 1);
        }
    }

    #[test]
    fn every_cause_is_made_or_has_a_reason() {
        for entry in &catalogue::ENTRIES {
            let makes = crate::scenario::catalogue::all()
                .flat_map(|scenario| scenario.expected)
                .any(|expected| expected.cause == entry.name);
            let reason = CANNOT.iter().any(|(cause, _)| *cause == entry.id);
            assert_ne!(makes, reason, "{}", entry.name);
        }
    }
}
