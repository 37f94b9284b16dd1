//! Reading the segment that draws a reset.

use aya_ebpf::helpers::bpf_probe_read_kernel_buf;
use rstwatch_common::{
    entry::Tuple,
    record::{HAS_SEGMENT, READ_FAILED, Reset},
    stats::Stat,
};

use crate::{
    globals::{offset_of_field, present},
    maps,
    memory::{KernelPtr, Memory, probe},
};

/// An IPv6 header and a TCP header without options, or an IPv4 header, a TCP header and more.
const HEADERS: usize = 60;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// Fills in the segment and, from it, the connection as this host sees it: the segment's
/// destination is local.
///
/// # Safety
///
/// `reset` must be valid for writes, `skb` be a non-null `sk_buff` argument of the hook.
#[inline(always)]
pub unsafe fn fill<M: Memory>(reset: *mut Reset, skb: KernelPtr) {
    let mut bytes = [0u8; HEADERS];
    // SAFETY: the caller's promise; the offsets are those of `sk_buff`.
    let (head, network, transport, len) = unsafe {
        (
            M::read::<u64>(skb, offset_of_field!(skb_head)) as KernelPtr,
            M::read::<u16>(skb, offset_of_field!(skb_network_header)),
            M::read::<u16>(skb, offset_of_field!(skb_transport_header)),
            M::read::<u32>(skb, offset_of_field!(skb_len)),
        )
    };
    // One read takes both headers when the first has no options, as nearly always.
    // SAFETY: the helper checks the address.
    let read =
        unsafe { bpf_probe_read_kernel_buf(head.wrapping_add(network as usize), &mut bytes) };
    if read.is_err() {
        maps::count(Stat::ReadFailed);
        // SAFETY: the caller's promise.
        unsafe {
            (*reset).flags |= READ_FAILED;
            clear(reset);
        }
        return;
    }
    let ip_len = transport.wrapping_sub(network) as usize;
    let ipv4 = bytes[0] >> 4 == 4;
    let tcp_at = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if ip_len != tcp_at {
        // Options or extension headers stand between: read the TCP header where it is.
        let mut tcp = [0u8; TCP_HEADER];
        // SAFETY: the helper checks the address.
        if unsafe { bpf_probe_read_kernel_buf(head.wrapping_add(transport as usize), &mut tcp) }
            .is_err()
        {
            maps::count(Stat::ReadFailed);
        }
        // SAFETY: the caller's promise.
        unsafe { fill_tcp(reset, &tcp, 0) };
    } else if ipv4 {
        // SAFETY: the caller's promise.
        unsafe { fill_tcp(reset, &bytes, IPV4_HEADER) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { fill_tcp(reset, &bytes, IPV6_HEADER) };
    }
    // SAFETY: the caller's promise.
    unsafe { fill_ip(reset, &bytes, ip_len as u32, len) };
}

/// # Safety
///
/// `reset` must be valid for writes.
#[inline(always)]
unsafe fn fill_tcp<const N: usize>(reset: *mut Reset, bytes: &[u8; N], at: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        (*reset).tuple.remote_port = be16(bytes, at);
        (*reset).tuple.local_port = be16(bytes, at + 2);
        (*reset).seq = be32(bytes, at + 4);
        (*reset).ack = be32(bytes, at + 8);
        // The header's length for now; `fill_ip` makes it the payload's.
        (*reset).payload = ((bytes[at + 12] >> 4) as u32) * 4;
        (*reset).tcp_flags = bytes[at + 13];
        (*reset).window = be16(bytes, at + 14);
        (*reset).flags |= HAS_SEGMENT;
    }
}

/// # Safety
///
/// `reset` must be valid for writes, its `payload` hold the TCP header's length.
#[inline(always)]
unsafe fn fill_ip(reset: *mut Reset, bytes: &[u8; HEADERS], ip_len: u32, skb_len: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let tcp_len = (*reset).payload;
        let total = if bytes[0] >> 4 == 4 {
            (*reset).ttl = bytes[8];
            let tuple = &raw mut (*reset).tuple;
            set_ipv4(&raw mut (*tuple).remote, ne32(bytes, 12));
            set_ipv4(&raw mut (*tuple).local, ne32(bytes, 16));
            be16(bytes, 2) as u32
        } else {
            (*reset).ttl = bytes[7];
            let tuple = &raw mut (*reset).tuple;
            set_ipv6(&raw mut (*tuple).remote, bytes, 8);
            set_ipv6(&raw mut (*tuple).local, bytes, 24);
            match be16(bytes, 4) {
                0 => 0,
                payload => payload as u32 + IPV6_HEADER as u32,
            }
        };
        // A length of zero means a segment too big for the field (BIG TCP): then the buffer's own
        // length, which starts at the TCP header where resets are sent, tells.
        let payload = if total == 0 {
            skb_len.wrapping_sub(tcp_len)
        } else {
            total.wrapping_sub(ip_len).wrapping_sub(tcp_len)
        };
        // Negative: the headers contradict each other.
        (*reset).payload = if payload > i32::MAX as u32 {
            0
        } else {
            payload
        };
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

/// The inode of the network namespace that `skb` arrived in; 0 when it cannot be read.
///
/// # Safety
///
/// `skb` must be a non-null `sk_buff` argument of the hook.
#[inline(always)]
pub unsafe fn netns<M: Memory>(skb: KernelPtr) -> u32 {
    if !present(offset_of_field!(nd_net)) {
        return 0;
    }
    // SAFETY: the caller's promise; each pointer comes from the field before it.
    unsafe {
        // Set where no socket was found, which is where this is asked (`tcp_v4_rcv` and
        // `tcp_v6_rcv` clear it only on the way to a full socket).
        let dev = M::read::<u64>(skb, offset_of_field!(skb_dev)) as KernelPtr;
        if !dev.is_null() {
            let net = M::read::<u64>(dev, offset_of_field!(nd_net)) as KernelPtr;
            return M::read(net, offset_of_field!(net_inum));
        }
        // The lowest bit says whether a reference is held (`SKB_DST_NOREF`).
        let dst = (M::read::<u64>(skb, offset_of_field!(skb_refdst)) & !1) as KernelPtr;
        if dst.is_null() {
            return 0;
        }
        let dev = probe::<u64>(dst, offset_of_field!(dst_dev)) as KernelPtr;
        let net = probe::<u64>(dev, offset_of_field!(nd_net)) as KernelPtr;
        probe(net, offset_of_field!(net_inum))
    }
}

/// Stores an IPv4 address, given as it lies in memory, in its IPv4-mapped form.
///
/// # Safety
///
/// `to` must be valid for writes and aligned to 4 bytes.
#[inline(always)]
pub unsafe fn set_ipv4(to: *mut [u8; 16], addr: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = to.cast::<[u32; 4]>();
        *words = [0, 0, 0xffff_u32.to_be(), addr];
    }
}

/// # Safety
///
/// `to` must be valid for writes and aligned to 4 bytes.
#[inline(always)]
unsafe fn set_ipv6(to: *mut [u8; 16], bytes: &[u8; HEADERS], at: usize) {
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
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn ne32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
