//! What the operator looks at, and what keys do to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::data::{Data, Key, Line, Row, Span, TABLES, Wish, keep_order};
use crate::cause::CauseId;

/// Rows that `PgUp` and `PgDn` go.
const PAGE: usize = 10;

/// Longest text to look for.
const MOST_TEXT: usize = 40;

/// What is on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// The tables.
    #[default]
    Tables,
    /// The last events of a row, or of all.
    Events(Option<Key>),
    /// What is known of a cause; the page that it came from.
    Explain(CauseId, Box<Page>),
    /// The keys; the page that it came from.
    Help(Box<Page>),
}

/// What a key asks of whoever runs the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To show the new state.
    Show,
    /// To end.
    Quit,
}

/// The state of the screen.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, which a key turns"
)]
pub struct App {
    /// What is on the screen.
    pub page: Page,
    /// The table that keys act on.
    pub focus: usize,
    /// Whether it has the screen for itself.
    pub zoomed: bool,
    /// Sorted by name; else by number.
    pub by_name: bool,
    /// What tables and lists are made of.
    pub wish: Wish,
    /// The text that rows must have.
    pub text: String,
    /// Whether that text is being typed.
    pub typing: bool,
    /// Whether the screen stands still.
    pub paused: bool,
    /// The order that rows keep.
    frozen: Option<[Vec<Key>; 4]>,
    /// The row that is chosen in each table.
    chosen: [Option<Key>; 4],
    /// The event that is chosen, by its number.
    event: Option<u64>,
    /// Lines that an explanation is scrolled by.
    pub scroll: usize,
    /// What there is to show.
    data: Data,
}

impl App {
    /// Takes in what there is to show.
    pub fn update(&mut self, data: Data) {
        self.data = data;
    }

    /// What there is to show.
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// Whether the order of rows is kept.
    pub const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The rows of a table as they are to be shown.
    pub fn rows(&self, table: usize) -> Vec<Row> {
        let wanted = self.text.to_lowercase();
        let rows = self.data.tables[table].rows.iter();
        let mut rows: Vec<Row> = rows
            .filter(|row| row.name.to_lowercase().contains(&wanted))
            .cloned()
            .collect();
        if self.by_name {
            rows.sort_by(|a, b| a.name.cmp(&b.name));
        }
        if let Some(frozen) = &self.frozen {
            keep_order(&mut rows, &frozen[table]);
        }
        rows
    }

    /// The place of the chosen row among `rows` of `table`: the first when it is gone.
    pub fn place(&self, table: usize, rows: &[Row]) -> usize {
        let chosen = self.chosen[table];
        let place = rows.iter().position(|row| Some(row.key) == chosen);
        place.unwrap_or(0)
    }

    /// The events as they are to be shown, and the place of the chosen one.
    pub fn events(&self) -> (Vec<&Line>, usize) {
        let wanted = self.text.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let lines = self.data.events.iter();
        let lines: Vec<&Line> = lines
            .filter(|line| {
                [&line.owner, &line.local, &line.remote, &line.verdict]
                    .into_iter()
                    .any(|text| has(text))
            })
            .collect();
        let place = lines
            .iter()
            .position(|line| Some(line.number) == self.event)
            .unwrap_or(0);
        (lines, place)
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: KeyEvent) -> Answer {
        if key.kind == KeyEventKind::Release {
            return Answer::Show;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Answer::Quit;
        }
        if self.typing {
            self.type_key(key.code);
            return Answer::Show;
        }
        match key.code {
            KeyCode::Char('q') => return Answer::Quit,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.toggle_help(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(PAGE.cast_signed()),
            KeyCode::PageUp => self.step(-PAGE.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('e' | 'x') => self.explain(),
            KeyCode::Char('/') if self.is_list() => self.typing = true,
            KeyCode::Char('l') if self.is_list() => self.open(None),
            code if self.page == Page::Tables => self.table_key(code),
            KeyCode::Enter if matches!(self.page, Page::Events(_)) => self.explain(),
            _ => {}
        }
        Answer::Show
    }

    fn table_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Tab | KeyCode::Right => self.focus = (self.focus + 1) % TABLES.len(),
            KeyCode::BackTab | KeyCode::Left => {
                self.focus = (self.focus + TABLES.len() - 1) % TABLES.len();
            }
            KeyCode::Enter => {
                if let Some(key) = self.chosen_row() {
                    self.open(Some(key));
                }
            }
            KeyCode::Char('s') => self.by_name = !self.by_name,
            KeyCode::Char('t') => {
                self.wish.span = match self.wish.span {
                    Span::Lately => Span::Ever,
                    Span::Ever => Span::Lately,
                }
            }
            KeyCode::Char('n') => self.wish.networks = !self.wish.networks,
            KeyCode::Char('z') => self.zoomed = !self.zoomed,
            KeyCode::Char('f') => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(std::array::from_fn(|table| {
                        self.rows(table).iter().map(|row| row.key).collect()
                    })),
                }
            }
            _ => {}
        }
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.text.clear();
            }
            KeyCode::Backspace => {
                self.text.pop();
            }
            KeyCode::Char(c) if self.text.len() < MOST_TEXT && !c.is_control() => self.text.push(c),
            _ => {}
        }
    }

    const fn is_list(&self) -> bool {
        matches!(self.page, Page::Tables | Page::Events(_))
    }

    fn chosen_row(&self) -> Option<Key> {
        let rows = self.rows(self.focus);
        rows.get(self.place(self.focus, &rows)).map(|row| row.key)
    }

    fn open(&mut self, key: Option<Key>) {
        self.wish.events = Some(key);
        self.event = None;
        // Those of another row, if any.
        self.data.events.clear();
        self.page = Page::Events(key);
    }

    fn explain(&mut self) {
        let cause = match &self.page {
            Page::Tables => match self.chosen_row() {
                Some(Key::Cause(_, cause)) => Some(cause),
                // The cause that most resets have: what the screen is about.
                _ => self.rows(0).first().and_then(|row| match row.key {
                    Key::Cause(_, cause) => Some(cause),
                    _ => None,
                }),
            },
            Page::Events(_) => {
                let (events, place) = self.events();
                events.get(place).map(|line| line.cause)
            }
            Page::Explain(..) | Page::Help(_) => None,
        };
        if let Some(cause) = cause {
            self.scroll = 0;
            let from = std::mem::take(&mut self.page);
            self.page = Page::Explain(cause, Box::new(from));
        }
    }

    fn toggle_help(&mut self) {
        self.page = match std::mem::take(&mut self.page) {
            Page::Help(from) => *from,
            page => Page::Help(Box::new(page)),
        };
    }

    fn back(&mut self) {
        self.page = match std::mem::take(&mut self.page) {
            Page::Help(from) | Page::Explain(_, from) => *from,
            page if !self.text.is_empty() => {
                self.text.clear();
                page
            }
            Page::Events(_) => {
                self.wish.events = None;
                self.paused = false;
                Page::Tables
            }
            Page::Tables => {
                self.zoomed = false;
                Page::Tables
            }
        };
    }

    /// Goes `by` rows down, or up.
    fn step(&mut self, by: isize) {
        let go =
            |place: usize, len: usize| place.saturating_add_signed(by).min(len.saturating_sub(1));
        match &self.page {
            Page::Tables => {
                let rows = self.rows(self.focus);
                let place = go(self.place(self.focus, &rows), rows.len());
                self.chosen[self.focus] = rows.get(place).map(|row| row.key);
            }
            Page::Events(_) => {
                // In a storm the list would be another at each look.
                self.paused = true;
                let (events, place) = self.events();
                self.event = events.get(go(place, events.len())).map(|line| line.number);
            }
            // The view knows how long the text is.
            Page::Explain(..) | Page::Help(_) => self.scroll = go(self.scroll, usize::MAX),
        }
    }
}
