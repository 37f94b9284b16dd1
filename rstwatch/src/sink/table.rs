//! Events as a table: a header and one row a reset.
//!
//! A value that does not fit its column is never cut. A column grows with its values up to a limit
//! and stays so, so that the rows of one host stand in line; beyond the limit, as with long IPv6
//! addresses, the row's columns move to the right and fall back into place as soon as a shorter
//! value leaves room. With usual addresses and names a row takes at most 100 columns.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use bytes::BytesMut;
use jiff::{Timestamp, tz::TimeZone};

use super::storm;
use crate::{
    cause::{Confidence, Verdict, summary},
    event::{Actor, Direction, Escaped, Event, Place, Reason, TcpState},
    owner::namespace::short_id,
    storm::{Report, limit::Limited},
};

const NS_PER_S: u64 = 1_000_000_000;

/// A column: its name, how wide it begins and how wide it grows, with the space behind it.
struct Column {
    name: &'static str,
    width: usize,
    limit: usize,
}

const fn column(name: &'static str, width: usize, limit: usize) -> Column {
    Column { name, width, limit }
}

/// The columns of every table, and behind them those that a wide table has as well.
const COLUMNS: [Column; 15] = [
    column("TIME", 13, 13),
    column("DIR", 5, 5),
    column("PID", 6, 8),
    column("COMM", 8, 16),
    column("LOCAL", 16, 23),
    column("REMOTE", 16, 23),
    column("STATE", 6, 13),
    column("CAUSE", 26, 26),
    column("REASON", 25, 25),
    column("CONFIDENCE", 11, 11),
    column("VIA", 9, 9),
    column("NETNS", 11, 17),
    column("PLACE", 16, 28),
    column("ACTOR", 16, 26),
    column("SUMMARY", 0, 0),
];

/// The columns of a table that is not wide.
const NARROW: usize = 8;

/// How much wider the first column is with the date.
const DATE_WIDTH: usize = "2026-11-20 ".len();

/// How the table looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own on the command line, or a command's"
)]
pub struct TableOptions {
    /// With colours, for a terminal that wants them.
    pub colour: bool,
    /// With the columns REASON to SUMMARY.
    pub wide: bool,
    /// With the date before the time.
    pub date: bool,
    /// With the sentence in a line of its own below each row.
    pub sentence: bool,
}

/// Appends events as rows. It remembers the second that it last printed and how wide its columns
/// have grown.
#[derive(Debug)]
pub struct Table {
    options: TableOptions,
    zone: TimeZone,
    second: Option<u64>,
    stamp: String,
    widths: [usize; COLUMNS.len()],
}

impl Table {
    /// A table whose times stand in the time zone `zone`.
    pub fn new(options: TableOptions, zone: TimeZone) -> Self {
        Self {
            options,
            zone,
            second: None,
            stamp: String::new(),
            widths: COLUMNS.map(|column| column.width),
        }
    }

    /// Appends the header.
    pub fn header(&mut self, out: &mut BytesMut) {
        let shown = if self.options.wide {
            COLUMNS.len()
        } else {
            NARROW
        };
        let mut row = Row::new(self.options, &mut self.widths, out);
        for column in &COLUMNS[..shown] {
            row.cell(Style::new().bold(), column.name);
        }
        row.end();
    }

    /// Appends `event` with its `verdict` as one row. A cause is followed by `?` when it is likely
    /// and by `??` when it is possible; what is not known is `-`.
    pub fn append(&mut self, out: &mut BytesMut, event: &Event, verdict: &Verdict) {
        self.set_second(event.time_ns / NS_PER_S);
        let millis = event.time_ns % NS_PER_S / 1_000_000;
        let owner = event.owner.as_ref();
        let mut row = Row::new(self.options, &mut self.widths, out);
        row.cell(Style::new(), format_args!("{}.{millis:03}", self.stamp));
        let (name, colour) = match event.direction {
            Direction::Sent => ("sent", AnsiColor::Yellow),
            Direction::Received => ("recv", AnsiColor::Cyan),
        };
        row.cell(colour.on_default(), name);
        row.cell(Style::new(), OrDash(owner.map(|owner| owner.process.pid)));
        let is_kernels = event.socket.is_some_and(|socket| socket.kernel_owned);
        match owner {
            None if is_kernels => row.cell(Style::new(), "[kernel]"),
            owner => row.cell(Style::new(), OrDash(owner.map(|owner| owner.process.comm))),
        }
        row.cell(Style::new(), event.local);
        row.cell(Style::new(), event.remote);
        row.cell(Style::new(), OrDash(event.state.map(short_name)));
        let (mark, style) = match verdict.confidence {
            Confidence::Certain => ("", Style::new().bold()),
            Confidence::Likely => ("?", Style::new()),
            Confidence::Possible => ("??", Style::new().dimmed()),
        };
        row.cell(style, format_args!("{}{mark}", verdict.id.name()));
        if self.options.wide {
            let plain = Style::new();
            row.cell(plain, OrDash(event.reason.map(Reason::name)));
            row.cell(plain, verdict.confidence.name());
            row.cell(plain, OrDash(owner.map(|owner| owner.via.name())));
            match &event.netns_name {
                Some(name) => row.cell(plain, Escaped(name.as_bytes())),
                None => row.cell(plain, OrDash(event.netns)),
            }
            let place = event.place.as_deref().and_then(place_name);
            row.cell(plain, OrDash(place.map(|name| Escaped(name.as_bytes()))));
            row.cell(plain, OrDash(event.actor.as_ref().map(ActorName)));
            row.cell(plain, summary(event, verdict));
        }
        row.end();
        if self.options.sentence {
            // Appending to a buffer in memory does not fail.
            let _ = writeln!(out, "    {}", summary(event, verdict));
        }
    }

    /// Appends a report as a block that stands out from the rows.
    pub fn report(&self, out: &mut BytesMut, report: &Report) {
        storm::append_text(out, report, &self.zone, self.options.colour);
    }

    /// Appends how many rows were held back.
    pub fn limited(&self, out: &mut BytesMut, limited: &Limited) {
        let style = if self.options.colour {
            Style::new().dimmed()
        } else {
            Style::new()
        };
        // Appending to a buffer in memory does not fail.
        let _ = writeln!(out, "{style}{limited}{style:#}");
    }

    /// Works out the date and time of `second` of the Unix epoch, unless it is the last one again.
    fn set_second(&mut self, second: u64) {
        if self.second == Some(second) {
            return;
        }
        // A u64 of nanoseconds ends in 2554, which is well before the last `Timestamp`.
        let time = i64::try_from(second)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok())
            .unwrap_or(Timestamp::MAX)
            .to_zoned(self.zone.clone())
            .datetime();
        self.second = Some(second);
        self.stamp = time.to_string().replace('T', " ");
        if !self.options.date {
            self.stamp.drain(..DATE_WIDTH);
        }
    }
}

/// A row being written.
struct Row<'a> {
    out: &'a mut BytesMut,
    widths: &'a mut [usize; COLUMNS.len()],
    colour: bool,
    /// Cells written so far.
    cells: usize,
    /// What the first column has more.
    extra: usize,
    /// Characters written so far.
    width: usize,
    /// Where the next cell should begin.
    start: usize,
}

impl<'a> Row<'a> {
    fn new(
        options: TableOptions,
        widths: &'a mut [usize; COLUMNS.len()],
        out: &'a mut BytesMut,
    ) -> Self {
        Self {
            out,
            widths,
            colour: options.colour,
            cells: 0,
            extra: if options.date { DATE_WIDTH } else { 0 },
            width: 0,
            start: 0,
        }
    }

    /// Writes the next cell, at its column's place or one space behind the last cell.
    fn cell(&mut self, style: Style, value: impl fmt::Display) {
        let is_first = self.cells == 0;
        let gap = if is_first {
            0
        } else {
            self.start.saturating_sub(self.width).max(1)
        };
        self.out.resize(self.out.len() + gap, b' ');
        self.width += gap;
        let begin = self.width;
        // Appending to a buffer in memory does not fail.
        let _ = if self.colour && style != Style::new() {
            write!(self.out, "{style}")
                .and_then(|()| write!(self, "{value}"))
                .and_then(|()| write!(self.out, "{style:#}"))
        } else {
            write!(self, "{value}")
        };
        let extra = if is_first { self.extra } else { 0 };
        if let Some(width) = self.widths.get_mut(self.cells) {
            let wanted = (self.width - begin + 1).saturating_sub(extra);
            if wanted > *width && wanted <= COLUMNS[self.cells].limit {
                *width = wanted;
            }
            self.start += *width + extra;
        }
        self.cells += 1;
    }

    fn end(self) {
        self.out.extend_from_slice(b"\n");
    }
}

impl fmt::Write for Row<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.width += text.chars().count();
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A value, or `-` for what is not known.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// `name[pid]`, and how it ended.
struct ActorName<'a>(&'a Actor);

impl fmt::Display for ActorName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Actor {
            process, exiting, ..
        } = self.0;
        write!(f, "{}[{}]", process.comm, process.pid)?;
        if *exiting { f.write_str("!") } else { Ok(()) }
    }
}

/// Where the owner lives, in short: its unit; its container, when that has none of its own or one
/// that is only named after it, or belongs to a pod; else its cgroup.
fn place_name(place: &Place) -> Option<&str> {
    let (unit, container) = (place.unit.as_deref(), place.container.as_deref());
    let of_container =
        |unit: &&str| place.pod.is_some() || container.is_some_and(|id| unit.contains(id));
    unit.filter(|unit| !of_container(unit))
        .or_else(|| container.map(short_id))
        .or(unit)
        .or(place.cgroup.as_deref())
}

/// The state's name; the longest and most common one as `ss` shortens it.
const fn short_name(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTAB",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cause::{CauseId, HostFacts, Reasons, catalogue, classify},
        event::Comm,
        fixture,
        owner::place,
    };

    const HOST: HostFacts = HostFacts {
        uptime: None,
        reasons: Reasons::All,
    };

    fn table(options: TableOptions, events: &[Event]) -> String {
        let mut table = Table::new(options, TimeZone::UTC);
        let mut out = BytesMut::new();
        table.header(&mut out);
        for event in events {
            table.append(&mut out, event, &classify(event, &HOST));
        }
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    fn ipv6(local: &str, remote: &str) -> Event {
        let mut event = fixture::unread();
        event.local = fixture::endpoint(local, 8080);
        event.remote = fixture::endpoint(remote, 51234);
        event
    }

    fn hostile() -> Event {
        let mut event = fixture::unread();
        let comm = Comm::from_text(b"\x1b]0;x\x07\"\r\n\xff\xc2\x9b");
        event.owner.as_mut().expect("an owner").process.comm = comm;
        event.actor.as_mut().expect("an actor").process.comm = comm;
        event.netns_name = Some("\u{1b}[2Jweb".into());
        event.place = Some(place::from_path("/a\n/b\u{9b}").into());
        event
    }

    fn events() -> Vec<Event> {
        vec![
            fixture::closed_port(),
            fixture::unread(),
            fixture::received(TcpState::SynSent),
            fixture::received(TcpState::Established),
            fixture::received(TcpState::SynRecv),
            ipv6("2001:db8::5", "2001:db8::9"),
            ipv6(
                "2001:db8:1234:5678:9abc:def0:1234:5678",
                "2001:db8:1234:5678:9abc:def0:1234:5679",
            ),
            hostile(),
            kernels_own(),
        ]
    }

    fn kernels_own() -> Event {
        let mut event = fixture::received(TcpState::Established);
        event.owner = None;
        event.socket.as_mut().expect("a socket").kernel_owned = true;
        event
    }

    #[test]
    fn a_place_is_told_by_what_says_the_most() {
        let id = "0123456789abcdef".repeat(4);
        let short = "0123456789ab";
        let cases = [
            ("/system.slice/nginx.service".to_owned(), "nginx.service"),
            (format!("/system.slice/docker-{id}.scope"), short),
            (format!("/docker/{id}"), short),
            (format!("/docker/{id}/system.slice/a.service"), "a.service"),
            (format!("/a.service/libpod-payload-{id}"), "a.service"),
            ("/lxc.payload.web".to_owned(), "web"),
            ("/batch/7".to_owned(), "/batch/7"),
            ("/".to_owned(), "/"),
        ];
        for (path, name) in cases {
            assert_eq!(place_name(&place::from_path(&path)), Some(name), "{path}");
        }
        assert_eq!(place_name(&fixture::pod()), Some(short));
        assert_eq!(place_name(&Place::default()), None);
    }

    #[test]
    fn narrow() {
        insta::assert_snapshot!(table(TableOptions::default(), &events()));
    }

    #[test]
    fn wide_with_the_date() {
        let options = TableOptions {
            wide: true,
            date: true,
            ..TableOptions::default()
        };
        let mut events = events();
        events[1].actor.as_mut().expect("an actor").exiting = true;
        let mut pod = fixture::unread();
        pod.netns_name = Some("blue".into());
        pod.place = Some(fixture::pod().into());
        events.push(pod);
        insta::assert_snapshot!(table(options, &events));
    }

    #[test]
    fn coloured() {
        let options = TableOptions {
            colour: true,
            ..TableOptions::default()
        };
        let text = table(options, &events()[..5]);
        insta::assert_snapshot!(text.replace('\x1b', "<ESC>"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let options = TableOptions {
            colour: true,
            ..TableOptions::default()
        };
        let mut coloured = table(options, &events());
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[36m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, table(TableOptions::default(), &events()));
    }

    #[test]
    fn no_control_character_of_another_process_is_printed() {
        let options = TableOptions {
            wide: true,
            ..TableOptions::default()
        };
        let text = table(options, &[hostile()]);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    }

    #[test]
    fn usual_rows_fit_a_hundred_columns_whatever_the_cause() {
        let mut event = fixture::unread();
        event.local = fixture::endpoint("192.168.1.5", 443);
        event.remote = fixture::endpoint("192.168.1.9", 51234);
        event.owner.as_mut().expect("an owner").process = fixture::process(123_456, "postgres");
        for entry in &catalogue::ENTRIES {
            let mut verdict = classify(&event, &HOST);
            verdict.id = entry.id;
            verdict.confidence = match entry.id {
                CauseId::Unknown => Confidence::Possible,
                _ => Confidence::Likely,
            };
            let mut out = BytesMut::new();
            Table::new(TableOptions::default(), TimeZone::UTC).append(&mut out, &event, &verdict);
            assert!(
                out.len() <= 101,
                "{} columns with {}",
                out.len() - 1,
                entry.name
            );
        }
        let short = table(
            TableOptions::default(),
            &[ipv6("2001:db8::5", "2001:db8::9")],
        );
        assert!(short.lines().all(|line| line.len() <= 100), "{short}");
    }

    #[test]
    fn times_stand_in_the_time_zone_of_the_table() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let options = TableOptions {
            date: true,
            ..TableOptions::default()
        };
        let mut table = Table::new(options, zone);
        let mut out = BytesMut::new();
        let mut event = fixture::closed_port();
        let verdict = classify(&event, &HOST);
        table.append(&mut out, &event, &verdict);
        event.time_ns += NS_PER_S;
        table.append(&mut out, &event, &verdict);
        let text = String::from_utf8(out.to_vec()).expect("UTF-8");
        let times: Vec<_> = text.lines().map(|line| &line[..23]).collect();
        assert_eq!(
            times,
            ["2026-11-20 23:00:00.123", "2026-11-20 23:00:01.123"]
        );
    }
}
