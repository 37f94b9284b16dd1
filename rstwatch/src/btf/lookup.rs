//! The questions that rstwatch asks of BTF.

use super::{Btf, Kind, LookupError, Type, types::RawMember};

/// Types that one question may pass through. The kernel's longest chains of typedefs, qualifiers
/// and nested arrays are shorter than ten; only a circle is longer than this.
const MAX_DEPTH: u32 = 32;

/// Members that one question may look at, anonymous structures' included. `struct task_struct`, one
/// of the largest, has some 300.
const MAX_VISITS: u32 = 1 << 16;

/// Bytes of a pointer: rstwatch runs on 64-bit kernels only, and BTF does not say.
const POINTER_SIZE: u32 = 8;

/// Where a member is within its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bits from the start of the outermost structure.
    pub offset_bits: u32,
    /// Size of its type in bytes: of the whole array for an array, of the underlying type for a
    /// bit field. 0 for what has no size (a flexible array, a structure that is only declared).
    pub size: u32,
    /// Width of a bit field in bits; 0 for another member.
    pub bitfield_bits: u8,
    /// Id of its type.
    pub type_id: u32,
}

impl Btf {
    /// Finds the member `path` of the structure or union `structure`.
    ///
    /// The path has dots between nested members; members of anonymous structures and unions count
    /// as members of what holds them, and typedefs and qualifiers on the way are looked through.
    /// When several structures have that name (parts of the kernel may define their own), those
    /// without that member do not count.
    ///
    /// # Errors
    ///
    /// When there is no such member, or no single answer.
    pub fn member(&self, structure: &str, path: &str) -> Result<Member, LookupError> {
        let structures: Vec<u32> = self.structures(structure).collect();
        self.member_among(&structures, path)
    }

    /// As [`Btf::member`], among the structures with these ids: for one who asks for many members
    /// of a structure, whose name then needs to be looked up only once.
    ///
    /// # Errors
    ///
    /// As [`Btf::member`]'s.
    pub fn member_among(&self, structures: &[u32], path: &str) -> Result<Member, LookupError> {
        let mut visits = MAX_VISITS;
        let mut found: Option<Member> = None;
        let mut error = LookupError::NoStructure;
        for &id in structures {
            match self.member_of(id, path, &mut visits) {
                // The same structure may be written twice, with ids of their own for the types of
                // its members.
                Ok(member)
                    if found.is_some_and(|f| {
                        (f.offset_bits, f.size, f.bitfield_bits)
                            != (member.offset_bits, member.size, member.bitfield_bits)
                    }) =>
                {
                    return Err(LookupError::Ambiguous);
                }
                Ok(member) => found = found.or(Some(member)),
                Err(why) => error = why,
            }
        }
        found.ok_or(error)
    }

    /// The ids of all structures and unions of that name that have members.
    pub fn structures<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.named(&self.structures, name)
    }

    /// The names and values of the enumeration `name` in the order in which they are written;
    /// `None` when there is no such enumeration. Names that are not UTF-8 are left out. Unsigned
    /// 64-bit values above `i64::MAX` appear negative.
    pub fn enum_values(&self, name: &str) -> Option<Vec<(&str, i64)>> {
        let id = self.named(&self.enumerations, name).next()?;
        let enumeration = self.type_by_id(id)?;
        let text = |name| str::from_utf8(self.name(name)?).ok();
        Some(if enumeration.kind == Kind::Enum64 {
            let values = enumeration.words.as_chunks::<3>().0.iter();
            values
                .filter_map(|&[name, low, high]| {
                    let value = (u64::from(high) << 32) | u64::from(low);
                    Some((text(name)?, value.cast_signed()))
                })
                .collect()
        } else {
            let values = enumeration.words.as_chunks::<2>().0.iter();
            values
                .filter_map(|&[name, value]| {
                    let value = if enumeration.flag {
                        i64::from(value.cast_signed())
                    } else {
                        i64::from(value)
                    };
                    Some((text(name)?, value))
                })
                .collect()
        })
    }

    /// The number of parameters of the function that the typedef `name` points to; `None` when
    /// there is no such typedef, or it is something else.
    ///
    /// `typedef void (*btf_trace_X)(void *, ...)` gives a tracepoint's arguments and one more:
    /// the first is the tracepoint's private pointer (`include/trace/bpf_probe.h`).
    pub fn function_args(&self, name: &str) -> Option<usize> {
        let id = self.named(&self.typedefs, name).next()?;
        let pointer = self.type_by_id(self.resolve(id)?)?;
        if pointer.kind != Kind::Ptr {
            return None;
        }
        let function = self.type_by_id(self.resolve(pointer.size_or_type)?)?;
        (function.kind == Kind::FuncProto).then_some(function.words.len() / 2)
    }

    /// The id of the kernel's function `name`; `None` when it tells of none.
    ///
    /// A scan of all types: of functions there are tens of thousands, and rstwatch asks for one.
    pub fn function(&self, name: &str) -> Option<u32> {
        (1..=self.len() as u32).find(|&id| {
            self.type_by_id(id).is_some_and(|found| {
                found.kind == Kind::Func && self.is_named(found.name, name.as_bytes())
            })
        })
    }

    /// The size in bytes of each element of the array type `id`; `None` when it is another type.
    pub fn element_size(&self, id: u32) -> Option<u32> {
        let array = self.type_by_id(self.resolve(id)?)?;
        let element = array.words.first().filter(|_| array.kind == Kind::Array);
        self.size(*element?)
    }

    /// The type behind the typedefs and qualifiers of type `id`; 0 is `void`. `None` when the
    /// chain is broken or runs in a circle.
    pub fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            if id == 0 {
                return Some(0);
            }
            let found = self.type_by_id(id)?;
            if !found.kind.is_modifier() {
                return Some(id);
            }
            id = found.size_or_type;
        }
        None
    }

    /// The ids among `ids` of the types called `name`.
    ///
    /// A plain scan: there are some ten thousand structures, of which most differ from the name in
    /// their first bytes, and rstwatch asks for a few dozen names once.
    fn named<'a>(&'a self, ids: &'a [u32], name: &'a str) -> impl Iterator<Item = u32> + 'a {
        ids.iter().copied().filter(move |&id| {
            self.type_by_id(id)
                .is_some_and(|found| self.is_named(found.name, name.as_bytes()))
        })
    }

    fn member_of(
        &self,
        structure: u32,
        path: &str,
        visits: &mut u32,
    ) -> Result<Member, LookupError> {
        let mut at = structure;
        let mut offset_bits = 0_u32;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let id = self.resolve(at).ok_or(LookupError::Malformed)?;
            let structure = self.type_by_id(id).ok_or(LookupError::NoMember)?;
            let member = self
                .find(structure, name, 0, visits)?
                .ok_or(LookupError::NoMember)?;
            offset_bits = offset_bits
                .checked_add(member.offset)
                .ok_or(LookupError::Malformed)?;
            at = member.type_id;
            if names.peek().is_none() {
                return Ok(Member {
                    offset_bits,
                    size: self.size(at).ok_or(LookupError::Malformed)?,
                    bitfield_bits: member.bits,
                    type_id: at,
                });
            }
        }
        // `split` gives at least one name.
        Err(LookupError::NoMember)
    }

    /// The member `name` of `structure` or of the anonymous ones in it, its offset counted from
    /// the start of `structure`.
    fn find(
        &self,
        structure: Type<'_>,
        name: &str,
        depth: u32,
        visits: &mut u32,
    ) -> Result<Option<RawMember>, LookupError> {
        if depth > MAX_DEPTH {
            return Err(LookupError::Malformed);
        }
        for member in structure.members() {
            *visits = visits.checked_sub(1).ok_or(LookupError::Malformed)?;
            if member.name != 0 {
                if self.is_named(member.name, name.as_bytes()) {
                    return Ok(Some(member));
                }
                continue;
            }
            let Some(inner) = self
                .resolve(member.type_id)
                .and_then(|id| self.type_by_id(id))
            else {
                continue;
            };
            if let Some(found) = self.find(inner, name, depth + 1, visits)? {
                let offset = found
                    .offset
                    .checked_add(member.offset)
                    .ok_or(LookupError::Malformed)?;
                return Ok(Some(RawMember { offset, ..found }));
            }
        }
        Ok(None)
    }

    /// Size in bytes of type `id`; 0 for what has none; `None` when it cannot be told.
    fn size(&self, mut id: u32) -> Option<u32> {
        let mut count = 1_u32;
        for _ in 0..MAX_DEPTH {
            id = self.resolve(id)?;
            if id == 0 {
                return Some(0);
            }
            let found = self.type_by_id(id)?;
            let size = match found.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float
                | Kind::Datasec => found.size_or_type,
                Kind::Ptr => POINTER_SIZE,
                Kind::Array => {
                    let &[element, _, elements] = found.words else {
                        return None;
                    };
                    count = count.checked_mul(elements)?;
                    id = element;
                    continue;
                }
                _ => 0,
            };
            return count.checked_mul(size);
        }
        None
    }
}
