//! What each BPF program costs the verifier of each kernel, against what is on record.
//!
//! A program near the verifier's limit is refused by the next kernel that counts in another way; long
//! before that it takes seconds to load. So growth is noticed when it happens.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{matrix::Column, release::Release};
use crate::project;

/// By how many percent a count may exceed the one on record.
const TOLERANCE: u64 = 20;

/// The head of the file.
const HEAD: &str = "# Instructions that the kernel's verifier goes through for each BPF program, by kernel release.\n\
                    # `cargo xtask vm` fails when one grows by more than 20 %; `cargo xtask vm --bless` writes\n\
                    # what it measures here.\n";

/// The counts by kernel release (major and minor) and program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record(BTreeMap<(Release, String), Counts>);

/// By program.
type Counts = BTreeMap<String, u64>;

fn path() -> PathBuf {
    project::root().join("docs/verifier-counts.tsv")
}

impl Record {
    /// Reads the record.
    pub(super) fn read() -> Result<Self> {
        let path = path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The record, or none where there is none yet.
    pub(super) fn read_or_empty() -> Result<Self> {
        if path().exists() {
            Self::read()
        } else {
            Ok(Self::default())
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split('\t');
            let (release, program) = (words.next()?, words.next()?);
            let count = words.next()?.parse().ok()?;
            record.set(release, program, count);
        }
        Some(record)
    }

    fn set(&mut self, release: &str, program: &str, count: u64) {
        let key = (Release::parse(release), release.to_owned());
        let counts = self.0.entry(key).or_default();
        counts.insert(program.to_owned(), count);
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((_, release), counts) in &self.0 {
            for (program, count) in counts {
                let _ = writeln!(text, "{release}\t{program}\t{count}");
            }
        }
        text
    }

    /// Replaces what is on record of the kernels in `columns`, and writes it.
    pub(super) fn bless(&mut self, columns: &[Column]) -> Result<()> {
        for column in columns {
            let release = series(&column.kernel);
            self.0.remove(&(Release::parse(&release), release.clone()));
            for program in column.programs() {
                if let Some(count) = program.count {
                    self.set(&release, &program.name, count);
                }
            }
        }
        let path = path();
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What has grown too much in `column`, or is not on record, a sentence each.
    pub(super) fn faults(&self, column: &Column) -> Vec<String> {
        let release = series(&column.kernel);
        let Some((known, counts)) = self.nearest(&release) else {
            return vec![format!("{release}: no count is on record: {ADVICE}")];
        };
        let mut faults = Vec::new();
        for program in column.programs() {
            let name = &program.name;
            // That it was refused is said elsewhere.
            let Some(count) = program.count else {
                if program.error.is_none() {
                    faults.push(format!("{release}: the kernel tells no count of {name}"));
                }
                continue;
            };
            match counts.get(name) {
                None => faults.push(format!("{release}: {name} is not on record: {ADVICE}")),
                Some(&before) if count * 100 > before * (100 + TOLERANCE) => faults.push(format!(
                    "{release}: the verifier goes through {count} instructions for {name}, {} % more \
                     than the {before} on record for {known}: make it simpler, or {ADVICE}",
                    count * 100 / before.max(1) - 100,
                )),
                Some(_) => {}
            }
        }
        faults
    }

    /// The counts for `release`, or, for one that is not on record, those of the newest before it.
    fn nearest(&self, release: &str) -> Option<(&str, &Counts)> {
        let key = (Release::parse(release), release.to_owned());
        let ((_, known), counts) = self.0.range(..=key).next_back()?;
        Some((known, counts))
    }
}

/// How to accept what was measured.
const ADVICE: &str = "accept it with `cargo xtask vm --bless`";

/// Major and minor: `5.10`.
fn series(kernel: &str) -> String {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::suite::Done;

    fn column(kernel: &str, count: &str) -> Column {
        let line = format!(
            "{{\"doctor\":{{\"programs\":[{{\"name\":\"btf_x\",\"loaded\":true,\"attached\":true,\
             \"verified_insns\":{count},\"error\":null}}]}}}}"
        );
        Column {
            kernel: kernel.to_owned(),
            tests: false,
            steps: Ok(vec![Done {
                name: "doctor".to_owned(),
                status: Some(0),
                lines: vec![line],
            }]),
        }
    }

    fn faults(kernel: &str, count: &str) -> Vec<String> {
        let record = Record::parse("# Head\n5.10\tbtf_x\t1000\n6.12\tbtf_x\t500\n");
        record.expect("a record").faults(&column(kernel, count))
    }

    #[test]
    fn growth_within_the_tolerance_is_none() {
        assert_eq!(faults("5.10.262-1", "1200"), [""; 0]);
        assert_eq!(faults("6.12.117-1", "3"), [""; 0]);
    }

    #[test]
    fn growth_beyond_it_names_program_and_kernel() {
        let found = faults("5.10.262-1", "1500");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(
                "5.10: the verifier goes through 1500 instructions for btf_x, 50 % more than the \
                 1000 on record for 5.10"
            ),
            "{found:?}"
        );
    }

    #[test]
    fn a_kernel_without_a_record_is_held_to_the_one_before() {
        assert_eq!(faults("6.18.15-1", "600"), [""; 0]);
        let found = faults("7.3.4-1", "601");
        assert!(found[0].contains("on record for 6.12"), "{found:?}");
        assert!(faults("5.4.1-1", "1")[0].contains("no count is on record"));
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_a_fault() {
        assert_eq!(
            faults("6.12.117-1", "null"),
            ["6.12: the kernel tells no count of btf_x"]
        );
    }

    #[test]
    fn the_record_reads_as_it_was_written() {
        let mut record = Record::default();
        record.set("6.1", "btf_x", 7);
        record.set("5.10", "btf_x", 9);
        let text = record.text();
        assert!(text.ends_with("5.10\tbtf_x\t9\n6.1\tbtf_x\t7\n"), "{text}");
        assert_eq!(Record::parse(&text), Some(record));
        assert_eq!(Record::parse("6.1\tbtf_x\n"), None);
    }
}
