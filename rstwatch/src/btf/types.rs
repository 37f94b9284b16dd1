//! A type as BTF writes it: three words, and more words that depend on the kind.
//!
//! `include/uapi/linux/btf.h`, 5.10 to 7.2.

/// The bits of a type's second word that are in use: the number of members (0 to 15), the kind
/// (24 to 28) and the flag (31).
const INFO_MASK: u32 = 0x9f00_ffff;

/// What a type is (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are BTF's")]
pub enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    /// The kind that a type's second word tells; `None` when the word uses what this reader does
    /// not know.
    pub(super) fn from_info(info: u32) -> Option<Self> {
        if info & !INFO_MASK != 0 {
            return None;
        }
        let number = (info >> 24) & 0x1f;
        // Number 0 is `void`, which is never written down.
        Self::ALL.get((number as usize).checked_sub(1)?).copied()
    }

    /// Words that follow the first three, for a type with `members` members.
    pub(super) const fn words(self, members: usize) -> usize {
        match self {
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
            Self::Int | Self::Var | Self::DeclTag => 1,
            Self::Array => 3,
            Self::Enum | Self::FuncProto => 2 * members,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 3 * members,
        }
    }

    /// Whether types of this kind only qualify or name another one.
    pub(super) const fn is_modifier(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag
        )
    }
}

/// A type as it is written; names are offsets for [`Btf::name`](super::Btf::name).
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    /// What it is.
    pub kind: Kind,
    /// Offset of its name; 0 when it has none.
    pub name: u32,
    /// The kind's flag: bit fields have their width in the member's offset (structures and unions),
    /// values are signed (enumerations).
    pub flag: bool,
    /// Its size in bytes, or the id of the type that it refers to, as the kind has it.
    pub size_or_type: u32,
    /// The words after the first three, without the rest of a group when one is incomplete.
    pub words: &'a [u32],
}

impl<'a> Type<'a> {
    /// Members of a structure or union; nothing for other kinds.
    pub(super) fn members(self) -> impl Iterator<Item = RawMember> + use<'a> {
        let words = match self.kind {
            Kind::Struct | Kind::Union => self.words,
            _ => &[],
        };
        words
            .as_chunks::<3>()
            .0
            .iter()
            .map(move |&[name, type_id, offset]| RawMember {
                name,
                type_id,
                offset: if self.flag {
                    offset & 0x00ff_ffff
                } else {
                    offset
                },
                // Without the flag a bit field would be known by its integer's own width; pahole
                // has not written that form since 1.13, and Linux 5.10 asks for 1.16.
                bits: if self.flag { (offset >> 24) as u8 } else { 0 },
            })
    }
}

/// A member as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawMember {
    /// Offset of its name; 0 when it has none.
    pub name: u32,
    /// Id of its type.
    pub type_id: u32,
    /// Bits from the start of the structure that it is written in.
    pub offset: u32,
    /// Width of a bit field in bits; 0 for another member.
    pub bits: u8,
}
