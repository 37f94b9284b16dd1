//! Network namespaces: which there are, their names, and their count of sent resets
//! (`TcpOutRsts`), with which what was seen is compared.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps its namespaces.
const NAMED: &str = "/run/netns";

/// `TcpOutRsts` of every network namespace that can be reached, by the namespace's inode: those
/// that a process lives in, and those that have a name.
///
/// The counter counts the RSTs of IPv4 and IPv6 alike (`tcp_v4_send_reset`, `tcp_v6_send_reset`,
/// `tcp_send_active_reset`; 5.10 to 7.2).
pub fn sent_resets() -> HashMap<u32, u64> {
    let mut counts = HashMap::new();
    for process in processes() {
        let Ok(netns) = inode_of(&process.join("ns/net")) else {
            continue;
        };
        if !counts.contains_key(&netns)
            && let Some(count) = read_sent_resets(&process.join("net/snmp"))
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

/// Reads the counter in a namespace that no process may live in: from a thread of its own, which
/// enters it and ends.
fn read_inside(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    let reader = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).ok()?;
        read_sent_resets(Path::new("/proc/thread-self/net/snmp"))
    });
    reader.join().ok().flatten()
}

/// `TcpOutRsts` of the namespace behind a path such as `/proc/PID/net/snmp`.
pub fn read_sent_resets(path: &Path) -> Option<u64> {
    parse_out_rsts(&fs::read_to_string(path).ok()?)
}

/// `OutRsts` from `/proc/net/snmp`: a line of names and a line of values, both beginning `Tcp:`.
fn parse_out_rsts(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names
        .split_ascii_whitespace()
        .position(|name| name == "OutRsts")?;
    values.split_ascii_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let snmp = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                    Tcp: RtoAlgorithm InErrs OutRsts InCsumErrors\nTcp: 1 2 345 6\n";
        assert_eq!(parse_out_rsts(snmp), Some(345));
        assert_eq!(parse_out_rsts("Tcp: A B\nTcp: 1 2\n"), None);
        assert_eq!(parse_out_rsts("Tcp: OutRsts\n"), None);
        assert_eq!(parse_out_rsts(""), None);
    }

    #[test]
    fn this_processs_namespace_has_a_count() {
        let own = inode_of(Path::new("/proc/self/ns/net")).unwrap();
        assert!(sent_resets().contains_key(&own));
    }
}
