//! `cargo xtask dist`: what is given to others, in `target/dist`.
//!
//! - `rstwatch`: the static binary;
//! - `man`, `completions`: made from the definition of the command line;
//! - `rstwatch_VERSION_ARCHITECTURE.deb`: all of it with a systemd unit;
//! - `SHA256SUMS`.
//!
//! The package is unpacked again, and its parts are tried.

use std::{
    env::consts::ARCH,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, command, project, static_binary, static_binary::StaticBinary, test::heading};

/// The version of all packages of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a user of the package reads beside the manual.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "docs/CAUSES.md",
    "docs/KERNELS.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "LICENSE-GPL2",
];

/// Where the package puts what is not found by its name alone.
const DOC: &str = "usr/share/doc/rstwatch";
const MAN: &str = "usr/share/man/man1";
const UNIT: &str = "usr/lib/systemd/system/rstwatch.service";
const COMPLETIONS: [(&str, &str); 3] = [
    (
        "rstwatch.bash",
        "usr/share/bash-completion/completions/rstwatch",
    ),
    ("_rstwatch", "usr/share/zsh/vendor-completions/_rstwatch"),
    (
        "rstwatch.fish",
        "usr/share/fish/vendor_completions.d/rstwatch.fish",
    ),
];

/// Builds everything.
pub(crate) fn run() -> Result<()> {
    heading("static binary");
    let built = static_binary::build()?;
    let out = project::target().join("dist");
    renew(&out)?;
    let binary = out.join("rstwatch");
    copy(&built.path, &binary, 0o755)?;
    heading("manual and completions");
    write_manual(&built, &out)?;
    heading("package");
    let package = build_package(&out)?;
    write_sums(&out, &["rstwatch", &name_of(&package)])?;
    heading("trying them");
    try_package(&out, &package)?;
    report(&built, &binary, &package)
}

/// An empty directory at `path`.
fn renew(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot clear {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Copies a file, with the directories that it lies in.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let write = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(to, bytes)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    write().with_context(|| format!("cannot write {}", to.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn write_manual(built: &StaticBinary, out: &Path) -> Result<()> {
    let mut example = project::cargo("run");
    example.args(["--quiet", "--package", "rstwatch"]);
    example.args(["--example", "write-manual", "--"]).arg(out);
    command::run(example.env(build::OBJECT_VARIABLE, &built.object))
}

/// Debian's name for the processor.
fn architecture() -> Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no package is made for {other}"),
    }
}

/// Puts the package's files together, and packs them.
fn build_package(out: &Path) -> Result<PathBuf> {
    ensure!(
        command::find("dpkg-deb").is_some(),
        "there is no dpkg-deb to make a Debian package with: the binary itself is {}",
        out.join("rstwatch").display()
    );
    let tree = out.join("tree");
    copy(&out.join("rstwatch"), &tree.join("usr/bin/rstwatch"), 0o755)?;
    for (from, to) in COMPLETIONS {
        copy(&out.join("completions").join(from), &tree.join(to), 0o644)?;
    }
    for page in files_in(&out.join("man"))? {
        let to = tree.join(MAN).join(name_of(&page));
        copy(&page, &to, 0o644)?;
        // Without its time of day, so that the same page gives the same file.
        command::run(Command::new("gzip").args(["-9", "-n"]).arg(&to))?;
    }
    for document in DOCUMENTS {
        let from = project::root().join(document);
        copy(&from, &tree.join(DOC).join(name_of(&from)), 0o644)?;
    }
    let packaging = project::root().join("packaging");
    copy(
        &packaging.join("copyright"),
        &tree.join(DOC).join("copyright"),
        0o644,
    )?;
    copy(&packaging.join("rstwatch.service"), &tree.join(UNIT), 0o644)?;
    let installed = size_of(&tree)?.div_ceil(1024);
    let control = tree.join("DEBIAN");
    fs::create_dir(&control)?;
    fs::write(
        control.join("control"),
        control_file(architecture()?, installed),
    )?;

    let package = out.join(format!("rstwatch_{VERSION}_{}.deb", architecture()?));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zxz", "--build"]);
    // The same sources give the same package.
    if let Some(time) = time_of_sources() {
        pack.env("SOURCE_DATE_EPOCH", time);
    }
    command::output(pack.arg(&tree).arg(&package))?;
    fs::remove_dir_all(&tree)?;
    Ok(package)
}

/// Seconds since 1970 at which the sources were last changed, if git knows.
fn time_of_sources() -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(project::root())
        .args(["log", "-1", "--format=%ct"]);
    Some(command::output(&mut git).ok()?.trim().to_owned())
}

fn control_file(architecture: &str, installed_kib: u64) -> String {
    format!(
        "Package: rstwatch\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: the rstwatch authors <root@localhost>\n\
         Section: net\n\
         Priority: optional\n\
         Installed-Size: {installed_kib}\n\
         Description: tracer of TCP resets\n \
         rstwatch says of every TCP reset that this host sends or receives whose connection\n \
         it was, who pulled the trigger, for which cause, and how sure that is. It needs Linux\n \
         5.10 or later with BTF, and nothing else: the binary is static.\n \
         .\n \
         The service rstwatch writes them to the journal; it is not enabled by itself.\n"
    )
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Bytes of all files below `directory`.
fn size_of(directory: &Path) -> Result<u64> {
    let mut size = 0;
    for path in files_in(directory)? {
        size += if path.is_dir() {
            size_of(&path)?
        } else {
            fs::metadata(&path)?.len()
        };
    }
    Ok(size)
}

fn write_sums(out: &Path, names: &[&str]) -> Result<()> {
    let mut sum = Command::new("sha256sum");
    let sums = command::output(sum.current_dir(out).arg("--").args(names))?;
    fs::write(out.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")
}

/// Unpacks the package, and tries what is in it.
fn try_package(out: &Path, package: &Path) -> Result<()> {
    let root = out.join("unpacked");
    let mut check = Command::new("sha256sum");
    command::output(
        check
            .current_dir(out)
            .args(["--check", "--strict", "SHA256SUMS"]),
    )?;
    command::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(&root),
    )?;

    let binary = root.join("usr/bin/rstwatch");
    static_binary::check(&binary)?;
    let version = command::output(Command::new(&binary).arg("--version"))?;
    ensure!(
        version.trim() == format!("rstwatch {VERSION}"),
        "the packed binary calls itself `{}`",
        version.trim()
    );
    say(&format!("{} runs", version.trim()));

    let pages = files_in(&root.join(MAN))?;
    if command::find("man").is_some() {
        for page in &pages {
            try_page(page)?;
        }
        say(&format!("man shows {} pages", pages.len()));
    } else {
        say("there is no man here to show the pages with");
    }

    let (_, bash) = COMPLETIONS[0];
    try_completion(&root.join(bash))?;
    say("bash completes subcommands and options");

    if command::find("systemd-analyze").is_some() {
        try_unit(&root.join(UNIT), &binary)?;
        say("systemd takes the unit");
    } else {
        say("there is no systemd-analyze here to read the unit with");
    }
    fs::remove_dir_all(&root).context("cannot clear up")
}

fn say(text: &str) {
    eprintln!("dist: {text}");
}

/// Has man show a page, and makes sure that it has something to say and nothing to complain of.
fn try_page(page: &Path) -> Result<()> {
    let mut man = Command::new("man");
    man.args(["--warnings", "--local-file"]).arg(page);
    let output = man
        .envs([
            ("MANWIDTH", "80"),
            ("LC_ALL", "C.UTF-8"),
            ("MANPAGER", "cat"),
        ])
        .output()
        .context("cannot start man")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaints.trim().is_empty(),
        "man does not show {}: {}",
        page.display(),
        complaints.trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("NAME") && text.contains("SYNOPSIS"),
        "{} shows no manual page",
        page.display()
    );
    Ok(())
}

/// Has bash complete words with the file.
fn try_completion(file: &Path) -> Result<()> {
    const SCRIPT: &str = r#"
        set -eu
        source "$1"
        complete -p rstwatch >/dev/null
        COMP_WORDS=(rstwatch "$2") COMP_CWORD=1 COMPREPLY=()
        _rstwatch rstwatch "$2" rstwatch
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    for (begin, whole) in [("expl", "explain"), ("--dura", "--duration")] {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", SCRIPT, "bash"])
            .arg(file)
            .arg(begin);
        let replies = command::output(&mut bash)?;
        ensure!(
            replies.lines().any(|reply| reply == whole),
            "bash completes `{begin}` to `{}`, not to `{whole}`",
            replies.trim()
        );
    }
    Ok(())
}

/// Has systemd read the unit, as it would be with the binary in place.
fn try_unit(unit: &Path, binary: &Path) -> Result<()> {
    let text = fs::read_to_string(unit)
        .with_context(|| format!("cannot read {}", unit.display()))?
        .replace("/usr/bin/rstwatch", &binary.display().to_string());
    let in_place = unit.with_file_name("rstwatch-here.service");
    fs::write(&in_place, text).with_context(|| format!("cannot write {}", in_place.display()))?;
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&in_place);
    let output = verify.output().context("cannot start systemd-analyze")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaints.trim().is_empty(),
        "systemd complains of the unit: {}",
        complaints.trim()
    );
    Ok(())
}

fn report(built: &StaticBinary, binary: &Path, package: &Path) -> Result<()> {
    let size = |path: &Path| -> Result<String> {
        Ok(format!("{} KiB", fs::metadata(path)?.len().div_ceil(1024)))
    };
    say(&format!(
        "{}: {} for {ARCH}, static with {}, {} of it the BPF object",
        project::shown(binary),
        size(binary)?,
        built.linking.libc(),
        size(&built.object)?,
    ));
    say(&format!("{}: {}", project::shown(package), size(package)?));
    print!(
        "{}",
        fs::read_to_string(binary.with_file_name("SHA256SUMS"))?
    );
    Ok(())
}
