//! The load that the benchmark puts on the kernel: run as a process of its own, in a network
//! namespace of its own, for a given time. Prints how many connections it made a second.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// A port where nobody listens in a namespace of the benchmark's own.
const CLOSED_PORT: u16 = 9;

/// What kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Connections that are accepted and closed in order by both ends
    Short,
    /// Connects to a closed port from one thread
    Refused,
    /// Connects to a closed port from two threads
    RefusedTwice,
}

impl Load {
    /// What a person reads.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Short => "short connections",
            Self::Refused => "connects to a closed port, 1 thread",
            Self::RefusedTwice => "connects to a closed port, 2 threads",
        }
    }
}

/// Makes the load, and prints connections a second.
pub(crate) fn run(load: Load, seconds: f64) -> Result<()> {
    let time = Duration::try_from_secs_f64(seconds).context("no such time")?;
    let (made, took) = match load {
        Load::Short => short(time)?,
        Load::Refused => refused(time, 1),
        Load::RefusedTwice => refused(time, 2),
    };
    #[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 connections")]
    let made = made as f64;
    println!("{:.0}", made / took.as_secs_f64());
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
                    let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, CLOSED_PORT));
                    own += 1;
                }
                made.fetch_add(own, Ordering::Relaxed);
            });
        }
    });
    (made.into_inner(), start.elapsed())
}
