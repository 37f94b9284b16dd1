//! Writes into the BPF programs, before they are loaded, what aya does not: the number of the kernel's function
//! that casts pointers ([`rstwatch_common::cast`]).

use std::{mem::offset_of, ops::Range};

use object::{
    LittleEndian,
    elf::{FileHeader64, SHF_EXECINSTR, SHT_NULL, SectionHeader64},
    read::elf::{FileHeader as _, SectionHeader as _},
};
use rstwatch_common::cast::{NO_CALL, PLACEHOLDER, call};
use zerocopy::IntoBytes as _;

use super::StartError;

/// What only debuggers read: seven of the object's eight megabytes.
const FOR_DEBUGGERS: [&[u8]; 2] = [b".debug_", b".rel.debug_"];

/// The object, in double words and without what is for debuggers, with calls of the kernel's function `cast`; without one,
/// the programs must not call it.
///
/// # Errors
///
/// When it is no object.
pub(super) fn with_casts(object: &[u8], cast: Option<u32>) -> Result<Vec<u64>, StartError> {
    let parts = parts(object).map_err(|error| StartError::Object(error.to_string()))?;
    // Aligned, as its parser needs it. What is not written to takes no memory.
    let mut patched = vec![0_u64; object.len().div_ceil(size_of::<u64>())];
    let bytes = patched.as_mut_bytes();
    for part in parts.copied {
        bytes[part.clone()].copy_from_slice(&object[part]);
    }
    for kind in parts.left_out {
        bytes[kind..][..size_of::<u32>()].copy_from_slice(&SHT_NULL.to_le_bytes());
    }
    let call = cast.map_or(NO_CALL, call).to_le();
    for instructions in parts.code {
        for instruction in &mut patched[instructions] {
            if *instruction == PLACEHOLDER.to_le() {
                *instruction = call;
            }
        }
    }
    Ok(patched)
}

/// Parts of the object; all lie within it.
struct Parts {
    /// Bytes that are needed.
    copied: Vec<Range<usize>>,
    /// Where the kinds of the sections stand that are not needed.
    left_out: Vec<usize>,
    /// Double words that are instructions.
    code: Vec<Range<usize>>,
}

fn parts(object: &[u8]) -> object::Result<Parts> {
    let header = FileHeader64::<LittleEndian>::parse(object)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, object)?;
    let table = usize::try_from(header.e_shoff(endian)).unwrap_or(usize::MAX);
    let table_len = sections.len() * usize::from(header.e_shentsize(endian));
    let mut copied = vec![
        0..size_of_val(header),
        table..table.saturating_add(table_len).min(object.len()),
    ];
    let (mut left_out, mut code) = (Vec::new(), Vec::new());
    for (number, section) in sections.iter().enumerate() {
        let name = sections.section_name(endian, section)?;
        if FOR_DEBUGGERS.iter().any(|prefix| name.starts_with(prefix)) {
            let header = table + number * size_of_val(section);
            left_out.push(header + offset_of!(SectionHeader64<LittleEndian>, sh_type));
            continue;
        }
        let bytes = section.data(endian, object)?;
        let Some((start, _)) = section.file_range(endian).filter(|_| !bytes.is_empty()) else {
            continue;
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        copied.push(start..start + bytes.len());
        if section.sh_flags(endian) & u64::from(SHF_EXECINSTR) != 0 {
            code.push(start / size_of::<u64>()..(start + bytes.len()) / size_of::<u64>());
        }
    }
    Ok(Parts {
        copied,
        left_out,
        code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf_object::{OBJECT, is_stub};

    #[test]
    fn instructions_are_what_the_kernel_takes_for_calls_and_moves() {
        // BPF_JMP | BPF_CALL, source register 2, the id; and BPF_ALU64 | BPF_MOV | BPF_K.
        assert_eq!(
            call(0x1234).to_le_bytes(),
            [0x85, 0x20, 0, 0, 0x34, 0x12, 0, 0]
        );
        assert_eq!(NO_CALL.to_le_bytes(), [0xb7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn calls_are_filled_in_and_all_other_instructions_stay() {
        if is_stub() {
            return;
        }
        let code = parts(OBJECT).unwrap().code;
        let unpatched = |word: usize| OBJECT[word * 8..][..8].try_into().map(u64::from_le_bytes);
        for (cast, filled_in) in [(Some(0x1234), call(0x1234)), (None, NO_CALL)] {
            let patched = with_casts(OBJECT, cast).unwrap();
            let mut calls = 0;
            for word in code.iter().cloned().flatten() {
                let (was, is) = (unpatched(word).unwrap(), u64::from_le(patched[word]));
                if was == PLACEHOLDER {
                    calls += 1;
                    assert_eq!(is, filled_in);
                } else {
                    assert_eq!(is, was);
                }
            }
            assert!(calls > 0);
        }
    }

    #[test]
    fn all_but_what_is_for_debuggers_is_kept() {
        if is_stub() {
            return;
        }
        let patched = with_casts(OBJECT, Some(1)).unwrap();
        let patched = &patched.as_bytes()[..OBJECT.len()];
        let Parts {
            copied,
            left_out,
            code,
        } = parts(OBJECT).unwrap();
        let is_changed = |at: usize| {
            code.iter().any(|words| words.contains(&(at / 8)))
                || left_out.iter().any(|kind| (*kind..*kind + 4).contains(&at))
        };
        for at in copied
            .iter()
            .cloned()
            .flatten()
            .filter(|at| !is_changed(*at))
        {
            assert_eq!(patched[at], OBJECT[at], "byte {at}");
        }
        assert!(left_out.iter().all(|kind| patched[*kind..][..4] == [0; 4]));
        let kept: usize = copied.iter().map(Range::len).sum();
        assert!(
            kept < OBJECT.len() / 2,
            "{kept} of {} bytes are kept",
            OBJECT.len()
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for object in [&b""[..], b"\x7fELF", &[0; 100]] {
            assert!(with_casts(object, None).is_err());
        }
        if !is_stub() {
            assert!(
                with_casts(&OBJECT[..OBJECT.len() / 2], None).is_err(),
                "cut off"
            );
        }
    }
}
