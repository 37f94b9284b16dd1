//! A reader of the kernel's type information (BTF, `Documentation/bpf/btf.rst`).
//!
//! Here live the format and the questions that rstwatch asks of it: where a member is, what an
//! enumeration's names are, how many arguments a tracepoint passes. What the answers are used for
//! is not decided here (see [`crate::kernel`]), and nothing here reads a file: the bytes of
//! `/sys/kernel/btf/vmlinux` come from the caller.
//!
//! - `parse`: header and sections, and the one pass that finds where each type begins.
//! - `types`: a type as it is written.
//! - `lookup`: the questions.
//! - `error`: what can be wrong with the bytes, or with a question.
//!
//! BTF is the kernel's word, but a file in `/sys` can be mounted over: no bytes make the reader
//! panic, loop, or allocate more than a small multiple of their number.

mod error;
mod lookup;
mod parse;
mod types;

#[cfg(test)]
pub(crate) mod builder;
#[cfg(test)]
mod tests;

pub use error::{BtfError, LookupError};
pub use lookup::Member;
pub use parse::Btf;
pub use types::{Kind, Type};
