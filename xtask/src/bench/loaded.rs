//! A load as a process of its own, in a network namespace of its own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use serde::de::DeserializeOwned;

use crate::load::{Done, Load, Order};

/// A load that waits until it is to work. Its network namespace is there until it ends: tracers read
/// the counters there. Both runs of a pair are the same process's: two processes are seldom equally
/// fast, since their memory and threads lie elsewhere.
pub(super) struct Loaded {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Loaded {
    /// Makes one ready. `own` is this program.
    pub(super) fn start(own: &Path, load: Load) -> Result<Self> {
        let script = "ip link set lo up && exec \"$0\" load \"$1\"";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .arg(own)
            .arg(load.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load: is there an `unshare`, of util-linux?")?;
        Ok(Self {
            input: child.stdin.take().context("the load has no input")?,
            output: BufReader::new(child.stdout.take().context("the load has no output")?),
            child,
        })
    }

    /// Puts it on the kernel for so many seconds.
    pub(super) fn work(&mut self, seconds: f64) -> Result<Done> {
        self.answer(&Order::Work(seconds))
    }

    /// Has it hold the BPF programs with these numbers.
    pub(super) fn hold(&mut self, ids: Vec<u32>) -> Result<()> {
        self.answer::<usize>(&Order::Hold(ids)).map(drop)
    }

    /// Has it work without and with those attached, by turns.
    pub(super) fn take_turns(&mut self, pairs: u32, seconds: f64) -> Result<[Done; 2]> {
        self.answer(&Order::TakeTurns { pairs, seconds })
    }

    fn answer<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T> {
        // One that has ended says why when its answer is read.
        let _ = writeln!(self.input, "{}", serde_json::to_string(order)?);
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .context("cannot read what the load did")?;
        match serde_json::from_str(&line) {
            Ok(done) => Ok(done),
            Err(error) => {
                let status = self.child.wait().context("cannot wait for the load")?;
                Err(error).with_context(|| format!("the load failed ({status})"))
            }
        }
    }

    /// Lets its network namespace go.
    pub(super) fn end(self) -> Result<()> {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        let status = child.wait().context("cannot wait for the load")?;
        ensure!(status.success(), "the load ended with {status}");
        Ok(())
    }
}
