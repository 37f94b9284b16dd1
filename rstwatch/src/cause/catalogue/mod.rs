//! What each cause means, written once: the `advice` of an event, the command line's list of
//! causes, `rstwatch explain` and `docs/CAUSES.md` draw from here.
//!
//! Beside the causes stand what programs see of them ([`symptom`]), what is believed to be a cause
//! and is none ([`myth`]), the words of firewalls ([`firewall`]) and the kernel's reasons
//! ([`reason`]).
//!
//! What decides for a cause stands in [`super::rules`]. To add one: a variant of [`CauseId`], its
//! entry in one of the files beside this, its place in [`ENTRIES`], its rule there.

mod aborts;
mod answers;
pub mod firewall;
pub mod myth;
pub mod reason;
mod received;
pub mod symptom;

use self::symptom::Line;
pub use self::symptom::Symptom;
use super::{CauseId, Confidence};
use crate::event::Direction;

/// All that is said of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The cause.
    pub id: CauseId,
    /// Its name, which scripts rely on.
    pub name: &'static str,
    /// The direction or directions in which it is seen.
    pub directions: &'static [Direction],
    /// The cause in a few words: completes "the reset was sent (or received) because".
    pub title: &'static str,
    /// What happened, for someone who knows sockets but not the kernel.
    pub happened: &'static str,
    /// What the process on this host sees.
    pub here: Sees,
    /// What the process at the other end sees.
    pub there: Sees,
    /// What the logs of common proxies say, when the connection is theirs.
    pub logs: &'static [Line],
    /// What to look at, in this order.
    pub checks: &'static [Check],
    /// What to look at next, in one or two sentences: `advice` in JSON.
    pub advice: &'static str,
    /// The kernel's functions that send or take the RST.
    pub function: &'static str,
    /// The kernel's reasons for it, without `SK_RST_REASON_`; one that ends in `_` stands for all
    /// that begin so.
    pub reasons: &'static [&'static str],
    /// What counts it, as `nstat` names it.
    pub counters: &'static [&'static str],
    /// How sure a verdict can be, from which kernel on.
    pub certainty: &'static [Certainty],
    /// What is easily taken for it, what it may follow from, and what the other end sees.
    pub related: &'static [CauseId],
}

/// A thing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The question, or what to do.
    pub say: &'static str,
    /// A command, or where else to look; words in capitals are to be replaced.
    pub command: &'static str,
}

/// How sure a verdict can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certainty {
    /// How sure.
    pub confidence: Confidence,
    /// The first kernel that it takes.
    pub since: &'static str,
    /// The evidence that it takes.
    pub needs: &'static str,
}

const fn check(say: &'static str, command: &'static str) -> Check {
    Check { say, command }
}

const fn certain(confidence: Confidence, since: &'static str, needs: &'static str) -> Certainty {
    Certainty {
        confidence,
        since,
        needs,
    }
}

/// What a process sees of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sees {
    /// How its calls may end, the usual one first.
    pub symptoms: &'static [Symptom],
    /// When and how.
    pub text: &'static str,
}

const fn sees(symptoms: &'static [Symptom], text: &'static str) -> Sees {
    Sees { symptoms, text }
}

const SENT: &[Direction] = &[Direction::Sent];
const RECEIVED: &[Direction] = &[Direction::Received];
const EITHER: &[Direction] = &[Direction::Sent, Direction::Received];

/// Every cause, in the order of [`CauseId`]. None of the texts needs escaping in JSON.
pub const ENTRIES: [Entry; CauseId::Unknown as usize + 1] = [
    answers::CLOSED_PORT,
    answers::LISTENER_GONE,
    answers::LATE_SEGMENT,
    answers::HALF_OPEN,
    answers::LATE_SYN_ACK,
    answers::BACKSCATTER,
    answers::ACCEPT_QUEUE_OVERFLOW,
    aborts::CLOSED_WITH_UNREAD_DATA,
    aborts::LINGER_ABORT,
    aborts::LISTENER_CLOSED,
    aborts::PROCESS_DIED,
    answers::DATA_AFTER_CLOSE,
    answers::CONNECTION_TIMED_OUT,
    aborts::KEEPALIVE_TIMEOUT,
    aborts::FIN_WAIT2_TIMEOUT,
    aborts::ORPHAN_LIMIT,
    aborts::DISCONNECT,
    aborts::SOCKET_DESTROYED,
    answers::BAD_SEGMENT,
    aborts::MPTCP,
    answers::FIREWALL_REJECT,
    received::REFUSED,
    received::IDLE_DROP,
    received::PEER_ABORTED,
    received::PEER_GONE,
    received::RESET_DURING_CLOSE,
    received::HANDSHAKE_RESET,
    received::FORGED_RESET,
    received::UNKNOWN,
];

// An entry at the wrong place would give a cause another one's name.
const _: () = {
    let mut i = 0;
    while i < ENTRIES.len() {
        assert!(
            ENTRIES[i].id as usize == i,
            "entries stand in the order of CauseId"
        );
        i += 1;
    }
};

/// What is said of `id`.
pub const fn entry(id: CauseId) -> &'static Entry {
    const TABLE: &[Entry] = &ENTRIES;
    &TABLE[id as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;

    #[test]
    fn names_are_unique_and_fit_scripts() {
        for (i, entry) in ENTRIES.iter().enumerate() {
            assert!(
                entry
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{}",
                entry.name
            );
            assert!(ENTRIES[..i].iter().all(|other| other.name != entry.name));
        }
    }

    fn is_printable(text: &str) -> bool {
        !text.is_empty() && !text.contains("  ") && text.bytes().all(|b| (b' '..=b'~').contains(&b))
    }

    #[track_caller]
    fn is_sentence(text: &str) {
        assert!(is_printable(text), "{text}");
        assert!(text.ends_with(['.', '`', '?']), "{text}");
    }

    /// A command must fit a line of 80 columns where it is shown.
    #[track_caller]
    fn is_command(text: &str) {
        assert!(is_printable(text), "{text}");
        assert!(text.len() <= 72, "{text}: {}", text.len());
    }

    #[test]
    fn every_entry_has_every_field() {
        for entry in &ENTRIES {
            let name = entry.name;
            assert!(!entry.directions.is_empty(), "{name}");
            assert!(is_printable(entry.title), "{name}");
            assert!(entry.title.len() <= 70, "{name}: title");
            for text in [
                entry.happened,
                entry.here.text,
                entry.there.text,
                entry.advice,
            ] {
                is_sentence(text);
            }
            assert!(!entry.logs.is_empty(), "{name}");
            assert!(
                entry.checks.len() >= 2 || entry.id == CauseId::SocketDestroyed,
                "{name}"
            );
            for check in entry.checks {
                is_sentence(check.say);
                is_command(check.command);
            }
            assert!(is_printable(entry.function), "{name}");
            // Nothing counts what netfilter sends, nor what comes after this host's FIN; and a
            // received RST has no reason.
            let is_firewall = entry.id == CauseId::FirewallReject;
            let is_uncounted = is_firewall || entry.id == CauseId::ResetDuringClose;
            assert_eq!(entry.counters.is_empty(), is_uncounted, "{name}");
            let is_sent = entry.directions.contains(&Direction::Sent);
            assert_eq!(entry.reasons.is_empty(), !is_sent || is_firewall, "{name}");
            assert!(!entry.certainty.is_empty(), "{name}");
            for certainty in entry.certainty {
                assert!(
                    is_printable(certainty.since) && is_printable(certainty.needs),
                    "{name}"
                );
            }
            assert!(!entry.related.is_empty(), "{name}");
            assert!(!entry.related.contains(&entry.id), "{name}");
        }
    }

    #[test]
    fn advice_is_short_and_needs_no_escaping_in_json() {
        for entry in &ENTRIES {
            assert!(entry.advice.len() <= 400, "{}", entry.name);
            assert!(!entry.advice.contains(['"', '\\']), "{}", entry.name);
        }
    }

    #[test]
    fn reasons_have_notes_and_the_kernels_names() {
        let noted = |name: &str| reason::REASONS.iter().any(|note| note.name == name);
        for entry in &ENTRIES {
            for name in entry.reasons {
                assert!(noted(name), "{}: {name}", entry.name);
            }
        }
        for note in &reason::REASONS {
            is_sentence(note.means);
            let known = Reason::from_name(note.name).is_some() || note.name.ends_with('_');
            assert!(known, "{}", note.name);
            assert!(
                ENTRIES
                    .iter()
                    .any(|entry| entry.reasons.contains(&note.name)),
                "{}",
                note.name
            );
        }
    }

    #[test]
    fn what_stands_beside_the_causes_has_every_field() {
        for description in &symptom::SYMPTOMS {
            assert_eq!(description.symptom.description(), description);
            is_sentence(description.means);
            for runtime in ["Java", "OkHttp", "Go", "Python", "Node.js", ".NET"] {
                assert!(
                    description.lines.iter().any(|line| line.program == runtime),
                    "{}: {runtime}",
                    description.name
                );
            }
            for proxy in ["nginx", "HAProxy"] {
                assert!(
                    description.lines.iter().any(|line| line.program == proxy),
                    "{}: {proxy}",
                    description.name
                );
            }
            for line in description.lines {
                assert!(is_printable(line.text) && is_printable(line.when));
            }
        }
        for myth in &myth::MYTHS {
            is_sentence(myth.happens);
            is_sentence(myth.check);
            assert!(!myth.counters.is_empty() && !myth.related.is_empty());
            assert!(CauseId::from_name(myth.name).is_none(), "{}", myth.name);
        }
        for word in &firewall::WORDS {
            is_sentence(word.means);
            assert!(!word.related.is_empty());
        }
    }
}
