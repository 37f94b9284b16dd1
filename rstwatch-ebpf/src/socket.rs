//! Reading a socket: its connection, its namespace and the fields that serve as evidence.

use core::ptr::null;

use aya_ebpf::helpers::bpf_jiffies64;
use rstwatch_common::{
    entry::Tuple,
    layout::bit_position,
    record::{SK_FLAG_DEAD, SOCK_HELD, SOCK_KERNEL, SOCK_MPTCP, SOCK_SHARED, SocketFacts},
};

use crate::{
    globals::{offset_of_field, present},
    memory::{KernelPtr, Memory, Probe, probe, read_if_present},
    netns,
    segment::{set_ipv4, set_ports},
};

const AF_INET: u16 = 2;
const IPPROTO_TCP: u16 = 6;
/// TCP state (`include/net/tcp_states.h`).
const SYN_SENT: u8 = 2;

/// `sk_shutdown`: no more is received.
pub const RCV_SHUTDOWN: u8 = 1;
/// `sk_shutdown`: neither is anything sent; what `close()` sets first (`__tcp_close`).
pub const SHUTDOWN_MASK: u8 = 3;

/// Whether it is a TCP socket: other protocols share `inet_sock_set_state`.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn is_tcp<M: Memory>(sock: KernelPtr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { M::read::<u16>(sock, offset_of_field!(sk_protocol)) == IPPROTO_TCP }
}

/// `sk_state`.
///
/// # Safety
///
/// `sock` must be a non-null socket argument of the hook, full or not.
#[inline(always)]
pub unsafe fn state<M: Memory>(sock: KernelPtr) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { M::read(sock, offset_of_field!(skc_state)) }
}

/// The socket's network namespace; null on a kernel without any.
///
/// # Safety
///
/// `sock` must be a non-null socket argument of the hook, full or not.
#[inline(always)]
pub unsafe fn net<M: Memory>(sock: KernelPtr) -> KernelPtr {
    if !present(offset_of_field!(skc_net)) {
        return null();
    }
    // SAFETY: the caller's promise.
    (unsafe { M::read::<u64>(sock, offset_of_field!(skc_net)) }) as KernelPtr
}

/// The socket's connection, its namespace included.
///
/// # Safety
///
/// As [`fill_ends`]; `sock` must be its `tcp_sock`.
#[inline(always)]
pub unsafe fn fill_tuple<M: Memory>(tuple: *mut Tuple, sock: KernelPtr) {
    // SAFETY: the caller's promise.
    unsafe {
        (*tuple).netns = netns::inode::<M>(net::<M>(sock));
        fill_ends::<M>(tuple, sock, local_port::<M>(sock));
    }
}

/// The socket's own port, in host byte order. It is right after the change to CLOSE too, when
/// `skc_num` is already 0 (`inet_put_port`).
///
/// # Safety
///
/// `sock` must be the `tcp_sock` of a full socket argument of the hook.
#[inline(always)]
pub unsafe fn local_port<M: Memory>(sock: KernelPtr) -> u16 {
    // SAFETY: the caller's promise.
    u16::from_be(unsafe { M::read(sock, offset_of_field!(inet_sport)) })
}

/// The same without a call of a helper, of a socket that is not in CLOSE; 0 in CLOSE.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn open_port<M: Memory>(sock: KernelPtr) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { M::read(sock, offset_of_field!(skc_num)) }
}

/// The socket's connection without its namespace, which stays as it is. The remote port is right after
/// the change to CLOSE too, but 0 after `tcp_disconnect`.
///
/// # Safety
///
/// `tuple` must be valid for writes, `sock` be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn fill_ends<M: Memory>(tuple: *mut Tuple, sock: KernelPtr, local_port: u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let remote_port = u16::from_be(M::read(sock, offset_of_field!(skc_dport)));
        set_ports(tuple, local_port, remote_port);
        if M::read::<u16>(sock, offset_of_field!(skc_family)) == AF_INET {
            set_ipv4(
                &raw mut (*tuple).local,
                M::read(sock, offset_of_field!(skc_rcv_saddr)),
            );
            set_ipv4(
                &raw mut (*tuple).remote,
                M::read(sock, offset_of_field!(skc_daddr)),
            );
        } else {
            copy_ipv6::<M>(
                &raw mut (*tuple).local,
                sock,
                offset_of_field!(skc_v6_rcv_saddr),
            );
            copy_ipv6::<M>(
                &raw mut (*tuple).remote,
                sock,
                offset_of_field!(skc_v6_daddr),
            );
        }
    }
}

/// # Safety
///
/// `to` must be valid for writes and aligned to 8 bytes; `offset` that of an `in6_addr` in `sock`, or
/// `ABSENT` on a kernel without IPv6.
#[inline(always)]
unsafe fn copy_ipv6<M: Memory>(to: *mut [u8; 16], sock: KernelPtr, offset: u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = to.cast::<[u64; 2]>();
        if !present(offset) {
            *words = [0; 2];
            return;
        }
        (*words)[0] = M::read(sock, offset);
        (*words)[1] = M::read(sock, offset + 8);
    }
}

/// `sk_shutdown`.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn shutdown<M: Memory>(sock: KernelPtr) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { M::read(sock, offset_of_field!(sk_shutdown)) }
}

/// `sk_err`: a positive errno, 0 when there is none.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn error<M: Memory>(sock: KernelPtr) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { M::read(sock, offset_of_field!(sk_err)) }
}

/// Whether a process, or the kernel, holds the socket: it has a `struct socket` and is not dead.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn is_held<M: Memory>(sock: KernelPtr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { M::read::<u64>(sock, offset_of_field!(sk_socket)) != 0 }
}

/// Whether this change to CLOSE is the doing of `close()`: `__tcp_close` sets both halves of
/// `sk_shutdown` before it changes the state, while the socket is still held and has no error; a
/// RST or a timeout sets the error first (`tcp_reset`, `tcp_write_err`), and `shutdown()` never
/// leads from a connected state to CLOSE. `__tcp_close` runs in the context of whoever dropped the
/// last reference. (`net/ipv4/tcp.c`, 5.10 to 7.2.)
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn is_closing<M: Memory>(sock: KernelPtr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { shutdown::<M>(sock) == SHUTDOWN_MASK && error::<M>(sock) == 0 && is_held::<M>(sock) }
}

/// Fills in the evidence.
///
/// # Safety
///
/// `facts` must be valid for writes, `sock` be the non-null `tcp_sock` of a full socket argument of the
/// hook.
#[inline(always)]
pub unsafe fn fill_facts<M: Memory>(facts: *mut SocketFacts, sock: KernelPtr, state: u8) {
    // SAFETY: the caller's promise; the offsets are those of `tcp_sock` and what it embeds.
    unsafe {
        (*facts).inode = inode::<M>(sock);
        (*facts).bytes_received = read_if_present::<M, _>(sock, offset_of_field!(bytes_received));
        (*facts).bytes_acked = read_if_present::<M, _>(sock, offset_of_field!(bytes_acked));
        (*facts).bytes_sent = read_if_present::<M, _>(sock, offset_of_field!(bytes_sent));
        (*facts).linger_jiffies = read_if_present::<M, _>(sock, offset_of_field!(sk_lingertime));
        (*facts).cookie = M::read(sock, offset_of_field!(skc_cookie));
        (*facts).cgroup = cgroup::<M>(sock);
        (*facts).now_jiffies = bpf_jiffies64() as u32;
        (*facts).last_sent = read_if_present::<M, _>(sock, offset_of_field!(lsndtime));
        (*facts).last_ack = read_if_present::<M, _>(sock, offset_of_field!(rcv_tstamp));
        (*facts).last_received = read_if_present::<M, _>(sock, offset_of_field!(lrcvtime));
        (*facts).rcv_nxt = M::read(sock, offset_of_field!(rcv_nxt));
        (*facts).copied_seq = M::read(sock, offset_of_field!(copied_seq));
        (*facts).snd_una = M::read(sock, offset_of_field!(snd_una));
        (*facts).snd_nxt = M::read(sock, offset_of_field!(snd_nxt));
        (*facts).write_seq = M::read(sock, offset_of_field!(write_seq));
        let sk_flags = M::read::<u64>(sock, offset_of_field!(skc_flags)) as u32;
        (*facts).sk_flags = sk_flags;
        (*facts).sk_err = error::<M>(sock);
        (*facts).uid = M::read(sock, offset_of_field!(sk_uid));
        (*facts).linger2 = read_if_present::<M, _>(sock, offset_of_field!(linger2));
        (*facts).user_timeout_ms =
            read_if_present::<M, _>(sock, offset_of_field!(icsk_user_timeout));
        (*facts).keepalive_idle = read_if_present::<M, _>(sock, offset_of_field!(keepalive_time));
        (*facts).keepalive_interval =
            read_if_present::<M, _>(sock, offset_of_field!(keepalive_intvl));
        (*facts).ack_backlog = read_if_present::<M, _>(sock, offset_of_field!(sk_ack_backlog));
        (*facts).max_ack_backlog =
            read_if_present::<M, _>(sock, offset_of_field!(sk_max_ack_backlog));
        (*facts).srtt_us8 = read_if_present::<M, _>(sock, offset_of_field!(srtt_us));
        (*facts).total_retrans = read_if_present::<M, _>(sock, offset_of_field!(total_retrans));
        (*facts).probes_out = read_if_present::<M, _>(sock, offset_of_field!(icsk_probes_out));
        (*facts).retransmits = read_if_present::<M, _>(sock, offset_of_field!(icsk_retransmits));
        (*facts).shutdown = shutdown::<M>(sock);
        (*facts).keepalive_probes =
            read_if_present::<M, _>(sock, offset_of_field!(keepalive_probes));
        let mut flags = 0;
        if is_held::<M>(sock) && sk_flags & SK_FLAG_DEAD == 0 {
            flags |= SOCK_HELD;
        }
        if is_kernel_owned::<M>(sock) {
            flags |= SOCK_KERNEL;
        }
        if read_if_present::<M, u8>(sock, offset_of_field!(is_mptcp)) != 0 {
            flags |= SOCK_MPTCP;
        }
        // A connect under way is its caller's: that a storm of refused ones costs no more.
        if state != SYN_SENT && is_shared::<M>(sock) {
            flags |= SOCK_SHARED;
        }
        (*facts).flags = flags;
        (*facts).pad = [0; 3];
    }
}

/// Whether the kernel itself made the socket.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn is_kernel_owned<M: Memory>(sock: KernelPtr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_set::<M>(sock, offset_of_field!(sk_kern_sock)) }
}

/// Whether the bit that `entry` of the layout stands for is set; not where there is none.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook, `entry` that of one of its bits.
#[inline(always)]
unsafe fn is_set<M: Memory>(sock: KernelPtr, entry: u16) -> bool {
    if !present(entry) {
        return false;
    }
    let (offset, mask) = bit_position(entry);
    // SAFETY: the caller's promise.
    unsafe { M::read::<u8>(sock, offset) & mask != 0 }
}

/// The inode of the socket's file; 0 when it has none.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn inode<M: Memory>(sock: KernelPtr) -> u64 {
    // SAFETY: the caller's promise. `struct socket` begins `struct socket_alloc`, whose inode lies
    // beyond the type that the verifier knows the pointer by: hence the helper.
    unsafe {
        if present(offset_of_field!(sk_ino)) {
            return M::read(sock, offset_of_field!(sk_ino));
        }
        let socket = M::read::<u64>(sock, offset_of_field!(sk_socket)) as KernelPtr;
        if socket.is_null() {
            return 0;
        }
        probe(
            socket.wrapping_add(offset_of_field!(socket_inode) as usize),
            offset_of_field!(i_ino),
        )
    }
}

/// The id of the socket's cgroup in the unified hierarchy; 0 where the kernel keeps none.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
pub unsafe fn cgroup<M: Memory>(sock: KernelPtr) -> u64 {
    let (cgroup, kn, id) = (
        offset_of_field!(sk_cgroup),
        offset_of_field!(cgroup_kn),
        offset_of_field!(kn_id),
    );
    if !present(cgroup) || !present(kn) || !present(id) {
        return 0;
    }
    // SAFETY: the caller's promise; each pointer comes from the field before it.
    unsafe {
        // Before 5.15 one bit may say that the rest is no pointer. It is read by itself, and with the
        // helper: the verifier takes what is at `cgroup` for a pointer, and refuses to see its bits.
        if is_set::<Probe>(sock, offset_of_field!(sk_cgroup_is_data)) {
            return 0;
        }
        let cgroup = M::read::<u64>(sock, cgroup) as KernelPtr;
        if cgroup.is_null() {
            return 0;
        }
        let kn = M::read::<u64>(cgroup, kn) as KernelPtr;
        if kn.is_null() { 0 } else { M::read(kn, id) }
    }
}

/// Whether the socket's file is referenced more than once.
///
/// # Safety
///
/// `sock` must be a non-null full socket argument of the hook.
#[inline(always)]
unsafe fn is_shared<M: Memory>(sock: KernelPtr) -> bool {
    let (file, count, reference) = (
        offset_of_field!(socket_file),
        offset_of_field!(file_count),
        offset_of_field!(file_ref),
    );
    if !present(file) {
        return false;
    }
    // SAFETY: the caller's promise; each pointer comes from the field before it.
    unsafe {
        let socket = M::read::<u64>(sock, offset_of_field!(sk_socket)) as KernelPtr;
        if socket.is_null() {
            return false;
        }
        let file = M::read::<u64>(socket, file) as KernelPtr;
        if file.is_null() {
            return false;
        }
        if present(reference) {
            // `file_ref_t` counts from 0 (`FILE_REF_ONEREF`), and is negative when there is none.
            M::read::<u64>(file, reference) as i64 > 0
        } else if present(count) {
            M::read::<u64>(file, count) as i64 > 1
        } else {
            false
        }
    }
}
