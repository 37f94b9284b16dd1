//! Writes BTF: for tests that need a kernel that nobody has at hand, and for
//! `examples/shrink-btf.rs`, which includes this file. Not part of rstwatch.

use std::collections::HashMap;

/// Kinds by their numbers in `include/uapi/linux/btf.h`.
pub(crate) mod kind {
    #![allow(
        dead_code,
        reason = "the example and the tests each use some of the kinds"
    )]
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// BTF in the making.
pub(crate) struct Builder {
    words: Vec<u32>,
    strings: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
    starts: Vec<usize>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            words: Vec::new(),
            strings: vec![0],
            known: HashMap::from([(Vec::new(), 0)]),
            starts: Vec::new(),
        }
    }

    /// The offset of `name` among the strings.
    pub(crate) fn name(&mut self, name: &[u8]) -> u32 {
        if let Some(&offset) = self.known.get(name) {
            return offset;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(name);
        self.strings.push(0);
        self.known.insert(name.to_vec(), offset);
        offset
    }

    /// Adds a type with `members` members and returns its id. The words after the first three may
    /// be set later with [`Self::set_words`], when types refer to each other.
    pub(crate) fn add(
        &mut self,
        kind: u32,
        flag: bool,
        name: &[u8],
        size_or_type: u32,
        members: usize,
        words: &[u32],
    ) -> u32 {
        let name = self.name(name);
        let info = (u32::from(flag) << 31) | (kind << 24) | members as u32;
        self.starts.push(self.words.len());
        self.words.extend([name, info, size_or_type]);
        self.words.extend(words);
        self.starts.len() as u32
    }

    /// Sets the type that type `id` refers to.
    pub(crate) fn set_type(&mut self, id: u32, to: u32) {
        self.words[self.starts[id as usize - 1] + 2] = to;
    }

    /// Replaces the first of the words after the first three of type `id`.
    pub(crate) fn set_words(&mut self, id: u32, words: &[u32]) {
        let start = self.starts[id as usize - 1] + 3;
        self.words[start..start + words.len()].copy_from_slice(words);
    }

    /// The file, little-endian.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let types = self.words.len() as u32 * 4;
        let header = [24, 0, types, types, self.strings.len() as u32];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in header.iter().chain(&self.words) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }
}
