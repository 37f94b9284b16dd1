//! What the ring buffer carries from the BPF programs to user space.
//!
//! Every record begins with a [`Header`], whose `kind` decides the type of the whole. A record's
//! length is that of its type: a reader rejects any other.

use crate::{
    entry::{SocketEntry, Task, Tuple},
    plain_data,
};

/// The layout's version. User space refuses records of another one.
pub const LAYOUT_VERSION: u16 = 1;

/// [`Header::kind`] of a [`SegmentReset`].
pub const KIND_SEGMENT_RESET: u16 = 1;
/// [`Header::kind`] of a [`LateReset`].
pub const KIND_LATE_RESET: u16 = 2;
/// [`Header::kind`] of a [`SocketReset`] that this host sent in answer to a segment.
pub const KIND_SOCKET_RESET: u16 = 3;
/// [`Header::kind`] of an [`ActiveReset`].
pub const KIND_ACTIVE_RESET: u16 = 4;
/// [`Header::kind`] of a [`SocketReset`] from `tcp_receive_reset`.
pub const KIND_RECEIVED: u16 = 5;
/// [`Header::kind`] of a [`Closed`].
pub const KIND_CLOSED: u16 = 6;
/// [`Header::kind`] of a [`Listener`] that begins to listen.
pub const KIND_LISTEN: u16 = 7;
/// [`Header::kind`] of a [`Listener`] that is closed.
pub const KIND_LISTEN_END: u16 = 8;

plain_data! {
    /// The start of every record.
    pub struct Header {
        /// `KIND_*`.
        pub kind: u16,
        /// [`LAYOUT_VERSION`].
        pub version: u16,
        /// The CPU that the hook ran on.
        pub cpu: u32,
        /// `bpf_ktime_get_ns`: nanoseconds of `CLOCK_MONOTONIC`.
        pub time_ns: u64,
        /// Kernel address of the socket, an identity and nothing more; 0: no socket.
        pub sock: u64,
    }
    size 24
}

/// [`Reset::flags`]: the segment fields are valid.
pub const HAS_SEGMENT: u8 = 1;
/// [`Reset::flags`]: the kernel gave a reason.
pub const HAS_REASON: u8 = 2;
/// [`Reset::flags`] of a [`Refused`]: the kernel itself owns the socket (`sk_kern_sock`).
pub const IS_KERNEL: u8 = 8;
/// [`Reset::flags`]: a read of the segment failed; its fields and the tuple are zero.
pub const READ_FAILED: u8 = 4;

plain_data! {
    /// What every reset has.
    pub struct Reset {
        /// The start of the record.
        pub header: Header,
        /// The connection, this host's end first.
        pub tuple: Tuple,
        /// `enum sk_rst_reason` as the running kernel numbers it; valid with [`HAS_REASON`].
        pub reason: u32,
        /// Sequence number of the segment that drew the reset; valid with [`HAS_SEGMENT`].
        pub seq: u32,
        /// Acknowledgement number of that segment.
        pub ack: u32,
        /// Payload bytes of that segment.
        pub payload: u32,
        /// The receiver's window field of that segment, unscaled.
        pub window: u16,
        /// Byte 13 of that segment's TCP header: CWR ECE URG ACK PSH RST SYN FIN.
        pub tcp_flags: u8,
        /// IPv4 time to live or IPv6 hop limit of that segment.
        pub ttl: u8,
        /// `sk_state` at the tracepoint; 0 without a socket.
        pub state: u8,
        /// `tw_substate` of a TIME_WAIT socket; 0 otherwise.
        pub substate: u8,
        /// `HAS_*`, `IS_KERNEL` and `READ_FAILED` bits.
        pub flags: u8,
        /// Zero.
        pub pad: u8,
    }
    size 88
}

impl Reset {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        header: Header {
            kind: 0,
            version: 0,
            cpu: 0,
            time_ns: 0,
            sock: 0,
        },
        tuple: Tuple::EMPTY,
        reason: 0,
        seq: 0,
        ack: 0,
        payload: 0,
        window: 0,
        tcp_flags: 0,
        ttl: 0,
        state: 0,
        substate: 0,
        flags: 0,
        pad: 0,
    };
}

plain_data! {
    /// `tcp_send_reset` in answer to a segment that met no full socket, and whose connection is not
    /// in the history either.
    pub struct SegmentReset {
        /// The reset.
        pub reset: Reset,
    }
    size 88
}

plain_data! {
    /// As [`SegmentReset`], for a connection that the history of closed connections knows. A segment
    /// that met a listener in its place is told so too.
    pub struct LateReset {
        /// The reset.
        pub reset: Reset,
        /// What was known when the socket went.
        pub past: SocketEntry,
    }
    size 208
}

/// [`SocketFacts::flags`]: `sk_socket` is set: a process or the kernel still holds the socket.
pub const SOCK_HELD: u8 = 1;
/// [`SocketFacts::flags`]: the kernel itself owns the socket (`sk_kern_sock`).
pub const SOCK_KERNEL: u8 = 2;
/// [`SocketFacts::flags`]: a subflow of a multipath TCP connection.
pub const SOCK_MPTCP: u8 = 4;

/// [`SocketFacts::flags`]: the socket's file is referenced more than once: by another process, by a
/// duplicate, or by a system call under way in a process of several threads.
pub const SOCK_SHARED: u8 = 8;

/// Bit of `sk_flags`: no process holds the socket any more (`SOCK_DEAD`, `include/net/sock.h`).
pub const SK_FLAG_DEAD: u32 = 1 << 0;
/// Bit of `sk_flags`: `SO_KEEPALIVE` is on (`SOCK_KEEPOPEN`).
pub const SK_FLAG_KEEPOPEN: u32 = 1 << 3;
/// Bit of `sk_flags`: `SO_LINGER` is on (`SOCK_LINGER`).
pub const SK_FLAG_LINGER: u32 = 1 << 4;

plain_data! {
    /// The fields of a full TCP socket that serve as evidence. Kernel names are given; zero where
    /// the running kernel lacks the field.
    pub struct SocketFacts {
        /// Inode of the socket's file, as `/proc/PID/fd` shows it; 0 without one.
        pub inode: u64,
        /// Bytes that were received in order (`bytes_received`).
        pub bytes_received: u64,
        /// Bytes that were acknowledged by the peer (`bytes_acked`).
        pub bytes_acked: u64,
        /// Bytes that were sent, retransmissions included (`bytes_sent`).
        pub bytes_sent: u64,
        /// `SO_LINGER` time in jiffies (`sk_lingertime`).
        pub linger_jiffies: u64,
        /// Socket id of `sock_diag` (`skc_cookie`); 0 when none was made.
        pub cookie: u64,
        /// Id of the socket's cgroup in the unified hierarchy (`sk_cgrp_data`), which is the inode
        /// of its directory; 0 without one.
        pub cgroup: u64,
        /// The jiffies counter now, low 32 bits, for the three stamps below.
        pub now_jiffies: u32,
        /// Jiffies of the last data sent (`lsndtime`).
        pub last_sent: u32,
        /// Jiffies of the last ACK received (`rcv_tstamp`).
        pub last_ack: u32,
        /// Jiffies of the last data received (`icsk_ack.lrcvtime`).
        pub last_received: u32,
        /// Next sequence number expected (`rcv_nxt`).
        pub rcv_nxt: u32,
        /// Head of what the application has not read (`copied_seq`).
        pub copied_seq: u32,
        /// First unacknowledged sequence number (`snd_una`).
        pub snd_una: u32,
        /// Next sequence number to send (`snd_nxt`).
        pub snd_nxt: u32,
        /// End of what the application wrote (`write_seq`).
        pub write_seq: u32,
        /// `sk_flags`, low 32 bits: `SK_FLAG_*`.
        pub sk_flags: u32,
        /// Pending error (`sk_err`), a positive errno.
        pub sk_err: u32,
        /// Owner's user id (`sk_uid`).
        pub uid: u32,
        /// `TCP_LINGER2` in jiffies (`linger2`); negative: no FIN_WAIT2 wait.
        pub linger2: i32,
        /// `TCP_USER_TIMEOUT` in milliseconds (`icsk_user_timeout`).
        pub user_timeout_ms: u32,
        /// `TCP_KEEPIDLE` in jiffies (`keepalive_time`); 0: the sysctl's.
        pub keepalive_idle: u32,
        /// `TCP_KEEPINTVL` in jiffies (`keepalive_intvl`); 0: the sysctl's.
        pub keepalive_interval: u32,
        /// Connections waiting to be accepted (`sk_ack_backlog`).
        pub ack_backlog: u32,
        /// Their limit (`sk_max_ack_backlog`).
        pub max_ack_backlog: u32,
        /// Smoothed round-trip time, microseconds times 8 (`srtt_us`).
        pub srtt_us8: u32,
        /// Retransmitted segments (`total_retrans`).
        pub total_retrans: u32,
        /// Unanswered probes (`icsk_probes_out`).
        pub probes_out: u8,
        /// Unanswered retransmissions (`icsk_retransmits`).
        pub retransmits: u8,
        /// `sk_shutdown`: 1 receiving side, 2 sending side.
        pub shutdown: u8,
        /// `TCP_KEEPCNT` (`keepalive_probes`); 0: the sysctl's.
        pub keepalive_probes: u8,
        /// `SOCK_*` bits.
        pub flags: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
    size 144
}

plain_data! {
    /// A reset on a full socket: `tcp_receive_reset`, or `tcp_send_reset` in answer to a segment.
    pub struct SocketReset {
        /// The reset.
        pub reset: Reset,
        /// The socket's fields at the tracepoint.
        pub socket: SocketFacts,
        /// What was known about the socket before.
        pub entry: SocketEntry,
    }
    size 352
}

/// Frames that an [`ActiveReset`] carries at the most. Of a longer stack the outer ones are cut off.
pub const STACK_FRAMES: usize = 24;

plain_data! {
    /// `tcp_send_reset` without a segment: this host resets the connection of its own accord.
    pub struct ActiveReset {
        /// The reset.
        pub reset: Reset,
        /// The socket's fields at the tracepoint.
        pub socket: SocketFacts,
        /// What was known about the socket before.
        pub entry: SocketEntry,
        /// The running task. Only the stack tells whether it has to do with the reset.
        pub current: Task,
        /// Return addresses, innermost first; zero after the last.
        pub stack: [u64; STACK_FRAMES],
    }
    size 592
}

plain_data! {
    /// A socket that had been reset while a process held it has now been closed by that process.
    pub struct Closed {
        /// The start of the record; `sock` is the socket.
        pub header: Header,
        /// The process that closed it.
        pub closer: Task,
    }
    size 72
}

/// [`Header::kind`] of a [`Refused`].
pub const KIND_REFUSED: u16 = 9;

plain_data! {
    /// `tcp_receive_reset` for a connect under way: the other fields of the socket tell nothing yet,
    /// and in a storm these records come by the hundred thousand.
    pub struct Refused {
        /// The reset.
        pub reset: Reset,
        /// Who connects.
        pub owner: Task,
        /// When it began: nanoseconds of `CLOCK_MONOTONIC`, up to a jiffy early.
        pub born_ns: u64,
        /// As [`SocketFacts::cgroup`].
        pub cgroup: u64,
    }
    size 152
}

plain_data! {
    /// A listener begins or ends.
    pub struct Listener {
        /// The start of the record; `sock` is the listener.
        pub header: Header,
        /// Its address, port and namespace; there is no remote end.
        pub tuple: Tuple,
        /// The process that calls `listen()`, or that closes it.
        pub task: Task,
        /// Inode of the listener's file.
        pub inode: u64,
    }
    size 120
}
