//! Address ranges of a few kernel functions, from the text of `/proc/kallsyms`.
//!
//! Which functions matter, and what it means that one is on a stack, is decided in
//! [`super::stack`].

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    io::{self, BufRead},
};

/// Bytes that a function is taken to have at the most, for one that no other follows. The kernel's
/// longest are well below.
const MAX_LEN: u64 = 1 << 18;

/// Why the kernel's symbols say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolsError {
    /// Every address is zero: the reader lacks `CAP_SYSLOG`, or `kernel.kptr_restrict` is 2.
    Hidden,
    /// There is no function in the text.
    Empty,
    /// Reading it failed.
    Unreadable(io::ErrorKind),
}

impl fmt::Display for SymbolsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => {
                f.write_str("the addresses in /proc/kallsyms are hidden (kernel.kptr_restrict)")
            }
            Self::Empty => f.write_str("/proc/kallsyms lists no function"),
            Self::Unreadable(kind) => write!(f, "reading /proc/kallsyms failed: {kind}"),
        }
    }
}

impl Error for SymbolsError {}

/// Where the wanted functions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// By address, without overlap.
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    /// The first address after it.
    end: u64,
    /// Index among the wanted names.
    function: usize,
}

impl Symbols {
    /// Finds the functions `wanted` in the text of `/proc/kallsyms`.
    ///
    /// A function may be in several pieces: what follows a dot in a name (`.cold`, `.isra.0`,
    /// `.constprop.0`, `.part.0`) tells pieces and variants of one function apart. A piece ends
    /// where the next function begins. The lines may be in any order, as those of modules are.
    /// Lines that are not understood are skipped. Line by line, since all of it takes megabytes at a moment
    /// when other things do as well.
    ///
    /// # Errors
    ///
    /// When it cannot be read, the addresses are hidden, or there is no function at all. That a wanted function is
    /// not there is no error.
    pub fn parse(mut kallsyms: impl BufRead, wanted: &[&str]) -> Result<Self, SymbolsError> {
        let indices: HashMap<&[u8], usize> = (wanted.iter().enumerate())
            .map(|(index, name)| (name.as_bytes(), index))
            .collect();
        let (mut addresses, mut ranges) = (Vec::new(), Vec::new());
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = kallsyms.read_until(b'\n', &mut line);
            if read.map_err(|error| SymbolsError::Unreadable(error.kind()))? == 0 {
                break;
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let Some((start, name)) = function(line) else {
                continue;
            };
            addresses.push(start);
            if let Some(&function) = indices.get(name) {
                ranges.push(Range {
                    start,
                    end: start.saturating_add(MAX_LEN),
                    function,
                });
            }
        }
        if addresses.is_empty() {
            return Err(SymbolsError::Empty);
        }
        if addresses.iter().all(|&address| address == 0) {
            return Err(SymbolsError::Hidden);
        }
        ranges.sort_unstable_by_key(|range| (range.start, range.function));
        ranges.dedup_by_key(|range| range.start);
        for address in addresses {
            // Only the last piece that begins before this function can reach into it: the ones
            // before that end where that piece begins, at the latest.
            let after = ranges.partition_point(|range| range.start < address);
            if let Some(range) = after.checked_sub(1).and_then(|at| ranges.get_mut(at)) {
                range.end = range.end.min(address);
            }
        }
        Ok(Self { ranges })
    }

    /// The wanted function that has an instruction at `address`, as its index among the names that
    /// were wanted.
    pub fn find(&self, address: u64) -> Option<usize> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (address < range.end).then_some(range.function)
    }
}

/// Address and name, without what follows a dot, of a line that tells of a function:
/// `ffffffff81c0ffee T tcp_close`, and `<tab>[module]` for a module's.
fn function(line: &[u8]) -> Option<(u64, &[u8])> {
    let (address, rest) = hexadecimal(line)?;
    let [b' ', b't' | b'T' | b'w' | b'W', b' ', name @ ..] = rest else {
        return None;
    };
    let end = name.iter().position(|byte| matches!(byte, b'.' | b'\t'));
    Some((address, &name[..end.unwrap_or(name.len())]))
}

/// The hexadecimal number that a line begins with, and what follows it.
fn hexadecimal(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, &byte) in line.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ if at == 0 => return None,
            _ => return Some((value, &line[at..])),
        };
        if value >> 60 != 0 {
            return None;
        }
        value = (value << 4) | u64::from(digit);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: [&str; 3] = ["tcp_close", "tcp_v4_rcv", "tcp_v6_rcv"];

    const TEXT: &[u8] = b"\
ffffffff81000000 T _text
ffffffff81000100 T tcp_close
ffffffff81000100 t alias_of_tcp_close
ffffffff81000180 t tcp_close_state
ffffffff81000200 T tcp_v4_rcv.isra.0
ffffffff810002f0 t __pfx_other
ffffffff81000300 W other
ffffffff81000380 t tcp_v4_rcv.cold
ffffffff81000390 t last
ffffffff810003a0 D tcp_v6_rcv
ffffffff810003b0 r tcp_close
ffffffffc0000200 t init_module\t[ipv6]
ffffffffc0000000 t tcp_v6_rcv\t[ipv6]
ffffffffc0000080 t tcp_v6_rcv.part.0.constprop.0\t[ipv6]
nonsense
fffffffff81000000 T tcp_close
";

    #[test]
    fn functions_end_where_the_next_one_begins() {
        let symbols = Symbols::parse(TEXT, &WANTED).unwrap();
        let cases = [
            (0xffff_ffff_8100_00ff, None),
            (0xffff_ffff_8100_0100, Some(0)),
            (0xffff_ffff_8100_017f, Some(0)),
            (0xffff_ffff_8100_0180, None),
            (0xffff_ffff_8100_0200, Some(1)),
            (0xffff_ffff_8100_02ef, Some(1)),
            (0xffff_ffff_8100_02f0, None),
            (0xffff_ffff_8100_0380, Some(1)),
            (0xffff_ffff_8100_0390, None),
            (0xffff_ffff_8100_03a0, None),
            (0xffff_ffff_8100_03b0, None),
            // Modules' functions are not in the order of their addresses.
            (0xffff_ffff_c000_0000, Some(2)),
            (0xffff_ffff_c000_0080, Some(2)),
            (0xffff_ffff_c000_01ff, Some(2)),
            (0xffff_ffff_c000_0200, None),
            (0, None),
            (u64::MAX, None),
        ];
        for (address, expected) in cases {
            assert_eq!(symbols.find(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn the_last_function_does_not_reach_to_the_end_of_memory() {
        let symbols = Symbols::parse(&b"ffffffff81000100 T tcp_close"[..], &WANTED).unwrap();
        assert_eq!(symbols.find(0xffff_ffff_8100_0200), Some(0));
        assert_eq!(symbols.find(0xffff_ffff_9100_0200), None);
    }

    #[test]
    fn hidden_addresses_are_not_taken_for_real_ones() {
        let hidden = b"0000000000000000 T _text\n0000000000000000 T tcp_close\n";
        assert_eq!(
            Symbols::parse(&hidden[..], &WANTED),
            Err(SymbolsError::Hidden)
        );
        for empty in [&b""[..], b"\n\n", b"ffffffff81000100 D jiffies\n"] {
            assert_eq!(Symbols::parse(empty, &WANTED), Err(SymbolsError::Empty));
        }
    }

    #[test]
    fn a_text_that_cannot_be_read_on_is_no_shorter_one() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        let text = io::BufReader::new(io::Read::chain(TEXT, Broken));
        assert_eq!(
            Symbols::parse(text, &WANTED),
            Err(SymbolsError::Unreadable(io::ErrorKind::PermissionDenied))
        );
    }

    #[test]
    fn a_kernel_without_the_wanted_functions_is_no_error() {
        let symbols = Symbols::parse(&b"ffffffff81000100 T other\n"[..], &WANTED).unwrap();
        assert_eq!(symbols.find(0xffff_ffff_8100_0100), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text: Vec<u8>, address: u64) {
            if let Ok(symbols) = Symbols::parse(&text[..], &WANTED) {
                symbols.find(address);
            }
        }

        #[test]
        fn a_damaged_text_is_taken(at in 0..TEXT.len(), byte: u8, address: u64) {
            let mut text = TEXT.to_vec();
            text[at] = byte;
            if let Ok(symbols) = Symbols::parse(&text[..], &WANTED) {
                symbols.find(address);
            }
        }
    }
}
