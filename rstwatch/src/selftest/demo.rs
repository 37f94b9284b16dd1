//! `rstwatch demo`: one scenario after the other, each with what it does as a heading, and the rows of
//! the ordinary table below.

use std::{
    io::{self, ErrorKind, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{get_ready, options, plays, tracing::Tracing};
use crate::{
    cli::{DemoArgs, Environment, Output},
    scenario::{Family, Scenario, catalogue},
};

/// What is shown, the most usual first.
const SHOWN: [&str; 22] = [
    "closed-port",
    "listener-killed",
    "unread-accepted",
    "linger-connected",
    "killed",
    "crashed",
    "data-after-close",
    "listener-closed",
    "unread-after-fin",
    "half-open",
    "late-segment",
    "late-syn-ack",
    "accept-queue-overflow",
    "connection-timed-out",
    "keepalive-connected",
    "no-fin-wait2",
    "disconnect",
    "socket-destroyed",
    "mptcp",
    "backscatter",
    "bad-handshake-ack",
    "idle-drop",
];

/// For how long the rows of a scenario may take to be shown: some wait for a search of `/proc`.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes resets and shows them. A reader that leaves ends it quietly.
///
/// # Errors
///
/// When tracing cannot start, the scenarios cannot be set up, or the run is interrupted.
pub fn demo(args: &DemoArgs, environment: &Environment<'_>) -> Result<()> {
    get_ready()?;
    let (mut plays, failed) = plays::set_up(shown(), &[Family::Ipv4])?;
    // They were set up in any order.
    plays.sort_by_key(|play| SHOWN.iter().position(|name| *name == play.scenario().name));
    let mut options = options(&[], &plays, environment)?;
    if let Output::Table(table) = &mut options.output {
        table.colour = args.colour(environment.is_terminal, environment.no_color);
        table.sentence = true;
    }
    let screen = Arc::new(Screen::default());
    let tracing = Tracing::start(options, Front(Arc::clone(&screen)))?;
    screen.await_lines(1, PATIENCE);
    for play in &mut plays {
        if tracing.has_ended() {
            break;
        }
        let scenario = play.scenario();
        if !screen.say(&format!("\n# {}", scenario.about))? {
            break;
        }
        let before = screen.lines();
        match play.stage.play() {
            // A row and its sentence.
            Ok(()) => screen.await_lines(before + 2 * scenario.expected.len(), PATIENCE),
            Err(_) if tracing.has_ended() => break,
            Err(error) => drop(screen.say(&format!("    cannot be made here: {error:#}"))?),
        }
    }
    screen.close();
    tracing.stop()?;
    for played in failed {
        eprintln!("rstwatch: {} could not be set up", played.scenario.name);
    }
    Ok(())
}

fn shown() -> impl Iterator<Item = &'static Scenario> {
    SHOWN.iter().filter_map(|name| catalogue::find(name))
}

/// Standard output, which rows and headings share.
#[derive(Debug, Default)]
struct Screen {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that the tracer has written.
    lines: usize,
    /// What it writes now is not for the screen: the summary of a run that was made up.
    closed: bool,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics that leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> usize {
        self.lock().lines
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until the tracer has written so many lines, or for as long as that may take.
    fn await_lines(&self, count: usize, patience: Duration) {
        let too_few = |state: &mut State| state.lines < count;
        drop(
            self.came
                .wait_timeout_while(self.lock(), patience, too_few)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Writes a line of our own. Returns whether anybody reads it.
    fn say(&self, text: &str) -> Result<bool> {
        let _state = self.lock();
        match writeln!(io::stdout(), "{text}") {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write"),
        }
    }
}

/// The tracer's side of the screen.
#[derive(Debug)]
struct Front(Arc<Screen>);

impl Write for Front {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if !state.closed {
            io::stdout().write_all(bytes)?;
        }
        state.lines += bytes.split(|byte| *byte == b'\n').count() - 1;
        drop(state);
        self.0.came.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_to_be_shown_is_there() {
        assert_eq!(shown().count(), SHOWN.len());
        for scenario in shown() {
            assert_eq!(scenario.before, "", "{} began earlier", scenario.name);
            assert!(!scenario.of_the_host, "{}", scenario.name);
        }
    }
}
