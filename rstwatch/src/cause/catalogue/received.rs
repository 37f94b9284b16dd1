//! The catalogue: resets that this host receives, and those that no rule knows.

use super::{
    CauseId, Confidence, EITHER, Entry, RECEIVED, Symptom, certain, check, sees,
    symptom::{
        HAPROXY_CD, HAPROXY_SC, HAPROXY_SD, HAPROXY_SH, NGINX_CLIENT, NGINX_PIPE, NGINX_REFUSED,
        NGINX_RESET, NGINX_RESET_BODY, NO_LOG,
    },
};

/// `refused`.
pub(super) const REFUSED: Entry = Entry {
    id: CauseId::Refused,
    name: "refused",
    directions: RECEIVED,
    title: "a connect was answered with a RST",
    happened: "This host sent a SYN and got a RST: nobody listens on that port over there, or a \
               firewall on the way rejects with a RST.",
    here: sees(&[Symptom::Refused], "connect() fails."),
    there: sees(&[], "Nothing: no socket is involved."),
    logs: &[NGINX_REFUSED, HAPROXY_SC],
    checks: &[
        check(
            "On the peer: does anything listen on the port, at that address?",
            "ss -ltnp",
        ),
        check(
            "Does a firewall there or on the way reject?",
            "nft list ruleset; traceroute -T -p PORT PEER",
        ),
        check(
            "Was the process given the right address and port?",
            "ss -tanp; getent hosts NAME",
        ),
        check(
            "Is the peer this host? Then the sent event beside it says more.",
            "rstwatch -w --cause closed-port,listener-gone",
        ),
    ],
    advice: "On the peer: `ss -ltn` for the port and its address, then its firewall (`nft list \
             ruleset`) for a reject rule. Check the address and port that this process was \
             given.",
    function: "tcp_rcv_synsent_state_process, tcp_reset",
    reasons: &[],
    counters: &["TcpAttemptFails"],
    certainty: &[certain(
        Confidence::Certain,
        "5.10",
        "the state; not whether the peer or a firewall answered",
    )],
    related: &[
        CauseId::ClosedPort,
        CauseId::ListenerGone,
        CauseId::FirewallReject,
    ],
};

/// `idle-drop`.
pub(super) const IDLE_DROP: Entry = Entry {
    id: CauseId::IdleDrop,
    name: "idle-drop",
    directions: RECEIVED,
    title: "what was sent after a silence was answered with a RST",
    happened: "Nothing had passed for a while. A load balancer, NAT or firewall on the way, or \
               the peer itself, had dropped the connection; the first bytes after that were \
               answered with a RST.",
    here: sees(
        &[Symptom::Reset, Symptom::Pipe],
        "The write succeeds; the read or write after it fails.",
    ),
    there: sees(&[], "Nothing: it had dropped the connection before."),
    logs: &[NGINX_RESET, HAPROXY_SH, HAPROXY_SD],
    checks: &[
        check(
            "Which limit fits the silence? The evidence names those that are known.",
            "rstwatch -j --cause idle-drop",
        ),
        check(
            "What stands between? Load balancers, NAT gateways and firewalls, each with an idle limit.",
            "traceroute -T -p PORT PEER",
        ),
        check(
            "Does the process probe, and more often than the shortest limit?",
            "ss -tno; sysctl net.ipv4.tcp_keepalive_time",
        ),
        check(
            "Does the pool keep connections longer than the server? Make its idle time the shorter one.",
            "see the settings of both",
        ),
    ],
    advice: "Find the shortest idle limit on the way and stay below it: TCP keepalive (`sysctl \
             net.ipv4.tcp_keepalive_time`, SO_KEEPALIVE), or a shorter idle time in the \
             connection pool than in the server.",
    function: "tcp_reset",
    reasons: &[],
    counters: &["TcpEstabResets"],
    certainty: &[
        certain(
            Confidence::Likely,
            "5.10",
            "data was sent after more than 60 s of silence, or one of a known limit",
        ),
        certain(Confidence::Possible, "5.10", "after a shorter silence"),
    ],
    related: &[CauseId::PeerAborted, CauseId::PeerGone, CauseId::HalfOpen],
};

/// `peer-aborted`.
pub(super) const PEER_ABORTED: Entry = Entry {
    id: CauseId::PeerAborted,
    name: "peer-aborted",
    directions: RECEIVED,
    title: "the peer reset an established connection",
    happened: "A RST came in the middle of the connection: the peer crashed, closed with unread \
               data or with SO_LINGER 0, or something between dropped the connection.",
    here: sees(&[Symptom::Reset], "Its next read or write fails."),
    there: sees(&[], "Depends on why it reset: mostly nothing."),
    logs: &[
        NGINX_RESET,
        NGINX_RESET_BODY,
        NGINX_CLIENT,
        HAPROXY_SD,
        HAPROXY_CD,
    ],
    checks: &[
        check(
            "What did the peer do at this moment? Read its log, and run rstwatch there.",
            "rstwatch --sent --addr THIS_HOST",
        ),
        check(
            "Was the connection silent before? Then suspect an idle limit on the way.",
            "rstwatch -j --cause peer-aborted",
        ),
        check(
            "Was it the peer at all? A middlebox can send a RST in its name.",
            "tcpdump -vni any 'tcp[tcpflags] & tcp-rst != 0'",
        ),
    ],
    advice: "Look at the peer's log at this moment, and run rstwatch there. After a long silence \
             suspect an idle timeout of the peer, a load balancer or a NAT: keepalive must be \
             shorter than it.",
    function: "tcp_reset",
    reasons: &[],
    counters: &["TcpEstabResets"],
    certainty: &[
        certain(
            Confidence::Likely,
            "5.10",
            "the peer was heard less than 5 s before",
        ),
        certain(Confidence::Possible, "5.10", "after a longer silence"),
    ],
    related: &[
        CauseId::IdleDrop,
        CauseId::ForgedReset,
        CauseId::ClosedWithUnreadData,
        CauseId::LingerAbort,
        CauseId::ProcessDied,
    ],
};

/// `peer-gone`.
pub(super) const PEER_GONE: Entry = Entry {
    id: CauseId::PeerGone,
    name: "peer-gone",
    directions: RECEIVED,
    title: "this host sent after the peer had closed its side",
    happened: "The peer had closed (its FIN had come), this host sent more, and the peer \
               answered with a RST because nobody there can read it.",
    here: sees(
        &[Symptom::Pipe, Symptom::Reset],
        "The next write fails, and raises SIGPIPE unless that is ignored.",
    ),
    there: sees(&[], "Nothing: its process had closed the connection."),
    logs: &[NGINX_PIPE, NGINX_CLIENT, HAPROXY_CD, HAPROXY_SD],
    checks: &[
        check(
            "Was it a pooled connection that the peer had closed for being idle? Make the pool's idle time shorter than the server's.",
            "rstwatch -j --cause peer-gone",
        ),
        check(
            "Was it an answer to a client that went away? Then it is harmless.",
            "see the access log",
        ),
        check(
            "Does the process fail to notice that peers close?",
            "ss -tanp state close-wait",
        ),
    ],
    advice: "The process wrote to a connection whose end it had not noticed: look for a pooled \
             connection used again after the peer's idle timeout, or an answer to a client that \
             went away. `ss -tnp state close-wait` shows more of them.",
    function: "tcp_reset",
    reasons: &[],
    counters: &["TcpEstabResets"],
    certainty: &[
        certain(
            Confidence::Likely,
            "5.10",
            "CLOSE_WAIT, and data was sent just before",
        ),
        certain(Confidence::Possible, "5.10", "CLOSE_WAIT alone"),
    ],
    related: &[
        CauseId::DataAfterClose,
        CauseId::IdleDrop,
        CauseId::ResetDuringClose,
    ],
};

/// `reset-during-close`.
pub(super) const RESET_DURING_CLOSE: Entry = Entry {
    id: CauseId::ResetDuringClose,
    name: "reset-during-close",
    directions: RECEIVED,
    title: "the peer reset the connection after this host's FIN",
    happened: "This host had closed or shut down its side, and the peer ended the connection \
               with a RST instead of a FIN: it closed with unread data, with SO_LINGER 0, or was \
               gone.",
    here: sees(
        &[Symptom::Reset],
        "Nothing when it has closed the socket; otherwise its next read fails.",
    ),
    there: sees(&[], "Depends on why it reset: mostly nothing."),
    logs: &[NGINX_CLIENT, HAPROXY_CD],
    checks: &[
        check(
            "Are answers lost? Then see whether this host closes before the peer has read everything.",
            "rstwatch -j --cause reset-during-close",
        ),
        check(
            "What does the peer do at the end of an exchange? Browsers and load balancers often reset instead of closing.",
            "rstwatch there: rstwatch --sent",
        ),
        check("Nothing lost? Then it is harmless.", "see the access log"),
    ],
    advice: "Mostly harmless. When answers are lost, see whether this host closes before the \
             peer has read everything, and what the peer does at the end of an exchange.",
    function: "tcp_reset",
    reasons: &[],
    counters: &[],
    certainty: &[certain(Confidence::Certain, "5.10", "the state")],
    related: &[
        CauseId::PeerGone,
        CauseId::ClosedWithUnreadData,
        CauseId::DataAfterClose,
    ],
};

/// `handshake-reset`.
pub(super) const HANDSHAKE_RESET: Entry = Entry {
    id: CauseId::HandshakeReset,
    name: "handshake-reset",
    directions: RECEIVED,
    title: "the peer reset its unfinished handshake",
    happened: "The peer began to connect, this host answered, and the peer reset instead of \
               finishing: a port scan, a health check, or a client that gave up.",
    here: sees(
        &[],
        "Nothing: the connection never reaches accept(), or is gone when it does.",
    ),
    there: sees(&[], "It gave up by itself."),
    logs: &[NO_LOG],
    checks: &[
        check(
            "Is it a health check or a scan? Compare the address.",
            "rstwatch --cause handshake-reset",
        ),
        check(
            "Does this host answer late, so that the client gives up?",
            "nstat -az TcpExtTCPSynRetrans TcpExtListenDrops",
        ),
        check(
            "Most of them are not events: the kernel only counts a reset of a usual handshake.",
            "nstat -az TcpExtEmbryonicRsts",
        ),
    ],
    advice: "Harmless when it is a health check or a scan: compare the address with the load \
             balancer. Otherwise see why this host answers late: `nstat -az TcpExtTCPSynRetrans \
             TcpExtListenDrops`.",
    function: "tcp_reset; tcp_check_req for most",
    reasons: &[],
    counters: &["TcpAttemptFails", "TcpExtEmbryonicRsts"],
    certainty: &[certain(
        Confidence::Certain,
        "5.10",
        "the state; a usual handshake has no socket yet, and is counted only",
    )],
    related: &[CauseId::Refused, CauseId::Backscatter],
};

/// `forged-reset`.
pub(super) const FORGED_RESET: Entry = Entry {
    id: CauseId::ForgedReset,
    name: "forged-reset",
    directions: RECEIVED,
    title: "the RST does not look like the peer's own",
    happened: "A middlebox may have sent the RST in the name of the peer: its hop count or \
               sequence number does not fit the connection. That shows in the packet only, which \
               no hook hands over.",
    here: sees(&[Symptom::Reset], "Its next read or write fails."),
    there: sees(
        &[Symptom::Reset],
        "Often the same: the middlebox resets both ends.",
    ),
    logs: &[NGINX_RESET, HAPROXY_SD],
    checks: &[
        check(
            "Does the RST look like the peer? Compare hop count (TTL) and IP id with earlier packets of the peer.",
            "tcpdump -vni any 'tcp[tcpflags] & tcp-rst != 0'",
        ),
        check(
            "Did the peer send it? Capture there at the same time.",
            "tcpdump -ni any 'tcp[tcpflags] & tcp-rst != 0'",
        ),
        check(
            "Do resets that miss the window arrive too? The kernel answers those with an ACK.",
            "nstat -az TcpExtTCPChallengeACK",
        ),
        check(
            "Which middleboxes stand between?",
            "traceroute -T -p PORT PEER",
        ),
    ],
    advice: "Capture both ends: `tcpdump -vni any 'tcp[tcpflags] & tcp-rst != 0'` and compare \
             TTL and IP id with those of earlier packets of the peer.",
    function: "tcp_reset (which is not given the packet)",
    reasons: &[],
    counters: &["TcpEstabResets", "TcpExtTCPChallengeACK"],
    certainty: &[certain(
        Confidence::Possible,
        "none",
        "it takes the packet's hop count and sequence number, which no hook hands over: rstwatch makes no such verdict, and calls it peer-aborted",
    )],
    related: &[CauseId::PeerAborted, CauseId::Refused],
};

/// `unknown`.
pub(super) const UNKNOWN: Entry = Entry {
    id: CauseId::Unknown,
    name: "unknown",
    directions: EITHER,
    title: "none of the known causes fits",
    happened: "The evidence fits none of the causes that rstwatch tells apart.",
    here: sees(
        &[Symptom::Reset],
        "An error when a process still held the socket.",
    ),
    there: sees(&[Symptom::Reset], "Its next read or write fails."),
    logs: &[NGINX_RESET, HAPROXY_SD],
    checks: &[
        check(
            "What is known? All of it stands in the evidence.",
            "rstwatch -j --cause unknown",
        ),
        check(
            "Is the kernel's stack readable? It tells many causes apart.",
            "sysctl kernel.kptr_restrict",
        ),
        check(
            "What does the kernel count?",
            "nstat -az | grep -i -e abort -e reset -e rst",
        ),
        check(
            "What was on the wire?",
            "tcpdump -ni any host PEER and port PORT",
        ),
    ],
    advice: "The evidence lists all that was seen: the kernel's reason, the state, the segment. \
             Compare the kernel's counters (`nstat -az | grep -i abort`), or capture the flow \
             with tcpdump.",
    function: "tcp_send_active_reset, tcp_v4_send_reset, tcp_reset",
    reasons: &["NOT_SPECIFIED"],
    counters: &["TcpOutRsts", "TcpEstabResets"],
    certainty: &[certain(Confidence::Possible, "any kernel", "no rule spoke")],
    related: &[CauseId::PeerAborted, CauseId::HalfOpen],
};
