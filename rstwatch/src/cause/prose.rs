//! How sentences and facts are put together: piece by piece, for whatever takes them. So the same words reach a
//! terminal through [`fmt::Display`], and JSON without formatting, which took a fifth of the reader's time in a
//! storm of closes with unread data. Which words they are is not decided here.

use std::fmt;

use crate::event::{Comm, Endpoint, Process, TcpFlags};

/// What takes the pieces of a text one after the other.
pub trait Prose {
    /// Words of this program, or a name in the kernel's source: they hold nothing to escape.
    fn words(&mut self, words: &'static str);
    /// One end of a connection.
    fn end(&mut self, end: Endpoint);
    /// A number.
    fn number(&mut self, number: u64);
    /// The name of a process, which is somebody else's words.
    fn comm(&mut self, comm: Comm);
}

/// A piece of a text.
pub(super) trait Piece {
    /// Gives it to what takes it.
    fn tell(self, to: &mut impl Prose);
}

/// Gives pieces one after the other: `say!(to; "port ", port)`.
macro_rules! say {
    ($to:expr; $($piece:expr),+ $(,)?) => {{
        $($crate::cause::prose::Piece::tell($piece, $to);)+
    }};
}
pub(super) use say;

impl Piece for &'static str {
    fn tell(self, to: &mut impl Prose) {
        to.words(self);
    }
}

impl Piece for Endpoint {
    fn tell(self, to: &mut impl Prose) {
        to.end(self);
    }
}

impl Piece for Comm {
    fn tell(self, to: &mut impl Prose) {
        to.comm(self);
    }
}

impl Piece for TcpFlags {
    fn tell(self, to: &mut impl Prose) {
        let Ok(()) = self.pieces(|piece| {
            to.words(piece);
            Ok::<(), std::convert::Infallible>(())
        });
    }
}

macro_rules! number {
    ($($number:ty)+) => {
        $(impl Piece for $number {
            fn tell(self, to: &mut impl Prose) {
                to.number(self.into());
            }
        })+
    };
}
number!(u8 u16 u32 u64);

/// A process as `name[pid]`.
#[derive(Clone, Copy)]
pub(super) struct Who<'a>(pub(super) Option<&'a Process>);

impl Piece for Who<'_> {
    fn tell(self, to: &mut impl Prose) {
        match self.0 {
            Some(process) => say!(to; process.comm, "[", process.pid, "]"),
            None => to.words("an unknown process"),
        }
    }
}

/// A number of bytes: `1 byte`, `64 bytes`.
pub(super) struct Bytes(pub(super) u32);

impl Piece for Bytes {
    fn tell(self, to: &mut impl Prose) {
        say!(to; self.0, if self.0 == 1 { " byte" } else { " bytes" });
    }
}

/// Connections in a queue: `1 connection waits`, `2 connections wait`.
pub(super) struct Waiting(pub(super) u32);

impl Piece for Waiting {
    fn tell(self, to: &mut impl Prose) {
        let words = if self.0 == 1 {
            " connection waits"
        } else {
            " connections wait"
        };
        say!(to; self.0, words);
    }
}

/// Nanoseconds as a person reads them: `0.2 ms`, `12 ms`, `3.4 s`, `61 s`.
pub(super) struct Seconds(pub(super) u64);

impl Piece for Seconds {
    fn tell(self, to: &mut impl Prose) {
        const MS: u64 = 1_000_000;
        match self.0 {
            ns if ns < 10 * MS => say!(to; ns / MS, ".", ns % MS / 100_000, " ms"),
            ns if ns < 1_000 * MS => say!(to; ns / MS, " ms"),
            ns if ns < 60_000 * MS => say!(to; ns / 1_000 / MS, ".", ns / (100 * MS) % 10, " s"),
            ns => say!(to; ns / 1_000 / MS, " s"),
        }
    }
}

/// A signal by its name on x86 and Arm (`include/uapi/asm-generic/signal.h`), else by its number.
pub(super) struct Signal(pub(super) u8);

impl Piece for Signal {
    fn tell(self, to: &mut impl Prose) {
        to.words(match self.0 {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            10 => "SIGUSR1",
            11 => "SIGSEGV",
            12 => "SIGUSR2",
            13 => "SIGPIPE",
            14 => "SIGALRM",
            15 => "SIGTERM",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            31 => "SIGSYS",
            other => return say!(to; "signal ", other),
        });
    }
}

/// Displays what `tell` gives.
pub(super) fn display(
    f: &mut fmt::Formatter<'_>,
    tell: impl FnOnce(&mut Displayed<'_, '_>),
) -> fmt::Result {
    let mut displayed = Displayed { f, result: Ok(()) };
    tell(&mut displayed);
    displayed.result
}

/// Pieces as they are displayed, up to the first that cannot be.
pub(super) struct Displayed<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    result: fmt::Result,
}

impl Prose for Displayed<'_, '_> {
    fn words(&mut self, words: &'static str) {
        self.result = self.result.and_then(|()| self.f.write_str(words));
    }

    fn end(&mut self, end: Endpoint) {
        self.result = self.result.and_then(|()| fmt::Display::fmt(&end, self.f));
    }

    fn number(&mut self, number: u64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number);
        self.result = self.result.and_then(|()| self.f.write_str(digits));
    }

    fn comm(&mut self, comm: Comm) {
        self.result = self.result.and_then(|()| fmt::Display::fmt(&comm, self.f));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        struct Shown(u64);

        impl fmt::Display for Shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                display(f, |to| Seconds(self.0).tell(to))
            }
        }

        let cases = [
            (0, "0.0 ms"),
            (1_540_000, "1.5 ms"),
            (12_900_000, "12 ms"),
            (999_999_999, "999 ms"),
            (1_000_000_000, "1.0 s"),
            (59_990_000_000, "59.9 s"),
            (60_000_000_000, "60 s"),
            (u64::MAX, "18446744073 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(Shown(ns).to_string(), text);
        }
    }
}
