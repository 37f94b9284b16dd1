//! What rstwatch must know of the running kernel before and while it reads its events.
//!
//! Kernels differ in where fields are, how reasons are numbered and what functions are called.
//! All of that is worked out here from what the kernel tells of itself, never from its version:
//!
//! - [`casts`]: what pointers can be cast to.
//! - [`cost`]: what is not known when one of them is not there.
//! - [`layout`]: offsets of the fields that the BPF programs read, and which hooks there are.
//! - [`reasons`]: names of the kernel's reset reasons.
//! - [`symbols`]: address ranges of kernel functions.
//! - [`stack`]: what a kernel stack says about who reset a connection and how.
//!
//! These are pure functions of bytes that the caller has read; loading and attaching BPF programs
//! is not done here.

pub mod casts;
pub mod cost;
pub mod layout;
pub mod reasons;
pub mod stack;
pub mod symbols;
