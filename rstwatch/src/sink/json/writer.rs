//! JSON text that grows. By hand rather than through `core::fmt`: nearly all of it are numbers, and names that need no
//! escaping. What it says is not decided here.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    ptr,
};

use bytes::BytesMut;

use crate::{
    cause::Prose,
    event::{Comm, Endpoint, Escaped, OCTETS},
};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// JSON text that grows.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Writer(BytesMut);

impl Writer {
    /// One that appends to `out`. Moved in and out again it would be read in other pieces than it was written
    /// in, which keeps the processor waiting.
    pub fn over(out: &mut BytesMut) -> &mut Self {
        // SAFETY: it is the same in memory, and borrowed for as long.
        unsafe { &mut *ptr::from_mut(out).cast::<Self>() }
    }

    /// What it has become.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends what has been written elsewhere.
    #[inline]
    pub fn append(&mut self, text: &[u8]) {
        let to = self.room(text.len());
        // SAFETY: as in `raw`.
        unsafe {
            text.as_ptr().copy_to_nonoverlapping(to, text.len());
            self.0.set_len(self.0.len() + text.len());
        }
    }

    /// `text` as it stands: syntax, or a name that needs no escaping.
    #[expect(
        clippy::inline_always,
        reason = "most texts are known when this is compiled, and then copied without a call"
    )]
    #[inline(always)]
    pub fn raw(&mut self, text: &str) {
        let to = self.room(text.len());
        // SAFETY: there is room for all of it behind what has been written; nothing borrowed lies there.
        unsafe {
            text.as_ptr().copy_to_nonoverlapping(to, text.len());
            self.0.set_len(self.0.len() + text.len());
        }
    }

    /// The same for a text of a few bytes that is not known when this is compiled: a call costs more
    /// than they do.
    #[inline]
    pub fn short(&mut self, text: &str) {
        self.short_bytes(text.as_bytes());
    }

    #[inline]
    fn short_bytes(&mut self, text: &[u8]) {
        let len = text.len();
        let (from, to) = (text.as_ptr(), self.room(len));
        // SAFETY: as in `raw`; what is copied begins or ends where the text does and is no longer than it.
        unsafe {
            match len {
                0 => {}
                1..4 => {
                    to.write(from.read());
                    to.add(len / 2).write(from.add(len / 2).read());
                    to.add(len - 1).write(from.add(len - 1).read());
                }
                4..8 => copy_ends::<u32>(from, to, len),
                8..16 => copy_ends::<u64>(from, to, len),
                16..32 => copy_ends::<u128>(from, to, len),
                _ => from.copy_to_nonoverlapping(to, len),
            }
            self.0.set_len(self.0.len() + len);
        }
    }

    /// Where the next `more` bytes go. Unlike what `BytesMut` has for it, next to nothing where there is
    /// room already.
    #[inline]
    fn room(&mut self, more: usize) -> *mut u8 {
        let len = self.0.len();
        if self.0.capacity() - len < more {
            self.grow(more);
        }
        // SAFETY: what has been written ends within the buffer.
        unsafe { self.0.as_mut_ptr().add(len) }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// A number.
    #[inline]
    pub fn number(&mut self, number: impl itoa::Integer + TryInto<u32>) {
        match number.try_into() {
            Ok(number) => self.padded(number, digits(number)),
            Err(_) => self.short(itoa::Buffer::new().format(number)),
        }
    }

    /// The last decimal digits of `number`, with zeros in front; so many of them, at most 10. Written where
    /// they belong: what is read again right after it was written in other pieces keeps the processor
    /// waiting.
    #[inline]
    pub fn padded(&mut self, mut number: u32, digits: usize) {
        debug_assert!(digits <= 10, "no number has more");
        let to = self.room(digits);
        let mut left = digits;
        // SAFETY: there is room for so many digits.
        unsafe {
            while left >= 2 {
                left -= 2;
                let pair = PAIRS[(number % 100) as usize];
                number /= 100;
                to.add(left).cast::<[u8; 2]>().write_unaligned(pair);
            }
            if left == 1 {
                to.write(b'0' + (number % 10) as u8);
            }
            self.0.set_len(self.0.len() + digits);
        }
    }

    /// `value` through `write`, or `null`.
    pub fn or_null<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.raw("null"),
        }
    }

    /// One of this program's names, or `null`. Kernel reasons are among them: C identifiers.
    pub fn name(&mut self, name: Option<&'static str>) {
        self.or_null(name, |w, name| {
            w.raw("\"");
            w.short(name);
            w.raw("\"");
        });
    }

    /// A string that prints what `value` displays.
    pub fn string(&mut self, value: impl fmt::Display) {
        self.quoted(|w| {
            // Appending to a buffer in memory does not fail.
            let _ = write!(Text(w), "{value}");
        });
    }

    /// A string of what `write` appends as it stands.
    fn quoted(&mut self, write: impl FnOnce(&mut Self)) {
        self.raw("\"");
        let start = self.0.len();
        write(self);
        // Next to nothing needs to be escaped.
        if !all_plain(&self.0[start..]) {
            self.escape_from(start);
        }
        self.raw("\"");
    }

    /// Escapes what has been appended since it was `start` bytes long, from its end on and in place.
    fn escape_from(&mut self, start: usize) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut from = self.0.len();
        let escaped: usize = self.0[start..].iter().map(|byte| escaped_len(*byte)).sum();
        let mut to = start + escaped;
        self.0.resize(to, 0);
        while from > start {
            from -= 1;
            let byte = self.0[from];
            let len = escaped_len(byte);
            to -= len;
            let place = &mut self.0[to..to + len];
            match len {
                1 => place[0] = byte,
                2 => place.copy_from_slice(&[b'\\', byte]),
                _ => {
                    place[..4].copy_from_slice(b"\\u00");
                    place[4] = HEX[usize::from(byte >> 4)];
                    place[5] = HEX[usize::from(byte & 15)];
                }
            }
        }
    }

    /// A string from another process, escaped so that no control character is left, or `null`.
    pub fn foreign(&mut self, text: Option<&str>) {
        self.or_null(text, |w, text| w.escaped(text.as_bytes()));
    }

    pub fn escaped(&mut self, text: &[u8]) {
        let text = Escaped(text);
        match text.as_plain() {
            Some(text) => self.quoted(|w| w.raw(text)),
            None => self.string(text),
        }
    }

    /// Nanoseconds as seconds with at most six decimals, or `null`.
    pub fn seconds(&mut self, ns: Option<u64>) {
        self.or_null(ns, |w, ns| {
            w.number(ns / NS_PER_S);
            let mut micros = (ns % NS_PER_S / 1_000) as u32;
            if micros > 0 {
                let mut digits = 6;
                while micros.is_multiple_of(10) {
                    micros /= 10;
                    digits -= 1;
                }
                w.raw(".");
                w.padded(micros, digits);
            }
        });
    }

    fn ipv4(&mut self, addr: Ipv4Addr) {
        let octets = addr.octets().map(|octet| OCTETS[usize::from(octet)]);
        let start = self.room(4 * octets.len());
        let mut len = 0;
        // SAFETY: there is room for four bytes of each, and none is longer; less the last dot.
        unsafe {
            for (text, octet_len) in octets {
                start.add(len).cast::<[u8; 4]>().write_unaligned(text);
                len += usize::from(octet_len);
            }
            self.0.set_len(self.0.len() + len - 1);
        }
    }

    /// An address.
    pub fn addr(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.ipv4(addr),
            IpAddr::V6(addr) => {
                // It holds nothing to escape, and the buffer does not fail.
                let _ = write!(Text(self), "{addr}");
            }
        }
    }

    /// One end of a connection as it stands in texts.
    fn end(&mut self, end: Endpoint) {
        match end.addr {
            IpAddr::V4(_) => {
                self.addr(end.addr);
                self.raw(":");
                self.number(end.port);
            }
            IpAddr::V6(_) => {
                // It holds nothing to escape, and the buffer does not fail.
                let _ = write!(Text(self), "{end}");
            }
        }
    }
}

/// The numbers below 100 with two digits.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// How many decimal digits `number` has.
#[inline]
const fn digits(number: u32) -> usize {
    match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    }
}

/// Copies `len` bytes as the first ones and the last ones, which may overlap.
///
/// # Safety
///
/// `from` must be valid for reads of `len` bytes, `to` for writes of them, and `len` at least `T`'s size and
/// at most twice that.
#[inline]
unsafe fn copy_ends<T>(from: *const u8, to: *mut u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: the caller's promise.
    unsafe {
        let ends = (
            from.cast::<T>().read_unaligned(),
            from.add(last).cast::<T>().read_unaligned(),
        );
        to.cast::<T>().write_unaligned(ends.0);
        to.add(last).cast::<T>().write_unaligned(ends.1);
    }
}

/// Whether `byte` stands for itself in a JSON string.
const fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// How many bytes stand for `byte` in a JSON string: a backslash before it, or its code.
const fn escaped_len(byte: u8) -> usize {
    match byte {
        byte if is_plain(byte) => 1,
        b'"' | b'\\' => 2,
        _ => 6,
    }
}

/// Whether every byte stands for itself. Looks at eight at a time.
fn all_plain(bytes: &[u8]) -> bool {
    /// A byte in each place.
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    /// The high bit of each byte that is less than `limit`, which is at most 128, and of none when
    /// there is no such byte. A byte above one that is may be marked as well.
    const fn less(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(each(limit)) & !word & each(0x80)
    }
    let (words, rest) = bytes.as_chunks();
    words.iter().all(|word| {
        let word = u64::from_le_bytes(*word);
        let special = less(word, b' ') | less(word ^ each(b'"'), 1) | less(word ^ each(b'\\'), 1);
        special == 0
    }) && rest.iter().all(|byte| is_plain(*byte))
}

impl Prose for Writer {
    fn words(&mut self, words: &'static str) {
        debug_assert!(all_plain(words.as_bytes()), "to escape: {words}");
        self.short(words);
    }

    fn end(&mut self, end: Endpoint) {
        Self::end(self, end);
    }

    fn number(&mut self, number: u64) {
        Self::number(self, number);
    }

    fn comm(&mut self, comm: Comm) {
        match Escaped(comm.as_bytes()).as_plain() {
            Some(name) if all_plain(name.as_bytes()) => self.short(name),
            _ => {
                let start = self.0.len();
                // Appending to a buffer in memory does not fail.
                let _ = write!(Text(self), "{comm}");
                self.escape_from(start);
            }
        }
    }
}

/// Appends text as it stands.
struct Text<'a>(&'a mut Writer);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.short(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_are_as_plain_as_one_by_one() {
        for special in 0..=u8::MAX {
            for len in 1..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = special;
                    assert_eq!(all_plain(&bytes), is_plain(special), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn control_characters_are_escaped_by_the_writer_too() {
        let mut w = Writer::default();
        w.string("a\u{1}b\"c\\d\u{1f}\n\u{e9}");
        assert_eq!(
            w.bytes(),
            "\"a\\u0001b\\\"c\\\\d\\u001f\\u000a\u{e9}\"".as_bytes()
        );
    }

    #[test]
    fn seconds_have_at_most_six_decimals_and_no_zeros_at_the_end() {
        let cases = [
            (0, "0"),
            (999, "0"),
            (1_000, "0.000001"),
            (100_000_000, "0.1"),
            (12_300_000_000, "12.3"),
            (1_000_001_999, "1.000001"),
            (u64::MAX, "18446744073.709551"),
        ];
        for (ns, text) in cases {
            let mut w = Writer::default();
            w.seconds(Some(ns));
            assert_eq!(w.bytes(), text.as_bytes());
        }
    }
}
