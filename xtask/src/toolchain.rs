//! The Rust toolchain that builds the BPF object.
//!
//! The BPF targets come without a compiled `core`, so cargo builds it from the library's sources.
//! That takes those sources beside the compiler, and unstable options. rustup's nightly will do,
//! and so will a distribution's stable release with `RUSTC_BOOTSTRAP`. Either is called by its
//! absolute path, so that nothing about the user's rustup needs to change.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{apt::Apt, command, project, rustup};

/// Debian's packages of one Rust release: compiler, cargo, sources, clippy. The first family is the
/// newer release that Debian keeps in its stable distributions.
const DEBIAN_FAMILIES: [[&str; 4]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
    ["rustc", "cargo", "rust-src", "rust-clippy"],
];

/// How to get a toolchain where this program cannot.
const ADVICE: &str = "install one with `rustup toolchain install nightly --profile minimal \
                      --component rust-src`, or this system's rustc, cargo and rust-src of one \
                      version, then start this again";

/// A major and a minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32);

impl Version {
    /// The leading `MAJOR.MINOR` of `text`; what follows is ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self(major, minor))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Compiler {
    /// The first line: `rustc 1.96.0 (ac68faa20 2026-05-25)`.
    title: String,
    release: String,
    llvm: String,
    llvm_major: u32,
}

impl Compiler {
    fn parse(verbose_version: &str) -> Option<Self> {
        let field = |name: &str| {
            verbose_version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let llvm = field("LLVM version")?;
        Some(Self {
            title: verbose_version.lines().next()?.to_owned(),
            release: field("release")?.to_owned(),
            llvm: llvm.to_owned(),
            llvm_major: Version::parse(llvm)?.0,
        })
    }

    /// Nightly and locally built compilers take unstable options as they are.
    fn is_stable(&self) -> bool {
        !self.release.contains("-nightly") && !self.release.contains("-dev")
    }
}

/// A toolchain that can build `core` for the BPF target.
pub(crate) struct Toolchain {
    sysroot: PathBuf,
    compiler: Compiler,
}

impl Toolchain {
    /// The toolchain in `sysroot`, or why it cannot be used.
    fn inspect(sysroot: PathBuf) -> Result<Self> {
        let rustc = sysroot.join("bin/rustc");
        let text = command::output(detached(&rustc).arg("-vV"))?;
        let compiler = Compiler::parse(&text)
            .with_context(|| format!("`{} -vV` names no LLVM version", rustc.display()))?;
        let release = Version::parse(&compiler.release);
        ensure!(
            release >= Version::parse(project::RUST_VERSION),
            "{} is older than {}",
            compiler.title,
            project::RUST_VERSION
        );
        let sources = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
        ensure!(
            sources.exists(),
            "{} comes without the library's sources ({} is missing)",
            compiler.title,
            sources.display()
        );
        let toolchain = Self { sysroot, compiler };
        let cargo = command::output(toolchain.program("cargo").arg("-V"))?;
        ensure!(
            cargo.strip_prefix("cargo ").and_then(Version::parse) == release,
            "{} does not go with {}",
            cargo.trim(),
            toolchain.compiler.title
        );
        Ok(toolchain)
    }

    /// Its cargo, set to compile with its own rustc.
    pub(crate) fn cargo(&self) -> Command {
        self.set_up(self.program("cargo"))
    }

    /// Its `cargo clippy`, when it has clippy.
    pub(crate) fn clippy(&self) -> Option<Command> {
        // Called directly: `cargo clippy` looks in ~/.cargo/bin first, where rustup's lies.
        let clippy = self.sysroot.join("bin/cargo-clippy");
        if !clippy.exists() {
            return None;
        }
        let mut command = self.set_up(detached(&clippy));
        command.env("CARGO", self.sysroot.join("bin/cargo"));
        command.arg("clippy");
        Some(command)
    }

    /// Its rustc.
    pub(crate) fn rustc(&self) -> Command {
        self.program("rustc")
    }

    /// The major version of its LLVM.
    pub(crate) fn llvm_major(&self) -> u32 {
        self.compiler.llvm_major
    }

    /// What tells this toolchain from every other; nightlies differ in the commit alone.
    pub(crate) fn identity(&self) -> String {
        format!("{}, {self}", self.compiler.title)
    }

    /// The LLVM library that its rustc runs on.
    pub(crate) fn llvm_library(&self) -> Option<PathBuf> {
        let lib = self.sysroot.join("lib");
        // Debian keeps libraries one level deeper, in a directory for each architecture.
        let below = files_in(&lib).filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains("-linux-"))
        });
        let directories = [lib.clone(), self.sysroot.join("lib64")];
        let mut libraries = directories
            .into_iter()
            .chain(below)
            .flat_map(|directory| files_in(&directory).collect::<Vec<_>>());
        libraries.find(|path| {
            path.file_name().is_some_and(|name| {
                is_llvm_library(&name.to_string_lossy(), self.compiler.llvm_major)
            })
        })
    }

    fn program(&self, name: &str) -> Command {
        detached(&self.sysroot.join("bin").join(name))
    }

    fn set_up(&self, mut command: Command) -> Command {
        command
            .current_dir(project::root())
            .env("RUSTC", self.sysroot.join("bin/rustc"));
        if self.compiler.is_stable() {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiler { release, llvm, .. } = &self.compiler;
        let sysroot = self.sysroot.display();
        write!(f, "rustc {release} (LLVM {llvm}) in {sysroot}")
    }
}

/// Whether `name` is the shared library of LLVM `major`: `libLLVM.so.22.1`, or rustup's
/// `libLLVM.so.22.1-rust-1.97.0-nightly`. `libLLVM-22.so` is but a link or linker script.
fn is_llvm_library(name: &str, major: u32) -> bool {
    name.strip_prefix("libLLVM.so.")
        .and_then(Version::parse)
        .is_some_and(|version| version.0 == major)
}

fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    directory
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// A command that knows nothing of the toolchain that runs this program.
fn detached(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in env::vars_os().map(|(name, _)| name) {
        if chooses_a_toolchain(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether the variable `name` picks a toolchain or its flags, rather than a registry or a cache.
fn chooses_a_toolchain(name: &str) -> bool {
    matches!(
        name,
        "CARGO"
            | "RUSTC"
            | "RUSTDOC"
            | "RUSTFLAGS"
            | "RUSTC_WRAPPER"
            | "RUSTC_WORKSPACE_WRAPPER"
            | "CARGO_ENCODED_RUSTFLAGS"
            | "CARGO_TARGET_DIR"
            | "LD_LIBRARY_PATH"
    ) || name.starts_with("CARGO_BUILD_")
        || name.starts_with("RUSTUP_TOOLCHAIN")
}

/// Finds the toolchain, or brings one here.
pub(crate) fn find_or_install(apt: &mut Apt) -> Result<Toolchain> {
    let mut refusals = Vec::new();
    let nightly = rustup::nightly()?;
    let has_nightly = nightly.is_some();
    for candidate in [nightly, system_sysroot()].into_iter().flatten() {
        match Toolchain::inspect(candidate) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => refusals.push(reason),
        }
    }

    // Tried only with nothing usable here, so a machine on which rustup can fetch nothing does not
    // try again once the distribution's toolchain is installed.
    match rustup::fetch_nightly(has_nightly) {
        Ok(()) => {
            let nightly = rustup::nightly()?.context("rustup installed no nightly toolchain")?;
            return Toolchain::inspect(nightly).context(ADVICE);
        }
        Err(reason) => {
            eprintln!("setup: rustup could not: {reason:#}");
            refusals.push(anyhow!("rustup could not fetch a nightly"));
        }
    }
    let installed = install_debian(apt).and_then(|()| {
        let sysroot = system_sysroot().ok_or_else(|| anyhow!("/usr/bin/rustc does not run"))?;
        Toolchain::inspect(sysroot)
    });
    installed.map_err(|reason| {
        refusals.push(reason);
        let reasons: Vec<_> = refusals
            .iter()
            .map(|reason| format!("{reason:#}"))
            .collect();
        anyhow!(
            "no Rust toolchain here can build the BPF object: {}; {ADVICE}",
            reasons.join("; ")
        )
    })
}

/// Where the distribution's rustc has its files. It is asked, because `/usr/bin/rustc` may be
/// rustup's own stand-in.
fn system_sysroot() -> Option<PathBuf> {
    let mut rustc = detached(Path::new("/usr/bin/rustc"));
    let sysroot = command::output(rustc.args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(sysroot.trim()))
}

fn install_debian(apt: &mut Apt) -> Result<()> {
    if !Apt::is_here() {
        bail!("there is no apt-get to install the distribution's toolchain with");
    }
    apt.update()?;
    let oldest = Version::parse(project::RUST_VERSION);
    for family in DEBIAN_FAMILIES {
        let Some(version) = Apt::candidate(family[0])? else {
            continue;
        };
        if Version::parse(&version) < oldest {
            continue;
        }
        // One version for all: compiler, cargo and sources are of no use apart.
        let packages: Vec<_> = family
            .iter()
            .map(|package| format!("{package}={version}"))
            .collect();
        return apt.install(&packages, &[], "a rustc with its library's sources");
    }
    bail!(
        "neither {} nor {} is packaged here as {} or later",
        DEBIAN_FAMILIES[0][0],
        DEBIAN_FAMILIES[1][0],
        project::RUST_VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                          binary: rustc\n\
                          host: x86_64-unknown-linux-gnu\n\
                          release: 1.96.0\n\
                          LLVM version: 22.1.8\n";

    #[test]
    fn the_compiler_is_read_from_its_version() {
        let compiler = Compiler::parse(DEBIAN).expect("a complete version");
        assert_eq!(compiler.release, "1.96.0");
        assert_eq!(compiler.llvm_major, 22);
        assert!(compiler.is_stable());
        assert!(compiler.title.starts_with("rustc 1.96.0 (ac68faa20"));
    }

    #[test]
    fn a_nightly_needs_no_leave_for_unstable_options() {
        let text = DEBIAN.replace("release: 1.96.0", "release: 1.97.0-nightly");
        assert!(!Compiler::parse(&text).expect("a version").is_stable());
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        let text = DEBIAN.replace("LLVM version", "Cranelift version");
        assert_eq!(Compiler::parse(&text), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(
            Version::parse("1.96.0+dfsg1-1~deb12u2"),
            Some(Version(1, 96))
        );
        assert!(Version::parse("1.101.0-nightly") > Version::parse("1.95"));
        assert!(Version::parse("1.63.0") < Version::parse("1.95"));
        assert_eq!(Version::parse("(none)"), None);
    }

    #[test]
    fn only_the_library_itself_is_llvm() {
        assert!(is_llvm_library("libLLVM.so.22.1", 22));
        assert!(is_llvm_library("libLLVM.so.22.1-rust-1.97.0-nightly", 22));
        assert!(!is_llvm_library("libLLVM-22.so", 22));
        assert!(!is_llvm_library("libLLVM.so.22.1", 23));
        assert!(!is_llvm_library("libLLVM.so.1", 1));
    }

    #[test]
    fn the_bpf_build_forgets_the_host_toolchain_but_not_the_registry() {
        assert!(chooses_a_toolchain("RUSTUP_TOOLCHAIN"));
        assert!(chooses_a_toolchain("CARGO_BUILD_TARGET"));
        assert!(!chooses_a_toolchain("CARGO_HOME"));
        assert!(!chooses_a_toolchain("CARGO_NET_OFFLINE"));
        assert!(!chooses_a_toolchain("RUSTUP_HOME"));
    }
}
