//! What was expected against what was seen, both as the JSON objects of the event contract.
//!
//! An expectation is part of an event: it must be found in one, and every event must be expected.
//! Where it has a list of texts, each must be part of one of the event's.

use serde_json::Value;

/// The fields by which an event is known to be the expected one, whatever else differs. A part that
/// is left open there, such as a port that nobody knows beforehand, fits any.
const IDENTITY: [&str; 3] = ["direction", "local", "remote"];

/// Where an event lacks what was expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field, with those that it is in: `owner.pid`.
    pub path: String,
    /// What is there, and what should be.
    pub text: String,
}

/// What is wrong with `seen`, in sentences; nothing when each of `expected` is there once and
/// nothing else is.
pub fn compare(expected: &[Value], seen: &[Value]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut left: Vec<&Value> = seen.iter().collect();
    for wanted in expected {
        let Some(event) = take(wanted, &mut left) else {
            complaints.push(format!("never shown: {wanted}"));
            continue;
        };
        let differences = differences(wanted, event);
        if !differences.is_empty() {
            let texts: Vec<&str> = differences.iter().map(|d| d.text.as_str()).collect();
            complaints.push(format!("{} in {event}", texts.join("; ")));
        }
    }
    complaints.extend(
        left.iter()
            .map(|event| format!("shown, but not expected: {event}")),
    );
    complaints
}

/// Takes the event that is `wanted` out of those that are `left`. Of several resets of one
/// connection it is the one with the right cause, if there is one: they are shown in any order.
pub fn take<'a>(wanted: &Value, left: &mut Vec<&'a Value>) -> Option<&'a Value> {
    let is_it = |event: &&Value| {
        IDENTITY
            .iter()
            .all(|key| differences(&wanted[key], &event[key]).is_empty())
    };
    let at = left
        .iter()
        .position(|event| is_it(event) && wanted["cause"]["id"] == event["cause"]["id"])
        .or_else(|| left.iter().position(is_it))?;
    Some(left.swap_remove(at))
}

/// Where `seen` lacks what `wanted` has. What only `seen` has is passed over.
pub fn differences(wanted: &Value, seen: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    collect_differences("", wanted, seen, &mut differences);
    differences
}

fn collect_differences(path: &str, wanted: &Value, seen: &Value, to: &mut Vec<Difference>) {
    let mut differ = |text: String| {
        to.push(Difference {
            path: path.to_owned(),
            text,
        });
    };
    match (wanted, seen) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, wanted) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match seen.get(key) {
                    Some(seen) => collect_differences(&path, wanted, seen, to),
                    None => to.push(Difference {
                        text: format!("{path} is missing"),
                        path,
                    }),
                }
            }
        }
        (Value::Array(pieces), Value::Array(lines)) => {
            let holds =
                |line: &Value, piece: &str| line.as_str().is_some_and(|l| l.contains(piece));
            for piece in pieces.iter().filter_map(Value::as_str) {
                if !lines.iter().any(|line| holds(line, piece)) {
                    differ(format!("{path} lacks \"{piece}\""));
                }
            }
        }
        _ if wanted != seen => differ(format!("{path} is {seen}, not {wanted}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(port: u16, cause: &str) -> Value {
        json!({
            "direction": "sent",
            "local": {"addr": "::1", "port": port},
            "remote": {"addr": "::1", "port": 9},
            "owner": null,
            "cause": {"id": cause, "confidence": "certain"},
        })
    }

    fn wanted(port: u16, cause: &str) -> Value {
        let mut wanted = event(port, cause);
        wanted["cause"] = json!({"id": cause});
        wanted
    }

    #[test]
    fn an_expectation_is_part_of_an_event_in_any_order() {
        let seen = [event(2, "b"), event(1, "a")];
        assert_eq!(
            compare(&[wanted(1, "a"), wanted(2, "b")], &seen),
            Vec::<String>::new()
        );
    }

    #[test]
    fn two_resets_of_one_connection_are_told_apart_by_their_causes() {
        let seen = [event(1, "b"), event(1, "a")];
        let expected = [wanted(1, "a"), wanted(1, "b")];
        assert_eq!(compare(&expected, &seen), Vec::<String>::new());
        let complaints = compare(&[wanted(1, "c"), wanted(1, "b")], &seen);
        assert_eq!(complaints.len(), 2);
    }

    #[test]
    fn what_is_left_open_fits_any() {
        let mut open = wanted(1, "a");
        open["local"] = json!({"addr": "::1"});
        assert_eq!(compare(&[open], &[event(7, "a")]), Vec::<String>::new());
    }

    #[test]
    fn what_differs_is_named() {
        let mut other = event(1, "b");
        other["owner"] = json!({"pid": 5});
        let complaints = compare(&[wanted(1, "a")], &[other]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("cause.id is \"b\", not \"a\""));
        assert!(complaints[0].contains("owner is {\"pid\":5}, not null"));
    }

    #[test]
    fn a_missing_field_is_no_null() {
        let mut event = event(1, "a");
        event.as_object_mut().unwrap().remove("owner");
        let complaints = compare(&[wanted(1, "a")], &[event]);
        assert!(complaints[0].starts_with("owner is missing"));
    }

    #[test]
    fn each_wanted_piece_must_be_in_a_line_of_the_evidence() {
        let with = |lines: &[&str]| {
            let mut event = event(1, "a");
            event["cause"]["evidence"] = json!(lines);
            event
        };
        let wanted = with(&["met no", "kernel"]);
        let seen = with(&["kernel reason X", "the segment met no socket"]);
        assert_eq!(differences(&wanted, &seen), []);
        let differences = differences(&wanted, &with(&["kernel reason X"]));
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].path, "cause.evidence");
        assert_eq!(differences[0].text, "cause.evidence lacks \"met no\"");
    }

    #[test]
    fn too_few_and_too_many_events_are_named() {
        let complaints = compare(&[wanted(1, "a")], &[event(2, "a")]);
        assert!(complaints[0].starts_with("never shown: "));
        assert!(complaints[1].starts_with("shown, but not expected: "));
        let twice = [event(1, "a"), event(1, "a")];
        assert_eq!(compare(&[wanted(1, "a")], &twice).len(), 1);
    }
}
