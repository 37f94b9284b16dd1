//! Where the running kernel keeps the fields that the BPF programs read.
//!
//! Rust has no CO-RE relocations. User space looks every field of [`FIELDS`] up in the kernel's BTF
//! and hands the offsets over as the read-only global `LAYOUT` before the programs are loaded. The
//! verifier knows read-only globals as constants: it checks every access as if the offset had been
//! written in the code, and removes the code behind a field that is [`ABSENT`].

/// The offset of a field that the running kernel does not have.
pub const ABSENT: u16 = u16::MAX;

/// What to look up in BTF for one field of [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The structure's name.
    pub structure: &'static str,
    /// The member, with dots between nested ones; members of anonymous structures and unions count
    /// as members of what holds them.
    pub member: &'static str,
    /// The size in bytes that the programs read; a member of another size is not used.
    pub size: u16,
    /// Whether rstwatch cannot work without it.
    pub required: bool,
    /// Whether it is a single bit: then the offset is that of the byte, and the mask of the bit
    /// within it is kept beside it.
    pub bit: bool,
}

macro_rules! layout {
    ($($name:ident: $structure:literal . $member:literal, $size:literal $($kind:ident)?;)*) => {
        /// Byte offsets within the kernel's structures, [`ABSENT`] where there is none. For a
        /// single bit the low 12 bits are the byte's offset and the high 4 the bit's number in it.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct Layout {
            $(#[doc = concat!("`struct ", $structure, "`, `", $member, "`.")] pub $name: u16,)*
        }

        /// The fields, in the order of [`Layout`]'s.
        pub const FIELDS: &[Field] = &[$(Field {
            structure: $structure,
            member: $member,
            size: $size,
            required: layout!(@required $($kind)?),
            bit: layout!(@bit $($kind)?),
        },)*];

        impl Layout {
            /// No field known.
            pub const EMPTY: Self = Self { $($name: ABSENT,)* };
        }
    };
    (@required) => { true };
    (@required optional) => { false };
    (@required bit) => { false };
    (@bit bit) => { true };
    (@bit $($kind:ident)?) => { false };
}

layout! {
    skc_daddr: "sock_common"."skc_daddr", 4;
    skc_rcv_saddr: "sock_common"."skc_rcv_saddr", 4;
    skc_dport: "sock_common"."skc_dport", 2;
    skc_num: "sock_common"."skc_num", 2;
    skc_family: "sock_common"."skc_family", 2;
    skc_state: "sock_common"."skc_state", 1;
    skc_net: "sock_common"."skc_net.net", 8 optional;
    skc_v6_daddr: "sock_common"."skc_v6_daddr", 16 optional;
    skc_v6_rcv_saddr: "sock_common"."skc_v6_rcv_saddr", 16 optional;
    skc_cookie: "sock_common"."skc_cookie", 8;
    skc_flags: "sock_common"."skc_flags", 8;
    sk_socket: "sock"."sk_socket", 8;
    sk_err: "sock"."sk_err", 4;
    sk_shutdown: "sock"."sk_shutdown", 1;
    sk_protocol: "sock"."sk_protocol", 2;
    sk_uid: "sock"."sk_uid", 4;
    sk_ino: "sock"."sk_ino", 8 optional;
    sk_lingertime: "sock"."sk_lingertime", 8 optional;
    sk_ack_backlog: "sock"."sk_ack_backlog", 4 optional;
    sk_max_ack_backlog: "sock"."sk_max_ack_backlog", 4 optional;
    sk_kern_sock: "sock"."sk_kern_sock", 1 bit;
    inet_sport: "inet_sock"."inet_sport", 2;
    icsk_retransmits: "inet_connection_sock"."icsk_retransmits", 1 optional;
    icsk_probes_out: "inet_connection_sock"."icsk_probes_out", 1 optional;
    icsk_user_timeout: "inet_connection_sock"."icsk_user_timeout", 4 optional;
    lrcvtime: "inet_connection_sock"."icsk_ack.lrcvtime", 4 optional;
    rcv_nxt: "tcp_sock"."rcv_nxt", 4;
    copied_seq: "tcp_sock"."copied_seq", 4;
    snd_una: "tcp_sock"."snd_una", 4;
    snd_nxt: "tcp_sock"."snd_nxt", 4;
    write_seq: "tcp_sock"."write_seq", 4;
    lsndtime: "tcp_sock"."lsndtime", 4 optional;
    rcv_tstamp: "tcp_sock"."rcv_tstamp", 4 optional;
    linger2: "tcp_sock"."linger2", 4 optional;
    keepalive_time: "tcp_sock"."keepalive_time", 4 optional;
    keepalive_intvl: "tcp_sock"."keepalive_intvl", 4 optional;
    keepalive_probes: "tcp_sock"."keepalive_probes", 1 optional;
    bytes_received: "tcp_sock"."bytes_received", 8 optional;
    bytes_acked: "tcp_sock"."bytes_acked", 8 optional;
    bytes_sent: "tcp_sock"."bytes_sent", 8 optional;
    total_retrans: "tcp_sock"."total_retrans", 4 optional;
    srtt_us: "tcp_sock"."srtt_us", 4 optional;
    tcp_clock_cache: "tcp_sock"."tcp_clock_cache", 8 optional;
    is_mptcp: "tcp_sock"."is_mptcp", 1 optional;
    tw_substate: "inet_timewait_sock"."tw_substate", 1 optional;
    skb_head: "sk_buff"."head", 8;
    skb_len: "sk_buff"."len", 4;
    skb_transport_header: "sk_buff"."transport_header", 2;
    skb_network_header: "sk_buff"."network_header", 2;
    skb_dev: "sk_buff"."dev", 8;
    skb_refdst: "sk_buff"."_skb_refdst", 8;
    dst_dev: "dst_entry"."dev", 8;
    nd_net: "net_device"."nd_net.net", 8 optional;
    net_inum: "net"."ns.inum", 4;
    net_cookie: "net"."net_cookie", 8 optional;
    socket_inode: "socket_alloc"."vfs_inode", 0;
    i_ino: "inode"."i_ino", 8;
    task_pid: "task_struct"."pid", 4;
    task_tgid: "task_struct"."tgid", 4;
    task_flags: "task_struct"."flags", 4;
    task_exit_code: "task_struct"."exit_code", 4;
    task_group_leader: "task_struct"."group_leader", 8;
    task_start_boottime: "task_struct"."start_boottime", 8;
    task_comm: "task_struct"."comm", 16;
    task_real_cred: "task_struct"."real_cred", 8;
    task_signal: "task_struct"."signal", 8 optional;
    signal_oom_mm: "signal_struct"."oom_mm", 8 optional;
    cred_user: "cred"."user", 8;
    user_uid: "user_struct"."uid.val", 4;
    sk_cgroup: "sock"."sk_cgrp_data.cgroup", 8 optional;
    cgroup_kn: "cgroup"."kn", 8 optional;
    kn_id: "kernfs_node"."id", 8 optional;
    socket_file: "socket"."file", 8 optional;
    file_count: "file"."f_count", 8 optional;
    file_ref: "file"."f_ref", 8 optional;
    rt_type: "rtable"."rt_type", 2 optional;
    rt6_flags: "rt6_info"."rt6i_flags", 4 optional;
    md5sig_info: "tcp_sock"."md5sig_info", 8 optional;
    ao_info: "tcp_sock"."ao_info", 8 optional;
    sk_cgroup_is_data: "sock"."sk_cgrp_data.is_data", 1 bit;
}

/// Splits a bit field's entry of [`Layout`] into the byte's offset and the mask of the bit.
pub const fn bit_position(entry: u16) -> (u16, u8) {
    (entry & 0x0fff, 1 << ((entry >> 12) & 7))
}

/// The entry of [`Layout`] for bit `bit` (0 to 7) of the byte at `offset` (below 4,095).
pub const fn bit_entry(offset: u16, bit: u16) -> u16 {
    (offset & 0x0fff) | ((bit & 7) << 12)
}

/// Facts about the kernel that switch code in the BPF programs, as the read-only global `FEATURES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
pub struct Features {
    /// 1: `tcp_send_reset` passes a reason as its third argument (6.10 and later).
    pub send_reset_reason: u8,
    /// 1: `bpf_get_current_task_btf` exists (5.11 and later), so that the running task's fields can
    /// be read without a helper call each.
    pub current_task_btf: u8,
    /// 1: `tcp_destroy_sock` tells when a socket goes, so that it may be remembered by its address
    /// until then.
    pub destroy_sock: u8,
    /// 1: CPUs with odd numbers fill a ring of their own.
    pub two_rings: u8,
}

#[cfg(feature = "user")]
mod pod {
    use super::{Features, Layout};

    // SAFETY: `repr(C)`, made of integers only, without padding (zerocopy's `IntoBytes` derive
    // proves it), and valid for every bit pattern.
    unsafe impl aya::Pod for Layout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Features {}
}
