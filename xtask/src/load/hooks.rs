//! A tracer's programs, attached and detached by turns while a load goes on. A machine that does other
//! things as well is faster in one second than in the next, by more than tracing costs those who have no
//! resets; so what is compared must be as close in time as can be, and tracers take long to start.
//!
//! Which programs they are is for the benchmark to say. They are held here, so that they are there when
//! their tracer has ended.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::libc::{SYS_bpf, c_int, syscall};

/// Commands of bpf(2) (`include/uapi/linux/bpf.h`).
const PROG_GET_FD_BY_ID: c_int = 13;
const RAW_TRACEPOINT_OPEN: c_int = 17;

/// The beginning of `union bpf_attr` for the first command; what follows is 0.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}

/// The same for the second.
#[repr(C)]
#[derive(Default)]
struct OnTracepoint {
    /// None: a BTF tracepoint's program knows its own.
    name: u64,
    program: u32,
    pad: u32,
}

/// Programs, and the links by which they are attached.
pub(super) struct Hooks {
    programs: Vec<OwnedFd>,
    links: Vec<OwnedFd>,
}

impl Hooks {
    /// Holds the BTF tracepoint programs with these numbers.
    pub(super) fn hold(ids: &[u32]) -> Result<Self> {
        let program = |id: &u32| {
            let attr = ById {
                id: *id,
                ..ById::default()
            };
            bpf(PROG_GET_FD_BY_ID, &attr).with_context(|| format!("cannot hold BPF program {id}"))
        };
        Ok(Self {
            programs: ids.iter().map(program).collect::<Result<_>>()?,
            links: Vec::new(),
        })
    }

    pub(super) fn attach(&mut self) -> Result<()> {
        for program in &self.programs {
            let attr = OnTracepoint {
                program: program.as_raw_fd().cast_unsigned(),
                ..OnTracepoint::default()
            };
            let link = bpf(RAW_TRACEPOINT_OPEN, &attr).context("cannot attach a BPF program")?;
            self.links.push(link);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self) {
        // A link is gone with its last descriptor.
        self.links.clear();
    }
}

fn bpf<T>(command: c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told there are, and for these commands writes none.
    let fd = unsafe { syscall(SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    match c_int::try_from(fd) {
        // SAFETY: the kernel has just opened it for nobody else.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
