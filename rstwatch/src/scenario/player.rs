//! The director's side of a process that plays a role: started in a namespace, told what to do,
//! heard, and ended. What the roles can do stands in `role`.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use thiserror::Error;

use super::{ROLE_COMMAND, netns::Netns};

/// For how long a step may take. All but a flood of connects are done in milliseconds.
pub const STEP: Duration = Duration::from_secs(10);

/// A process in a role. Dropping it ends the process.
#[derive(Debug)]
pub struct Player {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    pid: u32,
}

/// What a role answered.
#[derive(Debug)]
pub enum Answer {
    /// The step was done.
    Ok(String),
    /// The kernel refused it.
    Fail {
        /// The name of its error.
        errno: String,
        /// What else there is to say.
        detail: String,
    },
}

/// The kernel refused a step, which no scenario expected.
#[derive(Debug, Error)]
#[error("failed with {errno}")]
pub struct Refused {
    /// The name of its error.
    pub errno: String,
}

impl Answer {
    /// Demands that the step succeeded, or failed with `errno`, and gives the rest of the answer.
    ///
    /// # Errors
    ///
    /// When it was otherwise.
    pub fn demand(self, errno: Option<&str>) -> Result<String> {
        match (self, errno) {
            (Self::Ok(text), None) => Ok(text),
            (Self::Fail { errno, detail }, Some(wanted)) if errno == wanted => Ok(detail),
            (Self::Ok(_), Some(wanted)) => bail!("succeeded, but should fail with {wanted}"),
            (Self::Fail { errno, .. }, Some(wanted)) => bail!("failed with {errno}, not {wanted}"),
            (Self::Fail { errno, .. }, None) => Err(Refused { errno }.into()),
        }
    }
}

impl Player {
    /// Starts `exe role NAME` in `netns`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(name: &str, netns: &Netns, exe: &Path) -> Result<Self> {
        Self::start_through(&[], name, netns, exe)
    }

    /// Starts `PREFIX... exe role NAME` in `netns`. When the prefix is a command that starts the
    /// role as its child, [`Self::becomes`] is to say which process that is.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_through(prefix: &[&str], name: &str, netns: &Netns, exe: &Path) -> Result<Self> {
        let mut words: Vec<OsString> = prefix.iter().map(OsString::from).collect();
        words.extend([exe.into(), ROLE_COMMAND.into(), name.into()]);
        // The namespace's thread is the parent, whose end the role does not outlive.
        let mut child = netns.run(move || {
            Command::new(&words[0])
                .args(&words[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {}", words[0].display()))
        })??;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no standard output")?;
        let (to, answers) = mpsc::channel();
        let pid = child.id();
        let player = Self {
            name: name.to_owned(),
            child,
            input,
            answers,
            pid,
        };
        thread::Builder::new()
            .name(format!("hear-{name}"))
            .spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if to.send(line).is_err() {
                        break;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(player)
    }

    /// The process that plays now.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// From now on the process `pid` plays, which reads and writes the same pipes.
    pub fn becomes(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// The process that was started, which lives in the role's network namespace as long as it is
    /// not ended.
    pub fn started(&self) -> u32 {
        self.child.id()
    }

    /// Tells the role to take a step and waits for its answer.
    ///
    /// # Errors
    ///
    /// When it does not answer in time, or something else goes wrong than that the kernel refuses.
    pub fn ask(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        self.tell(command)?;
        match self.answers.recv_timeout(patience) {
            Ok(line) => parse_answer(&line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} did not answer within {patience:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{} has ended", self.name),
        }
    }

    /// Tells the role to take a step from which no answer comes: one that ends it.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("the role has ended")?;
        input
            .write_all(format!("{command}\n").as_bytes())
            .with_context(|| format!("{} does not listen", self.name))
    }

    /// Sends the process that plays a signal that ends it, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into().context("no PID")?);
        kill(pid, signal).context("cannot kill the role")?;
        self.wait()
    }

    /// Has the process take a step that ends it, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn end_by(&mut self, command: &str) -> Result<()> {
        self.tell(command)?;
        self.wait()
    }

    /// Waits until the process is gone, all of its sockets closed.
    fn wait(&mut self) -> Result<()> {
        match self.answers.recv_timeout(STEP) {
            Ok(line) => bail!("{} answers instead of ending: {line}", self.name),
            Err(RecvTimeoutError::Timeout) => bail!("{} did not end in {STEP:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        self.input = None;
        self.reap()
    }

    /// Waits until the process that was started is gone, while another one plays on.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn reap(&mut self) -> Result<()> {
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Either fails only when the process is gone already. A worker dies with its parent, or
        // with the pipe through which it is told what to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse_answer(line: &str) -> Result<Answer> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    match kind {
        "ok" => Ok(Answer::Ok(rest.to_owned())),
        "fail" => {
            let (errno, detail) = rest.split_once(' ').unwrap_or((rest, ""));
            Ok(Answer::Fail {
                errno: errno.to_owned(),
                detail: detail.to_owned(),
            })
        }
        "error" => Err(anyhow!("{rest}")),
        _ => bail!("an answer that is none: {line}"),
    }
}
