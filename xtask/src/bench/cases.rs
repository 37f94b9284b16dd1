//! What is measured: each case is a load under a way of tracing it, in so many pairs.

use anyhow::{Result, ensure};

use super::rival::Script;
use crate::load::Load;

/// A load under a way of tracing, in so many pairs of runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) load: Load,
    pub(super) tracing: Tracing,
    pub(super) pairs: usize,
}

/// A way of tracing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracing {
    /// rstwatch, JSON to a file.
    Json,
    /// rstwatch, the table to a file.
    Table,
    /// rstwatch, with a filter that drops everything in the kernel.
    Filtered,
    /// `rstwatch top`, on a terminal.
    Top,
    /// bpftrace with one of its scripts, to a file.
    Bpftrace(Script),
}

use Tracing::{Bpftrace, Filtered, Json, Table, Top};

impl Tracing {
    /// The last part of a case's name.
    const fn name(self) -> &'static str {
        match self {
            Json => "json",
            Table => "table",
            Filtered => "filtered",
            Top => "top",
            Bpftrace(Script::Print) => "bpftrace-print",
            Bpftrace(Script::Count) => "bpftrace-count",
        }
    }

    /// What a person reads.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Json => "rstwatch, JSON to a file",
            Table => "rstwatch, table to a file",
            Filtered => "rstwatch, filtered out in the kernel",
            Top => "rstwatch top",
            Bpftrace(Script::Print) => "bpftrace, every event to a file",
            Bpftrace(Script::Count) => "bpftrace, counting by key",
        }
    }

    /// What rstwatch is given; `None` for another program.
    pub(super) const fn rstwatch_args(self) -> Option<&'static [&'static str]> {
        match self {
            Json => Some(&["-j"]),
            Table => Some(&[]),
            // A port that no load uses, at either end.
            Filtered => Some(&["-j", "-L", "1"]),
            Top => Some(&["top"]),
            Bpftrace(_) => None,
        }
    }
}

impl Case {
    /// Whether the tracer lends its hooks to the load, which attaches and detaches them while it goes on.
    pub(super) fn is_by_turns(&self) -> bool {
        self.tracing.rstwatch_args().is_some()
    }

    /// Whether the tracer's reader has nothing to do: all that there is of it are its hooks.
    pub(super) fn is_hooks_alone(&self) -> bool {
        self.load.resets_each() == 0 || self.tracing == Filtered
    }

    /// The name on the command line and in JSON.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.load.name(), self.tracing.name())
    }
}

const fn case(load: Load, tracing: Tracing, pairs: usize) -> Case {
    Case {
        load,
        tracing,
        pairs,
    }
}

const CASES: [Case; 20] = [
    // What differs least from its budget takes the most pairs to be seen.
    case(Load::Short, Json, 21),
    case(Load::Exchange, Json, 7),
    case(Load::Busy, Json, 7),
    case(Load::Refused, Json, 21),
    case(Load::Refused, Table, 7),
    case(Load::Refused, Filtered, 7),
    case(Load::Refused, Top, 7),
    case(Load::Refused, Bpftrace(Script::Print), 7),
    case(Load::Refused, Bpftrace(Script::Count), 7),
    case(Load::RefusedTwice, Json, 7),
    case(Load::RefusedTwice, Table, 7),
    case(Load::RefusedTwice, Filtered, 7),
    case(Load::RefusedTwice, Top, 7),
    case(Load::RefusedTwice, Bpftrace(Script::Print), 7),
    case(Load::RefusedTwice, Bpftrace(Script::Count), 7),
    case(Load::RawSyn, Json, 7),
    case(Load::RawSyn, Filtered, 7),
    case(Load::RawSyn, Bpftrace(Script::Print), 7),
    case(Load::Unread, Json, 7),
    case(Load::Unread, Bpftrace(Script::Print), 7),
];

/// The cases whose names are among `only`, or all where it is empty; without the rival when it is to
/// be left out. A name that ends in `*` stands for all that begin so.
///
/// # Errors
///
/// When a name stands for no case.
pub(super) fn chosen(only: &[String], with_rival: bool) -> Result<Vec<Case>> {
    for name in only {
        ensure!(
            CASES.iter().any(|case| is_meant(name, &case.name())),
            "there is no case {name}: {}",
            CASES.map(|case| case.name()).join(", ")
        );
    }
    let chosen: Vec<Case> = CASES
        .into_iter()
        .filter(|case| only.is_empty() || only.iter().any(|name| is_meant(name, &case.name())))
        .filter(|case| with_rival || case.tracing.rstwatch_args().is_some())
        .collect();
    ensure!(
        !chosen.is_empty(),
        "without bpftrace, no case is left to be measured"
    );
    Ok(chosen)
}

fn is_meant(name: &str, case: &str) -> bool {
    name.strip_suffix('*')
        .map_or(name == case, |begin| case.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(only: &[&str], with_rival: bool) -> Vec<String> {
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        let chosen = chosen(&only, with_rival).expect("cases of these names");
        chosen.iter().map(Case::name).collect()
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let different: HashSet<String> = CASES.iter().map(Case::name).collect();
        assert_eq!(different.len(), CASES.len());
    }

    #[test]
    fn cases_are_chosen_by_name() {
        assert_eq!(names(&[], true).len(), CASES.len());
        assert_eq!(names(&["refused-json"], true), ["refused-json"]);
        assert_eq!(
            names(&["raw-syn*", "short-json"], true),
            [
                "short-json",
                "raw-syn-json",
                "raw-syn-filtered",
                "raw-syn-bpftrace-print"
            ]
        );
        assert_eq!(
            names(&["raw-syn*"], false),
            ["raw-syn-json", "raw-syn-filtered"]
        );
    }

    #[test]
    fn what_is_no_case_is_refused() {
        let error = chosen(&["refused".to_owned()], true).expect_err("it is only a beginning");
        assert!(error.to_string().contains("refused-json"), "{error}");
        assert!(chosen(&["refused-bpftrace*".to_owned()], false).is_err());
    }
}
