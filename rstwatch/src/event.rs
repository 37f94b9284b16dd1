//! The vocabulary of the user-space side: a reset as it travels from `decode` to the sinks.
//!
//! Plain values without behaviour beyond naming and printing themselves. Nothing here reads the
//! system, and nothing on the way of a common event allocates.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use arrayvec::ArrayVec;

/// Which way the RST went, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This host sent it.
    Sent,
    /// This host received it.
    Received,
}

impl Direction {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IPv4-mapped IPv6 addresses stand as IPv4.
    pub addr: IpAddr,
    /// In host byte order.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => f.write_str(ipv4_text(addr, &mut [0; _]))?,
            IpAddr::V6(addr) => write!(f, "[{addr}]")?,
        }
        f.write_str(":")?;
        f.write_str(itoa::Buffer::new().format(self.port))
    }
}

/// Each octet with a dot behind it, and how long that is.
pub static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (text, len) = &mut octets[octet];
        let mut scale = if octet >= 100 {
            100
        } else if octet >= 10 {
            10
        } else {
            1
        };
        while scale > 0 {
            text[*len as usize] = b'0' + (octet / scale % 10) as u8;
            *len += 1;
            scale /= 10;
        }
        text[*len as usize] = b'.';
        *len += 1;
        octet += 1;
    }
    octets
};

/// Writes `addr` into `buffer`, as [`Ipv4Addr`]'s own `Display` would, in a fraction of its time: each
/// event prints several.
pub fn ipv4_text(addr: Ipv4Addr, buffer: &mut [u8; 16]) -> &str {
    let mut len = 0;
    for octet in addr.octets() {
        let (text, octet_len) = OCTETS[usize::from(octet)];
        // Four bytes, of which those beyond its length are written over. An octet before has at most four.
        buffer[len..len + 4].copy_from_slice(&text);
        len += usize::from(octet_len);
    }
    // SAFETY: only digits and dots were written, and the last is a dot.
    unsafe { std::str::from_utf8_unchecked(&buffer[..len - 1]) }
}

/// TCP states with the kernel's numbers (`include/net/tcp_states.h`, unchanged from 5.10 to 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are RFC 9293's")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
}

impl TcpState {
    /// The state with the kernel's number `number`.
    pub const fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynRecv,
            _ => return None,
        })
    }

    /// The kernel's name without `TCP_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::NewSynRecv => "NEW_SYN_RECV",
        }
    }
}

/// The kernel's reason for a reset (`enum sk_rst_reason`). The numbers differ between kernels, so
/// they become names through the running kernel's BTF; a name that rstwatch does not know is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Reason {
    NotSpecified,
    NoSocket,
    InvalidAckSequence,
    Paws,
    TooOldAck,
    AckUnsentData,
    Flags,
    OldAck,
    AbortOnData,
    TimewaitSocket,
    InvalidSyn,
    AbortOnClose,
    AbortOnLinger,
    AbortOnMemory,
    State,
    KeepaliveTimeout,
    DisconnectWithData,
    /// Any other name, `MPTCP_RST_*` among them.
    Other(&'static str),
}

/// Names without `SK_RST_REASON_`, as they stand in `include/net/rstreason.h`.
const REASON_NAMES: [(Reason, &str); 17] = [
    (Reason::NotSpecified, "NOT_SPECIFIED"),
    (Reason::NoSocket, "NO_SOCKET"),
    (Reason::InvalidAckSequence, "TCP_INVALID_ACK_SEQUENCE"),
    (Reason::Paws, "TCP_RFC7323_PAWS"),
    (Reason::TooOldAck, "TCP_TOO_OLD_ACK"),
    (Reason::AckUnsentData, "TCP_ACK_UNSENT_DATA"),
    (Reason::Flags, "TCP_FLAGS"),
    (Reason::OldAck, "TCP_OLD_ACK"),
    (Reason::AbortOnData, "TCP_ABORT_ON_DATA"),
    (Reason::TimewaitSocket, "TCP_TIMEWAIT_SOCKET"),
    (Reason::InvalidSyn, "INVALID_SYN"),
    (Reason::AbortOnClose, "TCP_ABORT_ON_CLOSE"),
    (Reason::AbortOnLinger, "TCP_ABORT_ON_LINGER"),
    (Reason::AbortOnMemory, "TCP_ABORT_ON_MEMORY"),
    (Reason::State, "TCP_STATE"),
    (Reason::KeepaliveTimeout, "TCP_KEEPALIVE_TIMEOUT"),
    (Reason::DisconnectWithData, "TCP_DISCONNECT_WITH_DATA"),
];

impl Reason {
    /// The reason of this name (without `SK_RST_REASON_`), when rstwatch knows it.
    pub fn from_name(name: &str) -> Option<Self> {
        REASON_NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(reason, _)| *reason)
    }

    /// The kernel's name without `SK_RST_REASON_`.
    pub fn name(self) -> &'static str {
        if let Self::Other(name) = self {
            return name;
        }
        REASON_NAMES
            .iter()
            .find(|(reason, _)| *reason == self)
            .map_or("NOT_SPECIFIED", |(_, name)| name)
    }
}

/// A TCP header's flag byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Whether every flag of `mask` is set.
    pub const fn has(self, mask: u8) -> bool {
        self.0 & mask == mask
    }
}

impl TcpFlags {
    /// Hands out the text piece by piece: the set flags' names from FIN upwards, joined by `|`, as in `SYN|ACK`;
    /// `none` when none is set.
    ///
    /// # Errors
    ///
    /// The first of `write`'s.
    pub fn pieces<E>(self, mut write: impl FnMut(&'static str) -> Result<(), E>) -> Result<(), E> {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut left = self.0;
        if left == 0 {
            return write("none");
        }
        loop {
            write(NAMES[left.trailing_zeros() as usize])?;
            left &= left - 1;
            if left == 0 {
                return Ok(());
            }
            write("|")?;
        }
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces(|piece| f.write_str(piece))
    }
}

/// The segment that drew a reset from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its flags.
    pub flags: TcpFlags,
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its payload in bytes.
    pub payload: u32,
    /// Its window field, unscaled.
    pub window: u16,
    /// Its IPv4 time to live or IPv6 hop limit, as it arrived.
    pub ttl: u8,
}

/// A process's name: at most 15 bytes, of which any may be anything. Prints with control
/// characters, quotes-breaking bytes and invalid UTF-8 escaped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm([u8; rstwatch_common::COMM_LEN]);

impl Comm {
    /// From the kernel's bytes. Behind the first NUL may be the end of an older, longer name
    /// (`__set_task_comm`, `fs/exec.c`, 5.10: `strlcpy`), which makes no other name of it.
    pub const fn from_kernel(bytes: [u8; rstwatch_common::COMM_LEN]) -> Self {
        const LOWEST: u128 = u128::from_le_bytes([1; rstwatch_common::COMM_LEN]);
        let name = u128::from_le_bytes(bytes);
        // The highest bit of each byte that is zero, right up to the first of them.
        let ends = name.wrapping_sub(LOWEST) & !name & (LOWEST << 7);
        let before_end = ends.wrapping_sub(1) & !ends;
        let kept = if ends == 0 {
            name
        } else {
            name & (before_end >> 7)
        };
        Self(kept.to_le_bytes())
    }

    /// From text; what does not fit is cut.
    pub fn from_text(text: &[u8]) -> Self {
        let mut bytes = [0; rstwatch_common::COMM_LEN];
        let len = text.len().min(rstwatch_common::COMM_LEN - 1);
        bytes[..len].copy_from_slice(&text[..len]);
        Self(bytes)
    }

    /// The bytes before the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes from another process, printed so that no control character reaches a terminal: control
/// characters (C0, DEL, C1, and the Unicode marks that reorder text) and bytes that are not UTF-8
/// become `\x..` or `\u{..}`, a backslash becomes `\\`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl<'a> Escaped<'a> {
    /// The text, when it prints as it stands, as nearly every name does.
    pub fn as_plain(self) -> Option<&'a str> {
        let is_special = |byte: &u8| !(b' '..=b'~').contains(byte) || *byte == b'\\';
        // Without a way out before the end, so that many bytes are looked at together.
        let special = (self.0.iter()).fold(0, |special, byte| special | u8::from(is_special(byte)));
        // SAFETY: all of it is ASCII.
        (special == 0).then(|| unsafe { std::str::from_utf8_unchecked(self.0) })
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.as_plain() {
            return f.write_str(text);
        }
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    c if c.is_control() && u32::from(c) < 0x80 => {
                        write!(f, "\\x{:02x}", u32::from(c))?;
                    }
                    c if c.is_control() || reorders_text(c) => {
                        write!(f, "\\u{{{:x}}}", u32::from(c))?;
                    }
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Bidirectional marks and line separators, which can make a terminal show something else than
/// what is there.
fn reorders_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// How an owner is known; `owner.via` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// It called `connect()`.
    Connect,
    /// It called `listen()`.
    Listen,
    /// It closed the socket.
    Close,
    /// It was running in a context that is proven to be its own.
    Current,
    /// It held the socket when rstwatch started.
    Snapshot,
    /// It was found among the open files of `/proc`.
    Procfs,
    /// It listens on the port that the connection was made to: less sure.
    Listener,
}

impl Via {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Close => "close",
            Self::Current => "current",
            Self::Snapshot => "snapshot",
            Self::Procfs => "procfs",
            Self::Listener => "listener",
        }
    }
}

/// A process, identified by PID and start time.
#[derive(Debug, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`; `None` when unknown.
    pub start_ns: Option<u64>,
    /// Its name.
    pub comm: Comm,
    /// Real user id.
    pub uid: Option<u32>,
    /// Path of its executable, when it could be read while the process lived.
    pub exe: Option<Rc<str>>,
}

/// Whether both are the same. In a storm they are mostly the very same one.
fn is_same_path(one: Option<&Rc<str>>, other: Option<&Rc<str>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Rc::ptr_eq(one, other) || one == other,
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl PartialEq for Process {
    /// Whether the same is known of the same process.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            pid,
            start_ns,
            comm,
            uid,
            exe,
        } = self;
        *pid == other.pid
            && *start_ns == other.start_ns
            && *comm == other.comm
            && *uid == other.uid
            && is_same_path(exe.as_ref(), other.exe.as_ref())
    }
}

impl Clone for Process {
    fn clone(&self) -> Self {
        Self {
            exe: self.exe.clone(),
            ..*self
        }
    }

    /// Field by field where it belongs, as in [`Spare::event`].
    fn clone_from(&mut self, source: &Self) {
        let Self {
            pid,
            start_ns,
            comm,
            uid,
            exe,
        } = self;
        *pid = source.pid;
        *start_ns = source.start_ns;
        *comm = source.comm;
        *uid = source.uid;
        if !is_same_path(exe.as_ref(), source.exe.as_ref()) {
            exe.clone_from(&source.exe);
        }
    }
}

impl Process {
    /// Nanoseconds in a tick of the start times in `/proc` (`USER_HZ` is 100 on every architecture
    /// that rstwatch runs on).
    pub const TICK_NS: u64 = 10_000_000;

    /// Whether both are one process: same PID, and same start as exactly as `/proc` tells it. What
    /// is not known is not the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.pid == other.pid
            && match (self.start_ns, other.start_ns) {
                (Some(a), Some(b)) => a / Self::TICK_NS == b / Self::TICK_NS,
                _ => false,
            }
    }
}

/// Whose socket it is.
#[derive(Debug, Eq)]
pub struct Owner {
    /// The process.
    pub process: Process,
    /// How that is known.
    pub via: Via,
    /// Every process that holds the socket, when more than one does; else empty.
    pub holders: Vec<u32>,
}

impl PartialEq for Owner {
    /// Whether all is the same. There are seldom holders, and comparing none by `memcmp` took a tenth of
    /// the reader's time: probably since it asks for masked bytes at an address where nothing is.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            process,
            via,
            holders,
        } = self;
        *via == other.via
            && *process == other.process
            && holders.len() == other.holders.len()
            && (holders.is_empty() || *holders == other.holders)
    }
}

impl Clone for Owner {
    fn clone(&self) -> Self {
        Self {
            process: self.process.clone(),
            via: self.via,
            holders: self.holders.clone(),
        }
    }

    /// As that of [`Process`].
    fn clone_from(&mut self, source: &Self) {
        let Self {
            process,
            via,
            holders,
        } = self;
        process.clone_from(&source.process);
        *via = source.via;
        holders.clone_from(&source.holders);
    }
}

/// Who pulled the trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The process.
    pub process: Process,
    /// The thread.
    pub tid: u32,
    /// Whether it was exiting when it did so.
    pub exiting: bool,
    /// The signal that was killing it.
    pub signal: Option<u8>,
    /// The status that it exited with, when it exited by itself.
    pub exit_status: Option<u8>,
    /// Whether the OOM killer had chosen it.
    pub oom: bool,
    /// Whether it is a kernel thread: never an application.
    pub kernel_thread: bool,
}

/// Where the owner lives on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Path of its cgroup.
    pub cgroup: Option<Rc<str>>,
    /// Its systemd unit.
    pub unit: Option<Rc<str>>,
    /// Id of its container; for LXC its name.
    pub container: Option<Rc<str>>,
    /// What runs the container: docker, containerd, cri-o, podman, lxc; `None` when the path does
    /// not tell.
    pub runtime: Option<&'static str>,
    /// UID of its Kubernetes pod.
    pub pod: Option<Rc<str>>,
}

/// What made this host send a reset, or that it received one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A segment arrived that is answered with a RST.
    Segment,
    /// The host reset the connection of its own accord.
    Active {
        /// What the kernel was doing.
        path: Path,
        /// Whose context it ran in.
        context: Context,
    },
    /// A RST arrived.
    Received,
}

/// What the kernel was doing when it reset a connection of its own accord, read from its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// `close()`, or the end of the process (`__tcp_close`).
    Close,
    /// `connect(AF_UNSPEC)` (`tcp_disconnect` without close).
    Disconnect,
    /// A listener was closed with connections in its queue (`inet_csk_listen_stop`).
    ListenerClose,
    /// The socket was destroyed from outside (`tcp_abort`): `ss -K`, a BPF program.
    Destroy,
    /// The keepalive timer (`tcp_keepalive_timer`).
    KeepaliveTimer,
    /// The retransmission or zero-window timer (`tcp_write_timer`).
    WriteTimer,
    /// Multipath TCP (`mptcp_*`).
    Mptcp,
    /// The stack names none of these, or could not be read.
    Unknown,
}

/// Whose context an active reset ran in, read from the kernel's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// In a system call or at the end of the running task: `current` did it.
    Process,
    /// In a timer or on the receive path: `current` is a bystander.
    Interrupt,
    /// Not known: `current` is not believed.
    Unknown,
}

/// Evidence from the socket at the moment of the reset. `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each its own bit in the kernel"
)]
pub struct Socket {
    /// Nanoseconds since it was first seen.
    pub age_ns: Option<u64>,
    /// Nanoseconds since data was last received; `None` when none ever was.
    pub idle_rx_ns: Option<u64>,
    /// Nanoseconds since data was last sent; `None` when none ever was.
    pub idle_tx_ns: Option<u64>,
    /// Nanoseconds since the last ACK was received.
    pub idle_ack_ns: Option<u64>,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Bytes received that the application has not read.
    pub unread: u32,
    /// Bytes sent that the peer has not acknowledged.
    pub unacked: u32,
    /// `SO_LINGER`: seconds, when it is on.
    pub linger_s: Option<u64>,
    /// `TCP_LINGER2` negative: do not wait in FIN_WAIT2.
    pub no_fin_wait2: bool,
    /// `SO_KEEPALIVE` is on.
    pub keepalive: bool,
    /// Keepalive or window probes without an answer.
    pub probes_out: u8,
    /// `TCP_KEEPCNT`, when set on the socket.
    pub keepalive_probes: Option<u8>,
    /// `TCP_USER_TIMEOUT` in milliseconds, when set.
    pub user_timeout_ms: Option<u32>,
    /// Pending error (errno); 0: none.
    pub error: u32,
    /// The receiving side is shut down.
    pub rcv_shutdown: bool,
    /// The sending side is shut down.
    pub send_shutdown: bool,
    /// No process holds it any more.
    pub orphan: bool,
    /// A process, or the kernel, holds it (it has a `struct socket`).
    pub held: bool,
    /// It is the kernel's own.
    pub kernel_owned: bool,
    /// It is a subflow of a multipath TCP connection.
    pub mptcp: bool,
    /// Connections waiting to be accepted, and their limit, for a listener.
    pub backlog: Option<(u32, u32)>,
    /// Retransmitted segments over its life.
    pub total_retrans: u32,
    /// Inode of its file; 0: none.
    pub inode: u64,
    /// Id of the cgroup in the unified hierarchy that made it; 0: unknown. An accepted socket has
    /// its listener's.
    pub cgroup: u64,
}

/// How a connection ended that a segment comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Its process closed it in order.
    Closed,
    /// Its process closed it with a reset: unread data, or `SO_LINGER` 0.
    Aborted,
    /// A retransmission, probe or user timeout ended it.
    TimedOut,
    /// A reset from the peer ended it.
    Reset,
    /// It never came to be: the process gave up connecting, or the SYN's retries were spent.
    NeverConnected,
}

/// A listener on the port that a segment came for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Who listens, or listened last.
    pub process: Process,
    /// Inode of its socket's file; 0: not known.
    pub inode: u64,
    /// Nanoseconds since it began; `None` when it was there before the start.
    pub age_ns: Option<u64>,
    /// How it ended; `None` while it listens.
    pub ended: Option<ListenerEnd>,
}

/// How a listener ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerEnd {
    /// Who closed it.
    pub closer: Actor,
    /// Nanoseconds since then.
    pub ago_ns: u64,
}

/// The other end of a connection whose both ends are on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose socket the other end is.
    pub owner: Option<Owner>,
    /// Who pulled the trigger there.
    pub actor: Option<Actor>,
    /// The id of the cause of the other end's event.
    pub cause: &'static str,
}

/// What is known of a connection that had been closed before the segment came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Nanoseconds since its process closed it; `None` when it was not seen to.
    pub closed_ago_ns: Option<u64>,
    /// The state it was closed in.
    pub state: Option<TcpState>,
    /// How it ended.
    pub ended: Ended,
    /// Nanoseconds from its beginning, as far as it was seen, until it ended.
    pub lasted_ns: Option<u64>,
}

/// A reset, with all that is known about it but its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Sent or received.
    pub direction: Direction,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Its name, where it has one: `ip netns`'s, else the UID of the pod or the first digits of the
    /// id of the container that it belongs to.
    pub netns_name: Option<Rc<str>>,
    /// The state before the reset; `None` without a socket, or when it was not seen.
    pub state: Option<TcpState>,
    /// The kernel's reason.
    pub reason: Option<Reason>,
    /// What made the kernel send it.
    pub trigger: Trigger,
    /// The segment that drew it.
    pub segment: Option<Segment>,
    /// The socket it met or came from; `None` when there is none (TIME_WAIT has none either).
    pub socket: Option<Socket>,
    /// State within TIME_WAIT, when the segment met a TIME_WAIT socket: FIN_WAIT2 or TIME_WAIT.
    pub time_wait: Option<TcpState>,
    /// What is known of the closed connection that a segment came for.
    pub past: Option<Past>,
    /// Who listens, or listened, on the local port: for a segment that met no connection.
    pub listener: Option<Box<Listening>>,
    /// Whose socket it is.
    pub owner: Option<Owner>,
    /// Who pulled the trigger.
    pub actor: Option<Actor>,
    /// Where the owner lives.
    pub place: Option<Rc<Place>>,
    /// The other end, when it is on this host too.
    pub peer: Option<Box<Peer>>,
    /// For a SYN that met no socket: the different ports without a listener that its sender tried
    /// within the last seconds, this one among them (see `scan`).
    pub scan: Option<u32>,
}

impl Event {
    /// A reset between `local` and `remote` at `time_ns`, in nanoseconds since the Unix epoch, of
    /// which nothing more is known.
    pub const fn new(
        time_ns: u64,
        direction: Direction,
        trigger: Trigger,
        local: Endpoint,
        remote: Endpoint,
    ) -> Self {
        Self {
            time_ns,
            direction,
            local,
            remote,
            netns: None,
            netns_name: None,
            state: None,
            reason: None,
            trigger,
            segment: None,
            socket: None,
            time_wait: None,
            past: None,
            listener: None,
            owner: None,
            actor: None,
            place: None,
            peer: None,
            scan: None,
        }
    }

    /// Makes it what [`Event::new`] makes. Made elsewhere and moved here it would be read again in other pieces
    /// than it was written in, which keeps the processor waiting.
    #[expect(clippy::inline_always, reason = "as for `Spare::event`")]
    #[inline(always)]
    fn renew(
        &mut self,
        time_ns: u64,
        direction: Direction,
        trigger: Trigger,
        local: Endpoint,
        remote: Endpoint,
    ) {
        // Each by its name, so that none is forgotten.
        let Self {
            time_ns: own_time_ns,
            direction: own_direction,
            local: own_local,
            remote: own_remote,
            netns,
            netns_name,
            state,
            reason,
            trigger: own_trigger,
            segment,
            socket,
            time_wait,
            past,
            listener,
            owner,
            actor,
            place,
            peer,
            scan,
        } = self;
        *own_time_ns = time_ns;
        *own_direction = direction;
        *own_local = local;
        *own_remote = remote;
        *netns = None;
        *netns_name = None;
        *state = None;
        *reason = None;
        *own_trigger = trigger;
        *segment = None;
        *socket = None;
        *time_wait = None;
        *past = None;
        *listener = None;
        *owner = None;
        *actor = None;
        *place = None;
        *peer = None;
        *scan = None;
    }

    /// Whether both addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.local.addr.is_ipv4()
    }
}

/// Memory of events that are done with, for those to come: asking for new memory and giving it back took some
/// 3 % of the work on an event.
#[derive(Debug, Default)]
pub struct Spare(ArrayVec<Box<Event>, 8>);

impl Spare {
    /// What [`Event::new`] makes, in memory of its own.
    #[expect(
        clippy::inline_always,
        reason = "both ends are made where this is called: handed over, they are read in other pieces than they were written in"
    )]
    #[inline(always)]
    pub fn event(
        &mut self,
        time_ns: u64,
        direction: Direction,
        trigger: Trigger,
        local: Endpoint,
        remote: Endpoint,
    ) -> Box<Event> {
        match self.0.pop() {
            Some(mut event) => {
                event.renew(time_ns, direction, trigger, local, remote);
                event
            }
            None => Box::new(Event::new(time_ns, direction, trigger, local, remote)),
        }
    }

    /// Keeps the memory of an event, if there is little by now.
    pub fn keep(&mut self, event: Box<Event>) {
        // More than is kept goes.
        let _ = self.0.try_push(event);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{array, prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn ipv4_addresses_read_as_they_do_elsewhere(bits: u32) {
            let addr = Ipv4Addr::from_bits(bits);
            let mut buffer = [0; _];
            prop_assert_eq!(ipv4_text(addr, &mut buffer), addr.to_string());
        }
    }

    #[test]
    fn names_are_escaped_so_that_no_control_character_is_left() {
        let cases: [(&[u8], &str); 8] = [
            (b"nginx", "nginx"),
            (b"a b", "a b"),
            (b"a\x1b[31mb", "a\\x1b[31mb"),
            (b"a\nb\tc", "a\\nb\\tc"),
            (b"a\\b", "a\\\\b"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{9b}x\u{202e}y".as_bytes(), "\\u{9b}x\\u{202e}y"),
            ("größe".as_bytes(), "größe"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Escaped(bytes).to_string(), expected);
        }
    }

    #[test]
    fn a_name_ends_at_its_first_nul() {
        let name = Comm::from_kernel(*b"client\0h\0garbage");
        assert_eq!(name.as_bytes(), b"client");
        assert_eq!(name, Comm::from_text(b"client"), "what is behind it counts");
        assert_eq!(
            Comm::from_text(b"a-name-longer-than-it-may-be").as_bytes(),
            b"a-name-longer-t"
        );
    }

    proptest! {
        #[test]
        fn names_of_the_same_letters_are_the_same(
            // The bytes that are next to a NUL, and those that only their highest bit tells from one.
            bytes in array::uniform16(select(vec![0, 1, 2, 0x7f, 0x80, 0x81, 0xff])),
        ) {
            let end = bytes.iter().position(|&b| b == 0);
            let letters = &bytes[..end.unwrap_or(bytes.len())];
            let name = Comm::from_kernel(bytes);
            prop_assert_eq!(name.as_bytes(), letters);
            if end.is_some() {
                prop_assert_eq!(name, Comm::from_text(letters));
            }
        }
    }

    #[test]
    fn states_keep_the_kernels_numbers() {
        for number in 0..=u8::MAX {
            match TcpState::from_kernel(number) {
                Some(state) => assert_eq!(state as u8, number),
                None => assert!(number == 0 || number > 12),
            }
        }
    }

    #[test]
    fn reasons_are_found_by_their_names() {
        for (reason, name) in REASON_NAMES {
            assert_eq!(Reason::from_name(name), Some(reason));
            assert_eq!(reason.name(), name);
        }
        assert_eq!(Reason::from_name("MPTCP_RST_EMPTCP"), None);
        assert_eq!(Reason::Other("MPTCP_RST_EMPTCP").name(), "MPTCP_RST_EMPTCP");
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(TcpFlags(0x12).to_string(), "SYN|ACK");
        assert_eq!(TcpFlags(0).to_string(), "none");
    }
}
