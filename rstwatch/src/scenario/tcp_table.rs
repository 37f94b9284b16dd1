//! The kernel's table of TCP sockets as `/proc/PID/net/tcp` shows it: the way to see the state of a
//! connection from outside, orphans and TIME_WAIT sockets among them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::player::STEP;
use crate::event::TcpState;

/// Between two looks at the kernel's tables.
const LOOK: Duration = Duration::from_millis(1);

/// A socket of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Its state; of a TIME_WAIT socket its sub-state.
    pub state: TcpState,
    /// Bytes received that no process has read.
    pub unread: u32,
    /// Whether all it sent is acknowledged and it waits, probing, for room at the peer
    /// (`ICSK_TIME_PROBE0`; `get_tcp4_sock` in `net/ipv4/tcp_ipv4.c` shows it as timer 4).
    pub probing: bool,
    /// Whether a process holds it: an orphan or a TIME_WAIT socket has no inode.
    pub held: bool,
}

/// The sockets in the network namespace of process `pid`.
///
/// # Errors
///
/// When there is no such process.
pub fn read(pid: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{name}");
        let table = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        rows.extend(table.lines().filter_map(parse));
    }
    Ok(rows)
}

/// Waits until the row of a connection, its own end first, in the network namespace of process
/// `pid` is as `wanted`, `None` while there is none; `what` says what that means.
///
/// # Errors
///
/// When that takes too long, or there is no such process.
pub fn await_row(
    pid: u32,
    (local, remote): (SocketAddr, SocketAddr),
    what: &str,
    wanted: impl Fn(Option<&Row>) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + STEP;
    loop {
        let row = read(pid)?
            .into_iter()
            .find(|row| (row.local, row.remote) == (local, remote));
        if wanted(row.as_ref()) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "waited {STEP:?} for {what} in vain; now {row:?}"
        );
        thread::sleep(LOOK);
    }
}

/// A line such as `0: 0100007F:1F90 0200007F:C001 01 00000000:00000040 ...`; `None` for the heading.
fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse_end(fields.next()?)?;
    let remote = parse_end(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let (_, unread) = fields.next()?.split_once(':')?;
    let timer = fields.next()?;
    let inode = fields.nth(3)?;
    Some(Row {
        local,
        remote,
        state: TcpState::from_kernel(state)?,
        unread: u32::from_str_radix(unread, 16).ok()?,
        probing: timer.starts_with("04:"),
        held: inode != "0",
    })
}

/// Address and port in hexadecimal; the address in words of 32 bits as they lie in memory.
fn parse_end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = if address.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    } else {
        let mut bytes = [0; 16];
        for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&word(at)?);
        }
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    Some(SocketAddr::new(
        address.to_canonical(),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_families_are_read() {
        let row = parse(
            "   1: 0100007F:1F90 0200007F:C001 08 00000000:00000040 00:00000000 00000000     0        0 0 1",
        );
        assert_eq!(
            row,
            Some(Row {
                local: "127.0.0.1:8080".parse().unwrap(),
                remote: "127.0.0.2:49153".parse().unwrap(),
                state: TcpState::CloseWait,
                unread: 64,
                probing: false,
                held: false,
            })
        );
        let row = parse(
            "   0: 00000000000000000000000001000000:0016 000077FD000000000000000002000000:0050 0A 00000000:00000000 04:0000001F 00000000 0 0 4711 1",
        )
        .unwrap();
        assert_eq!(row.local, "[::1]:22".parse().unwrap());
        assert_eq!(row.remote, "[fd77::2]:80".parse().unwrap());
        assert_eq!(row.state, TcpState::Listen);
        assert!(row.probing && row.held);
    }

    #[test]
    fn what_is_no_row_is_passed_over() {
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse(" 0: 0100:1 0:0 01 0:0"), None);
    }
}
