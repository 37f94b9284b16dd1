//! From what the suite printed in each kernel to tables, and to what is wrong. No I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    release::Release,
    suite::{Done, steps},
};
use crate::markdown;

/// Causes that no kernel makes visible without a look at the wire, or that are none.
const NEED_THE_WIRE: [&str; 3] = ["firewall-reject", "forged-reset", "unknown"];

/// Causes that an old kernel may lack the means for.
const MAY_LACK: [&str; 1] = ["mptcp"];

/// The first release that gives a reason for every reset; from there on all must be right.
const NAMES_REASONS: &str = "6.12";

/// A kernel, and what the suite did in it.
pub(super) struct Column {
    /// The kernel's version.
    pub(super) kernel: String,
    /// Whether the tests were to be run.
    pub(super) tests: bool,
    /// The steps that were begun, or why the machine came to no end.
    pub(super) steps: Result<Vec<Done>, String>,
}

/// A BPF program as the doctor reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) name: String,
    /// Instructions that the verifier went through.
    pub(super) count: Option<u64>,
    /// Why it was not loaded or attached.
    pub(super) error: Option<String>,
}

impl Column {
    fn step(&self, name: &str) -> Option<&Done> {
        self.steps
            .as_ref()
            .ok()?
            .iter()
            .find(|done| done.name == name)
    }

    fn objects(&self, step: &str) -> Vec<Value> {
        self.step(step)
            .map(|done| done.objects().collect())
            .unwrap_or_default()
    }

    /// The selftest's row of a cause.
    fn row(&self, cause: &str) -> Option<Value> {
        self.objects("selftest")
            .into_iter()
            .find(|row| row["cause"] == cause)
    }

    /// The selftest's causes.
    fn causes(&self) -> Vec<String> {
        let rows = self.objects("selftest");
        rows.iter()
            .filter_map(|row| Some(row["cause"].as_str()?.to_owned()))
            .collect()
    }

    /// The programs that the doctor loaded and attached, or tried to.
    pub(super) fn programs(&self) -> Vec<Program> {
        let mut programs = Vec::new();
        for report in self.objects("doctor") {
            for program in report["doctor"]["programs"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let works = program["loaded"] == true && program["attached"] == true;
                let why = program["error"].as_str().unwrap_or("it does not say why");
                programs.push(Program {
                    name: program["name"].as_str().unwrap_or_default().to_owned(),
                    count: program["verified_insns"].as_u64(),
                    error: (!works).then(|| why.to_owned()),
                });
            }
        }
        programs
    }

    /// What is wrong in this kernel, a sentence each.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let steps_done = match &self.steps {
            Ok(done) => done,
            Err(why) => return vec![format!("{}: {why}", self.kernel)],
        };
        let mut say = |text: String| faults.push(format!("{}: {text}", self.kernel));
        for name in steps(self.tests) {
            match steps_done.iter().find(|done| done.name == name) {
                Some(done) if done.is_well() => {}
                Some(done) => say(format!("{name}: {}", done.summary())),
                None => say(format!("{name} was not begun")),
            }
        }
        let causes = self.causes();
        if causes.is_empty() {
            say("the selftest names no cause".to_owned());
        }
        for cause in causes {
            if let Some(why) = self.judge(&cause) {
                say(format!("{cause}: {why}"));
            }
        }
        let programs = self.programs();
        if programs.is_empty() {
            say("the doctor names no BPF program".to_owned());
        }
        for Program { name, error, .. } in programs {
            if let Some(error) = error {
                say(format!("{name} was refused: {error}"));
            }
        }
        faults
    }

    /// Why the cause is not as it must be in this kernel.
    fn judge(&self, cause: &str) -> Option<String> {
        let row = self.row(cause)?;
        let tells_all = Release::parse(&self.kernel) >= Release::parse(NAMES_REASONS);
        let verdict = row["verdict"].as_str().unwrap_or_default();
        let is_well = match verdict {
            "right" => true,
            "right-less-sure" => !tells_all,
            "cannot" => NEED_THE_WIRE.contains(&cause) || (!tells_all && MAY_LACK.contains(&cause)),
            _ => false,
        };
        let wrong_owners = row["owner"]["wrong"].as_u64();
        if is_well && wrong_owners == Some(0) {
            return None;
        }
        let notes = row["notes"].as_array().into_iter().flatten();
        let notes: Vec<_> = notes.filter_map(Value::as_str).take(2).collect();
        Some(format!("{verdict} ({})", notes.join("; ")))
    }
}

/// All tables, as Markdown.
pub(super) fn tables(columns: &[Column]) -> String {
    let causes: Vec<String> = columns
        .iter()
        .max_by_key(|column| column.causes().len())
        .map(Column::causes)
        .unwrap_or_default();
    let programs: BTreeSet<String> = columns
        .iter()
        .flat_map(Column::programs)
        .map(|program| program.name)
        .collect();
    let mut out = String::new();
    let tests = columns.iter().any(|column| column.tests);
    table(&mut out, "step", columns, steps(tests), |column, step| {
        column.step(step).map(Done::summary)
    });
    let causes = || causes.iter().map(String::as_str);
    table(&mut out, "cause", columns, causes(), |column, cause| {
        let row = column.row(cause)?;
        Some(verdict(row["verdict"].as_str()?).to_owned())
    });
    table(&mut out, "owner", columns, causes(), |column, cause| {
        Some(owners(&column.row(cause)?["owner"]))
    });
    let programs = programs.iter().map(String::as_str);
    table(
        &mut out,
        "instructions",
        columns,
        programs,
        |column, name| {
            let programs = column.programs();
            let program = programs.into_iter().find(|program| program.name == name)?;
            Some(match (program.error, program.count) {
                (Some(_), _) => "REFUSED".to_owned(),
                (None, Some(count)) => count.to_string(),
                (None, None) => "loaded".to_owned(),
            })
        },
    );
    out
}

/// A verdict of the selftest, for people.
fn verdict(name: &str) -> &str {
    match name {
        "right" => "right",
        "right-less-sure" => "right, less sure",
        "cannot" => "cannot be made",
        _ => "WRONG",
    }
}

/// Owners named rightly; those that are rightly none; wrong ones, when there are any.
fn owners(owner: &Value) -> String {
    let count = |name: &str| owner[name].as_u64().unwrap_or(0);
    let mut words = Vec::new();
    for (name, word) in [("right", "right"), ("none", "none"), ("wrong", "WRONG")] {
        match count(name) {
            0 => {}
            count => words.push(format!("{count} {word}")),
        }
    }
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}

/// A table with a line for each of `rows` and a column for each kernel; `-` where there is nothing.
fn table<'r>(
    out: &mut String,
    title: &str,
    columns: &[Column],
    rows: impl Iterator<Item = &'r str>,
    cell: impl Fn(&Column, &str) -> Option<String>,
) {
    let mut lines = vec![vec![title.to_owned()]];
    lines[0].extend(columns.iter().map(|column| series(&column.kernel)));
    for row in rows {
        let mut line = vec![row.to_owned()];
        let cells = columns.iter().map(|column| cell(column, row));
        line.extend(cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())));
        lines.push(line);
    }
    markdown::table(out, &lines);
    out.push('\n');
}

/// A kernel's version without its package's: `5.10.262`.
fn series(kernel: &str) -> String {
    let end = kernel.find(['-', '+', '~']).unwrap_or(kernel.len());
    kernel[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kernel: &str, rows: &[(&str, &str, u64)], program: &str) -> Column {
        let lines = rows
            .iter()
            .map(|(cause, verdict, wrong)| {
                format!(
                    "{{\"cause\":\"{cause}\",\"verdict\":\"{verdict}\",\"notes\":[\"why\"],\
                     \"owner\":{{\"right\":2,\"none\":0,\"wrong\":{wrong}}}}}"
                )
            })
            .collect();
        let mut done: Vec<Done> = steps(true)
            .map(|name| Done {
                name: name.to_owned(),
                status: Some(0),
                lines: Vec::new(),
            })
            .collect();
        step(&mut done, "doctor").lines =
            vec![format!("{{\"doctor\":{{\"programs\":[{program}]}}}}")];
        step(&mut done, "selftest").lines = lines;
        Column {
            kernel: kernel.to_owned(),
            tests: true,
            steps: Ok(done),
        }
    }

    fn step<'d>(done: &'d mut [Done], name: &str) -> &'d mut Done {
        done.iter_mut()
            .find(|done| done.name == name)
            .expect("a step of the suite")
    }

    const LOADED: &str =
        r#"{"name":"btf_x","loaded":true,"attached":true,"verified_insns":40,"error":null}"#;
    const REFUSED: &str =
        r#"{"name":"btf_x","loaded":false,"attached":false,"verified_insns":null,"error":"EPERM"}"#;

    #[test]
    fn less_sure_is_enough_on_old_kernels_only() {
        let rows = [
            ("linger-abort", "right-less-sure", 0),
            ("mptcp", "cannot", 0),
            ("unknown", "cannot", 0),
        ];
        assert_eq!(column("5.10.262-1", &rows, LOADED).faults(), [""; 0]);
        assert_eq!(
            column("6.12.117-1", &rows, LOADED).faults(),
            [
                "6.12.117-1: linger-abort: right-less-sure (why)",
                "6.12.117-1: mptcp: cannot (why)"
            ]
        );
    }

    #[test]
    fn a_wrong_owner_is_a_fault_and_so_are_a_refused_program_and_a_missing_step() {
        let mut column = column("6.1.192-2", &[("refused", "right", 1)], REFUSED);
        if let Ok(done) = &mut column.steps {
            done.pop();
            step(done, "integration").status = Some(101);
        }
        assert_eq!(
            column.faults(),
            [
                "6.1.192-2: integration: EXIT STATUS 101",
                "6.1.192-2: leftovers was not begun",
                "6.1.192-2: refused: right (why)",
                "6.1.192-2: btf_x was refused: EPERM",
            ]
        );
    }

    #[test]
    fn a_selftest_that_says_nothing_is_a_fault() {
        assert_eq!(
            column("7.2.13-1", &[], LOADED).faults(),
            ["7.2.13-1: the selftest names no cause"]
        );
    }

    #[test]
    fn the_tables_have_a_column_for_each_kernel() {
        let rows = [("refused", "right", 0), ("mptcp", "cannot", 0)];
        let text = tables(&[
            column("5.10.262-1", &rows, LOADED),
            column("7.3.4-1~bpo13+1", &rows[..1], REFUSED),
        ]);
        let expected = "| cause   | 5.10.262       | 7.3.4 |\n\
                        |---------|----------------|-------|\n\
                        | refused | right          | right |\n\
                        | mptcp   | cannot be made | -     |\n";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("| btf_x        | 40       | REFUSED |"),
            "{text}"
        );
    }
}
