//! The summary at the end of rstwatch's output, in either of its forms.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::outcome::Seen;

/// How far from the end of the output the summary begins, at most.
const TAIL: u64 = 1 << 20;

/// What rstwatch saw in all, and in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) seen: Seen,
    /// Resets sent from the namespace that was asked for.
    pub(super) sent_there: u64,
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

/// Reads the summary at the end of `output`, JSON or text, for the network namespace `netns`.
pub(super) fn parse(output: &str, netns: u32) -> Option<Summary> {
    json(output, netns).or_else(|| text(output, netns))
}

fn json(output: &str, netns: u32) -> Option<Summary> {
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with("{\"summary\""))?;
    let value: Value = serde_json::from_str(line).ok()?;
    let summary = &value["summary"];
    let there = summary["namespaces"]
        .as_array()?
        .iter()
        .find(|namespace| namespace["netns"] == netns);
    Some(Summary {
        seen: Seen {
            sent: summary["sent"].as_u64()?,
            received: summary["received"].as_u64()?,
            lost: summary["lost_detail"]["total"].as_u64()?,
        },
        sent_there: there.map_or(Some(0), |namespace| namespace["sent_seen"].as_u64())?,
    })
}

fn text(output: &str, netns: u32) -> Option<Summary> {
    // "12 resets in 1.0 s: 5 sent, 7 received"
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let (at, counts) = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let (sent, received) = line.strip_suffix(" received")?.split_once(" sent, ")?;
        let sent = sent.rsplit(' ').next()?;
        Some((at, (sent.parse().ok()?, received.parse().ok()?)))
    })?;
    let lost = lines[at..].iter().filter_map(|line| {
        line.strip_prefix("lost: ")?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    });
    // "network namespace 7: the kernel counted 5 resets sent, 5 seen: they agree", with the name in
    // parentheses where it has one; where the counter could not be read: "5 resets seen sent".
    let prefix = format!("network namespace {netns}");
    let there = lines[at..].iter().find_map(|line| {
        let rest = line
            .strip_prefix(&prefix)
            .filter(|rest| rest.starts_with([':', ' ']))?;
        let (before, _) = rest.split_once(" seen")?;
        let word = |word: &str| word.parse().ok();
        before.rsplit([' ', '(']).find_map(word)
    });
    Some(Summary {
        seen: Seen {
            sent: counts.0,
            received: counts.1,
            lost: lost.sum(),
        },
        sent_there: there.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(output: &str) -> Option<(u64, u64, u64, u64)> {
        let Summary { seen, sent_there } = parse(output, 7)?;
        Some((seen.sent, seen.received, seen.lost, sent_there))
    }

    #[test]
    fn json_is_read() {
        let output = "{\"time\":1}\n{\"summary\":{\"sent\":5,\"received\":7,\
                      \"lost_detail\":{\"total\":1,\"ring_full\":1},\"namespaces\":[\
                      {\"netns\":8,\"sent_seen\":1},{\"netns\":7,\"sent_seen\":4}]}}\n";
        assert_eq!(told(output), Some((5, 7, 1, 4)));
        assert_eq!(told("{\"time\":1}\n"), None);
    }

    #[test]
    fn text_is_read() {
        let output = "12 resets in 1.0 s: 5 sent, 7 received\r\n12 shown, 0 filtered out\r\n\
                      lost: 3 resets not shown, because the ring buffer was full\r\n\
                      network namespace 70: the kernel counted 1 reset sent, 1 seen: they agree\r\n\
                      network namespace 7: the kernel counted 4 resets sent, 4 seen: they agree\r\n";
        assert_eq!(told(output), Some((5, 7, 3, 4)));
        assert_eq!(
            told("1 reset in 1.0 s: 1 sent, 0 received\n"),
            Some((1, 0, 0, 0))
        );
        assert_eq!(told("TIME  DIR\n"), None);
    }

    #[test]
    fn a_namespace_whose_counter_cannot_be_read_has_a_count() {
        let output = "4 resets in 1.0 s: 4 sent, 0 received\n\
                      network namespace 7: 4 resets seen sent; the kernel's counter could not be read\n";
        assert_eq!(told(output), Some((4, 0, 0, 4)));
    }
}
