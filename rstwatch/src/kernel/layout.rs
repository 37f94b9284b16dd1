//! Where the running kernel keeps the fields that the BPF programs read, and which of the hooks
//! it has: from BTF to the read-only globals of `rstwatch-common`.
//!
//! What a missing field costs the user is not decided here.

use std::{error::Error, fmt};

use rstwatch_common::layout::{ABSENT, FIELDS, Field, Layout, bit_entry};

use crate::btf::{Btf, LookupError, Member};

/// The tracepoints that rstwatch attaches to, in the order of attachment: those that learn owners
/// come before those that need them, and a socket's end before its beginning, so that nothing
/// learnt is left behind.
pub const TRACEPOINTS: [&str; 4] = [
    "tcp_destroy_sock",
    "inet_sock_set_state",
    "tcp_receive_reset",
    "tcp_send_reset",
];

/// The functions that send a RST in answer to a segment, for IPv4 and IPv6. Hooked where the tracepoint
/// does not tell of all that they send.
pub const FUNCTIONS: [&str; 2] = ["tcp_v4_send_reset", "tcp_v6_send_reset"];

/// The structure of the event `tcp_send_reset` in the trace buffer. It became one of its own, no longer
/// shared with other events, when the tracepoint began to tell of resets without a full socket
/// (`include/trace/events/tcp.h`, 6.10).
pub const FULL_EVENT: &str = "trace_event_raw_tcp_send_reset";

/// What charges maps and programs to `RLIMIT_MEMLOCK` (`include/linux/bpf.h`, 5.3 to 5.10).
pub const MEMLOCK: &str = "bpf_map_memory";

/// The enumeration of BPF helpers (`include/uapi/linux/bpf.h`).
pub const HELPERS: &str = "bpf_func_id";

/// A field that the kernel does not have in the form that the BPF programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// The field.
    pub field: &'static Field,
    /// Why it cannot be used.
    pub why: Why,
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Field {
            structure, member, ..
        } = self.field;
        write!(f, "struct {structure}, {member}: {}", self.why)
    }
}

/// Why a field cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not there.
    Lookup(LookupError),
    /// It has this size in bytes, and not the one that the programs read.
    Size(u32),
    /// It is this many bits wide (0: not a bit field), and not as the programs read it.
    Bits(u8),
    /// It begins this many bits from the structure's start, which [`Layout`] cannot express.
    Offset(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => error.fmt(f),
            Self::Size(size) => write!(f, "its size is {size} bytes"),
            Self::Bits(0) => f.write_str("it is not a bit field"),
            Self::Bits(bits) => write!(f, "it is a bit field of {bits} bits"),
            Self::Offset(bits) => write!(f, "its offset of {bits} bits is out of range"),
        }
    }
}

/// The kernel lacks fields that rstwatch cannot work without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// All of them, at least one.
    pub missing: Vec<MissingField>,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel's type information lacks what rstwatch needs")?;
        for (number, missing) in self.missing.iter().enumerate() {
            write!(f, "{} {missing}", if number == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl Error for LayoutError {}

/// Looks every field of [`FIELDS`] up. Returns the layout, and the optional fields that are
/// [`ABSENT`] in it.
///
/// # Errors
///
/// When a required field is missing.
pub fn resolve(btf: &Btf) -> Result<(Layout, Vec<MissingField>), LayoutError> {
    let mut entries = [ABSENT; FIELDS.len()];
    let mut missing = Vec::new();
    // The fields of one structure stand together.
    let mut structure = "";
    let mut structures = Vec::new();
    for (entry, field) in entries.iter_mut().zip(FIELDS) {
        if field.structure != structure {
            structure = field.structure;
            structures = btf.structures(structure).collect();
        }
        match locate(btf, &structures, field) {
            Ok(found) => *entry = found,
            Err(why) => missing.push(MissingField { field, why }),
        }
    }
    if missing.iter().any(|missing| missing.field.required) {
        missing.retain(|missing| missing.field.required);
        return Err(LayoutError { missing });
    }
    // `Layout` has one `u16` for each field, in the same order: the sizes are compared when this
    // is compiled.
    Ok((zerocopy::transmute!(entries), missing))
}

/// One field's entry in [`Layout`]; `structures` are those of its structure's name.
fn locate(btf: &Btf, structures: &[u32], field: &Field) -> Result<u16, Why> {
    let member = btf
        .member_among(structures, field.member)
        .map_err(Why::Lookup)?;
    let Member {
        offset_bits,
        size,
        bitfield_bits,
        ..
    } = member;
    let byte = u16::try_from(offset_bits / 8).map_err(|_| Why::Offset(offset_bits))?;
    if field.bit {
        // The number of a bit counts from the lowest, as on the little-endian machines that
        // rstwatch is built for.
        return match bitfield_bits {
            1 if byte < 0x0fff => Ok(bit_entry(byte, (offset_bits % 8) as u16)),
            1 => Err(Why::Offset(offset_bits)),
            bits => Err(Why::Bits(bits)),
        };
    }
    if bitfield_bits != 0 {
        return Err(Why::Bits(bitfield_bits));
    }
    if field.size != 0 && size != u32::from(field.size) {
        return Err(Why::Size(size));
    }
    if offset_bits % 8 != 0 || byte == ABSENT {
        return Err(Why::Offset(offset_bits));
    }
    Ok(byte)
}

/// What the kernel's type information says about the hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about the kernel, each from its own place in the BTF"
)]
pub struct Hooks {
    /// `tcp_send_reset` passes a reason as its third argument (6.10 and later).
    pub send_reset_reason: bool,
    /// `tcp_send_reset` tells of resets without a full socket too (6.10 and later).
    pub sends_all: bool,
    /// Maps and programs count as locked memory (5.10 and earlier).
    pub memlock: bool,
    /// BPF programs can read the running task without a helper call a field
    /// (`bpf_get_current_task_btf`, 5.11 and later).
    pub current_task_btf: bool,
    /// Those of [`TRACEPOINTS`] that the kernel does not describe, and so does not have.
    pub missing: Vec<&'static str>,
}

/// Looks the hooks up, each as the typedef `btf_trace_*` that the kernel's macros make for a
/// tracepoint (`include/trace/bpf_probe.h`).
pub fn hooks(btf: &Btf) -> Hooks {
    let args = |name: &str| btf.function_args(&format!("btf_trace_{name}"));
    // The private pointer, the socket, the segment and the reason.
    let send_reset_reason = args("tcp_send_reset").is_some_and(|args| args >= 4);
    Hooks {
        send_reset_reason,
        sends_all: send_reset_reason || btf.structures(FULL_EVENT).next().is_some(),
        memlock: btf.structures(MEMLOCK).next().is_some(),
        current_task_btf: btf.enum_values(HELPERS).is_some_and(|helpers| {
            helpers
                .iter()
                .any(|(name, _)| *name == "BPF_FUNC_get_current_task_btf")
        }),
        missing: TRACEPOINTS
            .into_iter()
            .filter(|name| args(name).is_none())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::builder::{Builder, kind};
    use rstwatch_common::layout::bit_position;
    use zerocopy::IntoBytes as _;

    /// The kernels of the table's columns.
    const KERNELS: [(&str, &[u8]); 5] = [
        ("5.10", include_bytes!("../../tests/fixtures/btf/5.10.btf")),
        ("6.1", include_bytes!("../../tests/fixtures/btf/6.1.btf")),
        ("6.12", include_bytes!("../../tests/fixtures/btf/6.12.btf")),
        ("6.18", include_bytes!("../../tests/fixtures/btf/6.18.btf")),
        ("7.2", include_bytes!("../../tests/fixtures/btf/7.2.btf")),
    ];

    /// The entries of every field, taken with other tools than this reader. The kernels are
    /// Debian's, but 6.18, which is built without modules.
    #[rustfmt::skip]
    const EXPECTED: [(&str, [u16; 5]); FIELDS.len()] = [
        ("sock_common.skc_daddr", [0, 0, 0, 0, 0]),
        ("sock_common.skc_rcv_saddr", [4, 4, 4, 4, 4]),
        ("sock_common.skc_dport", [12, 12, 12, 12, 12]),
        ("sock_common.skc_num", [14, 14, 14, 14, 14]),
        ("sock_common.skc_family", [16, 16, 16, 16, 16]),
        ("sock_common.skc_state", [18, 18, 18, 18, 18]),
        ("sock_common.skc_net.net", [48, 48, 48, 48, 48]),
        ("sock_common.skc_v6_daddr", [56, 56, 56, 56, 56]),
        ("sock_common.skc_v6_rcv_saddr", [72, 72, 72, 72, 72]),
        ("sock_common.skc_cookie", [88, 88, 88, 88, 88]),
        ("sock_common.skc_flags", [96, 96, 96, 96, 96]),
        ("sock.sk_socket", [640, 624, 288, 288, 288]),
        ("sock.sk_err", [568, 544, 284, 284, 284]),
        ("sock.sk_shutdown", [626, 610, 571, 575, 591]),
        ("sock.sk_protocol", [540, 516, 574, 532, 540]),
        ("sock.sk_uid", [584, 560, 612, 528, 536]),
        ("sock.sk_ino", [ABSENT, ABSENT, ABSENT, 608, 624]),
        ("sock.sk_lingertime", [544, 520, 576, 576, 592]),
        ("sock.sk_ack_backlog", [576, 552, 604, 600, 616]),
        ("sock.sk_max_ack_backlog", [580, 556, 608, 604, 620]),
        ("sock.sk_kern_sock", [bit_entry(536, 1), bit_entry(512, 1), bit_entry(570, 1), bit_entry(574, 1), bit_entry(590, 1)]),
        ("inet_sock.inet_sport", [784, 804, 806, 814, 830]),
        ("inet_connection_sock.icsk_retransmits", [1233, 1281, 1289, 1249, 1281]),
        ("inet_connection_sock.icsk_probes_out", [1237, 1285, 1293, 1253, 1285]),
        ("inet_connection_sock.icsk_user_timeout", [1288, 1332, 1340, 1292, 1324]),
        ("inet_connection_sock.icsk_ack.lrcvtime", [1256, 1304, 1312, 1264, 1296]),
        ("tcp_sock.rcv_nxt", [1424, 1464, 1712, 1664, 1768]),
        ("tcp_sock.copied_seq", [1428, 1468, 1520, 1464, 1504]),
        ("tcp_sock.snd_una", [1468, 1508, 1720, 1672, 1776]),
        ("tcp_sock.snd_nxt", [1436, 1476, 1716, 1668, 1772]),
        ("tcp_sock.write_seq", [1812, 1852, 1636, 1576, 1668]),
        ("tcp_sock.lsndtime", [1480, 1520, 1644, 1584, 1676]),
        ("tcp_sock.rcv_tstamp", [1476, 1516, 1524, 1724, 1824]),
        ("tcp_sock.linger2", [2120, 2160, 2244, 2228, 2332]),
        ("tcp_sock.keepalive_time", [2112, 2152, 2236, 2220, 2324]),
        ("tcp_sock.keepalive_intvl", [2116, 2156, 2240, 2224, 2328]),
        ("tcp_sock.keepalive_probes", [1695, 1735, 1933, 1917, 1989]),
        ("tcp_sock.bytes_received", [1408, 1448, 1784, 1752, 1864]),
        ("tcp_sock.bytes_acked", [1456, 1496, 1840, 1824, 1608]),
        ("tcp_sock.bytes_sent", [1448, 1488, 1608, 1544, 1616]),
        ("tcp_sock.total_retrans", [2104, 2144, 2216, 2200, 2304]),
        ("tcp_sock.srtt_us", [1632, 1672, 1728, 1680, 1784]),
        ("tcp_sock.tcp_clock_cache", [1616, 1656, 1696, 1648, 1752]),
        ("tcp_sock.is_mptcp", [ABSENT, 2220, 2272, 2252, 2356]),
        ("inet_timewait_sock.tw_substate", [140, 140, 140, 140, 140]),
        ("sk_buff.head", [192, 200, 200, 192, 200]),
        ("sk_buff.len", [112, 112, 112, 112, 112]),
        ("sk_buff.transport_header", [178, 182, 182, 178, 182]),
        ("sk_buff.network_header", [180, 184, 184, 180, 184]),
        ("sk_buff.dev", [16, 16, 16, 16, 16]),
        ("sk_buff._skb_refdst", [88, 88, 88, 88, 88]),
        ("dst_entry.dev", [0, 0, 0, 0, 0]),
        ("net_device.nd_net.net", [1264, 1280, 280, 264, 264]),
        ("net.ns.inum", [144, 144, 136, 176, 280]),
        ("net.net_cookie", [4416, 4032, 4224, 4160, 4608]),
        ("socket_alloc.vfs_inode", [128, 128, 128, 128, 128]),
        ("inode.i_ino", [64, 64, 64, 64, 64]),
        ("task_struct.pid", [2232, 2416, 2432, 1264, 2808]),
        ("task_struct.tgid", [2236, 2420, 2436, 1268, 2812]),
        ("task_struct.flags", [36, 44, 44, 44, 44]),
        ("task_struct.exit_code", [2136, 2312, 2332, 1164, 2708]),
        ("task_struct.group_leader", [2296, 2480, 2496, 1328, 2872]),
        ("task_struct.start_boottime", [2544, 2784, 2784, 1560, 3160]),
        ("task_struct.comm", [2736, 2976, 2976, 1752, 3344]),
        ("task_struct.real_cred", [2712, 2952, 2952, 1728, 3320]),
        ("task_struct.signal", [2832, 3072, 3072, 1848, 3448]),
        ("signal_struct.oom_mm", [1016, 1032, 1024, 1064, 1080]),
        ("cred.user", [128, 128, 136, 136, 136]),
        ("user_struct.uid.val", [72, 80, 80, 80, 80]),
        ("sock.sk_cgrp_data.cgroup", [664, 648, 672, 672, 688]),
        ("cgroup.kn", [248, 248, 256, 256, 296]),
        ("kernfs_node.id", [104, 104, 96, 96, 96]),
        ("socket.file", [16, 16, 16, 16, 16]),
        ("file.f_count", [56, 56, 0, ABSENT, ABSENT]),
        ("file.f_ref", [ABSENT, ABSENT, ABSENT, 176, 168]),
        ("rtable.rt_type", [120, 120, 144, 144, 144]),
        ("rt6_info.rt6i_flags", [192, 192, 216, 216, 216]),
        ("tcp_sock.md5sig_info", [2192, 2248, 2296, 2264, 2368]),
        ("tcp_sock.ao_info", [ABSENT, ABSENT, ABSENT, ABSENT, 2376]),
        ("sock.sk_cgrp_data.is_data", [ABSENT, ABSENT, ABSENT, ABSENT, ABSENT]),
    ];

    fn entries(layout: &Layout) -> [u16; FIELDS.len()] {
        zerocopy::transmute!(*layout)
    }

    fn path(field: &Field) -> String {
        format!("{}.{}", field.structure, field.member)
    }

    #[test]
    fn every_field_is_found_in_every_kernel() {
        for (column, (kernel, bytes)) in KERNELS.into_iter().enumerate() {
            let (layout, missing) = resolve(&Btf::parse(bytes).unwrap()).unwrap();
            for ((field, entry), (name, expected)) in
                FIELDS.iter().zip(entries(&layout)).zip(EXPECTED)
            {
                assert_eq!(path(field), name);
                assert_eq!(entry, expected[column], "{name} of {kernel}");
            }
            let absent: Vec<_> = EXPECTED
                .iter()
                .filter(|(_, expected)| expected[column] == ABSENT)
                .map(|(name, _)| (*name).to_owned())
                .collect();
            let missing: Vec<_> = missing.iter().map(|missing| path(missing.field)).collect();
            assert_eq!(missing, absent, "{kernel}");
        }
    }

    #[test]
    fn the_layouts_members_stand_in_the_order_of_the_fields() {
        let (layout, _) = resolve(&Btf::parse(KERNELS[2].1).unwrap()).unwrap();
        assert_eq!(layout.sk_err, 284);
        assert_eq!(layout.sk_ino, ABSENT);
        assert_eq!(bit_position(layout.sk_kern_sock), (570, 2));
        assert_eq!(layout.task_comm, 2976);
        assert_eq!(layout.as_bytes().len(), 2 * FIELDS.len());
    }

    #[test]
    fn only_6_10_and_later_pass_a_reason() {
        for (kernel, bytes) in KERNELS {
            let hooks = hooks(&Btf::parse(bytes).unwrap());
            let later = !matches!(kernel, "5.10" | "6.1");
            assert_eq!(hooks.send_reset_reason, later, "{kernel}");
            assert_eq!(hooks.sends_all, later, "{kernel}");
            assert_eq!(hooks.memlock, kernel == "5.10", "{kernel}");
            assert_eq!(hooks.current_task_btf, kernel != "5.10", "{kernel}");
            assert!(hooks.missing.is_empty(), "{kernel}: {:?}", hooks.missing);
        }
        let nothing = Btf::parse(&Builder::new().finish()).unwrap();
        let hooks = hooks(&nothing);
        assert!(!hooks.send_reset_reason && !hooks.current_task_btf);
        assert_eq!(hooks.missing, TRACEPOINTS);
    }

    #[test]
    fn a_kernel_without_a_required_field_is_refused() {
        let nothing = Btf::parse(&Builder::new().finish()).unwrap();
        let error = resolve(&nothing).unwrap_err();
        let required = FIELDS.iter().filter(|field| field.required).count();
        assert_eq!(error.missing.len(), required);
        let text = error.to_string();
        assert!(
            text.starts_with(
                "the kernel's type information lacks what rstwatch needs: \
                 struct sock_common, skc_daddr: no such structure; "
            ),
            "{text}"
        );
    }

    #[test]
    fn a_field_of_another_form_is_not_used() {
        let field = |member, size, bit| Field {
            structure: "s",
            member,
            size,
            required: true,
            bit,
        };
        let mut builder = Builder::new();
        let long = builder.add(kind::INT, false, b"long", 8, 0, &[64]);
        let members = [
            ("whole", 0),
            ("one_bit", (1 << 24) + 70),
            ("two_bits", (2 << 24) + 71),
            ("far", 0x8_0000),
            ("far_bit", (1 << 24) + 0x8000),
            ("unaligned", 3),
        ];
        let words: Vec<u32> = members
            .iter()
            .flat_map(|(name, offset)| [builder.name(name.as_bytes()), long, *offset])
            .collect();
        let structure = builder.add(kind::STRUCT, true, b"s", 0x2_0000, members.len(), &words);
        let btf = Btf::parse(&builder.finish()).unwrap();

        let cases = [
            (field("whole", 8, false), Ok(0)),
            (field("whole", 0, false), Ok(0)),
            (field("whole", 4, false), Err(Why::Size(8))),
            (field("whole", 8, true), Err(Why::Bits(0))),
            (field("one_bit", 1, true), Ok(bit_entry(8, 6))),
            (field("one_bit", 8, false), Err(Why::Bits(1))),
            (field("two_bits", 1, true), Err(Why::Bits(2))),
            (field("far", 8, false), Err(Why::Offset(0x8_0000))),
            (field("far_bit", 1, true), Err(Why::Offset(0x8000))),
            (field("unaligned", 8, false), Err(Why::Offset(3))),
            (
                field("nothing", 8, false),
                Err(Why::Lookup(LookupError::NoMember)),
            ),
        ];
        for (field, expected) in cases {
            assert_eq!(locate(&btf, &[structure], &field), expected, "{field:?}");
        }
    }
}
