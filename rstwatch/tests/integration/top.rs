//! The full screen in a real terminal: tmux's.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstwatch::{
    scenario::{Family, stage::Stage},
    top::terminal::Screen,
};

use crate::tracer::{Scratch, binary, calm, run, stage};

/// For how long a screen may take to show something.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(20);

/// A terminal of 80 columns and 24 rows with a program on it; what it is like before and after the
/// program is kept.
struct Terminal {
    server: String,
    scratch: Scratch,
}

impl Terminal {
    /// Runs `command`, a shell's, with `environment` before it.
    fn new(command: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = format!("rstwatch-test-{}-{number}", std::process::id());
        let terminal = Self {
            server,
            scratch: Scratch::new(),
        };
        let [before, after] = ["before", "after"].map(|name| terminal.path(name));
        // What stays on the screen is the last line; the shell goes with the terminal.
        let script = format!(
            "stty -a > {}; {command}; echo \"ended with $?\"; stty -a > {}; exec sleep 1000",
            before.display(),
            after.display()
        );
        let file = terminal.path("script");
        fs::write(&file, script).expect("cannot write a script");
        let file = file.to_str().expect("a path in UTF-8").to_owned();
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", "sh", &file]);
        terminal
    }

    /// Runs `top` for the network namespaces of `stage`.
    fn top(stage: &Stage, environment: &str) -> Self {
        let netns: Vec<String> = stage
            .netns()
            .iter()
            .map(|inode| format!("--netns {inode}"))
            .collect();
        let binary = binary();
        let terminal = Self::new(&format!(
            "{environment} {} top {}",
            binary.display(),
            netns.join(" ")
        ));
        terminal.await_text("no reset in the last seconds");
        terminal
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.server, "-f", "/dev/null"])
            .args(args)
            .output()
            .expect("cannot run tmux: run `cargo xtask setup`");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {args:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as `wanted`.
    fn await_screen(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {what} on:\n{screen}");
            thread::sleep(LOOK);
        }
    }

    fn await_text(&self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }

    /// The process that the shell runs.
    fn process(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let child = children.expect("a shell");
        Pid::from_raw(child.trim().parse().expect("one child"))
    }

    /// Waits until the program has ended with `status`, and checks that it left the terminal as it
    /// was. Returns the screen.
    fn await_end(&self, status: i32) -> String {
        let screen = self.await_text(&format!("ended with {status}"));
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1", "alternate screen, cursor");
        let deadline = Instant::now() + PATIENCE;
        let after = loop {
            let after = fs::read_to_string(self.path("after")).unwrap_or_default();
            if after.ends_with('\n') || Instant::now() > deadline {
                break after;
            }
            thread::sleep(LOOK);
        };
        let before = fs::read_to_string(self.path("before")).expect("a state before");
        // The first line has the size, which is the window's own matter.
        let settings = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
        assert_eq!(
            settings(&after),
            settings(&before),
            "the terminal's settings"
        );
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It fails only when the server has ended.
        let _ = Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output();
    }
}

/// A screen without what differs from one run to the next: numbers are one mark, spaces one space,
/// the sparkline is left out.
fn normalised(screen: &str) -> String {
    let mut out = String::new();
    for line in screen.lines() {
        if line.contains(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']) {
            continue;
        }
        let words: Vec<String> = line.split_ascii_whitespace().map(mask).collect();
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out.trim_end().to_owned()
}

/// `word` with `#` for each number in it.
fn mask(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        let in_number = out.ends_with('#') && matches!(c, '.' | ',' | ':');
        if c.is_ascii_digit() {
            if !out.ends_with('#') {
                out.push('#');
            }
        } else if !in_number {
            out.push(c);
        }
    }
    out
}

const CONNECTS: &str = "client connect nobody -> ECONNREFUSED
    client connect nobody -> ECONNREFUSED
    client connect nobody -> ECONNREFUSED";

#[test]
fn screens_follow_resets_and_keys() {
    let _calm = calm();
    let mut stage = stage("closed-port", Family::Ipv4);
    let terminal = Terminal::top(&stage, "NO_COLOR=1");
    // Numbers since the start, which stand still when nothing comes.
    terminal.press(&["t"]);
    run(&mut stage, CONNECTS);
    let tables = terminal.await_screen("three resets of each kind", |screen| {
        screen.matches(" 3  50.0 %").count() >= 4
    });
    let tables = terminal.await_screen("calm", |screen| {
        screen.contains("no reset in the last") || screen != tables
    });
    insta::assert_snapshot!("tables", normalised(&without_rates(&tables)));
    terminal.press(&["Down", "Enter"]);
    let events = terminal.await_text("last events of recv refused (3 kept)");
    insta::assert_snapshot!("events", normalised(&without_head(&events)));
    terminal.press(&["e"]);
    let explained = terminal.await_text("refused (received)");
    assert!(explained.contains("ECONNREFUSED"), "{explained}");
    terminal.press(&["Escape"]);
    terminal.await_text("last events of");
    terminal.press(&["Escape"]);
    terminal.await_text("OWNER (2)");
    terminal.press(&["/"]);
    terminal.press(&["-l", "closed"]);
    terminal.press(&["Enter"]);
    let found = terminal.await_text("CAUSE (1 of 2)");
    assert!(!found.contains("recv refused"), "{found}");
    terminal.press(&["Escape"]);
    terminal.await_text("CAUSE (2)");
    terminal.press(&["Space"]);
    terminal.await_text("PAUSED");
    run(&mut stage, CONNECTS);
    terminal.press(&["Space"]);
    terminal.await_screen("the resets of the pause", |screen| {
        screen.matches(" 6  50.0 %").count() >= 4
    });
    terminal.press(&["q"]);
    let last = terminal.await_end(0);
    assert!(last.contains("12 shown"), "{last}");
    let colours = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(!colours.contains("\u{1b}[3"), "{colours}");
}

/// A screen of tables without the lines of rates, which change with time alone.
fn without_rates(screen: &str) -> String {
    let from = screen.find(" CAUSE (").expect("a table");
    screen[from..].to_owned()
}

fn without_head(screen: &str) -> String {
    let (_, rest) = screen.split_once('\n').expect("a line");
    rest.to_owned()
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let terminal = Terminal::top(&stage, "");
        kill(terminal.process(), signal).expect("a process");
        let last = terminal.await_end(0);
        assert!(last.contains(" resets in "), "{signal}: {last}");
    }
}

#[test]
fn it_ends_with_its_terminal() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    let terminal = Terminal::top(&stage, "");
    let process = PathBuf::from(format!("/proc/{}", terminal.process()));
    drop(terminal);
    let deadline = Instant::now() + PATIENCE;
    while process.exists() {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(LOOK);
    }
}

#[test]
fn ctrl_c_and_a_new_size_are_understood() {
    let _calm = calm();
    let stage = stage("closed-port", Family::Ipv4);
    let terminal = Terminal::top(&stage, "");
    terminal.tmux(&["resize-window", "-x", "50", "-y", "20"]);
    terminal.await_text("top needs 60 columns");
    terminal.tmux(&["resize-window", "-x", "120", "-y", "40"]);
    terminal.await_text("CAUSE (0)");
    terminal.press(&["C-c"]);
    terminal.await_end(0);
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let test = std::env::current_exe().expect("this program");
    // Without the backtrace, which would push the panic's words off the screen.
    let terminal = Terminal::new(&format!(
        "env RUST_BACKTRACE=0 {} --exact top::panic_on_a_screen --ignored --nocapture --test-threads 1",
        test.display()
    ));
    let last = terminal.await_end(101);
    assert!(last.contains("on purpose"), "{last}");
    assert!(!last.contains("drawn"), "{last}");
}

#[test]
#[ignore = "it panics, on the terminal that another test gives it"]
fn panic_on_a_screen() {
    let mut screen = Screen::take().expect("a terminal");
    let frame = screen
        .draw(|frame| frame.render_widget("drawn", frame.area()))
        .expect("drawn");
    std::io::stdout().write_all(&frame).expect("written");
    std::io::stdout().flush().expect("written");
    // Only what happens at the panic itself can help now.
    std::mem::forget(screen);
    panic!("on purpose");
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let output = Command::new(binary())
        .arg("top")
        .output()
        .expect("the binary");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty());
    assert!(
        error.contains("standard output is none") && error.contains("rstwatch trace"),
        "{error}"
    );
    let terminal = Terminal::new(&format!("TERM=dumb {} top", binary().display()));
    let last = terminal.await_end(1);
    assert!(last.contains("TERM says that this is none"), "{last}");
}
