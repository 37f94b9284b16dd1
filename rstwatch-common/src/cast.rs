//! Typed pointers out of plain ones, where the kernel has `bpf_rdonly_cast` (6.2 and later; `kernel/bpf/helpers.c`).
//!
//! Through a pointer that the verifier knows the type of, a program loads by itself. Any other one needs a call
//! of `bpf_probe_read_kernel`, which calls others in turn: 35 ns more for a segment's headers. The function itself costs nothing: the verifier puts a move in its place.
//!
//! A program calls it by its id in the kernel's type information, which is another one in each kernel. So the
//! programs are compiled with [`PLACEHOLDER`], which user space replaces before it loads them.

use crate::plain_data;

/// What the programs have instead of a call: one of a function whose id no kernel has, for it is negative. All the
/// same it is never in what is loaded.
pub const PLACEHOLDER: u64 = call(0xca57_0000);

/// What takes its place where there is no such function: `r0 = 0`. It is never run.
pub const NO_CALL: u64 = 0xb7;

/// A call of the kernel's function with this id: the opcode (`BPF_JMP | BPF_CALL`), in the next byte
/// the source register `BPF_PSEUDO_KFUNC_CALL`, and above the id (`include/uapi/linux/bpf.h`).
pub const fn call(id: u32) -> u64 {
    const OPCODE: u64 = 0x85;
    const BPF_PSEUDO_KFUNC_CALL: u64 = 2;
    OPCODE | BPF_PSEUDO_KFUNC_CALL << 12 | (id as u64) << 32
}

/// The kernel's function.
pub const FUNCTION: &str = "bpf_rdonly_cast";

/// What any memory is taken for, to be read in double words: a structure that consists of them, with the member
/// that they are in (`include/net/snmp.h`).
pub const WORDS: (&str, &str) = ("tcp_mib", "mibs");

/// How many of those bytes are read at most: IP headers without options.
pub const MOST_BYTES: usize = 40;

plain_data! {
    /// The ids, in the kernel's type information, of what is cast to; 0 where it is not known, or cannot be cast.
    pub struct Casts {
        /// That of the structure in [`WORDS`].
        pub words: u32,
        /// That of `struct tcp_sock`.
        pub tcp_sock: u32,
    }
    size 8
}

impl Casts {
    /// No kernel's.
    pub const NONE: Self = Self {
        words: 0,
        tcp_sock: 0,
    };
}

// SAFETY: `repr(C)`, made of integers only, without padding (zerocopy's `IntoBytes` derive proves it), and valid for
// every bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Casts {}
