//! From bytes to an index: the header, the sections, and where each type begins.

use super::{BtfError, Kind, Type};

/// BTF's magic number.
const MAGIC: u16 = 0xeb9f;
/// Bytes of the header that every version 1 file has; newer ones may be longer.
const HEADER_LEN: usize = 24;

/// The types of one kernel, parsed and indexed.
///
/// It owns its data: 6 MB or so for a distribution's kernel, so it should be dropped once the
/// questions are answered.
pub struct Btf {
    /// The type section, in this host's byte order whatever the file's was.
    words: Vec<u32>,
    /// Where in `words` each type begins; the first is the type with id 1.
    starts: Vec<u32>,
    /// The string section; begins and ends with a NUL.
    strings: Vec<u8>,
    /// Ids of named structures and unions with members.
    pub(super) structures: Vec<u32>,
    /// Ids of named enumerations with values.
    pub(super) enumerations: Vec<u32>,
    /// Ids of typedefs.
    pub(super) typedefs: Vec<u32>,
}

impl Btf {
    /// Parses a whole BTF file, of either byte order, in one pass over its types.
    ///
    /// # Errors
    ///
    /// When the bytes are not BTF, are cut off, or use a kind of type that this reader does not
    /// know: then the length of that type is not known either, and nothing after it can be found.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        let (types, strings, little_endian) = sections(bytes)?;
        let mut btf = Self {
            words: words(types, little_endian),
            // The kernel's types are 5 to 6 words long on average.
            starts: Vec::with_capacity(types.len() / 20),
            strings: strings.to_vec(),
            structures: Vec::new(),
            enumerations: Vec::new(),
            typedefs: Vec::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        let mut id = 0_u32;
        while at < self.words.len() {
            id += 1;
            let &[name, info, _, ..] = &self.words[at..] else {
                return Err(BtfError::Truncated { id });
            };
            let kind = Kind::from_info(info).ok_or(BtfError::Info { id, info })?;
            let members = (info & 0xffff) as usize;
            self.starts.push(at as u32);
            if name != 0 {
                match kind {
                    Kind::Struct | Kind::Union if members != 0 => self.structures.push(id),
                    Kind::Enum | Kind::Enum64 if members != 0 => self.enumerations.push(id),
                    Kind::Typedef => self.typedefs.push(id),
                    _ => {}
                }
            }
            at += 3 + kind.words(members);
            if at > self.words.len() {
                return Err(BtfError::Truncated { id });
            }
        }
        Ok(())
    }

    /// How many types there are, without `void`.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no type.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The type with id `id`; `None` for `void` (0) and for ids that do not exist.
    pub fn type_by_id(&self, id: u32) -> Option<Type<'_>> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)? as usize;
        let (&[name, info, size_or_type], rest) = self.words.get(start..)?.split_first_chunk()?;
        let kind = Kind::from_info(info)?;
        Some(Type {
            kind,
            name,
            flag: info >> 31 != 0,
            size_or_type,
            words: rest.get(..kind.words((info & 0xffff) as usize))?,
        })
    }

    /// The name at `offset` of the strings; `None` when there is none there.
    pub fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        Some(&rest[..end])
    }

    /// Whether the name at `offset` is `name`. Quicker than to take the name and compare.
    pub(super) fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The type section, the string section, and whether the file is little-endian.
fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8], bool), BtfError> {
    let magic = *bytes.first_chunk().ok_or(BtfError::Magic)?;
    let little_endian = if u16::from_le_bytes(magic) == MAGIC {
        true
    } else if u16::from_be_bytes(magic) == MAGIC {
        false
    } else {
        return Err(BtfError::Magic);
    };
    let version = *bytes.get(2).ok_or(BtfError::Header)?;
    if version != 1 {
        return Err(BtfError::Version(version));
    }
    let header = bytes.get(4..HEADER_LEN).ok_or(BtfError::Header)?;
    let [header_len, type_start, type_len, string_start, string_len] =
        words(header, little_endian)[..]
    else {
        return Err(BtfError::Header);
    };
    if (header_len as usize) < HEADER_LEN || type_start % 4 != 0 || type_len % 4 != 0 {
        return Err(BtfError::Header);
    }
    let section = |start: u32, len: u32| -> Option<&[u8]> {
        let start = (header_len as usize).checked_add(start as usize)?;
        bytes.get(start..start.checked_add(len as usize)?)
    };
    let types = section(type_start, type_len).ok_or(BtfError::Header)?;
    let strings = section(string_start, string_len).ok_or(BtfError::Header)?;
    if strings.first() != Some(&0) || strings.last() != Some(&0) {
        return Err(BtfError::Strings);
    }
    Ok((types, strings, little_endian))
}

/// The words of `bytes` in this host's byte order; a rest of less than four bytes is left out.
fn words(bytes: &[u8], little_endian: bool) -> Vec<u32> {
    let words = bytes.as_chunks::<4>().0.iter();
    if little_endian {
        words.map(|&word| u32::from_le_bytes(word)).collect()
    } else {
        words.map(|&word| u32::from_be_bytes(word)).collect()
    }
}
