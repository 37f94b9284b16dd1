//! Events as JSON, one object a line: the contract for scripts. A field that cannot be known is
//! `null` and never missing; a new field may come, and none changes its meaning.
//!
//! Written by hand rather than through a `Serialize` tree: the fields are fixed, most are numbers
//! or names that need no escaping, and this is the longest piece of work on an event's way. What a line
//! says of processes and places, and most of its evidence, was in a line before and is copied from there.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    ptr,
    rc::Rc,
};

use arrayvec::ArrayVec;
use bytes::BytesMut;
use jiff::Timestamp;

use super::repeated::Repeated;
use crate::{
    cause::{CauseId, Confidence, Fact, MAX_FACTS, Prose, Verdict, catalogue, tell},
    event::{
        Actor, Comm, Direction, Endpoint, Escaped, Event, OCTETS, Owner, Peer, Place, Reason,
        Segment, Socket, TcpState,
    },
};

const NS_PER_S: u64 = 1_000_000_000;

/// Appends events as JSON. It remembers the second that it last printed, and parts of lines that may
/// come again.
#[derive(Debug, Default)]
pub struct Json {
    clock: Clock,
    who: Repeated<Who>,
    other_end: Repeated<OtherEnd>,
    evidence: Repeated<Evidence>,
}

impl Json {
    /// Appends `event` with its `verdict` as one object and a newline.
    pub fn append(&mut self, out: &mut BytesMut, event: &Event, verdict: &Verdict) {
        let w = Writer::over(out);
        w.raw("{\"time\":\"");
        self.clock.append(w, event.time_ns);
        w.raw(match event.direction {
            Direction::Sent => "\",\"direction\":\"sent\",\"family\":\"",
            Direction::Received => "\",\"direction\":\"received\",\"family\":\"",
        });
        w.raw(if event.is_ipv4() {
            "ipv4\",\"local\":"
        } else {
            "ipv6\",\"local\":"
        });
        w.endpoint(event.local);
        w.raw(",\"remote\":");
        w.endpoint(event.remote);
        w.raw(",\"state\":");
        w.repeated(
            &mut self.who,
            Who::place(event),
            |who| who.is_of(event),
            |w| {
                w.who(event);
                Who::of(event)
            },
        );
        w.raw(",\"segment\":");
        w.or_null(event.segment.as_ref(), Writer::segment);
        w.raw(",\"socket\":");
        w.or_null(event.socket.as_ref(), Writer::socket);
        w.raw(",\"peer\":");
        w.repeated(
            &mut self.other_end,
            OtherEnd::place(event, verdict),
            |end| end.is_of(event, verdict),
            |w| {
                w.other_end(event, verdict);
                OtherEnd::of(event, verdict)
            },
        );
        w.summary(event, verdict);
        w.raw(",\"evidence\":[");
        if verdict.facts.iter().all(Fact::repeats) {
            w.repeated(
                &mut self.evidence,
                verdict.id as u32,
                |evidence| evidence.id == verdict.id && evidence.facts == verdict.facts,
                |w| {
                    w.evidence(verdict);
                    Evidence {
                        id: verdict.id,
                        facts: verdict.facts.clone(),
                    }
                },
            );
        } else {
            w.evidence(verdict);
        }
    }
}

/// What a line says between the addresses and the segment.
#[derive(Debug)]
struct Who {
    state: Option<TcpState>,
    reason: Option<Reason>,
    owner: Option<Owner>,
    actor: Option<Actor>,
    netns: Option<u32>,
    netns_name: Option<Rc<str>>,
    place: Option<Rc<Place>>,
}

impl Who {
    fn of(event: &Event) -> Self {
        Self {
            state: event.state,
            reason: event.reason,
            owner: event.owner.clone(),
            actor: event.actor.clone(),
            netns: event.netns,
            netns_name: event.netns_name.clone(),
            place: event.place.clone(),
        }
    }

    fn is_of(&self, event: &Event) -> bool {
        self.state == event.state
            && self.reason == event.reason
            && self.netns == event.netns
            && self.owner == event.owner
            && self.actor == event.actor
            && self.netns_name == event.netns_name
            && self.place == event.place
    }

    /// Where its text is kept: seldom where that of another one is. The same process may hold both ends, in the same
    /// state, and a reset between them is sent and received.
    fn place(event: &Event) -> u32 {
        let state = event.state.map_or(0, |state| state as u32);
        let direction = event.direction as u32;
        let namespace = event.netns.unwrap_or(0).rotate_left(16);
        pid(event.owner.as_ref()) ^ state << 22 ^ direction << 26 ^ namespace
    }
}

/// What it says between the socket and the summary.
#[derive(Debug)]
struct OtherEnd {
    peer: Option<Peer>,
    id: CauseId,
    confidence: Confidence,
}

impl OtherEnd {
    fn of(event: &Event, verdict: &Verdict) -> Self {
        Self {
            peer: event.peer.as_deref().cloned(),
            id: verdict.id,
            confidence: verdict.confidence,
        }
    }

    fn is_of(&self, event: &Event, verdict: &Verdict) -> bool {
        self.id == verdict.id
            && self.confidence == verdict.confidence
            && self.peer.as_ref() == event.peer.as_deref()
    }

    /// As [`Who::place`].
    fn place(event: &Event, verdict: &Verdict) -> u32 {
        let owner = event
            .peer
            .as_ref()
            .map_or(0, |peer| pid(peer.owner.as_ref()));
        owner ^ (verdict.id as u32) << 22
    }
}

/// What it says behind the summary.
#[derive(Debug)]
struct Evidence {
    id: CauseId,
    facts: ArrayVec<Fact, MAX_FACTS>,
}

fn pid(owner: Option<&Owner>) -> u32 {
    owner.map_or(0, |owner| owner.process.pid)
}

/// RFC 3339 in UTC with nine decimals. Most events share their second with the one before, so that
/// the date is worked out once a second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    /// Appends `time_ns`, nanoseconds since the Unix epoch.
    pub(super) fn append(&mut self, w: &mut Writer, time_ns: u64) {
        let second = time_ns / NS_PER_S;
        if self.second != Some(second) {
            // A u64 of nanoseconds ends in 2554, which is well before the last `Timestamp`.
            let timestamp = i64::try_from(second)
                .ok()
                .and_then(|second| Timestamp::from_second(second).ok())
                .unwrap_or(Timestamp::MAX);
            self.second = Some(second);
            self.text = timestamp.to_string();
            self.text.truncate("2026-11-20T21:00:00".len());
        }
        w.short(&self.text);
        w.raw(".");
        w.padded((time_ns % NS_PER_S) as u32, 9);
        w.raw("Z");
    }
}

/// JSON text that grows.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(super) struct Writer(BytesMut);

impl Writer {
    /// One that appends to `out`. Moved in and out again it would be read in other pieces than it was written
    /// in, which keeps the processor waiting.
    fn over(out: &mut BytesMut) -> &mut Self {
        // SAFETY: it is the same in memory, and borrowed for as long.
        unsafe { &mut *ptr::from_mut(out).cast::<Self>() }
    }

    /// What it has become.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `text` as it stands: syntax, or a name that needs no escaping.
    #[expect(
        clippy::inline_always,
        reason = "most texts are known when this is compiled, and then copied without a call"
    )]
    #[inline(always)]
    pub(super) fn raw(&mut self, text: &str) {
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
    fn short(&mut self, text: &str) {
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
    pub(super) fn number(&mut self, number: impl itoa::Integer + TryInto<u32>) {
        match number.try_into() {
            Ok(number) => self.padded(number, digits(number)),
            Err(_) => self.short(itoa::Buffer::new().format(number)),
        }
    }

    /// The last decimal digits of `number`, with zeros in front; so many of them, at most 10. Written where
    /// they belong: what is read again right after it was written in other pieces keeps the processor
    /// waiting.
    #[inline]
    fn padded(&mut self, mut number: u32, digits: usize) {
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
    pub(super) fn or_null<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.raw("null"),
        }
    }

    /// One of this program's names, or `null`. Kernel reasons are among them: C identifiers.
    pub(super) fn name(&mut self, name: Option<&'static str>) {
        self.or_null(name, |w, name| {
            w.raw("\"");
            w.short(name);
            w.raw("\"");
        });
    }

    /// A string that prints what `value` displays.
    pub(super) fn string(&mut self, value: impl fmt::Display) {
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
    pub(super) fn foreign(&mut self, text: Option<&str>) {
        self.or_null(text, |w, text| w.escaped(text.as_bytes()));
    }

    fn escaped(&mut self, text: &[u8]) {
        let text = Escaped(text);
        match text.as_plain() {
            Some(text) => self.quoted(|w| w.raw(text)),
            None => self.string(text),
        }
    }

    /// Nanoseconds as seconds with at most six decimals, or `null`.
    pub(super) fn seconds(&mut self, ns: Option<u64>) {
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

    /// One end of a connection as it stands in texts.
    fn end(&mut self, end: Endpoint) {
        match end.addr {
            IpAddr::V4(addr) => {
                self.ipv4(addr);
                self.raw(":");
                self.number(end.port);
            }
            IpAddr::V6(_) => {
                // It holds nothing to escape, and the buffer does not fail.
                let _ = write!(Text(self), "{end}");
            }
        }
    }

    fn endpoint(&mut self, endpoint: Endpoint) {
        self.raw("{\"addr\":\"");
        match endpoint.addr {
            IpAddr::V4(addr) => self.ipv4(addr),
            IpAddr::V6(addr) => {
                // An address holds nothing to escape, and the buffer does not fail.
                let _ = write!(Text(self), "{addr}");
            }
        }
        self.raw("\",\"port\":");
        self.number(endpoint.port);
        self.raw("}");
    }

    fn owner(&mut self, owner: &Owner) {
        let process = &owner.process;
        self.raw("{\"pid\":");
        self.number(process.pid);
        self.raw(",\"comm\":");
        self.escaped(process.comm.as_bytes());
        self.raw(",\"exe\":");
        self.foreign(process.exe.as_deref());
        self.raw(",\"uid\":");
        self.or_null(process.uid, Self::number);
        self.raw(",\"via\":");
        self.name(Some(owner.via.name()));
        if owner.holders.len() > 1 {
            self.raw(",\"holders\":[");
            for (i, pid) in owner.holders.iter().enumerate() {
                if i > 0 {
                    self.raw(",");
                }
                self.number(*pid);
            }
            self.raw("]");
        }
        self.raw("}");
    }

    fn actor(&mut self, actor: &Actor) {
        self.raw("{\"pid\":");
        self.number(actor.process.pid);
        self.raw(",\"tid\":");
        self.number(actor.tid);
        self.raw(",\"comm\":");
        self.escaped(actor.process.comm.as_bytes());
        self.raw(if actor.exiting {
            ",\"exiting\":true,\"signal\":"
        } else {
            ",\"exiting\":false,\"signal\":"
        });
        self.or_null(actor.signal, Self::number);
        self.raw(",\"exit_status\":");
        self.or_null(actor.exit_status, Self::number);
        self.raw(if actor.oom {
            ",\"oom\":true,\"kernel_thread\":"
        } else {
            ",\"oom\":false,\"kernel_thread\":"
        });
        self.raw(if actor.kernel_thread {
            "true}"
        } else {
            "false}"
        });
    }

    fn peer(&mut self, peer: &Peer) {
        self.raw("{\"owner\":");
        self.or_null(peer.owner.as_ref(), Self::owner);
        self.raw(",\"actor\":");
        self.or_null(peer.actor.as_ref(), Self::actor);
        self.raw(",\"cause\":");
        self.name(Some(peer.cause));
        self.raw("}");
    }

    fn segment(&mut self, segment: &Segment) {
        self.raw("{\"flags\":\"");
        let Ok(()) = segment.flags.pieces(|piece| {
            self.short(piece);
            Ok::<_, Infallible>(())
        });
        self.raw("\",\"seq\":");
        self.number(segment.seq);
        self.raw(",\"ack\":");
        self.number(segment.ack);
        self.raw(",\"payload\":");
        self.number(segment.payload);
        self.raw("}");
    }

    fn socket(&mut self, socket: &Socket) {
        self.raw("{\"age_s\":");
        self.seconds(socket.age_ns);
        self.raw(",\"idle_rx_s\":");
        self.seconds(socket.idle_rx_ns);
        self.raw(",\"idle_tx_s\":");
        self.seconds(socket.idle_tx_ns);
        self.raw(",\"bytes_sent\":");
        self.number(socket.bytes_sent);
        self.raw(",\"bytes_received\":");
        self.number(socket.bytes_received);
        self.raw(",\"unread\":");
        self.number(socket.unread);
        self.raw(",\"unacked\":");
        self.number(socket.unacked);
        self.raw(if socket.kernel_owned {
            ",\"kernel\":true}"
        } else {
            ",\"kernel\":false}"
        });
    }

    /// The state, and on from there to the place.
    fn who(&mut self, event: &Event) {
        self.name(event.state.map(TcpState::name));
        self.raw(",\"reason\":");
        self.name(event.reason.map(Reason::name));
        self.raw(",\"owner\":");
        self.or_null(event.owner.as_ref(), Self::owner);
        self.raw(",\"actor\":");
        self.or_null(event.actor.as_ref(), Self::actor);
        self.raw(",\"netns\":");
        self.or_null(event.netns, Self::number);
        self.raw(",\"netns_name\":");
        self.foreign(event.netns_name.as_deref());
        let place = event.place.as_deref();
        self.raw(",\"cgroup\":");
        self.foreign(place.and_then(|place| place.cgroup.as_deref()));
        self.raw(",\"unit\":");
        self.foreign(place.and_then(|place| place.unit.as_deref()));
        self.raw(",\"container\":");
        self.foreign(place.and_then(|place| place.container.as_deref()));
        self.raw(",\"runtime\":");
        self.name(place.and_then(|place| place.runtime));
        self.raw(",\"pod\":");
        self.foreign(place.and_then(|place| place.pod.as_deref()));
    }

    /// The peer, and on from there to the summary.
    fn other_end(&mut self, event: &Event, verdict: &Verdict) {
        self.or_null(event.peer.as_deref(), Self::peer);
        self.raw(",\"cause\":{\"id\":\"");
        self.raw(verdict.id.name());
        self.raw("\",\"confidence\":\"");
        self.raw(verdict.confidence.name());
        self.raw("\",\"summary\":");
    }

    /// The sentence.
    fn summary(&mut self, event: &Event, verdict: &Verdict) {
        self.raw("\"");
        tell(event, verdict, self);
        self.raw("\"");
    }

    /// The facts, and on from there to the end of the line.
    fn evidence(&mut self, verdict: &Verdict) {
        for (i, fact) in verdict.facts.iter().enumerate() {
            self.raw(if i > 0 { ",\"" } else { "\"" });
            fact.tell(self);
            self.raw("\"");
        }
        self.raw("],\"advice\":\"");
        // The catalogue's tests hold its texts to what needs no escaping.
        self.raw(catalogue::entry(verdict.id).advice);
        self.raw("\"}}\n");
    }

    /// What `write` appends, or the same from where it is kept: see [`Repeated::append`].
    fn repeated<K>(
        &mut self,
        kept: &mut Repeated<K>,
        place: u32,
        is: impl FnOnce(&K) -> bool,
        write: impl FnOnce(&mut Self) -> K,
    ) {
        kept.append(&mut self.0, place, is, |out| write(Self::over(out)));
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
    use crate::{
        cause::{CauseId, HostFacts, Reasons, classify},
        event::Trigger,
        fixture,
    };

    fn line(event: &Event) -> String {
        let host = HostFacts {
            uptime: None,
            reasons: Reasons::All,
        };
        let mut out = BytesMut::new();
        Json::default().append(&mut out, event, &classify(event, &host));
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    fn value(event: &Event) -> serde_json::Value {
        let line = line(event);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn a_closed_port() {
        insta::assert_snapshot!(line(&fixture::closed_port()));
    }

    #[test]
    fn a_close_with_unread_data() {
        insta::assert_snapshot!(line(&fixture::unread()));
    }

    #[test]
    fn both_ends_of_one_process_are_kept() {
        let host = HostFacts {
            uptime: None,
            reasons: Reasons::All,
        };
        let sent = fixture::unread();
        let mut received = sent.clone();
        received.direction = Direction::Received;
        received.trigger = Trigger::Received;
        (received.reason, received.actor) = (None, None);
        let mut json = Json::default();
        let mut out = BytesMut::new();
        for event in [&sent, &received, &sent, &received] {
            json.append(&mut out, event, &classify(event, &host));
        }
        assert_eq!(json.who.len(), 2);
        let text = String::from_utf8(out.to_vec()).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1]), (lines[2], lines[3]));
    }

    #[test]
    fn ipv6_with_several_holders_and_a_killed_actor() {
        let mut event = fixture::unread();
        event.local = fixture::endpoint("2001:db8::5", 8080);
        event.remote = fixture::endpoint("fe80::5054:ff:fe12:3456", 51234);
        event.owner.as_mut().expect("an owner").holders = vec![812, 813];
        let actor = event.actor.as_mut().expect("an actor");
        actor.exiting = true;
        actor.signal = Some(9);
        insta::assert_snapshot!(line(&event));
    }

    #[test]
    fn a_container_of_a_pod() {
        let mut event = fixture::unread();
        event.netns_name = Some("12fdc709-933e-41d0-917f-cd84de9afa94".into());
        event.place = Some(fixture::pod().into());
        insta::assert_snapshot!(line(&event));
    }

    #[test]
    fn the_kernels_own_socket_says_so() {
        let mut event = fixture::received(TcpState::Established);
        assert_eq!(value(&event)["socket"]["kernel"], false);
        event.owner = None;
        event.socket.as_mut().expect("a socket").kernel_owned = true;
        assert_eq!(value(&event)["socket"]["kernel"], true);
        assert_eq!(value(&event)["owner"], serde_json::Value::Null);
    }

    #[test]
    fn one_holder_is_the_owner_and_is_not_listed() {
        let mut event = fixture::unread();
        event.owner.as_mut().expect("an owner").holders = vec![812];
        assert!(value(&event)["owner"].get("holders").is_none());
    }

    #[test]
    fn hostile_names_stay_inside_their_strings() {
        let mut event = fixture::unread();
        let owner = event.owner.as_mut().expect("an owner");
        owner.process.comm = Comm::from_text(b"\x1b[2J\"}\n\xff");
        event.netns_name = Some("web\u{1b}".into());
        event.place = Some(crate::owner::place::from_path("/a\n\"/b\u{7f}.service").into());
        owner.process.exe = Some("/tmp/a\"b\\c\u{202e}\u{9b}\u{7f}".into());
        let line = line(&event);
        assert!(
            line.trim_end_matches('\n')
                .chars()
                .all(|c| !c.is_control() && c != '\u{202e}')
        );
        let value = value(&event);
        assert_eq!(value["owner"]["comm"], "\\x1b[2J\"}\\n\\xff");
        assert_eq!(value["owner"]["exe"], "/tmp/a\"b\\\\c\\u{202e}\\u{9b}\\x7f");
        assert_eq!(value["netns_name"], "web\\x1b");
        assert_eq!(value["cgroup"], "/a\\n\"/b\\x7f.service");
        assert_eq!(value["unit"], "b\\x7f.service");
        assert_eq!(
            value["cause"]["summary"],
            "nginx[812] closed the connection with 64 bytes still unread"
        );
    }

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
    fn a_known_event_gives_the_same_as_a_json_library() {
        let value = value(&fixture::received(TcpState::SynSent));
        assert_eq!(value["direction"], "received");
        assert_eq!(value["state"], "SYN_SENT");
        assert_eq!(value["reason"], serde_json::Value::Null);
        assert_eq!(value["actor"], serde_json::Value::Null);
        assert_eq!(value["peer"], serde_json::Value::Null);
        assert_eq!(value["socket"]["age_s"], 0.0015);
        assert_eq!(value["socket"]["idle_rx_s"], serde_json::Value::Null);
        assert_eq!(value["cause"]["id"], "refused");
        assert_eq!(
            value["cause"]["advice"],
            catalogue::entry(CauseId::Refused).advice
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

    #[test]
    fn times_are_rfc_3339_whatever_was_printed_before() {
        let mut clock = Clock::default();
        let cases = [
            (fixture::TIME_NS, "2026-11-20T21:00:00.123456789Z"),
            (fixture::TIME_NS + 1, "2026-11-20T21:00:00.123456790Z"),
            (
                fixture::TIME_NS + NS_PER_S,
                "2026-11-20T21:00:01.123456789Z",
            ),
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400 * NS_PER_S, "2000-02-29T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ];
        for (time_ns, text) in cases {
            let mut w = Writer::default();
            clock.append(&mut w, time_ns);
            assert_eq!(w.bytes(), text.as_bytes());
        }
    }
}
