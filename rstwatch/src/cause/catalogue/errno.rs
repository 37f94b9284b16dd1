//! The errors that a reset becomes in a program.

/// An error number of Linux that has to do with resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errno {
    /// `EPIPE`.
    Pipe,
    /// `ECONNABORTED`.
    Aborted,
    /// `ECONNRESET`.
    Reset,
    /// `ETIMEDOUT`.
    TimedOut,
    /// `ECONNREFUSED`.
    Refused,
}
