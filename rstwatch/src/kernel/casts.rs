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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::builder::{Builder, kind};

    /// What the kernel under test has.
    #[derive(Clone, Copy)]
    struct Kernel {
        /// The function's name.
        function: &'static str,
        /// Bytes of an element of the structure's array.
        element: u32,
        /// How many there are.
        elements: u32,
        /// Where the array begins, in bits.
        at: u32,
    }

    const USUAL: Kernel = Kernel {
        function: FUNCTION,
        element: 8,
        elements: 16,
        at: 0,
    };

    /// The function and what can be cast to, with ids 1, 4 and 6.
    fn casts(kernel: Kernel) -> Option<KernelCasts> {
        let mut builder = Builder::new();
        builder.add(kind::FUNC, false, kernel.function.as_bytes(), 0, 0, &[]);
        let bits = kernel.element * 8;
        let int = builder.add(
            kind::INT,
            false,
            b"unsigned long",
            kernel.element,
            0,
            &[bits],
        );
        let words = [int, int, kernel.elements];
        let array = builder.add(kind::ARRAY, false, b"", 0, 0, &words);
        let mibs = builder.name(b"mibs");
        let size = kernel.at / 8 + kernel.element * kernel.elements;
        let member = [mibs, array, kernel.at];
        builder.add(kind::STRUCT, false, b"tcp_mib", size, 1, &member);
        // A structure's name is not a function's.
        builder.add(kind::STRUCT, false, FUNCTION.as_bytes(), 8, 1, &member);
        builder.add(kind::STRUCT, false, b"tcp_sock", size, 1, &member);
        KernelCasts::from_btf(&Btf::parse(&builder.finish()).unwrap())
    }

    #[test]
    fn the_function_and_the_types_are_found() {
        let types = Casts {
            words: 4,
            tcp_sock: 6,
        };
        assert_eq!(casts(USUAL), Some(KernelCasts { function: 1, types }));
    }

    #[test]
    fn without_the_function_there_are_none() {
        let function = "bpf_cast_to_kern_ctx";
        assert_eq!(casts(Kernel { function, ..USUAL }), None);
    }

    #[test]
    fn what_are_not_enough_double_words_from_the_start_is_not_cast_to() {
        let others = [
            Kernel {
                element: 4,
                ..USUAL
            },
            Kernel {
                elements: 4,
                ..USUAL
            },
            Kernel { at: 64, ..USUAL },
        ];
        for kernel in others {
            let types = casts(kernel).unwrap().types;
            assert_eq!((types.words, types.tcp_sock), (0, 6));
        }
        let least = Kernel {
            elements: 5,
            ..USUAL
        };
        assert_eq!(casts(least).unwrap().types.words, 4);
    }
}
