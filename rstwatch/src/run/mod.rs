//! Tracing from start to summary: loads, attaches, and runs the pipeline between the ring and the
//! output, with the clock and the signals around it.
//!
//! One thread runs all stages; beside it there are only the thread that writes, where one does, and the
//! search of `/proc`. What the stages do is not decided here.

mod bpf_log;
mod counters;
mod lanes;
mod ready;
mod rest;
mod rings;
mod start;
mod tally;
pub mod top;

use std::{
    collections::BTreeSet,
    future::pending,
    io,
    os::fd::AsFd as _,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use rstwatch_common::stats::Stat;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{self, JoinHandle},
    time::{Sleep, sleep, timeout},
};

use self::{
    bpf_log::BpfLog, counters::Baseline, ready::ReadyFile, rest::Rest, rings::Rings, start::Started,
};
use crate::{
    cause::Abilities,
    cli::{self, TraceOptions},
    clock,
    load::Tracer,
    netns::{self, CountsByNetns},
    output::{Destination, Output, reader_has_left},
    owner::procfs::{self, Holders},
    pipeline::Pipeline,
    storm::Counted,
};

/// Records that are taken from the ring before the clock, the search and the output get their turn.
const RECORDS_A_TURN: usize = 1_024;

/// Output that is handed to the writer at once.
const CHUNK: usize = 128 << 10;

/// How often it is looked whether there are resets that can be interrupted, in nanoseconds: in a storm there
/// are many turns in that time.
const HEED_NS: u64 = 1_000_000;

/// How long the last output may take when nobody seems to read it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often the wall clock is compared with the monotonic one.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// Traces until it is told to stop: by SIGINT or SIGTERM, at the end of the duration or the count,
/// or when nobody reads the output any more.
///
/// # Errors
///
/// When tracing cannot start, or the output cannot be written.
pub async fn trace(options: TraceOptions) -> Result<()> {
    trace_into(options, Destination::Stdout, |_| {}, pending())
        .await
        .map(drop)
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT or SIGTERM.
    Signal,
    /// Anything else.
    Other,
}

/// As [`trace`], with the output written to `to`: calls `ready` once every hook is in place, and
/// stops also when `asked` is done.
///
/// # Errors
///
/// As [`trace`].
pub async fn trace_into(
    options: TraceOptions,
    to: Destination,
    ready: impl FnOnce(Abilities),
    asked: impl Future<Output = ()>,
) -> Result<Ending> {
    // Before anything else, so that a signal never ends the run without its summary.
    let mut stop = Stop::watch()?;
    let ready_file = options.ready_file.clone().map(ReadyFile::prepare);
    let mut run = Run::start(options, to)?;
    if run.options.bpf_log {
        run.log = Some(BpfLog::open(run.tracer.ebpf_mut())?);
    }
    if run.options.verbose {
        run.pipeline.note_unknown_owners();
    }
    run.pipeline.begin();
    if let Some(file) = ready_file {
        file.create()?;
    }
    stop.after(run.options.duration);
    ready(run.abilities);
    let mut asked = pin!(asked);
    let mut lend = run.options.lend_hooks.then(lend_asked).transpose()?;
    let ending = loop {
        tokio::select! {
            biased;
            ending = stop.requested() => break ending,
            () = &mut asked => break Ending::Other,
            () = wanted(&mut lend) => run.tracer.let_go(),
            more = run.turn() => if !more? { break Ending::Other },
        }
    };
    run.finish().await?;
    Ok(ending)
}

/// What asks for the hooks, for another process to attach and detach.
fn lend_asked() -> Result<Signal> {
    signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")
}

/// Waits for it, if anybody may ask.
async fn wanted(lend: &mut Option<Signal>) {
    match lend {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// What ends the run from outside.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stop {
    fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
            deadline: None,
        })
    }

    /// Ends it after this time too, from now on.
    fn after(&mut self, duration: Option<Duration>) {
        self.deadline = duration.map(|duration| Box::pin(sleep(duration)));
    }

    async fn requested(&mut self) -> Ending {
        let deadline = async {
            match &mut self.deadline {
                Some(deadline) => deadline.await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Signal,
            _ = self.terminate.recv() => Ending::Signal,
            () = deadline => Ending::Other,
        }
    }
}

/// A search of `/proc` under way.
struct Search {
    wanted: BTreeSet<u64>,
    found: JoinHandle<Holders>,
}

struct Run {
    options: TraceOptions,
    tracer: Tracer,
    rings: Rings<RingBuf<MapData>>,
    pipeline: Pipeline,
    baseline: Baseline,
    abilities: Abilities,
    output: Output,
    log: Option<BpfLog>,
    search: Option<Search>,
    rest: Rest,
    next_heed_ns: u64,
    next_clock: Instant,
    next_interval: Option<Instant>,
}

impl Run {
    /// Loads and attaches, with the output to be written to `to`. The log of the BPF programs is not
    /// read.
    fn start(options: TraceOptions, to: Destination) -> Result<Self> {
        let Started {
            tracer,
            rings,
            pipeline,
            baseline,
            abilities,
        } = start::start(&options)?;
        Ok(Self {
            tracer,
            rings,
            pipeline,
            baseline,
            abilities,
            output: Output::open(to)?,
            log: None,
            search: None,
            rest: Rest::new(),
            next_heed_ns: 0,
            next_clock: Instant::now() + CLOCK_EVERY,
            next_interval: options.interval.map(|interval| Instant::now() + interval),
            options,
        })
    }

    /// Reads what is there, and waits a moment when that was little. Returns whether to go on.
    /// Cancelling it where it waits loses nothing.
    async fn turn(&mut self) -> Result<bool> {
        // Before reading, so that a record of that time is in the ring when it is found empty.
        let now_ns = clock::monotonic_ns()?;
        self.pipeline.reading_at(now_ns);
        let taken = self.read(RECORDS_A_TURN, now_ns);
        self.pipeline.tick(if taken < RECORDS_A_TURN {
            now_ns
        } else {
            self.pipeline.seen_to_ns()
        });
        if self.pipeline.is_storm_due(now_ns) {
            let counted = self.counted()?;
            self.pipeline.watch_storm(now_ns, counted);
        }
        if now_ns >= self.next_heed_ns {
            self.next_heed_ns = now_ns + HEED_NS;
            if let Some(attached) = self.tracer.heed_interruptions()? {
                start::say_attached(&attached, self.options.verbose);
            }
        }
        self.search_on().await?;
        if !self.now_and_then()? {
            return Ok(false);
        }
        self.say();
        if !self.pipeline.buffer().is_empty() {
            // While nobody takes the output, events stay in the ring, where loss is counted.
            let Some(room) = self.output.room().await else {
                return Ok(false);
            };
            room.send(self.pipeline.buffer().split().freeze());
            // What has been written gives its memory back, now that nothing is in the buffer that would have to be moved.
            // While it waits to be written, there is none to be had.
            let _ = self.pipeline.buffer().try_reclaim(CHUNK);
        }
        if self.pipeline.is_complete() || self.output.has_ended() {
            return Ok(false);
        }
        if taken > 0 || self.search.is_some() {
            self.rest.wake();
            self.rings.watch(true);
        }
        match taken {
            0 => self.rest.while_idle(&mut self.rings).await?,
            RECORDS_A_TURN.. => task::yield_now().await,
            _ => self.rest.briefly().await,
        }
        Ok(true)
    }

    /// The kernel side's totals: exact whatever the ring had no room for. A screen shows the shape of
    /// what its filter lets through instead.
    fn counted(&self) -> Result<Option<Counted>> {
        if self.options.output == cli::Output::Screen {
            return Ok(None);
        }
        Ok(Some(Counted {
            sent: self.tracer.sent()?,
            received: self
                .tracer
                .stat(Stat::Received)?
                .saturating_sub(self.tracer.stat(Stat::NotReceived)?),
        }))
    }

    /// Says on standard error what was asked for with `-v` and `--bpf-log`.
    fn say(&mut self) {
        for note in self.pipeline.take_notes() {
            eprintln!("rstwatch: {note}");
        }
        if let Some(log) = &mut self.log {
            log.print();
        }
    }

    /// Takes at most `most` records of those until `until_ns` from the rings. Returns how many it took.
    fn read(&mut self, most: usize, until_ns: u64) -> usize {
        self.rings.look(until_ns);
        for taken in 0..most {
            if self.pipeline.buffer().len() >= CHUNK {
                return most;
            }
            let Some(record) = self.rings.next() else {
                return taken;
            };
            if let Err(error) = self.pipeline.record(record)
                && self.options.verbose
            {
                eprintln!("rstwatch: {error}");
            }
        }
        most
    }

    /// Looks for the holders of sockets that were neither known nor closed: one search at a time,
    /// for all that are wanted by then.
    async fn search_on(&mut self) -> Result<()> {
        if let Some(search) = self.search.take_if(|search| search.found.is_finished()) {
            let holders = search.found.await.context("the search of /proc panicked")?;
            self.pipeline.found(&search.wanted, &holders);
        }
        if self.search.is_none()
            && let Some(wanted) = self.pipeline.take_wanted()
        {
            let inodes = wanted.clone();
            self.search = Some(Search {
                wanted,
                found: task::spawn_blocking(move || procfs::find_holders(Some(&inodes))),
            });
        }
        Ok(())
    }

    /// Follows the wall clock, and writes the regular summary. Returns whether anybody reads it.
    fn now_and_then(&mut self) -> Result<bool> {
        let now = Instant::now();
        if now >= self.next_clock {
            self.next_clock = now + CLOCK_EVERY;
            self.pipeline.clock().refresh()?;
            if reader_has_left(io::stdout().as_fd()) {
                return Ok(false);
            }
        }
        if let (Some(next), Some(interval)) = (self.next_interval, self.options.interval)
            && now >= next
        {
            // Counted from when it was due, so that it does not drift; a late one is not made up.
            self.next_interval = Some((next + interval).max(now));
            self.pipeline.shape(clock::monotonic_ns()?);
            let counts = netns::counters();
            self.summarise(self.tracer.skipped(), &counts, &counts)?;
        }
        Ok(true)
    }

    fn summarise(
        &mut self,
        skipped: Option<u64>,
        before_end: &CountsByNetns,
        after_end: &CountsByNetns,
    ) -> Result<()> {
        let wall_ns = self.pipeline.clock().wall_ns(clock::monotonic_ns()?);
        let summary = self.baseline.summary(
            &self.tracer,
            skipped,
            &self.pipeline,
            self.abilities,
            (before_end, after_end),
            wall_ns,
        )?;
        self.pipeline.summary(&summary);
        Ok(())
    }

    /// Detaches, shows what is left, and ends with the summary.
    async fn finish(mut self) -> Result<()> {
        let before_end = netns::counters();
        let skipped = self.tracer.skipped();
        self.tracer.detach();
        let after_end = netns::counters();
        let last = timeout(LAST_WORDS, self.say_last(skipped, &before_end, &after_end));
        // Nobody takes the output: whoever stopped the run is not kept waiting for it.
        if let Ok(said) = last.await {
            said?;
            if let Ok(written) = timeout(LAST_WORDS, self.output.finish()).await {
                written?;
            }
        }
        Ok(())
    }

    async fn say_last(
        &mut self,
        skipped: Option<u64>,
        before_end: &CountsByNetns,
        after_end: &CountsByNetns,
    ) -> Result<()> {
        while self.read(RECORDS_A_TURN, u64::MAX) > 0 {
            if !self.hand_over().await {
                return Ok(());
            }
        }
        if let Some(search) = self.search.take() {
            let holders = search.found.await.context("the search of /proc panicked")?;
            self.pipeline.found(&search.wanted, &holders);
        }
        // What still waits for a close is searched for now: nobody waits any longer.
        self.pipeline.hurry();
        if let Some(wanted) = self.pipeline.take_wanted() {
            self.pipeline
                .found(&wanted, &procfs::find_holders(Some(&wanted)));
        }
        self.pipeline.finish();
        self.say();
        self.summarise(skipped, before_end, after_end)?;
        self.hand_over().await;
        Ok(())
    }

    /// Hands the output to the writer. Returns whether anybody reads it.
    async fn hand_over(&mut self) -> bool {
        match self.output.room().await {
            Some(room) => {
                room.send(self.pipeline.buffer().split().freeze());
                true
            }
            None => false,
        }
    }
}
