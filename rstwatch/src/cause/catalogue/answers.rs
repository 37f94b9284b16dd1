//! The catalogue: what this host answers segments with.

use super::{
    CauseId, Confidence, Entry, SENT, Symptom, certain, check, sees,
    symptom::{
        HAPROXY_CD, HAPROXY_SC, HAPROXY_SD, HAPROXY_SH, NGINX_CLIENT, NGINX_PIPE, NGINX_REFUSED,
        NGINX_RESET, NGINX_TIMED_OUT, NO_LOG,
    },
};

/// `closed-port`.
pub(super) const CLOSED_PORT: Entry = Entry {
    id: CauseId::ClosedPort,
    name: "closed-port",
    directions: SENT,
    title: "a SYN came for a port where nobody listens",
    happened: "A client tried to connect. No socket listens on that address and port in that \
               network namespace, so the kernel answered the SYN with a RST.",
    here: sees(&[], "Nothing: no socket is involved."),
    there: sees(&[Symptom::Refused], "connect() fails."),
    logs: &[NGINX_REFUSED, HAPROXY_SC],
    checks: &[
        check(
            "Does anything listen, and at which address? 127.0.0.1 is closed to other hosts.",
            "ss -ltnp",
        ),
        check(
            "In which network namespace? A container has its own.",
            "lsns -t net",
        ),
        check("Does the service run?", "systemctl status UNIT"),
        check(
            "Does the client have the right port, and does its DNS name still lead here?",
            "getent hosts NAME",
        ),
    ],
    advice: "See what listens, and on which address: `ss -ltnp`. A service that listens on \
             127.0.0.1 or in another network namespace (`lsns -t net`) is closed to this client.",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(Confidence::Certain, "6.10", "a SYN met no socket"),
        certain(
            Confidence::Certain,
            "5.10",
            "the same, where the probe of tcp_v4_send_reset can be attached; without it such resets are counted only",
        ),
    ],
    related: &[
        CauseId::ListenerGone,
        CauseId::Refused,
        CauseId::AcceptQueueOverflow,
    ],
};

/// `listener-gone`.
pub(super) const LISTENER_GONE: Entry = Entry {
    id: CauseId::ListenerGone,
    name: "listener-gone",
    directions: SENT,
    title: "a SYN came for a port whose listener has ended",
    happened: "A client tried to connect to a port that a service listened on until lately: it \
               crashed, was stopped, or is being restarted.",
    here: sees(&[], "Nothing: no socket is involved."),
    there: sees(&[Symptom::Refused], "connect() fails."),
    logs: &[NGINX_REFUSED, HAPROXY_SC],
    checks: &[
        check("How did the service end?", "journalctl -u UNIT -n 50"),
        check(
            "Did it crash, or did the OOM killer take it?",
            "coredumpctl list; dmesg -T | grep -i -e oom -e segfault",
        ),
        check("Is it listening again?", "ss -ltnp sport = :PORT"),
        check(
            "Is a restart without a gap wanted? Hand the listener over: socket activation, or SO_REUSEPORT.",
            "systemctl list-sockets",
        ),
    ],
    advice: "See how the service ended (`journalctl -u UNIT`, `coredumpctl`, `dmesg | grep -i \
             oom`) and when it is back. For restarts without a gap hand the listener over: \
             socket activation or SO_REUSEPORT.",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "a SYN met no socket, and the end of the port's listener was seen",
        ),
        certain(
            Confidence::Certain,
            "5.10",
            "the same, where the probe of tcp_v4_send_reset can be attached",
        ),
    ],
    related: &[
        CauseId::ClosedPort,
        CauseId::ListenerClosed,
        CauseId::ProcessDied,
    ],
};

/// `late-segment`.
pub(super) const LATE_SEGMENT: Entry = Entry {
    id: CauseId::LateSegment,
    name: "late-segment",
    directions: SENT,
    title: "a segment came for a connection that had ended here",
    happened: "The connection had ended on this host, and a segment of the peer was still on its \
               way: an ACK, a FIN, or data that crossed the reset. The kernel has no socket for \
               it any more.",
    here: sees(&[], "Nothing: the socket is gone."),
    there: sees(
        &[Symptom::Reset, Symptom::Pipe],
        "If the peer still held the connection, its next call fails; usually it had ended there too.",
    ),
    logs: &[NO_LOG],
    checks: &[
        check(
            "What ended the connection? Look for the event before it with the same addresses.",
            "rstwatch -j --addr PEER",
        ),
        check(
            "Are there many? Then both ends close at once, or segments are delayed on the way.",
            "nstat -az TcpExtTCPAbortOnClose TcpExtTCPAbortOnData",
        ),
    ],
    advice: "Mostly the echo of what ended the connection: look at the event before it with the \
             same addresses (`rstwatch explain` its cause).",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET", "TCP_FLAGS"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "the connection ended here less than 60 s before",
        ),
        certain(
            Confidence::Likely,
            "any kernel",
            "longer ago, or a listener answered and the kernel names no reason",
        ),
    ],
    related: &[
        CauseId::DataAfterClose,
        CauseId::ClosedWithUnreadData,
        CauseId::LingerAbort,
        CauseId::HalfOpen,
    ],
};

/// `half-open`.
pub(super) const HALF_OPEN: Entry = Entry {
    id: CauseId::HalfOpen,
    name: "half-open",
    directions: SENT,
    title: "a segment came for a connection that this host does not know",
    happened: "The peer believes in a connection that does not exist here: this host rebooted, \
               an address moved in a fail-over, a load balancer or NAT sent the flow to another \
               backend, or connection tracking lost it.",
    here: sees(&[], "Nothing: no socket is involved."),
    there: sees(&[Symptom::Reset], "The next call fails."),
    logs: &[NGINX_RESET, HAPROXY_SH],
    checks: &[
        check(
            "Did this host boot, or did the address move to it lately?",
            "uptime -s; ip -s addr",
        ),
        check(
            "Did a load balancer or NAT send the flow to another backend?",
            "see its target list and its health checks",
        ),
        check(
            "Does connection tracking here lose flows?",
            "conntrack -S; sysctl net.netfilter.nf_conntrack_max",
        ),
        check(
            "Was the connection closed here longer ago than rstwatch remembers, or before it started?",
            "journalctl -u UNIT",
        ),
    ],
    advice: "Ask what changed for this peer: uptime (`uptime -s`), address moves (`ip addr`), \
             the load balancer's backends. `conntrack -S` shows dropped and invalid flows where \
             this host filters or translates.",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET", "TCP_FLAGS"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(
            Confidence::Likely,
            "6.10",
            "an ACK or data met no socket, and nothing is remembered",
        ),
        certain(
            Confidence::Likely,
            "any kernel",
            "where a listener answered",
        ),
    ],
    related: &[
        CauseId::LateSegment,
        CauseId::ConnectionTimedOut,
        CauseId::IdleDrop,
    ],
};

/// `late-syn-ack`.
pub(super) const LATE_SYN_ACK: Entry = Entry {
    id: CauseId::LateSynAck,
    name: "late-syn-ack",
    directions: SENT,
    title: "a SYN-ACK came after this host had given up connecting",
    happened: "A process here began to connect, gave up before the peer answered, and then the \
               answer came.",
    here: sees(
        &[Symptom::TimedOut],
        "The connect had already failed, or the process had closed the socket before.",
    ),
    there: sees(&[], "Usually nothing: the handshake is not finished there."),
    logs: &[NGINX_TIMED_OUT, HAPROXY_SC],
    checks: &[
        check(
            "After how long did the process give up? Compare with its connect timeout.",
            "rstwatch -j --cause late-syn-ack",
        ),
        check(
            "Why does the peer answer so late? Its queue of SYNs may be full.",
            "nstat -az TcpExtTCPReqQFullDrop TcpExtListenDrops",
        ),
        check("Are SYNs lost on the way?", "nstat -az TcpExtTCPSynRetrans"),
    ],
    advice: "Compare the connect timeout of the process with the time that the evidence gives, \
             and see why the peer answers so late: a full SYN queue, loss on the way (`nstat -az \
             TcpExtTCPSynRetrans`).",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET", "TCP_FLAGS"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "the connect was given up less than 60 s before",
        ),
        certain(
            Confidence::Likely,
            "any kernel",
            "longer ago, or a listener answered and the kernel names no reason",
        ),
    ],
    related: &[CauseId::Backscatter, CauseId::BadSegment],
};

/// `backscatter`.
pub(super) const BACKSCATTER: Entry = Entry {
    id: CauseId::Backscatter,
    name: "backscatter",
    directions: SENT,
    title: "a SYN-ACK came that nobody here asked for",
    happened: "A host answers a connect that did not come from here: somebody sends SYNs with \
               this address as their sender, usually in an attack on that host, or routing is \
               asymmetric.",
    here: sees(&[], "Nothing: no socket is involved."),
    there: sees(&[], "Nothing: the handshake was not finished there."),
    logs: &[NO_LOG],
    checks: &[
        check(
            "Does a SYN leave this host before? Then it is no backscatter.",
            "tcpdump -ni any 'tcp[tcpflags] & tcp-syn != 0 and host PEER'",
        ),
        check(
            "Do SYNs leave and answers come by different hosts?",
            "ip route get PEER",
        ),
        check(
            "Is the rate high? Limit it at the edge: the RST itself does no harm.",
            "nstat TcpOutRsts",
        ),
    ],
    advice: "Nothing is wrong here unless the rate is high; then limit it at the edge. See with \
             `tcpdump -ni any 'tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)'` that no \
             SYN leaves before.",
    function: "tcp_v4_send_reset, tcp_v6_send_reset",
    reasons: &["NO_SOCKET", "TCP_FLAGS"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(
            Confidence::Likely,
            "6.10",
            "a SYN-ACK met no connection, and no connect is remembered",
        ),
        certain(
            Confidence::Likely,
            "any kernel",
            "where a listener answered",
        ),
    ],
    related: &[CauseId::LateSynAck, CauseId::BadSegment],
};

/// `accept-queue-overflow`.
pub(super) const ACCEPT_QUEUE_OVERFLOW: Entry = Entry {
    id: CauseId::AcceptQueueOverflow,
    name: "accept-queue-overflow",
    directions: SENT,
    title: "the accept queue was full and tcp_abort_on_overflow is on",
    happened: "The process does not accept connections as fast as they come. Its queue is full, \
               and net.ipv4.tcp_abort_on_overflow makes the kernel reset the client then instead \
               of letting it try again.",
    here: sees(&[], "Nothing: the connection never reaches accept()."),
    there: sees(
        &[Symptom::Reset],
        "connect() succeeds, and the first read or write fails.",
    ),
    logs: &[NGINX_RESET, HAPROXY_SC],
    checks: &[
        check(
            "How full is the queue (Recv-Q), and what is its limit (Send-Q)?",
            "ss -ltn sport = :PORT",
        ),
        check(
            "Why does the process not accept: is it stuck, short of threads or of file descriptors?",
            "top -H -p PID; ls /proc/PID/fd | wc -l; cat /proc/PID/limits",
        ),
        check(
            "Is the limit too low? It is the smaller of the listen backlog and net.core.somaxconn.",
            "sysctl net.core.somaxconn",
        ),
        check(
            "Should the client try again instead of failing? Then set this to 0.",
            "sysctl net.ipv4.tcp_abort_on_overflow",
        ),
    ],
    advice: "See why the process does not accept: `ss -ltn` shows queue (Recv-Q) and limit \
             (Send-Q). Raise the listen backlog and net.core.somaxconn, and leave `sysctl \
             net.ipv4.tcp_abort_on_overflow` at 0.",
    function: "tcp_check_req",
    reasons: &["INVALID_SYN"],
    counters: &[
        "TcpOutRsts",
        "TcpExtListenOverflows",
        "TcpExtListenDrops",
        "TcpExtEmbryonicRsts",
    ],
    certainty: &[
        certain(Confidence::Certain, "6.10", "the queue is beyond its limit"),
        certain(
            Confidence::Likely,
            "6.10",
            "the queue had been emptied meanwhile",
        ),
        certain(Confidence::Likely, "5.10", "the queue is beyond its limit"),
    ],
    related: &[CauseId::ListenerClosed, CauseId::HalfOpen],
};

/// `data-after-close`.
pub(super) const DATA_AFTER_CLOSE: Entry = Entry {
    id: CauseId::DataAfterClose,
    name: "data-after-close",
    directions: SENT,
    title: "the peer kept sending after the process had closed",
    happened: "The process had closed the connection, or shut down reading, and data came after \
               that. Nobody can read it any more, so the kernel answered with a RST.",
    here: sees(
        &[],
        "Usually nothing: the socket was closed. A process that only shut it down may get an error from its next call.",
    ),
    there: sees(
        &[Symptom::Reset, Symptom::Pipe],
        "Its write fails, or its read fails before it saw the last bytes.",
    ),
    logs: &[NGINX_PIPE, NGINX_CLIENT, HAPROXY_CD, HAPROXY_SD],
    checks: &[
        check(
            "Why did the process close first? A timeout, an error, an answer before the whole request was read.",
            "rstwatch -j --cause data-after-close",
        ),
        check(
            "Does it shut down its sending side and read until the end before it closes?",
            "strace -f -e trace=shutdown,close,read -p PID",
        ),
        check(
            "Is the peer a client that went away, and the data an answer to it? Then it is harmless.",
            "see the access log",
        ),
        check(
            "How often does it happen? A reset from a TIME_WAIT socket is not in this counter.",
            "nstat -az TcpExtTCPAbortOnData",
        ),
    ],
    advice: "See why the process closed first: a timeout, an error, an answer sent before the \
             whole request was read. It should shutdown(SHUT_WR) and read until the end before \
             it closes.",
    function: "tcp_rcv_state_process, tcp_timewait_state_process",
    reasons: &["TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnData"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "the reason, or the sub-state FIN_WAIT2",
        ),
        certain(
            Confidence::Certain,
            "5.10",
            "data for a full socket that is shut down",
        ),
        certain(
            Confidence::Likely,
            "6.10",
            "data for a connection that is remembered as closed",
        ),
    ],
    related: &[
        CauseId::PeerGone,
        CauseId::LateSegment,
        CauseId::ClosedWithUnreadData,
    ],
};

/// `connection-timed-out`.
pub(super) const CONNECTION_TIMED_OUT: Entry = Entry {
    id: CauseId::ConnectionTimedOut,
    name: "connection-timed-out",
    directions: SENT,
    title: "a segment came for a connection that had died of a timeout",
    happened: "The peer did not acknowledge in time, so this host gave the connection up, \
               without a RST. The peer was not gone: its next segment found no socket.",
    here: sees(
        &[Symptom::TimedOut],
        "Its last call had failed by the timeout before.",
    ),
    there: sees(&[Symptom::Reset], "Its next call fails."),
    logs: &[NGINX_TIMED_OUT, HAPROXY_SD],
    checks: &[
        check(
            "Are segments lost between the two?",
            "nstat -az TcpExtTCPTimeouts TcpRetransSegs; ss -ti dst PEER",
        ),
        check(
            "Is a timeout too short for this path?",
            "sysctl net.ipv4.tcp_retries2; ss -tno",
        ),
        check(
            "Did the peer stall: suspended, paused, or out of CPU?",
            "see its monitoring at that time",
        ),
    ],
    advice: "Look for loss or a stall between the two: `nstat -az TcpExtTCPTimeouts \
             TcpRetransSegs`, `ss -ti`. See whether TCP_USER_TIMEOUT or net.ipv4.tcp_retries2 is \
             too short for this path.",
    function: "tcp_write_err, then tcp_v4_send_reset",
    reasons: &["NO_SOCKET", "TCP_FLAGS"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnTimeout"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "the connection timed out here less than 60 s before",
        ),
        certain(
            Confidence::Likely,
            "any kernel",
            "longer ago, or a listener answered and the kernel names no reason",
        ),
    ],
    related: &[
        CauseId::KeepaliveTimeout,
        CauseId::LateSegment,
        CauseId::HalfOpen,
    ],
};

/// `bad-segment`.
pub(super) const BAD_SEGMENT: Entry = Entry {
    id: CauseId::BadSegment,
    name: "bad-segment",
    directions: SENT,
    title: "the segment broke the protocol",
    happened: "The segment does not fit the state of its connection: an ACK for what was never \
               sent, a wrong timestamp, a SYN within a connection, or flags that no TCP sends.",
    here: sees(
        &[],
        "Usually nothing. A connect goes on and may succeed or time out.",
    ),
    there: sees(
        &[Symptom::Refused, Symptom::Reset],
        "A connect is refused, or the next call fails.",
    ),
    logs: &[NO_LOG],
    checks: &[
        check(
            "What came? See it with its neighbours.",
            "tcpdump -ni any host PEER and port PORT",
        ),
        check(
            "Are ports used again too early behind a NAT, so that an old connection answers a new one?",
            "ss -tan state time-wait | wc -l",
        ),
        check("Do two hosts have one address?", "arping -D -I DEV ADDRESS"),
        check(
            "Does a middlebox rewrite sequence numbers or timestamps?",
            "compare captures from both ends",
        ),
    ],
    advice: "Capture the flow with its neighbours: `tcpdump -ni any host PEER and port PORT`. \
             Usual culprits: ports that are reused too early behind NAT, two hosts with one \
             address, a middlebox that rewrites sequence numbers, a scanner.",
    function: "tcp_rcv_synsent_state_process, tcp_check_req, tcp_timewait_state_process",
    reasons: &[
        "TCP_INVALID_ACK_SEQUENCE",
        "TCP_RFC7323_PAWS",
        "TCP_TOO_OLD_ACK",
        "TCP_ACK_UNSENT_DATA",
        "TCP_OLD_ACK",
        "INVALID_SYN",
        "TCP_TIMEWAIT_SOCKET",
        "NO_SOCKET",
    ],
    counters: &["TcpOutRsts", "TcpExtPAWSActive", "TcpExtEmbryonicRsts"],
    certainty: &[
        certain(Confidence::Certain, "6.10", "the reason, with the segment"),
        certain(
            Confidence::Certain,
            "5.10",
            "any answer in SYN_SENT, or a SYN in FIN_WAIT2",
        ),
        certain(Confidence::Likely, "5.10", "a SYN within a handshake"),
    ],
    related: &[CauseId::LateSynAck, CauseId::Backscatter, CauseId::HalfOpen],
};

/// `firewall-reject`.
pub(super) const FIREWALL_REJECT: Entry = Entry {
    id: CauseId::FirewallReject,
    name: "firewall-reject",
    directions: SENT,
    title: "a firewall on this host rejected the segment with a RST",
    happened: "A rule of netfilter on this host answers with a RST in place of the service. Such \
               a RST passes no tracepoint and no counter.",
    here: sees(&[], "Nothing: the service never sees the segment."),
    there: sees(
        &[Symptom::Refused, Symptom::Reset],
        "connect() fails; in a connection, the next call.",
    ),
    logs: &[NGINX_REFUSED, HAPROXY_SC],
    checks: &[
        check(
            "Is there a rule that rejects with a RST?",
            "nft list ruleset | grep -n 'reject with tcp reset'",
        ),
        check("In the old form?", "iptables-save | grep -n tcp-reset"),
        check("Is it hit?", "nft list ruleset -a; iptables -nvL"),
        check(
            "Does a RST leave that rstwatch does not show? It needs a look at the packets, which rstwatch does not take.",
            "tcpdump -ni any 'tcp[tcpflags] & tcp-rst != 0'",
        ),
    ],
    advice: "Look for reject rules: `nft list ruleset | grep 'reject with tcp reset'`, \
             `iptables-save | grep tcp-reset`.",
    function: "nf_send_reset, nf_send_reset6",
    reasons: &[],
    counters: &[],
    certainty: &[certain(
        Confidence::Possible,
        "none",
        "no hook sees it and no counter counts it: rstwatch makes no such verdict",
    )],
    related: &[CauseId::Refused, CauseId::ClosedPort],
};
