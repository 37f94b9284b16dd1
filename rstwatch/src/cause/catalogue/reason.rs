//! The kernel's reasons for a reset (`enum sk_rst_reason`), and what they leave open.

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its name without `SK_RST_REASON_`; `MPTCP_RST_` stands for all that begin so.
    pub name: &'static str,
    /// The first kernel that gives it for resets of some kind.
    pub since: &'static str,
    /// What it says, and what not.
    pub means: &'static str,
}

const fn note(name: &'static str, since: &'static str, means: &'static str) -> Note {
    Note { name, since, means }
}

/// Every reason that rstwatch knows.
pub const REASONS: [Note; 18] = [
    note(
        "NOT_SPECIFIED",
        "6.10",
        "The kernel says nothing. All active resets carry it in 6.10 and 6.11.",
    ),
    note(
        "NO_SOCKET",
        "6.10",
        "The segment met no socket: which cause it is, its flags and the history of closed connections tell.",
    ),
    note(
        "TCP_INVALID_ACK_SEQUENCE",
        "6.10",
        "An ACK in SYN_SENT for something that was not sent.",
    ),
    note(
        "TCP_RFC7323_PAWS",
        "6.10",
        "A timestamp echo in SYN_SENT that this host did not send.",
    ),
    note(
        "TCP_TOO_OLD_ACK",
        "6.10",
        "The last ACK of a handshake lies too far back.",
    ),
    note(
        "TCP_ACK_UNSENT_DATA",
        "6.10",
        "The last ACK of a handshake is for what was not sent.",
    ),
    note(
        "TCP_FLAGS",
        "6.10",
        "A listener got an ACK that belongs to no handshake.",
    ),
    note("TCP_OLD_ACK", "6.10", "The last ACK of a handshake is old."),
    note(
        "TCP_ABORT_ON_DATA",
        "6.10",
        "Data came for a socket that was closed or shut down; also an ACK for one with a negative TCP_LINGER2.",
    ),
    note(
        "TCP_TIMEWAIT_SOCKET",
        "6.10",
        "Data or a SYN met a TIME_WAIT socket that stands for FIN_WAIT2.",
    ),
    note(
        "INVALID_SYN",
        "6.10",
        "A listener got a SYN within a handshake; or, although the segment is no SYN, its accept queue is full and tcp_abort_on_overflow is on.",
    ),
    note(
        "TCP_ABORT_ON_CLOSE",
        "6.12",
        "The process closed with unread data; also the fast close of a multipath TCP connection.",
    ),
    note(
        "TCP_ABORT_ON_LINGER",
        "6.12",
        "The process closed in FIN_WAIT2 with a negative TCP_LINGER2. It is not what SO_LINGER 0 gives: that is TCP_STATE.",
    ),
    note(
        "TCP_ABORT_ON_MEMORY",
        "6.12",
        "Too many orphans, or no memory for TCP.",
    ),
    note(
        "TCP_STATE",
        "6.12",
        "The connection was taken down in a state that the peer must be told of: SO_LINGER 0, connect(AF_UNSPEC), a closed listener, ss -K, or an orphan's timer. The stack tells which.",
    ),
    note(
        "TCP_KEEPALIVE_TIMEOUT",
        "6.12",
        "Keepalive probes went unanswered.",
    ),
    note(
        "TCP_DISCONNECT_WITH_DATA",
        "6.12",
        "As TCP_STATE, in CLOSING or LAST_ACK with data that was not sent yet.",
    ),
    note(
        "MPTCP_RST_",
        "6.10",
        "A reason of multipath TCP (RFC 8684, 3.6): EUNSPEC, EMPTCP, ERESOURCE, EPROHIBIT, EWQ2BIG, EBADPERF, EMIDDLEBOX.",
    ),
];
