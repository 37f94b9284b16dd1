//! What each cause means, written once: the `advice` of an event, the command line's list of
//! causes and whatever explains a cause to a person draw from here.
//!
//! What decides for a cause stands in [`super::rules`]. To add one: a variant of [`CauseId`], its
//! entry here at the same place, its rule there.

use super::CauseId;
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
    /// What the application sees, on either side.
    pub application_sees: &'static str,
    /// What to look at next, with commands.
    pub advice: &'static str,
}

const SENT: &[Direction] = &[Direction::Sent];
const RECEIVED: &[Direction] = &[Direction::Received];
const EITHER: &[Direction] = &[Direction::Sent, Direction::Received];

/// Every cause, in the order of [`CauseId`]. None of the texts needs escaping in JSON.
pub const ENTRIES: [Entry; CauseId::Unknown as usize + 1] = [
    Entry {
        id: CauseId::ClosedPort,
        name: "closed-port",
        directions: SENT,
        title: "a SYN came for a port where nobody listens",
        happened: "A client tried to connect. No socket listens on that address and port in that \
                   network namespace, so the kernel answered the SYN with a RST.",
        application_sees: "Nothing on this host. The client's connect() fails with ECONNREFUSED.",
        advice: "See what listens, and on which address: `ss -ltnp`. A service that listens on \
                 127.0.0.1 or in another network namespace (`lsns -t net`) is closed to this client.",
    },
    Entry {
        id: CauseId::HalfOpen,
        name: "half-open",
        directions: SENT,
        title: "a segment came for a connection that this host does not know",
        happened: "The peer believes in a connection that does not exist here: this host rebooted, \
                   an address moved in a fail-over, a load balancer or NAT sent the flow to another \
                   backend, or connection tracking lost it.",
        application_sees: "Nothing on this host. The peer's next call fails with ECONNRESET.",
        advice: "Ask what changed for this peer: uptime (`uptime -s`), address moves \
                 (`ip addr`), the load balancer's backends. `conntrack -S` shows dropped and \
                 invalid flows where this host filters or translates.",
    },
    Entry {
        id: CauseId::DataAfterClose,
        name: "data-after-close",
        directions: SENT,
        title: "the peer kept sending after the process had closed",
        happened: "The process had closed the connection, or shut down reading, and data came \
                   after that. Nobody can read it any more, so the kernel answered with a RST.",
        application_sees: "Usually nothing here: the socket was closed. The peer's write fails \
                           with ECONNRESET or EPIPE, or its read fails before it saw the last bytes.",
        advice: "See why the process closed first: a timeout, an error, an answer sent before the \
                 whole request was read. It should shutdown(SHUT_WR) and read until the end before \
                 it closes.",
    },
    Entry {
        id: CauseId::ClosedWithUnreadData,
        name: "closed-with-unread-data",
        directions: SENT,
        title: "the process closed with unread bytes in its receive queue",
        happened: "The process closed the connection, or ended, before it had read all that the \
                   peer had sent. The kernel says so with a RST instead of a FIN (RFC 1122, \
                   4.2.2.13).",
        application_sees: "Nothing here: close() succeeds. The peer gets ECONNRESET, often before \
                           it read the last answer.",
        advice: "Look at what the process leaves unread before it closes: a request body that it \
                 rejects, a pipelined request, a TLS close_notify. `strace -f -e trace=network,close \
                 -p PID` shows the last reads; reading to the end before close() avoids it.",
    },
    Entry {
        id: CauseId::LingerAbort,
        name: "linger-abort",
        directions: SENT,
        title: "the process closed with SO_LINGER 0",
        happened: "The process had set SO_LINGER with a time of 0, which makes close() throw away \
                   what is queued and send a RST instead of a FIN.",
        application_sees: "Nothing here: close() succeeds. The peer gets ECONNRESET.",
        advice: "Find who sets it: `strace -f -e trace=setsockopt -p PID`. Load generators, health \
                 checks and proxies do so on purpose to avoid TIME_WAIT; a service should not.",
    },
    Entry {
        id: CauseId::KeepaliveTimeout,
        name: "keepalive-timeout",
        directions: SENT,
        title: "keepalive probes went unanswered",
        happened: "The connection was idle, the kernel probed the peer and got no answer to \
                   TCP_KEEPCNT probes: the peer is gone, or something between drops the segments.",
        application_sees: "Its next call fails with ETIMEDOUT.",
        advice: "Check whether the peer is alive and whether a firewall or NAT between forgets \
                 idle connections. `ss -tno` shows the keepalive timers, `sysctl net.ipv4 | grep \
                 keepalive` the defaults.",
    },
    Entry {
        id: CauseId::Refused,
        name: "refused",
        directions: RECEIVED,
        title: "a connect was answered with a RST",
        happened: "This host sent a SYN and got a RST: nobody listens on that port over there, or \
                   a firewall on the way rejects with a RST.",
        application_sees: "connect() fails with ECONNREFUSED.",
        advice: "On the peer: `ss -ltn` for the port and its address, then its firewall \
                 (`nft list ruleset`) for a reject rule. Check the address and port that this \
                 process was given.",
    },
    Entry {
        id: CauseId::PeerAborted,
        name: "peer-aborted",
        directions: RECEIVED,
        title: "the peer reset an established connection",
        happened: "A RST came in the middle of the connection: the peer crashed, closed with \
                   unread data or with SO_LINGER 0, or something between dropped the connection.",
        application_sees: "Its next read or write fails with ECONNRESET.",
        advice: "Look at the peer's log at this moment, and run rstwatch there. After a long \
                 silence suspect an idle timeout of the peer, a load balancer or a NAT: keepalive \
                 must be shorter than it.",
    },
    Entry {
        id: CauseId::PeerGone,
        name: "peer-gone",
        directions: RECEIVED,
        title: "this host sent after the peer had closed its side",
        happened: "The peer had closed (its FIN had come), this host sent more, and the peer \
                   answered with a RST because nobody there can read it.",
        application_sees: "The next write fails with EPIPE, and raises SIGPIPE unless ignored.",
        advice: "The process wrote to a connection whose end it had not noticed: look for a pooled \
                 connection used again after the peer's idle timeout, or an answer to a client that \
                 went away. `ss -tnp state close-wait` shows more of them.",
    },
    Entry {
        id: CauseId::ResetDuringClose,
        name: "reset-during-close",
        directions: RECEIVED,
        title: "the peer reset the connection after this host's FIN",
        happened: "This host had closed or shut down its side, and the peer ended the connection \
                   with a RST instead of a FIN: it closed with unread data, with SO_LINGER 0, or \
                   was gone.",
        application_sees: "Nothing when it has closed the socket; otherwise ECONNRESET.",
        advice: "Mostly harmless. When answers are lost, see whether this host closes before the \
                 peer has read everything, and what the peer does at the end of an exchange.",
    },
    Entry {
        id: CauseId::Unknown,
        name: "unknown",
        directions: EITHER,
        title: "none of the known causes fits",
        happened: "The evidence fits none of the causes that rstwatch tells apart.",
        application_sees: "ECONNRESET, when a process still held the socket.",
        advice: "The evidence lists all that was seen: the kernel's reason, the state, the \
                 segment. Compare the kernel's counters (`nstat -az | grep -i abort`), or capture \
                 the flow with tcpdump.",
    },
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

    #[test]
    fn texts_are_sentences_that_json_and_a_terminal_take_as_they_stand() {
        for entry in &ENTRIES {
            assert!(!entry.directions.is_empty());
            assert!(entry.title.len() <= 70, "{}: title", entry.name);
            for text in [
                entry.title,
                entry.happened,
                entry.application_sees,
                entry.advice,
            ] {
                assert!(!text.contains("  "), "{}: {text}", entry.name);
                assert!(
                    text.bytes()
                        .all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'),
                    "{}: {text}",
                    entry.name
                );
            }
            for text in [entry.happened, entry.application_sees, entry.advice] {
                assert!(text.ends_with('.'), "{}: {text}", entry.name);
            }
        }
    }
}
