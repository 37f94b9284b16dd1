//! Formatting, lints and documentation.

use anyhow::Result;

use crate::{
    build, command, project,
    setup::{self, BpfTools},
    test::heading,
};

/// Everything that can be checked without running rstwatch.
pub(crate) fn run() -> Result<()> {
    heading("formatting");
    command::run(project::cargo("fmt").args(["--all", "--check"]))?;
    heading("clippy");
    command::run(project::cargo("clippy").args(["--all-targets", "--", "-Dwarnings"]))?;
    heading("clippy for BPF");
    lint_bpf(&setup::for_building()?)?;
    heading("documentation");
    let mut doc = project::cargo("doc");
    command::run(doc.arg("--no-deps").env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// Lints the BPF crate with the toolchain that builds it; the host's cannot compile it.
fn lint_bpf(tools: &BpfTools) -> Result<()> {
    let mut lint = tools.toolchain.clippy().unwrap_or_else(|| {
        eprintln!(
            "lint: no clippy in {}: only the compiler's own warnings are checked (Debian: \
             `apt-get install rust-web-clippy`)",
            tools.toolchain
        );
        let mut cargo = tools.toolchain.cargo();
        // Flags of `cargo rustc` are for the last crate alone, so `core` is not built again.
        cargo.arg("rustc");
        cargo
    });
    command::run(build::for_bpf(&mut lint, tools).args(["--", "-Dwarnings"]))
}
