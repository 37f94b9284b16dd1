//! QEMU: this system's, which is installed where it can be. Where another of QEMU's packages is of a version
//! that does not go with it, the newest that Debian has is unpacked into `target/vm` instead, with all its
//! libraries, and run by its own loader: nothing of this system's is taken away for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    archive::{Archive, field},
    command, packages, project,
};

/// QEMU's program, and the package that holds it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Where the parts are below the directory in which the packages are unpacked.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// A QEMU that can be run.
#[derive(Debug)]
pub(super) enum Qemu {
    /// This system's.
    Installed(PathBuf),
    /// One that was unpacked here.
    Unpacked(PathBuf),
}

impl Qemu {
    /// Finds it, or fetches it.
    pub(super) fn find_or_fetch() -> Result<Self> {
        let refusal = match packages::for_guests() {
            Ok(()) => {
                let program = command::find(PROGRAM)
                    .with_context(|| format!("there is no {PROGRAM}, although it is installed"))?;
                return Ok(Self::Installed(program));
            }
            Err(refusal) => refusal,
        };
        eprintln!("vm: this system's QEMU cannot be installed: fetching one to run from here");
        let fetched = Self::fetch().map(Self::Unpacked);
        fetched.with_context(|| format!("nor was it installed: {refusal:#}"))
    }

    fn fetch() -> Result<PathBuf> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "Debian's packages are fetched for x86-64 only"
        );
        let archive = Archive::open(false)?;
        let stanza = archive.show(PACKAGE)?;
        let version =
            field(&stanza, "Version").context("none of Debian's suites has a package of it")?;
        let above = project::target().join("vm");
        fs::create_dir_all(&above).with_context(|| format!("cannot make {}", above.display()))?;
        let directory = above.join(format!("qemu-{}", version.replace([':', '/'], "-")));
        if !directory.exists() {
            archive.unpack(&archive.with_dependencies(PACKAGE)?, &directory)?;
        }
        Ok(directory)
    }

    /// The beginning of a command.
    pub(super) fn command(&self) -> Command {
        match self {
            Self::Installed(program) => Command::new(program),
            Self::Unpacked(directory) => unpacked(directory),
        }
    }
}

fn unpacked(directory: &Path) -> Command {
    let mut command = Command::new(directory.join(LOADER));
    command
        .arg("--library-path")
        .arg(directory.join(LIBRARIES))
        .arg(directory.join("usr/bin").join(PROGRAM));
    for firmware in FIRMWARE {
        command.arg("-L").arg(directory.join(firmware));
    }
    command
}
