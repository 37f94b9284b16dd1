//! `rstwatch selftest` and `rstwatch demo`: every kind of reset made on purpose, and traced by the
//! very pipeline that traces for users.
//!
//! What is made, and what must be seen of it, stands in [`crate::scenario`]. Here the scenarios are
//! played side by side, each in network namespaces of its own (`plays`), while this process traces
//! them (`tracing`) into an `inbox`, as JSON; `judge` holds one against the other, cause by
//! cause, and `report` prints that. `demo` shows the events themselves.
//!
//! When the process ends, in whatever way, the kernel ends the processes of the scenarios, and with
//! them their namespaces go.

mod demo;
mod inbox;
mod judge;
mod plays;
mod report;
mod tracing;

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    utsname::uname,
};

pub use self::demo::demo;
use self::{inbox::Inbox, judge::Run, plays::Play, tracing::Tracing};
use crate::{
    cause::CauseId,
    cli::{Cli, Command, Environment, SelftestArgs, TraceOptions},
    scenario::{Family, Scenario, catalogue, netns::Netns},
};

/// For how long scenarios may be played. One that is not begun by then is not right.
const ENOUGH: Duration = Duration::from_secs(40);

/// For how long the events of a scenario may take to be shown when it has been played: some wait
/// for a search of `/proc`.
const PATIENCE: Duration = Duration::from_secs(3);

/// Makes the resets, traces them and prints what came of it. Returns whether all that could be made
/// is right.
///
/// # Errors
///
/// When tracing cannot start, the scenarios cannot be set up, or the run is interrupted.
pub fn selftest(args: &SelftestArgs, environment: &Environment<'_>) -> Result<bool> {
    let started = Instant::now();
    get_ready()?;
    let families = families();
    let wanted = catalogue::all().filter(|scenario| is_wanted(scenario, args));
    let (plays, failed) = plays::set_up(wanted, families)?;
    let inbox = Arc::new(Inbox::default());
    let options = options(&["-j"], &plays, environment)?;
    let tracing = Tracing::start(options, inbox.writer())?;
    let done = plays::play_all(plays, &tracing, &inbox, started + ENOUGH);
    let abilities = tracing.abilities();
    // Why it has ended, if it has, is the better explanation.
    tracing.stop()?;
    let done = done?;
    let run = Run {
        only: args.only.clone(),
        host_limits: args.host_limits,
        played: done
            .iter()
            .map(|done| done.judged(abilities, &inbox))
            .chain(failed)
            .collect(),
    };
    let rows = judge::rows(&run);
    let kernel = uname()
        .context("cannot ask for the kernel's release")?
        .release()
        .to_string_lossy()
        .into_owned();
    let whole = report::Whole {
        kernel,
        families: families.iter().map(|family| family.name()).collect(),
        took: started.elapsed(),
        counts: inbox.counts(),
    };
    let text = if args.json {
        report::json(&rows, &whole)
    } else {
        report::text(&rows, &whole)
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write the result");
        }
        _ => {}
    }
    Ok(report::is_right(&rows, &whole))
}

fn is_wanted(scenario: &Scenario, args: &SelftestArgs) -> bool {
    let asked = args.only.is_empty()
        || scenario
            .expected
            .iter()
            .any(|event| CauseId::from_name(event.cause).is_some_and(|id| args.only.contains(&id)));
    asked && (args.host_limits || !scenario.of_the_host)
}

/// The IP versions that the kernel has.
fn families() -> &'static [Family] {
    if Path::new("/proc/net/if_inet6").exists() {
        &Family::ALL
    } else {
        &[Family::Ipv4]
    }
}

/// What `rstwatch ARGS` does for the namespaces of `plays`: the ordinary command line, read in the
/// ordinary way.
fn options(args: &[&str], plays: &[Play], environment: &Environment<'_>) -> Result<TraceOptions> {
    let namespaces = plays.iter().flat_map(|play| play.stage.netns());
    let words = ["rstwatch"]
        .iter()
        .chain(args)
        .map(|word| (*word).to_owned())
        .chain(namespaces.map(|netns| format!("--netns={netns}")));
    let Command::Trace(args) = Cli::try_parse_from(words)?.into_command() else {
        unreachable!("no subcommand is named");
    };
    Ok(args.into_options(environment)?)
}

/// Makes sure that there are files for two pipes for each role, and that network namespaces can be
/// made: one sentence says more than a failure for each scenario.
fn get_ready() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the file limit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the file limit")?;
    Netns::new().map(drop).context("run it as root")
}
