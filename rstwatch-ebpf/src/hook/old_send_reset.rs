//! `tcp_v4_send_reset` and `tcp_v6_send_reset`: the resets that the tracepoint of kernels before 6.10
//! leaves out, which are the answers to segments that met no full socket.
//!
//! The functions are entered for every segment that *may* draw a reset. What they decide before they
//! send one is decided here in the same way (`net/ipv4/tcp_ipv4.c`, `net/ipv6/tcp_ipv6.c`, 5.10 to
//! 6.9). From 6.10 on the tracepoint tells of all resets, and none of this is loaded.

use aya_ebpf::{EbpfContext, helpers::bpf_probe_read_kernel_buf};
use rstwatch_common::stats::Stat;

use super::{
    send_reset::{self, Scratch},
    state::{NEW_SYN_RECV, TIME_WAIT},
};
use crate::{
    desk,
    globals::{offset_of_field, present},
    maps,
    memory::{KernelPtr, Memory, probe},
    socket,
};

/// The value of `VERSION` for `tcp_v4_send_reset`.
pub const IPV4: u8 = 4;
/// The value of `VERSION` for `tcp_v6_send_reset`.
pub const IPV6: u8 = 6;

const TCP_HEADER: usize = 20;
/// TCP flag bit RST.
const RST: u8 = 0x04;
/// Bytes that the options of a TCP header take at the most.
const MAX_OPTIONS: u32 = 40;
/// Options of a TCP header (`include/net/tcp.h`): end of the list, padding, MD5 signature, TCP-AO.
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MD5: u8 = 19;
const OPTION_MD5_LEN: u8 = 18;
const OPTION_AO: u8 = 29;

/// `rt_type` of a route to this host (`RTN_LOCAL`, `include/uapi/linux/rtnetlink.h`).
const RTN_LOCAL: u16 = 2;
/// Flag of an IPv6 route to this host (`RTF_LOCAL`, `include/uapi/linux/ipv6_route.h`).
const RTF_LOCAL: u32 = 0x8000_0000;

/// The hook. `sock` is null, a TIME_WAIT socket or a full one; `skb` is the segment, never null.
#[inline(always)]
pub fn old_send_reset<M: Memory, C: EbpfContext, const VERSION: u8>(
    ctx: &C,
    sock: KernelPtr,
    skb: KernelPtr,
) {
    if skb.is_null() {
        return;
    }
    let state = if sock.is_null() {
        0
    } else {
        // SAFETY: the hook's socket is not null.
        match unsafe { socket::state::<M>(sock) } {
            state @ (TIME_WAIT | NEW_SYN_RECV) => state,
            // The tracepoint tells of those with a full socket.
            _ => return,
        }
    };
    // SAFETY: the hook's segment is not null.
    let answered = unsafe {
        (!sock.is_null() || is_for_this_host::<M, VERSION>(skb)) && draws_an_answer::<M>(skb)
    };
    if answered {
        let Some(desk) = desk::for_reset(Stat::Sent) else {
            return;
        };
        // SAFETY: the map gave the pointer.
        maps::increment(unsafe { &raw mut (*desk).sent });
        let mut scratch = Scratch::new();
        send_reset::without_socket::<M, C, false>(ctx, desk, sock, skb, None, state, &mut scratch);
    }
}

/// Whether the segment's route ends here: no socket was found for what merely passes through.
///
/// # Safety
///
/// `skb` must be the hook's non-null `sk_buff`.
#[inline(always)]
unsafe fn is_for_this_host<M: Memory, const VERSION: u8>(skb: KernelPtr) -> bool {
    let (rt_type, rt6_flags) = (offset_of_field!(rt_type), offset_of_field!(rt6_flags));
    // SAFETY: the caller's promise. The lowest bit says whether a reference is held
    // (`SKB_DST_NOREF`); `struct rtable` and `struct rt6_info` begin with the `dst_entry`.
    unsafe {
        let dst = (M::read::<u64>(skb, offset_of_field!(skb_refdst)) & !1) as KernelPtr;
        if VERSION == IPV4 {
            !present(rt_type) || probe::<u16>(dst, rt_type) == RTN_LOCAL
        } else {
            !present(rt6_flags) || probe::<u32>(dst, rt6_flags) & RTF_LOCAL != 0
        }
    }
}

/// Whether the segment is neither a RST itself nor signed: a signed one is answered only when a
/// listener on the *sender's* port has the key to it, which cannot be told from here.
///
/// # Safety
///
/// `skb` must be the hook's non-null `sk_buff`.
#[inline(always)]
unsafe fn draws_an_answer<M: Memory>(skb: KernelPtr) -> bool {
    let mut tcp = [0u8; TCP_HEADER];
    // SAFETY: the caller's promise; the helper checks the address.
    let (head, transport) = unsafe {
        let head = M::read::<u64>(skb, offset_of_field!(skb_head)) as KernelPtr;
        let transport = M::read::<u16>(skb, offset_of_field!(skb_transport_header));
        if bpf_probe_read_kernel_buf(head.wrapping_add(transport as usize), &mut tcp).is_err() {
            maps::count(Stat::ReadFailed);
        }
        (head, transport as usize)
    };
    if tcp[13] & RST != 0 {
        return false;
    }
    // Without either option in the kernel's configuration it does not look for signatures.
    if !present(offset_of_field!(md5sig_info)) && !present(offset_of_field!(ao_info)) {
        return true;
    }
    let header = ((tcp[12] >> 4) as usize) * 4;
    // SAFETY: the helper behind it checks the addresses.
    !unsafe { is_signed(head, transport + TCP_HEADER, transport + header) }
}

/// Whether there is a signature among the options between two offsets from `head`
/// (`tcp_parse_md5sig_option`, `tcp_parse_auth_options`).
///
/// Both offsets begin with a number that the verifier does not know: so what one way through an option
/// comes to looks like what any other does, and it goes through each only once.
///
/// # Safety
///
/// None beyond what the helper checks; see [`probe`].
#[inline(always)]
unsafe fn is_signed(head: KernelPtr, mut at: usize, end: usize) -> bool {
    // One option has a byte at least.
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return false;
        }
        // Kind and length; kernel memory goes on behind the options. Read one by one: the verifier
        // of 5.10 does not take an index into the stack that is known at run time only.
        // SAFETY: the helper checks the address.
        let [kind, size] = unsafe { probe::<u16>(head.wrapping_add(at), 0) }.to_ne_bytes();
        match kind {
            OPTION_END => return false,
            OPTION_NOP => at += 1,
            OPTION_MD5 => return present(offset_of_field!(md5sig_info)) && size == OPTION_MD5_LEN,
            OPTION_AO if present(offset_of_field!(ao_info)) => return true,
            _ if size < 2 => return false,
            _ => at += size as usize,
        }
    }
    false
}
