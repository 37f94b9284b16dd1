//! What was expected against what was seen, both as the JSON objects of the event contract.
//!
//! An expectation is part of an event: it must be found in one, and every event must be expected.

use serde_json::Value;

/// The fields by which an event is known to be the expected one, whatever else differs. A part that
/// is left open there, such as a port that nobody knows beforehand, fits any.
const IDENTITY: [&str; 3] = ["direction", "local", "remote"];

/// What is wrong with `seen`, in sentences; nothing when each of `expected` is there once and
/// nothing else is.
pub fn compare(expected: &[Value], seen: &[Value]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut left: Vec<&Value> = seen.iter().collect();
    for wanted in expected {
        let found = left.iter().position(|event| {
            IDENTITY
                .iter()
                .all(|key| is_part(&wanted[key], &event[key]))
        });
        let Some(at) = found else {
            complaints.push(format!("never shown: {wanted}"));
            continue;
        };
        let event = left.swap_remove(at);
        let mut differences = Vec::new();
        collect_differences("", wanted, event, &mut differences);
        if !differences.is_empty() {
            complaints.push(format!("{} in {event}", differences.join("; ")));
        }
    }
    complaints.extend(
        left.iter()
            .map(|event| format!("shown, but not expected: {event}")),
    );
    complaints
}

/// Whether `seen` has all of `wanted`.
fn is_part(wanted: &Value, seen: &Value) -> bool {
    let mut differences = Vec::new();
    collect_differences("", wanted, seen, &mut differences);
    differences.is_empty()
}

/// Adds where `seen` lacks what `wanted` has. What only `seen` has is passed over.
fn collect_differences(path: &str, wanted: &Value, seen: &Value, to: &mut Vec<String>) {
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
                    None => to.push(format!("{path} is missing")),
                }
            }
        }
        _ if wanted != seen => to.push(format!("{path} is {seen}, not {wanted}")),
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
    fn too_few_and_too_many_events_are_named() {
        let complaints = compare(&[wanted(1, "a")], &[event(2, "a")]);
        assert!(complaints[0].starts_with("never shown: "));
        assert!(complaints[1].starts_with("shown, but not expected: "));
        let twice = [event(1, "a"), event(1, "a")];
        assert_eq!(compare(&[wanted(1, "a")], &twice).len(), 1);
    }
}
