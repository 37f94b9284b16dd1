//! A virtual machine: one kernel, one command, and how it ended.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{accelerator::Accelerator, qemu::Qemu};
use crate::command;

/// With what the guest's first process announces the command's exit status.
const STATUS: &str = "rstwatch-vm: exit status ";

/// A machine that says nothing at all for so long hangs; the slowest test is silent for less.
const SILENCE: Duration = Duration::from_mins(15);

/// Megabytes of memory: a test that makes a storm holds all of its events at once.
const MEMORY: &str = "3072";

/// The kernel's command line. It need not look for a timer that works, which it may fail to see on a
/// busy host.
const BOOT: &str = "console=ttyS0 panic=-1 loglevel=5 no_timer_check rdinit=/init";

/// A machine to boot.
pub(super) struct Machine<'m> {
    pub(super) qemu: &'m Qemu,
    pub(super) accelerator: Accelerator,
    pub(super) image: &'m Path,
    pub(super) initramfs: &'m Path,
    /// Where the console, standard output and standard error are kept.
    pub(super) logs: &'m Path,
}

/// What a command did in the guest.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Its exit status.
    pub(super) status: i32,
    /// Its standard output.
    pub(super) stdout: String,
}

/// Which stream of the guest a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// Ends QEMU when it is no longer looked after.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It has ended, or it is to.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Boots it, waits for the end, and has `show` see every line as it comes.
    pub(super) fn run(&self, mut show: impl FnMut(Stream, &str)) -> Result<Outcome> {
        let console = self.log("console");
        let mut qemu = self.qemu.command();
        // One processor: Linux 6.12 crashes with two that QEMU 7.2 interprets.
        qemu.args([
            "-accel",
            self.accelerator.name(),
            "-cpu",
            "max",
            "-smp",
            "1",
        ])
        .args(["-m", MEMORY, "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-nic", "none", "-rtc", "clock=vm"]);
        if self.accelerator == Accelerator::Tcg {
            // The guest's time is counted in its instructions, 2 ns each, and skips what it sleeps:
            // so it lives on a processor of one speed, however busy the host is.
            qemu.args(["-icount", "shift=1,sleep=off"]);
        }
        qemu.arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", BOOT])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio", "-serial", "file:/dev/stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = qemu
            .spawn()
            .with_context(|| format!("cannot start `{}`", command::render(&qemu)))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, Stream::Output, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, Stream::Error, sender);
        }
        let guard = Guard(child);

        let mut output_log = create(&self.log("stdout"))?;
        let mut error_log = create(&self.log("stderr"))?;
        let mut stdout = String::new();
        let mut status = None;
        loop {
            let (stream, line) = match lines.recv_timeout(SILENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                    "the machine has said nothing for {} minutes; its console is in {}",
                    SILENCE.as_secs() / 60,
                    console.display()
                ),
            };
            if stream == Stream::Output
                && let Some(number) = line.strip_prefix(STATUS)
            {
                status = number.trim().parse().ok();
                continue;
            }
            match stream {
                Stream::Output => {
                    stdout.push_str(&line);
                    writeln!(output_log, "{line}")?;
                }
                Stream::Error => writeln!(error_log, "{line}")?,
            }
            if stream == Stream::Output {
                stdout.push('\n');
            }
            show(stream, &line);
        }
        drop(guard);
        let Some(status) = status else {
            bail!(
                "the machine ended before the command did; its console is in {}",
                console.display()
            );
        };
        Ok(Outcome { status, stdout })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Sends the lines of `from`, whatever bytes they hold.
fn forward(
    from: impl std::io::Read + Send + 'static,
    stream: Stream,
    to: mpsc::Sender<(Stream, String)>,
) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            if to.send((stream, text)).is_err() {
                return;
            }
        }
    });
}
