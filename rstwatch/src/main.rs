//! The command `rstwatch`: reads the command line, runs what it asks for, and turns the outcome
//! into an exit status. Everything else is in the library.

use std::{
    env,
    io::{ErrorKind, IsTerminal, Write, stdout},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use nix::unistd::{SysconfVar, sysconf};
use rstwatch::{
    cli::{Cli, Command, DoctorArgs, EXIT_FAILED, Environment, ExplainArgs},
    doctor, explain,
    load::preflight::StartError,
    netns, run,
    scenario::{ROLE_COMMAND, role},
    selftest,
};
use terminal_size::{Width, terminal_size};

fn main() -> ExitCode {
    // Not for users, and so no part of the command line that is documented: the processes of a
    // scenario.
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|first| first == ROLE_COMMAND) {
        return exit(role::main(args), false);
    }
    match Cli::parse().into_command() {
        Command::Trace(args) => {
            let options = args
                .into_options(&environment())
                .unwrap_or_else(|error| error.exit());
            let verbose = options.verbose;
            exit(block_on(run::trace(options)), verbose)
        }
        Command::Top(args) => {
            let options = args
                .into_options(&environment())
                .unwrap_or_else(|error| error.exit());
            let verbose = options.trace.verbose;
            exit(block_on(run::top::top(options)), verbose)
        }
        Command::Explain(args) => explain(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Selftest(args) => match selftest::selftest(&args, &environment()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(EXIT_FAILED),
            Err(error) => exit(Err(error), false),
        },
        Command::Demo(args) => exit(selftest::demo(&args, &environment()), false),
    }
}

/// Prints what is known of something. A reader that has left, such as a pager, is no failure.
fn explain(args: &ExplainArgs) -> ExitCode {
    let columns = terminal_size().map(|(Width(columns), _)| columns);
    let look = args.look(columns, stdout().is_terminal(), no_color());
    match explain::explain(&args.query(), look) {
        Ok(text) => match stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                exit(Err(error).context("cannot write"), false)
            }
            _ => ExitCode::SUCCESS,
        },
        Err(sentence) => exit(Err(anyhow!(sentence)), false),
    }
}

/// Prints what this host gives. Its exit status says whether that is enough.
fn doctor(args: &DoctorArgs) -> ExitCode {
    let report = doctor::examine();
    let text = match args.look(stdout().is_terminal(), no_color()) {
        Some(look) => report.text(look),
        None => match report.to_json() {
            Ok(line) => line,
            Err(error) => return exit(Err(error).context("cannot write JSON"), false),
        },
    };
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            exit(Err(error).context("cannot write"), false)
        }
        _ if report.works => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILED),
    }
}

/// Whether `NO_COLOR` is set and not empty (no-color.org).
fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn environment() -> Environment<'static> {
    Environment {
        is_terminal: stdout().is_terminal(),
        no_color: no_color(),
        page_size: page_size(),
        netns_inode: &netns::inode_of,
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tasks' runtime")?
        .block_on(work)
}

fn page_size() -> u32 {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(4_096)
}

/// Says what went wrong, on standard error.
fn exit(outcome: Result<()>, verbose: bool) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("rstwatch: {error:#}");
    if verbose
        && let Some(log) = error
            .downcast_ref::<StartError>()
            .and_then(StartError::verifier_log)
    {
        eprintln!("{log}");
    }
    ExitCode::from(EXIT_FAILED)
}
