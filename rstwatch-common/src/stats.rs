//! Per-CPU counters of what the BPF programs could not do, and of what they did.

/// Index of each counter in the per-CPU array `STATS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// `tcp_send_reset` fired, and the program was there to count it: see [`Self::Interrupting`].
    Sent,
    /// `tcp_receive_reset` fired.
    Received,
    /// `tcp_receive_reset` fired for data on a closed receiving side: no RST had come.
    NotReceived,
    /// A sent reset that the filter in the kernel held back: see [`Self::InterruptingFiltered`] too.
    SentFiltered,
    /// `tcp_receive_reset` fired for a connection that the filter in the kernel held back.
    ReceivedFiltered,
    /// Of those, the ones for which no RST had come.
    NotReceivedFiltered,
    /// The same for a record that found no room in the ring: no reset's detail was lost with it.
    NotReceivedLost,
    /// A reset that the tally found no room for.
    Untallied,
    /// A reset's detail was lost because the ring was full.
    LostReset,
    /// A close of a reset socket was lost because the ring was full.
    LostClosed,
    /// A listener's begin or end was lost because the ring was full.
    LostListener,
    /// The table of live sockets had no place for one.
    SocketsFull,
    /// The history was busy: a closed connection was not remembered, or not found.
    HistoryFailed,
    /// A read of kernel memory failed.
    ReadFailed,
    /// The kernel stack could not be taken.
    StackFailed,
    /// `tcp_send_reset` fired for a reset of the kernel's own accord, which a process may be making in its
    /// own system call, with interrupts on.
    OfOwnAccord,
    /// `tcp_send_reset` fired in the middle of another one's hook: the kernel skipped the program, and a
    /// second one told of it.
    Interrupting,
    /// A sent reset that the filter in the kernel held back from that second program.
    InterruptingFiltered,
}

impl Stat {
    /// Every counter, in the order of its index.
    pub const ALL: [Self; 18] = [
        Self::Sent,
        Self::Received,
        Self::NotReceived,
        Self::SentFiltered,
        Self::ReceivedFiltered,
        Self::NotReceivedFiltered,
        Self::NotReceivedLost,
        Self::Untallied,
        Self::LostReset,
        Self::LostClosed,
        Self::LostListener,
        Self::SocketsFull,
        Self::HistoryFailed,
        Self::ReadFailed,
        Self::StackFailed,
        Self::OfOwnAccord,
        Self::Interrupting,
        Self::InterruptingFiltered,
    ];

    /// The counter's index in the map.
    pub const fn index(self) -> u32 {
        self as u32
    }
}

/// Entries of the per-CPU array.
pub const STAT_COUNT: u32 = Stat::ALL.len() as u32;
