//! The BPF object that is compiled into this binary.

use rstwatch_common::cast;

/// The object file, aligned as its parser needs it; empty in a build without one.
///
/// `cargo xtask build` makes the object and names it to `build.rs`; a plain `cargo build` has none.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rstwatch.bpf.o"));

/// Whether this is a build without the BPF programs, which can trace nothing.
pub fn is_stub() -> bool {
    OBJECT.is_empty()
}

/// The object as `kernel` is to be given it, in double words: where the programs cast pointers, they call that function
/// of the kernel's, or do nothing where there is none ([`rstwatch_common::cast`]).
///
/// It is looked for in the whole file. What is no instruction and looks like one would be in what describes
/// the programs to debuggers, which nobody reads here.
pub fn with_casts(object: &[u8], function: Option<u32>) -> Vec<u64> {
    let call = function.map_or(cast::NO_CALL, cast::call);
    let (words, rest) = object.as_chunks();
    let filled_in = words.iter().map(|&word| match u64::from_le_bytes(word) {
        cast::PLACEHOLDER => call.to_le(),
        _ => u64::from_ne_bytes(word),
    });
    let mut last = [0; size_of::<u64>()];
    last[..rest.len()].copy_from_slice(rest);
    filled_in.chain([u64::from_ne_bytes(last)]).collect()
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn what_is_embedded_is_a_bpf_object_or_nothing() {
        assert!(is_stub() || OBJECT.starts_with(b"\x7fELF"));
    }

    #[test]
    fn calls_are_filled_in_and_all_else_stays() {
        let placeholder = cast::PLACEHOLDER.to_le_bytes();
        let object = [
            &[1; 8],
            placeholder.as_slice(),
            &[2; 8],
            &placeholder,
            &[3; 5],
        ]
        .concat();
        for (function, call) in [(Some(0x1234), cast::call(0x1234)), (None, cast::NO_CALL)] {
            let call = call.to_le_bytes();
            let expected = [&[1; 8], call.as_slice(), &[2; 8], &call, &[3; 5], &[0; 3]].concat();
            assert_eq!(with_casts(&object, function).as_bytes(), expected);
        }
        // BPF_JMP | BPF_CALL, source register 2, the id; and BPF_ALU64 | BPF_MOV | BPF_K.
        assert_eq!(
            cast::call(0x1234).to_le_bytes(),
            [0x85, 0x20, 0, 0, 0x34, 0x12, 0, 0]
        );
        assert_eq!(cast::NO_CALL.to_le_bytes(), [0xb7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_programs_cast_and_no_placeholder_is_left() {
        if is_stub() {
            return;
        }
        let words = with_casts(OBJECT, Some(1));
        let is = |wanted: u64| words.iter().filter(|word| **word == wanted.to_le()).count();
        assert!(is(cast::call(1)) > 0);
        assert_eq!(is(cast::PLACEHOLDER), 0);
    }

    #[test]
    fn a_build_that_was_given_an_object_has_it() {
        let given = option_env!("RSTWATCH_BPF_OBJECT");
        assert_eq!(is_stub(), given.is_none());
    }
}
