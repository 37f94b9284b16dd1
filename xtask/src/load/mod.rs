//! The load that the benchmark puts on the kernel: run as a process of its own, in a network
//! namespace of its own, for a given time. Prints what it did as one line of JSON, then keeps the
//! namespace until its standard input ends, so that a tracer can still read the counters there.
//!
//! Starting it, and what is made of its figures, is the benchmark's.

mod flood;
mod frame;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The ports that loads of resets send them from: nobody listens there in the load's network namespace, or who
/// does closes with data unread. Below those that the kernel chooses, and unlike those of the tests,
/// so that a tracer's tally by port tells this load's resets from others on the machine.
const PORTS: RangeInclusive<u16> = FIRST_PORT..=FIRST_PORT + 15;
const FIRST_PORT: u16 = 2000;

/// How long no further reset must have been sent for all of them to have been counted. Were it ever
/// too short, a tracer would have seen more than was counted, which ends the benchmark: that a figure
/// is right does not rest on it.
const SETTLED: Duration = Duration::from_millis(20);

/// What kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Connections that are accepted and closed in order by both ends
    Short,
    /// Connects to a closed port from one thread
    Refused,
    /// Connects to a closed port from two threads
    RefusedTwice,
    /// SYNs to closed ports from many addresses, which come in over a veth
    RawSyn,
    /// Connections that are closed with data unread
    Unread,
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Connections made, or segments answered with a reset.
    pub(crate) made: u64,
    /// In so many seconds.
    pub(crate) seconds: f64,
    /// By how much `TcpOutRsts` grew in the load's network namespace.
    pub(crate) out_rsts: u64,
    /// Inode number of that namespace.
    pub(crate) netns: u32,
}

impl Done {
    /// Connections, or resets, a second.
    pub(crate) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 connections")]
        let made = self.made as f64;
        made / self.seconds
    }
}

impl Load {
    /// What a person reads.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Short => "short connections",
            Self::Refused => "connects to a closed port, 1 thread",
            Self::RefusedTwice => "connects to a closed port, 2 threads",
            Self::RawSyn => "SYNs from a veth to closed ports",
            Self::Unread => "closes with unread data",
        }
    }

    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Refused => "refused",
            Self::RefusedTwice => "refused-twice",
            Self::RawSyn => "raw-syn",
            Self::Unread => "unread",
        }
    }

    /// The ports that its resets are sent from; `None` where they are not what it is about.
    pub(crate) const fn ports(self) -> Option<RangeInclusive<u16>> {
        match self {
            Self::Short => None,
            Self::Refused | Self::RefusedTwice | Self::RawSyn | Self::Unread => Some(PORTS),
        }
    }

    /// How many resets there are for each that is sent: one more where a socket receives it. None
    /// where a stray one is no part of the load.
    pub(crate) const fn resets_each(self) -> u64 {
        match self {
            Self::Short => 0,
            Self::RawSyn => 1,
            Self::Refused | Self::RefusedTwice | Self::Unread => 2,
        }
    }
}

/// Makes the load, prints what it did, and waits for the end of standard input.
pub(crate) fn run(load: Load, seconds: f64) -> Result<()> {
    let time = Duration::try_from_secs_f64(seconds).context("no such time")?;
    let (made, took) = match load {
        Load::Short => short(time)?,
        Load::Refused => refused(time, 1),
        Load::RefusedTwice => refused(time, 2),
        Load::RawSyn => flood::run(time)?,
        Load::Unread => unread(time)?,
    };
    let done = Done {
        made,
        seconds: took.as_secs_f64(),
        out_rsts: settled_out_rsts()?,
        netns: netns()?,
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&done)?)?;
    out.flush()?;
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .context("cannot wait for the end of standard input")?;
    Ok(())
}

/// One thread connects and closes, one accepts and closes.
fn short(time: Duration) -> Result<(u64, Duration)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen")?;
    let to = listener
        .local_addr()
        .context("the listener has no address")?;
    thread::spawn(move || {
        // Ends with the process.
        for accepted in listener.incoming() {
            drop(accepted);
        }
    });
    let start = Instant::now();
    let mut made: u32 = 0;
    while start.elapsed() < time {
        // To another address each time: the ends in TIME_WAIT would soon take up all ports of one.
        let [_, _, high, low] = made.to_be_bytes();
        let addr = Ipv4Addr::new(127, 1, high, low);
        let mut stream = TcpStream::connect((addr, to.port())).context("cannot connect")?;
        // Until the other end has accepted and closed it: else its queue overflows, and the load
        // measures how long a lost SYN takes.
        stream.read(&mut [0]).context("cannot read")?;
        made += 1;
    }
    Ok((made.into(), start.elapsed()))
}

fn refused(time: Duration, threads: usize) -> (u64, Duration) {
    let made = AtomicU64::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = 0;
                while start.elapsed() < time {
                    // Refused, which is the point.
                    let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, FIRST_PORT));
                    own += 1;
                }
                made.fetch_add(own, Ordering::Relaxed);
            });
        }
    });
    (made.into_inner(), start.elapsed())
}

/// One thread holds both ends: one sends a byte, the other closes without reading it.
fn unread(time: Duration) -> Result<(u64, Duration)> {
    let to = (Ipv4Addr::LOCALHOST, FIRST_PORT);
    let listener = TcpListener::bind(to).context("cannot listen")?;
    let start = Instant::now();
    let mut made = 0;
    while start.elapsed() < time {
        let mut stream = TcpStream::connect(to).context("cannot connect")?;
        let (accepted, _) = listener.accept().context("cannot accept")?;
        stream.write_all(b"x").context("cannot send")?;
        // Looks at the byte once it is there, and leaves it unread.
        accepted.peek(&mut [0]).context("cannot look")?;
        drop(accepted);
        made += 1;
    }
    Ok((made, start.elapsed()))
}

/// `TcpOutRsts` of this network namespace, which began with 0, once it stands still: the last
/// segments of a flood may wait in a queue of the kernel's. Nothing tells when a counter grows or
/// such a queue, one a CPU, is empty; and a segment to wait for behind the last might be dropped as
/// others are, when its queue is full.
fn settled_out_rsts() -> Result<u64> {
    let mut last = out_rsts()?;
    loop {
        thread::sleep(SETTLED);
        let now = out_rsts()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// `TcpOutRsts` of this network namespace.
fn out_rsts() -> Result<u64> {
    let snmp = fs::read_to_string("/proc/self/net/snmp").context("cannot read the counters")?;
    out_rsts_in(&snmp).context("/proc/self/net/snmp has no OutRsts")
}

/// `TcpOutRsts` in `/proc/net/snmp`: a line of names, and below it one of numbers.
fn out_rsts_in(snmp: &str) -> Option<u64> {
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, numbers) = (tcp.next()?, tcp.next()?);
    let index = names.split(' ').position(|name| name == "OutRsts")?;
    numbers.split(' ').nth(index)?.parse().ok()
}

/// Inode number of this network namespace.
fn netns() -> Result<u32> {
    let inode = fs::metadata("/proc/self/ns/net")
        .context("cannot tell the network namespace")?
        .ino();
    u32::try_from(inode).context("the inode number of a network namespace has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for load in Load::value_variants() {
            let value = load.to_possible_value().expect("no load is hidden");
            assert_eq!(value.get_name(), load.name());
        }
    }

    #[test]
    fn sent_resets_are_read() {
        let snmp = "Ip: Forwarding OutRsts\nIp: 1 2\n\
                    Tcp: RtoAlgorithm InErrs OutRsts InCsumErrors\nTcp: 1 0 17 0\n";
        assert_eq!(out_rsts_in(snmp), Some(17));
        assert_eq!(out_rsts_in("Tcp: OutRsts\n"), None);
    }
}
