//! The words in which firewalls say how a connection ended: Cisco ASA's in its message 302014, which
//! others have taken up. Inside and outside are the firewall's: the side of the higher security
//! level, and the other.

use super::super::CauseId;

/// A word of a firewall's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word as it is logged, without a leading `TCP`.
    pub word: &'static str,
    /// What it means.
    pub means: &'static str,
    /// Causes that an end host shows for it, the likeliest first.
    pub related: &'static [CauseId],
}

/// Every word.
pub const WORDS: [Word; 11] = [
    Word {
        word: "Reset-I",
        means: "A RST came from the inside: a host behind the firewall reset the connection. Run \
                rstwatch there, and look among the sent causes.",
        related: &[
            CauseId::ClosedWithUnreadData,
            CauseId::DataAfterClose,
            CauseId::LingerAbort,
            CauseId::ClosedPort,
            CauseId::HalfOpen,
        ],
    },
    Word {
        word: "Reset-O",
        means: "A RST came from the outside: the far host, or a middlebox before it, reset the \
                connection. On an inside host it is a received one.",
        related: &[
            CauseId::PeerAborted,
            CauseId::PeerGone,
            CauseId::ResetDuringClose,
            CauseId::Refused,
            CauseId::ForgedReset,
        ],
    },
    Word {
        word: "FINs",
        means: "Both ends closed in order. No reset, and nothing for rstwatch to show; a RST that \
                follows is the answer to a late segment.",
        related: &[CauseId::LateSegment, CauseId::DataAfterClose],
    },
    Word {
        word: "FIN Timeout",
        means: "One end had closed and the other did not follow: the firewall waited for the last \
                FIN or ACK and dropped the entry (half-closed timeout, 10 minutes unless set \
                otherwise). Neither end is told; what either sends later is dropped or reset.",
        related: &[
            CauseId::FinWait2Timeout,
            CauseId::DataAfterClose,
            CauseId::PeerGone,
        ],
    },
    Word {
        word: "SYN Timeout",
        means: "The handshake did not finish in 30 seconds: the SYN, or the SYN-ACK, found no \
                answer. Usually the server is down, drops SYNs, or answers by another way.",
        related: &[CauseId::LateSynAck, CauseId::HandshakeReset],
    },
    Word {
        word: "Xlate Clear",
        means: "An administrator removed the address translation (`clear xlate`), and the connection \
                with it. Both ends still believe in it until they send.",
        related: &[CauseId::IdleDrop, CauseId::HalfOpen],
    },
    Word {
        word: "Deny",
        means: "The firewall's inspection ended the flow. Whether it sends a RST depends on its \
                configuration (`service resetinbound`, `resetoutbound`); that RST bears the other \
                end's address.",
        related: &[CauseId::ForgedReset, CauseId::PeerAborted, CauseId::Refused],
    },
    Word {
        word: "SYN Control",
        means: "A connection was begun from the wrong side: the firewall saw a SYN on a channel that \
                it expected to be opened by the other end.",
        related: &[CauseId::BadSegment, CauseId::Refused],
    },
    Word {
        word: "Uauth Deny",
        means: "The user was not authorised, or a URL filter denied the request, and the firewall \
                ended the connection.",
        related: &[CauseId::ForgedReset, CauseId::PeerAborted],
    },
    Word {
        word: "Conn-timeout",
        means: "The connection was idle for longer than the firewall's limit (1 hour unless set \
                otherwise), and its entry is gone. What is sent then is dropped or reset.",
        related: &[CauseId::IdleDrop, CauseId::HalfOpen],
    },
    Word {
        word: "Unknown",
        means: "The firewall has no word for it. Compare its time with the events on either host.",
        related: &[CauseId::Unknown],
    },
];
