//! Writes the manual pages and the shells' completions from the definition of the command line.
//!
//! `write-manual DIRECTORY` leaves `man/rstwatch*.1` there, a page for each subcommand, and
//! `completions/rstwatch.bash`, `_rstwatch` (zsh) and `rstwatch.fish`. `cargo xtask dist` runs it.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use rstwatch::cli::Cli;

/// The command's name.
const NAME: &str = "rstwatch";

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.context("name the directory to write to")?;
    let man = directory.join("man");
    let completions = directory.join("completions");
    for directory in [&man, &completions] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // `help` is explained by what it prints.
    let command = Cli::command().name(NAME).disable_help_subcommand(true);
    clap_mangen::generate_to(command, &man).context("cannot write the manual pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), NAME, &completions)
            .with_context(|| format!("cannot write the completions for {shell}"))?;
    }
    Ok(())
}
