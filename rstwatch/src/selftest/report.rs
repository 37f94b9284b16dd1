//! How the result looks: a table for people, a line of JSON a cause for scripts.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    inbox::Counts,
    judge::{Judgement, Owners, Row},
};
use crate::cause::Confidence;

/// What is said of the run as a whole.
#[derive(Debug)]
pub(super) struct Whole {
    /// The kernel's release.
    pub(super) kernel: String,
    /// IP versions that were played over.
    pub(super) families: Vec<&'static str>,
    /// From start to end.
    pub(super) took: Duration,
    /// What the tracer and the kernel counted.
    pub(super) counts: Counts,
}

/// Notes of a row that are printed; the others are counted.
const MOST_NOTES: usize = 4;

/// Whether all that could be made is right, and nothing was lost.
pub(super) fn is_right(rows: &[Row], whole: &Whole) -> bool {
    whole.counts.lost == 0 && rows.iter().all(|row| row.judgement != Judgement::Wrong)
}

/// The result as a table and a line that sums it up.
pub(super) fn text(rows: &[Row], whole: &Whole) -> String {
    let mut out = format!(
        "Linux {}, {}: each kind of reset, made on purpose\n\n",
        whole.kernel,
        whole.families.join(" and ")
    );
    let heading = ["CAUSE", "SEEN", "CONFIDENCE", "OWNER", "TIME", "VERDICT"].map(str::to_owned);
    line(&mut out, &heading);
    for row in rows {
        let dash = || "-".to_owned();
        let made = row.expected > 0;
        let of = |value: String| if made { value } else { dash() };
        line(
            &mut out,
            &[
                row.cause.name().to_owned(),
                of(format!("{} of {}", row.seen, row.expected)),
                row.confidence.map_or_else(dash, |c| c.name().to_owned()),
                of(owners(row.owners)),
                of(format!("{:.2} s", row.took.as_secs_f64())),
                verdict(row.judgement).to_owned(),
            ],
        );
        for note in row.notes.iter().take(MOST_NOTES) {
            let _ = writeln!(out, "    {note}");
        }
        let more = row.notes.len().saturating_sub(MOST_NOTES);
        if more > 0 {
            let _ = writeln!(out, "    and {more} more");
        }
    }
    let count = |judgement| rows.iter().filter(|row| row.judgement == judgement).count();
    let Counts {
        seen,
        counted,
        lost,
    } = whole.counts;
    let _ = write!(
        out,
        "\n{}: {} right, {} right but less sure, {} cannot be made, {} wrong; {:.1} s\n",
        match rows.len() {
            1 => "1 cause".to_owned(),
            many => format!("{many} causes"),
        },
        count(Judgement::Right),
        count(Judgement::LessSure),
        count(Judgement::Cannot),
        count(Judgement::Wrong),
        whole.took.as_secs_f64(),
    );
    let counted = match counted {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low} to {high}"),
    };
    let _ = writeln!(
        out,
        "the kernel counted {counted} resets sent, {seen} were seen; {lost} details lost"
    );
    out
}

/// The result as JSON: an object a cause, then one for the whole.
pub(super) fn json(rows: &[Row], whole: &Whole) -> String {
    let mut out = String::new();
    for row in rows {
        let object = json!({
            "cause": row.cause.name(),
            "expected": row.expected,
            "seen": row.seen,
            "confidence": row.confidence.map(Confidence::name),
            "owner": {
                "right": row.owners.right,
                "none": row.owners.none,
                "wrong": row.owners.wrong,
            },
            "time_s": seconds(row.took),
            "verdict": row.judgement.name(),
            "notes": row.notes,
            "kernel": whole.kernel,
        });
        let _ = writeln!(out, "{object}");
    }
    let count = |judgement| rows.iter().filter(|row| row.judgement == judgement).count();
    let Counts {
        seen,
        counted: (low, high),
        lost,
    } = whole.counts;
    let object = json!({"verdict": {
        "right": is_right(rows, whole),
        "causes": {
            "right": count(Judgement::Right),
            "right-less-sure": count(Judgement::LessSure),
            "cannot": count(Judgement::Cannot),
            "wrong": count(Judgement::Wrong),
        },
        "families": whole.families,
        "kernel": whole.kernel,
        "time_s": seconds(whole.took),
        "sent_seen": seen,
        "out_rsts": {"low": low, "high": high},
        "lost_detail": lost,
    }});
    let _ = writeln!(out, "{object}");
    out
}

/// Seconds to the millisecond.
fn seconds(time: Duration) -> Value {
    ((time.as_secs_f64() * 1e3).round() / 1e3).into()
}

fn verdict(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Cannot => "cannot be made",
        Judgement::Right => "right",
        Judgement::LessSure => "right, less sure",
        Judgement::Wrong => "WRONG",
    }
}

fn owners(owners: Owners) -> String {
    let word = match owners {
        Owners { wrong: 1.., .. } => "WRONG",
        Owners {
            right: 1..,
            none: 1..,
            ..
        } => "right, none",
        Owners { right: 1.., .. } => "right",
        _ => "none",
    };
    word.to_owned()
}

/// A row; the last cell is never padded.
fn line(out: &mut String, [cause, seen, confidence, owner, time, verdict]: &[String; 6]) {
    let _ = writeln!(
        out,
        "{cause:<24} {seen:<9} {confidence:<11} {owner:<12} {time:<7} {verdict}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::CauseId;

    fn row(cause: CauseId, judgement: Judgement, notes: usize) -> Row {
        let made = judgement != Judgement::Cannot;
        Row {
            cause,
            expected: if made { 8 } else { 0 },
            seen: if made { 8 } else { 0 },
            confidence: made.then_some(Confidence::Likely),
            owners: Owners {
                right: usize::from(made),
                none: usize::from(made),
                wrong: usize::from(judgement == Judgement::Wrong),
            },
            took: Duration::from_millis(1_234),
            judgement,
            notes: (0..notes)
                .map(|n| format!("scenario (ipv4): note {n}"))
                .collect(),
        }
    }

    fn all() -> Vec<Row> {
        vec![
            row(CauseId::ClosedPort, Judgement::Right, 0),
            row(CauseId::AcceptQueueOverflow, Judgement::LessSure, 1),
            row(CauseId::Mptcp, Judgement::Wrong, 6),
            row(CauseId::ForgedReset, Judgement::Cannot, 1),
        ]
    }

    fn whole(lost: u64) -> Whole {
        Whole {
            kernel: "6.18.0".to_owned(),
            families: vec!["ipv4", "ipv6"],
            took: Duration::from_millis(8_150),
            counts: Counts {
                seen: 90,
                counted: (90, 91),
                lost,
            },
        }
    }

    #[test]
    fn a_table_for_people() {
        insta::assert_snapshot!(text(&all(), &whole(0)));
    }

    #[test]
    fn a_line_a_cause_for_scripts() {
        insta::assert_snapshot!(json(&all(), &whole(0)));
    }

    #[test]
    fn what_is_wrong_or_lost_is_not_right() {
        let rows = all();
        assert!(!is_right(&rows, &whole(0)));
        let but_wrong = |judgement: Judgement| judgement != Judgement::Wrong;
        let rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| but_wrong(row.judgement))
            .collect();
        assert!(is_right(&rows, &whole(0)));
        assert!(!is_right(&rows, &whole(1)));
    }
}
