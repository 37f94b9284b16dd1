//! What a storm is like: as a block of lines for people, and as one JSON object a line.
//!
//! What there is to say is decided in `storm`; this is how it reads.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use bytes::BytesMut;
use jiff::tz::TimeZone;
use textwrap::Options;

use super::json::{Clock, Writer};
use crate::storm::{
    Lead, Phase, Report,
    limit::Limited,
    shape::{Ranking, Sources},
    words::{PerSecond, Time, Verdict, rankings},
};

/// Columns of a block.
const WIDTH: usize = 100;

/// Appends a report as a block of lines of at most 100 columns, times in `zone`.
pub fn append_text(out: &mut BytesMut, report: &Report, zone: &TimeZone, colour: bool) {
    let verdict = Verdict::new(report, zone);
    let style = match (colour, report.phase) {
        (false, _) => Style::new(),
        (true, Phase::Begin | Phase::Change) => AnsiColor::Red.on_default().bold(),
        (true, Phase::End) => AnsiColor::Green.on_default().bold(),
        (true, Phase::Shape) => Style::new().bold(),
    };
    let time = Time(report.time_ns, zone);
    let mark = match report.phase {
        Phase::Shape => "--",
        _ => "==",
    };
    let mut lines = wrapped(&format!("{mark} {time} "), &verdict.headline);
    if let Some(what) = &verdict.what {
        lines.extend(wrapped("   ", what));
    }
    if report.phase == Phase::Shape {
        let [_, ten, sixty] = report.rates.map(|rate| PerSecond(rate.total()));
        let rates = format!("{ten}/s over 10 s, {sixty}/s over 60 s");
        lines.extend(wrapped("   rate       ", &rates));
        for (name, text) in rankings(&report.shape) {
            lines.extend(wrapped(&format!("   {name:11}"), &text));
        }
    }
    for (i, line) in lines.iter().enumerate() {
        let style = if i == 0 || mark == "==" {
            style
        } else {
            Style::new()
        };
        // Appending to a buffer in memory does not fail.
        let _ = writeln!(out, "{style}{line}{style:#}");
    }
}

/// Lines of at most [`WIDTH`] columns, of which the first begins with `first` and the others stand
/// under what follows it.
fn wrapped(first: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(first.len());
    let options = Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(&indent);
    let lines = textwrap::wrap(text, options);
    lines.into_iter().map(Into::into).collect()
}

/// Appends a report as one object and a newline: `{"storm":{...}}`. Times are UTC.
pub fn append_json(out: &mut BytesMut, report: &Report) {
    let mut w = Writer::default();
    let mut clock = Clock::default();
    w.raw("{\"storm\":{\"phase\":\"");
    w.raw(report.phase.name());
    w.raw("\",\"time\":");
    time(&mut w, &mut clock, report.time_ns);
    let storm = report.storm.as_ref();
    w.raw(",\"since\":");
    w.or_null(storm, |w, storm| time(w, &mut clock, storm.since_ns));
    w.raw(",\"from_start\":");
    w.or_null(storm, |w, storm| {
        w.raw(if storm.from_start { "true" } else { "false" });
    });
    w.raw(",\"until\":");
    w.or_null(storm.and_then(|storm| storm.until_ns), |w, ns| {
        time(w, &mut clock, ns);
    });
    w.raw(",\"rates\":{");
    for (i, (name, rate)) in ["1s", "10s", "60s"].iter().zip(report.rates).enumerate() {
        w.raw(if i > 0 { ",\"" } else { "\"" });
        w.raw(name);
        w.raw("\":{\"sent\":");
        decimal(&mut w, rate.sent);
        w.raw(",\"received\":");
        decimal(&mut w, rate.received);
        w.raw("}");
    }
    w.raw("},\"usual\":");
    w.or_null(report.usual, decimal);
    w.raw(",\"peak\":");
    w.or_null(storm, |w, storm| decimal(w, storm.peak));
    w.raw(",\"counted\":");
    w.or_null(storm, |w, storm| {
        w.raw("{\"sent\":");
        w.number(storm.counted.sent);
        w.raw(",\"received\":");
        w.number(storm.counted.received);
        w.raw("}");
    });
    w.raw(",\"verdict\":");
    w.string(Verdict::new(report, &TimeZone::UTC).sentence());
    let shape = &report.shape;
    w.raw(",\"detail\":{\"sent\":");
    w.number(shape.sent);
    w.raw(",\"received\":");
    w.number(shape.received);
    w.raw(",\"both_ends_here\":");
    w.raw(if shape.both_ends { "true" } else { "false" });
    w.raw("},\"lead\":");
    w.or_null(shape.lead.as_ref(), |w, lead| {
        write_lead(w, &mut clock, lead);
    });
    ranking(&mut w, "causes", &shape.causes, |w, (direction, cause)| {
        w.raw("\"id\":\"");
        w.raw(cause.name());
        w.raw("\",\"direction\":\"");
        w.raw(direction.name());
        w.raw("\"");
    });
    ranking(&mut w, "owners", &shape.owners, |w, owner| {
        w.raw("\"pid\":");
        w.or_null(owner.is_known().then_some(owner.pid), Writer::number);
        w.raw(",\"comm\":");
        w.or_null(owner.is_known().then_some(owner.comm), Writer::string);
    });
    ranking(&mut w, "ports", &shape.ports, |w, port| {
        w.raw(if port.local {
            "\"side\":\"local\",\"port\":"
        } else {
            "\"side\":\"remote\",\"port\":"
        });
        w.number(port.number);
    });
    ranking(&mut w, "addresses", &shape.addrs, |w, addr| {
        w.raw("\"addr\":");
        w.string(addr);
    });
    ranking(&mut w, "networks", &shape.nets, |w, net| {
        w.raw("\"net\":");
        w.string(net);
    });
    w.raw("}}\n");
    out.extend_from_slice(w.bytes());
}

fn write_lead(w: &mut Writer, clock: &mut Clock, lead: &Lead) {
    w.raw("{\"direction\":\"");
    w.raw(lead.direction.name());
    w.raw("\",\"cause\":\"");
    w.raw(lead.cause.name());
    w.raw("\",\"share\":");
    decimal(w, lead.share);
    w.raw(",\"port\":");
    w.or_null(lead.port, |w, port| w.number(port.number));
    w.raw(",\"side\":");
    w.name(
        lead.port
            .map(|port| if port.local { "local" } else { "remote" }),
    );
    w.raw(",\"scan\":");
    w.raw(if lead.is_scan() { "true" } else { "false" });
    w.raw(",\"owner\":");
    w.or_null(lead.owner, |w, (owner, share)| {
        w.raw("{\"pid\":");
        w.number(owner.pid);
        w.raw(",\"comm\":");
        w.string(owner.comm);
        w.raw(",\"share\":");
        decimal(w, share);
        w.raw("}");
    });
    w.raw(",\"source\":");
    match lead.sources {
        Sources::One(addr, _) => w.string(addr),
        Sources::Network(net, _) => w.string(net),
        Sources::Many => w.raw("null"),
    }
    w.raw(",\"listener\":");
    w.or_null(lead.gone, |w, gone| {
        w.raw("{\"pid\":");
        w.number(gone.pid);
        w.raw(",\"comm\":");
        w.string(gone.comm);
        w.raw(",\"end\":");
        w.string(gone.end);
        w.raw(",\"closer\":");
        w.or_null(gone.closer, |w, (pid, _)| w.number(pid));
        w.raw(",\"time\":");
        time(w, clock, gone.at_ns);
        w.raw("}");
    });
    w.raw("}");
}

fn ranking<K>(w: &mut Writer, name: &str, ranking: &Ranking<K>, key: impl Fn(&mut Writer, &K)) {
    w.raw(",\"");
    w.raw(name);
    w.raw("\":{\"top\":[");
    for (i, row) in ranking.rows.iter().enumerate() {
        w.raw(if i > 0 { ",{" } else { "{" });
        key(w, &row.key);
        w.raw(",\"count\":");
        w.number(row.count);
        w.raw("}");
    }
    w.raw("],\"distinct\":");
    w.number(ranking.distinct);
    w.raw(",\"exact\":");
    w.raw(if ranking.is_exact() { "true" } else { "false" });
    w.raw(",\"error\":");
    w.number(ranking.error);
    w.raw("}");
}

fn time(w: &mut Writer, clock: &mut Clock, ns: u64) {
    w.raw("\"");
    clock.append(w, ns);
    w.raw("\"");
}

/// A number with at most three decimals.
fn decimal(w: &mut Writer, value: f64) {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    w.raw(text);
}

/// Appends how many events were held back, as one object and a newline: `{"limited":{...}}`.
pub fn append_limited_json(out: &mut BytesMut, limited: &Limited) {
    let mut w = Writer::default();
    w.raw("{\"limited\":{\"total\":");
    w.number(limited.total());
    w.raw(",\"causes\":[");
    for (i, (count, direction, name)) in limited.by_count().into_iter().enumerate() {
        w.raw(if i > 0 { ",{\"id\":\"" } else { "{\"id\":\"" });
        w.raw(name);
        w.raw("\",\"direction\":\"");
        w.raw(direction.name());
        w.raw("\",\"count\":");
        w.number(count);
        w.raw("}");
    }
    w.raw("]}}\n");
    out.extend_from_slice(w.bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cause::CauseId,
        cause::{HostFacts, classify},
        event::{Comm, Direction},
        event::{ListenerEnd, Listening},
        fixture,
        storm::{Counted, Now, Watch, limit::Limit},
    };

    /// A storm of 2,000 resets a second, after a listener whose name is not a friendly one.
    fn reports() -> Vec<Report> {
        let mut watch = Watch::default();
        let mut reports = Vec::new();
        let mut event = fixture::closed_port();
        let mut killed = fixture::actor(812, "nginx");
        killed.exiting = true;
        killed.signal = Some(11);
        let mut process = fixture::process(812, "nginx");
        process.comm = Comm::from_text(b"we\x1b[b\"");
        event.listener = Some(Box::new(Listening {
            process,
            inode: 0,
            age_ns: None,
            ended: Some(ListenerEnd {
                closer: killed,
                ago_ns: 1_000_000_000,
            }),
        }));
        let verdict = classify(&event, &HostFacts::default());
        let mut counted = Counted::default();
        for step in 0..120_u64 {
            let now = Now {
                monotonic_ns: step * 250_000_000,
                wall_ns: fixture::TIME_NS + step * 250_000_000,
            };
            reports.extend(watch.tick(now, Some(counted)));
            if step == 60 {
                reports.push(watch.report(now));
            }
            if (48..80).contains(&step) {
                for n in 0..500_u32 {
                    event.remote.addr =
                        fixture::endpoint(&format!("10.0.{}.{}", n % 3, n % 7), 1).addr;
                    watch.note(&event, &verdict);
                }
                counted.sent += 500;
            } else {
                counted.sent += 1;
            }
        }
        reports
    }

    fn text(report: &Report, colour: bool) -> String {
        let mut out = BytesMut::new();
        append_text(&mut out, report, &TimeZone::UTC, colour);
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn reports_as_text() {
        let blocks: String = reports().iter().map(|report| text(report, false)).collect();
        assert!(
            blocks.lines().all(|line| line.chars().count() <= WIDTH),
            "{blocks}"
        );
        insta::assert_snapshot!(blocks);
    }

    #[test]
    fn reports_as_json() {
        let mut out = BytesMut::new();
        for report in &reports() {
            append_json(&mut out, report);
        }
        let lines = String::from_utf8(out.to_vec()).expect("UTF-8");
        let phases: Vec<_> = lines
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value["storm"]["phase"]
                    .as_str()
                    .expect("a phase")
                    .to_owned()
            })
            .collect();
        assert_eq!(phases, ["begin", "shape", "end"]);
        assert!(
            lines.chars().all(|c| c == '\n' || !c.is_control()),
            "{lines}"
        );
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        for report in &reports() {
            let mut plain = text(report, true);
            assert!(plain.contains('\u{1b}'));
            for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[31m", "\u{1b}[32m"] {
                plain = plain.replace(code, "");
            }
            assert_eq!(plain, text(report, false));
        }
    }

    #[test]
    fn what_was_held_back_as_json() {
        let mut limit = Limit::new(1);
        for _ in 0..4 {
            limit.lets_through(Direction::Sent, CauseId::ClosedPort);
        }
        limit.lets_through(Direction::Received, CauseId::Refused);
        let mut out = BytesMut::new();
        append_limited_json(&mut out, &limit.finish().expect("some"));
        assert_eq!(
            out,
            "{\"limited\":{\"total\":4,\"causes\":[{\"id\":\"closed-port\",\"direction\":\"sent\",\
             \"count\":3},{\"id\":\"refused\",\"direction\":\"received\",\"count\":1}]}}\n"
        );
    }
}
