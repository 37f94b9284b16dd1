//! The load that the benchmark puts on the kernel: run as a process of its own, in a network
//! namespace of its own. Each line of its standard input is an [`Order`], and what came of it is a line of
//! JSON. It keeps the namespace until its standard input ends, so that a tracer can still read the counters
//! there.
//!
//! Starting it, and what is made of its figures, is the benchmark's.

mod flood;
mod frame;
mod hooks;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use self::{flood::Flood, hooks::Hooks};

/// The ports that loads of resets send them from: nobody listens there in the load's network namespace, or who
/// does closes with data unread. Below those that the kernel chooses, and unlike those of the tests,
/// so that a tracer's tally by port tells this load's resets from others on the machine.
const PORTS: RangeInclusive<u16> = FIRST_PORT..=FIRST_PORT + 15;
const FIRST_PORT: u16 = 2000;

/// For how long a load works before it is measured, each time: its first connections are dearer, above
/// all where processors have rested.
const WARM_UP: Duration = Duration::from_millis(300);

/// The same of each turn with or without hooks, which is not the first.
const SHORT_WARM_UP: Duration = Duration::from_millis(10);

/// How long no further reset must have been sent for all of them to have been counted. Were it ever
/// too short, a tracer would have seen more than was counted, which ends the benchmark: that a figure
/// is right does not rest on it.
const SETTLED: Duration = Duration::from_millis(20);

/// What kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Connections that are accepted and closed in order by both ends, one after the other
    Short,
    /// Connections with a request and an answer, one after the other
    Exchange,
    /// Connections with a request and an answer, eight at a time, from and to as many threads as keep
    /// two processors busy
    Busy,
    /// Connects to a closed port from one thread
    Refused,
    /// Connects to a closed port from two threads
    RefusedTwice,
    /// SYNs to closed ports from many addresses, which come in over a veth
    RawSyn,
    /// Connections that are closed with data unread
    Unread,
}

/// What a load is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// To work for so many seconds. The answer is [`Done`].
    Work(f64),
    /// To hold the BPF programs with these numbers. The answer is how many they are.
    Hold(Vec<u32>),
    /// To work by turns without and with those attached, `pairs` times for so many seconds each. The answer
    /// are two [`Done`]: all without, and all with them.
    TakeTurns { pairs: u32, seconds: f64 },
}

/// What a load did when it last worked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Connections made, or segments answered with a reset.
    pub(crate) made: u64,
    /// The same with those of the warm-up, which are in the counter below as well.
    pub(crate) with_warm_up: u64,
    /// In so many seconds.
    pub(crate) seconds: f64,
    /// By how much `TcpOutRsts` grew in the load's network namespace meanwhile.
    pub(crate) out_rsts: u64,
    /// Inode number of that namespace.
    pub(crate) netns: u32,
}

impl Done {
    /// This, and what it did another time in the same network namespace.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            with_warm_up: self.with_warm_up + other.with_warm_up,
            seconds: self.seconds + other.seconds,
            out_rsts: self.out_rsts + other.out_rsts,
            netns: self.netns,
        }
    }

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
            Self::Exchange => "short connections, with an answer",
            Self::Busy => "short connections, 8 at a time",
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
            Self::Exchange => "exchange",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::RefusedTwice => "refused-twice",
            Self::RawSyn => "raw-syn",
            Self::Unread => "unread",
        }
    }

    /// The ports that its resets are sent from; `None` where they are not what it is about.
    pub(crate) const fn ports(self) -> Option<RangeInclusive<u16>> {
        match self {
            Self::Short | Self::Exchange | Self::Busy => None,
            Self::Refused | Self::RefusedTwice | Self::RawSyn | Self::Unread => Some(PORTS),
        }
    }

    /// How many resets there are for each that is sent: one more where a socket receives it. None
    /// where a stray one is no part of the load.
    pub(crate) const fn resets_each(self) -> u64 {
        match self {
            Self::Short | Self::Exchange | Self::Busy => 0,
            Self::RawSyn => 1,
            Self::Refused | Self::RefusedTwice | Self::Unread => 2,
        }
    }
}

/// Works for a given time; returns what it made, and how long it took.
type Work = Box<dyn FnMut(Duration) -> Result<(u64, Duration)>>;

/// How many resets were sent.
type Count = fn() -> Result<u64>;

/// Makes the load as often and as long as standard input says, and prints what it did.
pub(crate) fn run(load: Load) -> Result<()> {
    let mut work: Work = match load {
        Load::Short => short()?,
        Load::Exchange => exchange()?,
        Load::Busy => busy()?,
        Load::Refused => Box::new(|time| Ok(refused(time, 1))),
        Load::RefusedTwice => Box::new(|time| Ok(refused(time, 2))),
        Load::RawSyn => {
            let flood = Flood::new()?;
            Box::new(move |time| flood.run(time))
        }
        Load::Unread => unread()?,
    };
    let netns = netns()?;
    // Where the kernel sends none there is nothing to wait for.
    let count: Count = match load.resets_each() {
        0 => out_rsts,
        _ => settled_out_rsts,
    };
    let mut hooks = Hooks::hold(&[])?;
    for line in std::io::stdin().lines() {
        let line = line.context("cannot read what to do")?;
        let order = serde_json::from_str(&line).with_context(|| format!("no order: {line:?}"))?;
        let answer = match order {
            Order::Work(seconds) => serde_json::to_string(&done(&mut work, netns, seconds)?)?,
            Order::Hold(ids) => {
                hooks = Hooks::hold(&ids)?;
                ids.len().to_string()
            }
            Order::TakeTurns { pairs, seconds } => {
                let turns = take_turns(&mut work, netns, count, &mut hooks, pairs, seconds)?;
                serde_json::to_string(&turns)?
            }
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn time(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("cannot work for {seconds}: not a number of seconds"))
}

fn done(work: &mut Work, netns: u32, seconds: f64) -> Result<Done> {
    let time = time(seconds)?;
    let before = settled_out_rsts()?;
    let (warming_up, _) = work(WARM_UP)?;
    let (made, took) = work(time)?;
    Ok(Done {
        made,
        with_warm_up: warming_up + made,
        seconds: took.as_secs_f64(),
        out_rsts: settled_out_rsts()? - before,
        netns,
    })
}

/// Works without `hooks` and with them. Each goes first as often, so that what drifts meets both alike.
fn take_turns(
    work: &mut Work,
    netns: u32,
    count: Count,
    hooks: &mut Hooks,
    pairs: u32,
    seconds: f64,
) -> Result<[Done; 2]> {
    let time = time(seconds)?;
    let mut turns = [Done {
        made: 0,
        with_warm_up: 0,
        seconds: 0.0,
        out_rsts: 0,
        netns,
    }; 2];
    work(WARM_UP)?;
    for turn in 0..2 * pairs {
        // Without, with, with, without.
        let hooked = turn % 4 == 1 || turn % 4 == 2;
        if hooked {
            hooks.attach()?;
        }
        let before = count()?;
        let (warming_up, _) = work(SHORT_WARM_UP)?;
        let (made, took) = work(time)?;
        let done = &mut turns[usize::from(hooked)];
        done.made += made;
        done.with_warm_up += warming_up + made;
        done.seconds += took.as_secs_f64();
        // With the hooks still there: they see what is counted, all of it and nothing else.
        done.out_rsts += count()? - before;
        hooks.detach();
    }
    Ok(turns)
}

/// One thread connects and closes, one accepts and closes.
fn short() -> Result<Work> {
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
    let mut addresses = (0..=u16::MAX).cycle();
    Ok(Box::new(move |time| {
        let start = Instant::now();
        let mut made = 0;
        // To another address each time: the ends in TIME_WAIT would soon take up all ports of one.
        for address in addresses.by_ref() {
            let [high, low] = address.to_be_bytes();
            let addr = Ipv4Addr::new(127, 1, high, low);
            let mut stream = TcpStream::connect((addr, to.port())).context("cannot connect")?;
            // Until the other end has accepted and closed it: else its queue overflows, and the load
            // measures how long a lost SYN takes.
            stream.read(&mut [0]).context("cannot read")?;
            made += 1;
            if start.elapsed() >= time {
                break;
            }
        }
        Ok((made, start.elapsed()))
    }))
}

/// One thread asks, and one answers and closes.
fn exchange() -> Result<Work> {
    let server = Server::start(1)?;
    let mut address = 0_u16;
    Ok(Box::new(move |time| {
        let start = Instant::now();
        let made = server.ask_from(1, &mut address, start, time)?;
        Ok((made, start.elapsed()))
    }))
}

/// Eight threads ask, and two answer and close.
fn busy() -> Result<Work> {
    const ASKING: u8 = 8;
    const ANSWERING: usize = 2;

    let server = Server::start(ANSWERING)?;
    let mut addresses: [u16; ASKING as usize] = [0; ASKING as usize];
    Ok(Box::new(move |time| {
        let start = Instant::now();
        let made = thread::scope(|scope| {
            let asking: Vec<_> = (1..=ASKING)
                .zip(&mut addresses)
                .map(|(block, address)| {
                    scope.spawn(move || server.ask_from(block, address, start, time))
                })
                .collect();
            asking
                .into_iter()
                .map(|asking| match asking.join() {
                    Ok(made) => made,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .sum::<Result<u64>>()
        })?;
        Ok((made, start.elapsed()))
    }))
}

/// Who answers one request of each connection, and closes it. It ends with the process.
#[derive(Clone, Copy)]
struct Server {
    port: u16,
}

impl Server {
    const REQUEST: [u8; 128] = [b'?'; 128];
    const ANSWER: [u8; 1024] = [b'!'; 1024];

    fn start(threads: usize) -> Result<Self> {
        // Far more than what remains in TIME_WAIT here: beyond the limit the kernel closes at once.
        fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "2000000")
            .context("cannot raise the limit of ends in TIME_WAIT")?;
        let listener =
            Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen")?);
        let port = listener
            .local_addr()
            .context("the listener has no address")?
            .port();
        for _ in 0..threads {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                // Who asks notices what goes wrong.
                for mut accepted in listener.incoming().flatten() {
                    let mut request = Self::REQUEST;
                    if accepted.read_exact(&mut request).is_ok() {
                        let _ = accepted.write_all(&Self::ANSWER);
                    }
                }
            });
        }
        Ok(Self { port })
    }

    /// Asks again and again until `time` after `start`; returns how often. To another address of the `block`
    /// each time: the ends in TIME_WAIT would soon take up all ports of one.
    fn ask_from(self, block: u8, address: &mut u16, start: Instant, time: Duration) -> Result<u64> {
        let mut made = 0;
        while start.elapsed() < time {
            let [high, low] = address.to_be_bytes();
            self.ask(Ipv4Addr::new(127, block, high, low))?;
            *address = address.wrapping_add(1);
            made += 1;
        }
        Ok(made)
    }

    fn ask(self, addr: Ipv4Addr) -> Result<()> {
        let mut stream = TcpStream::connect((addr, self.port)).context("cannot connect")?;
        stream.write_all(&Self::REQUEST).context("cannot ask")?;
        let mut answer = Vec::with_capacity(Self::ANSWER.len());
        stream.read_to_end(&mut answer).context("cannot read")?;
        ensure!(answer == Self::ANSWER, "the answer is another one");
        Ok(())
    }
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
fn unread() -> Result<Work> {
    let to = (Ipv4Addr::LOCALHOST, FIRST_PORT);
    let listener = TcpListener::bind(to).context("cannot listen")?;
    Ok(Box::new(move |time| {
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
    }))
}

/// `TcpOutRsts` of this network namespace, once it stands still: the last
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
