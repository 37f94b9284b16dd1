//! Counting every reset by its kind, whether or not its record reaches user space.
//!
//! Storms are of few kinds. So each CPU has some counters for the first kinds that come, which need no hash
//! map: some 27 ns less for a sent reset.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{macros::map, maps::PerCpuHashMap};
use rstwatch_common::{
    entry::Tuple,
    stats::Stat,
    tally::{
        BY_SEGMENT, NOT_RECEIVED, QUICK_KINDS, QuickTally, RECEIVED, SENT, TALLY_KINDS,
        TALLY_KINDS_WITHOUT_PORT, TallyKey,
    },
};

use crate::{maps, memory::spread, per_cpu::PerCpu};

/// TCP state (`include/net/tcp_states.h`).
const SYN_SENT: u8 = 2;

/// Resets of the first kinds on each CPU, in places by hash.
#[map]
static TALLY_QUICK: PerCpu<[QuickTally; QUICK_KINDS]> = PerCpu::new();

/// Not zero while a place there is being taken.
#[map]
static TAKING: PerCpu<u64> = PerCpu::new();

/// Resets by kind, of all others.
#[map]
static TALLY: PerCpuHashMap<TallyKey, u64> = PerCpuHashMap::with_max_entries(TALLY_KINDS, 0);

/// Those of kinds that found no room there, by kind without the port: of these there are few, so that
/// none is ever without room.
#[map]
static TALLY_REST: PerCpuHashMap<TallyKey, u64> =
    PerCpuHashMap::with_max_entries(TALLY_KINDS_WITHOUT_PORT, 0);

/// `BPF_NOEXIST`: insert only what is not there yet.
const NO_EXIST: u64 = 1;

/// Counts a reset that this host sends. `path` is `BY_SEGMENT` or `OF_OWN_ACCORD`; `SECOND` is the program that
/// may be in the middle of the one that counts most of them.
#[inline(always)]
pub fn sent<const SECOND: bool>(reason: Option<u32>, state: u8, path: u8, local_port: u16) {
    bump(sent_key(reason, state, path, local_port), !SECOND);
}

/// The same without a call, for the resets that storms consist of: one that answers a segment.
#[inline(always)]
pub fn sent_here<const SECOND: bool>(reason: Option<u32>, state: u8, local_port: u16) {
    bump_here(sent_key(reason, state, BY_SEGMENT, local_port), !SECOND);
}

#[inline(always)]
fn sent_key(reason: Option<u32>, state: u8, path: u8, local_port: u16) -> TallyKey {
    TallyKey {
        port: local_port,
        reason: reason.map_or(u16::MAX, |reason| reason as u16),
        state,
        direction: SENT,
        path,
        pad: 0,
    }
}

/// Counts one that seems to have been received, by a socket in `state`.
#[inline(always)]
pub fn received(state: u8, tuple: &Tuple) {
    bump(received_key(state, tuple), true);
}

/// The same without a call, of a refused connect.
#[inline(always)]
pub fn refused_here(tuple: &Tuple) {
    bump_here(received_key(SYN_SENT, tuple), true);
}

#[inline(always)]
fn received_key(state: u8, tuple: &Tuple) -> TallyKey {
    TallyKey {
        port: if state == SYN_SENT {
            tuple.remote_port
        } else {
            tuple.local_port
        },
        reason: u16::MAX,
        state,
        direction: RECEIVED,
        path: BY_SEGMENT,
        pad: 0,
    }
}

/// Takes it back: the socket in `state` had met data and not a RST.
#[inline(always)]
pub fn not_received<const SECOND: bool>(state: u8, local_port: u16) {
    bump(
        TallyKey {
            port: local_port,
            reason: u16::MAX,
            state,
            direction: NOT_RECEIVED,
            path: BY_SEGMENT,
            pad: 0,
        },
        !SECOND,
    );
}

/// `alone` says whether this program alone counts that kind.
#[inline(never)]
fn bump(key: TallyKey, alone: bool) {
    bump_here(key, alone);
}

#[inline(always)]
fn bump_here(key: TallyKey, alone: bool) {
    if !(alone && add_quickly(&key)) {
        bump_slowly(key);
    }
}

#[inline(never)]
fn bump_slowly(mut key: TallyKey) {
    if add(&TALLY, &key) {
        return;
    }
    key.port = 0;
    if !add(&TALLY_REST, &key) {
        maps::count(Stat::Untallied);
    }
}

/// Adds one to a kind that has a place of its own on this CPU, or gets one. Returns whether it did.
#[inline(always)]
fn add_quickly(key: &TallyKey) -> bool {
    // SAFETY: a key has eight bytes, aligned to two.
    let key = unsafe { (&raw const *key).cast::<u64>().read_unaligned() };
    let Some(quick) = TALLY_QUICK.place((spread(key) >> 32) as usize) else {
        return false;
    };
    // SAFETY: the maps gave the pointers, which no other CPU uses. A program that interrupts this one while it
    // takes a place leaves all places alone; one that came before has taken its place when this one looks.
    unsafe {
        let known = (&raw mut (*quick).key).cast::<u64>();
        if read_volatile(known) == 0
            && let Some(taking) = TAKING.get()
            && read_volatile(taking) == 0
        {
            write_volatile(taking, 1);
            if read_volatile(known) == 0 {
                write_volatile(known, key);
            }
            write_volatile(taking, 0);
        }
        // A kind that is all zero has none.
        if key == 0 || read_volatile(known) != key {
            return false;
        }
        maps::increment_alone(&raw mut (*quick).count);
    }
    true
}

/// Adds one to a kind. Returns whether there was room for it.
#[inline(always)]
fn add(tally: &PerCpuHashMap<TallyKey, u64>, key: &TallyKey) -> bool {
    if let Some(count) = tally.get_ptr_mut(key) {
        maps::increment(count);
        return true;
    }
    if tally.insert(key, 1, NO_EXIST).is_ok() {
        return true;
    }
    // Another CPU may have been faster.
    match tally.get_ptr_mut(key) {
        Some(count) => {
            maps::increment(count);
            true
        }
        None => false,
    }
}
