//! A private network namespace, and the wire between two of them.
//!
//! What happens inside is for `stage` to direct. Nothing here touches the namespace that the
//! caller runs in.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

use super::netlink;

/// The index of a wire's device, next after the loopback device's.
const WIRE: u32 = netlink::LOOPBACK + 1;

/// The IPv6 routes of the calling thread's namespace; those to single addresses are its own here.
const ROUTES: &str = "/proc/thread-self/net/ipv6_route";

/// For how long the kernel may take to make a route, and how often to look.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(1);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of its own, with its loopback device up.
///
/// A dedicated thread lives in it and runs whatever is to happen there; a process that this thread
/// starts lives there too. The namespace goes when the last of them and this value are gone.
#[derive(Debug)]
pub struct Netns {
    inode: u32,
    file: OwnedFd,
    /// `None` only while dropping.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Makes a namespace.
    ///
    /// # Errors
    ///
    /// Without `CAP_SYS_ADMIN`.
    pub fn new() -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (report, made) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let entered = enter_new();
                let lives = entered.is_ok();
                if report.send(entered).is_ok() && lives {
                    for job in inbox {
                        job();
                    }
                }
            })
            .context("cannot start a thread")?;
        let (file, inode) = made
            .recv()
            .context("the thread of a network namespace ended")??;
        Ok(Self {
            inode,
            file,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// The inode by which the kernel and `/proc/PID/ns/net` name it.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `job` inside. What it starts may outlive it, but a process that it starts and that asks
    /// for `PR_SET_PDEATHSIG` gets that signal when this value is dropped.
    ///
    /// # Errors
    ///
    /// When the namespace's thread is gone, because an earlier job panicked.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (report, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            // The receiver waits below; were it gone, nobody would want the result.
            let _ = report.send(job());
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .and_then(|()| result.recv().ok())
            .ok_or_else(|| anyhow!("the thread of a network namespace is gone"))
    }

    /// Joins it with `other` by a pair of devices that carry these addresses.
    ///
    /// # Errors
    ///
    /// When either has a wire already, or the kernel cannot make one.
    pub fn wire(&self, other: &Self, own: &[Address], others: &[Address]) -> Result<()> {
        let peer = other.file.try_clone().context("cannot duplicate a file")?;
        self.run(move || netlink::add_veth(WIRE, peer.as_fd()))??;
        self.bring_up(own)?;
        other.bring_up(others)
    }

    /// Takes the wire away, at both ends. The sockets stay.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn unwire(&self) -> Result<()> {
        self.run(|| netlink::delete(WIRE))?
    }

    /// Takes the addresses from its end of the wire: what comes for them is dropped without a word,
    /// and nobody on the wire learns of it.
    ///
    /// # Errors
    ///
    /// When it does not have them.
    pub fn go_deaf(&self, own: &[Address]) -> Result<()> {
        let own = own.to_vec();
        self.run(move || {
            own.iter()
                .try_for_each(|own| netlink::delete_address(WIRE, own.address, own.prefix))
        })?
    }

    /// Gives the addresses back. They are heard when this returns.
    ///
    /// # Errors
    ///
    /// When it has them.
    pub fn hear_again(&self, own: &[Address]) -> Result<()> {
        let own = own.to_vec();
        self.run(move || {
            own.iter().try_for_each(|own| {
                netlink::add_address(WIRE, own.address, own.prefix)?;
                await_route(own.address)
            })
        })?
    }

    fn bring_up(&self, addresses: &[Address]) -> Result<()> {
        self.run(|| netlink::set_up(WIRE))??;
        self.hear_again(addresses)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// An address on a wire.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// How many of its leading bits the wire's ends share.
    pub prefix: u8,
}

/// Waits until the namespace delivers to itself what comes for an address of its own. For IPv6 the
/// kernel leaves that to a worker when it takes the address (`addrconf_dad_start`,
/// `net/ipv6/addrconf.c`).
fn await_route(address: IpAddr) -> Result<()> {
    let IpAddr::V6(address) = address else {
        return Ok(());
    };
    let wanted = format!("{:032x} 80 ", address.to_bits());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = fs::read_to_string(ROUTES).with_context(|| format!("cannot read {ROUTES}"))?;
        if routes.lines().any(|line| line.starts_with(&wanted)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the kernel has made no route to {address} within {PATIENCE:?}"
        );
        thread::sleep(LOOK);
    }
}

/// Moves the calling thread into a new namespace.
fn enter_new() -> Result<(OwnedFd, u32)> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace (it takes CAP_SYS_ADMIN)")?;
    netlink::set_up(netlink::LOOPBACK)?;
    let file = File::open("/proc/thread-self/ns/net").context("cannot open a namespace")?;
    let inode = file.metadata().context("cannot look at a namespace")?.ino();
    let inode = u32::try_from(inode).context("a namespace's inode is no 32-bit number")?;
    Ok((file.into(), inode))
}
