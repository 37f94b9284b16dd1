//! Where things are in this checkout, and the cargo that builds the host's part of it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest Rust release that builds the workspace.
pub(crate) const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// The checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// All that is built. It is always this directory, whatever cargo's configuration says, because
/// README, tests and scripts name the files in it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// What `setup` builds or notes for this checkout alone.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// A path for a message: relative to the checkout where it lies inside.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The cargo that started this program, on the checkout and its `target`.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target())
        .arg(subcommand);
    command
}
