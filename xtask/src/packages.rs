//! The programs that the tests use: they make resets with real servers, containers and packet
//! filters.

use anyhow::{Result, bail};

use crate::{apt::Apt, command};

/// A program, and where it comes from.
struct Program {
    name: &'static str,
    /// The Debian package.
    package: &'static str,
    /// The service that the package would start.
    service: Option<&'static str>,
}

impl Program {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self {
            name,
            package,
            service: None,
        }
    }

    const fn serving(name: &'static str, package: &'static str) -> Self {
        Self {
            name,
            package,
            service: Some(name),
        }
    }
}

const PROGRAMS: [Program; 13] = [
    Program::new("ip", "iproute2"),
    Program::new("nft", "nftables"),
    Program::serving("nginx", "nginx-light"),
    Program::serving("haproxy", "haproxy"),
    Program::serving("redis-server", "redis-server"),
    Program::new("python3", "python3"),
    // With the compiler for programs of one source file.
    Program::new("java", "default-jre-headless"),
    Program::new("curl", "curl"),
    Program::new("tmux", "tmux"),
    Program::new("pgrep", "procps"),
    Program::new("crun", "crun"),
    Program::new("runc", "runc"),
    Program::new("busybox", "busybox-static"),
];

/// What runs other kernels.
const QEMU: [Program; 1] = [Program::new("qemu-system-x86_64", "qemu-system-x86")];

/// What makes them ready to run.
const MACHINES: [Program; 2] = [
    Program::new("busybox", "busybox-static"),
    Program::new("xz", "xz-utils"),
];

/// What the benchmark's loads need.
const LOADS: [Program; 2] = [
    Program::new("ip", "iproute2"),
    Program::new("unshare", "util-linux"),
];

/// Installs what the tests lack.
pub(crate) fn find_or_install(apt: &mut Apt) -> Result<()> {
    bring(&PROGRAMS, "the tests", apt)
}

/// Installs what virtual machines lack.
pub(crate) fn for_machines() -> Result<()> {
    bring(&MACHINES, "virtual machines", &mut Apt::default())
}

/// Installs QEMU, if it is not here.
pub(crate) fn for_guests() -> Result<()> {
    bring(&QEMU, "virtual machines", &mut Apt::default())
}

/// Installs what the benchmark lacks.
pub(crate) fn for_loads() -> Result<()> {
    bring(&LOADS, "the benchmark's loads", &mut Apt::default())
}

fn bring(programs: &'static [Program], user: &str, apt: &mut Apt) -> Result<()> {
    let missing: Vec<_> = missing(programs, |name| command::find(name).is_some()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|program| program.name).collect();
    let names = names.join(", ");
    if !Apt::is_here() {
        bail!(
            "{user} need {names}, and there is no apt-get to install them with: install them \
             with this system's package manager, then start this again"
        );
    }
    let packages: Vec<_> = missing
        .iter()
        .map(|program| program.package.to_owned())
        .collect();
    let services: Vec<_> = missing
        .iter()
        .filter_map(|program| program.service)
        .collect();
    apt.install(&packages, &services, &format!("{user} use {names}"))
}

/// Those of `programs` that `is_here` denies.
fn missing(
    programs: &'static [Program],
    is_here: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &'static Program> {
    programs
        .iter()
        .filter(move |program| !is_here(program.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let mut found = missing(&PROGRAMS, |name| name != "nginx" && name != "nft");
        let first = found
            .next()
            .map(|program| (program.package, program.service));
        assert_eq!(first, Some(("nftables", None)));
        let second = found
            .next()
            .map(|program| (program.package, program.service));
        assert_eq!(second, Some(("nginx-light", Some("nginx"))));
        assert!(found.next().is_none());
    }
}
