//! The summary at the end of rstwatch's output, in either of its forms.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    ops::RangeInclusive,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::outcome::Seen;

/// How far from the end of the output the summary begins, at most.
const TAIL: u64 = 1 << 20;

/// What stands above the tally in the summary as text.
const TALLY: &str = "all of them, as the kernel counted them:";

/// What rstwatch saw in all, and of one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) seen: Seen,
    /// Resets sent by the load that was asked for; `None` where they cannot be told from others.
    pub(super) sent_by_load: Option<u64>,
}

/// The last of a file, in which the summary is: all of it may be more than memory holds.
pub(super) fn tail(path: &Path) -> Result<String> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Reads the summary at the end of `output`, JSON or text. What the load sent is what its network
/// namespace sent; where some of that was filtered out in the kernel or lost, which has no namespace,
/// it is told from other resets by its ports, in the tally that counts all, if it has ports.
pub(super) fn parse(
    output: &str,
    netns: u32,
    ports: Option<&RangeInclusive<u16>>,
) -> Option<Summary> {
    json(output, netns, ports).or_else(|| text(output, netns, ports))
}

fn json(output: &str, netns: u32, ports: Option<&RangeInclusive<u16>>) -> Option<Summary> {
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with("{\"summary\""))?;
    let value: Value = serde_json::from_str(line).ok()?;
    let summary = &value["summary"];
    let ring_full = summary["lost_detail"]["ring_full"].as_u64()?;
    let sent_by_load = if ring_full + summary["filtered_in_kernel"].as_u64()? > 0 {
        let tally = summary["tally"].as_array()?;
        ports.map(|ports| {
            tally
                .iter()
                .filter(|kind| kind["direction"] == "sent")
                .filter(|kind| ports.clone().any(|port| kind["port"] == port))
                .filter_map(|kind| kind["count"].as_u64())
                .sum()
        })
    } else {
        let namespaces = summary["namespaces"].as_array()?;
        let there = namespaces
            .iter()
            .find(|namespace| namespace["netns"] == netns);
        Some(there.map_or(Some(0), |namespace| namespace["sent_seen"].as_u64())?)
    };
    Some(Summary {
        seen: Seen {
            sent: summary["sent"].as_u64()?,
            received: summary["received"].as_u64()?,
            lost: summary["lost_detail"]["total"].as_u64()?,
        },
        sent_by_load,
    })
}

fn text(output: &str, netns: u32, ports: Option<&RangeInclusive<u16>>) -> Option<Summary> {
    // "12 resets in 1.0 s: 5 sent, 7 received", on a terminal behind all that was drawn.
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let (at, counts) = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let (sent, received) = line.strip_suffix(" received")?.rsplit_once(" sent, ")?;
        let sent = sent.rsplit(' ').next()?;
        Some((at, (sent.parse().ok()?, received.parse().ok()?)))
    })?;
    let lines = &lines[at..];
    let lost = lines.iter().filter_map(|line| {
        line.strip_prefix("lost: ")?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    });
    let sent_by_load = if lines.contains(&TALLY) {
        ports.map(|ports| lines.iter().filter_map(|line| kind_sent(line, ports)).sum())
    } else {
        let there = lines.iter().find_map(|line| namespace_sent(line, netns));
        Some(there.unwrap_or(0))
    };
    Some(Summary {
        seen: Seen {
            sent: counts.0,
            received: counts.1,
            lost: lost.sum(),
        },
        sent_by_load,
    })
}

/// From `  87126  sent      NO_SOCKET, port 2000, no socket`, if it is one of the ports.
fn kind_sent(line: &str, ports: &RangeInclusive<u16>) -> Option<u64> {
    let mut words = line.split_whitespace();
    let count = words.next()?.parse().ok()?;
    let port = line
        .split_once(", port ")?
        .1
        .split(',')
        .next()?
        .parse()
        .ok()?;
    (words.next() == Some("sent") && ports.contains(&port)).then_some(count)
}

/// From `network namespace 7: the kernel counted 5 resets sent, 5 seen: they agree`, with the name in
/// parentheses where it has one; `7: 5 resets seen sent; ...` where the counter could not be read.
fn namespace_sent(line: &str, netns: u32) -> Option<u64> {
    let rest = line
        .strip_prefix(&format!("network namespace {netns}"))
        .filter(|rest| rest.starts_with([':', ' ']))?;
    let (before, _) = rest.split_once(" seen")?;
    before.rsplit(' ').find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(output: &str) -> Option<(u64, u64, u64, u64)> {
        let Summary { seen, sent_by_load } = parse(output, 7, Some(&(9..=10)))?;
        Some((seen.sent, seen.received, seen.lost, sent_by_load?))
    }

    #[test]
    fn json_is_read() {
        let output = |filtered: u32, lost: u32| {
            format!(
                "{{\"time\":1}}\n{{\"summary\":{{\"sent\":9,\"received\":7,\"tally\":[\
                 {{\"direction\":\"received\",\"port\":9,\"count\":7}},\
                 {{\"direction\":\"sent\",\"port\":9,\"count\":3}},\
                 {{\"direction\":\"sent\",\"port\":10,\"count\":1}},\
                 {{\"direction\":\"sent\",\"port\":80,\"count\":5}}],\
                 \"filtered_in_kernel\":{filtered},\
                 \"lost_detail\":{{\"total\":{lost},\"ring_full\":{lost}}},\"namespaces\":[\
                 {{\"netns\":8,\"sent_seen\":1}},{{\"netns\":7,\"sent_seen\":2}}]}}}}\n"
            )
        };
        assert_eq!(told(&output(0, 0)), Some((9, 7, 0, 2)));
        assert_eq!(told(&output(0, 1)), Some((9, 7, 1, 4)));
        assert_eq!(told(&output(6, 0)), Some((9, 7, 0, 4)));
        let without_ports =
            |filtered| parse(&output(filtered, 0), 7, None).and_then(|told| told.sent_by_load);
        assert_eq!(without_ports(0), Some(2));
        assert_eq!(without_ports(6), None);
        assert_eq!(told("{\"time\":1}\n"), None);
    }

    #[test]
    fn text_is_read() {
        let output = "12 resets in 1.0 s: 5 sent, 7 received\r\n12 shown, 0 filtered out\r\n\
                      network namespace 70: the kernel counted 1 reset sent, 1 seen: they agree\r\n\
                      network namespace 7: the kernel counted 4 resets sent, 4 seen: they agree\r\n";
        assert_eq!(told(output), Some((5, 7, 0, 4)));
        assert_eq!(
            told("1 reset in 1.0 s: 1 sent, 0 received\n"),
            Some((1, 0, 0, 0))
        );
        let screen = "\x1b[7m(8 sent, 0 recv)\x1b[?1049l1 reset in 1.0 s: 1 sent, 0 received\r\n";
        assert_eq!(told(screen), Some((1, 0, 0, 0)));
        assert_eq!(told("TIME  DIR\n"), None);
    }

    #[test]
    fn what_was_lost_is_in_the_tally() {
        let output = "12 resets in 1.0 s: 6 sent, 6 received\n9 shown, 0 filtered out\n\
                      all of them, as the kernel counted them:\n\
                      \x20        6  received  from the peer, port 9, SYN_SENT\n\
                      \x20        5  sent      NO_SOCKET, port 9, no socket\n\
                      \x20        1  sent      NO_SOCKET, port 80, no socket\n\
                      lost: 3 resets not shown, because the ring buffer was full\n\
                      network namespace 7: the kernel counted 5 resets sent, 3 seen: 2 missed\n";
        assert_eq!(told(output), Some((6, 6, 3, 5)));
    }

    #[test]
    fn a_namespace_whose_counter_cannot_be_read_has_a_count() {
        let output = "4 resets in 1.0 s: 4 sent, 0 received\n\
                      network namespace 7: 4 resets seen sent; the kernel's counter could not be read\n";
        assert_eq!(told(output), Some((4, 0, 0, 4)));
    }
}
