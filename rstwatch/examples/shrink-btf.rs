//! Reduces a kernel's BTF to what rstwatch looks up in it, for `tests/fixtures/btf`.
//!
//! ```text
//! cargo run --example shrink-btf -- FULL.btf SMALL.btf
//! ```
//!
//! The full file is `/sys/kernel/btf/vmlinux`, or the section `.BTF` of a kernel image that
//! `scripts/extract-vmlinux` of the kernel's sources has unpacked.
//!
//! Kept as they are: every structure of `rstwatch_common::layout::FIELDS` with all its members, those
//! whose mere presence tells something (`FULL_EVENT`, `MEMLOCK`),
//! the anonymous and named structures on the way to a nested field, `enum sk_rst_reason` and `enum bpf_func_id`, and the
//! typedefs of the tracepoints. Names, offsets, sizes, typedefs and qualifiers stay true. Any other
//! structure becomes one of the same name and size without members, and every pointer one to
//! `void`: with them, nearly the whole kernel would hang on `struct sock`.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fs,
};

use rstwatch::{
    btf::{Btf, Kind, Type},
    kernel::{
        layout::{FULL_EVENT, HELPERS, MEMLOCK, TRACEPOINTS},
        reasons::ENUMERATION,
    },
};
use rstwatch_common::layout::FIELDS;

#[path = "../src/btf/builder.rs"]
mod builder;
use builder::{Builder, kind};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: shrink-btf FULL.btf SMALL.btf".into());
    };
    let btf = Btf::parse(&fs::read(from)?)?;
    let mut shrink = Shrink {
        keep: kept_structures(&btf),
        btf: &btf,
        out: Builder::new(),
        done: HashMap::new(),
        opaque: HashMap::new(),
        pointer: None,
    };
    let roots: Vec<u32> = (1..=btf.len() as u32)
        .filter(|&id| shrink.is_root(id))
        .collect();
    for id in roots {
        shrink.copy(id);
    }
    fs::write(to, shrink.out.finish())?;
    Ok(())
}

/// The structures that stay whole.
fn kept_structures(btf: &Btf) -> HashSet<u32> {
    let mut keep: HashSet<u32> = [FULL_EVENT, MEMLOCK]
        .into_iter()
        .flat_map(|name| btf.structures(name))
        .collect();
    for field in FIELDS {
        keep.extend(btf.structures(field.structure));
        let dots = field.member.match_indices('.');
        for path in dots.map(|(at, _)| &field.member[..at]) {
            let member = btf.member(field.structure, path).ok();
            keep.extend(member.and_then(|member| btf.resolve(member.type_id)));
        }
    }
    keep
}

struct Shrink<'a> {
    btf: &'a Btf,
    keep: HashSet<u32>,
    out: Builder,
    /// Old ids to new ones.
    done: HashMap<u32, u32>,
    /// Structures without members, by kind, name and size.
    opaque: HashMap<(u32, Vec<u8>, u32), u32>,
    pointer: Option<u32>,
}

impl Shrink<'_> {
    fn is_root(&self, id: u32) -> bool {
        let Some(found) = self.btf.type_by_id(id) else {
            return false;
        };
        let name = self.name(found.name);
        match found.kind {
            Kind::Typedef => name
                .strip_prefix(b"btf_trace_")
                .is_some_and(|name| TRACEPOINTS.iter().any(|point| point.as_bytes() == name)),
            Kind::Enum | Kind::Enum64 => is_kept(&name),
            _ => self.keep.contains(&id),
        }
    }

    fn name(&self, offset: u32) -> Vec<u8> {
        self.btf.name(offset).unwrap_or_default().to_vec()
    }

    /// Copies type `id` and what it refers to; returns the new id.
    fn copy(&mut self, id: u32) -> u32 {
        if let Some(&new) = self.done.get(&id) {
            return new;
        }
        let Some(old) = self.btf.type_by_id(id) else {
            return 0;
        };
        let name = self.name(old.name);
        let new = match old.kind {
            Kind::Struct | Kind::Union if name.is_empty() || self.keep.contains(&id) => {
                return self.copy_members(id, old, &name);
            }
            Kind::Struct | Kind::Union => self.opaque(old, name),
            Kind::Int => self
                .out
                .add(kind::INT, false, &name, old.size_or_type, 0, old.words),
            Kind::Ptr => *self
                .pointer
                .get_or_insert_with(|| self.out.add(kind::PTR, false, b"", 0, 0, &[])),
            Kind::Array => {
                let element = self.copy(old.words[0]);
                let index = self.copy(old.words[1]);
                let words = [element, index, old.words[2]];
                self.out.add(kind::ARRAY, false, b"", 0, 0, &words)
            }
            Kind::Enum | Kind::Enum64 if is_kept(&name) => self.copy_enumeration(old, &name),
            // Any other enumeration is an integer of its size.
            Kind::Enum | Kind::Enum64 => {
                let bits = old.size_or_type * 8;
                self.out
                    .add(kind::INT, false, &name, old.size_or_type, 0, &[bits])
            }
            Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                return self.copy_modifier(id, old, &name);
            }
            Kind::FuncProto => self.copy_prototype(old),
            Kind::Float => self
                .out
                .add(kind::FLOAT, false, &name, old.size_or_type, 0, &[]),
            _ => self.out.add(kind::FWD, false, &name, 0, 0, &[]),
        };
        self.done.insert(id, new);
        new
    }

    fn copy_members(&mut self, id: u32, old: Type<'_>, name: &[u8]) -> u32 {
        let members = old.words.len() / 3;
        let number = kind_number(old.kind);
        let new = self.out.add(
            number,
            old.flag,
            name,
            old.size_or_type,
            members,
            &vec![0; old.words.len()],
        );
        // Known before its members are copied, which may lead back to it.
        self.done.insert(id, new);
        let mut words = Vec::with_capacity(old.words.len());
        for member in old.words.chunks_exact(3) {
            let name = self.name(member[0]);
            words.extend([self.out.name(&name), self.copy(member[1]), member[2]]);
        }
        self.out.set_words(new, &words);
        new
    }

    fn opaque(&mut self, old: Type<'_>, name: Vec<u8>) -> u32 {
        let number = kind_number(old.kind);
        let out = &mut self.out;
        *self
            .opaque
            .entry((number, name, old.size_or_type))
            .or_insert_with_key(|(number, name, size)| out.add(*number, false, name, *size, 0, &[]))
    }

    fn copy_enumeration(&mut self, old: Type<'_>, name: &[u8]) -> u32 {
        let group = if old.kind == Kind::Enum { 2 } else { 3 };
        let mut words = Vec::with_capacity(old.words.len());
        for value in old.words.chunks_exact(group) {
            let name = self.name(value[0]);
            words.push(self.out.name(&name));
            words.extend(&value[1..]);
        }
        let members = words.len() / group;
        let number = kind_number(old.kind);
        self.out
            .add(number, old.flag, name, old.size_or_type, members, &words)
    }

    fn copy_modifier(&mut self, id: u32, old: Type<'_>, name: &[u8]) -> u32 {
        let new = self
            .out
            .add(kind_number(old.kind), old.flag, name, 0, 0, &[]);
        self.done.insert(id, new);
        let points_at = self.btf.type_by_id(old.size_or_type);
        // The one pointer whose target matters is a tracepoint's.
        let target = if name.starts_with(b"btf_trace_")
            && let Some(pointer) = points_at.filter(|found| found.kind == Kind::Ptr)
        {
            let prototype = self.copy(pointer.size_or_type);
            self.out.add(kind::PTR, false, b"", prototype, 0, &[])
        } else {
            self.copy(old.size_or_type)
        };
        self.out.set_type(new, target);
        new
    }

    fn copy_prototype(&mut self, old: Type<'_>) -> u32 {
        let mut words = Vec::with_capacity(old.words.len());
        for parameter in old.words.chunks_exact(2) {
            words.extend([0, self.copy(parameter[1])]);
        }
        let returned = self.copy(old.size_or_type);
        let members = words.len() / 2;
        self.out
            .add(kind::FUNC_PROTO, false, b"", returned, members, &words)
    }
}

const fn kind_number(of: Kind) -> u32 {
    match of {
        Kind::Struct => kind::STRUCT,
        Kind::Union => kind::UNION,
        Kind::Enum => kind::ENUM,
        Kind::Enum64 => kind::ENUM64,
        Kind::Typedef => kind::TYPEDEF,
        Kind::Volatile => kind::VOLATILE,
        Kind::Const => kind::CONST,
        Kind::Restrict => kind::RESTRICT,
        Kind::TypeTag => kind::TYPE_TAG,
        _ => kind::FWD,
    }
}

/// Whether the reduced file keeps the values of the enumeration of this name.
fn is_kept(name: &[u8]) -> bool {
    [ENUMERATION, HELPERS]
        .iter()
        .any(|kept| kept.as_bytes() == name)
}
