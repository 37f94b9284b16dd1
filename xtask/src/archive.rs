//! Debian's archive, with all its suites since 5.10 was its kernel: packages that this system's own
//! suite does not hold, or not as new.
//!
//! apt is used with lists, caches and sources of our own, so that nothing about this system changes;
//! only where the mirror is, and through which proxy, is taken from the system's own configuration. What is wanted of the archive is said by who
//! uses it: kernels in `vm`, the benchmark's rival in `bench`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{apt::Apt, command, project};

/// Debian's suites: those of its releases since kernel 5.10, with what is newer.
pub(crate) const SUITES: [&str; 6] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "sid",
];

/// The same for the mirror of security updates, where the newest of an old release lies.
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

/// What Debian signs its suites with; a system made from Debian has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian's archive, as apt sees it through a configuration of its own.
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Opens the archive, whose lists are kept in `target/apt`; asks the mirror for them when there
    /// are none, or when `refresh` says so.
    pub(crate) fn open(refresh: bool) -> Result<Self> {
        ensure!(
            Apt::is_here() && command::find("dpkg").is_some(),
            "there is no apt-get here to fetch Debian's packages with"
        );
        let archive = Self {
            directory: project::target().join("apt"),
        };
        let stamp = archive.directory.join("complete");
        if refresh || !stamp.exists() {
            archive.configure()?;
            eprintln!("asking Debian's mirror for the lists of its suites");
            command::output(archive.apt("apt-get").arg("update"))?;
            fs::write(&stamp, []).context("cannot note that the lists are here")?;
        }
        Ok(archive)
    }

    /// Every package that there is, a stanza each.
    pub(crate) fn available(&self) -> Result<String> {
        command::output(self.apt("apt-cache").arg("dumpavail"))
    }

    /// The stanza of the newest version of `package`, or of the one behind `=`.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        command::output(
            self.apt("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )
    }

    /// `package` and all that it depends on, directly or not, at their newest.
    pub(crate) fn with_dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut depends = self.apt("apt-cache");
        depends.args(["depends", "--recurse", "--important", package]);
        Ok(packages_in(&command::output(&mut depends)?))
    }

    fn configure(&self) -> Result<()> {
        ensure!(
            Path::new(KEYRING).exists(),
            "there is no {KEYRING} to trust Debian's packages by: install debian-archive-keyring"
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

    /// Fetches packages, each by its name or by `name=version`, and unpacks all of them into `into`,
    /// which is there only once it is whole.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let partial = into.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot clear {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        eprintln!("fetching {}", packages.join(" "));
        let mut fetch = self.apt("apt-get");
        fetch.arg("download").current_dir(&partial);
        command::output(fetch.args(packages))?;
        for entry in partial.read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "deb") {
                let mut dpkg = Command::new("dpkg");
                command::output(dpkg.arg("--extract").arg(&path).arg(&partial))?;
                fs::remove_file(&path)?;
            }
        }
        fs::rename(&partial, into).with_context(|| format!("cannot make {}", into.display()))
    }
}

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
        Self::parse(&ask()?).context("apt's sources name no mirror of Debian to fetch from")
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

/// The packages in what `apt-cache depends --recurse` prints: one a line, with what it depends on
/// indented below, and in angle brackets what is only a name for others.
fn packages_in(depends: &str) -> Vec<String> {
    depends
        .lines()
        .filter(|line| !line.starts_with([' ', '<']) && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The value of a field that takes one line.
pub(crate) fn field<'t>(stanza: &'t str, name: &str) -> Option<&'t str> {
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
    fn what_is_depended_on_is_told_from_how() {
        let depends = "bpftrace\n  Depends: libc6\n |Depends: a\n<debconf-2.0>\nlibc6\n";
        assert_eq!(packages_in(depends), ["bpftrace", "libc6"]);
    }

    #[test]
    fn a_field_is_read() {
        let stanza = "Package: p\nVersion: 1-2\nPackage-Type: deb\n";
        assert_eq!(field(stanza, "Package"), Some("p"));
        assert_eq!(field(stanza, "Version"), Some("1-2"));
        assert_eq!(field(stanza, "Depends"), None);
    }
}
