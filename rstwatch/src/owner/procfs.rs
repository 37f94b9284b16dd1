//! Reading `/proc`: which processes hold which sockets, and whether a process still lives.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::IpAddr,
    path::Path,
};

use crate::{
    event::{Comm, Endpoint, Owner, Process, Via},
    netns,
    owner::{Liveness, listeners::Listeners},
};

/// Which processes hold which sockets, by the inode of the socket's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    by_inode: HashMap<u64, Vec<u32>>,
    processes: HashMap<u32, Holder>,
}

/// A process but for what is shared within a thread: these are looked for in another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    start_ns: Option<u64>,
    comm: Comm,
    uid: Option<u32>,
}

impl Holder {
    fn of(process: &Process) -> Self {
        Self {
            start_ns: process.start_ns,
            comm: process.comm,
            uid: process.uid,
        }
    }

    fn process(&self, pid: u32) -> Process {
        Process {
            pid,
            start_ns: self.start_ns,
            comm: self.comm,
            uid: self.uid,
            exe: None,
        }
    }
}

impl Holders {
    /// Adds that `process` holds the socket with this inode.
    pub fn add(&mut self, inode: u64, process: &Process) {
        let pids = self.by_inode.entry(inode).or_default();
        if !pids.contains(&process.pid) {
            pids.push(process.pid);
        }
        self.processes
            .entry(process.pid)
            .or_insert_with(|| Holder::of(process));
    }

    /// Whether this process is among the holders of the socket with this inode.
    pub fn holds(&self, inode: u64, process: &Process) -> bool {
        self.by_inode
            .get(&inode)
            .is_some_and(|pids| pids.contains(&process.pid))
            && self
                .processes
                .get(&process.pid)
                .is_some_and(|known| known.process(process.pid).is_same(process))
    }

    /// How many sockets are known.
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    /// Whether no socket is known.
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// The owner of the socket with this inode. Of several holders it is the one that has run the
    /// longest, from which the others inherited the socket; all are named.
    pub fn owner(&self, inode: u64, via: Via) -> Option<Owner> {
        let pids = self.by_inode.get(&inode)?;
        let (pid, process) = pids
            .iter()
            .filter_map(|pid| Some((pid, self.processes.get(pid)?)))
            .min_by_key(|(pid, process)| (process.start_ns, **pid))?;
        let mut holders = Vec::new();
        if pids.len() > 1 {
            holders.clone_from(pids);
            holders.sort_unstable();
        }
        Some(Owner {
            process: process.process(*pid),
            via,
            holders,
        })
    }
}

/// Finds who holds the sockets of `wanted`, or, without it, every socket. Processes that go
/// meanwhile, or that may not be looked at, are passed over.
pub fn find_holders(wanted: Option<&BTreeSet<u64>>) -> Holders {
    let mut holders = Holders::default();
    for path in netns::processes() {
        let inodes = socket_inodes(&path, wanted);
        if !inodes.is_empty()
            && let Some(pid) = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok())
            && let Some(process) = read_process(pid)
        {
            for inode in inodes {
                holders.add(inode, &process);
            }
        }
    }
    holders
}

/// Who listens where, in every network namespace that a process lives in. Listeners whose holder
/// is not in `holders` are passed over.
pub fn find_listeners(holders: &Holders) -> Listeners {
    let mut listeners = Listeners::default();
    let mut seen = HashSet::new();
    for process in netns::processes() {
        let Ok(netns) = netns::inode_of(&process.join("ns/net")) else {
            continue;
        };
        if !seen.insert(netns) {
            continue;
        }
        for table in ["net/tcp", "net/tcp6"] {
            let Ok(file) = File::open(process.join(table)) else {
                continue;
            };
            // The kernel lists listeners before connections (`tcp_seek_last_pos`,
            // `net/ipv4/tcp_ipv4.c`), of which there may be very many.
            let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
            for (local, inode) in lines.map_while(|line| parse_listener(&line)) {
                if let Some(owner) = holders.owner(inode, Via::Snapshot) {
                    listeners.add_existing(netns, local, inode, owner.process);
                }
            }
        }
    }
    listeners
}

/// Address, port and inode of a line of `/proc/net/tcp` or `/proc/net/tcp6` that is a listener's.
fn parse_listener(line: &str) -> Option<(Endpoint, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (local, _remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    if state != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (addr, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each word is printed as a number that lies in memory in network byte order.
    let mut bytes = Vec::with_capacity(16);
    for word in addr.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let addr = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some((Endpoint { addr, port }, inode))
}

/// Inodes of the sockets among the open files of the process at `process`.
fn socket_inodes(process: &Path, wanted: Option<&BTreeSet<u64>>) -> Vec<u64> {
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return Vec::new();
    };
    files
        .flatten()
        .filter_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            let inode = parse_socket_link(target.to_str()?)?;
            wanted
                .is_none_or(|wanted| wanted.contains(&inode))
                .then_some(inode)
        })
        .collect()
}

/// The inode in the target of a link such as `socket:[12345]`.
fn parse_socket_link(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Name, owner and start of a process; `None` when there is none.
pub fn read_process(pid: u32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (comm, start_ticks) = parse_stat(&stat)?;
    let uid = fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| parse_uid(&status));
    Some(Process {
        pid,
        start_ns: Some(start_ticks.saturating_mul(Process::TICK_NS)),
        comm: Comm::from_text(comm),
        uid,
        exe: None,
    })
}

/// Name and start time (in ticks since boot) from `/proc/PID/stat`. The name stands in parentheses
/// and may hold any byte, parentheses among them: it ends at the last one.
fn parse_stat(stat: &[u8]) -> Option<(&[u8], u64)> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let comm = stat.get(open + 1..close)?;
    // The fields from the third on follow; the start time is the 22nd.
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let ticks = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some((comm, ticks))
}

/// The real user id from `/proc/PID/status`.
fn parse_uid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Asks `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Procfs;

impl Liveness for Procfs {
    fn is_alive(&self, process: &Process) -> bool {
        read_process(process.pid).is_some_and(|now| now.is_same(process))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::fixture;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let stat = b"812 (a) (b c) S 1 812 812 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 100 200";
        assert_eq!(parse_stat(stat), Some((&b"a) (b c"[..], 98_765)));
        assert_eq!(parse_stat(b"812 (cut"), None);
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b") ("), None);
    }

    #[test]
    fn only_socket_links_have_inodes() {
        assert_eq!(parse_socket_link("socket:[42]"), Some(42));
        assert_eq!(parse_socket_link("pipe:[42]"), None);
        assert_eq!(parse_socket_link("/tmp/socket:[42]"), None);
        assert_eq!(parse_socket_link("socket:[x]"), None);
    }

    #[test]
    fn listeners_are_read_from_the_kernels_tables() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     \
                  0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(
            parse_listener(v4),
            Some((fixture::endpoint("127.0.0.1", 8080), 4_711))
        );
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 \
                  0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0";
        assert_eq!(parse_listener(v6), Some((fixture::endpoint("::1", 80), 12)));
        assert_eq!(parse_listener(&v4.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_listener("garbage"), None);
    }

    #[test]
    fn this_processs_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let netns = netns::inode_of(Path::new("/proc/self/ns/net")).unwrap();
        let found = find_listeners(&find_holders(None))
            .find(netns, fixture::endpoint("127.0.0.1", local.port()), 0)
            .unwrap();
        assert_eq!(found.process.pid, std::process::id());
        assert_eq!(found.ended, None);
    }

    #[test]
    fn this_process_holds_its_own_socket() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = find_holders(None);
        let mine = std::process::id();
        let inode = *all
            .by_inode
            .iter()
            .find(|(_, pids)| pids.contains(&mine))
            .expect("a socket of this process")
            .0;
        let again = find_holders(Some(&BTreeSet::from([inode])));
        let owner = again.owner(inode, Via::Procfs).unwrap();
        assert_eq!(owner.process.pid, mine);
        assert!(Procfs.is_alive(&owner.process));
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let now = read_process(std::process::id()).unwrap();
        let mut before = now.clone();
        before.start_ns = now.start_ns.map(|start| start - Process::TICK_NS);
        assert!(!Procfs.is_alive(&before));
        before.start_ns = None;
        assert!(!Procfs.is_alive(&before));
    }

    #[test]
    fn of_several_holders_the_first_started_owns_and_all_are_named() {
        let process = |pid, start| Process {
            pid,
            start_ns: Some(start),
            comm: Comm::from_text(b"worker"),
            uid: Some(0),
            exe: None,
        };
        let mut holders = Holders::default();
        holders.add(7, &process(30, 300));
        holders.add(7, &process(20, 100));
        holders.add(8, &process(30, 300));
        let owner = holders.owner(7, Via::Procfs).unwrap();
        assert_eq!((owner.process.pid, owner.holders), (20, vec![20, 30]));
        assert!(holders.owner(8, Via::Procfs).unwrap().holders.is_empty());
        assert_eq!(holders.owner(9, Via::Procfs), None);
    }
}
