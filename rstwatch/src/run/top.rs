//! The full screen beside the tracer: the same pipeline and the same loop as `trace`, with a screen
//! drawn a few times a second in the place of lines.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use rstwatch_common::stats::Stat;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, Receiver},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{LAST_WORDS, Run, Stop, lend_asked, ready::ReadyFile, wanted};
use crate::{
    cli::top::TopOptions,
    clock,
    filter::Filter,
    output::Destination,
    top::{
        app::{Answer, App},
        data::{Data, Totals, Wish},
        terminal::Screen,
        view::{self, Theme},
    },
};

/// Between two screens.
const REDRAW: Duration = Duration::from_millis(200);

/// Keys that may wait to be taken.
const KEYS: usize = 16;

/// What the terminal told.
enum Input {
    Key(KeyEvent),
    /// The size is another.
    Resized,
    /// There is nothing more to come.
    Gone,
}

/// Shows what is reset now until it is told to stop.
///
/// # Errors
///
/// When standard output is no terminal, or tracing cannot start.
pub async fn top(options: TopOptions) -> Result<()> {
    let mut stop = Stop::watch()?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    // First of all, since it is the quicker to fail; and warnings of the start stay in sight.
    Screen::check()?;
    let TopOptions { trace, colour } = options;
    let ready_file = trace.ready_file.clone().map(ReadyFile::prepare);
    let mut run = Run::start(trace, Destination::Stdout)?;
    let mut view = View {
        screen: Screen::take()?,
        app: App::default(),
        asked: Wish::default(),
        filtered: run.options.filter != Filter::default(),
        theme: Theme { colour },
        zone: TimeZone::system(),
        started: Instant::now(),
    };
    let mut input = listen()?;
    if let Some(file) = ready_file {
        file.create()?;
    }
    stop.after(run.options.duration);
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lend = run.options.lend_hooks.then(lend_asked).transpose()?;
    let mut hung_up = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.requested() => break,
            _ = hangup.recv() => {
                hung_up = true;
                break;
            }
            input = input.recv() => match input {
                Some(Input::Key(key)) => match view.app.key(key) {
                    Answer::Quit => break,
                    Answer::Show => view.show(&mut run)?,
                },
                Some(Input::Resized) => view.show(&mut run)?,
                Some(Input::Gone) | None => break,
            },
            () = wanted(&mut lend) => run.tracer.let_go(),
            _ = redraw.tick() => view.show(&mut run)?,
            more = run.turn() => if !more? { break },
        }
    }
    match timeout(LAST_WORDS, run.output.room()).await {
        Ok(Some(room)) => room.send(view.screen.give_up()),
        // Nobody takes the frames that wait: past them.
        _ => drop(view),
    }
    let finished = run.finish().await;
    // With the terminal gone there is nobody to tell that nothing can be written to it.
    if hung_up { Ok(()) } else { finished }
}

/// The screen and what it shows.
struct View {
    screen: Screen,
    app: App,
    /// What the data that is shown was gathered for.
    asked: Wish,
    filtered: bool,
    theme: Theme,
    zone: TimeZone,
    started: Instant,
}

impl View {
    /// Draws a frame, unless the terminal has not taken the ones before.
    fn show(&mut self, run: &mut Run) -> Result<()> {
        let Some(room) = run.output.room_now() else {
            return Ok(());
        };
        // A paused screen still shows what is asked for anew.
        if !self.app.paused || self.asked != self.app.wish {
            self.asked = self.app.wish.clone();
            let now = run.pipeline.now(clock::monotonic_ns()?);
            let tally = run.pipeline.tally();
            let totals = Totals {
                counted: tally.shown,
                filtered: tally.filtered,
                lost: run.tracer.stat(Stat::LostReset)?,
            };
            let (storm, recent) = run.pipeline.storm_and_recent();
            let mut data = Data::gather(storm, recent.as_deref(), now, &self.zone, &self.asked);
            if let Some(recent) = recent {
                recent.look();
            }
            data.running = self.started.elapsed();
            data.totals = totals;
            self.app.update(data);
        }
        let (app, filtered, theme) = (&self.app, self.filtered, self.theme);
        let frame = self
            .screen
            .draw(|frame| view::draw(frame, app, filtered, theme))?;
        if !frame.is_empty() {
            room.send(frame);
        }
        Ok(())
    }
}

/// Reads the terminal on a thread of its own, which ends with the process.
fn listen() -> Result<Receiver<Input>> {
    let (tell, input) = mpsc::channel(KEYS);
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            loop {
                let input = match event::read() {
                    Ok(Event::Key(key)) => Input::Key(key),
                    Ok(Event::Resize(..)) => Input::Resized,
                    Ok(_) => continue,
                    Err(_) => Input::Gone,
                };
                let last = matches!(input, Input::Gone);
                if tell.blocking_send(input).is_err() || last {
                    return;
                }
            }
        })
        .context("cannot start the thread that reads keys")?;
    Ok(input)
}
