//! Getting ready: learns the kernel, loads and attaches, and takes stock of what is there already.

use std::{
    fs,
    num::NonZeroU64,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use jiff::tz::TimeZone;
use rstwatch_common::layout::Features;

use super::counters::Baseline;
use crate::{
    btf::Btf,
    cause::{self, HostFacts},
    cli::{Output, TraceOptions},
    clock::Clock,
    event::Reason,
    interpret::Interpreter,
    kernel::{
        layout::{self, TRACEPOINTS},
        reasons::Reasons,
        stack::Stacks,
    },
    load::{
        Settings, Tracer,
        preflight::{self, StartError},
    },
    netns,
    owner::procfs,
    pipeline::Pipeline,
    sink::{Sink, json::Json, table::Table},
};

/// Where the kernel lists its symbols.
const KALLSYMS: &str = "/proc/kallsyms";

/// Everything that a run needs.
pub(super) struct Started {
    pub(super) tracer: Tracer,
    pub(super) ring: RingBuf<MapData>,
    pub(super) pipeline: Pipeline,
    pub(super) baseline: Baseline,
}

/// Loads and attaches.
///
/// # Errors
///
/// When something is in the way: a [`StartError`] in most cases.
pub(super) fn start(options: &TraceOptions) -> Result<Started> {
    preflight::check()?;
    // The kernel takes longer to write its symbols down than all the rest takes.
    let stacks = thread::spawn(read_stacks);
    let bytes = preflight::read_btf()?;
    let btf = Btf::parse(&bytes).map_err(|error| StartError::BadBtf(error.to_string()))?;
    let (layout, missing) =
        layout::resolve(&btf).map_err(|error| StartError::BadBtf(error.to_string()))?;
    let hooks = layout::hooks(&btf);
    if let Some(name) = hooks.missing.first() {
        return Err(StartError::NoTracepoint(name).into());
    }
    let reasons = Reasons::from_btf(&btf);
    let settings = Settings {
        layout,
        features: Features {
            send_reset_reason: u8::from(hooks.send_reset_reason),
            current_task_btf: u8::from(hooks.current_task_btf),
        },
        ring_bytes: options.ring_size,
        history: options.history,
        log: options.bpf_log,
        raw_only: options.raw_tracepoints,
    };
    let before = netns::sent_resets();
    let (tracer, ring) = Tracer::start(&settings)?;
    let baseline = Baseline {
        started: Instant::now(),
        before,
        after: netns::sent_resets(),
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
        Err(_) => anyhow::bail!("the thread that reads {KALLSYMS} panicked"),
    };
    if options.verbose {
        for missing in &missing {
            eprintln!("rstwatch: {missing}");
        }
        for (hook, means) in TRACEPOINTS.iter().zip(tracer.means) {
            eprintln!("rstwatch: {hook} attached as {means}");
        }
        eprintln!("rstwatch: {} open sockets at the start", snapshot.len());
    }
    let host = HostFacts {
        uptime: uptime(),
        reasons: named_reasons(&reasons),
    };
    let interpreter = Interpreter {
        clock: Clock::read()?,
        reasons,
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
        ring,
        pipeline,
        baseline,
    })
}

fn sink(output: Output) -> Sink {
    match output {
        Output::Json => Sink::Json(Json::default()),
        Output::Table(options) => Sink::Table(Table::new(options, TimeZone::system())),
        Output::Screen => Sink::Recent(Box::default()),
    }
}

fn read_stacks() -> Result<Stacks> {
    let text = fs::read(Path::new(KALLSYMS)).with_context(|| format!("cannot read {KALLSYMS}"))?;
    Stacks::from_kallsyms(&text).with_context(|| {
        format!("{KALLSYMS} shows no addresses (set kernel.kptr_restrict to 0 or 1)")
    })
}

/// For which resets this kernel names a reason: those of its own accord got theirs in 6.12.
fn named_reasons(reasons: &Reasons) -> cause::Reasons {
    if reasons.is_empty() {
        cause::Reasons::None
    } else if reasons.knows(Reason::AbortOnClose) {
        cause::Reasons::All
    } else {
        cause::Reasons::Passive
    }
}

/// Time since boot.
fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
