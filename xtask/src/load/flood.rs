//! SYNs to closed ports from many addresses: sent as frames in a second network namespace, they come
//! in over a veth as from another host, and meet no socket.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket},
};

use super::{
    PORTS,
    frame::{self, End, Mac},
    out_rsts,
};
use crate::command;

/// Our end of the veth, and the one in the other namespace.
const HERE: &str = "rst0";
const THERE: &str = "rst1";
const MAC_HERE: &str = "02:00:00:00:00:01";
const MAC_THERE: &str = "02:00:00:00:00:02";
const BYTES_HERE: Mac = [2, 0, 0, 0, 0, 1];
const BYTES_THERE: Mac = [2, 0, 0, 0, 0, 2];

/// Addresses for examples (RFC 5737): who is asked, and the router behind whom those who ask are.
const ADDR_HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER: &str = "192.0.2.2";

/// Different frames, each from an address of its own in 10.0.0.0/8. They are made beforehand, so
/// that the load is what the kernel does with them.
const FRAMES: u32 = 4096;

/// Those who ask, and the way to them.
pub(super) struct Flood {
    /// In the other namespace, which it keeps.
    socket: OwnedFd,
    frames: Vec<[u8; frame::LENGTH]>,
}

impl Flood {
    pub(super) fn new() -> Result<Self> {
        let socket = way_here()?;
        let frames = (0..FRAMES).map(frame).collect();
        Ok(Self { socket, frames })
    }

    /// Sends for `time`; returns the resets that came of it, and how long that took.
    pub(super) fn run(&self, time: Duration) -> Result<(u64, Duration)> {
        let before = out_rsts()?;
        let start = Instant::now();
        for frame in self.frames.iter().cycle() {
            if start.elapsed() >= time {
                break;
            }
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                // A full queue is what a storm meets.
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(error) => return Err(error).context("cannot send a frame"),
            }
        }
        let took = start.elapsed();
        Ok((out_rsts()? - before, took))
    }
}

/// Joins this namespace to another one, and returns a socket that sends frames there.
fn way_here() -> Result<OwnedFd> {
    // Only a thread moves to another namespace: this process's stays the one that is measured.
    let socket = match thread::spawn(socket_there).join() {
        Ok(socket) => socket?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    ip(&["address", "add", &format!("{ADDR_HERE}/24"), "dev", HERE])?;
    ip(&["link", "set", HERE, "up"])?;
    // So that a reset goes out at once: nobody there answers when asked for an address.
    ip(&[
        "neighbour",
        "add",
        ROUTER,
        "lladdr",
        MAC_THERE,
        "nud",
        "permanent",
        "dev",
        HERE,
    ])?;
    ip(&["route", "add", "default", "via", ROUTER, "dev", HERE])?;
    Ok(socket)
}

/// Makes the other namespace and the veth to it, and returns a socket that sends frames there: it
/// keeps the namespace.
fn socket_there() -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    let here = std::process::id().to_string();
    ip(&[
        "link", "add", THERE, "address", MAC_THERE, "type", "veth", "peer", "name", HERE,
        "address", MAC_HERE, "netns", &here,
    ])?;
    ip(&["link", "set", THERE, "up"])?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("cannot open a packet socket")?;
    // With no protocol in it, so that the socket sends and receives nothing.
    let address = getifaddrs()
        .context("cannot list the interfaces")?
        .filter(|interface| interface.interface_name == THERE)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .with_context(|| format!("{THERE} has no address"))?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot bind to {THERE}"))?;
    Ok(socket)
}

/// The frame of this number.
fn frame(number: u32) -> [u8; frame::LENGTH] {
    let [_, second, third, fourth] = (number + 1).to_be_bytes();
    let port = number as u16 % PORTS.len() as u16 + PORTS.start();
    let from = End {
        mac: BYTES_THERE,
        addr: Ipv4Addr::new(10, second, third, fourth),
        port: 40_000,
    };
    let to = End {
        mac: BYTES_HERE,
        addr: ADDR_HERE,
        port,
    };
    frame::syn(from, to)
}

/// Runs `ip` in the namespace of this thread.
fn ip(args: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(args)).map(drop)
}
