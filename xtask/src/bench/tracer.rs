//! A tracer that runs: started, found to be ready, found to have caught up, and ended.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    cases::Tracing,
    outcome::Seen,
    process::{Process, Used},
    programs::attached_in,
    rival::{self, Bpftrace},
    summary,
};
use crate::load::{Done, Load};

/// For how long a tracer may take to be ready.
const READY: Duration = Duration::from_mins(1);

/// For how long a tracer may take to get through with what waits for it.
const CATCH_UP: Duration = Duration::from_mins(1);

/// Between two looks at how far a tracer is.
const LOOK: Duration = Duration::from_millis(50);

/// So many looks in a row must find a tracer idle: one that waits for a CPU seems so for a while.
const IDLE_LOOKS: u32 = 3;

/// In a look, an idle tracer uses less than this part of it. `rstwatch top` draws, and is never quite
/// still.
const IDLE_PART: u32 = 10;

/// The end of what a terminal shows that is kept.
const TERMINAL_TAIL: usize = 64 << 10;

/// A terminal as they are today.
const TERMINAL: Winsize = Winsize {
    ws_row: 40,
    ws_col: 120,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// The programs that can be run, and where their files go.
pub(super) struct Tracers {
    pub(super) rstwatch: PathBuf,
    /// `None` when no case needs it.
    pub(super) bpftrace: Option<Bpftrace>,
    /// Of the benchmark alone.
    pub(super) directory: PathBuf,
}

/// A tracer whose hooks are all attached. It ends when this is dropped.
pub(super) struct Tracer {
    tracing: Tracing,
    child: Child,
    process: Process,
    files: Files,
    /// Who reads what it shows, where it has a terminal.
    screen: Option<JoinHandle<Vec<u8>>>,
    /// From its start until it was ready.
    pub(super) ready: Duration,
    /// What it had used by then.
    at_ready: Used,
}

/// Room for what a tracer writes to its output in the longest run that is usual: 2 s, and as long by
/// turns, at 400,000 resets a second, of 1 kB each.
const ROOM: u64 = 2 << 30;

/// Where the kernel keeps files in memory alone.
const IN_MEMORY: &str = "/dev/shm";

/// What a tracer writes.
pub(super) struct Files {
    /// Shares its position with the tracer.
    out: File,
    output: PathBuf,
    errors: PathBuf,
    /// What rstwatch makes once it is ready.
    ready: PathBuf,
}

impl Files {
    /// None of an earlier run is left. The output lies in memory and has its pages from the start: to
    /// get memory from the system, or in a virtual machine from its host, can take longer than all
    /// that is measured, and a disk is no tracer's doing either.
    fn new(directory: &Path) -> Result<Self> {
        let memory = Path::new(IN_MEMORY);
        let memory = if memory.is_dir() { memory } else { directory };
        let output = memory.join(format!("rstwatch-bench-{}", process::id()));
        let files = Self {
            out: with_room(&output).with_context(|| format!("cannot make {}", output.display()))?,
            output,
            errors: directory.join("errors"),
            ready: directory.join("ready"),
        };
        if files.ready.exists() {
            fs::remove_file(&files.ready).context("cannot remove an old ready file")?;
        }
        Ok(files)
    }

    /// How much was written to the output.
    fn written(&self) -> Result<u64> {
        (&self.out)
            .stream_position()
            .context("cannot tell how much was written")
    }

    /// Leaves of the output what was written.
    fn finish(&self) -> Result<()> {
        self.out
            .set_len(self.written()?)
            .context("cannot cut the output off")
    }

    /// Whether the output holds this text.
    fn holds(&self, text: &str) -> Result<bool> {
        let mut written = vec![0; usize::try_from(self.written()?)?];
        // Leaves the position alone, which the tracer shares.
        self.out
            .read_exact_at(&mut written, 0)
            .context("cannot read the output")?;
        Ok(String::from_utf8_lossy(&written).contains(text))
    }

    /// Its last words on standard error.
    fn complaint(&self) -> String {
        summary::tail(&self.errors).unwrap_or_default()
    }
}

/// An empty file whose pages are there.
fn with_room(path: &Path) -> io::Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    io::copy(&mut io::repeat(0).take(ROOM), &mut file)?;
    file.rewind()?;
    Ok(file)
}

impl Drop for Files {
    fn drop(&mut self) {
        // Hundreds of MiB, which nobody is to wait for being written to the disk. What is not there
        // needs no removing.
        for path in [&self.output, &self.errors, &self.ready] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Tracers {
    /// Makes room for what a tracer writes.
    pub(super) fn files(&self) -> Result<Files> {
        Files::new(&self.directory)
    }

    /// Starts a tracer, and waits until it is ready.
    pub(super) fn start(&self, tracing: Tracing, files: Files) -> Result<Tracer> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let output = files.out.try_clone().context("cannot share the output")?;
        let mut command = self.command(tracing, &files)?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(create(&files.errors)?);
        let screen = if tracing == Tracing::Top {
            let pty = openpty(&TERMINAL, None).context("cannot open a terminal")?;
            let input = pty.slave.try_clone().context("cannot share a terminal")?;
            command.stdin(input).stdout(pty.slave);
            Some(thread::spawn(move || watched(pty.master)))
        } else {
            None
        };
        let begin = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", tracing.title()))?;
        // With our copy of the terminal, or its end would not be seen.
        drop(command);
        let mut tracer = Tracer {
            tracing,
            process: Process::new(child.id()),
            child,
            files,
            screen,
            ready: Duration::ZERO,
            at_ready: Used::default(),
        };
        while !tracer.is_ready()? {
            ensure!(
                begin.elapsed() < READY,
                "{} was not ready within {} s: {}",
                tracing.title(),
                READY.as_secs(),
                tracer.files.complaint()
            );
            thread::sleep(Duration::from_millis(1));
        }
        tracer.ready = begin.elapsed();
        tracer.at_ready = tracer.process.used()?;
        Ok(tracer)
    }

    fn command(&self, tracing: Tracing, files: &Files) -> Result<Command> {
        if let Tracing::Bpftrace(script) = tracing {
            let bpftrace = self.bpftrace.as_ref().context("there is no bpftrace")?;
            return Ok(bpftrace.command(script));
        }
        let mut rstwatch = Command::new(&self.rstwatch);
        rstwatch
            .args(tracing.rstwatch_args().unwrap_or_default())
            .arg("--lend-hooks")
            .arg("--ready-file")
            .arg(&files.ready);
        Ok(rstwatch)
    }
}

impl Tracer {
    fn is_ready(&mut self) -> Result<bool> {
        if let Some(status) = self.child.try_wait().context("cannot look at the tracer")? {
            bail!(
                "{} ended before it was ready ({status}): {}",
                self.tracing.title(),
                self.files.complaint()
            );
        }
        if self.tracing.rstwatch_args().is_some() {
            return Ok(self.files.ready.exists());
        }
        self.files.holds(rival::READY)
    }

    /// Waits until it is through with what waits in its ring buffer, and returns what it has used
    /// since it was ready. It is through when it has written nothing more and used next to no CPU
    /// time for some looks in a row: how long that takes is its own affair, and no fixed time would
    /// do for a fast and a slow one.
    pub(super) fn caught_up(&self) -> Result<Used> {
        let deadline = Instant::now() + CATCH_UP;
        let state =
            || -> Result<(u64, u64)> { Ok((self.files.written()?, self.process.cpu_ns()?)) };
        let mut last = state()?;
        let mut idle = 0;
        while idle < IDLE_LOOKS {
            ensure!(
                Instant::now() < deadline,
                "{} was not through with its events {} s after the load",
                self.tracing.title(),
                CATCH_UP.as_secs()
            );
            thread::sleep(LOOK);
            let now = state()?;
            let used = Duration::from_nanos(now.1.saturating_sub(last.1));
            idle = if now.0 == last.0 && used < LOOK / IDLE_PART {
                idle + 1
            } else {
                0
            };
            last = now;
        }
        let used = self.process.used()?;
        Ok(Used {
            user_s: used.user_s - self.at_ready.user_s,
            system_s: used.system_s - self.at_ready.system_s,
            peak_mib: used.peak_mib,
        })
    }

    /// Its open files, as the kernel describes them.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        self.process.files()
    }

    /// Has rstwatch let go of its hooks, whose programs somebody else holds, and go on reading.
    pub(super) fn let_go(&self) -> Result<()> {
        let title = self.tracing.title();
        kill(pid_of(&self.child)?, Signal::SIGUSR1)
            .with_context(|| format!("cannot ask {title} for its hooks"))?;
        let deadline = Instant::now() + CATCH_UP;
        while !attached_in(&self.files()?).is_empty() {
            ensure!(Instant::now() < deadline, "{title} keeps its hooks");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it, and returns what it saw while there was the load.
    ///
    /// # Errors
    ///
    /// When it fails; when rstwatch saw another number of resets than the kernel sent.
    pub(super) fn end(mut self, load: Load, done: &Done) -> Result<Seen> {
        let title = self.tracing.title();
        kill(pid_of(&self.child)?, Signal::SIGINT)
            .with_context(|| format!("cannot stop {title}"))?;
        let status = self.child.wait().context("cannot wait for the tracer")?;
        ensure!(
            status.success(),
            "{title} ended with {status}: {}",
            self.files.complaint()
        );
        self.files.finish()?;
        let screen = self.screen.take().map(JoinHandle::join);
        if self.tracing.rstwatch_args().is_none() {
            return rival::seen_in_files(&[&self.files.output, &self.files.errors]);
        }
        let text = match screen {
            None => summary::tail(&self.files.output)?,
            Some(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        let summary = summary::parse(&text, done.netns, load.ports().as_ref())
            .with_context(|| format!("{title} wrote no summary"))?;
        let counted = done.out_rsts;
        // At least all together are no fewer, where others' resets cannot be told apart.
        let (seen, is_right) = match summary.sent_by_load {
            Some(seen) => (seen, seen == counted),
            None => (summary.seen.sent, summary.seen.sent >= counted),
        };
        ensure!(
            is_right,
            "{title} saw {seen} resets sent by the load, and the kernel counted {counted} \
             (TcpOutRsts): rstwatch must never miss one"
        );
        Ok(summary.seen)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // After `end` there is nothing left to end. Its first wish is to detach its hooks, which the
        // kernel does for it as well.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    let pid = i32::try_from(child.id()).context("a process number is an i32")?;
    Ok(Pid::from_raw(pid))
}

/// The end of what is shown on a terminal, which is read for as long as a program has it open.
fn watched(master: OwnedFd) -> Vec<u8> {
    let mut master = File::from(master);
    let mut shown = Vec::new();
    let mut buffer = [0; 16 << 10];
    // The kernel ends a terminal that nobody has open any more with an error.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..length]);
        if shown.len() > 2 * TERMINAL_TAIL {
            shown.drain(..shown.len() - TERMINAL_TAIL);
        }
    }
    shown
}
