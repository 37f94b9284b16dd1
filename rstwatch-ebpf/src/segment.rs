//! Reading the segment that draws a reset.

use core::ptr::{null, read_volatile};

use rstwatch_common::{
    entry::Tuple,
    record::{HAS_SEGMENT, READ_FAILED, Reset},
    stats::Stat,
};

use crate::{
    globals::{offset_of_field, present},
    maps,
    memory::{KernelPtr, Memory, Probe, probe},
    netns,
};

/// An IP header of either version without options.
const HEADERS: usize = 40;
/// One of IPv4, with room for a TCP header without options behind it.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: usize = 20;

/// What the hooks themselves go by. They do not read it from the record: the record's cache lines are still on their way
/// when it is written, and a load would wait for them.
#[derive(Clone, Copy)]
pub struct Segment {
    /// The flags of a record that say whether the segment could be read.
    pub read: u8,
    /// Its own, or none.
    pub tcp_flags: u8,
    /// The port that it came for, in host byte order; or 0.
    pub local_port: u16,
    /// The port that it came from.
    pub remote_port: u16,
    /// Its sequence number.
    pub seq: u32,
}

/// The first two of them.
#[derive(Clone, Copy)]
pub struct Flags {
    /// As [`Segment`]'s.
    pub read: u8,
    /// As [`Segment`]'s.
    pub tcp_flags: u8,
}

/// Fills in the segment and, from it, the connection as this host sees it: the segment's
/// destination is local. Leaves the record's flags alone. `headers` is room for what is read.
///
/// # Safety
///
/// `reset` must be valid for writes, `skb` be a non-null `sk_buff` argument of the hook.
#[inline(always)]
pub unsafe fn fill<M: Memory>(reset: *mut Reset, skb: KernelPtr, headers: &mut Headers) -> Segment {
    // SAFETY: the caller's promise.
    unsafe {
        if !headers.read::<M>(skb) {
            clear(reset);
            // Zeros. Said so, the verifier would go through all that follows once for them and once for others.
            return Segment {
                read: READ_FAILED,
                tcp_flags: read_volatile(&raw const (*reset).tcp_flags),
                local_port: read_volatile(&raw const (*reset).tuple.local_port),
                remote_port: read_volatile(&raw const (*reset).tuple.remote_port),
                seq: read_volatile(&raw const (*reset).seq),
            };
        }
        headers.fill_tuple(&raw mut (*reset).tuple);
        headers.fill_tcp(reset);
        headers.fill_ip(reset, M::read(skb, offset_of_field!(skb_len)));
    }
    Segment {
        read: HAS_SEGMENT,
        tcp_flags: headers.tcp.0[13],
        local_port: be16(&headers.tcp, 2),
        remote_port: be16(&headers.tcp, 0),
        seq: be32(&headers.tcp, 4),
    }
}

/// The same as a function of its own.
///
/// # Safety
///
/// As [`fill`].
#[inline(never)]
pub unsafe fn fill_apart<M: Memory>(reset: *mut Reset, skb: KernelPtr) -> Flags {
    let mut headers = Headers::NONE;
    // SAFETY: the caller's promise.
    let Segment {
        read, tcp_flags, ..
    } = unsafe { fill::<M>(reset, skb, &mut headers) };
    Flags { read, tcp_flags }
}

/// Fills in the connection alone. Leaves it as it is when the headers cannot be read.
///
/// # Safety
///
/// `tuple` must be valid for writes, `skb` be a non-null `sk_buff` argument of the hook.
#[inline(never)]
pub unsafe fn fill_tuple<M: Memory>(tuple: *mut Tuple, skb: KernelPtr) {
    let mut headers = Headers::NONE;
    // SAFETY: the caller's promise.
    unsafe {
        if headers.read::<M>(skb) {
            headers.fill_tuple(tuple);
        }
    }
}

/// Bytes that begin with a double word: the compiler would put words of others together byte by byte.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Bytes<const N: usize>([u8; N]);

/// A segment's headers, as they came.
#[derive(Clone, Copy)]
pub struct Headers {
    /// The IP header, and what follows.
    ip: Bytes<HEADERS>,
    /// The TCP header.
    tcp: Bytes<TCP_HEADER>,
    /// The length of all before the TCP header.
    ip_len: u32,
}

impl Headers {
    pub const NONE: Self = Self {
        ip: Bytes([0; HEADERS]),
        tcp: Bytes([0; TCP_HEADER]),
        ip_len: 0,
    };

    /// Reads them. Returns whether it could; if not, that is counted.
    ///
    /// # Safety
    ///
    /// `skb` must be a non-null `sk_buff` argument of the hook.
    #[inline(always)]
    unsafe fn read<M: Memory>(&mut self, skb: KernelPtr) -> bool {
        // SAFETY: the caller's promise; the offsets are those of `sk_buff`.
        let (head, network, transport) = unsafe {
            (
                M::read::<u64>(skb, offset_of_field!(skb_head)) as KernelPtr,
                M::read::<u16>(skb, offset_of_field!(skb_network_header)),
                M::read::<u16>(skb, offset_of_field!(skb_transport_header)),
            )
        };
        self.ip_len = transport.wrapping_sub(network) as u32;
        // Zeros, which is what a failed load may give, are no version of IP.
        let read = M::copy(head.wrapping_add(network as usize), &mut self.ip.0)
            && (self.is_ipv4() || self.ip.0[0] >> 4 == 6)
            && if self.ip_len == IPV4_HEADER {
                // Both are there, as nearly always.
                self.tcp
                    .0
                    .copy_from_slice(&self.ip.0[IPV4_HEADER as usize..]);
                true
            } else {
                M::copy(head.wrapping_add(transport as usize), &mut self.tcp.0)
            };
        if !read {
            maps::count(Stat::ReadFailed);
        }
        read
    }

    #[inline(always)]
    fn is_ipv4(&self) -> bool {
        self.ip.0[0] >> 4 == 4
    }

    /// # Safety
    ///
    /// `tuple` must be valid for writes.
    #[inline(always)]
    unsafe fn fill_tuple(&self, tuple: *mut Tuple) {
        // The port of its sender, and below it that of its receiver.
        let ports = be32(&self.tcp, 0);
        // SAFETY: the caller's promise.
        unsafe {
            set_ports(tuple, ports as u16, (ports >> 16) as u16);
            if self.is_ipv4() {
                set_ipv4(&raw mut (*tuple).remote, ne32(&self.ip, 12));
                set_ipv4(&raw mut (*tuple).local, ne32(&self.ip, 16));
            } else {
                set_ipv6(&raw mut (*tuple).remote, &self.ip, 8);
                set_ipv6(&raw mut (*tuple).local, &self.ip, 24);
            }
        }
    }

    /// # Safety
    ///
    /// `reset` must be valid for writes.
    #[inline(always)]
    unsafe fn fill_tcp(&self, reset: *mut Reset) {
        // SAFETY: the caller's promise.
        unsafe {
            (*reset).seq = be32(&self.tcp, 4);
            (*reset).ack = be32(&self.tcp, 8);
            (*reset).tcp_flags = self.tcp.0[13];
            (*reset).window = be16(&self.tcp, 14);
        }
    }

    /// # Safety
    ///
    /// `reset` must be valid for writes.
    #[inline(always)]
    unsafe fn fill_ip(&self, reset: *mut Reset, skb_len: u32) {
        let tcp_len = ((self.tcp.0[12] >> 4) as u32) * 4;
        let (ttl, total) = if self.is_ipv4() {
            (self.ip.0[8], be16(&self.ip, 2) as u32)
        } else {
            let total = match be16(&self.ip, 4) {
                0 => 0,
                payload => payload as u32 + IPV6_HEADER,
            };
            (self.ip.0[7], total)
        };
        // A length of zero means a segment too big for the field (BIG TCP): then the buffer's own
        // length, which starts at the TCP header where resets are sent, tells.
        let payload = if total == 0 {
            skb_len.wrapping_sub(tcp_len)
        } else {
            total.wrapping_sub(self.ip_len).wrapping_sub(tcp_len)
        };
        // SAFETY: the caller's promise.
        unsafe {
            (*reset).ttl = ttl;
            // Negative: the headers contradict each other.
            (*reset).payload = if payload > i32::MAX as u32 {
                0
            } else {
                payload
            };
        }
    }
}

/// Clears what a segment would have filled in.
///
/// # Safety
///
/// `reset` must be valid for writes.
#[inline(always)]
pub unsafe fn clear(reset: *mut Reset) {
    // SAFETY: the caller's promise.
    unsafe {
        (*reset).seq = 0;
        (*reset).ack = 0;
        (*reset).payload = 0;
        (*reset).window = 0;
        (*reset).tcp_flags = 0;
        (*reset).ttl = 0;
        clear_tuple(&raw mut (*reset).tuple);
    }
}

/// Clears the addresses and ports.
///
/// # Safety
///
/// `tuple` must be valid for writes.
#[inline(always)]
unsafe fn clear_tuple(tuple: *mut Tuple) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = tuple.cast::<[u64; 4]>();
        *words = [0; 4];
        (*tuple).local_port = 0;
        (*tuple).remote_port = 0;
    }
}

/// The network namespace that `skb` arrived in, and its inode; null and 0 when it cannot be read.
///
/// # Safety
///
/// `skb` must be a non-null `sk_buff` argument of the hook.
#[inline(always)]
pub unsafe fn net<M: Memory>(skb: KernelPtr) -> (KernelPtr, u32) {
    if !present(offset_of_field!(nd_net)) {
        return (null(), 0);
    }
    // SAFETY: the caller's promise; each pointer comes from the field before it.
    unsafe {
        // Set where no socket was found, which is where this is asked (`tcp_v4_rcv` and
        // `tcp_v6_rcv` clear it only on the way to a full socket).
        let dev = M::read::<u64>(skb, offset_of_field!(skb_dev)) as KernelPtr;
        if !dev.is_null() {
            let net = M::read::<u64>(dev, offset_of_field!(nd_net)) as KernelPtr;
            return (net, netns::inode_here::<M>(net));
        }
        // The lowest bit says whether a reference is held (`SKB_DST_NOREF`).
        let dst = (M::read::<u64>(skb, offset_of_field!(skb_refdst)) & !1) as KernelPtr;
        if dst.is_null() {
            return (null(), 0);
        }
        let dev = probe::<u64>(dst, offset_of_field!(dst_dev)) as KernelPtr;
        let net = probe::<u64>(dev, offset_of_field!(nd_net)) as KernelPtr;
        (net, netns::inode::<Probe>(net))
    }
}

/// Stores an IPv4 address, given as it lies in memory, in its IPv4-mapped form.
///
/// # Safety
///
/// `to` must be valid for writes and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn set_ipv4(to: *mut [u8; 16], addr: u32) {
    const BEFORE: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    const SHIFT: u32 = if cfg!(target_endian = "little") {
        32
    } else {
        0
    };
    // What is read as double words is written as such: a processor waits for a load of what two stores wrote.
    // Calculated, for of eight bytes the compiler loads each.
    // SAFETY: the caller's promise.
    unsafe {
        let words = to.cast::<[u64; 2]>();
        *words = [0, BEFORE | (addr as u64) << SHIFT];
    }
}

/// Stores both ports, of which each is given in host byte order.
///
/// # Safety
///
/// `tuple` must be valid for writes.
#[inline(always)]
pub unsafe fn set_ports(tuple: *mut Tuple, local: u16, remote: u16) {
    let ([a, b], [c, d]) = (local.to_ne_bytes(), remote.to_ne_bytes());
    // SAFETY: the caller's promise; the second follows the first. One store, as above.
    unsafe {
        let ports = (&raw mut (*tuple).local_port).cast::<u32>();
        *ports = u32::from_ne_bytes([a, b, c, d]);
    }
}

/// # Safety
///
/// `to` must be valid for writes and aligned to 4 bytes.
#[inline(always)]
unsafe fn set_ipv6(to: *mut [u8; 16], bytes: &Bytes<HEADERS>, at: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = to.cast::<[u32; 4]>();
        *words = [
            ne32(bytes, at),
            ne32(bytes, at + 4),
            ne32(bytes, at + 8),
            ne32(bytes, at + 12),
        ];
    }
}

#[inline(always)]
fn be16<const N: usize>(Bytes(bytes): &Bytes<N>, at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be32<const N: usize>(Bytes(bytes): &Bytes<N>, at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn ne32<const N: usize>(Bytes(bytes): &Bytes<N>, at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
