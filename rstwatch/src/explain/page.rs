//! Topics as text for a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use textwrap::Options;

use super::{causes_of_reason, causes_of_symptom, find::Topic};
use crate::{
    cause::{
        CauseId,
        catalogue::{
            ENTRIES, Entry, Sees,
            firewall::{WORDS, Word},
            myth::{MYTHS, Myth},
            reason::Note,
            symptom::{Description, Line, SYMPTOMS},
        },
    },
    event::Direction,
};

/// How a page is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// With colour.
    pub colour: bool,
    /// Columns at the most.
    pub width: usize,
}

/// The list of all that can be explained.
pub(super) fn list(look: Look) -> String {
    let mut page = Page::new(look);
    page.heading("Resets that this host sends");
    page.causes(of_direction(Direction::Sent));
    page.heading("Resets that this host receives");
    page.causes(of_direction(Direction::Received));
    page.heading("What programs see");
    page.table(
        SYMPTOMS
            .iter()
            .map(|symptom| (symptom.name, symptom.message)),
    );
    page.heading("What does not send a reset, although it is said to");
    page.table(MYTHS.iter().map(|myth| (myth.name, myth.title)));
    page.heading("Words of firewalls");
    let words: Vec<_> = WORDS.iter().map(|word| word.word).collect();
    page.text(2, &words.join(", "));
    page.heading("More");
    page.text(
        2,
        "rstwatch explain ID | REASON | ERRNO | TEXT: a cause of this list, a reason of the kernel \
         (TCP_ABORT_ON_CLOSE), an error (ECONNRESET, 104), or any text from a log.",
    );
    page.out
}

/// The first topic in full, the others by their names.
pub(super) fn topics(topics: &[Topic], look: Look) -> String {
    let mut page = Page::new(look);
    if let Some((first, others)) = topics.split_first() {
        match first {
            Topic::Cause(entry) => page.cause(entry),
            Topic::Symptom(description) => page.symptom(description),
            Topic::Reason(note) => page.reason(note),
            Topic::Myth(myth) => page.myth(myth),
            Topic::Word(word) => page.word(word),
        }
        if !others.is_empty() {
            page.heading("Also found");
            page.table(others.iter().map(|topic| (topic.name(), kind(*topic))));
        }
    }
    page.out
}

/// What a topic is, or its title.
const fn kind(topic: Topic) -> &'static str {
    match topic {
        Topic::Cause(entry) => entry.title,
        Topic::Symptom(description) => description.message,
        Topic::Reason(_) => "a reason of the kernel",
        Topic::Myth(myth) => myth.title,
        Topic::Word(_) => "a word of firewalls",
    }
}

/// The causes of a direction; those of both stand with the received ones, at the end.
fn of_direction(direction: Direction) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| match direction {
        Direction::Sent => !entry.directions.contains(&Direction::Received),
        Direction::Received => entry.directions.contains(&Direction::Received),
    })
}

const NAME: Style = AnsiColor::Cyan.on_default().bold();
const HEADING: Style = Style::new().bold();
const COMMAND: Style = AnsiColor::Green.on_default();

struct Page {
    out: String,
    look: Look,
}

impl Page {
    const fn new(look: Look) -> Self {
        Self {
            out: String::new(),
            look,
        }
    }

    fn cause(&mut self, entry: &Entry) {
        let directions: Vec<_> = entry.directions.iter().map(|d| d.name()).collect();
        self.title(entry.name, &directions.join(" or "), entry.title);
        self.heading("What happened");
        self.text(2, entry.happened);
        self.sees("What the process on this host sees", entry.here);
        self.sees("What the other end sees", entry.there);
        self.heading("Logs of proxies");
        for line in entry.logs {
            self.line(line);
        }
        self.heading("What to check");
        for (i, check) in entry.checks.iter().enumerate() {
            self.item(&format!("{}.", i + 1), check.say);
            self.command(check.command);
        }
        self.heading("In the kernel");
        self.table([("function", entry.function)]);
        let or_none = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        self.table([("reason", or_none(entry.reasons).as_str())]);
        self.table([("counted in", or_none(entry.counters).as_str())]);
        self.heading("How sure it is");
        for certainty in entry.certainty {
            let since = match certainty.since.as_bytes() {
                [b'0'..=b'9', ..] => format!("from Linux {}: {}", certainty.since, certainty.needs),
                b"none" => format!("on no kernel: {}", certainty.needs),
                _ => format!("on {}: {}", certainty.since, certainty.needs),
            };
            self.table([(certainty.confidence.name(), since.as_str())]);
        }
        self.see_also(entry.related);
    }

    fn symptom(&mut self, description: &Description) {
        let number = description
            .number
            .map_or_else(|| "no error number".to_owned(), |number| number.to_string());
        self.title(description.name, &number, description.message);
        self.heading("What it means");
        self.text(2, description.means);
        self.heading("What programs say");
        for line in description.lines {
            self.line(line);
        }
        let [here, there] = causes_of_symptom(description.symptom);
        if !here.is_empty() {
            self.heading("Causes, when a process on this host sees it");
            self.causes(here.into_iter());
        }
        if !there.is_empty() {
            self.heading("Causes on the other host, when it runs rstwatch");
            self.causes(there.into_iter());
        }
    }

    fn reason(&mut self, note: &Note) {
        let since = format!("since Linux {}", note.since);
        self.title(note.name, &since, "a reason of the kernel for a reset");
        self.heading("What it says");
        self.text(2, note.means);
        self.heading("Causes");
        self.causes(causes_of_reason(note));
    }

    fn myth(&mut self, myth: &Myth) {
        self.title(myth.name, "not so", myth.title);
        self.heading("What happens");
        self.text(2, myth.happens);
        self.heading("What to check");
        self.text(2, myth.check);
        self.heading("In the kernel");
        self.table([("function", myth.function)]);
        self.table([("counted in", myth.counters.join(", ").as_str())]);
        self.see_also(myth.related);
    }

    fn word(&mut self, word: &Word) {
        self.title(
            word.word,
            "firewall",
            "how a firewall says that a connection ended",
        );
        self.heading("What it means");
        self.text(2, word.means);
        self.see_also(word.related);
    }

    fn title(&mut self, name: &str, note: &str, title: &str) {
        self.styled(NAME, name);
        let _ = writeln!(self.out, " ({note})");
        self.text(0, title);
    }

    fn heading(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.styled(HEADING, text);
        self.out.push('\n');
    }

    fn sees(&mut self, heading: &str, sees: Sees) {
        self.heading(heading);
        let names: Vec<_> = sees
            .symptoms
            .iter()
            .map(|symptom| symptom.description().name)
            .collect();
        if names.is_empty() {
            self.text(2, sees.text);
            return;
        }
        self.text(2, &format!("{}. {}", names.join(" or "), sees.text));
        // The usual error in full: the others have pages of their own.
        if let Some(symptom) = sees.symptoms.first() {
            for line in symptom.description().lines {
                if !matches!(line.program, "nginx" | "HAProxy") {
                    self.line(line);
                }
            }
        }
    }

    fn see_also(&mut self, related: &[CauseId]) {
        self.heading("See also");
        self.causes(related.iter().map(|id| &ENTRIES[*id as usize]));
    }

    fn causes<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        self.table(entries.map(|entry| (entry.name, entry.title)));
    }

    /// What a program says, and when.
    fn line(&mut self, line: &Line) {
        let text = format!("{}: {} ({})", line.program, line.text, line.when);
        self.wrapped(&text, "  ", "      ");
    }

    /// Rows of a name and a text, which begins at the same column in all that fit.
    fn table<'a>(&mut self, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
        /// Where the text begins: after the longest cause.
        const COLUMN: usize = 26;
        for (name, text) in rows {
            let column = COLUMN.min(self.look.width / 3);
            let (first, rest) = if 2 + name.len() < column {
                (
                    format!("{}{text}", " ".repeat(column - 2 - name.len())),
                    column,
                )
            } else {
                (format!(" {text}"), column)
            };
            // Wrapped with the name in front, so that the first line is as long as the others.
            let whole = format!("  {name}{first}");
            let indent = " ".repeat(rest);
            let options = Options::new(self.look.width).subsequent_indent(&indent);
            let wrapped = textwrap::fill(&whole, options);
            let mut lines = wrapped.lines();
            if let Some(line) = lines.next() {
                self.out.push_str("  ");
                match line
                    .strip_prefix("  ")
                    .and_then(|line| line.strip_prefix(name))
                {
                    Some(text) => {
                        self.styled(NAME, name);
                        self.out.push_str(text);
                    }
                    None => self.out.push_str(line.trim_start()),
                }
                self.out.push('\n');
            }
            for line in lines {
                self.out.push_str(line);
                self.out.push('\n');
            }
        }
    }

    fn item(&mut self, mark: &str, text: &str) {
        let first = format!("  {mark} ");
        let rest = " ".repeat(first.len());
        self.wrapped(text, &first, &rest);
    }

    /// A command as it stands: it is to be copied.
    fn command(&mut self, command: &str) {
        self.out.push_str("     ");
        self.styled(COMMAND, command);
        self.out.push('\n');
    }

    fn text(&mut self, indent: usize, text: &str) {
        let indent = " ".repeat(indent);
        self.wrapped(text, &indent, &indent);
    }

    fn wrapped(&mut self, text: &str, first: &str, rest: &str) {
        let options = Options::new(self.look.width)
            .initial_indent(first)
            .subsequent_indent(rest);
        self.out.push_str(&textwrap::fill(text, options));
        self.out.push('\n');
    }

    fn styled(&mut self, style: Style, text: &str) {
        if self.look.colour {
            // A String takes all that is written.
            let _ = write!(self.out, "{style}{text}{style:#}");
        } else {
            self.out.push_str(text);
        }
    }
}
