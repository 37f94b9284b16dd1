//! What is widely believed to send a RST and does not on Linux, and what happens instead.

use super::super::CauseId;

/// A belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Myth {
    /// Its name, in the manner of a cause's.
    pub name: &'static str,
    /// The belief in a few words.
    pub title: &'static str,
    /// What happens instead.
    pub happens: &'static str,
    /// What to look at, with commands.
    pub check: &'static str,
    /// The kernel's functions that decide.
    pub function: &'static str,
    /// What counts it, as `nstat` names it.
    pub counters: &'static [&'static str],
    /// Causes that are meant, or that follow.
    pub related: &'static [CauseId],
}

/// Every belief.
pub const MYTHS: [Myth; 7] = [
    Myth {
        name: "retransmission-timeout",
        title: "giving up after retransmissions sends a RST",
        happens: "The connection ends silently: the process gets ETIMEDOUT and nothing is sent, \
                  whether net.ipv4.tcp_retries2 or TCP_USER_TIMEOUT ended it. Only if the peer \
                  sends something later does that segment meet no socket and draw a RST.",
        check: "`nstat -az TcpExtTCPAbortOnTimeout TcpExtTCPTimeouts`, `ss -ti` for rto and backoff.",
        function: "tcp_write_timeout, tcp_write_err",
        counters: &["TcpExtTCPAbortOnTimeout", "TcpExtTCPTimeouts"],
        related: &[CauseId::ConnectionTimedOut, CauseId::KeepaliveTimeout],
    },
    Myth {
        name: "syn-backlog-full",
        title: "a full SYN backlog refuses connections with a RST",
        happens: "The SYN is dropped, or answered with a SYN cookie. The client tries again and \
                  connects late, or times out. A full accept queue drops the SYN too; only the end \
                  of a handshake is reset, and only with net.ipv4.tcp_abort_on_overflow.",
        check: "`nstat -az TcpExtTCPReqQFullDrop TcpExtTCPReqQFullDoCookies TcpExtListenDrops`, \
                `ss -ltn` for the queues.",
        function: "tcp_conn_request",
        counters: &[
            "TcpExtTCPReqQFullDrop",
            "TcpExtTCPReqQFullDoCookies",
            "TcpExtListenDrops",
        ],
        related: &[CauseId::AcceptQueueOverflow, CauseId::ClosedPort],
    },
    Myth {
        name: "time-wait",
        title: "a segment for a connection in TIME_WAIT draws a RST",
        happens: "An old segment is answered with an ACK, and a new SYN beyond the old sequence \
                  numbers may open a connection. A RST comes only while the kernel's TIME_WAIT \
                  socket stands for FIN_WAIT2, when the peer sends data or a SYN instead of its FIN.",
        check: "`ss -tan state time-wait`, `nstat -az TcpExtTW`.",
        function: "tcp_timewait_state_process",
        counters: &["TcpExtTW"],
        related: &[CauseId::DataAfterClose, CauseId::BadSegment],
    },
    Myth {
        name: "host-shut-down",
        title: "a host that is shut down resets its connections",
        happens: "Processes are stopped by signals, and their sockets close as any others: a FIN, or \
                  a RST where data was unread or SO_LINGER was 0. Once the network is down nothing \
                  is sent at all, and after the boot the peers' segments meet no socket.",
        check: "`last -x shutdown reboot`, `journalctl -b -1 -e` on that host.",
        function: "tcp_close",
        counters: &["TcpExtTCPAbortOnClose"],
        related: &[
            CauseId::ProcessDied,
            CauseId::ClosedWithUnreadData,
            CauseId::HalfOpen,
        ],
    },
    Myth {
        name: "simultaneous-close",
        title: "both ends closing at the same time reset each other",
        happens: "Both FINs are acknowledged and both ends pass through CLOSING to TIME_WAIT. A RST \
                  comes only if data was still on its way to the end that had closed.",
        check: "`ss -tan state closing`.",
        function: "tcp_rcv_state_process, tcp_fin",
        counters: &["TcpExtTW"],
        related: &[CauseId::DataAfterClose, CauseId::ResetDuringClose],
    },
    Myth {
        name: "bad-checksum",
        title: "a segment with a wrong checksum draws a RST",
        happens: "The segment is dropped and counted, and the peer sends it again.",
        check: "`nstat -az TcpInCsumErrors TcpInErrs`; in a capture on the sender, checksums that \
                the network card fills in look wrong and are not.",
        function: "tcp_v4_rcv, tcp_rcv_established",
        counters: &["TcpInCsumErrors", "TcpInErrs"],
        related: &[CauseId::BadSegment],
    },
    Myth {
        name: "md5-mismatch",
        title: "a wrong or missing TCP-MD5 or TCP-AO signature draws a RST",
        happens: "The segment is dropped and counted; the connection stalls and times out. A RST \
                  without a valid signature is dropped as well.",
        check: "`nstat -az | grep -e TCPMD5 -e TCPAO`, `dmesg | grep -i md5`.",
        function: "tcp_inbound_hash, tcp_inbound_md5_hash",
        counters: &[
            "TcpExtTCPMD5NotFound",
            "TcpExtTCPMD5Unexpected",
            "TcpExtTCPMD5Failure",
        ],
        related: &[CauseId::ConnectionTimedOut],
    },
];
