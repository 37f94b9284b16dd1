//! Whose connection, and who pulled the trigger: in every situation that makes that hard, with real
//! processes whose PIDs are known, again and again, while another core makes connections as fast as
//! it can. The answer is right or `null`; a wrong one fails the test, and so do too many `null`.
//!
//! The binary is the one that `RSTWATCH_BIN` names; `cargo xtask test` builds it and starts these
//! tests, as root. Nothing is skipped: what cannot be made fails and says why.

mod actors;
mod cast;
mod crowd;
mod existing;
mod holders;
mod kinds;
mod score;
mod strangers;
#[allow(
    dead_code,
    reason = "shared with the integration tests, which need more of it"
)]
#[path = "../integration/tracer.rs"]
mod tracer;
mod watch;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    cast::{Load, Role, Scene},
    score::{Score, Wanted},
    tracer::{is_since, storm},
    watch::Watch,
};

/// How often each situation is made, unless [`REPETITIONS_VARIABLE`] says otherwise.
const REPETITIONS: usize = 50;

/// Names the environment variable with another number of repetitions: for an emulated machine.
const REPETITIONS_VARIABLE: &str = "RSTWATCH_REPETITIONS";

/// Situations that are made at the same time.
const AT_ONCE: usize = 8;

/// How many of a hundred answers must be right; the others are `null`.
const RIGHT_PERCENT: usize = 98;

/// What a repetition made: the resets that must be shown, and who must live until they were.
struct Take {
    wanted: Vec<Wanted>,
    _cast: Vec<Role>,
}

impl Take {
    fn new(wanted: impl IntoIterator<Item = Wanted>, cast: impl IntoIterator<Item = Role>) -> Self {
        Self {
            wanted: wanted.into_iter().collect(),
            _cast: cast.into_iter().collect(),
        }
    }
}

/// What happens once the tracer looks.
type Later = Box<dyn FnOnce(&Scene) -> Take + Send>;

/// How a repetition is made.
enum Play {
    /// All of it under the tracer's eyes.
    Live(fn(&Scene, usize) -> Take),
    /// With something that exists before the tracer starts.
    Existing(fn(&Scene, usize) -> Later),
}

/// A situation in which an owner or an actor is hard to name.
struct Situation {
    name: &'static str,
    play: Play,
    /// The first kernel that it can be made in.
    since: (u32, u32),
}

impl Situation {
    /// In kernels from this version on only.
    const fn since(self, major: u32, minor: u32) -> Self {
        Self {
            since: (major, minor),
            ..self
        }
    }
}

/// What rstwatch itself needs.
const OLDEST: (u32, u32) = (5, 10);

const fn live(name: &'static str, play: fn(&Scene, usize) -> Take) -> Situation {
    Situation {
        name,
        play: Play::Live(play),
        since: OLDEST,
    }
}

const fn existing(name: &'static str, play: fn(&Scene, usize) -> Later) -> Situation {
    Situation {
        name,
        play: Play::Existing(play),
        since: OLDEST,
    }
}

fn repetitions() -> usize {
    match env::var(REPETITIONS_VARIABLE) {
        Ok(number) => match number.parse() {
            Ok(number @ 1..) => number,
            _ => panic!("{REPETITIONS_VARIABLE}: {number:?} is no number of repetitions"),
        },
        Err(_) => REPETITIONS,
    }
}

#[test]
fn owner_and_actor_are_right_or_unknown_and_never_wrong() {
    let _alone = storm();
    let begun = Instant::now();
    let situations: Vec<&Situation> = [
        kinds::ALL,
        holders::ALL,
        strangers::ALL,
        existing::ALL,
        actors::ALL,
    ]
    .into_iter()
    .flatten()
    .filter(|situation| is_since(situation.since.0, situation.since.1))
    .collect();
    let load = Load::start();
    let scenes: Vec<Scene> = situations.iter().map(|_| Scene::new()).collect();
    let prepared: Vec<Mutex<Vec<Later>>> = situations
        .iter()
        .zip(&scenes)
        .map(|(situation, scene)| match situation.play {
            Play::Live(_) => Vec::new(),
            Play::Existing(prepare) => (0..repetitions()).map(|rep| prepare(scene, rep)).collect(),
        })
        .map(Mutex::new)
        .collect();

    let watch = Watch::start(scenes.iter().flat_map(Scene::netns));
    let next = AtomicUsize::new(0);
    let scores: Vec<Mutex<Option<Score>>> = situations.iter().map(|_| Mutex::new(None)).collect();
    // Their processes mostly wait for one another, so several situations share the core.
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(situation) = situations.get(at) else {
                        break;
                    };
                    let prepared = std::mem::take(&mut *prepared[at].lock().expect("no panic"));
                    let score = make(situation, &scenes[at], prepared, &watch);
                    *scores[at].lock().expect("no panic") = Some(score);
                }
            });
        }
    });
    let scores: Vec<Score> = scores
        .into_iter()
        .map(|score| score.into_inner().expect("no panic").expect("a score"))
        .collect();
    let (rate, summary) = (load.rate(), watch.stop(Signal::SIGINT));

    println!("{}", score::table(&scores));
    println!("background load: {rate} connections/s");
    println!("took {:.1} s", begun.elapsed().as_secs_f64());
    // The first of a situation tell enough.
    let complaints: Vec<&str> = scores
        .iter()
        .flat_map(|score| score.complaints().take(3))
        .collect();
    assert!(complaints.is_empty(), "\n- {}", complaints.join("\n- "));
    assert_eq!(summary["lost_detail"]["total"], 0, "in {summary}");
    let (right, all) = score::total(&scores);
    assert!(
        right * 100 >= all * RIGHT_PERCENT,
        "only {right} of {all} are right"
    );
    assert!(rate > 0, "there was no background load");
}

/// Makes a situation again and again, and judges what is shown of it.
fn make(situation: &Situation, scene: &Scene, prepared: Vec<Later>, watch: &Watch) -> Score {
    let begun = Instant::now();
    let takes: Vec<Take> = match situation.play {
        Play::Live(play) => (0..repetitions()).map(|rep| play(scene, rep)).collect(),
        Play::Existing(_) => prepared.into_iter().map(|later| later(scene)).collect(),
    };
    let wanted: Vec<Vec<Wanted>> = takes.iter().map(|take| take.wanted.clone()).collect();
    let seen = watch.await_events(&scene.netns(), wanted.iter().map(Vec::len).sum());
    // Only now may the cast go, for who holds on to a socket is searched for.
    drop(takes);
    Score::new(situation.name, &wanted, &seen, begun.elapsed())
}

/// For how long what must be shown may take.
const PATIENCE: Duration = Duration::from_secs(10);
