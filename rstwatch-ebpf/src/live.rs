//! The live sockets that something is known about, by their address in the kernel.
//!
//! Every connect puts one in, and every close takes one out; most other hooks ask and find nothing.
//! The kernel's hash map is dear at that: it takes locks, and its elements from lists that it gives
//! them back to. So this is a table of buckets, each a cache line of addresses with a byte of the hash
//! of each; what is known lies beside it in an array. A socket is in the first of its two buckets, or
//! in the second if the first was full.
//!
//! A socket is put in and taken out under its own lock, or before anybody else knows of it: so no two
//! CPUs ever do that with the same one. Two that want a place in the same bucket for two sockets are
//! kept apart by counting who comes and who has gone ([`claim`]): the later one goes elsewhere.

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{EbpfContext, macros::map, maps::Array};
use aya_log_ebpf::warn;
use rstwatch_common::{claim, entry::SocketEntry, stats::Stat};

use crate::{
    globals, maps,
    memory::{Memory, barrier, spread},
};

/// Buckets: a power of two.
const BUCKETS: u32 = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 14;

/// Places of a bucket. 65,536 sockets are four of them on average; in a simulation with addresses as slabs
/// have them, seven or eight of a thousand then found none, and at 40,000 two of ten thousand or fewer.
const PLACES: u32 = 6;

/// A one, and the highest bit, of each place's byte among [`Bucket::tags`].
const ONES: u64 = 0x0101_0101_0101;
const HIGHEST: u64 = ONES << 7;

/// The byte of [`Bucket::tags`] that counts those who came to take a place, were alone, and are done.
const DONE: usize = PLACES as usize;
/// One more in the byte above, which counts those who came, were not alone, and went.
const WENT: u64 = 1 << 56;

/// One more in the highest byte of [`Bucket::counts`]: somebody comes to take a place.
const CAME: u64 = 1 << 56;
/// One more in the rest of it.
const ELSEWHERE: u64 = 1;

/// The addresses of sockets that have their places here. Eight words.
#[repr(C, align(64))]
struct Bucket {
    /// Where the place's tag is not 0, its socket.
    socks: [u64; PLACES as usize],
    /// A byte for each place: 0 when it is free, else of the socket's hash. Above them two counts that go
    /// round: [`DONE`] and [`WENT`].
    tags: u64,
    /// Sockets of this bucket that are in their second one; and in the highest byte, which goes round, how
    /// many came to take a place.
    counts: u64,
}

#[map]
static SOCKETS: Array<Bucket> = Array::with_max_entries(BUCKETS, maps::ALIGNED);

/// What is known about the socket in each place.
#[map]
static ENTRIES: Array<SocketEntry> = Array::with_max_entries(BUCKETS * PLACES, maps::ALIGNED);

/// What is known of a live socket, by its [`Memory::address`].
#[inline(always)]
pub fn find<M: Memory>(sock: u64) -> Option<*mut SocketEntry> {
    entry_of(place_of::<M>(sock))
}

/// The same, with where that is.
#[inline(always)]
pub fn locate<M: Memory>(sock: u64) -> Option<(Place, *mut SocketEntry)> {
    let place = place_of::<M>(sock);
    entry_of(place).map(|entry| (place, entry))
}

/// Remembers a socket. Returns whether there was room. Where nothing tells when it goes, none is: the
/// next one at its address would be taken for it.
///
/// A function of its own: it is seldom called, and the stack of those who do has no room for it.
#[inline(never)]
pub fn remember<M: Memory, C: EbpfContext>(ctx: &C, sock: u64, entry: &SocketEntry) -> bool {
    if !globals::has_destroy_sock() {
        return false;
    }
    if let Some(known) = find::<M>(sock) {
        // What an earlier socket at this address left, or what was known of this one until now.
        // SAFETY: the map gave the pointer; nobody else writes to what is known of this socket.
        unsafe { *known = *entry };
        return true;
    }
    let Some((place, to)) = claim(ctx, sock) else {
        return false;
    };
    // SAFETY: the place is claimed.
    unsafe { *to = *entry };
    publish(sock, place);
    true
}

/// A place for a socket that is being opened, where there is one: what is known of it is to be written there, whole,
/// and then [`publish`]ed.
#[inline(always)]
pub fn open<M: Memory, C: EbpfContext>(ctx: &C, sock: u64) -> Option<(Place, *mut SocketEntry)> {
    if !globals::has_destroy_sock() {
        return None;
    }
    // What an earlier socket at this address left is replaced.
    forget::<M>(sock);
    claim(ctx, sock)
}

/// Forgets a live socket, if it is known.
#[inline(always)]
pub fn forget<M: Memory>(sock: u64) {
    let place = place_of::<M>(sock);
    if place != NOWHERE {
        forget_at(sock, place);
    }
}

/// Forgets a live socket, which is there.
#[inline(always)]
pub fn forget_at(sock: u64, place: Place) {
    if let Some(bucket) = SOCKETS.get_ptr_mut(bucket_of(place)) {
        // SAFETY: the map gave the pointer.
        unsafe { set_tag(bucket, place, 0) };
    }
    if place & IN_SECOND != 0
        && let Some(bucket) = SOCKETS.get_ptr_mut(Hash::of(sock).first())
    {
        // SAFETY: the map gave the pointer.
        unsafe { maps::add(&raw mut (*bucket).counts, ELSEWHERE.wrapping_neg()) };
    }
}

/// A place: the bucket's number above that of the place in it.
pub type Place = u32;
/// The bits of a [`Place`] that say where in its bucket it is.
const AT: Place = 7;
/// The bit of a [`Place`] that says that its bucket is the second one of its socket.
const IN_SECOND: Place = 1 << 31;
/// No place.
const NOWHERE: Place = u32::MAX;

#[inline(always)]
fn bucket_of(place: Place) -> u32 {
    place >> 3 & (BUCKETS - 1)
}

/// What is known about the socket in a place.
#[inline(always)]
fn entry_of(place: Place) -> Option<*mut SocketEntry> {
    if place == NOWHERE {
        return None;
    }
    ENTRIES.get_ptr_mut(bucket_of(place) * PLACES + (place & AT))
}

/// What becomes of a socket's address. The parts have no bit in common.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    #[inline(always)]
    fn of(sock: u64) -> Self {
        Self(spread(sock))
    }

    /// The number of its first bucket.
    #[inline(always)]
    fn first(self) -> u32 {
        (self.0 >> (64 - BUCKET_BITS)) as u32
    }

    /// That of its second one, which may be the same.
    #[inline(always)]
    fn second(self) -> u32 {
        (self.0 >> (64 - 2 * BUCKET_BITS)) as u32 & (BUCKETS - 1)
    }

    /// Its tag: never 0.
    #[inline(always)]
    fn tag(self) -> u64 {
        self.0 >> (56 - 2 * BUCKET_BITS) & 0xff | 1
    }
}

/// Where a socket is.
#[inline(always)]
fn place_of<M: Memory>(sock: u64) -> Place {
    if !M::DIRECT {
        // There calls are what costs least, and the stack is smallest.
        return search_both(sock);
    }
    let hash = Hash::of(sock);
    let number = hash.first();
    let Some(bucket) = SOCKETS.get_ptr_mut(number) else {
        return NOWHERE;
    };
    // SAFETY: the map gave the pointer.
    unsafe {
        let tagged = tagged(bucket, hash.tag());
        if tagged == 0 {
            // By far the most common answer.
            if read_volatile(&raw const (*bucket).counts) & (CAME - 1) == 0 {
                return NOWHERE;
            }
        } else {
            let at = lowest(tagged);
            if sock_at(bucket, at) == sock {
                return number << 3 | at;
            }
        }
    }
    search_both(sock)
}

/// The same, slowly: another socket has the same tag, or this one has found its first bucket full.
#[inline(never)]
fn search_both(sock: u64) -> Place {
    let hash = Hash::of(sock);
    let place = search(hash.first(), sock);
    if place != NOWHERE {
        return place;
    }
    let place = search(hash.second(), sock);
    if place != NOWHERE {
        return place | IN_SECOND;
    }
    NOWHERE
}

/// Where in a bucket a socket is.
#[inline(always)]
fn search(number: u32, sock: u64) -> Place {
    let Some(bucket) = SOCKETS.get_ptr_mut(number) else {
        return NOWHERE;
    };
    // SAFETY: the map gave the pointer.
    unsafe {
        let mut tagged = tagged(bucket, Hash::of(sock).tag());
        for _ in 0..PLACES {
            if tagged == 0 {
                break;
            }
            let at = lowest(tagged);
            if sock_at(bucket, at) == sock {
                return number << 3 | at;
            }
            tagged &= tagged - 1;
        }
    }
    NOWHERE
}

/// Claims a place for a socket that has none, in either of its buckets: with [`publish`] it gets it, and must
/// get it. Where there is none, that is counted.
#[inline(always)]
fn claim<C: EbpfContext>(ctx: &C, sock: u64) -> Option<(Place, *mut SocketEntry)> {
    let mut place = claim_in(Hash::of(sock).first());
    if place == NOWHERE {
        place = claim_elsewhere(sock);
    }
    let claimed = entry_of(place).map(|entry| (place, entry));
    if claimed.is_none() {
        maps::count(Stat::SocketsFull);
        warn!(ctx, "the table of live sockets is full");
    }
    claimed
}

/// Claims a place in a socket's second bucket.
#[inline(never)]
fn claim_elsewhere(sock: u64) -> Place {
    let hash = Hash::of(sock);
    let Some(bucket) = SOCKETS.get_ptr_mut(hash.first()) else {
        return NOWHERE;
    };
    // SAFETY: the map gave the pointer.
    unsafe {
        // Said before it is there, so that whoever looks for it later looks in both.
        let counts = &raw mut (*bucket).counts;
        maps::add(counts, ELSEWHERE);
        let place = claim_in(hash.second());
        if place != NOWHERE {
            return place | IN_SECOND;
        }
        maps::add(counts, ELSEWHERE.wrapping_neg());
    }
    NOWHERE
}

/// Claims a free place in a bucket. Until it is published nobody else gets one there.
#[inline(always)]
fn claim_in(number: u32) -> Place {
    let Some(bucket) = SOCKETS.get_ptr_mut(number) else {
        return NOWHERE;
    };
    // SAFETY: the map gave the pointer.
    unsafe {
        maps::add(&raw mut (*bucket).counts, CAME);
        barrier(bucket);
        let tags = read_volatile(&raw const (*bucket).tags);
        barrier(bucket);
        let came = (read_volatile(&raw const (*bucket).counts) >> 56) as u8;
        let (done, went) = ((tags >> (8 * DONE)) as u8, (tags >> 56) as u8);
        if claim::is_alone(came, done, went) {
            let free = equal(tags, 0);
            if free != 0 {
                return number << 3 | lowest(free);
            }
            set_done(bucket, done.wrapping_add(1));
        } else {
            maps::add(&raw mut (*bucket).tags, WENT);
        }
    }
    NOWHERE
}

/// Gives a socket its claimed place, whose entry has been written.
#[inline(always)]
pub fn publish(sock: u64, place: Place) {
    let Some(bucket) = SOCKETS.get_ptr_mut(bucket_of(place)) else {
        return;
    };
    // SAFETY: the map gave the pointer; the place is this program's, and so is the count.
    unsafe {
        write_volatile(bucket.cast::<u64>().add((place & AT) as usize), sock);
        set_tag(bucket, place, Hash::of(sock).tag());
        // That byte alone: a word of which a byte has just been written is not there before it has left the processor.
        let done = read_volatile((&raw const (*bucket).tags).cast::<u8>().add(DONE));
        set_done(bucket, done.wrapping_add(1));
    }
}

/// Lets others take places, after all that was written before.
///
/// # Safety
///
/// `bucket` must be valid for writes, and this program the one that was alone there.
#[inline(always)]
unsafe fn set_done(bucket: *mut Bucket, done: u8) {
    // SAFETY: the caller's promise; a word has eight bytes.
    unsafe {
        barrier(bucket);
        let tags = (&raw mut (*bucket).tags).cast::<u8>();
        write_volatile(tags.add(DONE), done);
    }
}

/// The highest bit of the byte of each place that has this tag. A higher one may be said to have it
/// that has another; the lowest has it.
///
/// # Safety
///
/// `bucket` must be valid for reads.
#[inline(always)]
unsafe fn tagged(bucket: *const Bucket, tag: u64) -> u64 {
    // SAFETY: the caller's promise. Volatile: other CPUs write to it.
    equal(unsafe { read_volatile(&raw const (*bucket).tags) }, tag)
}

/// The same of tags that have been read.
#[inline(always)]
fn equal(tags: u64, tag: u64) -> u64 {
    let differences = tags ^ tag.wrapping_mul(ONES);
    differences.wrapping_sub(ONES) & !differences & HIGHEST
}

/// The place that the lowest bit of `tagged`, which is not 0, stands for.
#[inline(always)]
fn lowest(tagged: u64) -> u32 {
    // Of the factor's bytes the one that stands as far from the top as the bit does from the bottom.
    let bit = (tagged & tagged.wrapping_neg()) >> 7;
    (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32 & AT
}

/// # Safety
///
/// `bucket` must be valid for reads.
#[inline(always)]
unsafe fn sock_at(bucket: *const Bucket, at: u32) -> u64 {
    // SAFETY: the caller's promise; a bucket has eight words.
    unsafe { read_volatile(bucket.cast::<u64>().add((at & AT) as usize)) }
}

/// Takes or gives free a place, after all that was written before.
///
/// # Safety
///
/// `bucket` must be valid for writes.
#[inline(always)]
unsafe fn set_tag(bucket: *mut Bucket, place: Place, tag: u64) {
    const TAGS: usize = offset_of!(Bucket, tags);
    // SAFETY: the caller's promise; a word has eight bytes.
    unsafe {
        barrier(bucket);
        let tags = bucket.cast::<u8>().add(TAGS);
        write_volatile(tags.add((place & AT) as usize), tag as u8);
    }
}
