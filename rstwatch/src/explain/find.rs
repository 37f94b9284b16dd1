//! From a word, an error number or a line of a log to what is known of it.

use std::cmp::Reverse;

use crate::cause::catalogue::{
    Entry, firewall::Word, myth::Myth, reason::Note, symptom::Description,
};

/// Something that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A cause.
    Cause(&'static Entry),
    /// What a program sees.
    Symptom(&'static Description),
    /// A reason of the kernel.
    Reason(&'static Note),
    /// What is believed to be a cause.
    Myth(&'static Myth),
    /// A word of a firewall.
    Word(&'static Word),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// At least one topic, the best first.
    Topics(Vec<Topic>),
    /// None; names that are close to what was asked for.
    Nothing(Vec<&'static str>),
}

/// The most topics that a text finds, and the most names that come close.
const MOST_TOPICS: usize = 6;
const MOST_NAMES: usize = 3;

/// The kernel's prefix of reasons.
const REASON_PREFIX: &str = "sk_rst_reason_";

/// The shortest text of the catalogue that is looked for within a query, such as a line of a log.
const SHORTEST_QUOTE: usize = 8;

/// What `query` means: a name, a number or an error's message first, then any text.
pub fn find(query: &str) -> Found {
    let query = normal(query);
    let named: Vec<_> = super::all()
        .filter(|topic| topic.is_named(&query))
        .collect();
    if !named.is_empty() {
        return Found::Topics(named);
    }
    let words: Vec<_> = words(&query).collect();
    let mut scored: Vec<_> = super::all()
        .map(|topic| (topic.score(&query, &words), topic))
        .filter(|(score, _)| *score > 0)
        .collect();
    if scored.is_empty() {
        return Found::Nothing(nearest(&query));
    }
    // Stable: of equal ones the first in the catalogue's order.
    scored.sort_by_key(|(score, _)| Reverse(*score));
    scored.truncate(MOST_TOPICS);
    Found::Topics(scored.into_iter().map(|(_, topic)| topic).collect())
}

/// The names that are closest to `query`.
fn nearest(query: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = super::all()
        .map(|topic| {
            let name = topic.name();
            let closeness = strsim::normalized_damerau_levenshtein(query, &normal(name));
            (closeness, name)
        })
        .collect();
    names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    names.dedup_by_key(|(_, name)| *name);
    names.truncate(MOST_NAMES);
    names.into_iter().map(|(_, name)| name).collect()
}

/// In lower case, with single spaces.
fn normal(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.push_str(&word.to_lowercase());
    }
    normal
}

/// The words of a normal text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// How much a text of the catalogue counts.
#[derive(Clone, Copy)]
enum Weight {
    /// Prose.
    Body = 1,
    /// What a program prints, or the kernel calls it.
    Quote = 2,
    /// A title.
    Title = 3,
}

impl Topic {
    /// Whether `query` is its name, or another that it goes by.
    fn is_named(self, query: &str) -> bool {
        let name = normal(self.name());
        match self {
            Self::Cause(_) | Self::Myth(_) => name == query,
            Self::Symptom(Description {
                number, message, ..
            }) => {
                name == query
                    || normal(message) == query
                    || number.is_some_and(|number| number.to_string() == query)
            }
            Self::Reason(_) => {
                let query = query.strip_prefix(REASON_PREFIX).unwrap_or(query);
                name == query || (name.ends_with('_') && query.starts_with(&name))
            }
            Self::Word(_) => name == query.strip_prefix("tcp ").unwrap_or(query),
        }
    }

    /// How well `query`, which consists of `words`, fits; 0: not at all.
    fn score(self, query: &str, words: &[&str]) -> usize {
        let mut best = 0;
        self.each_text(&mut |weight, text| {
            best = best.max(score(query, words, weight, &normal(text)));
        });
        best
    }

    fn each_text(self, visit: &mut dyn FnMut(Weight, &str)) {
        use Weight::{Body, Quote, Title};
        visit(Title, self.name());
        match self {
            Self::Cause(entry) => {
                visit(Title, entry.title);
                visit(Quote, entry.function);
                for name in entry.counters.iter().chain(entry.reasons) {
                    visit(Quote, name);
                }
                for text in [entry.happened, entry.here.text, entry.there.text] {
                    visit(Body, text);
                }
                visit(Body, entry.advice);
                for check in entry.checks {
                    visit(Body, check.say);
                    visit(Body, check.command);
                }
            }
            Self::Symptom(description) => {
                visit(Title, description.message);
                visit(Body, description.means);
                for line in description.lines {
                    visit(Quote, line.text);
                    visit(Body, line.when);
                }
            }
            Self::Reason(note) => visit(Body, note.means),
            Self::Myth(myth) => {
                visit(Title, myth.title);
                visit(Quote, myth.function);
                for name in myth.counters {
                    visit(Quote, name);
                }
                visit(Body, myth.happens);
            }
            Self::Word(word) => visit(Body, word.means),
        }
    }
}

/// How well a text fits: it holds the query as whole words or within some, or is held by it, or holds all its words; the more of
/// the text the query is, the better.
fn score(query: &str, words: &[&str], weight: Weight, text: &str) -> usize {
    let share = |part: usize, whole: usize| part * 100 / whole.max(1);
    let quoted = matches!(weight, Weight::Quote | Weight::Title) && text.len() >= SHORTEST_QUOTE;
    let fit = if has_phrase(text, query) {
        2_000 + share(query.len(), text.len())
    } else if text.contains(query) {
        1_000 + share(query.len(), text.len())
    } else if quoted && query.contains(text) {
        1_000 + share(text.len(), query.len())
    } else if !words.is_empty() && words.iter().all(|word| has_word(text, word)) {
        100 + share(query.len().min(text.len()), text.len())
    } else {
        return 0;
    };
    fit * weight as usize
}

/// Whether `text` holds `phrase` so that no word is cut.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(phrase).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + phrase.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|other| other == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn first(query: &str) -> &'static str {
        match find(query) {
            Found::Topics(topics) => topics[0].name(),
            Found::Nothing(nearest) => panic!("{query}: nothing, nearest {nearest:?}"),
        }
    }

    #[test]
    fn what_people_search_for_is_found() {
        let cases = [
            ("closed-port", "closed-port"),
            ("CLOSED-PORT", "closed-port"),
            ("unknown", "unknown"),
            ("ECONNREFUSED", "ECONNREFUSED"),
            ("111", "ECONNREFUSED"),
            ("broken pipe", "EPIPE"),
            ("Connection reset", "ECONNRESET"),
            ("java.net.SocketException: Connection reset", "ECONNRESET"),
            ("Error: socket hang up", "EOF"),
            ("unexpected end of stream", "EOF"),
            ("Connection closed by peer", "EOF"),
            ("NO_SOCKET", "NO_SOCKET"),
            ("SK_RST_REASON_MPTCP_RST_EMPTCP", "MPTCP_RST_"),
            ("TCP FINs", "FINs"),
            ("conn-timeout", "Conn-timeout"),
            ("xlate clear", "Xlate Clear"),
            ("TcpExtListenOverflows", "accept-queue-overflow"),
            ("tcp_abort", "socket-destroyed"),
            ("md5", "md5-mismatch"),
            (
                "2026/11/20 21:00:00 [error] 7#7: *3 recv() failed (104: Connection reset by peer) \
                 while reading response header from upstream, client: 10.0.0.9",
                "ECONNRESET",
            ),
            ("ss -K", "socket-destroyed"),
            ("SO_LINGER 0", "linger-abort"),
        ];
        for (query, name) in cases {
            assert_eq!(first(query), name, "{query}");
        }
    }

    #[test]
    fn what_nothing_is_known_of_has_neighbours() {
        let cases = [
            ("linger-abrot", "linger-abort"),
            ("closedport", "closed-port"),
            ("ECONRESET", "ECONNRESET"),
            ("SIN Timeout", "FIN Timeout"),
        ];
        for (query, name) in cases {
            match find(query) {
                Found::Nothing(nearest) => {
                    assert!(nearest.contains(&name), "{query}: {nearest:?}");
                    assert_eq!(nearest.len(), MOST_NAMES);
                }
                Found::Topics(topics) => panic!("{query}: {}", topics[0].name()),
            }
        }
        assert!(matches!(find("qqqq"), Found::Nothing(_)));
    }
}
