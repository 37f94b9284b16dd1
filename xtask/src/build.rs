//! The BPF object, and the host's binary around it.

use std::{
    env::consts::ARCH, ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command, project,
    setup::{self, BpfTools},
};

/// The kernel runs BPF in the byte order of the host.
pub(crate) const BPF_TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// The variable through which `rstwatch/build.rs` learns of the object.
pub(crate) const OBJECT_VARIABLE: &str = "RSTWATCH_BPF_OBJECT";

/// What was built.
pub(crate) struct Built {
    /// The BPF object.
    pub(crate) object: PathBuf,
    /// The optimised binary, with the object inside.
    pub(crate) binary: PathBuf,
}

/// Builds both.
pub(crate) fn all() -> Result<Built> {
    with(&setup::for_building()?)
}

/// Builds both with `tools`.
pub(crate) fn with(tools: &BpfTools) -> Result<Built> {
    let object = bpf_object(tools)?;
    let mut build = project::cargo("build");
    build.args(["--release", "--package", "rstwatch"]);
    command::run(build.env(OBJECT_VARIABLE, &object))?;
    let binary = project::target().join("release/rstwatch");
    Ok(Built { object, binary })
}

/// Builds, then becomes rstwatch, so that signals and the exit status are its own.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let binary = all()?.binary;
    let mut rstwatch = command::as_root(&binary)?;
    rstwatch.args(args);
    Err(rstwatch.exec()).with_context(|| format!("cannot start `{}`", command::render(&rstwatch)))
}

/// Builds the BPF object.
pub(crate) fn bpf_object(tools: &BpfTools) -> Result<PathBuf> {
    let mut build = tools.toolchain.cargo();
    build.arg("build");
    command::run(for_bpf(&mut build, tools))?;
    let object = project::target()
        .join("bpf")
        .join(BPF_TARGET)
        .join("release/rstwatch-ebpf");
    if !object.exists() {
        bail!("cargo built no {}", object.display());
    }
    Ok(object)
}

/// Makes `cargo`, at any subcommand, work on the BPF crate: sources, target and flags.
pub(crate) fn for_bpf<'c>(cargo: &'c mut Command, tools: &BpfTools) -> &'c mut Command {
    // A directory of its own: another compiler, whose `core` is not to be built anew each time.
    cargo
        .args(["--package", "rstwatch-ebpf", "--release"])
        .args(["--target", BPF_TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(project::target().join("bpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(tools))
}

/// The flags with which aya-build compiles, and our linker.
fn rustflags(tools: &BpfTools) -> OsString {
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{ARCH}\""));
    // The loader needs BTF, which the linker makes from the debug information.
    for flag in [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Else every small copy and clearing becomes a call that goes byte by byte: it doubles what
        // a received reset costs.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Clinker=",
    ] {
        flags.push("\x1f");
        flags.push(flag);
    }
    flags.push(&tools.linker);
    flags
}
