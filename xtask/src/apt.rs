//! Debian's package manager.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;

/// Installs packages, and keeps what they would start from starting.
const INSTALL: &str = include_str!("install.sh");

/// apt-get, which refreshes its lists at most once.
#[derive(Default)]
pub(crate) struct Apt {
    updated: bool,
}

impl Apt {
    /// Whether this system has apt-get.
    pub(crate) fn is_here() -> bool {
        command::find("apt-get").is_some()
    }

    /// Refreshes the package lists: a bare system has none, an old one has stale ones.
    pub(crate) fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        eprintln!("setup: refreshing the package lists");
        let mut update = command::as_root("apt-get")?;
        // The lists of earlier may do, and the installation says so if they do not.
        if let Err(error) = command::output(update.args(["--quiet=2", "update"])) {
            eprintln!("setup: going on with the package lists as they are: {error:#}");
        }
        self.updated = true;
        Ok(())
    }

    /// The version of `package` that an installation would take.
    pub(crate) fn candidate(package: &str) -> Result<Option<String>> {
        let mut policy = Command::new("apt-cache");
        let text = command::output(policy.args(["policy", package]).env("LC_ALL", "C"))?;
        Ok(candidate_in(&text).map(str::to_owned))
    }

    /// Installs `packages`, which `why` explains. `services` are those that they bring; none is
    /// left running or enabled.
    pub(crate) fn install(
        &mut self,
        packages: &[String],
        services: &[&str],
        why: &str,
    ) -> Result<()> {
        self.update()?;
        let names = packages.join(" ");
        eprintln!("setup: apt-get install {names} ({why})");
        let mut install = command::as_root("sh")?;
        install.args(["-c", INSTALL, "install.sh", &services.join(" ")]);
        command::output(install.args(packages))
            .map(drop)
            .with_context(|| {
                format!("{why}: `apt-get install {names}` brings it, once what it says is mended")
            })
    }
}

/// The candidate in the output of `apt-cache policy`.
fn candidate_in(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  \
                      Version table:\n     1.96.0+dfsg1-1~deb12u2 500\n";
        assert_eq!(candidate_in(policy), Some("1.96.0+dfsg1-1~deb12u2"));
    }

    #[test]
    fn a_package_that_cannot_be_installed_has_no_candidate() {
        assert_eq!(
            candidate_in("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(candidate_in(""), None);
    }
}
