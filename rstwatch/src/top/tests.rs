//! Screens of known data, at the smallest usual size and a wide one, with and without colour, and
//! what keys do.

use jiff::tz::TimeZone;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    app::{Answer, App, Page},
    data::{Data, Totals},
    view::{Theme, draw},
};
use crate::{
    cause::{CauseId, HostFacts, classify},
    event::{Direction, Event, ListenerEnd, Listening, TcpState},
    fixture,
    sink::recent::Recent,
    storm::{Now, Watch},
};

const STEP_NS: u64 = 250_000_000;

/// A storm after a crash, beside what happens on any day, as `top` would have seen it.
struct Play {
    watch: Watch,
    recent: Recent,
    now: Now,
    app: App,
}

impl Play {
    fn new(seconds: u64, per_step: u64) -> Self {
        let mut play = Self {
            watch: Watch::default(),
            recent: Recent::default(),
            now: Now {
                monotonic_ns: 0,
                wall_ns: fixture::TIME_NS,
            },
            app: App::default(),
        };
        for step in 0..seconds * 4 {
            play.note(&fixture::unread());
            if step % 3 == 0 {
                play.note(&fixture::received(TcpState::Established));
            }
            if step >= 48 {
                for n in 0..per_step {
                    play.note(&gone(n));
                }
            }
            play.now.monotonic_ns += STEP_NS;
            play.now.wall_ns += STEP_NS;
            play.watch.tick(play.now, None);
            play.recent.look();
        }
        play.gather();
        play
    }

    fn note(&mut self, event: &Event) {
        let mut event = event.clone();
        event.time_ns = self.now.wall_ns;
        let verdict = classify(&event, &HostFacts::default());
        self.watch.note(&event, &verdict);
        self.recent.take(&event, &verdict);
    }

    fn gather(&mut self) {
        let zone = TimeZone::UTC;
        let wish = self.app.wish.clone();
        let mut data = Data::gather(&mut self.watch, Some(&self.recent), self.now, &zone, &wish);
        data.running = std::time::Duration::from_nanos(self.now.monotonic_ns);
        data.totals = Totals {
            counted: self.watch.seen().total(),
            ..Totals::default()
        };
        self.app.update(data);
    }

    /// Presses keys: characters, and `<Enter>` and the like.
    fn press(&mut self, keys: &str) -> &mut Self {
        let mut rest = keys;
        while let Some(first) = rest.chars().next() {
            let code = if first == '<' {
                let (name, behind) = rest[1..].split_once('>').expect("a name");
                rest = behind;
                match name {
                    "Enter" => KeyCode::Enter,
                    "Esc" => KeyCode::Esc,
                    "Tab" => KeyCode::Tab,
                    "BackTab" => KeyCode::BackTab,
                    "Down" => KeyCode::Down,
                    "Up" => KeyCode::Up,
                    "End" => KeyCode::End,
                    "Backspace" => KeyCode::Backspace,
                    other => panic!("no such key: {other}"),
                }
            } else {
                rest = &rest[first.len_utf8()..];
                KeyCode::Char(first)
            };
            let key = KeyEvent::new(code, KeyModifiers::NONE);
            assert_eq!(self.app.key(key), Answer::Show, "{keys}");
            if !self.app.paused {
                self.gather();
            }
        }
        self
    }

    fn terminal(&self, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal
            .draw(|frame| draw(frame, &self.app, false, Theme { colour }))
            .expect("drawn");
        terminal
    }

    fn screen(&self, width: u16, height: u16) -> String {
        self.terminal(width, height, false).backend().to_string()
    }
}

fn gone(n: u64) -> Event {
    let mut killed = fixture::actor(812, "nginx");
    killed.exiting = true;
    killed.signal = Some(11);
    let mut event = fixture::closed_port();
    event.remote = fixture::endpoint(&format!("10.0.0.{}", 20 + n % 3), 50_000);
    event.listener = Some(Box::new(Listening {
        process: fixture::process(812, "nginx"),
        inode: 0,
        age_ns: None,
        ended: Some(ListenerEnd {
            closer: killed,
            ago_ns: 1_000_000,
        }),
    }));
    event
}

#[test]
fn a_quiet_host() {
    let mut play = Play::new(0, 0);
    insta::assert_snapshot!("quiet", play.screen(80, 24));
    // Nothing to choose, explain or list.
    play.press("<Down><Enter>e<Tab><Enter>");
    assert_eq!(play.app.page, Page::Tables);
}

#[test]
fn calm() {
    insta::assert_snapshot!("calm", Play::new(12, 0).screen(80, 24));
}

#[test]
fn a_storm() {
    let play = Play::new(20, 5_000);
    insta::assert_snapshot!("storm", play.screen(80, 24));
    insta::assert_snapshot!("storm_wide", play.screen(132, 40));
}

#[test]
fn events_of_a_row_and_their_detail() {
    let mut play = Play::new(14, 100);
    play.press("<Down><Enter>");
    insta::assert_snapshot!("events", play.screen(80, 24));
    assert!(matches!(play.app.page, Page::Events(Some(_))));
    // Moving stands still, so that what is looked at stays.
    let (before, _) = play.app.events();
    let second = before[1].number;
    play.press("<Down>");
    assert!(play.app.paused);
    let (events, place) = play.app.events();
    assert_eq!((place, events[place].number), (1, second));
    play.press("<Esc>");
    assert_eq!((&play.app.page, play.app.paused), (&Page::Tables, false));
}

#[test]
fn the_explanation_of_a_cause() {
    let mut play = Play::new(14, 100);
    play.press("e");
    insta::assert_snapshot!("explain", play.screen(80, 24));
    play.press("<End>");
    let end = play.screen(80, 24);
    assert!(end.contains("See also"), "{end}");
    play.press("<Esc>");
    assert_eq!(play.app.page, Page::Tables);
    // From an event it is that event's, and back leads there.
    play.press("l/curl<Enter>e");
    let Page::Explain(cause, from) = &play.app.page else {
        panic!("{:?}", play.app.page);
    };
    assert_eq!(*cause, CauseId::PeerAborted);
    assert_eq!(**from, Page::Events(None));
}

#[test]
fn the_keys() {
    let mut play = Play::new(0, 0);
    play.press("?");
    let help = play.screen(80, 24);
    insta::assert_snapshot!("keys", help);
    play.press("?");
    assert_eq!(play.app.page, Page::Tables);
}

#[test]
fn tables_are_sorted_searched_and_zoomed() {
    let mut play = Play::new(14, 100);
    let names = |play: &Play, table| -> Vec<String> {
        let rows = play.app.rows(table);
        rows.into_iter().map(|row| row.name).collect()
    };
    assert_eq!(
        names(&play, 0),
        [
            "sent listener-gone",
            "sent closed-with-unread-data",
            "recv peer-aborted"
        ]
    );
    play.press("s");
    assert_eq!(names(&play, 0)[0], "recv peer-aborted");
    play.press("s/PEER<Enter>");
    assert_eq!(names(&play, 0), ["recv peer-aborted"]);
    play.press("<Esc>");
    assert_eq!(names(&play, 0).len(), 3);
    play.press("/xyz<Backspace><Esc>");
    assert_eq!((play.app.text.as_str(), play.app.typing), ("", false));
    play.press("<BackTab>nz");
    assert_eq!(names(&play, 3), ["10.0.0.0/24"]);
    let zoomed = play.screen(80, 24);
    assert!(
        zoomed.contains("NETWORK (1)") && !zoomed.contains("CAUSE"),
        "{zoomed}"
    );
    play.press("<Esc>t");
    let all = play.screen(80, 24);
    assert!(all.contains("TOTAL") && !all.contains("RATE/s"), "{all}");
}

#[test]
fn a_frozen_order_stays_and_a_choice_follows_its_row() {
    let mut play = Play::new(14, 100);
    play.press("<Down>f");
    let order = |play: &Play| -> Vec<String> {
        let rows = play.app.rows(0);
        rows.into_iter().map(|row| row.name).collect()
    };
    let before = order(&play);
    for _ in 0..30_000 {
        play.note(&fixture::received(TcpState::Established));
    }
    play.gather();
    assert_eq!(order(&play), before);
    let rows = play.app.rows(0);
    assert_eq!(rows[play.app.place(0, &rows)].name, before[1]);
    play.press("f");
    assert_eq!(order(&play)[0], "recv peer-aborted");
    let rows = play.app.rows(0);
    assert_eq!(rows[play.app.place(0, &rows)].name, before[1]);
}

#[test]
fn quitting() {
    let mut app = App::default();
    let key = |c, modifiers| KeyEvent::new(KeyCode::Char(c), modifiers);
    assert_eq!(app.key(key('q', KeyModifiers::NONE)), Answer::Quit);
    assert_eq!(app.key(key('c', KeyModifiers::CONTROL)), Answer::Quit);
    // A text to look for may have a q in it, and Ctrl-C quits all the same.
    app.key(key('/', KeyModifiers::NONE));
    assert_eq!(app.key(key('q', KeyModifiers::NONE)), Answer::Show);
    assert_eq!(app.text, "q");
    assert_eq!(app.key(key('c', KeyModifiers::CONTROL)), Answer::Quit);
}

#[test]
fn without_colour_there_is_none_and_with_it_the_text_is_the_same() {
    let mut play = Play::new(14, 500);
    for keys in ["", "<Enter>", "e", "?"] {
        play.press(keys);
        let plain = play.terminal(80, 24, false);
        let colour = play.terminal(80, 24, true);
        let (plain, colour) = (plain.backend().buffer(), colour.backend().buffer());
        for (plain, colour) in plain.content().iter().zip(colour.content()) {
            assert_eq!(plain.symbol(), colour.symbol());
            assert_eq!((plain.fg, plain.bg), (Color::Reset, Color::Reset));
        }
        if keys.is_empty() {
            assert!(colour.content().iter().any(|cell| cell.fg == Color::Red));
        }
    }
}

#[test]
fn every_size_is_drawn() {
    let mut play = Play::new(14, 500);
    for keys in ["", "z", "<Enter>", "e", "?"] {
        play.press(keys);
        for (width, height) in [(1, 1), (20, 5), (59, 24), (60, 16), (80, 15), (300, 100)] {
            play.terminal(width, height, true);
        }
    }
    let small = play.screen(40, 5);
    assert!(small.contains("top needs 60 columns"), "{small}");
}

#[test]
fn a_hostile_name_and_a_long_address_are_shown_whole_or_cut_in_the_middle() {
    let mut play = Play::new(1, 0);
    let mut event = fixture::received(TcpState::Established);
    event.owner.as_mut().expect("an owner").process.comm =
        crate::event::Comm::from_text(b"\x1b[31mx\n");
    event.remote = fixture::endpoint("2001:db8:1234:5678:9abc:def0:1234:5679", 443);
    for _ in 0..100 {
        play.note(&event);
    }
    play.gather();
    let screen = play.screen(80, 24);
    assert!(screen.contains("\\x1b[31mx\\n[4242]"), "{screen}");
    assert!(screen.contains('…') && screen.contains("5679"), "{screen}");
    play.press("<BackTab>z");
    let screen = play.screen(80, 24);
    assert!(
        screen.contains("2001:db8:1234:5678:9abc:def0:1234:5679"),
        "{screen}"
    );
}

#[test]
fn rows_know_their_events() {
    let play = Play::new(14, 100);
    for table in 0..4 {
        for row in play.app.rows(table) {
            let kept = play
                .recent
                .last(1_000, |kept| row.key.has(&kept.event, kept.verdict.id));
            assert!(!kept.is_empty(), "{}", row.name);
            if let super::data::Key::Cause(direction, _) = row.key {
                assert!(kept.iter().all(|kept| kept.event.direction == direction));
            }
        }
    }
    let sent = |play: &Play| {
        let kept = play
            .recent
            .last(9, |kept| kept.event.direction == Direction::Sent);
        kept.len()
    };
    assert_eq!(sent(&play), 9);
}
