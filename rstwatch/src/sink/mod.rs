//! How events and summaries look to whoever reads them. Each sink appends to a buffer; writing the
//! buffer out is not done here, and what to show is decided before.
//!
//! - [`json`]: one object a line, for scripts.
//! - [`table`]: one row a reset, for people.
//! - [`recent`]: the last events, for a screen.
//! - [`storm`]: what a storm is like, for both.
//! - [`summary`]: what a run saw, for both; [`namespaces`] is its part that holds what was traced
//!   against the kernel's counters.

pub mod json;
pub mod namespaces;
pub mod recent;
pub mod storm;
pub mod summary;
pub mod table;

use bytes::BytesMut;

pub use self::json::Mark;
use self::{json::Json, recent::Recent, summary::Summary, table::Table};
use crate::{
    cause::Verdict,
    event::Event,
    storm::{Report, limit::Limited},
};

/// Where events go.
#[derive(Debug)]
pub enum Sink {
    /// One object a line.
    Json(Json),
    /// One row a reset.
    Table(Table),
    /// Kept for a screen, which shows reports by itself.
    Recent(Box<Recent>),
}

impl Sink {
    /// Appends what comes before the first event.
    pub fn begin(&mut self, out: &mut BytesMut) {
        match self {
            Self::Json(_) | Self::Recent(_) => {}
            Self::Table(table) => table.header(out),
        }
    }

    /// Appends an event. `line` is the mark of one that is alike but for times, addresses and numbers, or of none, and
    /// becomes that of this one.
    pub fn event(&mut self, out: &mut BytesMut, event: &Event, verdict: &Verdict, line: &mut Mark) {
        match self {
            Self::Json(json) => json.append_like(out, event, verdict, line),
            Self::Table(table) => table.append(out, event, verdict),
            Self::Recent(recent) => recent.take(event, verdict),
        }
    }

    /// Appends what a storm, or the time since the last report, is like.
    pub fn report(&self, out: &mut BytesMut, report: &Report) {
        match self {
            Self::Json(_) => storm::append_json(out, report),
            Self::Table(table) => table.report(out, report),
            Self::Recent(_) => {}
        }
    }

    /// Appends how many events were held back.
    pub fn limited(&self, out: &mut BytesMut, limited: &Limited) {
        match self {
            Self::Json(_) => storm::append_limited_json(out, limited),
            Self::Table(table) => table.limited(out, limited),
            Self::Recent(_) => {}
        }
    }

    /// Appends a summary.
    pub fn summary(&self, out: &mut BytesMut, summary: &Summary) {
        match self {
            Self::Json(_) => summary.append_json(out),
            Self::Table(_) | Self::Recent(_) => summary.append_text(out),
        }
    }
}
