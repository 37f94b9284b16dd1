//! The reader against real kernels' BTF, hand-made BTF and damaged BTF.

use proptest::prelude::*;

use super::{
    Btf, BtfError, Kind, LookupError,
    builder::{Builder, kind},
};

const V5_10: &[u8] = include_bytes!("../../tests/fixtures/btf/5.10.btf");
const V6_1: &[u8] = include_bytes!("../../tests/fixtures/btf/6.1.btf");
const V6_12: &[u8] = include_bytes!("../../tests/fixtures/btf/6.12.btf");
const V6_18: &[u8] = include_bytes!("../../tests/fixtures/btf/6.18.btf");
const V7_2: &[u8] = include_bytes!("../../tests/fixtures/btf/7.2.btf");

fn parse(bytes: &[u8]) -> Btf {
    Btf::parse(bytes).unwrap()
}

/// Offset in bits, size in bytes, width of a bit field in bits.
fn member(btf: &Btf, structure: &str, path: &str) -> Result<(u32, u32, u8), LookupError> {
    btf.member(structure, path)
        .map(|found| (found.offset_bits, found.size, found.bitfield_bits))
}

#[test]
fn members_of_real_kernels() {
    let cases = [
        // Plain, through anonymous unions, an array, nested, through a typedef of an anonymous
        // structure, a bit field, in the middle of anonymous structures.
        (V5_10, "sock", "sk_err", Ok((568 * 8, 4, 0))),
        (V6_12, "sock", "sk_err", Ok((284 * 8, 4, 0))),
        (V7_2, "sock_common", "skc_daddr", Ok((0, 4, 0))),
        (V7_2, "sock_common", "skc_flags", Ok((96 * 8, 8, 0))),
        (V6_1, "task_struct", "comm", Ok((2976 * 8, 16, 0))),
        (
            V6_18,
            "sock",
            "sk_receive_queue.qlen",
            Err(LookupError::NoMember),
        ),
        (V6_18, "net", "ns.inum", Ok((176 * 8, 4, 0))),
        (V5_10, "net_device", "nd_net.net", Ok((1264 * 8, 8, 0))),
        (V6_18, "net_device", "nd_net", Ok((264 * 8, 8, 0))),
        (V5_10, "sock", "sk_kern_sock", Ok((536 * 8 + 1, 1, 1))),
        (V6_18, "sock_common", "skc_reuse", Ok((19 * 8, 1, 4))),
        (V6_18, "sk_buff", "pkt_type", Ok((128 * 8, 1, 3))),
        (V7_2, "sk_buff", "transport_header", Ok((182 * 8, 2, 0))),
        (V6_1, "sk_buff", "cb", Ok((40 * 8, 48, 0))),
        (V6_1, "socket_alloc", "vfs_inode", Ok((128 * 8, 632, 0))),
        (V6_12, "sock", "sk_ino", Err(LookupError::NoMember)),
        (V6_12, "sock", "", Err(LookupError::NoMember)),
        (V6_12, "sock", "sk_er", Err(LookupError::NoMember)),
        (V6_12, "sock", "sk_err.x", Err(LookupError::NoMember)),
        (V6_12, "sock", "sk_socket.file", Err(LookupError::NoMember)),
        (V6_12, "soc", "sk_err", Err(LookupError::NoStructure)),
        (V6_12, "", "sk_err", Err(LookupError::NoStructure)),
        // Only declared, in the reduced file.
        (V6_12, "mutex", "owner", Err(LookupError::NoStructure)),
    ];
    for (bytes, structure, path, expected) in cases {
        let btf = parse(bytes);
        assert_eq!(
            member(&btf, structure, path),
            expected,
            "{structure}.{path}"
        );
    }
}

#[test]
fn arguments_of_tracepoints() {
    let cases = [
        (V5_10, "btf_trace_tcp_send_reset", Some(3)),
        (V6_1, "btf_trace_tcp_send_reset", Some(3)),
        (V6_12, "btf_trace_tcp_send_reset", Some(4)),
        (V7_2, "btf_trace_tcp_send_reset", Some(4)),
        (V7_2, "btf_trace_inet_sock_set_state", Some(4)),
        (V7_2, "btf_trace_tcp_receive_reset", Some(2)),
        (V7_2, "btf_trace_tcp_no_such_thing", None),
        // Typedefs of something else.
        (V7_2, "u32", None),
        (V7_2, "possible_net_t", None),
    ];
    for (bytes, name, expected) in cases {
        assert_eq!(parse(bytes).function_args(name), expected, "{name}");
    }
}

#[test]
fn values_of_enumerations() {
    let mut builder = Builder::new();
    let [zero, one, two] = [&b"ZERO"[..], b"ONE", b"TW\xff"].map(|name| builder.name(name));
    builder.add(kind::ENUM, false, b"plain", 4, 0, &[]);
    builder.add(kind::ENUM, false, b"plain", 4, 2, &[zero, 0, one, u32::MAX]);
    builder.add(kind::ENUM, true, b"signed", 4, 2, &[zero, 0, one, u32::MAX]);
    builder.add(kind::ENUM64, false, b"wide", 8, 2, &[one, 1, 2, two, 1, 0]);
    let btf = parse(&builder.finish());
    assert_eq!(
        btf.enum_values("plain"),
        Some(vec![("ZERO", 0), ("ONE", i64::from(u32::MAX))])
    );
    assert_eq!(
        btf.enum_values("signed"),
        Some(vec![("ZERO", 0), ("ONE", -1)])
    );
    assert_eq!(btf.enum_values("wide"), Some(vec![("ONE", (2 << 32) + 1)]));
    assert_eq!(btf.enum_values("none"), None);

    let reasons = parse(V6_12);
    let reasons = reasons.enum_values("sk_rst_reason").unwrap();
    assert_eq!(reasons[11], ("SK_RST_REASON_TCP_ABORT_ON_CLOSE", 11));
    assert_eq!(parse(V6_1).enum_values("sk_rst_reason"), None);
}

#[test]
fn qualified_and_nested_types_have_the_size_of_what_is_behind() {
    let mut builder = Builder::new();
    let int = builder.add(kind::INT, false, b"int", 4, 0, &[32]);
    let float = builder.add(kind::FLOAT, false, b"float", 4, 0, &[]);
    let pointer = builder.add(kind::PTR, false, b"", 0, 0, &[]);
    let mut chain = int;
    for kind in [
        kind::TYPEDEF,
        kind::CONST,
        kind::VOLATILE,
        kind::RESTRICT,
        kind::TYPE_TAG,
    ] {
        chain = builder.add(kind, false, b"t", chain, 0, &[]);
    }
    let row = builder.add(kind::ARRAY, false, b"", 0, 0, &[chain, int, 3]);
    let table = builder.add(kind::ARRAY, false, b"", 0, 0, &[row, int, 5]);
    let flexible = builder.add(kind::ARRAY, false, b"", 0, 0, &[int, int, 0]);
    let declared = builder.add(kind::FWD, false, b"declared", 0, 0, &[]);
    let huge = builder.add(kind::ARRAY, false, b"", 0, 0, &[table, int, u32::MAX]);
    let inner = [builder.name(b"x"), float, 32];
    let inner = builder.add(kind::UNION, false, b"", 8, 1, &inner);
    let members = [
        ("chain", chain),
        ("pointer", pointer),
        ("table", table),
        ("flexible", flexible),
        ("declared", declared),
        ("huge", huge),
        ("void", 0),
        ("nowhere", 999),
        ("", inner),
    ];
    let words: Vec<u32> = (0..)
        .zip(members)
        .flat_map(|(at, (name, id))| [builder.name(name.as_bytes()), id, at * 64])
        .collect();
    builder.add(kind::STRUCT, false, b"s", 128, members.len(), &words);
    let btf = parse(&builder.finish());
    let cases = [
        ("chain", Ok((0, 4, 0))),
        ("pointer", Ok((64, 8, 0))),
        ("table", Ok((128, 60, 0))),
        ("flexible", Ok((192, 0, 0))),
        ("declared", Ok((256, 0, 0))),
        ("huge", Err(LookupError::Malformed)),
        ("void", Ok((384, 0, 0))),
        ("nowhere", Err(LookupError::Malformed)),
        ("nowhere.x", Err(LookupError::Malformed)),
        ("void.x", Err(LookupError::NoMember)),
        ("x", Ok((544, 4, 0))),
    ];
    for (path, expected) in cases {
        assert_eq!(member(&btf, "s", path), expected, "{path}");
    }
}

#[test]
fn structures_of_one_name_must_agree() {
    let mut builder = Builder::new();
    let int = builder.add(kind::INT, false, b"int", 4, 0, &[32]);
    let [same, moved, own] = [&b"same"[..], b"moved", b"own"].map(|name| builder.name(name));
    builder.add(kind::FWD, false, b"s", 0, 0, &[]);
    builder.add(kind::STRUCT, false, b"s", 4, 0, &[]);
    builder.add(
        kind::STRUCT,
        false,
        b"s",
        8,
        2,
        &[same, int, 0, moved, int, 32],
    );
    let other_int = builder.add(kind::INT, false, b"int", 4, 0, &[32]);
    let members = [same, other_int, 0, moved, int, 64, own, int, 96];
    builder.add(kind::STRUCT, false, b"s", 16, 3, &members);
    let btf = parse(&builder.finish());
    assert_eq!(btf.structures("s").count(), 2);
    assert_eq!(member(&btf, "s", "same"), Ok((0, 4, 0)));
    assert_eq!(member(&btf, "s", "own"), Ok((96, 4, 0)));
    assert_eq!(member(&btf, "s", "moved"), Err(LookupError::Ambiguous));
    assert_eq!(member(&btf, "s", "none"), Err(LookupError::NoMember));
}

#[test]
fn circles_end() {
    let mut builder = Builder::new();
    // A typedef of itself, an array of itself, and structures that hold each other namelessly,
    // many times over.
    let typedef = builder.add(kind::TYPEDEF, false, b"t", 0, 0, &[]);
    builder.set_type(typedef, typedef);
    let array = builder.add(kind::ARRAY, false, b"", 0, 0, &[0, 0, 1]);
    builder.set_words(array, &[array]);
    let [one, other] =
        [&b"s"[..], b""].map(|name| builder.add(kind::STRUCT, false, name, 8, 100, &[0; 300]));
    builder.set_words(one, &[0, other, 0].repeat(100));
    builder.set_words(other, &[0, one, 0].repeat(100));
    let [a, b] = [&b"a"[..], b"b"].map(|name| builder.name(name));
    builder.add(
        kind::STRUCT,
        false,
        b"u",
        8,
        2,
        &[a, typedef, 0, b, array, 0],
    );
    let btf = parse(&builder.finish());
    assert_eq!(btf.resolve(typedef), None);
    assert_eq!(btf.function_args("t"), None);
    assert_eq!(member(&btf, "s", "x"), Err(LookupError::Malformed));
    assert_eq!(member(&btf, "u", "a"), Err(LookupError::Malformed));
    assert_eq!(member(&btf, "u", "a.b"), Err(LookupError::Malformed));
    assert_eq!(member(&btf, "u", "b"), Err(LookupError::Malformed));
}

#[test]
fn the_other_byte_order_reads_the_same() {
    let mut swapped = V6_12.to_vec();
    swapped[..2].reverse();
    let string_start = 24 + u32::from_le_bytes(*V6_12[16..].first_chunk().unwrap()) as usize;
    for word in swapped[4..string_start].chunks_exact_mut(4) {
        word.reverse();
    }
    let (here, there) = (parse(V6_12), parse(&swapped));
    assert_eq!(here.len(), there.len());
    for path in ["sk_err", "sk_kern_sock", "sk_uid"] {
        assert_eq!(here.member("sock", path), there.member("sock", path));
    }
}

#[test]
fn what_is_not_btf_is_refused() {
    let mut builder = Builder::new();
    builder.add(kind::INT, false, b"int", 4, 0, &[32]);
    let good = builder.finish();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Btf::parse(&bytes).err()
    };
    let btf = parse(&good);
    assert_eq!(btf.type_by_id(1).map(|int| int.kind), Some(Kind::Int));
    assert!(btf.type_by_id(0).is_none());
    assert!(btf.type_by_id(2).is_none());

    assert_eq!(Btf::parse(b"").err(), Some(BtfError::Magic));
    assert_eq!(Btf::parse(b"\x7fELF").err(), Some(BtfError::Magic));
    assert_eq!(Btf::parse(&good[..10]).err(), Some(BtfError::Header));
    assert_eq!(changed(0, 0), Some(BtfError::Magic));
    assert_eq!(changed(2, 2), Some(BtfError::Version(2)));
    // The header's length, the start of the types, the length of the strings.
    assert_eq!(changed(4, 20), Some(BtfError::Header));
    assert_eq!(changed(8, 2), Some(BtfError::Header));
    assert_eq!(changed(20, 200), Some(BtfError::Header));
    assert_eq!(changed(20, 4), Some(BtfError::Strings));
    // The kind of the only type, and bits of its description that have no meaning yet.
    let info = |info| Some(BtfError::Info { id: 1, info });
    assert_eq!(changed(31, 0), info(0));
    assert_eq!(changed(31, 20), info(20 << 24));
    assert_eq!(changed(30, 1), info(0x0101_0000));
}

#[test]
fn a_type_that_is_cut_off_is_refused() {
    let mut builder = Builder::new();
    builder.add(kind::INT, false, b"int", 4, 0, &[32]);
    builder.add(kind::STRUCT, false, b"s", 4, 1, &[0, 1]);
    let cut = Some(BtfError::Truncated { id: 2 });
    assert_eq!(Btf::parse(&builder.finish()).err(), cut);
}

/// Asks all the questions; what the answers are does not matter.
fn ask(btf: &Btf) {
    for path in ["sk_err", "sk_kern_sock", "__sk_common.skc_net.net", "none"] {
        for structure in ["sock", "tcp_sock", "net_device"] {
            let _ = btf.member(structure, path);
        }
    }
    let _ = btf.enum_values("sk_rst_reason");
    let _ = btf.function_args("btf_trace_tcp_send_reset");
    for id in 0..=btf.len() as u32 + 1 {
        if let Some(found) = btf.type_by_id(id) {
            btf.name(found.name);
        }
        btf.resolve(id);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes: Vec<u8>) {
        if let Ok(btf) = Btf::parse(&bytes) {
            ask(&btf);
        }
    }

    #[test]
    fn any_types_are_taken(words in prop::collection::vec(prop_oneof![
        any::<u32>(),
        0_u32..16,
        // Descriptions of types: a kind and a few members.
        (0_u32..20, 0_u32..4, any::<bool>()).prop_map(|(kind, members, flag)| {
            (kind << 24) | members | (u32::from(flag) << 31)
        }),
    ], 0..200)) {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let types = words.len() as u32 * 4;
        let strings = b"\0sock\0sk_err\0none\0";
        for word in [24, 0, types, types, strings.len() as u32].iter().chain(&words) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(strings);
        if let Ok(btf) = Btf::parse(&bytes) {
            ask(&btf);
        }
    }

    #[test]
    fn a_kernels_btf_may_be_cut_off(len in 0..V6_12.len()) {
        prop_assert!(Btf::parse(&V6_12[..len]).is_err());
    }

    #[test]
    fn a_kernels_btf_may_be_damaged(
        flips in prop::collection::vec((0..V7_2.len(), 0_u8..8), 1..20),
    ) {
        let mut bytes = V7_2.to_vec();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            ask(&btf);
        }
    }
}
