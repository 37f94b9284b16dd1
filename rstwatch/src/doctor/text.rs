//! The report as text for a person: what is well in a line each, what is not with its cost, and at the
//! end what it comes to.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::report::{Report, Verdict};

/// How the text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// With colour.
    pub colour: bool,
}

/// Columns of the names.
const NAME: usize = 26;

impl Report {
    /// As text.
    pub fn text(&self, look: Look) -> String {
        let mut page = Page {
            look,
            out: String::new(),
        };
        let _ = writeln!(
            page.out,
            "rstwatch {} on Linux {} ({})",
            self.version, self.kernel, self.machine
        );
        page.heading("Host");
        for check in &self.checks {
            page.row(check.verdict, check.name, &check.found);
            page.without(check.cost.as_deref());
            page.note("remedy", check.remedy);
        }
        if !self.hooks.is_empty() {
            page.heading("Hooks");
        }
        for hook in &self.hooks {
            let means = hook.means.as_deref().unwrap_or("not attached");
            page.row(hook.verdict, hook.name, means);
            page.note("refused", hook.refusal.as_deref());
            page.without(hook.cost);
        }
        if !self.fields.is_empty() {
            page.heading("Fields of kernel structures");
            let found = self.fields.iter().filter(|field| field.found).count();
            let all = self.fields.len();
            page.row(Verdict::Ok, "found", &format!("{found} of {all}"));
        }
        for field in self.fields.iter().filter(|field| !field.found) {
            let name = format!("{}.{}", field.structure, field.member);
            let why = field.why.as_deref().unwrap_or_default();
            if field.cost.is_some() {
                page.row(Verdict::Less, &name, why);
                page.without(field.cost);
            } else {
                page.row(
                    Verdict::Ok,
                    &name,
                    &format!("{why}; nothing is lost by that"),
                );
            }
        }
        page.heading(self.conclusion());
        page.out
    }

    /// What it comes to, in a sentence.
    fn conclusion(&self) -> &'static str {
        let less = self
            .checks
            .iter()
            .any(|check| check.verdict == Verdict::Less)
            || self.hooks.iter().any(|hook| hook.verdict == Verdict::Less)
            || self.fields.iter().any(|field| field.cost.is_some());
        match (self.works, less) {
            (true, false) => "rstwatch works here, and nothing is missing.",
            (true, true) => "rstwatch works here; what is marked `less` is not known.",
            (false, _) => "rstwatch does not work here: see what is marked `broken`.",
        }
    }
}

struct Page {
    look: Look,
    out: String,
}

impl Page {
    fn heading(&mut self, text: &str) {
        let text = self.styled(Style::new().bold(), text);
        let _ = writeln!(self.out, "\n{text}");
    }

    fn row(&mut self, verdict: Verdict, name: &str, found: &str) {
        let (word, colour) = match verdict {
            Verdict::Ok => ("ok    ", AnsiColor::Green),
            Verdict::Less => ("less  ", AnsiColor::Yellow),
            Verdict::Broken => ("broken", AnsiColor::Red),
        };
        let word = self.styled(colour.on_default(), word);
        let _ = writeln!(self.out, "  {word}  {name:NAME$} {found}");
    }

    /// What something costs, which reads as "without: ...".
    fn without(&mut self, cost: Option<&str>) {
        self.note("cost", cost);
    }

    fn note(&mut self, what: &str, text: Option<&str>) {
        if let Some(text) = text {
            let _ = writeln!(self.out, "          {:NAME$} {what}: {text}", "");
        }
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.look.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_changes_no_word() {
        let page = |colour| {
            let mut page = Page {
                look: Look { colour },
                out: String::new(),
            };
            page.row(Verdict::Broken, "btf", "not found");
            page.heading("End");
            page.out
        };
        assert_eq!(
            page(false),
            "  broken  btf                        not found\n\nEnd\n"
        );
        assert!(page(true).contains("\u{1b}[31mbroken\u{1b}[0m  btf"));
    }
}
