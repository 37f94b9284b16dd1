//! The limit on orphans, which the kernel has once for the whole host (`net.ipv4.tcp_max_orphans`,
//! `tcp_too_many_orphans`, `net/ipv4/tcp.c`): the one thing that a scenario touches outside of its
//! network namespaces, and only when the user allows it.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    net::TcpStream,
    os::unix::process::parent_id,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

const LIMIT: &str = "/proc/sys/net/ipv4/tcp_max_orphans";

/// Below every number of orphans: the kernel compares signed numbers, and its count of few orphans
/// may be 0 (5.10 to 7.2).
const NONE: &[u8] = b"-1";

/// Closes `connection` while the host allows no orphans, and puts the limit back at once: for some
/// ten microseconds any other connection of the host that is closed with data still to be delivered
/// would be reset as well.
pub(super) fn close_with_none_allowed(connection: TcpStream) -> Result<()> {
    let mut limit = open().with_context(|| format!("cannot open {LIMIT}"))?;
    let mut before = String::new();
    limit
        .read_to_string(&mut before)
        .with_context(|| format!("cannot read {LIMIT}"))?;
    let mut set = |value: &[u8]| {
        limit.rewind()?;
        limit.write_all(value)
    };
    let lowered = set(NONE);
    drop(connection);
    let raised = set(before.trim().as_bytes());
    lowered.with_context(|| format!("cannot lower {LIMIT}"))?;
    raised.with_context(|| format!("cannot put {LIMIT} back to {before}"))
}

/// The file is there in the initial network namespace alone, which the director's is taken to be.
fn open() -> Result<File> {
    let own = File::open("/proc/thread-self/ns/net").context("cannot open the namespace")?;
    let directors = format!("/proc/{}/ns/net", parent_id());
    let directors = File::open(&directors).with_context(|| format!("cannot open {directors}"))?;
    setns(directors, CloneFlags::CLONE_NEWNET).context("cannot enter the director's namespace")?;
    let limit = OpenOptions::new().read(true).write(true).open(LIMIT);
    setns(own, CloneFlags::CLONE_NEWNET).context("cannot go back to the namespace")?;
    limit.context("it is shown in the host's own network namespace only")
}
