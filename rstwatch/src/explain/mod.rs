//! `rstwatch explain`: the catalogue, for a person.
//!
//! - [`find`]: from what somebody types, an error text or a word of a log among it, to topics.
//! - [`page`]: a topic as text for a terminal.
//! - [`markdown`]: all of it as `docs/CAUSES.md`.
//!
//! Functions of values: what the terminal is like is given, and the text is returned.

pub mod find;
pub mod markdown;
pub mod page;

use self::find::{Found, Topic};
pub use self::page::Look;
use crate::cause::catalogue::{
    ENTRIES, Entry,
    firewall::Word,
    myth::Myth,
    reason::Note,
    symptom::{Description, Symptom},
};

/// The widest page, and the narrowest.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=100;

/// The width of a page on a terminal with so many columns, or on none.
pub fn width(columns: Option<u16>) -> usize {
    columns.map_or(80, |columns| {
        usize::from(columns).clamp(*WIDTHS.start(), *WIDTHS.end())
    })
}

/// The answer to `query`; without one, the list of all topics.
///
/// # Errors
///
/// The sentence that says that nothing was found, and what comes next to it.
pub fn explain(query: &str, look: Look) -> Result<String, String> {
    if query.trim().is_empty() {
        return Ok(page::list(look));
    }
    match find::find(query) {
        Found::Topics(topics) => Ok(page::topics(&topics, look)),
        Found::Nothing(nearest) => Err(format!(
            "nothing is known of '{}'; the nearest: {}",
            crate::event::Escaped(query.as_bytes()),
            nearest.join(", ")
        )),
    }
}

/// The causes that the kernel gives reason `note` for.
fn causes_of_reason(note: &Note) -> impl Iterator<Item = &'static Entry> {
    let name = note.name;
    ENTRIES
        .iter()
        .filter(move |entry| entry.reasons.contains(&name))
}

/// The causes that look like `symptom` to the process on this host, and to that at the other end.
fn causes_of_symptom(symptom: Symptom) -> [Vec<&'static Entry>; 2] {
    let side = |at: fn(&'static Entry) -> &'static [Symptom]| {
        ENTRIES
            .iter()
            .filter(move |entry| at(entry).contains(&symptom))
            .collect()
    };
    [
        side(|entry| entry.here.symptoms),
        side(|entry| entry.there.symptoms),
    ]
}

/// Every topic: the causes, then what stands beside them.
fn all() -> impl Iterator<Item = Topic> {
    use crate::cause::catalogue::{
        firewall::WORDS, myth::MYTHS, reason::REASONS, symptom::SYMPTOMS,
    };
    let causes = ENTRIES.iter().map(Topic::Cause);
    let symptoms = SYMPTOMS.iter().map(Topic::Symptom);
    let reasons = REASONS.iter().map(Topic::Reason);
    let myths = MYTHS.iter().map(Topic::Myth);
    let words = WORDS.iter().map(Topic::Word);
    causes
        .chain(symptoms)
        .chain(reasons)
        .chain(myths)
        .chain(words)
}

impl Topic {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cause(Entry { name, .. })
            | Self::Symptom(Description { name, .. })
            | Self::Reason(Note { name, .. })
            | Self::Myth(Myth { name, .. })
            | Self::Word(Word { word: name, .. }) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        colour: false,
        width: 80,
    };

    fn page(query: &str) -> String {
        explain(query, PLAIN).expect("a page")
    }

    #[test]
    fn a_list_without_a_word() {
        insta::assert_snapshot!(page(""));
    }

    #[test]
    fn a_cause() {
        insta::assert_snapshot!(page("linger-abort"));
    }

    #[test]
    fn a_reason() {
        insta::assert_snapshot!(page("TCP_ABORT_ON_CLOSE"));
        assert_eq!(
            page("SK_RST_REASON_TCP_ABORT_ON_CLOSE"),
            page("tcp_abort_on_close")
        );
    }

    #[test]
    fn an_error_number() {
        insta::assert_snapshot!(page("ECONNRESET"));
        assert_eq!(page("ECONNRESET"), page("104"));
        assert_eq!(page("ECONNRESET"), page("connection reset by peer"));
    }

    #[test]
    fn an_error_text() {
        insta::assert_snapshot!(page("Connection closed by peer"));
    }

    #[test]
    fn a_word_of_a_firewall() {
        insta::assert_snapshot!(page("FIN Timeout"));
        assert_eq!(page("TCP Reset-I"), page("reset-i"));
    }

    #[test]
    fn a_belief() {
        insta::assert_snapshot!(page("syn-backlog-full"));
    }

    #[test]
    fn an_unknown_word() {
        insta::assert_snapshot!(explain("linger-abrot", PLAIN).expect_err("nothing"));
        let hostile = explain("\u{1b}[2J", PLAIN).expect_err("nothing");
        assert!(!hostile.contains('\u{1b}'));
    }

    #[test]
    fn every_topic_is_found_by_its_name_and_fits_its_width() {
        for topic in all() {
            for width in [40, 80, 100] {
                let look = Look {
                    colour: false,
                    width,
                };
                let text = explain(topic.name(), look).expect("a page");
                assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
                for line in text.lines() {
                    assert!(line.trim_end() == line, "{}: {line:?}", topic.name());
                    // A command, or a name, is not broken.
                    let whole = width == 40;
                    assert!(whole || line.len() <= width, "{}: {line}", topic.name());
                }
            }
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let look = Look {
            colour: true,
            ..PLAIN
        };
        for topic in all() {
            let text = explain(topic.name(), look).expect("a page");
            assert!(text.contains("\u{1b}["), "{}", topic.name());
            let mut plain = String::new();
            let mut rest = text.as_str();
            while let Some(start) = rest.find('\u{1b}') {
                plain.push_str(&rest[..start]);
                let end = rest[start..].find('m').expect("an end");
                rest = &rest[start + end + 1..];
            }
            plain.push_str(rest);
            assert_eq!(plain, page(topic.name()));
        }
    }

    #[test]
    fn widths_are_bounded() {
        let cases = [(None, 80), (Some(0), 40), (Some(93), 93), (Some(400), 100)];
        for (columns, expected) in cases {
            assert_eq!(width(columns), expected);
        }
    }
}
