//! From records to events: names for numbers, ages for stamps, processes for tasks.
//!
//! What follows from one record alone is decided here, whose `current` is believed among it. What
//! takes a second record, or the rest of the system, is for `owner`.

use std::net::{Ipv4Addr, Ipv6Addr};

use rstwatch_common::{
    entry::{
        MARK_ABORTED, MARK_AWAIT_CLOSE, MARK_MAYBE_DATA, MARK_RESET, MARK_UNTOLD, PF_EXITING,
        PF_KTHREAD, SocketEntry, TASK_OOM, Task, Tuple, VIA_CLOSE, VIA_CONNECT, VIA_LISTEN,
    },
    record::{
        self, ActiveReset, HAS_REASON, HAS_SEGMENT, IS_KERNEL, Refused, Reset, SK_FLAG_DEAD,
        SK_FLAG_KEEPOPEN, SK_FLAG_LINGER, SOCK_HELD, SOCK_KERNEL, SOCK_MPTCP, SOCK_SHARED,
        SegmentReset, SocketFacts, SocketReset,
    },
};

use crate::{
    clock::Clock,
    decode::Record,
    event::{
        Actor, Comm, Context, Direction, Ended, Endpoint, Event, Owner, Past, Path, Process,
        Segment, Socket, Spare, TcpFlags, TcpState, Trigger, Via,
    },
    kernel::{reasons::Reasons, stack::Stacks},
};

/// `sk_shutdown` bits (`include/net/sock.h`).
const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// What the running kernel means by its numbers.
#[derive(Debug)]
pub struct Interpreter {
    /// Its clocks.
    pub clock: Clock,
    /// Its reset reasons.
    pub reasons: Reasons,
    /// Its functions.
    pub stacks: Stacks,
}

/// A record's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A reset.
    Reset(Sighting),
    /// A process closed a socket that had been reset.
    Closed {
        /// The socket's kernel address.
        sock: u64,
        /// Who closed it; `None` when a kernel thread did, which is never an owner.
        closer: Option<Process>,
    },
    /// A listener begins or ends.
    Listener(Listener),
}

/// A listener that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Inode of its network namespace.
    pub netns: u32,
    /// Its address, unspecified (`0.0.0.0` or `::`) for all of its family or both, and port.
    pub local: Endpoint,
    /// Its socket's kernel address.
    pub sock: u64,
    /// Inode of its file.
    pub inode: u64,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// Who calls `listen()`, or closes it.
    pub by: Actor,
    /// Whether it ends.
    pub ends: bool,
}

/// A reset, and what may still be learnt about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each its own bit in the record"
)]
pub struct Sighting {
    /// The reset as far as it is known. Boxed once, since the stages hand it on many times and it is
    /// large: a box costs less than the copies.
    pub event: Box<Event>,
    /// The socket's kernel address; 0: none.
    pub sock: u64,
    /// When the hook ran, in nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// A process holds the socket and its close will tell who.
    pub await_close: bool,
    /// More than one process may hold it.
    pub shared: bool,
    /// It may turn out that no RST came: see [`MARK_MAYBE_DATA`].
    pub maybe_data: bool,
    /// It is the sign of that: the received reset before it on the same socket was none.
    pub answers_data: bool,
}

impl Sighting {
    /// One that waits for nothing.
    fn new(event: Box<Event>, reset: &Reset) -> Self {
        Self {
            event,
            sock: reset.header.sock,
            monotonic_ns: reset.header.time_ns,
            await_close: false,
            shared: false,
            maybe_data: false,
            answers_data: false,
        }
    }
}

impl Interpreter {
    /// What a record means.
    pub fn interpret(&self, record: Record<'_>, spare: &mut Spare) -> Observation {
        match record {
            Record::Segment(record) => {
                let mut event = self.event(&record.reset, Direction::Sent, Trigger::Segment, spare);
                without_socket(&mut event, &record.reset);
                Observation::Reset(Sighting::new(event, &record.reset))
            }
            Record::Late(record) => {
                let mut event = self.event(&record.reset, Direction::Sent, Trigger::Segment, spare);
                without_socket(&mut event, &record.reset);
                event.past = Some(past(&record.reset, &record.past));
                event.owner = owner(&record.past);
                event.actor = actor(&record.past.closer);
                Observation::Reset(Sighting::new(event, &record.reset))
            }
            Record::Answer(record) => {
                let mut sighting =
                    self.with_socket(record, Direction::Sent, Trigger::Segment, spare);
                // Of one that user space was not told of there is nothing to take back.
                sighting.answers_data =
                    record.entry.marks & (MARK_MAYBE_DATA | MARK_UNTOLD) == MARK_MAYBE_DATA;
                sighting.event.actor = actor(&record.entry.closer);
                Observation::Reset(sighting)
            }
            Record::Active(record) => Observation::Reset(self.active(record, spare)),
            Record::Received(record) => {
                let mut sighting =
                    self.with_socket(record, Direction::Received, Trigger::Received, spare);
                sighting.maybe_data = record.entry.marks & MARK_MAYBE_DATA != 0;
                Observation::Reset(sighting)
            }
            Record::Refused(record) => {
                let mut event =
                    self.event(&record.reset, Direction::Received, Trigger::Received, spare);
                event.state = TcpState::from_kernel(record.reset.state);
                event.owner = application(&record.owner).map(|process| Owner {
                    process,
                    via: Via::Connect,
                    holders: Vec::new(),
                });
                event.socket = Some(Socket {
                    age_ns: since(record.born_ns, &record.reset),
                    held: true,
                    kernel_owned: record.reset.flags & IS_KERNEL != 0,
                    cgroup: record.cgroup,
                    ..Socket::default()
                });
                Observation::Reset(Sighting::new(event, &record.reset))
            }
            Record::Listen(record) => listener(record, false),
            Record::ListenEnd(record) => listener(record, true),
            Record::Closed(record) => Observation::Closed {
                sock: record.header.sock,
                closer: application(&record.closer),
            },
        }
    }

    /// Makes of the events of a refused connect those of another, whose records `alike` has found to be
    /// the same but for these numbers. It is what [`Self::interpret`] would make of them.
    pub fn interpret_again(
        &self,
        opening: &SegmentReset,
        refused: &Refused,
        sent: &mut Event,
        received: &mut Event,
    ) {
        let reset = &opening.reset;
        sent.time_ns = self.clock.wall_ns(reset.header.time_ns);
        sent.remote.port = reset.tuple.remote_port;
        if let Some(segment) = &mut sent.segment {
            segment.seq = reset.seq;
        }
        let reset = &refused.reset;
        received.time_ns = self.clock.wall_ns(reset.header.time_ns);
        received.local.port = reset.tuple.local_port;
        if let Some(socket) = &mut received.socket {
            socket.age_ns = since(refused.born_ns, reset);
        }
    }

    fn active(&self, record: &ActiveReset, spare: &mut Spare) -> Sighting {
        let (path, context) = self.stacks.classify(&record.stack);
        let whole = SocketReset {
            reset: record.reset,
            socket: record.socket,
            entry: record.entry,
        };
        let mut sighting = self.with_socket(
            &whole,
            Direction::Sent,
            Trigger::Active { path, context },
            spare,
        );
        let event = &mut sighting.event;
        if context == Context::Process {
            event.actor = actor(&record.current);
            // The closer of a socket is its owner. Whoever destroys it from outside is not, and
            // whoever closes a listener did not hold the connections in its queue.
            let via = match path {
                Path::Close => Some(Via::Close),
                Path::Disconnect => Some(Via::Current),
                _ => None,
            };
            if let Some(via) = via
                && record.current.flags & PF_KTHREAD == 0
            {
                event.owner = Some(prefer_known(
                    event.owner.take(),
                    process(&record.current),
                    via,
                ));
                sighting.await_close = false;
                sighting.shared = false;
            }
        }
        sighting
    }

    fn with_socket(
        &self,
        record: &SocketReset,
        direction: Direction,
        trigger: Trigger,
        spare: &mut Spare,
    ) -> Sighting {
        let mut event = self.event(&record.reset, direction, trigger, spare);
        let entry = &record.entry;
        event.state = state_before(record);
        event.owner = owner(entry);
        event.socket = Some(self.socket(&record.socket, entry, &record.reset, event.state));
        let held = event.socket.as_ref().is_some_and(|socket| socket.held);
        let mut sighting = Sighting::new(event, &record.reset);
        sighting.await_close = entry.marks & MARK_AWAIT_CLOSE != 0 && held;
        sighting.shared = record.socket.flags & SOCK_SHARED != 0;
        sighting
    }

    fn event(
        &self,
        reset: &Reset,
        direction: Direction,
        trigger: Trigger,
        spare: &mut Spare,
    ) -> Box<Event> {
        let (local, remote) = endpoints(&reset.tuple);
        let time_ns = self.clock.wall_ns(reset.header.time_ns);
        let mut event = spare.event(time_ns, direction, trigger, local, remote);
        event.netns = (reset.tuple.netns != 0).then_some(reset.tuple.netns);
        event.reason = (reset.flags & HAS_REASON != 0)
            .then(|| self.reasons.get(reset.reason))
            .flatten();
        event.segment = (reset.flags & HAS_SEGMENT != 0).then_some(Segment {
            flags: TcpFlags(reset.tcp_flags),
            seq: reset.seq,
            ack: reset.ack,
            payload: reset.payload,
            window: reset.window,
            ttl: reset.ttl,
        });
        event
    }

    fn socket(
        &self,
        facts: &SocketFacts,
        entry: &SocketEntry,
        reset: &Reset,
        state: Option<TcpState>,
    ) -> Socket {
        let clock = &self.clock;
        let listens = state == Some(TcpState::Listen);
        let ago = |then| clock.jiffies_ago_ns(facts.now_jiffies, then);
        // A received FIN takes a sequence number without being data (`tcp_fin`).
        let fin_received = matches!(
            state,
            Some(TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait)
        );
        let bytes_received = facts.bytes_received.saturating_sub(u64::from(fin_received));
        Socket {
            age_ns: since(entry.born_ns, reset),
            // Both stamps are set when the connection is made, before any data.
            idle_rx_ns: (bytes_received > 0)
                .then(|| ago(facts.last_received))
                .flatten(),
            idle_tx_ns: (facts.bytes_sent > 0)
                .then(|| ago(facts.last_sent))
                .flatten(),
            idle_ack_ns: ago(facts.last_ack),
            bytes_sent: facts.bytes_sent,
            bytes_received,
            unread: if listens {
                0
            } else {
                distance(facts.copied_seq, facts.rcv_nxt).saturating_sub(u32::from(fin_received))
            },
            unacked: unacked(facts, state),
            linger_s: (facts.sk_flags & SK_FLAG_LINGER != 0)
                .then(|| clock.jiffies_ns(facts.linger_jiffies) / 1_000_000_000),
            no_fin_wait2: facts.linger2 < 0,
            keepalive: facts.sk_flags & SK_FLAG_KEEPOPEN != 0,
            probes_out: facts.probes_out,
            keepalive_probes: (facts.keepalive_probes != 0).then_some(facts.keepalive_probes),
            user_timeout_ms: (facts.user_timeout_ms != 0).then_some(facts.user_timeout_ms),
            error: facts.sk_err,
            rcv_shutdown: facts.shutdown & RCV_SHUTDOWN != 0,
            send_shutdown: facts.shutdown & SEND_SHUTDOWN != 0,
            orphan: facts.sk_flags & SK_FLAG_DEAD != 0,
            held: facts.flags & SOCK_HELD != 0,
            kernel_owned: facts.flags & SOCK_KERNEL != 0,
            mptcp: facts.flags & SOCK_MPTCP != 0,
            backlog: listens.then_some((facts.ack_backlog, facts.max_ack_backlog)),
            total_retrans: facts.total_retrans,
            inode: facts.inode,
            cgroup: facts.cgroup,
        }
    }
}

/// What TIME_WAIT says, for a segment without a full socket.
fn without_socket(event: &mut Event, reset: &Reset) {
    event.state = TcpState::from_kernel(reset.state);
    event.time_wait = TcpState::from_kernel(reset.substate);
}

/// The state before the reset: an abort has changed it to CLOSE before the hook runs.
fn state_before(record: &SocketReset) -> Option<TcpState> {
    let state = TcpState::from_kernel(record.reset.state);
    if state != Some(TcpState::Close) {
        return state;
    }
    let entry = &record.entry;
    let known = TcpState::from_kernel(entry.prev_state);
    let closed_in_order =
        entry.closed_ns != 0 && entry.error == 0 && entry.marks & (MARK_RESET | MARK_ABORTED) == 0;
    match known {
        // The state that the close met. After it the kernel answers in CLOSE only from FIN_WAIT2,
        // which the segment itself led to (`tcp_rcv_state_process`), and resets of its own accord
        // from FIN_WAIT2 when TCP_LINGER2 is negative, else from where the close had led to
        // (`__tcp_close`, both 5.10 to 7.2).
        Some(open @ (TcpState::Established | TcpState::SynRecv | TcpState::CloseWait))
            if closed_in_order =>
        {
            let answers = record.reset.flags & HAS_SEGMENT != 0;
            Some(if answers || record.socket.linger2 < 0 {
                TcpState::FinWait2
            } else if open == TcpState::CloseWait {
                TcpState::LastAck
            } else {
                TcpState::FinWait1
            })
        }
        known => known,
    }
}

fn past(reset: &Reset, entry: &SocketEntry) -> Past {
    Past {
        closed_ago_ns: (entry.closed_ns != 0)
            .then(|| reset.header.time_ns.saturating_sub(entry.closed_ns)),
        state: TcpState::from_kernel(entry.prev_state),
        ended: ended(entry),
        lasted_ns: (entry.born_ns != 0 && entry.closed_ns != 0)
            .then(|| entry.closed_ns.saturating_sub(entry.born_ns)),
    }
}

/// How the connection ended, from the state before and what the socket was told.
fn ended(entry: &SocketEntry) -> Ended {
    /// `include/uapi/asm-generic/errno.h`.
    const ETIMEDOUT: u16 = 110;
    match TcpState::from_kernel(entry.prev_state) {
        Some(TcpState::SynSent) => Ended::NeverConnected,
        _ if entry.error == ETIMEDOUT => Ended::TimedOut,
        _ if entry.marks & MARK_ABORTED != 0 => Ended::Aborted,
        _ if entry.marks & MARK_RESET != 0 => Ended::Reset,
        _ => Ended::Closed,
    }
}

/// Who is known to hold, or to have held last, the socket. Whoever closed it did, even when another
/// process had opened it.
fn owner(entry: &SocketEntry) -> Option<Owner> {
    let via = match entry.via {
        VIA_CONNECT => Via::Connect,
        VIA_LISTEN => Via::Listen,
        VIA_CLOSE => Via::Close,
        _ => return None,
    };
    let opener = application(&entry.owner).map(|process| Owner {
        process,
        via,
        holders: Vec::new(),
    });
    match application(&entry.closer) {
        Some(closer) => Some(prefer_known(opener, closer, Via::Close)),
        None => opener,
    }
}

/// `holder` as the owner; the way that it was known by before is kept when it is the same process.
pub fn prefer_known(known: Option<Owner>, holder: Process, via: Via) -> Owner {
    match known {
        Some(known) if known.process.is_same(&holder) => known,
        _ => Owner {
            process: holder,
            via,
            holders: Vec::new(),
        },
    }
}

/// The process of a task that is no kernel thread: those own nothing that a person would look for.
fn application(task: &Task) -> Option<Process> {
    (task.is_known() && task.flags & PF_KTHREAD == 0).then(|| process(task))
}

fn listener(record: &record::Listener, ends: bool) -> Observation {
    let (local, _) = endpoints(&record.tuple);
    Observation::Listener(Listener {
        netns: record.tuple.netns,
        local,
        sock: record.header.sock,
        inode: record.inode,
        monotonic_ns: record.header.time_ns,
        by: actor_of(&record.task),
        ends,
    })
}

fn actor(task: &Task) -> Option<Actor> {
    task.is_known().then(|| actor_of(task))
}

fn actor_of(task: &Task) -> Actor {
    let signal = (task.exit_code & 0x7f) as u8;
    let exiting = task.flags & PF_EXITING != 0;
    Actor {
        process: process(task),
        tid: task.tid,
        exiting,
        // The exit code is set before the task's files are closed (`do_exit`, `kernel/exit.c`).
        signal: (exiting && signal != 0).then_some(signal),
        exit_status: (exiting && signal == 0).then_some((task.exit_code >> 8) as u8),
        oom: task.marks & TASK_OOM != 0,
        kernel_thread: task.flags & PF_KTHREAD != 0,
    }
}

/// The process of a task that a hook recorded.
fn process(task: &Task) -> Process {
    Process {
        pid: task.pid,
        start_ns: (task.start_ns != 0).then_some(task.start_ns),
        comm: Comm::from_kernel(task.comm),
        uid: Some(task.uid),
        exe: None,
    }
}

fn endpoints(tuple: &Tuple) -> (Endpoint, Endpoint) {
    /// The high bits of an IPv4 address in its mapped form.
    const MAPPED: u128 = 0xffff;
    let end = |addr: [u8; 16], port| {
        let bits = u128::from_be_bytes(addr);
        Endpoint {
            addr: if bits >> 32 == MAPPED {
                Ipv4Addr::from_bits(bits as u32).into()
            } else {
                Ipv6Addr::from_bits(bits).into()
            },
            port,
        }
    };
    (
        end(tuple.local, tuple.local_port),
        end(tuple.remote, tuple.remote_port),
    )
}

/// Bytes that were sent and not acknowledged.
fn unacked(facts: &SocketFacts, state: Option<TcpState>) -> u32 {
    match state {
        Some(TcpState::Listen) => 0,
        // The SYN, or the FIN, is in flight.
        Some(
            TcpState::SynSent
            | TcpState::SynRecv
            | TcpState::FinWait1
            | TcpState::LastAck
            | TcpState::Closing,
        ) => distance(facts.snd_una, facts.snd_nxt).saturating_sub(1),
        _ => distance(facts.snd_una, facts.snd_nxt),
    }
}

/// Nanoseconds from the stamp `then` to the reset; `None` without a stamp.
fn since(then: u64, reset: &Reset) -> Option<u64> {
    (then != 0).then(|| reset.header.time_ns.saturating_sub(then))
}

/// Sequence numbers from `from` to `to`; 0 when `to` is behind.
fn distance(from: u32, to: u32) -> u32 {
    let distance = to.wrapping_sub(from);
    if distance < 1 << 31 { distance } else { 0 }
}

#[cfg(test)]
mod tests;
