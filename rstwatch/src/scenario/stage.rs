//! Sets a scenario up and directs it: starts the roles in the hosts of a private network, has them
//! take their steps one after the other, and knows what a tracer must have seen.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    Doer, Expected, Family, Ground, Host, ROLE_COMMAND, Scenario,
    netns::{Address, Netns},
    tcp_table::{self, Row},
};
use crate::{
    event::{Direction, TcpState},
    netns::read_sent_resets,
};

/// A port at which nobody listens (discard).
const NOBODY: u16 = 9;

/// For how long a step may take. All but the two below are done in milliseconds.
const STEP: Duration = Duration::from_secs(10);

/// For how long a flood of connects may take.
const FLOOD: Duration = Duration::from_mins(2);

/// Between two looks at the kernel's tables.
const LOOK: Duration = Duration::from_millis(1);

/// A scenario that is being played. Dropping it ends every process and namespace of it, and so does
/// the end of the process that holds it.
#[derive(Debug)]
pub struct Stage {
    scenario: &'static Scenario,
    family: Family,
    // The players go before the hosts that they live in.
    players: Vec<Player>,
    hosts: Vec<(Host, Netns)>,
    /// Where each role can be reached, or connected from.
    ends: HashMap<String, SocketAddr>,
}

/// A process in a role.
#[derive(Debug)]
struct Player {
    name: &'static str,
    host: Host,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Not the child's after a fork.
    pid: u32,
    /// Own end and other end of its last connection.
    connection: Option<(SocketAddr, SocketAddr)>,
}

/// What a role answered.
#[derive(Debug)]
enum Answer {
    Ok(String),
    Fail { errno: String, detail: String },
}

impl Stage {
    /// Makes the network and starts the roles, as `exe role NAME`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a namespace or a device, or `exe` does not start.
    pub fn new(scenario: &'static Scenario, family: Family, exe: &Path) -> Result<Self> {
        let mut stage = Self {
            scenario,
            family,
            players: Vec::new(),
            hosts: Vec::new(),
            ends: HashMap::new(),
        };
        stage
            .set_up(exe)
            .with_context(|| format!("scenario {} ({family})", scenario.name))?;
        Ok(stage)
    }

    fn set_up(&mut self, exe: &Path) -> Result<()> {
        for host in self.scenario.ground.hosts() {
            self.hosts.push((*host, Netns::new()?));
        }
        if self.scenario.ground != Ground::Loopback {
            self.wire(Host::B)?;
        }
        let far = match self.scenario.ground {
            Ground::Loopback => Host::A,
            Ground::Wire | Ground::Spare => Host::B,
        };
        let nobody = SocketAddr::new(self.address(far), NOBODY);
        self.ends.insert("nobody".to_owned(), nobody);
        for (name, host) in self.scenario.roles {
            let player = Player::start(name, *host, self.netns_of(*host)?, exe)
                .with_context(|| format!("cannot start {name}"))?;
            self.players.push(player);
        }
        Ok(())
    }

    /// Plays what comes before the tracer.
    ///
    /// # Errors
    ///
    /// When a step fails; the error names it.
    pub fn prepare(&mut self) -> Result<()> {
        self.run(self.scenario.before)
    }

    /// Plays what the tracer must see.
    ///
    /// # Errors
    ///
    /// When a step fails; the error names it.
    pub fn play(&mut self) -> Result<()> {
        self.run(self.scenario.script)
    }

    /// Plays a script, written as [`Scenario`] says.
    ///
    /// # Errors
    ///
    /// When a step fails; the error names it.
    pub fn run(&mut self, script: &str) -> Result<()> {
        let steps = script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        for step in steps {
            self.step(step).with_context(|| {
                format!(
                    "scenario {} ({}), step `{step}`",
                    self.scenario.name, self.family
                )
            })?;
        }
        Ok(())
    }

    /// The inodes of the network namespaces, host A's first.
    pub fn netns(&self) -> Vec<u32> {
        self.hosts.iter().map(|(_, netns)| netns.inode()).collect()
    }

    /// The PID of a role; after a fork the worker's.
    pub fn pid(&self, role: &str) -> Option<u32> {
        self.player(role).map(|player| player.pid).ok()
    }

    /// Where a role listens or has connected from, or where nobody listens.
    pub fn end(&self, role: &str) -> Option<SocketAddr> {
        self.ends.get(role).copied()
    }

    /// How many RSTs the kernel says its namespaces have sent (`TcpOutRsts`).
    ///
    /// # Errors
    ///
    /// When a namespace cannot be asked.
    pub fn sent_resets(&self) -> Result<u64> {
        self.hosts.iter().try_fold(0, |sum, (_, netns)| {
            let count = netns
                .run(|| read_sent_resets(Path::new("/proc/thread-self/net/snmp")))?
                .context("a namespace has no TcpOutRsts")?;
            Ok(sum + count)
        })
    }

    /// What a tracer must show of the scenario that was played: parts of the JSON objects of its
    /// events. Without `reasons` those leave the kernel's reason open.
    ///
    /// # Errors
    ///
    /// When the script has not been played.
    pub fn expected(&self, reasons: bool) -> Result<Vec<Value>> {
        let events = self.scenario.expected.iter();
        events.map(|event| self.resolve(event, reasons)).collect()
    }

    fn resolve(&self, expected: &Expected, reasons: bool) -> Result<Value> {
        let mut event = json!({
            "direction": expected.direction.name(),
            "family": self.family.name(),
            "local": self.resolve_end(expected.local)?,
            "remote": self.resolve_end(expected.remote)?,
            "state": expected.state,
            "owner": null,
            "actor": null,
            "cause": {"id": expected.cause},
        });
        // No kernel gives a reason for what it receives.
        if reasons || expected.direction == Direction::Received {
            event["reason"] = expected.reason.into();
        }
        if let Some((role, via)) = expected.owner {
            let pid = self.player(role)?.pid;
            event["owner"] = json!({"pid": pid, "comm": role, "via": via.name()});
        }
        if let Doer::Role(role) | Doer::Dying(role, _) = expected.actor {
            let pid = self.player(role)?.pid;
            event["actor"] = json!({
                "pid": pid,
                "tid": pid,
                "comm": role,
                "exiting": matches!(expected.actor, Doer::Dying(..)),
                "signal": match expected.actor {
                    Doer::Dying(_, signal) => signal,
                    _ => None,
                },
            });
        }
        if let Some(unread) = expected.unread {
            event["socket"] = json!({"unread": unread});
        }
        Ok(event)
    }

    fn resolve_end(&self, name: &str) -> Result<Value> {
        let end = self.known_end(name)?;
        Ok(json!({"addr": end.ip().to_string(), "port": end.port()}))
    }

    fn step(&mut self, step: &str) -> Result<()> {
        let (step, errno) = match step.split_once("->") {
            Some((step, errno)) => (step, Some(errno.trim())),
            None => (step, None),
        };
        let words: Vec<&str> = step.split_ascii_whitespace().collect();
        let role_decides = !matches!(
            words[..],
            [_] | [
                _,
                "await" | "await-unread" | "kill" | "exit" | "accept" | "fork" | "flood",
                ..
            ]
        );
        ensure!(
            errno.is_none() || role_decides,
            "a step that cannot be demanded to fail"
        );
        match words[..] {
            ["cut"] => self.netns_of(Host::B)?.go_deaf(&self.addresses(Host::B)),
            ["replace"] => {
                self.netns_of(Host::A)?.unwire()?;
                self.wire(Host::C)
            }
            [role, "await", state] => self.await_row(role, &format!("state {state}"), |row| {
                row.state.name() == state && row.state != TcpState::Listen
            }),
            [role, "await-unread", count] => {
                let count: u32 = count.parse().context("no number")?;
                self.await_row(role, "so much unread data", |row| row.unread == count)
            }
            [role, "kill"] => self.player_mut(role)?.kill(),
            [role, "exit"] => self.player_mut(role)?.exit(),
            [role, "listen"] => {
                let address = self.address(self.player(role)?.host);
                self.listen(role, SocketAddr::new(address, 0), errno)
            }
            [role, "listen", end] => self.listen(role, self.known_end(end)?, errno),
            [role, "connect", end] => self.connect(role, end, errno),
            [role, "flood", end, count] => {
                let command = format!("flood {} {count}", self.known_end(end)?);
                let answer = self.player_mut(role)?.ask(&command, FLOOD)?;
                answer.demand(None).map(drop)
            }
            [role, "accept"] => {
                let own = self.known_end(role)?;
                let player = self.player_mut(role)?;
                let peer = player.ask("accept", STEP)?.demand(None)?;
                player.connection = Some((own, peer.parse().context("no address")?));
                Ok(())
            }
            [role, "fork"] => {
                let player = self.player_mut(role)?;
                let pid = player.ask("fork", STEP)?.demand(None)?;
                player.pid = pid.parse().context("no PID")?;
                Ok(())
            }
            [role, ..] => {
                let command = words[1..].join(" ");
                let answer = self.player_mut(role)?.ask(&command, STEP)?;
                answer.demand(errno).map(drop)
            }
            [] => bail!("an empty step"),
        }
    }

    fn listen(&mut self, role: &str, at: SocketAddr, errno: Option<&str>) -> Result<()> {
        let answer = self.player_mut(role)?.ask(&format!("listen {at}"), STEP)?;
        let port = answer.demand(errno)?;
        if errno.is_none() {
            let end = SocketAddr::new(at.ip(), port.parse().context("no port")?);
            self.ends.insert(role.to_owned(), end);
        }
        Ok(())
    }

    fn connect(&mut self, role: &str, end: &str, errno: Option<&str>) -> Result<()> {
        let remote = self.known_end(end)?;
        let address = self.address(self.player(role)?.host);
        let player = self.player_mut(role)?;
        let answer = player.ask(&format!("connect {remote}"), STEP)?;
        let port = answer.demand(errno)?.parse().context("no port")?;
        let local = SocketAddr::new(address, port);
        player.connection = Some((local, remote));
        self.ends.insert(role.to_owned(), local);
        Ok(())
    }

    /// Waits until the kernel's row of the role's connection is as `wanted`.
    fn await_row(&self, role: &str, what: &str, wanted: impl Fn(&Row) -> bool) -> Result<()> {
        let player = self.player(role)?;
        let (local, remote) = player
            .connection
            .with_context(|| format!("{role} has no connection"))?;
        let deadline = Instant::now() + STEP;
        loop {
            let row = tcp_table::read(player.child.id())?
                .into_iter()
                .find(|row| (row.local, row.remote) == (local, remote));
            if row.as_ref().is_some_and(&wanted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "waited {STEP:?} for {what} in vain; now {row:?}"
            );
            thread::sleep(LOOK);
        }
    }

    /// Joins A with `other`.
    fn wire(&self, other: Host) -> Result<()> {
        self.netns_of(Host::A)?.wire(
            self.netns_of(other)?,
            &self.addresses(Host::A),
            &self.addresses(other),
        )
    }

    /// The address that a host's roles use.
    fn address(&self, host: Host) -> IpAddr {
        let looped = self.scenario.ground == Ground::Loopback;
        let last = if host == Host::A { 1 } else { 2 };
        match self.family {
            Family::Ipv4 if looped => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv6 if looped => Ipv6Addr::LOCALHOST.into(),
            Family::Ipv4 => Ipv4Addr::new(10, 77, 0, last).into(),
            Family::Ipv6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// The addresses of a host's end of a wire.
    fn addresses(&self, host: Host) -> [Address; 1] {
        [Address {
            address: self.address(host),
            prefix: match self.family {
                Family::Ipv4 => 24,
                Family::Ipv6 => 64,
            },
        }]
    }

    fn netns_of(&self, host: Host) -> Result<&Netns> {
        self.hosts
            .iter()
            .find(|(name, _)| *name == host)
            .map(|(_, netns)| netns)
            .with_context(|| format!("there is no host {host:?}"))
    }

    fn known_end(&self, name: &str) -> Result<SocketAddr> {
        self.end(name)
            .with_context(|| format!("{name} has neither listened nor connected"))
    }

    fn player(&self, name: &str) -> Result<&Player> {
        self.players
            .iter()
            .find(|player| player.name == name)
            .with_context(|| format!("there is no role {name}"))
    }

    fn player_mut(&mut self, name: &str) -> Result<&mut Player> {
        self.players
            .iter_mut()
            .find(|player| player.name == name)
            .with_context(|| format!("there is no role {name}"))
    }
}

impl Answer {
    /// Demands that the step succeeded, or failed with `errno`, and gives the rest of the answer.
    fn demand(self, errno: Option<&str>) -> Result<String> {
        match (self, errno) {
            (Self::Ok(text), None) => Ok(text),
            (Self::Fail { errno, detail }, Some(wanted)) if errno == wanted => Ok(detail),
            (Self::Ok(_), Some(wanted)) => bail!("succeeded, but should fail with {wanted}"),
            (Self::Fail { errno, .. }, Some(wanted)) => bail!("failed with {errno}, not {wanted}"),
            (Self::Fail { errno, .. }, None) => bail!("failed with {errno}"),
        }
    }
}

impl Player {
    fn start(name: &'static str, host: Host, netns: &Netns, exe: &Path) -> Result<Self> {
        let exe: PathBuf = exe.to_owned();
        // The namespace's thread is the parent, whose end the role does not outlive.
        let mut child = netns.run(move || {
            Command::new(&exe)
                .args([ROLE_COMMAND, name])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot run {}", exe.display()))
        })??;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no standard output")?;
        let (to, answers) = mpsc::channel();
        let pid = child.id();
        let player = Self {
            name,
            host,
            child,
            input,
            answers,
            pid,
            connection: None,
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

    /// Tells the role to take a step and waits for its answer.
    fn ask(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        self.tell(command)?;
        match self.answers.recv_timeout(patience) {
            Ok(line) => parse_answer(&line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} did not answer within {patience:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{} has ended", self.name),
        }
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("the role has ended")?;
        input
            .write_all(format!("{command}\n").as_bytes())
            .with_context(|| format!("{} does not listen", self.name))
    }

    /// Kills the process that plays and waits until it is gone.
    fn kill(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into().context("no PID")?);
        kill(pid, Signal::SIGKILL).context("cannot kill the role")?;
        self.wait()
    }

    /// Has the process end and waits until it is gone.
    fn exit(&mut self) -> Result<()> {
        self.tell("exit")?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        match self.answers.recv_timeout(STEP) {
            Ok(line) => bail!("{} answers instead of ending: {line}", self.name),
            Err(RecvTimeoutError::Timeout) => bail!("{} did not end in {STEP:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        self.input = None;
        // Its output is closed, so it is at its end; its sockets are closed when it is gone.
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Either fails only when the process is gone already. A worker dies with its parent.
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
