//! Every test, with the real BPF object and as root.

use std::{env::consts::ARCH, ffi::OsString};

use anyhow::Result;

use crate::{build, command, project, setup};

/// Builds what is tested, then runs `cargo test` with `args`.
///
/// The tests themselves are built unoptimised, which is quicker on few cores; what they run, by the
/// name in `RSTWATCH_BIN`, is the optimised binary.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    heading("setup");
    let tools = setup::for_testing()?;
    heading("build");
    let built = build::with(&tools)?;
    heading("test");
    let mut test = project::cargo("test");
    test.args(args)
        .env(build::OBJECT_VARIABLE, &built.object)
        .env("RSTWATCH_BIN", &built.binary);
    if !command::is_root()? {
        test.env(runner_variable(), "sudo --preserve-env");
    }
    command::run(&mut test)
}

/// A line that sets one part of a long output apart from the next.
pub(crate) fn heading(text: &str) {
    eprintln!("\n==> {text}");
}

/// The variable that names what cargo starts test programs with, on this host.
fn runner_variable() -> String {
    let abi = if cfg!(target_env = "musl") {
        "MUSL"
    } else {
        "GNU"
    };
    format!(
        "CARGO_TARGET_{}_UNKNOWN_LINUX_{abi}_RUNNER",
        ARCH.to_uppercase()
    )
}
