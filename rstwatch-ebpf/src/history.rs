//! The history of closed connections: what is known of one for which a segment comes too late.
//!
//! Every connection that closes in order comes by here, and the kernel's LRU map is too dear for
//! that. So each CPU writes its records one after the other into a ring of its own, round and round,
//! without a lock; a table of chains by hash finds them from everywhere. Nothing is ever unlinked: a
//! chain ends where a newer record has taken the place of one.
//!
//! Where a chain begins is seldom in the cache, and reading it took 41 % of the samples in `inet_sock_set_state`. So a close
//! writes there only, which the processor does not wait for: which record is the latest. The next hook on that
//! CPU that has to do with the end of a connection finds the cache line there, and puts the record into its
//! chain.
//!
//! A record is written once. What becomes known later is a new record, which is found first.

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{EbpfContext, helpers::bpf_get_smp_processor_id, macros::map, maps::Array};
use aya_log_ebpf::warn;
use rstwatch_common::{
    entry::{SocketEntry, Task, Tuple, VIA_CLOSE, VIA_NONE},
    stats::Stat,
};

use crate::{
    clock, globals, maps,
    memory::{KernelPtr, Memory, barrier, spread},
    per_cpu::PerCpu,
    task,
};

/// Records of a chain that are looked at. A chain has two on average when the history is full.
const STEPS: u32 = 8;

/// Double words of a [`Tuple`] that are its addresses.
const ADDRESSES: usize = offset_of!(Tuple, local_port) / 8;

/// The ends of a connection as a [`Tuple`] has them in memory: both addresses, and both ports in a word.
#[derive(Clone, Copy)]
struct Ends {
    addresses: [u64; ADDRESSES],
    ports: u32,
}

impl Ends {
    #[inline(always)]
    fn of(tuple: &Tuple) -> Self {
        let words: *const u64 = (&raw const *tuple).cast();
        let mut addresses = [0; ADDRESSES];
        for (at, word) in addresses.iter_mut().enumerate() {
            // SAFETY: a `Tuple` begins with its addresses, and is aligned to 8 bytes.
            *word = unsafe { *words.add(at) };
        }
        // SAFETY: behind them are both ports, in four bytes.
        let ports = unsafe { *words.add(ADDRESSES).cast() };
        Self { addresses, ports }
    }
}

/// A CPU's ring.
#[repr(C)]
struct Ring {
    /// The number of the newest record; 0: none yet.
    newest: u32,
    /// Not zero while a number is being taken: by a program that this one has interrupted.
    busy: u32,
    /// The number of the record that is in no chain yet; 0: none.
    pending: u32,
    /// The chain that it belongs to.
    pending_chain: Chain,
}

/// A chain: the number of its row above that of its place there.
type Chain = u32;

/// Chains of a row, less one: its last word is for something else.
const CHAINS_OF_ROW: u64 = 7;

/// A row: a cache line of chains.
#[repr(C, align(64))]
struct Row {
    /// The first record of each.
    heads: [Link; CHAINS_OF_ROW as usize],
    /// The last record that is to go into any of them: it may be in none yet.
    latest: Link,
}

/// Where a record is: the CPU whose ring has it above its number there. 0: nowhere.
type Link = u64;

/// A closed connection, in three cache lines. What has not been touched for a while is not in the
/// processor's cache, so each line counts that a close writes to: nearly all write to two.
#[repr(C, align(64))]
struct Past {
    /// As in [`Ends`], with the next.
    addresses: [u64; ADDRESSES],
    ports: u32,
    /// The record's number. 0: none here yet, or it is being written.
    number: u32,
    /// Address of the network namespace, an identity and nothing more. Not its inode, which shares a
    /// cache line with the count of its references: each new socket of any CPU writes to that.
    net: u64,
    /// The next one in the chain, an older one.
    older: Link,
    /// As in [`SocketEntry`], with the two below.
    via: u8,
    prev_state: u8,
    marks: u8,
    /// 1 when the owner is another process than the closer; 0 when that is the owner, and was not written
    /// twice.
    owner_apart: u8,
    error: u16,
    pad: u16,

    closer: Task,
    born_ns: u64,
    closed_ns: u64,

    owner: Task,
    unused: [u64; 2],
}

const _: () = assert!(size_of::<Past>() == 3 * 64);

/// How far the owner lies behind the closer.
const CLOSER_TO_OWNER: usize = offset_of!(Past, owner) - offset_of!(Past, closer);

#[map]
static RINGS: PerCpu<Ring> = PerCpu::new();

/// The records, ring by ring. The loader sets the size of this map and of the next.
#[map]
static HISTORY: Array<Past> = Array::with_max_entries(1, maps::ALIGNED);

/// Where each chain begins. Fewer chains than there are records: each close writes to a row, and only a
/// segment without a socket goes along a chain.
#[map]
static CHAINS: Array<Row> = Array::with_max_entries(1, maps::ALIGNED);

/// A record that is being written.
pub struct Draft {
    past: *mut Past,
    ring: *mut Ring,
    row: *mut Row,
    cpu: u32,
    number: u32,
    chain: Chain,
}

/// Begins a record of a connection. There is none when this program has interrupted another one that is
/// taking a number: that is counted.
#[inline(always)]
pub fn begin<C: EbpfContext>(ctx: &C, tuple: &Tuple, net: KernelPtr) -> Option<Draft> {
    // SAFETY: the helper takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let ends = Ends::of(tuple);
    let chain = chain(&ends);
    let row = row_of(chain)?;
    let ring = RINGS.get()?;
    // SAFETY: the maps gave the pointers; only this CPU writes to the ring, and only one program at a
    // time.
    unsafe {
        settle(cpu, ring);
        if read_volatile(&raw const (*ring).busy) != 0 {
            maps::count(Stat::HistoryFailed);
            warn!(ctx, "the history is busy");
            return None;
        }
        write_volatile(&raw mut (*ring).busy, 1);
        // A number is never zero.
        let newest = read_volatile(&raw const (*ring).newest);
        let number = (newest + 1) | u32::from(newest == u32::MAX);
        write_volatile(&raw mut (*ring).newest, number);
        write_volatile(&raw mut (*ring).busy, 0);
        let past = record(cpu, number)?;
        write_volatile(&raw mut (*past).number, 0);
        barrier(ring);
        (*past).addresses = ends.addresses;
        (*past).ports = ends.ports;
        (*past).net = net as u64;
        Some(Draft {
            past,
            ring,
            row,
            cpu,
            number,
            chain,
        })
    }
}

impl Draft {
    /// Keeps what is known of the connection.
    ///
    /// # Safety
    ///
    /// `entry` must be valid for reads.
    #[inline(always)]
    pub unsafe fn keep(self, entry: *const SocketEntry) {
        let past = self.past;
        // SAFETY: the map gave the pointer to the record, which is this program's until it has its
        // number; the caller's promise.
        unsafe {
            (*past).via = (*entry).via;
            (*past).prev_state = (*entry).prev_state;
            (*past).marks = (*entry).marks;
            (*past).error = (*entry).error;
            (*past).closer = (*entry).closer;
            (*past).born_ns = (*entry).born_ns;
            (*past).closed_ns = (*entry).closed_ns;
            self.set_owner(&raw const (*entry).owner);
        }
        self.file();
    }

    /// Keeps that the running task closes it in state `old`, and what is known besides.
    ///
    /// # Safety
    ///
    /// `known` must be valid for reads.
    #[inline(always)]
    pub unsafe fn keep_closed<M: Memory>(self, old: u8, known: Option<*mut SocketEntry>) {
        let past = self.past;
        // SAFETY: as in `keep`.
        unsafe {
            let now_ns = clock::lately();
            task::fill_current::<M>(&raw mut (*past).closer, now_ns);
            (*past).closed_ns = now_ns;
            (*past).prev_state = old;
            if let Some(entry) = known
                && (*entry).via != VIA_NONE
            {
                (*past).via = (*entry).via;
                (*past).marks = (*entry).marks;
                (*past).error = (*entry).error;
                (*past).born_ns = (*entry).born_ns;
                self.set_owner(&raw const (*entry).owner);
            } else {
                (*past).via = VIA_CLOSE;
                (*past).marks = known.map_or(0, |entry| (*entry).marks);
                (*past).error = known.map_or(0, |entry| (*entry).error);
                (*past).born_ns = 0;
                (*past).owner_apart = 0;
            }
        }
        self.file();
    }

    /// Writes the owner, unless it is the closer.
    ///
    /// # Safety
    ///
    /// `owner` must be valid for reads, and the closer have been written.
    #[inline(always)]
    unsafe fn set_owner(&self, owner: *const Task) {
        let past = self.past;
        // SAFETY: as in `keep`.
        unsafe {
            let same =
                (*owner).pid == (*past).closer.pid && (*owner).start_ns == (*past).closer.start_ns;
            (*past).owner_apart = u8::from(!same);
            if !same {
                (*past).owner = *owner;
            }
        }
    }

    /// Makes the record one that can be found.
    ///
    /// A program that interrupts this one here, or another CPU that files a record in the same row before
    /// this CPU's next one, may keep this one from being found for a moment.
    #[inline(always)]
    fn file(self) {
        // SAFETY: the maps gave the pointers.
        unsafe {
            barrier(self.ring);
            write_volatile(&raw mut (*self.past).number, self.number);
            write_volatile(&raw mut (*self.row).latest, link(self.cpu, self.number));
            write_volatile(&raw mut (*self.ring).pending_chain, self.chain);
            write_volatile(&raw mut (*self.ring).pending, self.number);
        }
    }
}

/// Puts the last record of this CPU into its chain, if it is in none.
#[inline(always)]
pub fn settle_own() {
    // SAFETY: the helper takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(ring) = RINGS.get() {
        // SAFETY: the map gave the pointer; it is this CPU's.
        unsafe { settle(cpu, ring) };
    }
}

/// The same at hand.
///
/// Two CPUs that put a record into the same chain in the same nanoseconds may lose one of them, and so may a
/// program that interrupts this one there.
///
/// # Safety
///
/// `ring` must be valid, and that of `cpu`, which must be this one.
#[inline(always)]
unsafe fn settle(cpu: u32, ring: *mut Ring) {
    // SAFETY: the caller's promise; the maps give the other pointers.
    unsafe {
        let number = read_volatile(&raw const (*ring).pending);
        if number == 0 {
            return;
        }
        let chain = read_volatile(&raw const (*ring).pending_chain);
        write_volatile(&raw mut (*ring).pending, 0);
        let (Some(row), Some(past)) = (row_of(chain), record(cpu, number)) else {
            return;
        };
        let head = head_of(row, chain);
        let (link, first) = (link(cpu, number), read_volatile(head));
        // Nor one that a program has put there which interrupted this one.
        if first != link {
            write_volatile(&raw mut (*past).older, first);
            barrier(ring);
            write_volatile(head, link);
        }
    }
}

/// Remembers a connection. Returns whether it did; if not, that is counted.
#[inline(always)]
pub fn remember<C: EbpfContext>(
    ctx: &C,
    tuple: &Tuple,
    net: KernelPtr,
    entry: *const SocketEntry,
) -> bool {
    let Some(draft) = begin(ctx, tuple, net) else {
        return false;
    };
    // SAFETY: `entry` points to a map's value or to the caller's own.
    unsafe { draft.keep(entry) };
    true
}

/// The same for those who seldom do it, and whose stack has no room for it.
#[inline(never)]
pub fn remember_anew<C: EbpfContext>(ctx: &C, tuple: &Tuple, net: KernelPtr, entry: &SocketEntry) {
    remember(ctx, tuple, net, &raw const *entry);
}

/// Copies what is known of a connection. Returns whether anything is.
///
/// # Safety
///
/// `to` must be valid for writes; it may be written to even if nothing is known.
///
/// A function of its own: old verifiers go through the loop anew on every path that leads here.
#[inline(never)]
pub unsafe fn recall(tuple: &Tuple, net: KernelPtr, to: *mut SocketEntry) -> bool {
    let ends = Ends::of(tuple);
    let chain = chain(&ends);
    let Some(row) = row_of(chain) else {
        return false;
    };
    // SAFETY: the maps gave the pointers; the caller's promise.
    unsafe {
        let Some((link, past)) = search(row, chain, &ends, net, to) else {
            return false;
        };
        copy(to, past);
        barrier(to);
        read_volatile(&raw const (*past).number) == link as u32
    }
}

/// Looks for the record of a connection. `own` is memory of this program alone.
///
/// # Safety
///
/// `row` must be the chain's, and valid; `own` valid for reads and writes.
#[inline(always)]
unsafe fn search(
    row: *mut Row,
    chain: Chain,
    ends: &Ends,
    net: KernelPtr,
    own: *mut SocketEntry,
) -> Option<(Link, *mut Past)> {
    // SAFETY: the caller's promise; the maps give the other pointers.
    unsafe {
        // The latest may be in a chain already, in this one or another of the row; and its place may have
        // been taken by a newer one.
        let latest = read_volatile(&raw const (*row).latest);
        if let Some(past) = there(latest, own)
            && is_of(past, ends, net)
        {
            return Some((latest, past));
        }
        let mut link = read_volatile(head_of(row, chain));
        for _ in 0..STEPS {
            // A link from a record that has been replaced meanwhile leads into another chain.
            let past = there(link, own)?;
            if is_of(past, ends, net) {
                return Some((link, past));
            }
            link = read_volatile(&raw const (*past).older);
        }
    }
    None
}

/// The record that a link leads to, unless its place has been taken by a newer one.
///
/// What is read of it afterwards is what it was then, or later. `own` is memory of this program alone.
///
/// # Safety
///
/// `own` must be valid for reads and writes.
#[inline(always)]
unsafe fn there(link: Link, own: *mut SocketEntry) -> Option<*mut Past> {
    let (cpu, number) = ((link >> 32) as u32, link as u32);
    let past = record(cpu, number)?;
    // SAFETY: the map gave the pointer.
    if number == 0 || unsafe { read_volatile(&raw const (*past).number) } != number {
        return None;
    }
    barrier(own);
    Some(past)
}

/// Whether a record is of this connection.
///
/// # Safety
///
/// `past` must be valid for reads.
#[inline(always)]
unsafe fn is_of(past: *const Past, ends: &Ends, net: KernelPtr) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let mut differences = u64::from((*past).ports ^ ends.ports);
        for (at, address) in ends.addresses.iter().enumerate() {
            differences |= (*past).addresses[at] ^ address;
        }
        read_volatile(&raw const (*past).net) == net as u64 && differences == 0
    }
}

/// Copies what a record says.
///
/// # Safety
///
/// `to` must be valid for writes, `past` for reads.
#[inline(always)]
unsafe fn copy(to: *mut SocketEntry, past: *const Past) {
    // SAFETY: the caller's promise.
    unsafe {
        (*to).closer = (*past).closer;
        // Calculated: for each branch the verifier would go through the rest again.
        let apart = usize::from((*past).owner_apart & 1) * CLOSER_TO_OWNER;
        (*to).owner = *(&raw const (*past).closer).byte_add(apart);
        (*to).born_ns = (*past).born_ns;
        (*to).closed_ns = (*past).closed_ns;
        (*to).via = (*past).via;
        (*to).prev_state = (*past).prev_state;
        (*to).marks = (*past).marks;
        (*to).pad = 0;
        (*to).error = (*past).error;
        (*to).pad2 = 0;
    }
}

/// The record of that number in a CPU's ring, or whichever has taken its place.
#[inline(always)]
fn record(cpu: u32, number: u32) -> Option<*mut Past> {
    let places = globals::history_places();
    HISTORY.get_ptr_mut(cpu * places + (number & (places - 1)))
}

/// The chain that a connection belongs to.
#[inline(always)]
fn chain(ends: &Ends) -> Chain {
    let mut hash = u64::from(ends.ports);
    for address in ends.addresses {
        hash = spread(hash ^ address);
        hash ^= hash >> 29;
    }
    let row = (hash >> 32) as u32 & globals::history_rows_mask();
    // So much of the lower half as part of the whole: never more than the last place.
    let place = (((hash & 0xffff_ffff) * CHAINS_OF_ROW) >> 32) as u32;
    row << 3 | place
}

/// The row that a chain is in.
#[inline(always)]
fn row_of(chain: Chain) -> Option<*mut Row> {
    CHAINS.get_ptr_mut(chain >> 3)
}

/// Where a chain begins.
///
/// # Safety
///
/// `row` must be the chain's, and valid.
#[inline(always)]
unsafe fn head_of(row: *mut Row, chain: Chain) -> *mut Link {
    // SAFETY: the caller's promise; a row has eight words.
    unsafe { row.cast::<Link>().add((chain & 7) as usize) }
}

/// What leads to a record.
#[inline(always)]
fn link(cpu: u32, number: u32) -> Link {
    u64::from(cpu) << 32 | u64::from(number)
}
