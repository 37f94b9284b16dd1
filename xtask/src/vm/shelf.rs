//! Kernels from Debian's packages.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};

use super::release::{Release, Wanted};
use crate::archive::{Archive, SUITES, field};

/// The small variant, without drivers for hardware that no virtual machine has.
const FLAVOUR: &str = "-cloud-amd64";

/// How to go on without Debian's packages.
const ADVICE: &str = "name a folder of unpacked kernels with --kernels-dir (docs/KERNELS.md says \
                      what it holds)";

/// The kernels that Debian's suites hold.
pub(super) struct Shelf {
    archive: Archive,
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

impl Shelf {
    /// Looks what there is, anew when `refresh` says so.
    pub(super) fn open(refresh: bool) -> Result<Self> {
        let archive =
            Archive::open(refresh).with_context(|| format!("no kernels to be had: {ADVICE}"))?;
        let kernels = kernels_in(&archive.available()?).into_iter().collect();
        Ok(Self { archive, kernels })
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
        self.archive.unpack(&self.parts(package)?, into)
    }

    /// The package, and those that hold image and modules where it does not do so itself, as from
    /// 6.19 on. What else it depends on makes an initramfs or configures a boot loader.
    fn parts(&self, package: &Package) -> Result<Vec<String>> {
        let name = format!("{}={}", package.name, package.version);
        let text = self.archive.show(&name)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
