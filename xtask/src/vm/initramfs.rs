//! The guest's file system: an archive in the format that the kernel unpacks into memory.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use cpio::{NewcBuilder, newc::trailer};

/// The kind of file in its mode.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// What runs first in the guest.
const INIT: &[u8] = include_bytes!("init.sh");

/// An initramfs that is being written.
pub(super) struct Initramfs<W: Write> {
    out: W,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Initramfs<BufWriter<File>> {
    /// Begins the archive at `path`.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Initramfs<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            directories: BTreeSet::new(),
            inode: 0,
        }
    }

    /// Adds the first process, busybox for it, and the console that it is given.
    pub(super) fn add_system(&mut self, busybox: &Path) -> Result<()> {
        self.add("init", INIT, 0o755)?;
        self.add_file("bin/busybox", busybox)?;
        self.parents_of("dev/console")?;
        let console = NewcBuilder::new("dev/console").rdev_major(5).rdev_minor(1);
        self.entry(console, CHARACTER | 0o600, b"")
    }

    /// Adds the host's file `from` as `name`, with its permissions.
    pub(super) fn add_file(&mut self, name: &str, from: &Path) -> Result<()> {
        let read = || -> std::io::Result<_> {
            let mode = fs::metadata(from)?.permissions().mode();
            Ok((fs::read(from)?, mode & 0o7777))
        };
        let (bytes, mode) = read().with_context(|| format!("cannot read {}", from.display()))?;
        self.add(name, &bytes, mode)
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.parents_of(name)?;
        self.entry(NewcBuilder::new(name), REGULAR | mode, bytes)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<W> {
        let mut out = trailer(self.out).context("cannot end the initramfs")?;
        out.flush().context("cannot write the initramfs")?;
        Ok(out)
    }

    /// Adds the directories that `name` lies in.
    fn parents_of(&mut self, name: &str) -> Result<()> {
        for (at, _) in name.match_indices('/') {
            let parent = &name[..at];
            if self.directories.insert(parent.to_owned()) {
                self.entry(NewcBuilder::new(parent), DIRECTORY | 0o755, b"")?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, builder: NewcBuilder, mode: u32, bytes: &[u8]) -> Result<()> {
        // The same number twice would be a hard link.
        self.inode += 1;
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB or more")?;
        let mut entry = builder
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .write(&mut self.out, size);
        entry
            .write_all(bytes)
            .and_then(|()| entry.finish().map(drop))
            .context("cannot write the initramfs")
    }
}
