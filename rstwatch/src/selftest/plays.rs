//! Setting scenarios up and playing them, several at once: most of the time they wait.

use std::{
    collections::VecDeque,
    env, io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail};
use nix::libc;

use super::{
    PATIENCE,
    inbox::Inbox,
    judge::{Outcome, Played, Wanted},
    tracing::Tracing,
};
use crate::{
    cause::{self, Abilities},
    scenario::{Expected, Family, Ground, Scenario, player::Refused, stage::Stage},
};

/// Scenarios that are set up, or played, at once.
const AT_ONCE: usize = 8;

/// Between two looks whether the tracer is still there.
const LOOK: Duration = Duration::from_millis(50);

/// Why there is no wire between two hosts.
const NO_WIRE: &str = "the kernel has no veth devices (CONFIG_VETH, or the module veth)";

/// A scenario over one IP version.
#[derive(Clone, Copy)]
struct Piece {
    scenario: &'static Scenario,
    family: Family,
}

/// A piece that is ready to be played.
pub(super) struct Play {
    piece: Piece,
    pub(super) stage: Stage,
}

impl Play {
    /// What is played.
    pub(super) fn scenario(&self) -> &'static Scenario {
        self.piece.scenario
    }

    /// How many of its events a tracer shows.
    fn shown(&self, abilities: Abilities) -> usize {
        let expected = self.piece.scenario.expected.iter();
        expected.filter(|event| shows(event, abilities)).count()
    }
}

/// Whether the kernel tells of such resets at all.
fn shows(expected: &Expected, abilities: Abilities) -> bool {
    abilities.without_socket || !expected.is_without_socket()
}

/// A play that is over. Its processes live on until it is dropped.
pub(super) struct Done {
    play: Play,
    outcome: Result<()>,
    took: Duration,
}

/// Sets scenarios up for these IP versions. Gives also those for which that failed, already judged.
///
/// # Errors
///
/// When this program cannot be found, or no thread started.
pub(super) fn set_up(
    scenarios: impl Iterator<Item = &'static Scenario>,
    families: &[Family],
) -> Result<(Vec<Play>, Vec<Played>)> {
    let exe = env::current_exe().context("cannot find this program")?;
    let mut pieces: Vec<Piece> = scenarios
        .flat_map(|scenario| {
            families.iter().map(move |family| Piece {
                scenario,
                family: *family,
            })
        })
        .collect();
    // What is to exist before the tracer starts is made last, so that it is not old by then.
    pieces.sort_by_key(|piece| !piece.scenario.before.is_empty());
    let results = at_once(pieces, move |piece: Piece| {
        let stage = Stage::new(piece.scenario, piece.family, &exe).and_then(|mut stage| {
            stage.prepare()?;
            Ok(stage)
        });
        (piece, stage)
    })?;
    let mut plays = Vec::new();
    let mut failed = Vec::new();
    for (piece, stage) in results {
        match stage {
            Ok(stage) => plays.push(Play { piece, stage }),
            Err(error) => {
                let errno = error.downcast_ref().and_then(io::Error::raw_os_error);
                let outcome = match errno {
                    Some(libc::EOPNOTSUPP) if piece.scenario.ground != Ground::Loopback => {
                        Outcome::Cannot(NO_WIRE.to_owned())
                    }
                    _ => piece.failure(&error),
                };
                failed.push(piece.played(outcome, Duration::ZERO));
            }
        }
    }
    // What exists already is not to grow old, and what waits for the time to pass takes longest.
    plays.sort_by_key(|play| {
        let scenario = play.scenario();
        let waits = |word| !scenario.script.contains(word);
        (
            scenario.before.is_empty(),
            waits(" after "),
            waits("ETIMEDOUT"),
        )
    });
    Ok((plays, failed))
}

/// Plays everything, what touches the host last and alone, and waits for the events.
///
/// # Errors
///
/// When the tracer ends before that.
pub(super) fn play_all(
    plays: Vec<Play>,
    tracing: &Tracing,
    inbox: &Arc<Inbox>,
    deadline: Instant,
) -> Result<Vec<Done>> {
    let (host, own): (Vec<Play>, Vec<Play>) = plays
        .into_iter()
        .partition(|play| play.piece.scenario.of_the_host);
    let all_at_once = |plays| {
        let (inbox, abilities) = (Arc::clone(inbox), tracing.abilities());
        let results = at_once(plays, move |play: Play| {
            let shown = play.shown(abilities);
            play_one(play, &inbox, shown, deadline)
        });
        collect(&results?, tracing)
    };
    let mut done = all_at_once(own)?;
    for play in host {
        done.extend(all_at_once(vec![play])?);
    }
    Ok(done)
}

fn collect(results: &Receiver<Done>, tracing: &Tracing) -> Result<Vec<Done>> {
    let mut done = Vec::new();
    loop {
        match results.recv_timeout(LOOK) {
            Ok(one) => done.push(one),
            Err(RecvTimeoutError::Disconnected) => return Ok(done),
            Err(RecvTimeoutError::Timeout) if tracing.has_ended() => {
                bail!("tracing ended before everything was played")
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Plays one, and waits until so many events of it have been shown.
fn play_one(mut play: Play, inbox: &Inbox, shown: usize, deadline: Instant) -> Done {
    let started = Instant::now();
    let outcome = if started < deadline {
        play.stage.play()
    } else {
        Err(Error::msg("there was no time left to play it"))
    };
    if outcome.is_ok() {
        inbox.await_events(&play.stage.netns(), shown, PATIENCE);
    }
    Done {
        play,
        outcome,
        took: started.elapsed(),
    }
}

/// Works on all items with several threads. The results come in the order in which they are done.
fn at_once<T, R>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Clone + Send + 'static,
) -> Result<Receiver<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let queue = Arc::new(Mutex::new(VecDeque::from(items)));
    let (to, results) = mpsc::channel();
    for number in 0..AT_ONCE {
        let (queue, to, work) = (Arc::clone(&queue), to.clone(), work.clone());
        thread::Builder::new()
            .name(format!("play-{number}"))
            .spawn(move || {
                let next = || {
                    queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front()
                };
                while let Some(item) = next() {
                    if to.send(work(item)).is_err() {
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
    }
    Ok(results)
}

impl Piece {
    /// What the failure of a step means: that the kernel has no means for it, or something else.
    fn failure(self, error: &Error) -> Outcome {
        let errno = error
            .downcast_ref::<Refused>()
            .map(|refused| refused.errno.as_str());
        let means = errno.and_then(|errno| {
            let unless = self.scenario.unless.iter();
            unless.copied().find(|(name, _)| *name == errno)
        });
        match means {
            Some((_, why)) => Outcome::Cannot(why.to_owned()),
            None => Outcome::Failed(format!("{error:#}")),
        }
    }

    fn played(self, outcome: Outcome, took: Duration) -> Played {
        Played {
            scenario: self.scenario,
            family: self.family,
            outcome,
            took,
        }
    }
}

impl Done {
    /// Together with what was seen of it.
    pub(super) fn judged(&self, abilities: Abilities, inbox: &Inbox) -> Played {
        let piece = self.play.piece;
        let outcome = match &self.outcome {
            Err(error) => piece.failure(error),
            Ok(()) => match self
                .play
                .stage
                .expected(abilities.reasons == cause::Reasons::All)
            {
                Err(error) => Outcome::Failed(format!("{error:#}")),
                Ok(events) => Outcome::Played {
                    wanted: events
                        .into_iter()
                        .zip(piece.scenario.expected)
                        .map(|(event, expected)| Wanted {
                            event,
                            shows: shows(expected, abilities),
                        })
                        .collect(),
                    seen: inbox.of(&self.play.stage.netns()),
                },
            },
        };
        piece.played(outcome, self.took)
    }
}
