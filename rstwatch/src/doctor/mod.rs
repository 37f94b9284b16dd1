//! `rstwatch doctor`: what this kernel gives, what is missing, and what that costs.
//!
//! - `findings`: looks, and loads and attaches every program; the only part that does I/O.
//! - `judge`: findings to a report: what is well, what is missing, what that costs.
//! - `report`: the report, which is also its JSON.
//! - `text`: the report as text for a person.

mod findings;
mod judge;
mod report;
mod text;

pub use self::{report::Report, text::Look};

/// Looks at this host. Takes a second or two, and leaves nothing behind.
pub fn examine() -> Report {
    judge::judge(findings::Findings::gather())
}
