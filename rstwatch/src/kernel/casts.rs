//! What the BPF programs can cast pointers to in the running kernel ([`rstwatch_common::cast`]).

use rstwatch_common::cast::{Casts, FUNCTION, MOST_BYTES, WORDS};

use crate::btf::{Btf, Member};

/// The function that casts, and what can be cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCasts {
    /// The function's id.
    pub function: u32,
    /// Ids of the types.
    pub types: Casts,
}

impl KernelCasts {
    /// Looks them up. `None` before 6.2, which has no such function.
    pub fn from_btf(btf: &Btf) -> Option<Self> {
        Some(Self {
            function: btf.function(FUNCTION)?,
            types: Casts {
                words: words(btf).unwrap_or(0),
                tcp_sock: btf.structures("tcp_sock").next().unwrap_or(0),
            },
        })
    }
}

/// The id of the structure that consists of words, if it is as it should be.
fn words(btf: &Btf) -> Option<u32> {
    let (structure, member) = WORDS;
    let id = btf.structures(structure).next()?;
    let Member {
        offset_bits,
        size,
        bitfield_bits,
        type_id,
    } = btf.member_among(&[id], member).ok()?;
    let fits = offset_bits == 0 && bitfield_bits == 0 && size as usize >= MOST_BYTES;
    (fits && btf.element_size(type_id) == Some(size_of::<u64>() as u32)).then_some(id)
}
