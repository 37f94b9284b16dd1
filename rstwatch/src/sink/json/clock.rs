//! Times as they stand in JSON.

use std::ops::Range;

use jiff::Timestamp;

use super::writer::{NS_PER_S, Writer};

/// RFC 3339 in UTC with nine decimals. Most events share their second with the one before, so that
/// the date is worked out once a second.
#[derive(Debug, Default)]
pub struct Clock {
    /// The second that was printed last, in nanoseconds since the Unix epoch.
    second: Range<u64>,
    /// How it reads, up to the decimals.
    text: [u8; "2026-11-20T21:00:00.".len()],
}

impl Clock {
    /// Appends `time_ns`, nanoseconds since the Unix epoch.
    pub fn append(&mut self, w: &mut Writer, time_ns: u64) {
        if !self.second.contains(&time_ns) {
            self.read(time_ns / NS_PER_S);
        }
        w.append(&self.text);
        w.padded((time_ns - self.second.start) as u32, 9);
        w.raw("Z");
    }

    #[cold]
    fn read(&mut self, second: u64) {
        // A u64 of nanoseconds ends in 2554, which is well before the last `Timestamp`.
        let timestamp = i64::try_from(second)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok())
            .unwrap_or(Timestamp::MAX);
        let start = second * NS_PER_S;
        self.second = start..start.saturating_add(NS_PER_S);
        for (to, from) in self.text.iter_mut().zip(timestamp.to_string().bytes()) {
            *to = from;
        }
        self.text[self.text.len() - 1] = b'.';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

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
