//! A load as a process of its own, in a network namespace of its own.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::load::{Done, Load};

/// A load that is through, and whose network namespace is still there: tracers read its counters at
/// their end.
pub(super) struct Loaded {
    pub(super) done: Done,
    child: Child,
}

impl Loaded {
    /// Puts a load on the kernel for so many seconds. `own` is this program.
    pub(super) fn run(own: &Path, load: Load, seconds: f64) -> Result<Self> {
        let script = "ip link set lo up && exec \"$0\" load \"$1\" \"$2\"";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .arg(own)
            .args([load.name(), &seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load: is there an `unshare`, of util-linux?")?;
        let output = child.stdout.take().context("the load has no output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("cannot read what the load did")?;
        match serde_json::from_str(&line) {
            Ok(done) => Ok(Self { done, child }),
            Err(error) => {
                let status = child.wait().context("cannot wait for the load")?;
                Err(error).with_context(|| format!("the load failed ({status})"))
            }
        }
    }

    /// Lets its network namespace go.
    pub(super) fn end(mut self) -> Result<Done> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("cannot wait for the load")?;
        ensure!(status.success(), "the load ended with {status}");
        Ok(self.done)
    }
}
