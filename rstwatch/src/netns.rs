//! Network namespaces: which there are, their names, and their counters of resets (see `mib`), with
//! which what was seen is compared.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::mib::{Counter, Counts};

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";

/// Counters by the inode of their network namespace.
pub type CountsByNetns = HashMap<u32, Counts>;

/// The counters of every network namespace that can be reached: those that a process lives in, and
/// those that have a name.
pub fn counters() -> CountsByNetns {
    let mut counts = CountsByNetns::new();
    for process in processes() {
        let Ok(netns) = inode_of(&process.join("ns/net")) else {
            continue;
        };
        if !counts.contains_key(&netns)
            && let Some(count) = read_counters(&process.join("net"))
        {
            counts.insert(netns, count);
        }
    }
    for (_, path, netns) in named() {
        if !counts.contains_key(&netns)
            && let Some(count) = read_inside(&path)
        {
            counts.insert(netns, count);
        }
    }
    counts
}

/// Whether a namespace has a name, and no process lives in it that can be looked at: its counter is
/// read by entering it, which takes `CAP_SYS_ADMIN`.
pub fn has_empty() -> bool {
    let lived_in: HashSet<u32> = processes()
        .filter_map(|process| inode_of(&process.join("ns/net")).ok())
        .collect();
    named()
        .iter()
        .any(|(_, _, netns)| !lived_in.contains(netns))
}

/// The names that `ip netns` knows, by inode.
pub fn names() -> HashMap<u32, String> {
    named()
        .into_iter()
        .map(|(name, _, netns)| (netns, name))
        .collect()
}

/// The inode of the namespace at a path such as `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// # Errors
///
/// When there is nothing at that path, or something that is no namespace.
pub fn inode_of(path: &Path) -> io::Result<u32> {
    // The file behind either is the namespace's own on nsfs, whose inodes have 32 bits.
    let inode = fs::metadata(path)?.ino();
    u32::try_from(inode).map_err(|_| io::Error::other("it is not a namespace"))
}

/// The namespaces that `ip netns` knows: name, path, inode.
pub(crate) fn named() -> Vec<(String, PathBuf, u32)> {
    let Ok(entries) = fs::read_dir(NAMED) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let netns = inode_of(&path).ok()?;
            Some((
                entry.file_name().to_string_lossy().into_owned(),
                path,
                netns,
            ))
        })
        .collect()
}

/// The processes' directories in `/proc`.
pub(crate) fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
}

/// Reads the counters in a namespace that no process may live in: from a thread of its own, which
/// enters it and ends.
fn read_inside(path: &Path) -> Option<Counts> {
    let file = File::open(path).ok()?;
    let reader = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).ok()?;
        read_counters(Path::new("/proc/thread-self/net"))
    });
    reader.join().ok().flatten()
}

/// The counters of the namespace behind a directory such as `/proc/PID/net`; `None` when not even
/// `TcpOutRsts` can be read.
pub fn read_counters(directory: &Path) -> Option<Counts> {
    let snmp = fs::read_to_string(directory.join("snmp")).ok()?;
    let netstat = fs::read_to_string(directory.join("netstat")).unwrap_or_default();
    let counts = Counts::parse(&snmp, &netstat);
    counts.get(Counter::OutRsts).map(|_| counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_processs_namespace_has_every_counter() {
        let own = inode_of(Path::new("/proc/self/ns/net")).unwrap();
        let counts = counters()[&own];
        for counter in Counter::ALL {
            assert!(counts.get(counter).is_some(), "{}", counter.name());
        }
    }

    #[test]
    fn a_directory_without_counters_has_none() {
        assert_eq!(read_counters(Path::new("/proc/self")), None);
    }
}
