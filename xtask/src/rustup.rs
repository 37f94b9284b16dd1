//! rustup's nightly toolchain: where it is, and an attempt at fetching it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The directory of the nightly toolchain, when rustup is there and has one.
///
/// The list is asked for rather than `rustup which`, which may install what it does not find.
pub(crate) fn nightly() -> Result<Option<PathBuf>> {
    if command::find("rustup").is_none() {
        return Ok(None);
    }
    let list = command::output(Command::new("rustup").args(["toolchain", "list", "--verbose"]))?;
    Ok(nightly_in(&list))
}

/// The nightly's directory in the output of `rustup toolchain list --verbose`.
fn nightly_in(list: &str) -> Option<PathBuf> {
    let line = list.lines().find(|line| {
        let name = line.split_whitespace().next().unwrap_or_default();
        // Not `nightly-2026-01-01-...`: a dated one is somebody's pin for something else.
        name == "nightly"
            || name
                .strip_prefix("nightly-")
                .is_some_and(|host| !host.starts_with(|first: char| first.is_ascii_digit()))
    })?;
    line.find('/').map(|start| PathBuf::from(&line[start..]))
}

/// Fetches what the nightly toolchain lacks. rustup makes the first toolchain that it installs the
/// default one and may note other things; its settings are put back as they were.
pub(crate) fn fetch_nightly(installed: bool) -> Result<()> {
    if command::find("rustup").is_none() {
        bail!("there is no rustup");
    }
    let settings = rustup_home().map(|home| home.join("settings.toml"));
    let before = settings.as_deref().map(fs::read);

    let mut rustup = Command::new("rustup");
    if installed {
        rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    } else {
        rustup.args(["toolchain", "install", "nightly", "--no-self-update"]);
        rustup.args(["--profile", "minimal", "--component", "rust-src"]);
    }
    eprintln!("setup: trying `{}`", command::render(&rustup));
    let fetched = rustup
        .output()
        .with_context(|| format!("cannot start `{}`", command::render(&rustup)))?;

    if let (Some(path), Some(Ok(before))) = (settings, before) {
        restore(&path, &before)?;
    }
    if !fetched.status.success() {
        bail!("{}", error_in(&String::from_utf8_lossy(&fetched.stderr)));
    }
    Ok(())
}

/// Adds the standard library of `target` to the toolchain in use.
pub(crate) fn add_target(target: &str) -> Result<()> {
    if command::find("rustup").is_none() {
        bail!("there is no rustup");
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]);
    eprintln!("setup: trying `{}`", command::render(&rustup));
    let added = rustup
        .output()
        .with_context(|| format!("cannot start `{}`", command::render(&rustup)))?;
    if !added.status.success() {
        bail!("{}", error_in(&String::from_utf8_lossy(&added.stderr)));
    }
    Ok(())
}

/// rustup's error, without the progress that it reports before and the causes after.
fn error_in(stderr: &str) -> &str {
    let mut lines = stderr.lines();
    lines
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or("rustup does not say why")
}

fn restore(path: &Path, before: &[u8]) -> Result<()> {
    let same = fs::read(path).is_ok_and(|now| now == before);
    if same {
        return Ok(());
    }
    fs::write(path, before).with_context(|| format!("cannot put {} back as it was", path.display()))
}

fn rustup_home() -> Option<PathBuf> {
    env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nightly_is_found_whatever_its_marks() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /home/a b/.rustup/stable\n\
                    nightly-2026-01-01-x86_64-unknown-linux-gnu /home/a b/.rustup/dated\n\
                    nightly-x86_64-unknown-linux-gnu (default) /home/a b/.rustup/nightly\n";
        assert_eq!(
            nightly_in(list),
            Some(PathBuf::from("/home/a b/.rustup/nightly"))
        );
    }

    #[test]
    fn without_a_nightly_there_is_none() {
        assert_eq!(nightly_in("stable-x86_64-unknown-linux-gnu /s\n"), None);
        assert_eq!(nightly_in("no installed toolchains\n"), None);
    }

    #[test]
    fn the_error_is_one_line_of_what_rustup_says() {
        let stderr = "info: syncing channel updates\nerror: no network\nhelp: try again\n";
        assert_eq!(error_in(stderr), "no network");
        assert_eq!(error_in("info: done\n"), "rustup does not say why");
    }

    #[test]
    fn settings_that_were_changed_are_put_back() {
        let path = env::temp_dir().join(format!("rstwatch-xtask-{}", std::process::id()));
        fs::write(&path, "default_toolchain = \"nightly\"").expect("a writable directory");
        restore(&path, b"").expect("a writable file");
        let now = fs::read(&path).expect("the file is still there");
        fs::remove_file(&path).expect("the file is ours");
        assert_eq!(now, b"");
    }
}
