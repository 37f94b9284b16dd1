//! Getting ready: learns the kernel, loads and attaches, and takes stock of what is there already.

use std::{
    fs,
    num::NonZeroU64,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use caps::Capability;
use jiff::tz::TimeZone;
use rstwatch_common::stats::Stat;

use super::{counters::Baseline, lanes::Lanes, rings::Rings};
use crate::{
    cause::{self, Abilities, HostFacts},
    cli::{Output, TraceOptions},
    clock::Clock,
    interpret::Interpreter,
    kernel::{cost, stack::Stacks},
    load::{Attached, Kernel, Settings, Tracer, hook::INTERRUPTING, preflight},
    netns,
    owner::procfs,
    pipeline::Pipeline,
    privileges,
    sink::{Sink, json::Json, table::Table},
};

/// Everything that a run needs.
pub(super) struct Started {
    pub(super) tracer: Tracer,
    pub(super) rings: Rings<RingBuf<MapData>>,
    pub(super) pipeline: Pipeline,
    pub(super) baseline: Baseline,
    pub(super) abilities: Abilities,
}

/// Loads and attaches.
///
/// # Errors
///
/// When something is in the way: a [`StartError`](preflight::StartError) in most cases.
pub(super) fn start(options: &TraceOptions) -> Result<Started> {
    preflight::check()?;
    say_missing_privileges();
    // The kernel takes longer to write its symbols down than all the rest takes.
    let stacks = thread::spawn(preflight::read_stacks);
    let kernel = Kernel::read()?;
    let settings = Settings {
        kernel: &kernel,
        ring_bytes: options.ring_size,
        history: options.history,
        filter: options.filter.in_kernel(),
        log: options.bpf_log,
        raw_only: options.raw_tracepoints,
    };
    let before = netns::counters();
    let mut tracer = Tracer::start(&settings)?;
    let baseline = Baseline {
        started: Instant::now(),
        before,
        after: netns::counters(),
    };
    // After the attachment: a socket made before it is in here, one made after it is traced.
    let snapshot = procfs::find_holders(None);
    let listeners = procfs::find_listeners(&snapshot);
    let stacks = match stacks.join() {
        Ok(Ok(stacks)) => stacks,
        Ok(Err(why)) => {
            eprintln!(
                "rstwatch: {why}: resets that this host sends of its own accord get no actor"
            );
            Stacks::unreadable()
        }
        Err(_) => anyhow::bail!("the thread that reads the kernel's symbols panicked"),
    };
    say_how_it_went(options, &kernel, &tracer, snapshot.len());
    give_back_memory();
    let rings = Rings::new(tracer.take_rings()?, tracer.lanes()?.map(Lanes::new));
    keep_up();
    // Before any other thread is started: each has its own capabilities.
    privileges::drop_unneeded(|| tracer.stat(Stat::Sent).is_ok())
        .context("cannot give up the privileges that are no longer needed")?;
    let host = HostFacts {
        uptime: uptime(),
        reasons: cause::Reasons::named_by(&kernel.reasons),
    };
    let abilities = Abilities {
        reasons: host.reasons,
        // Where the tracepoint does not tell of them, functions are hooked.
        without_socket: tracer
            .hooks
            .iter()
            .all(|hook| hook.outcome.is_ok() || hook.hook == INTERRUPTING),
    };
    let interpreter = Interpreter {
        clock: Clock::read()?,
        reasons: kernel.reasons,
        stacks,
    };
    let mut pipeline = Pipeline::new(
        interpreter,
        snapshot,
        listeners,
        host,
        options.filter.clone(),
        sink(options.output),
        options.count.map_or(u64::MAX, NonZeroU64::get),
    );
    if let Some(most) = options.max_rate {
        pipeline.limit_rate(most);
    }
    Ok(Started {
        tracer,
        rings,
        pipeline,
        baseline,
        abilities,
    })
}

/// Says on standard error which hooks there are not, and what that costs; with `--verbose`, how each was
/// attached.
fn say_how_it_went(options: &TraceOptions, kernel: &Kernel, tracer: &Tracer, open_sockets: usize) {
    for hook in &kernel.hooks.missing {
        eprintln!(
            "rstwatch: this kernel has no tracepoint {hook}: {}",
            cost::of_hook(hook)
        );
    }
    if options.verbose {
        for missing in &kernel.missing {
            eprintln!("rstwatch: {missing}");
        }
    }
    for attached in &tracer.hooks {
        say_attached(attached, options.verbose);
    }
    if options.verbose {
        eprintln!("rstwatch: {open_sockets} open sockets at the start");
    }
}

/// Says on standard error what is not known for want of a hook; with `verbose`, how it was attached.
pub(super) fn say_attached(attached: &Attached, verbose: bool) {
    let Attached {
        hook,
        outcome,
        refusal,
    } = attached;
    if verbose && let Some(refusal) = refusal {
        eprintln!("rstwatch: {refusal}");
        if let Some(log) = refusal.verifier_log() {
            eprintln!("{log}");
        }
    }
    match outcome {
        Ok(means) if verbose => eprintln!("rstwatch: {hook} attached as {means}"),
        Ok(_) => {}
        Err(why) => eprintln!("rstwatch: {why}: {}", cost::of_hook(hook)),
    }
}

/// Says on standard error what is not known for want of a capability.
fn say_missing_privileges() {
    let Ok(held) = privileges::effective() else {
        return;
    };
    for need in privileges::missing(&held) {
        // Whether the kernel's symbols can be read depends on more than this one.
        if need.capability != Capability::CAP_SYSLOG
            && let Some(cost) = need.cost
        {
            eprintln!("rstwatch: without {}: {cost}", need.capability);
        }
    }
}

fn sink(output: Output) -> Sink {
    match output {
        Output::Json => Sink::Json(Json::default()),
        Output::Table(options) => Sink::Table(Table::new(options, TimeZone::system())),
        Output::Screen => Sink::Recent(Box::default()),
    }
}

/// Time since boot.
fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Asks for more than an equal share of the processors: where a storm takes all of them, the reader
/// would else wait longer than the ring holds what comes. Whoever may not (without `CAP_SYS_NICE`) has
/// the share that it was given. Threads that are started later inherit it.
fn keep_up() {
    /// As much as three usual processes (`sched_prio_to_weight`, `kernel/sched/core.c`).
    const NICE: i32 = -5;
    // SAFETY: it takes no pointer; 0 is the calling thread.
    unsafe {
        nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICE);
    }
}

/// Gives the memory back to the system that only the start took: reading symbols and types takes more
/// than all the rest does later.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and what is allocated stays so.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
