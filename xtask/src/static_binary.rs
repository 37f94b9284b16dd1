//! The binary that needs nothing of the host it runs on: no shared library, no file.
//!
//! Which C library it is linked with is decided here: the host's own glibc, from its static archive, or
//! else musl, which rustup brings for every toolchain. Events are much copied in small pieces, and with
//! musl's `memcpy` each takes three times as long.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, command, project, rustup, setup};

/// How code is linked so that it needs no shared library.
pub(crate) struct Linking {
    target: String,
    /// For the target alone: build scripts are linked as ever.
    rustflags: Option<&'static str>,
    /// Where cargo puts what it builds.
    directory: PathBuf,
}

impl Linking {
    /// glibc where it can be linked statically, else musl.
    pub(crate) fn find() -> Result<Self> {
        if has_archive("libc.a") {
            return Ok(Self {
                target: format!("{ARCH}-unknown-linux-gnu"),
                rustflags: Some("-Ctarget-feature=+crt-static"),
                // The same target without the flag is built elsewhere.
                directory: project::target().join("static"),
            });
        }
        let target = format!("{ARCH}-unknown-linux-musl");
        eprintln!(
            "build: no static glibc (libc.a) here: linking with musl, which takes more time an event"
        );
        if !has_target(&target) {
            rustup::add_target(&target).context(
                "neither glibc nor musl can be linked statically: install glibc's static archive \
                 (libc6-dev, glibc-static)",
            )?;
        }
        Ok(Self {
            target,
            rustflags: None,
            directory: project::target(),
        })
    }

    /// Cargo at `subcommand` for rstwatch, optimised, with the BPF object inside.
    pub(crate) fn cargo(&self, subcommand: &str, object: &Path) -> Command {
        let mut cargo = project::cargo(subcommand);
        cargo
            .args(["--release", "--package", "rstwatch", "--target"])
            .arg(&self.target)
            .arg("--target-dir")
            .arg(&self.directory)
            .env(build::OBJECT_VARIABLE, object);
        if let Some(flags) = self.rustflags {
            let target = self.target.to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{target}_RUSTFLAGS"), flags);
        }
        cargo
    }

    /// The C library inside, for people.
    pub(crate) fn libc(&self) -> &'static str {
        match self.rustflags {
            None => "musl",
            Some(_) => "glibc",
        }
    }

    fn built(&self) -> PathBuf {
        self.directory.join(&self.target).join("release/rstwatch")
    }
}

/// A static binary, and what it was made of.
pub(crate) struct StaticBinary {
    /// The binary, without debug information.
    pub(crate) path: PathBuf,
    /// The BPF object inside.
    pub(crate) object: PathBuf,
    /// How it was linked, for what is to be linked in the same way.
    pub(crate) linking: Linking,
}

/// Builds it, strips it, and makes sure that it is what it should be.
pub(crate) fn build() -> Result<StaticBinary> {
    let tools = setup::for_building()?;
    let object = build::bpf_object(&tools)?;
    let linking = Linking::find()?;
    let mut build = linking.cargo("build", &object);
    command::run(build.args([
        "--bin",
        "rstwatch",
        "--config",
        "profile.release.strip=true",
    ]))?;
    let path = linking.built();
    check(&path)?;
    Ok(StaticBinary {
        path,
        object,
        linking,
    })
}

/// Whether `binary` starts with no other file's help.
pub(crate) fn check(binary: &Path) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let needed = loaded_by(&bytes)
        .with_context(|| format!("{} is no 64-bit little-endian ELF file", binary.display()))?;
    ensure!(
        !needed,
        "{} asks for a program interpreter: it is not static",
        binary.display()
    );
    Ok(())
}

/// Whether the ELF file names a program interpreter (`PT_INTERP`), as every program that needs a
/// shared library does; `None` when it is no such file.
fn loaded_by(elf: &[u8]) -> Option<bool> {
    /// The type of the program header that names the interpreter.
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    // Class 2: 64 bits; data 1: little endian.
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let headers = u32_at(32)? as usize;
    let size = usize::from(u16_at(54)?);
    for index in 0..usize::from(u16_at(56)?) {
        if u32_at(headers + index * size)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether the C compiler that links finds the static archive `name`: it gives back a name that it does
/// not find as it came.
fn has_archive(name: &str) -> bool {
    let mut cc = Command::new("cc");
    cc.arg(format!("-print-file-name={name}"));
    command::output(&mut cc).is_ok_and(|path| Path::new(path.trim()).is_absolute())
}

/// Whether the toolchain in use has the standard library of `target`.
fn has_target(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    command::output(&mut rustc).is_ok_and(|directory| Path::new(directory.trim()).is_dir())
}

/// Builds the integration test `name` in the same way, and says where it is.
pub(crate) fn test_program(linking: &Linking, object: &Path, name: &str) -> Result<PathBuf> {
    let mut test = linking.cargo("test", object);
    test.args([
        "--no-run",
        "--test",
        name,
        "--message-format",
        "json-render-diagnostics",
    ]);
    // For what dev-dependencies have written in C, which is asked nothing of the C library.
    test.env(format!("CC_{}", linking.target), "cc");
    let messages = command::output(&mut test)?;
    match executable_in(&messages, name) {
        Some(path) => {
            check(&path)?;
            Ok(path)
        }
        None => bail!("`{}` names no program", command::render(&test)),
    }
}

/// The program of the test `name` among cargo's messages, which name what it needs as well.
fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        let is_it = target["name"] == name && target["kind"][0] == "test";
        let executable = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(executable))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_told_from_the_binary_that_it_needs() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"x"},"executable":"/t/x"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"y"},"executable":"/t/deps/y-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"x"},"executable":"/t/deps/x-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable_in(messages, "x"),
            Some(PathBuf::from("/t/deps/x-1"))
        );
        assert_eq!(executable_in(messages, "z"), None);
    }

    #[test]
    fn what_has_an_interpreter_is_not_static() {
        // A header of 64 bytes, one program header of 56 behind it.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        assert_eq!(loaded_by(&elf), Some(false));
        elf[64] = 3;
        assert_eq!(loaded_by(&elf), Some(true));
        assert_eq!(loaded_by(b"#!/bin/sh"), None);
    }
}
