//! The screen: what there is to show, as cells. Everything is told by words and by reversed or bold
//! text; colours only underline it.

use std::fmt::Write as _;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::bar,
    text::{Line, Span, Text},
    widgets::{Clear, Paragraph, Sparkline, Wrap},
};

use super::{
    app::{App, Page},
    data::{self, Data, Row, TABLES, Table, short},
};
use crate::{
    event::Direction,
    explain::{self, Look},
    storm::words::{Grouped, Lasted, PerSecond, Percent},
};

/// The smallest screen that everything fits on.
pub const LEAST: (u16, u16) = (60, 16);

/// Rows of the sparkline.
const SPARKLINE: u16 = 3;

/// Rows of the verdict on a screen that is narrow, and on one that is not.
const VERDICT: [u16; 2] = [4, 3];

/// The most text columns: longer lines are hard to read.
const TEXT: u16 = 100;

/// Which colours there are.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// Whether there are any.
    pub colour: bool,
}

impl Theme {
    fn fg(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn storm(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn direction(self, direction: Direction) -> Style {
        self.fg(match direction {
            Direction::Sent => Color::Yellow,
            Direction::Received => Color::Cyan,
        })
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, app: &App, filtered: bool, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (columns, rows) = LEAST;
        let text = format!("top needs {columns} columns and {rows} rows; q quits");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, app, filtered);
    match &app.page {
        Page::Tables => draw_tables(frame, body, app, theme),
        Page::Events(_) => draw_events(frame, body, app, theme),
        Page::Explain(cause, _) => {
            let width = body.width.min(TEXT);
            let look = Look {
                colour: false,
                width: usize::from(width),
            };
            let text = explain::explain(cause.name(), look).unwrap_or_else(|error| error);
            draw_text(frame, body, &text, app.scroll);
        }
        Page::Help(_) => draw_text(frame, body, HELP, app.scroll),
    }
    draw_foot(frame, foot, app);
}

const HELP: &str = "\
Keys

  Tab, Shift-Tab      next table, table before
  Up, Down, j, k      row; also PgUp, PgDn, Home, End
  Enter               the last events of the row; on an event: its explanation
  l                   the last events of all
  e, Esc              explain the cause of the row or event; back

  s                   sort by name, or by number
  t                   numbers since the start, or of the last seconds
  n                   peers as networks (/24, /48), or as addresses
  z                   the table on the whole screen, and back
  /                   show rows that contain a text; Esc: all again
  f                   freeze the order of the rows; the numbers go on
  Space               pause; the counting goes on. Moving among events pauses
  q, Ctrl-C           quit, with a summary

  PORT is the port of the service: of this host, or of the remote end.
  RATE/s is that of the last 5 to 10 seconds, TOTAL counts since the start.
  A SHARE is of all resets counted in that time. With +N % behind a table's
  name there are too many to count each: any may have come so much more often.
  In a storm the last events are a sample of each cause; the counts are not.";

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App, filtered: bool) {
    let data = app.data();
    let mut left = format!(" rstwatch top  {}", data.time);
    let totals = data.totals;
    let _ = write!(left, "  {} resets", Grouped(totals.counted));
    if filtered {
        let _ = write!(left, ", {} others", Grouped(totals.filtered));
    }
    if totals.lost > 0 {
        let _ = write!(left, ", {} LOST", Grouped(totals.lost));
    }
    let mut right = String::new();
    if app.is_frozen() {
        right.push_str("ORDER FROZEN  ");
    }
    if app.paused {
        right.push_str("PAUSED (Space)  ");
    }
    right.push_str("up ");
    let running_ns = u64::try_from(data.running.as_nanos()).unwrap_or(u64::MAX);
    right.push_str(&Lasted(running_ns).to_string());
    right.push(' ');
    let width = usize::from(area.width);
    let room = width.saturating_sub(right.chars().count());
    let line = format!("{:room$}{right}", cut(&left, room.saturating_sub(1)));
    frame.render_widget(Line::styled(line, CHOSEN), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let line = if app.typing {
        Line::from(vec![
            Span::styled(" show rows with: ", BOLD),
            Span::raw(app.text.clone()),
            Span::styled(" ", CHOSEN),
            Span::raw("   Enter: keep  Esc: all"),
        ])
    } else {
        let keys: &[(&str, &str)] = match app.page {
            Page::Tables => &[
                ("Tab", "table"),
                ("Enter", "events"),
                ("e", "explain"),
                ("t", "span"),
                ("/", "find"),
                ("Space", "pause"),
                ("?", "keys"),
                ("q", "quit"),
            ],
            Page::Events(_) => &[
                ("Up/Down", "event"),
                ("Enter", "explain"),
                ("/", "find"),
                ("Space", "pause"),
                ("Esc", "back"),
                ("q", "quit"),
            ],
            Page::Explain(..) | Page::Help(_) => {
                &[("Up/Down", "scroll"), ("Esc", "back"), ("q", "quit")]
            }
        };
        let mut spans = Vec::new();
        if !app.text.is_empty() {
            spans.push(Span::styled(format!(" only \"{}\"  ", app.text), CHOSEN));
        }
        for (key, what) in keys {
            spans.push(Span::styled(format!(" {key}"), BOLD));
            spans.push(Span::raw(format!(" {what} ")));
        }
        Line::from(spans)
    };
    frame.render_widget(line, area);
}

fn draw_tables(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let [rates, verdict, graph, tables] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(VERDICT[usize::from(area.width > TEXT)]),
        Constraint::Length(SPARKLINE + 1),
        Constraint::Fill(1),
    ])
    .areas(area);
    let data = app.data();
    draw_rates(frame, rates, data);
    draw_verdict(frame, verdict, data, theme);
    draw_graph(frame, graph, data, theme);
    if app.zoomed {
        draw_table(frame, tables, app, app.focus, theme);
        return;
    }
    // The causes' names are the longest.
    let halves = Layout::horizontal([Constraint::Percentage(57), Constraint::Fill(1)]).spacing(1);
    let rows = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]);
    let [upper, lower] = rows.areas(tables);
    let [causes, ports] = halves.areas(upper);
    let [owners, peers] = halves.areas(lower);
    for (table, area) in [causes, owners, ports, peers].into_iter().enumerate() {
        draw_table(frame, area, app, table, theme);
    }
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, data: &Data) {
    let [one, ten, sixty] = data.rates;
    let spans = vec![
        Span::styled(format!(" {}/s", PerSecond(one.total())), BOLD),
        Span::raw(format!(
            " now ({} sent, {} recv)  {}/s in 10 s  {}/s in 60 s",
            PerSecond(one.sent),
            PerSecond(one.received),
            PerSecond(ten.total()),
            PerSecond(sixty.total())
        )),
    ];
    frame.render_widget(Line::from(spans), area);
}

fn draw_verdict(frame: &mut Frame<'_>, area: Rect, data: &Data, theme: Theme) {
    let inner = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(2),
        ..area
    };
    let text = if data.in_storm {
        Text::from(Line::from(vec![
            Span::styled(data.headline.clone(), theme.storm()),
            Span::raw("; "),
            Span::raw(data.what.clone()),
        ]))
    } else if data.what.is_empty() {
        Text::from("no reset in the last seconds")
    } else {
        Text::from(format!("no storm: {}; {}", data.headline, data.what))
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), inner);
}

fn draw_graph(frame: &mut Frame<'_>, area: Rect, data: &Data, theme: Theme) {
    let [title, graph] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let columns = usize::from(graph.width);
    let shown = &data.history[data.history.len().saturating_sub(columns)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let left = " resets a second, a second a column";
    let right = format!("highest {} ", Grouped(most));
    let room = columns.saturating_sub(right.len());
    let style = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Line::styled(format!("{left:room$}{right}"), style), title);
    // The newest stands at the right edge from the start.
    let mut padded = vec![0; columns - shown.len()];
    padded.extend_from_slice(shown);
    let sparkline = Sparkline::default()
        .data(&padded)
        .max(most.max(1))
        .bar_set(bar::NINE_LEVELS)
        .style(if data.in_storm {
            theme.fg(Color::Red)
        } else {
            theme.fg(Color::Green)
        });
    frame.render_widget(sparkline, graph);
}

/// Columns of a rate or a count, and of a share, with the space before them.
const NUMBER: usize = 9;
const SHARE: usize = 8;

fn draw_table(frame: &mut Frame<'_>, area: Rect, app: &App, table: usize, theme: Theme) {
    let focused = app.focus == table;
    let rows = app.rows(table);
    let place = app.place(table, &rows);
    let data = app.data();
    let width = usize::from(area.width);
    let name = width.saturating_sub(NUMBER + SHARE);
    let number = if data.seconds.is_some() {
        "RATE/s"
    } else {
        "TOTAL"
    };
    let title = format!(" {}", title(app, table, &rows));
    let title = format!(
        "{:name$}{number:>NUMBER$}{:>SHARE$}",
        cut(&title, name),
        "SHARE"
    );
    let style = if focused { CHOSEN.patch(BOLD) } else { BOLD };
    let mut lines = vec![Line::styled(title, style)];
    let room = usize::from(area.height).saturating_sub(1);
    // The chosen row stays in sight.
    let first = place.saturating_sub(room.saturating_sub(1));
    for (i, row) in rows.iter().enumerate().skip(first).take(room) {
        lines.push(table_row(row, data, name, focused && i == place, theme));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// A table's name, how many rows there are, and how far the counts may be off.
fn title(app: &App, table: usize, rows: &[Row]) -> String {
    let Table {
        distinct, error, ..
    } = app.data().tables[table];
    let name = match table {
        3 if app.wish.networks => "NETWORK",
        _ => TABLES[table],
    };
    let sorted = if app.by_name { ", by name" } else { "" };
    let shown = if app.text.is_empty() {
        String::new()
    } else {
        format!("{} of ", rows.len())
    };
    let off = if error > 0 {
        let part = crate::storm::shape::share(error, app.data().total);
        format!(" +{}", Percent(part))
    } else {
        String::new()
    };
    let more = if error > 0 { ">" } else { "" };
    format!("{name} ({shown}{more}{distinct}{sorted}){off}")
}

fn table_row<'a>(row: &Row, data: &Data, name: usize, chosen: bool, theme: Theme) -> Line<'a> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "rates are told with three digits"
    )]
    let number = match data.seconds {
        Some(seconds) if seconds > 0.0 => PerSecond(row.count as f64 / seconds).to_string(),
        Some(_) => "0".to_owned(),
        None => Grouped(row.count).to_string(),
    };
    let share = crate::storm::shape::share(row.count, data.total);
    let text = format!(" {}", row.name);
    let rest = format!("{number:>NUMBER$}{:>SHARE$}", Percent(share).to_string());
    let style = if chosen { CHOSEN } else { Style::new() };
    let of = match row.key {
        data::Key::Cause(direction, _) if !chosen => theme.direction(direction),
        _ => Style::new(),
    };
    Line::from(vec![
        Span::styled(format!("{:name$}", cut(&text, name)), style.patch(of)),
        Span::styled(rest, style),
    ])
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let Page::Events(key) = &app.page else {
        return;
    };
    let [title, list, detail] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(10.min(area.height / 2)),
    ])
    .areas(area);
    let of = key.map_or_else(|| "all".to_owned(), |key| key.name());
    let (events, place) = app.events();
    let text = format!(" last events of {of} ({} kept)", events.len());
    frame.render_widget(Line::styled(text, BOLD), title);
    if events.is_empty() {
        let text = Text::from(" none yet: they are kept while this page is open");
        frame.render_widget(Paragraph::new(text), list);
        return;
    }
    // As wide as the widest value in sight, the peers' ends first: whatever is left is the owner's.
    let width = |text: fn(&data::Line) -> &str, least: usize| {
        let widths = events.iter().map(|line| text(line).chars().count());
        widths.max().unwrap_or(0).max(least)
    };
    let columns = [
        width(|line| &line.owner, 5),
        width(|line| &line.local, 5),
        width(|line| &line.remote, 6),
    ];
    let room = usize::from(list.height).saturating_sub(1);
    let first = place.saturating_sub(room.saturating_sub(1));
    let [owner, local, remote] = columns;
    // The title says it, and a narrow screen has no room for it.
    let one_cause = matches!(key, Some(data::Key::Cause(..)));
    let mut lines = vec![Line::styled(
        format!(
            " {:12} {:4} {:owner$} {:local$} {:remote$} {}",
            "TIME",
            "DIR",
            "OWNER",
            "LOCAL",
            "REMOTE",
            if one_cause { "" } else { "CAUSE" }
        ),
        BOLD,
    )];
    for (i, event) in events.iter().enumerate().skip(first).take(room) {
        let chosen = i == place;
        let style = if chosen { CHOSEN } else { Style::new() };
        let of = if chosen {
            style
        } else {
            theme.direction(event.direction)
        };
        lines.push(Line::from(vec![
            Span::styled(format!(" {} ", event.time), style),
            Span::styled(format!("{:4} ", short(event.direction)), of),
            Span::styled(
                format!(
                    "{:owner$} {:local$} {:remote$} {}",
                    event.owner,
                    event.local,
                    event.remote,
                    if one_cause { "" } else { &event.verdict }
                ),
                style,
            ),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), list);
    if let Some(event) = events.get(place) {
        draw_detail(frame, detail, event);
    }
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, event: &data::Line) {
    let mut lines = vec![Line::raw(""), Line::styled(event.sentence.clone(), BOLD)];
    if !event.evidence.is_empty() {
        let evidence = format!("evidence: {}", event.evidence.join("; "));
        lines.push(Line::raw(evidence));
    }
    lines.push(Line::raw(data::advice(event.cause)));
    let inner = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(2).min(TEXT),
        ..area
    };
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), inner);
}

/// A text that may be longer than the screen.
fn draw_text(frame: &mut Frame<'_>, area: Rect, text: &str, scroll: usize) {
    let lines = text.lines().count();
    let most = lines.saturating_sub(usize::from(area.height).saturating_sub(1));
    let scroll = scroll.min(most);
    frame.render_widget(Clear, area);
    let inner = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(1),
        ..area
    };
    let text: Vec<Line<'_>> = text.lines().skip(scroll).map(Line::raw).collect();
    frame.render_widget(Paragraph::new(text), inner);
}

/// `text` in at most `width` columns: the middle of what is longer is left out, since addresses and
/// PIDs are told apart by their ends.
fn cut(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let Some(left) = width.checked_sub(1) else {
        return String::new();
    };
    let back = left / 2;
    let front: String = text.chars().take(left - back).collect();
    let back: String = text.chars().skip(count - back).collect();
    format!("{front}…{back}")
}
