//! Workers: processes that a role starts as copies of itself and that do what it is told for them.
//! A worker plays on like any role; only that its standard input and output are pipes to its parent.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    libc,
    sys::wait::waitpid,
    unistd::{Pid, dup2_stdin, dup2_stdout, pipe},
};

/// The parent's side of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pid: Pid,
    to: File,
    from: BufReader<File>,
}

/// Which of both processes returns from [`Worker::start`].
pub(super) enum Side {
    Parent(Worker),
    Child,
}

impl Worker {
    /// Starts a worker, with the PID `pid` if one is asked for and free. The child's next answer
    /// goes to the parent, which is to read it.
    pub(super) fn start(pid: Option<libc::pid_t>) -> Result<Side> {
        let (to_read, to_write) = pipe().context("cannot make a pipe")?;
        let (from_read, from_write) = pipe().context("cannot make a pipe")?;
        match clone(pid).context("cannot start a worker")? {
            0 => {
                dup2_stdin(to_read).context("cannot set standard input")?;
                dup2_stdout(from_write).context("cannot set standard output")?;
                Ok(Side::Child)
            }
            pid => Ok(Side::Parent(Self {
                pid: Pid::from_raw(pid),
                to: file(to_write),
                from: BufReader::new(file(from_read)),
            })),
        }
    }

    /// Has the worker take a step, and gives its answer.
    pub(super) fn ask(&mut self, step: &str) -> Result<String> {
        self.to
            .write_all(format!("{step}\n").as_bytes())
            .context("the worker does not listen")?;
        self.hear()
    }

    /// The worker's next answer.
    pub(super) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line).context("cannot hear")? == 0 {
            bail!("the worker has ended");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Has the worker end, and waits until it is gone and its PID free.
    pub(super) fn end(self) -> Result<()> {
        let Self { pid, to, .. } = self;
        drop(to);
        waitpid(pid, None).context("cannot wait for the worker")?;
        Ok(())
    }
}

fn file(fd: OwnedFd) -> File {
    fd.into()
}

/// `fork()`, with a PID of choice (`clone3` with `set_tid`, 5.5).
fn clone(pid: Option<libc::pid_t>) -> Result<libc::pid_t, Errno> {
    // SAFETY: all numbers and addresses, for which zero means none.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(pid) = &pid {
        args.set_tid = std::ptr::from_ref(pid) as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: no flag is set, so that the child gets copies of everything, as by fork(). A role has
    // no other threads, so no lock is held by one that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    Errno::result(result).map(|pid| pid as libc::pid_t)
}
