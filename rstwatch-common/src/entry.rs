//! Keys and values of the BPF maps. Records embed them, so that user space learns in one read
//! what the kernel side knew about a socket at the moment of its reset.

use crate::{COMM_LEN, plain_data};

plain_data! {
    /// A task at the moment a hook ran in its context.
    pub struct Task {
        /// Process id (thread-group id), as the initial PID namespace numbers it. 0: no task known.
        pub pid: u32,
        /// Thread id, in the initial PID namespace.
        pub tid: u32,
        /// Real user id, in the initial user namespace.
        pub uid: u32,
        /// `task_struct.flags` (`PF_*` of `include/linux/sched.h`).
        pub flags: u32,
        /// When the thread group's leader started: nanoseconds of `CLOCK_BOOTTIME`. 0: unknown.
        /// It tells a process from a later one that got the same PID.
        pub start_ns: u64,
        /// The name of the thread group's leader, NUL-padded; any bytes may be in it.
        pub comm: [u8; COMM_LEN],
        /// `task_struct.exit_code` of a task that is exiting: signal in the low 7 bits, exit status in bits 8
        /// to 15. 0 of any other.
        pub exit_code: u32,
        /// `TASK_*` bits.
        pub marks: u32,
    }
    size 48
}

/// `PF_EXITING`: the task is being torn down (`include/linux/sched.h`, 5.10 to 7.2).
pub const PF_EXITING: u32 = 0x4;
/// `PF_SIGNALED`: killed by a signal.
pub const PF_SIGNALED: u32 = 0x400;
/// `PF_KTHREAD`: a kernel thread, which is never an application.
pub const PF_KTHREAD: u32 = 0x0020_0000;

/// [`Task::marks`]: the OOM killer had chosen the process (`signal_struct.oom_mm`).
pub const TASK_OOM: u32 = 1;

impl Task {
    /// No task: what an entry holds before one is known.
    pub const NONE: Self = Self {
        pid: 0,
        tid: 0,
        uid: 0,
        flags: 0,
        start_ns: 0,
        comm: [0; COMM_LEN],
        exit_code: 0,
        marks: 0,
    };

    /// Whether a task is recorded here at all.
    pub const fn is_known(&self) -> bool {
        self.pid != 0
    }
}

plain_data! {
    /// A connection's two ends as its own host sees them.
    ///
    /// IPv4 addresses stand in their IPv4-mapped IPv6 form (`::ffff:a.b.c.d`), whichever family the
    /// socket has, so that a connection has one key only.
#[repr(align(8))]
    pub struct Tuple {
        /// This host's address, in network byte order.
        pub local: [u8; 16],
        /// The other end's address, in network byte order.
        pub remote: [u8; 16],
        /// This host's port, in host byte order.
        pub local_port: u16,
        /// The other end's port, in host byte order.
        pub remote_port: u16,
        /// Inode number of the network namespace; 0 when it could not be read.
        pub netns: u32,
    }
    size 40
}

impl Tuple {
    /// No connection.
    pub const EMPTY: Self = Self {
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        netns: 0,
    };
}

/// [`SocketEntry::via`]: no owner known.
pub const VIA_NONE: u8 = 0;
/// [`SocketEntry::via`]: the owner called `connect()`.
pub const VIA_CONNECT: u8 = 1;
/// [`SocketEntry::via`]: the owner called `listen()`.
pub const VIA_LISTEN: u8 = 2;
/// [`SocketEntry::via`]: the owner closed it, or shut down its sending side.
pub const VIA_CLOSE: u8 = 3;

/// [`SocketEntry::marks`]: a reset of this socket went to user space.
pub const MARK_RESET: u8 = 1;
/// [`SocketEntry::marks`]: at the reset a process still held the socket and no owner was known, so
/// that `tcp_destroy_sock`, when that process closes it, tells the owner.
pub const MARK_AWAIT_CLOSE: u8 = 2;
/// [`SocketEntry::marks`]: `tcp_receive_reset` fired in a way that data for a closed receiving side
/// also causes; if `tcp_send_reset` follows for this socket, no RST had come.
pub const MARK_MAYBE_DATA: u8 = 4;

/// [`SocketEntry::marks`]: its process's `close()` ended it with a reset.
pub const MARK_ABORTED: u8 = 8;
/// [`SocketEntry::marks`], with [`MARK_MAYBE_DATA`]: user space was not told of that.
pub const MARK_UNTOLD: u8 = 16;

plain_data! {
    /// What is known about a socket, while it lives (map `ENTRIES`, found by the socket's kernel
    /// address) and a while after (map `HISTORY`).
    pub struct SocketEntry {
        /// Whose socket it is.
        pub owner: Task,
        /// Who closed it or shut it down.
        pub closer: Task,
        /// When it was first seen (connect or listen): nanoseconds of `CLOCK_MONOTONIC`, up to a jiffy
        /// early; 0: unknown.
        pub born_ns: u64,
        /// When the closer closed it, or a timeout ended it: nanoseconds of `CLOCK_MONOTONIC`, up to a
        /// jiffy early; 0: neither.
        pub closed_ns: u64,
        /// How the owner is known: `VIA_*`.
        pub via: u8,
        /// The state before the last change that matters (`TCP_*` numbers of
        /// `include/net/tcp_states.h`); 0: unknown.
        pub prev_state: u8,
        /// `MARK_*` bits.
        pub marks: u8,
        /// Zero.
        pub pad: u8,
        /// `sk_err` at the change to CLOSE, a positive errno; 0: none.
        pub error: u16,
        /// Zero.
        pub pad2: u16,
    }
    size 120
}

impl SocketEntry {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        owner: Task::NONE,
        closer: Task::NONE,
        born_ns: 0,
        closed_ns: 0,
        via: VIA_NONE,
        prev_state: 0,
        marks: 0,
        pad: 0,
        error: 0,
        pad2: 0,
    };
}
