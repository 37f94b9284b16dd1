//! The whole catalogue as `docs/CAUSES.md`.

use std::fmt::{self, Write};

use super::{causes_of_reason, causes_of_symptom};
use crate::{
    cause::{
        CauseId,
        catalogue::{
            ENTRIES, Entry, Sees,
            firewall::WORDS,
            myth::MYTHS,
            reason::REASONS,
            symptom::{Line, SYMPTOMS},
        },
        idle::{LIMITS, TOLERANCE_PERCENT},
    },
    event::Direction,
};

const HEAD: &str = "\
# The causes of TCP resets

<!-- Written from the catalogue in rstwatch/src/cause/catalogue; do not edit. To write it anew:
     RSTWATCH_BLESS=1 cargo test -p rstwatch causes_md -->

`rstwatch explain` shows the same on a terminal. \"This host\" is the one that runs rstwatch. A verdict
is *certain* when no other cause can look the same, *likely* when one could, and *possible* when the
evidence merely allows it.
";

/// The document.
///
/// # Errors
///
/// Never: a `String` takes all that is written. The result is that of [`Write`].
pub fn document() -> Result<String, fmt::Error> {
    let mut out = String::from(HEAD);
    overview(&mut out, "Resets that this host sends", |entry| {
        !entry.directions.contains(&Direction::Received)
    })?;
    overview(&mut out, "Resets that this host receives", |entry| {
        entry.directions.contains(&Direction::Received)
    })?;
    for entry in &ENTRIES {
        cause(&mut out, entry)?;
    }
    symptoms(&mut out)?;
    myths(&mut out)?;
    idle_limits(&mut out)?;
    reasons(&mut out)?;
    firewall(&mut out)?;
    Ok(out)
}

fn overview(out: &mut String, title: &str, of: fn(&Entry) -> bool) -> fmt::Result {
    writeln!(out, "\n## {title}\n\n| cause | what happened |\n|---|---|")?;
    for entry in ENTRIES.iter().filter(|entry| of(entry)) {
        writeln!(out, "| {} | {} |", link(entry), prose(entry.title))?;
    }
    Ok(())
}

fn cause(out: &mut String, entry: &Entry) -> fmt::Result {
    let Entry { name, title, .. } = entry;
    let directions: Vec<_> = entry.directions.iter().map(|d| d.name()).collect();
    writeln!(
        out,
        "\n## {name}\n\n*{}: {}.*\n\n{}\n",
        directions.join(" or "),
        prose(title),
        prose(entry.happened)
    )?;
    sees(out, "On this host", entry.here)?;
    sees(out, "At the other end", entry.there)?;
    writeln!(out, "\nLogs of proxies:\n")?;
    for line in entry.logs {
        said(out, line)?;
    }
    writeln!(out, "\nWhat to check:\n")?;
    for (i, check) in entry.checks.iter().enumerate() {
        writeln!(out, "{}. {} `{}`", i + 1, prose(check.say), check.command)?;
    }
    writeln!(out, "\n{}\n", prose(entry.advice))?;
    writeln!(out, "- Kernel function: `{}`", entry.function)?;
    writeln!(out, "- Kernel reason: {}", codes(entry.reasons))?;
    writeln!(out, "- Counters: {}", codes(entry.counters))?;
    for certainty in entry.certainty {
        let from = match certainty.since.as_bytes() {
            [b'0'..=b'9', ..] => format!("from Linux {}", certainty.since),
            b"none" => "on no kernel".to_owned(),
            _ => format!("on {}", certainty.since),
        };
        let confidence = certainty.confidence.name();
        writeln!(out, "- *{confidence}* {from}: {}", prose(certainty.needs))?;
    }
    writeln!(out, "- See also: {}", links(entry.related))
}

fn sees(out: &mut String, side: &str, sees: Sees) -> fmt::Result {
    let names: Vec<_> = sees
        .symptoms
        .iter()
        .map(|symptom| {
            let name = symptom.description().name;
            format!("[{name}](#{})", name.to_lowercase())
        })
        .collect();
    match names.as_slice() {
        [] => writeln!(out, "- {side}: {}", prose(sees.text)),
        names => writeln!(
            out,
            "- {side}: {}. {}",
            names.join(" or "),
            prose(sees.text)
        ),
    }
}

fn said(out: &mut String, line: &Line) -> fmt::Result {
    writeln!(
        out,
        "- {}: `{}` ({})",
        line.program,
        line.text,
        prose(line.when)
    )
}

fn symptoms(out: &mut String) -> fmt::Result {
    writeln!(out, "\n# What programs see")?;
    for symptom in &SYMPTOMS {
        let number = symptom
            .number
            .map_or_else(String::new, |n| format!(" ({n})"));
        writeln!(
            out,
            "\n## {}\n\n{}{number}. {}\n",
            symptom.name,
            symptom.message,
            prose(symptom.means)
        )?;
        for line in symptom.lines {
            said(out, line)?;
        }
        let [here, there] = causes_of_symptom(symptom.symptom);
        for (side, causes) in [("on this host", here), ("at the other end", there)] {
            if !causes.is_empty() {
                let causes: Vec<_> = causes.into_iter().map(link).collect();
                writeln!(out, "\nCauses, when seen {side}: {}.", causes.join(", "))?;
            }
        }
    }
    Ok(())
}

fn myths(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\n# What does not send a reset, although it is said to"
    )?;
    for myth in &MYTHS {
        writeln!(
            out,
            "\n## {}\n\n*Not so: {}.*\n\n{}\n\nCheck: {}\n",
            myth.name,
            prose(myth.title),
            prose(myth.happens),
            prose(myth.check)
        )?;
        writeln!(out, "- Kernel function: `{}`", myth.function)?;
        writeln!(out, "- Counters: {}", codes(myth.counters))?;
        writeln!(out, "- See also: {}", links(myth.related))?;
    }
    Ok(())
}

fn idle_limits(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\n# Idle limits\n\nDefaults that [idle-drop](#idle-drop) names when the silence is within \
         {TOLERANCE_PERCENT} % of one. All can be set otherwise, so a match is a hint.\n\n\
         | seconds | whose |\n|---|---|"
    )?;
    for limit in &LIMITS {
        writeln!(out, "| {} | {} |", limit.seconds, prose(limit.whose))?;
    }
    Ok(())
}

fn reasons(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\n# The kernel's reasons\n\nThe names of `enum sk_rst_reason` without `SK_RST_REASON_`.\n\n\
         | reason | since | what it says | causes |\n|---|---|---|---|"
    )?;
    for note in &REASONS {
        let causes: Vec<_> = causes_of_reason(note).map(link).collect();
        writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            note.name,
            note.since,
            prose(note.means),
            causes.join(", ")
        )?;
    }
    Ok(())
}

fn firewall(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "\n# Words of firewalls\n\nHow Cisco ASA, and others after it, log the end of a connection \
         (message 302014), and which causes the end hosts show for it.\n\n\
         | word | what it means | causes |\n|---|---|---|"
    )?;
    for word in &WORDS {
        let (word, means, causes) = (word.word, prose(word.means), links(word.related));
        writeln!(out, "| {word} | {means} | {causes} |")?;
    }
    Ok(())
}

fn link(entry: &Entry) -> String {
    format!("[{0}](#{0})", entry.name)
}

fn links(ids: &[CauseId]) -> String {
    let links: Vec<_> = ids.iter().map(|id| link(&ENTRIES[*id as usize])).collect();
    links.join(", ")
}

fn codes(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Text in which Markdown finds nothing but code between backticks.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut code = false;
    for c in text.chars() {
        code ^= c == '`';
        if !code && matches!(c, '*' | '<' | '[' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn causes_md() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CAUSES.md");
        let document = document().expect("a String");
        if env::var_os("RSTWATCH_BLESS").is_some() {
            fs::write(&path, &document).expect("docs/CAUSES.md can be written");
        }
        let file = fs::read_to_string(&path).expect("docs/CAUSES.md");
        assert!(
            file == document,
            "docs/CAUSES.md is not what the catalogue says: RSTWATCH_BLESS=1 cargo test -p \
             rstwatch causes_md"
        );
    }

    #[test]
    fn every_link_has_its_heading() {
        let document = document().expect("a String");
        let anchors: Vec<_> = document
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .map(|heading| heading.to_lowercase().replace(' ', "-"))
            .collect();
        for link in document.split("](#").skip(1) {
            let anchor = link.split(')').next().expect("a link");
            assert!(anchors.iter().any(|known| known == anchor), "{anchor}");
        }
    }

    /// A bar within a cell would end it.
    #[test]
    fn tables_have_as_many_cells_as_their_heads() {
        let document = document().expect("a String");
        let mut columns = None;
        for line in document.lines() {
            let cells = line.starts_with('|').then(|| line.matches('|').count());
            assert!(
                columns.is_none() || cells.is_none() || columns == cells,
                "{line}"
            );
            columns = cells;
        }
    }

    #[test]
    fn prose_is_no_markup() {
        assert_eq!(prose("a * `b * c` | [d]"), "a \\* `b * c` | \\[d\\]");
    }
}
