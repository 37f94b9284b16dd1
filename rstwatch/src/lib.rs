//! rstwatch: traces TCP resets, and says whose they are, why they happened and how sure that is.
//!
//! The data flows one way, one module a stage:
//!
//! ```text
//! hook (BPF) -> ring -> decode -> interpret -> owner -> pair -> cause -> filter -> sink
//! ```
//!
//! `docs/ARCHITECTURE.md` walks through the house room by room.

mod alike;
pub mod bpf_object;
pub mod btf;
pub mod cause;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod interpret;
pub mod kernel;
pub mod load;
pub mod mib;
pub mod netns;
pub mod output;
pub mod owner;
pub mod pair;
pub mod pipeline;
pub mod privileges;
pub mod reconcile;
pub mod run;
pub mod scan;
pub mod scenario;
pub mod selftest;
pub mod sink;
pub mod storm;
pub mod top;
