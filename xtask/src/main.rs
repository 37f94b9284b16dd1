//! Project automation: `cargo xtask <command>`.

mod apt;
mod archive;
mod bench;
mod build;
mod command;
mod dist;
mod linker;
mod lint;
mod load;
mod markdown;
mod packages;
mod project;
mod rustup;
mod setup;
mod static_binary;
mod test;
mod toolchain;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Sets up, builds, runs and tests rstwatch.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install all that building and testing need
    Setup,
    /// Build the BPF object and the optimised binary around it
    Build,
    /// Build, then run rstwatch as root
    Run {
        /// What rstwatch is given
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Build, then run every test, as root
    Test {
        /// What `cargo test` is given
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Build the static binary, its manual, completions and Debian package
    Dist,
    /// Run rstwatch in virtual machines, one for each kernel
    Vm(vm::Arguments),
    /// Check formatting, lints and documentation
    Lint,
    /// Measure what tracing costs, as root
    Bench(bench::Arguments),
    /// The load of the benchmark
    #[command(hide = true)]
    Load {
        /// What kind
        load: load::Load,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::all(),
        Task::Build => build::all().map(drop),
        Task::Run { args } => build::run(&args),
        Task::Test { args } => test::run(&args),
        Task::Dist => dist::run(),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Lint => lint::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Load { load } => load::run(load),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_after_the_first_dashes_is_passed_on() {
        let parsed = Arguments::try_parse_from(["xtask", "test", "--", "-p", "x", "--", "-q"]);
        let Ok(Arguments {
            task: Task::Test { args },
        }) = parsed
        else {
            panic!("`test` was not recognised");
        };
        assert_eq!(args, ["-p", "x", "--", "-q"]);
    }
}
