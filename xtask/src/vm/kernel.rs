//! Unpacked kernels: the image that is booted and the modules that go with it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    release::{Release, Wanted},
    shelf::Shelf,
};
use crate::command;

/// What resets are made with, where a kernel has it as a module. A name that a kernel does not know
/// is something that it has built in or has not at all; what needs it there says so itself.
const MODULES: [&str; 20] = [
    "veth",
    "tun",
    "dummy",
    "inet_diag",
    "tcp_diag",
    "unix_diag",
    "tls",
    "sch_ingress",
    "sch_netem",
    "sch_fq_codel",
    "cls_u32",
    "cls_bpf",
    "act_gact",
    "nf_tables",
    "nft_ct",
    "nft_counter",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "overlay",
];

/// A kernel in a directory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The directory's name, which is the kernel's version.
    pub(super) name: String,
    /// The compressed image.
    pub(super) image: PathBuf,
    /// Where its modules are.
    modules: PathBuf,
}

impl Kernel {
    /// The kernel in `directory`, as its packages leave it: modules in `lib/modules/RELEASE` or
    /// below `usr`, the image beside them as `vmlinuz` or in `boot` as `vmlinuz-RELEASE`.
    fn open(directory: &Path) -> Result<Self> {
        let modules = ["lib/modules", "usr/lib/modules"]
            .into_iter()
            .filter_map(|below| directory.join(below).read_dir().ok())
            .find_map(|mut entries| entries.find_map(|entry| Some(entry.ok()?.path())))
            .with_context(|| format!("{} has no lib/modules", directory.display()))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy();
        let in_boot = directory.join("boot").join(format!("vmlinuz-{release}"));
        let image = [in_boot, modules.join("vmlinuz")]
            .into_iter()
            .find(|image| image.is_file())
            .with_context(|| format!("{} has no vmlinuz of {release}", directory.display()))?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            image,
            modules,
        })
    }

    /// The modules to load, each after what it depends on.
    pub(super) fn modules(&self) -> Result<Vec<Module>> {
        let mut files = HashMap::new();
        collect(&self.modules, &mut files)?;
        let mut modules = Vec::new();
        for name in MODULES {
            add(name, &files, &mut modules)?;
        }
        ensure!(
            !modules.is_empty(),
            "{} has none of the modules that tests need",
            self.modules.display()
        );
        Ok(modules)
    }
}

/// A module as the kernel loads it.
pub(super) struct Module {
    pub(super) name: String,
    /// Uncompressed, which every kernel takes.
    pub(super) bytes: Vec<u8>,
}

/// Where kernels come from.
pub(super) struct Kernels {
    /// A directory for each.
    directory: PathBuf,
    /// Where those that are not there come from; none where a folder was given.
    shelf: Option<Shelf>,
}

impl Kernels {
    /// The kernels in a folder, and no others.
    pub(super) fn in_folder(directory: PathBuf) -> Self {
        Self {
            directory,
            shelf: None,
        }
    }

    /// Debian's kernels, kept in `directory`.
    pub(super) fn of_debian(directory: &Path, refresh: bool) -> Result<Self> {
        Ok(Self {
            directory: directory.join("kernels"),
            shelf: Some(Shelf::open(refresh)?),
        })
    }

    /// The kernels that are here.
    fn here(&self) -> Result<Vec<Kernel>> {
        let Ok(entries) = self.directory.read_dir() else {
            return Ok(Vec::new());
        };
        let mut kernels = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let is_whole = path.is_dir() && path.extension().is_none_or(|end| end != "partial");
            if is_whole {
                kernels.push(Kernel::open(&path)?);
            }
        }
        Ok(kernels)
    }

    /// The kernel that is `wanted`.
    pub(super) fn get(&self, wanted: &Wanted) -> Result<Kernel> {
        let Some(debian) = &self.shelf else {
            let mut here = self.here()?;
            let releases: Vec<_> = here
                .iter()
                .map(|kernel| Release::parse(&kernel.name))
                .collect();
            let index = wanted
                .newest(&releases.iter().collect::<Vec<_>>())
                .with_context(|| {
                    format!("{} holds no kernel {wanted}", self.directory.display())
                })?;
            return Ok(here.swap_remove(index));
        };
        let package = debian.find(wanted)?;
        let directory = self.directory.join(&package.version);
        if !directory.exists() {
            debian.unpack(package, &directory)?;
        }
        Kernel::open(&directory)
    }
}

/// The files of all modules below `directory`, by name.
fn collect(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let entries = directory
        .read_dir()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// Adds the module `name` after what it depends on, unless it is there already or the kernel has no
/// such module.
fn add(name: &str, files: &HashMap<String, PathBuf>, modules: &mut Vec<Module>) -> Result<()> {
    let is_there = modules.iter().any(|module| module.name == name);
    let Some(path) = files.get(name).filter(|_| !is_there) else {
        return Ok(());
    };
    let bytes = uncompressed(path)?;
    for needed in dependencies(&bytes) {
        add(&needed, files, modules)?;
    }
    modules.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

/// What the module depends on, by its own word: the entry `depends` of its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

/// The name under which the kernel knows the module in `file`, if it is one.
fn module_name(file: &str) -> Option<String> {
    let (name, rest) = file.split_once(".ko")?;
    (rest.is_empty() || rest.starts_with('.')).then(|| name.replace('-', "_"))
}

/// The bytes of the module in `path`, which may be compressed.
fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut unpack = Command::new(tool);
    unpack.args(["--decompress", "--stdout"]).arg(path);
    let output = unpack
        .output()
        .with_context(|| format!("cannot start {tool}: install it, then start this again"))?;
    ensure!(
        output.status.success(),
        "`{}` failed",
        command::render(&unpack)
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_conntrack,nf-tables\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["nf_conntrack", "nf_tables"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"no ELF").is_empty());
    }

    #[test]
    fn a_module_is_known_by_its_file() {
        assert_eq!(module_name("nft-ct.ko.xz").as_deref(), Some("nft_ct"));
        assert_eq!(module_name("veth.ko").as_deref(), Some("veth"));
        assert_eq!(module_name("veth.korea"), None);
        assert_eq!(module_name("modules.order"), None);
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let directory =
            std::env::temp_dir().join(format!("rstwatch-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a writable directory");
        let mut files = HashMap::new();
        for (name, needed) in [
            ("nft_ct", "conntrack,tables"),
            ("conntrack", "defrag"),
            ("defrag", ""),
            ("tables", ""),
        ] {
            let path = directory.join(format!("{name}.ko"));
            fs::write(&path, format!("\0depends={needed}\0")).expect("a writable directory");
            files.insert(name.to_owned(), path);
        }
        let mut modules = Vec::new();
        for name in ["nft_ct", "conntrack", "absent"] {
            add(name, &files, &mut modules).expect("readable modules");
        }
        fs::remove_dir_all(&directory).expect("the directory is ours");
        let names: Vec<_> = modules.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["defrag", "conntrack", "tables", "nft_ct"]);
    }
}
