//! rstwatch: traces TCP resets, and says whose they are, why they happened and how sure that is.
//!
//! The data flows one way, one module a stage:
//!
//! ```text
//! hook (BPF) -> ring -> decode -> owner -> cause -> filter -> sink
//! ```
//!
//! `docs/ARCHITECTURE.md` walks through the house room by room.

pub mod cause;
pub mod cli;
pub mod event;
pub mod filter;
pub mod sink;

#[cfg(test)]
mod fixture;
