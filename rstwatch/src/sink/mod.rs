//! How events and summaries look to whoever reads them. Each sink appends to a buffer; writing the
//! buffer out is not done here, and what to show is decided before.
//!
//! - [`json`]: one object a line, for scripts.
//! - [`table`]: one row a reset, for people.
//! - [`summary`]: what a run saw, for both.

pub mod json;
pub mod summary;
pub mod table;
