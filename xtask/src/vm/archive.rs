//! Kernels from Debian's packages.
//!
//! apt is used with lists, caches and sources of our own, so that nothing about this system changes;
//! only where the mirror is, and through which proxy, is taken from the system's own configuration.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::release::{Release, Wanted};
use crate::{apt::Apt, command};

/// Debian's suites that hold the kernels wanted: those of its releases since 5.10, with what is newer.
const SUITES: [&str; 6] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "sid",
];

/// The same for the mirror of security updates, where the newest of an old kernel lies.
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

/// What Debian signs its suites with; a system made from Debian has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The small variant, without drivers for hardware that no virtual machine has.
const FLAVOUR: &str = "-cloud-amd64";

/// Debian's archive, as apt sees it through a configuration of its own.
pub(super) struct Archive {
    directory: PathBuf,
    /// In order.
    kernels: Vec<Package>,
}

/// A kernel that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// What it is ordered by: the numbers of `version`.
    pub(super) release: Release,
    /// The package's version: `5.10.262-1`.
    pub(super) version: String,
    name: String,
}

impl Archive {
    /// Opens the archive, whose lists are kept in `directory`; asks for them when there are none, or
    /// when `refresh` says so.
    pub(super) fn open(directory: PathBuf, refresh: bool) -> Result<Self> {
        ensure!(
            Apt::is_here() && command::find("dpkg").is_some(),
            "there is no apt-get here to fetch kernels with: {ADVICE}"
        );
        let mut archive = Self {
            directory,
            kernels: Vec::new(),
        };
        let stamp = archive.directory.join("complete");
        if refresh || !stamp.exists() {
            archive.configure()?;
            eprintln!("vm: asking Debian's mirror for the list of its kernels");
            command::output(archive.apt("apt-get").arg("update"))?;
            fs::write(&stamp, []).context("cannot note that the lists are here")?;
        }
        let text = command::output(archive.apt("apt-cache").arg("dumpavail"))?;
        archive.kernels = kernels_in(&text).into_iter().collect();
        Ok(archive)
    }

    fn configure(&self) -> Result<()> {
        ensure!(
            Path::new(KEYRING).exists(),
            "there is no {KEYRING} to trust Debian's packages by: install debian-archive-keyring, \
             or {ADVICE}"
        );
        for below in ["lists/partial", "cache/archives/partial"] {
            let path = self.directory.join(below);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let mirrors = Mirrors::of_this_system()?;
        let write = |name: &str, text: String| {
            let path = self.directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("sources.list", mirrors.sources())?;
        write("apt.conf", configuration(&self.directory))
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.arg("--config-file")
            .arg(self.directory.join("apt.conf"));
        apt.env("LC_ALL", "C").args(["--quiet=2"]);
        apt
    }

    /// The newest kernel that is `wanted`.
    pub(super) fn find(&self, wanted: &Wanted) -> Result<&Package> {
        let releases: Vec<_> = self.kernels.iter().map(|kernel| &kernel.release).collect();
        let index = wanted.newest(&releases);
        index.map(|index| &self.kernels[index]).with_context(|| {
            format!(
                "none of Debian's suites ({}) has a kernel {wanted} for virtual machines: ask for \
                 their lists anew with --refresh, or {ADVICE}",
                SUITES.join(", ")
            )
        })
    }

    /// Fetches `package` and what it depends on of its own kind, and unpacks all of it into `into`,
    /// which is there only once it is whole.
    pub(super) fn unpack(&self, package: &Package, into: &Path) -> Result<()> {
        let partial = into.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let names = self.parts(package)?;
        eprintln!("vm: fetching {}", names.join(" "));
        let mut fetch = self.apt("apt-get");
        fetch.arg("download").current_dir(&partial);
        command::output(fetch.args(&names))?;
        for entry in partial.read_dir()? {
            let path = entry?.path();
            let mut dpkg = Command::new("dpkg");
            command::output(dpkg.arg("--extract").arg(&path).arg(&partial))?;
            fs::remove_file(&path)?;
        }
        fs::rename(&partial, into).with_context(|| format!("cannot make {}", into.display()))
    }

    /// The package, and those that hold image and modules where it does not do so itself, as from
    /// 6.19 on. What else it depends on makes an initramfs or configures a boot loader.
    fn parts(&self, package: &Package) -> Result<Vec<String>> {
        let name = format!("{}={}", package.name, package.version);
        let text = command::output(self.apt("apt-cache").args(["show", &name]))?;
        let mut parts = vec![name];
        for dependency in dependencies_in(&text) {
            let name = dependency.split(' ').next().unwrap_or_default();
            if name.starts_with("linux-binary-") || name.starts_with("linux-modules-") {
                parts.push(format!("{name}={}", package.version));
            }
        }
        Ok(parts)
    }
}

/// How to go on without Debian's packages.
const ADVICE: &str = "name a folder of unpacked kernels with --kernels-dir (docs/KERNELS.md says \
                      what it holds)";

/// Where this system has its packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    /// There is none where the system has no security updates configured.
    security: Option<String>,
}

impl Mirrors {
    fn of_this_system() -> Result<Self> {
        let ask = || {
            let mut targets = Command::new("apt-get");
            targets.args(["indextargets", "--format"]);
            targets.arg("$(ORIGIN) $(CREATED_BY) $(RELEASE) $(REPO_URI)");
            command::output(&mut targets)
        };
        if let Some(mirrors) = Self::parse(&ask()?) {
            return Ok(mirrors);
        }
        // Who is behind a mirror is known only once it was asked.
        Apt::default().update()?;
        Self::parse(&ask()?).with_context(|| {
            format!("apt's sources name no mirror of Debian to fetch kernels from: {ADVICE}")
        })
    }

    /// Reads lines of origin, kind, release and address.
    fn parse(targets: &str) -> Option<Self> {
        let mut main = None;
        let mut security = None;
        for line in targets.lines() {
            let mut words = line.split(' ');
            if (words.next(), words.next()) != (Some("Debian"), Some("Packages")) {
                continue;
            }
            let (Some(release), Some(uri)) = (words.next(), words.next()) else {
                continue;
            };
            let mirror = if release.ends_with("-security") {
                &mut security
            } else {
                &mut main
            };
            mirror.get_or_insert_with(|| uri.to_owned());
        }
        Some(Self {
            main: main?,
            security,
        })
    }

    /// A source list of every suite. Nothing but the packages is asked for.
    fn sources(&self) -> String {
        let line = |uri: &str, suite: &str| {
            format!("deb [target=Packages arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n")
        };
        let main = SUITES.iter().map(|suite| line(&self.main, suite));
        let security = self
            .security
            .iter()
            .flat_map(|uri| SECURITY_SUITES.iter().map(move |suite| line(uri, suite)));
        main.chain(security).collect()
    }
}

/// apt's configuration for a private state in `directory`. Proxies and the like stay the system's.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Dir::Etc::sourcelist \"{directory}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State::lists \"{directory}/lists\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         // The packages are for this directory, which apt's own user may not be let into.\n\
         APT::Sandbox::User \"root\";\n\
         // What the system does after its own update.\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n"
    )
}

/// The kernels among the packages that `apt-cache dumpavail` prints, in order.
fn kernels_in(available: &str) -> BTreeSet<Package> {
    available
        .split("\n\n")
        .filter_map(|stanza| {
            let name = field(stanza, "Package")?;
            let version = field(stanza, "Version")?;
            let is_kernel = name
                .strip_prefix("linux-image-")?
                .strip_suffix(FLAVOUR)?
                .starts_with(|first: char| first.is_ascii_digit());
            is_kernel.then(|| Package {
                release: Release::parse(version),
                version: version.to_owned(),
                name: name.to_owned(),
            })
        })
        .collect()
}

/// The packages that the first stanza depends on, each with its version where it names one.
fn dependencies_in(stanza: &str) -> impl Iterator<Item = &str> {
    field(stanza, "Depends")
        .unwrap_or_default()
        .split(", ")
        .map(str::trim)
}

/// The value of a field that takes one line.
fn field<'t>(stanza: &'t str, name: &str) -> Option<&'t str> {
    stanza
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirrors_are_those_of_debian() {
        let targets = "Docker Packages bookworm http://elsewhere.example/debian/\n\
                       Debian Packages bookworm http://mirror.example/debian/\n\
                       Debian DEP-11 bookworm http://mirror.example/debian/\n\
                       Debian Packages bookworm-updates http://second.example/debian/\n\
                       Debian Packages bookworm-security http://mirror.example/security/\n";
        let mirrors = Mirrors::parse(targets).expect("a mirror");
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        assert_eq!(
            mirrors.security.as_deref(),
            Some("http://mirror.example/security/")
        );
        let sources = mirrors.sources();
        assert!(sources.contains("] http://mirror.example/debian/ sid main\n"));
        assert!(sources.contains("] http://mirror.example/security/ bullseye-security main\n"));
        assert_eq!(Mirrors::parse("$(ORIGIN) Packages x http://y/\n"), None);
    }

    #[test]
    fn kernels_are_told_from_what_only_looks_like_one() {
        let available = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\n\n\
                         Package: linux-image-6.1.0-9-cloud-amd64\nVersion: 6.1.27-1\n\n\
                         Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\n\
                         Package: linux-image-6.1.0-56-cloud-amd64-dbg\nVersion: 6.1.192-2\n\n\
                         Package: linux-image-6.1.0-56-amd64\nVersion: 6.1.192-2\n";
        let kernels = kernels_in(available);
        let versions: Vec<_> = kernels.iter().map(|kernel| &*kernel.version).collect();
        assert_eq!(versions, ["6.1.27-1", "6.1.192-2"]);
    }

    #[test]
    fn parts_are_dependencies_of_one_version() {
        let stanza = "Package: p\nDepends: dracut | linux-initramfs-tool, linux-base-7.3 (= 7.3-1), \
                      kmod (>= 5)\n";
        let all: Vec<_> = dependencies_in(stanza).collect();
        assert_eq!(
            all,
            [
                "dracut | linux-initramfs-tool",
                "linux-base-7.3 (= 7.3-1)",
                "kmod (>= 5)"
            ]
        );
    }
}
