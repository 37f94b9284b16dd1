//! What each cause means, written once: the `advice` of an event, the command line's list of
//! causes and whatever explains a cause to a person draw from here.
//!
//! What decides for a cause stands in [`super::rules`]. To add one: a variant of [`CauseId`], its
//! entry here at the same place, its rule there.

pub mod errno;

pub use self::errno::Errno;
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
    /// What the process on this host sees.
    pub here: Sees,
    /// What the process at the other end sees.
    pub there: Sees,
    /// What to look at next, with commands.
    pub advice: &'static str,
}

/// What a process sees of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sees {
    /// The errors that its calls may fail with, the usual one first.
    pub errnos: &'static [Errno],
    /// When and how.
    pub text: &'static str,
}

const fn sees(errnos: &'static [Errno], text: &'static str) -> Sees {
    Sees { errnos, text }
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
        here: sees(&[], "Nothing: no socket is involved."),
        there: sees(&[Errno::Refused], "connect() fails."),
        advice: "See what listens, and on which address: `ss -ltnp`. A service that listens on \
                 127.0.0.1 or in another network namespace (`lsns -t net`) is closed to this client.",
    },
    Entry {
        id: CauseId::ListenerGone,
        name: "listener-gone",
        directions: SENT,
        title: "a SYN came for a port whose listener has ended",
        happened: "A client tried to connect to a port that a service listened on until lately: it crashed, was stopped, or is being restarted.",
        here: sees(&[], "Nothing: no socket is involved."),
        there: sees(&[Errno::Refused], "connect() fails."),
        advice: "See how the service ended (`journalctl -u UNIT`, `coredumpctl`, `dmesg | grep -i oom`) and when it is back. For restarts without a gap hand the listener over: socket activation or SO_REUSEPORT.",
    },
    Entry {
        id: CauseId::LateSegment,
        name: "late-segment",
        directions: SENT,
        title: "a segment came for a connection that had ended here",
        happened: "The connection had ended on this host, and a segment of the peer was still on its way: an ACK, a FIN, or data that crossed the reset. The kernel has no socket for it any more.",
        here: sees(&[], "Nothing: the socket is gone."),
        there: sees(
            &[Errno::Reset, Errno::Pipe],
            "If the peer still held the connection, its next call fails; usually it had ended there too.",
        ),
        advice: "Mostly the echo of what ended the connection: look at the event before it with the same addresses (`rstwatch explain` its cause).",
    },
    Entry {
        id: CauseId::HalfOpen,
        name: "half-open",
        directions: SENT,
        title: "a segment came for a connection that this host does not know",
        happened: "The peer believes in a connection that does not exist here: this host rebooted, \
                   an address moved in a fail-over, a load balancer or NAT sent the flow to another \
                   backend, or connection tracking lost it.",
        here: sees(&[], "Nothing: no socket is involved."),
        there: sees(&[Errno::Reset], "The next call fails."),
        advice: "Ask what changed for this peer: uptime (`uptime -s`), address moves \
                 (`ip addr`), the load balancer's backends. `conntrack -S` shows dropped and \
                 invalid flows where this host filters or translates.",
    },
    Entry {
        id: CauseId::LateSynAck,
        name: "late-syn-ack",
        directions: SENT,
        title: "a SYN-ACK came after this host had given up connecting",
        happened: "A process here began to connect, gave up before the peer answered, and then the answer came.",
        here: sees(
            &[Errno::TimedOut],
            "The connect had already failed, or the process had closed the socket before.",
        ),
        there: sees(&[], "Usually nothing: the handshake is not finished there."),
        advice: "Compare the connect timeout of the process with the time that the evidence gives, and see why the peer answers so late: a full SYN queue, loss on the way (`nstat -az TcpExtTCPSynRetrans`).",
    },
    Entry {
        id: CauseId::Backscatter,
        name: "backscatter",
        directions: SENT,
        title: "a SYN-ACK came that nobody here asked for",
        happened: "A host answers a connect that did not come from here: somebody sends SYNs with this address as their sender, usually in an attack on that host, or routing is asymmetric.",
        here: sees(&[], "Nothing: no socket is involved."),
        there: sees(&[], "Nothing: the handshake was not finished there."),
        advice: "Nothing is wrong here unless the rate is high; then limit it at the edge. See with `tcpdump -ni any 'tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)'` that no SYN leaves before.",
    },
    Entry {
        id: CauseId::AcceptQueueOverflow,
        name: "accept-queue-overflow",
        directions: SENT,
        title: "the accept queue was full and tcp_abort_on_overflow is on",
        happened: "The process does not accept connections as fast as they come. Its queue is full, and net.ipv4.tcp_abort_on_overflow makes the kernel reset the client then instead of letting it try again.",
        here: sees(&[], "Nothing: the connection never reaches accept()."),
        there: sees(
            &[Errno::Reset],
            "connect() succeeds, and the first read or write fails.",
        ),
        advice: "See why the process does not accept: `ss -ltn` shows queue (Recv-Q) and limit (Send-Q). Raise the listen backlog and net.core.somaxconn, and leave `sysctl net.ipv4.tcp_abort_on_overflow` at 0.",
    },
    Entry {
        id: CauseId::ClosedWithUnreadData,
        name: "closed-with-unread-data",
        directions: SENT,
        title: "the process closed with unread bytes in its receive queue",
        happened: "The process closed the connection, or ended, before it had read all that the \
                   peer had sent. The kernel says so with a RST instead of a FIN (RFC 1122, \
                   4.2.2.13).",
        here: sees(&[], "Nothing: close() succeeds."),
        there: sees(
            &[Errno::Reset, Errno::Pipe],
            "Its next read or write fails, often before it has read the last answer.",
        ),
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
        here: sees(&[], "Nothing: close() succeeds."),
        there: sees(&[Errno::Reset], "Its next read or write fails."),
        advice: "Find who sets it: `strace -f -e trace=setsockopt -p PID`. Load generators, health \
                 checks and proxies do so on purpose to avoid TIME_WAIT; a service should not.",
    },
    Entry {
        id: CauseId::ListenerClosed,
        name: "listener-closed",
        directions: SENT,
        title: "a listener ended with connections that nobody had accepted",
        happened: "A listener was closed, or its process ended, while finished connections waited in its queue. Nobody can accept them any more, so the kernel resets each.",
        here: sees(&[], "Nothing: the connections were never accepted."),
        there: sees(
            &[Errno::Reset],
            "connect() had succeeded; the first read or write fails.",
        ),
        advice: "On a restart stop new connections first, accept what waits, then close; or hand the listener over. `ss -ltn` shows in Recv-Q how many wait.",
    },
    Entry {
        id: CauseId::ProcessDied,
        name: "process-died",
        directions: SENT,
        title: "the process was killed or failed with the connection open",
        happened: "The process was killed by a signal or the OOM killer, or ended with an error, and the kernel closed its sockets. One with unread data or SO_LINGER 0 is reset, the others get a FIN.",
        here: sees(&[], "Nothing: the process is gone."),
        there: sees(&[Errno::Reset], "Its next read or write fails."),
        advice: "See why it ended: `journalctl -u UNIT`, `coredumpctl info PID`, `dmesg -T | grep -i -e oom -e segfault`. A stop by SIGTERM needs a handler that drains the connections.",
    },
    Entry {
        id: CauseId::DataAfterClose,
        name: "data-after-close",
        directions: SENT,
        title: "the peer kept sending after the process had closed",
        happened: "The process had closed the connection, or shut down reading, and data came \
                   after that. Nobody can read it any more, so the kernel answered with a RST.",
        here: sees(
            &[],
            "Usually nothing: the socket was closed. A process that only shut it down may get an error from its next call.",
        ),
        there: sees(
            &[Errno::Reset, Errno::Pipe],
            "Its write fails, or its read fails before it saw the last bytes.",
        ),
        advice: "See why the process closed first: a timeout, an error, an answer sent before the \
                 whole request was read. It should shutdown(SHUT_WR) and read until the end before \
                 it closes.",
    },
    Entry {
        id: CauseId::ConnectionTimedOut,
        name: "connection-timed-out",
        directions: SENT,
        title: "a segment came for a connection that had died of a timeout",
        happened: "The peer did not acknowledge in time, so this host gave the connection up, without a RST. The peer was not gone: its next segment found no socket.",
        here: sees(
            &[Errno::TimedOut],
            "Its last call had failed by the timeout before.",
        ),
        there: sees(&[Errno::Reset], "Its next call fails."),
        advice: "Look for loss or a stall between the two: `nstat -az TcpExtTCPTimeouts TcpRetransSegs`, `ss -ti`. See whether TCP_USER_TIMEOUT or net.ipv4.tcp_retries2 is too short for this path.",
    },
    Entry {
        id: CauseId::KeepaliveTimeout,
        name: "keepalive-timeout",
        directions: SENT,
        title: "keepalive probes went unanswered",
        happened: "The connection was idle, the kernel probed the peer and got no answer to \
                   TCP_KEEPCNT probes: the peer is gone, or something between drops the segments.",
        here: sees(&[Errno::TimedOut], "Its next call fails."),
        there: sees(
            &[Errno::Reset],
            "If it is there and the RST reaches it, its next call fails.",
        ),
        advice: "Check whether the peer is alive and whether a firewall or NAT between forgets \
                 idle connections. `ss -tno` shows the keepalive timers, `sysctl net.ipv4 | grep \
                 keepalive` the defaults.",
    },
    Entry {
        id: CauseId::FinWait2Timeout,
        name: "fin-wait2-timeout",
        directions: SENT,
        title: "the peer did not finish closing in time",
        happened: "This host had closed its side, the peer had acknowledged that but not closed its own, and nobody waits for it any longer: TCP_LINGER2 says not to, or the time is over.",
        here: sees(&[], "Nothing: the socket was closed."),
        there: sees(
            &[Errno::Reset, Errno::Pipe],
            "A process that still writes gets an error.",
        ),
        advice: "See why the peer leaves its side open. `sysctl net.ipv4.tcp_fin_timeout` is how long this host waits; a negative TCP_LINGER2, set by the process, makes it not wait at all.",
    },
    Entry {
        id: CauseId::OrphanLimit,
        name: "orphan-limit",
        directions: SENT,
        title: "too many orphans, or out of TCP memory",
        happened: "The kernel finishes connections that processes have closed (orphans). There are too many of them, or TCP has used up its memory, so it resets one instead.",
        here: sees(
            &[],
            "Nothing: the socket was closed; what it had still to send is lost.",
        ),
        there: sees(
            &[Errno::Reset],
            "Its read fails before the end of the answer.",
        ),
        advice: "Look at `cat /proc/net/sockstat` (orphan, mem in pages) against `sysctl net.ipv4.tcp_max_orphans net.ipv4.tcp_mem`, and at `dmesg | grep TCP:`.",
    },
    Entry {
        id: CauseId::Disconnect,
        name: "disconnect",
        directions: SENT,
        title: "the process took the socket off its peer with connect(AF_UNSPEC)",
        happened: "A process called connect() with the address family AF_UNSPEC on a connected socket, which ends the connection at once and keeps the socket.",
        here: sees(&[], "Nothing: connect(AF_UNSPEC) succeeds."),
        there: sees(&[Errno::Reset], "Its next read or write fails."),
        advice: "Find the call: `strace -f -e trace=connect -p PID`. It is rare in applications: connection pools and tests use it to reuse a socket.",
    },
    Entry {
        id: CauseId::SocketDestroyed,
        name: "socket-destroyed",
        directions: SENT,
        title: "somebody destroyed the socket from outside",
        happened: "An administrator or an agent told the kernel to destroy the socket of another process: `ss -K`, a BPF program, or a network manager after an address change.",
        here: sees(&[Errno::Aborted], "Its next call fails."),
        there: sees(&[Errno::Reset], "Its next read or write fails."),
        advice: "The actor of the event is who did it. Ask why: a manual `ss -K`, a fail-over script, a Kubernetes network agent.",
    },
    Entry {
        id: CauseId::BadSegment,
        name: "bad-segment",
        directions: SENT,
        title: "the segment broke the protocol",
        happened: "The segment does not fit the state of its connection: an ACK for what was never sent, a wrong timestamp, a SYN within a connection, or flags that no TCP sends.",
        here: sees(
            &[],
            "Usually nothing. A connect goes on and may succeed or time out.",
        ),
        there: sees(
            &[Errno::Refused, Errno::Reset],
            "A connect is refused, or the next call fails.",
        ),
        advice: "Capture the flow with its neighbours: `tcpdump -ni any host PEER and port PORT`. Usual culprits: ports that are reused too early behind NAT, two hosts with one address, a middlebox that rewrites sequence numbers, a scanner.",
    },
    Entry {
        id: CauseId::Mptcp,
        name: "mptcp",
        directions: SENT,
        title: "a rule of multipath TCP",
        happened: "Multipath TCP rejected or ended a subflow: a join that may not be, a wrong mapping, or the fast close of the whole connection.",
        here: sees(&[Errno::Reset], "An error only when the last subflow ends."),
        there: sees(&[Errno::Reset], "An error only when the last subflow ends."),
        advice: "See `ss -M` and `ip mptcp limits`, and the counters `nstat -az | grep MPTcp`. A fast close is to MPTCP what closing with unread data is to TCP.",
    },
    Entry {
        id: CauseId::FirewallReject,
        name: "firewall-reject",
        directions: SENT,
        title: "a firewall on this host rejected the segment with a RST",
        happened: "A rule of netfilter on this host answers with a RST in place of the service. Such a RST passes no tracepoint and no counter.",
        here: sees(&[], "Nothing: the service never sees the segment."),
        there: sees(
            &[Errno::Refused, Errno::Reset],
            "connect() fails; in a connection, the next call.",
        ),
        advice: "Look for reject rules: `nft list ruleset | grep 'reject with tcp reset'`, `iptables-save | grep tcp-reset`.",
    },
    Entry {
        id: CauseId::Refused,
        name: "refused",
        directions: RECEIVED,
        title: "a connect was answered with a RST",
        happened: "This host sent a SYN and got a RST: nobody listens on that port over there, or \
                   a firewall on the way rejects with a RST.",
        here: sees(&[Errno::Refused], "connect() fails."),
        there: sees(&[], "Nothing: no socket is involved."),
        advice: "On the peer: `ss -ltn` for the port and its address, then its firewall \
                 (`nft list ruleset`) for a reject rule. Check the address and port that this \
                 process was given.",
    },
    Entry {
        id: CauseId::IdleDrop,
        name: "idle-drop",
        directions: RECEIVED,
        title: "what was sent after a silence was answered with a RST",
        happened: "Nothing had passed for a while. A load balancer, NAT or firewall on the way, or the peer itself, had dropped the connection; the first bytes after that were answered with a RST.",
        here: sees(
            &[Errno::Reset, Errno::Pipe],
            "The write succeeds; the read or write after it fails.",
        ),
        there: sees(&[], "Nothing: it had dropped the connection before."),
        advice: "Find the shortest idle limit on the way and stay below it: TCP keepalive (`sysctl net.ipv4.tcp_keepalive_time`, SO_KEEPALIVE), or a shorter idle time in the connection pool than in the server.",
    },
    Entry {
        id: CauseId::PeerAborted,
        name: "peer-aborted",
        directions: RECEIVED,
        title: "the peer reset an established connection",
        happened: "A RST came in the middle of the connection: the peer crashed, closed with \
                   unread data or with SO_LINGER 0, or something between dropped the connection.",
        here: sees(&[Errno::Reset], "Its next read or write fails."),
        there: sees(&[], "Depends on why it reset: mostly nothing."),
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
        here: sees(
            &[Errno::Pipe, Errno::Reset],
            "The next write fails, and raises SIGPIPE unless that is ignored.",
        ),
        there: sees(&[], "Nothing: its process had closed the connection."),
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
        here: sees(
            &[Errno::Reset],
            "Nothing when it has closed the socket; otherwise its next read fails.",
        ),
        there: sees(&[], "Depends on why it reset: mostly nothing."),
        advice: "Mostly harmless. When answers are lost, see whether this host closes before the \
                 peer has read everything, and what the peer does at the end of an exchange.",
    },
    Entry {
        id: CauseId::HandshakeReset,
        name: "handshake-reset",
        directions: RECEIVED,
        title: "the peer reset its unfinished handshake",
        happened: "The peer began to connect, this host answered, and the peer reset instead of finishing: a port scan, a health check, or a client that gave up.",
        here: sees(
            &[],
            "Nothing: the connection never reaches accept(), or is gone when it does.",
        ),
        there: sees(&[], "It gave up by itself."),
        advice: "Harmless when it is a health check or a scan: compare the address with the load balancer. Otherwise see why this host answers late: `nstat -az TcpExtTCPSynRetrans TcpExtListenDrops`.",
    },
    Entry {
        id: CauseId::ForgedReset,
        name: "forged-reset",
        directions: RECEIVED,
        title: "the RST does not look like the peer's own",
        happened: "A middlebox may have sent the RST in the name of the peer: its hop count or sequence number does not fit the connection. That shows in the packet only, which no hook hands over.",
        here: sees(&[Errno::Reset], "Its next read or write fails."),
        there: sees(
            &[Errno::Reset],
            "Often the same: the middlebox resets both ends.",
        ),
        advice: "Capture both ends: `tcpdump -vni any 'tcp[tcpflags] & tcp-rst != 0'` and compare TTL and IP id with those of earlier packets of the peer.",
    },
    Entry {
        id: CauseId::Unknown,
        name: "unknown",
        directions: EITHER,
        title: "none of the known causes fits",
        happened: "The evidence fits none of the causes that rstwatch tells apart.",
        here: sees(
            &[Errno::Reset],
            "An error when a process still held the socket.",
        ),
        there: sees(&[Errno::Reset], "Its next read or write fails."),
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
                entry.here.text,
                entry.there.text,
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
            for text in [
                entry.happened,
                entry.here.text,
                entry.there.text,
                entry.advice,
            ] {
                assert!(text.ends_with('.'), "{}: {text}", entry.name);
            }
        }
    }
}
