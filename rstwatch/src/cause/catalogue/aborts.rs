//! The catalogue: resets of this host's own accord.

use super::{
    CauseId, Confidence, Entry, SENT, Symptom, certain, check, sees,
    symptom::{
        HAPROXY_SC, HAPROXY_SD, HAPROXY_SH, NGINX_RESET, NGINX_RESET_BODY, NGINX_TIMED_OUT, NO_LOG,
    },
};

/// `closed-with-unread-data`.
pub(super) const CLOSED_WITH_UNREAD_DATA: Entry = Entry {
    id: CauseId::ClosedWithUnreadData,
    name: "closed-with-unread-data",
    directions: SENT,
    title: "the process closed with unread bytes in its receive queue",
    happened: "The process closed the connection, or ended, before it had read all that the peer \
               had sent. The kernel says so with a RST instead of a FIN (RFC 1122, 4.2.2.13).",
    here: sees(&[], "Nothing: close() succeeds."),
    there: sees(
        &[Symptom::Reset, Symptom::Pipe],
        "Its next read or write fails, often before it has read the last answer.",
    ),
    logs: &[NGINX_RESET, NGINX_RESET_BODY, HAPROXY_SD, HAPROXY_SH],
    checks: &[
        check(
            "What was left unread? See the last reads before the close.",
            "strace -f -e trace=network,read,close -p PID",
        ),
        check(
            "Does the service reject a request before it has read the body? Let it read on, or close its sending side first and drain.",
            "for nginx: lingering_close, client_max_body_size",
        ),
        check(
            "Did it end while requests were in its queue?",
            "journalctl -u UNIT",
        ),
        check(
            "How often does it happen?",
            "nstat -az TcpExtTCPAbortOnClose",
        ),
    ],
    advice: "Look at what the process leaves unread before it closes: a request body that it \
             rejects, a pipelined request, a TLS close_notify. `strace -f -e trace=network,close \
             -p PID` shows the last reads; reading to the end before close() avoids it.",
    function: "__tcp_close",
    reasons: &["TCP_ABORT_ON_CLOSE"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnClose"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.12",
            "the reason, for a socket that is no subflow",
        ),
        certain(
            Confidence::Certain,
            "5.10",
            "unread bytes, the stack, and SO_LINGER other than 0",
        ),
        certain(
            Confidence::Likely,
            "5.10",
            "without a stack, or with SO_LINGER 0",
        ),
    ],
    related: &[
        CauseId::ProcessDied,
        CauseId::DataAfterClose,
        CauseId::LingerAbort,
        CauseId::PeerAborted,
    ],
};

/// `linger-abort`.
pub(super) const LINGER_ABORT: Entry = Entry {
    id: CauseId::LingerAbort,
    name: "linger-abort",
    directions: SENT,
    title: "the process closed with SO_LINGER 0",
    happened: "The process had set SO_LINGER with a time of 0, which makes close() throw away \
               what is queued and send a RST instead of a FIN.",
    here: sees(&[], "Nothing: close() succeeds."),
    there: sees(&[Symptom::Reset], "Its next read or write fails."),
    logs: &[NGINX_RESET_BODY, HAPROXY_SD],
    checks: &[
        check("Who sets it?", "strace -f -e trace=setsockopt -p PID"),
        check(
            "Is it wanted? Load generators, health checks and some proxies avoid TIME_WAIT so.",
            "grep -rn SO_LINGER in the source",
        ),
        check(
            "Are answers cut off? What was not sent yet is thrown away.",
            "rstwatch -j --cause linger-abort",
        ),
        check(
            "How often does it happen? It counts together with data after close.",
            "nstat -az TcpExtTCPAbortOnData",
        ),
    ],
    advice: "Find who sets it: `strace -f -e trace=setsockopt -p PID`. Load generators, health \
             checks and proxies do so on purpose to avoid TIME_WAIT; a service should not.",
    function: "tcp_disconnect (called by __tcp_close)",
    reasons: &["TCP_STATE", "TCP_DISCONNECT_WITH_DATA"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnData"],
    certainty: &[
        certain(Confidence::Certain, "5.10", "SO_LINGER 0 and the stack"),
        certain(Confidence::Likely, "5.10", "SO_LINGER 0 without a stack"),
    ],
    related: &[
        CauseId::ClosedWithUnreadData,
        CauseId::Disconnect,
        CauseId::ProcessDied,
    ],
};

/// `listener-closed`.
pub(super) const LISTENER_CLOSED: Entry = Entry {
    id: CauseId::ListenerClosed,
    name: "listener-closed",
    directions: SENT,
    title: "a listener ended with connections that nobody had accepted",
    happened: "A listener was closed, or its process ended, while finished connections waited in \
               its queue. Nobody can accept them any more, so the kernel resets each.",
    here: sees(&[], "Nothing: the connections were never accepted."),
    there: sees(
        &[Symptom::Reset],
        "connect() had succeeded; the first read or write fails.",
    ),
    logs: &[NGINX_RESET, HAPROXY_SC, HAPROXY_SH],
    checks: &[
        check(
            "Was the service restarted or stopped at that moment?",
            "journalctl -u UNIT",
        ),
        check(
            "How many connections waited to be accepted (Recv-Q)?",
            "ss -ltn sport = :PORT",
        ),
        check(
            "Can the restart drain? Stop new connections, accept what waits, then close; or hand the listener over.",
            "systemctl list-sockets",
        ),
    ],
    advice: "On a restart stop new connections first, accept what waits, then close; or hand the \
             listener over. `ss -ltn` shows in Recv-Q how many wait.",
    function: "inet_csk_listen_stop, inet_child_forget",
    reasons: &["TCP_STATE"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(Confidence::Certain, "5.10", "the stack"),
        certain(
            Confidence::Likely,
            "5.10",
            "a connection that no process held, without a stack",
        ),
    ],
    related: &[
        CauseId::ListenerGone,
        CauseId::ProcessDied,
        CauseId::AcceptQueueOverflow,
    ],
};

/// `process-died`.
pub(super) const PROCESS_DIED: Entry = Entry {
    id: CauseId::ProcessDied,
    name: "process-died",
    directions: SENT,
    title: "the process was killed or failed with the connection open",
    happened: "The process was killed by a signal or the OOM killer, or ended with an error, and \
               the kernel closed its sockets. One with unread data or SO_LINGER 0 is reset, the \
               others get a FIN.",
    here: sees(&[], "Nothing: the process is gone."),
    there: sees(&[Symptom::Reset], "Its next read or write fails."),
    logs: &[NGINX_RESET, NGINX_RESET_BODY, HAPROXY_SD, HAPROXY_SH],
    checks: &[
        check(
            "How did it end?",
            "systemctl status UNIT; journalctl -u UNIT -n 50",
        ),
        check("Did it crash?", "coredumpctl info PID"),
        check("Did the OOM killer take it?", "dmesg -T | grep -i oom"),
        check("Who sent the signal?", "killsnoop-bpfcc"),
        check(
            "Is it a stop by a deployment? Then drain connections before the time limit ends.",
            "systemctl show -p TimeoutStopUSec UNIT",
        ),
    ],
    advice: "See why it ended: `journalctl -u UNIT`, `coredumpctl info PID`, `dmesg -T | grep -i \
             -e oom -e segfault`. A stop by SIGTERM needs a handler that drains the connections.",
    function: "do_exit, then __tcp_close",
    reasons: &["TCP_ABORT_ON_CLOSE", "TCP_STATE"],
    counters: &[
        "TcpOutRsts",
        "TcpExtTCPAbortOnClose",
        "TcpExtTCPAbortOnData",
    ],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.12",
            "how the process ended, and the reason for the reset",
        ),
        certain(
            Confidence::Certain,
            "5.10",
            "the same with unread bytes or SO_LINGER 0, and the stack",
        ),
        certain(Confidence::Likely, "5.10", "without a stack"),
    ],
    related: &[
        CauseId::ClosedWithUnreadData,
        CauseId::LingerAbort,
        CauseId::ListenerGone,
        CauseId::ListenerClosed,
    ],
};

/// `keepalive-timeout`.
pub(super) const KEEPALIVE_TIMEOUT: Entry = Entry {
    id: CauseId::KeepaliveTimeout,
    name: "keepalive-timeout",
    directions: SENT,
    title: "keepalive probes went unanswered",
    happened: "The connection was idle, the kernel probed the peer and got no answer to \
               TCP_KEEPCNT probes: the peer is gone, or something between drops the segments.",
    here: sees(&[Symptom::TimedOut], "Its next call fails."),
    there: sees(
        &[Symptom::Reset],
        "If it is there and the RST reaches it, its next call fails.",
    ),
    logs: &[NGINX_TIMED_OUT, HAPROXY_SD],
    checks: &[
        check("Is the peer alive and reachable?", "ping PEER"),
        check(
            "Does something between drop idle connections? Then probe more often than its limit.",
            "sysctl -a --pattern tcp_keepalive",
        ),
        check("Which sockets probe, and when?", "ss -tnop"),
        check(
            "How often does it happen?",
            "nstat -az TcpExtTCPAbortOnTimeout TcpExtTCPKeepAlive",
        ),
    ],
    advice: "Check whether the peer is alive and whether a firewall or NAT between forgets idle \
             connections. `ss -tno` shows the keepalive timers, `sysctl net.ipv4 | grep \
             keepalive` the defaults.",
    function: "tcp_keepalive_timer",
    reasons: &["TCP_KEEPALIVE_TIMEOUT"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnTimeout"],
    certainty: &[
        certain(Confidence::Certain, "6.12", "the reason"),
        certain(
            Confidence::Certain,
            "5.10",
            "SO_KEEPALIVE, unanswered probes and the stack",
        ),
        certain(Confidence::Likely, "5.10", "without a stack, in a timer"),
    ],
    related: &[CauseId::ConnectionTimedOut, CauseId::IdleDrop],
};

/// `fin-wait2-timeout`.
pub(super) const FIN_WAIT2_TIMEOUT: Entry = Entry {
    id: CauseId::FinWait2Timeout,
    name: "fin-wait2-timeout",
    directions: SENT,
    title: "the peer did not finish closing in time",
    happened: "This host had closed its side, the peer had acknowledged that but not closed its \
               own, and nobody waits for it any longer: TCP_LINGER2 says not to, or the time is \
               over.",
    here: sees(&[], "Nothing: the socket was closed."),
    there: sees(
        &[Symptom::Reset, Symptom::Pipe],
        "A process that still writes gets an error.",
    ),
    logs: &[NO_LOG],
    checks: &[
        check(
            "Which connections wait for the peer to close?",
            "ss -tanp state fin-wait-2",
        ),
        check(
            "How long does this host wait?",
            "sysctl net.ipv4.tcp_fin_timeout",
        ),
        check(
            "Does the process say not to wait?",
            "strace -f -e trace=setsockopt -p PID",
        ),
        check(
            "Why does the peer not close? It may leak connections in CLOSE_WAIT.",
            "on the peer: ss -tanp state close-wait",
        ),
    ],
    advice: "See why the peer leaves its side open. `sysctl net.ipv4.tcp_fin_timeout` is how \
             long this host waits; a negative TCP_LINGER2, set by the process, makes it not wait \
             at all.",
    function: "__tcp_close, tcp_rcv_state_process, tcp_keepalive_timer",
    reasons: &["TCP_ABORT_ON_LINGER", "TCP_ABORT_ON_DATA", "TCP_STATE"],
    counters: &[
        "TcpOutRsts",
        "TcpExtTCPAbortOnLinger",
        "TcpExtTCPAbortOnData",
    ],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.12",
            "the reason; for the timer the stack as well",
        ),
        certain(Confidence::Certain, "5.10", "socket, state and stack"),
        certain(Confidence::Likely, "5.10", "without a stack or a state"),
    ],
    related: &[CauseId::DataAfterClose, CauseId::OrphanLimit],
};

/// `orphan-limit`.
pub(super) const ORPHAN_LIMIT: Entry = Entry {
    id: CauseId::OrphanLimit,
    name: "orphan-limit",
    directions: SENT,
    title: "too many orphans, or out of TCP memory",
    happened: "The kernel finishes connections that processes have closed (orphans). There are \
               too many of them, or TCP has used up its memory, so it resets one instead.",
    here: sees(
        &[],
        "Nothing: the socket was closed; what it had still to send is lost.",
    ),
    there: sees(
        &[Symptom::Reset],
        "Its read fails before the end of the answer.",
    ),
    logs: &[NO_LOG],
    checks: &[
        check(
            "How many orphans are there, and how much memory (pages)?",
            "cat /proc/net/sockstat",
        ),
        check(
            "What are the limits?",
            "sysctl net.ipv4.tcp_max_orphans net.ipv4.tcp_mem",
        ),
        check(
            "What does the kernel say?",
            "dmesg -T | grep -e 'too many orphaned' -e 'tuning tcp_mem'",
        ),
        check(
            "Who closes connections that peers do not finish?",
            "ss -tan state fin-wait-1; ss -tan state last-ack",
        ),
    ],
    advice: "Look at `cat /proc/net/sockstat` (orphan, mem in pages) against `sysctl \
             net.ipv4.tcp_max_orphans net.ipv4.tcp_mem`, and at `dmesg | grep TCP:`.",
    function: "tcp_check_oom (from __tcp_close or tcp_out_of_resources)",
    reasons: &["TCP_ABORT_ON_MEMORY"],
    counters: &["TcpOutRsts", "TcpExtTCPAbortOnMemory"],
    certainty: &[
        certain(Confidence::Certain, "6.12", "the reason"),
        certain(
            Confidence::Certain,
            "5.10",
            "the stack of the retransmission timer, or an orphan and the stack of close",
        ),
        certain(
            Confidence::Likely,
            "5.10",
            "where TCP_LINGER2 could be the cause too",
        ),
    ],
    related: &[CauseId::FinWait2Timeout],
};

/// `disconnect`.
pub(super) const DISCONNECT: Entry = Entry {
    id: CauseId::Disconnect,
    name: "disconnect",
    directions: SENT,
    title: "the process took the socket off its peer with connect(AF_UNSPEC)",
    happened: "A process called connect() with the address family AF_UNSPEC on a connected \
               socket, which ends the connection at once and keeps the socket.",
    here: sees(&[], "Nothing: connect(AF_UNSPEC) succeeds."),
    there: sees(&[Symptom::Reset], "Its next read or write fails."),
    logs: &[NO_LOG],
    checks: &[
        check("Who calls it?", "strace -f -e trace=connect -p PID"),
        check(
            "Is it wanted? close() ends a connection in order.",
            "grep -rn AF_UNSPEC in the source",
        ),
    ],
    advice: "Find the call: `strace -f -e trace=connect -p PID`. It is rare in applications: \
             connection pools and tests use it to reuse a socket.",
    function: "tcp_disconnect (called by __inet_stream_connect)",
    reasons: &["TCP_STATE", "TCP_DISCONNECT_WITH_DATA"],
    counters: &["TcpOutRsts"],
    certainty: &[
        certain(Confidence::Certain, "5.10", "the stack"),
        certain(
            Confidence::Likely,
            "6.12",
            "TCP_DISCONNECT_WITH_DATA without a stack",
        ),
    ],
    related: &[CauseId::LingerAbort, CauseId::SocketDestroyed],
};

/// `socket-destroyed`.
pub(super) const SOCKET_DESTROYED: Entry = Entry {
    id: CauseId::SocketDestroyed,
    name: "socket-destroyed",
    directions: SENT,
    title: "somebody destroyed the socket from outside",
    happened: "An administrator or an agent told the kernel to destroy the socket of another \
               process: `ss -K`, a BPF program, or a network manager after an address change.",
    here: sees(&[Symptom::Aborted], "Its next call fails."),
    there: sees(&[Symptom::Reset], "Its next read or write fails."),
    logs: &[HAPROXY_SD],
    checks: &[
        check(
            "Who did it? The actor of the event.",
            "rstwatch -w --cause socket-destroyed",
        ),
        check("Was it a person?", "last; journalctl _COMM=sudo"),
        check(
            "Was it an agent? Cilium, and network managers after an address change, do so.",
            "bpftool prog list",
        ),
    ],
    advice: "The actor of the event is who did it. Ask why: a manual `ss -K`, a fail-over \
             script, a Kubernetes network agent.",
    function: "tcp_abort",
    reasons: &["TCP_STATE"],
    counters: &["TcpOutRsts"],
    certainty: &[certain(Confidence::Certain, "5.10", "the stack")],
    related: &[CauseId::Disconnect, CauseId::LingerAbort],
};

/// `mptcp`.
pub(super) const MPTCP: Entry = Entry {
    id: CauseId::Mptcp,
    name: "mptcp",
    directions: SENT,
    title: "a rule of multipath TCP",
    happened: "Multipath TCP rejected or ended a subflow: a join that may not be, a wrong \
               mapping, or the fast close of the whole connection.",
    here: sees(
        &[Symptom::Reset],
        "An error only when the last subflow ends.",
    ),
    there: sees(
        &[Symptom::Reset],
        "An error only when the last subflow ends.",
    ),
    logs: &[NO_LOG],
    checks: &[
        check("Which connections are multipath?", "ss -M"),
        check("What may join?", "ip mptcp limits; ip mptcp endpoint"),
        check("What does the kernel count?", "nstat -az | grep MPTcp"),
        check(
            "Was it a fast close? Then see whether the process leaves data unread.",
            "strace -f -e trace=network,read,close -p PID",
        ),
    ],
    advice: "See `ss -M` and `ip mptcp limits`, and the counters `nstat -az | grep MPTcp`. A \
             fast close is to MPTCP what closing with unread data is to TCP.",
    function: "mptcp_do_fastclose, mptcp_subflow_reset",
    reasons: &["MPTCP_RST_", "TCP_ABORT_ON_CLOSE"],
    counters: &["TcpOutRsts", "MPTcpExtMPRstTx", "MPTcpExtMPFastcloseTx"],
    certainty: &[
        certain(
            Confidence::Certain,
            "6.10",
            "a reason MPTCP_RST_* in answer to a segment",
        ),
        certain(
            Confidence::Certain,
            "6.12",
            "the same, or TCP_ABORT_ON_CLOSE for a subflow",
        ),
        certain(Confidence::Certain, "5.12", "a subflow and the stack"),
        certain(Confidence::Likely, "5.12", "a subflow without a stack"),
    ],
    related: &[CauseId::ClosedWithUnreadData],
};
