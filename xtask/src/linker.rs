//! bpf-linker, for the LLVM of the chosen toolchain.
//!
//! rustc hands the BPF object over as LLVM bitcode, which an older LLVM than its own cannot read.
//! No bpf-linker says which LLVM it has, so each is tried on bitcode of the chosen rustc.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command, project,
    toolchain::{Toolchain, Version},
};

/// The release that `setup` builds; an older one on `PATH` is not used.
const VERSION: &str = "0.13.0";

/// LLVM releases that bpf-linker of [`VERSION`] has a feature for.
const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// Bitcode that says something of its LLVM: references carry attributes, and those change.
const SAMPLE: &str = "#[unsafe(no_mangle)]
pub fn sample(values: &mut [u32; 4], other: &u32) -> u32 {
    values[0] = *other;
    values.iter().sum()
}
";

/// Finds the linker for `toolchain`, or builds one.
pub(crate) fn find_or_build(toolchain: &Toolchain) -> Result<PathBuf> {
    let tools = project::tools();
    let note = tools.join("linker");
    if let Some(linker) = noted(&note, toolchain) {
        return Ok(linker);
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;

    let linker = match on_path(toolchain) {
        Some(linker) => linker,
        None => build(toolchain)?,
    };
    let text = note_for(&linker, toolchain)
        .with_context(|| format!("{} does not run", linker.display()))?;
    fs::write(&note, text).with_context(|| format!("cannot write {}", note.display()))?;
    Ok(linker)
}

/// The linker of an earlier run, when neither it nor the toolchain has changed since.
fn noted(note: &Path, toolchain: &Toolchain) -> Option<PathBuf> {
    let text = fs::read_to_string(note).ok()?;
    let linker = PathBuf::from(text.lines().next()?);
    (note_for(&linker, toolchain)? == text).then_some(linker)
}

/// All that the trial's outcome depends on. The linker is run, since it starts only as long as the
/// LLVM library that it was linked to is there.
fn note_for(linker: &Path, toolchain: &Toolchain) -> Option<String> {
    let version = version(linker)?;
    let meta = fs::metadata(linker).ok()?;
    Some(format!(
        "{}\n{version}, {} bytes of {}\n{}\n",
        linker.display(),
        meta.size(),
        meta.mtime(),
        toolchain.identity()
    ))
}

fn version(linker: &Path) -> Option<Version> {
    let text = command::output(Command::new(linker).arg("--version")).ok()?;
    version_in(&text)
}

/// The version in the output of `bpf-linker --version`.
fn version_in(text: &str) -> Option<Version> {
    text.split_whitespace().nth(1).and_then(Version::parse)
}

/// bpf-linker of the user, when it is recent enough and reads the toolchain's bitcode.
fn on_path(toolchain: &Toolchain) -> Option<PathBuf> {
    let linker = command::find("bpf-linker")?;
    let refusal = if version(&linker) < Version::parse(VERSION) {
        format!("is older than {VERSION}, or does not run")
    } else if let Err(error) = try_out(&linker, toolchain) {
        format!(
            "does not link for LLVM {}: {error:#}",
            toolchain.llvm_major()
        )
    } else {
        return Some(linker);
    };
    eprintln!("setup: {} {refusal}", linker.display());
    None
}

/// Links a sample of the toolchain's bitcode.
fn try_out(linker: &Path, toolchain: &Toolchain) -> Result<()> {
    let tools = project::tools();
    let [source, bitcode, object] =
        ["sample.rs", "sample.bc", "sample.o"].map(|name| tools.join(name));
    fs::write(&source, SAMPLE).with_context(|| format!("cannot write {}", source.display()))?;
    // For the host, whose `core` comes compiled; the bitcode's format is the same.
    let mut rustc = toolchain.rustc();
    rustc.args(["--edition", "2024", "--crate-type", "lib", "-O", "-g"]);
    rustc.args(["--emit", "llvm-bc", "-o"]).arg(&bitcode);
    command::output(rustc.arg(&source))?;
    let mut link = Command::new(linker);
    link.args(["--btf", "--target", crate::build::BPF_TARGET, "-o"]);
    command::output(link.arg(&object).arg(&bitcode))?;
    for file in [source, bitcode, object] {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

/// Builds the linker into `target/tools`.
fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let major = toolchain.llvm_major();
    let tools = project::tools();
    let linker = tools.join("bin/bpf-linker");
    if !LLVM_MAJORS.contains(&major) {
        bail!(
            "bpf-linker {VERSION} supports LLVM {} to {}, not the {major} of {}: put a bpf-linker \
             for LLVM {major} on PATH",
            LLVM_MAJORS.start(),
            LLVM_MAJORS.end(),
            toolchain
        );
    }
    eprintln!(
        "setup: bpf-linker {VERSION} for LLVM {major} -> {} (it links what {} compiles)",
        project::shown(&linker),
        toolchain
    );
    let prefix = llvm_prefix(toolchain)?;
    let mut install = project::cargo("install");
    // cargo would keep its own temporary directory; ours would keep the build for nothing.
    install.env_remove("CARGO_TARGET_DIR");
    install
        .args(["--quiet", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--force", "--no-default-features", "--features"])
        .arg(format!("llvm-{major}"))
        .arg("--root")
        .arg(&tools)
        // Else cargo would advise to put this directory on PATH.
        .env("PATH", path_with(&tools.join("bin"))?)
        .env("LLVM_PREFIX", &prefix);
    command::run(&mut install).with_context(|| {
        format!(
            "bpf-linker could not be built on the LLVM in {}: put a bpf-linker {VERSION} for LLVM \
             {major} on PATH",
            prefix.display()
        )
    })?;
    try_out(&linker, toolchain).with_context(|| {
        format!(
            "{} was built and does not link: remove {} and start this again",
            linker.display(),
            tools.display()
        )
    })?;
    Ok(linker)
}

fn path_with(directory: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain([directory.to_owned()]);
    env::join_paths(all).with_context(|| format!("{} cannot be on PATH", directory.display()))
}

/// The directory whose `lib` holds LLVM.
///
/// bpf-linker needs the shared library alone, and rustc's own is of the right version without
/// asking, so no development package is: a directory of links gives it the name that `-lLLVM` looks
/// for, and the one that the linker will look for when it runs.
fn llvm_prefix(toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(PathBuf::from(prefix));
    }
    let major = toolchain.llvm_major();
    let library = toolchain.llvm_library().with_context(|| {
        format!(
            "{toolchain} comes without a shared LLVM library to build bpf-linker on: put a \
             bpf-linker for LLVM {major} on PATH, or set LLVM_PREFIX to the directory of an LLVM \
             {major} with lib/libLLVM.so"
        )
    })?;
    let prefix = project::tools().join("llvm");
    let lib = prefix.join("lib");
    if lib.exists() {
        fs::remove_dir_all(&lib).with_context(|| format!("cannot clear {}", lib.display()))?;
    }
    fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
    let name = library.file_name().context("a library without a name")?;
    for link in [lib.join("libLLVM.so"), lib.join(name)] {
        symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word() {
        assert_eq!(version_in("bpf-linker 0.13.0\n"), Version::parse(VERSION));
        assert_eq!(version_in("bpf-linker"), None);
    }
}
