//! Sets a scenario up and directs it: starts the roles in the hosts of a private network, has them
//! take their steps one after the other, and knows what a tracer must have seen.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    Doer, Expected, Family, Ground, Host, Scenario,
    netns::{Address, Netns},
    player::{Player, STEP},
    tcp_table::{self, Row},
};
use crate::{
    event::{Direction, TcpState},
    mib::Counter,
    netns::read_counters,
};

/// A port at which nobody listens (discard).
const NOBODY: u16 = 9;

/// The port of an end that has no socket; above the ports that the kernel chooses.
const SOCKETLESS: u16 = 64_999;

/// The numbers of a segment that belongs to no connection. That they fit one by chance has the odds
/// of one to thousands of millions.
const STRAY: (u32, u32) = (1_000, 2_000);

/// For how long a flood of connects may take.
const FLOOD: Duration = Duration::from_mins(2);

/// A scenario that is being played. Dropping it ends every process and namespace of it, and so does
/// the end of the process that holds it.
#[derive(Debug)]
pub struct Stage {
    scenario: &'static Scenario,
    family: Family,
    // The processes go before the hosts that they live in.
    parts: Vec<Part>,
    hosts: Vec<(Host, Netns)>,
    /// Where each role can be reached, or connected from.
    ends: HashMap<String, SocketAddr>,
}

/// A role, and the process that plays it.
#[derive(Debug)]
struct Part {
    name: &'static str,
    host: Host,
    player: Player,
    /// Own end and other end of its last connection.
    connection: Option<(SocketAddr, SocketAddr)>,
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
            parts: Vec::new(),
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
            let player = Player::start(name, self.netns_of(*host)?, exe)
                .with_context(|| format!("cannot start {name}"))?;
            self.parts.push(Part {
                name,
                host: *host,
                player,
                connection: None,
            });
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
        self.part(role).map(|part| part.player.pid()).ok()
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
                .run(|| read_counters(Path::new("/proc/thread-self/net")))?
                .and_then(|counts| counts.get(Counter::OutRsts))
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
            "cause": {
                "id": expected.cause,
                "confidence": expected.confidence.name(),
                "evidence": expected
                    .evidence
                    .iter()
                    .map(|piece| self.with_pids(piece))
                    .collect::<Vec<_>>(),
            },
        });
        // No kernel gives a reason for what it receives.
        if reasons || expected.direction == Direction::Received {
            event["reason"] = expected.reason.into();
        }
        if let Some((role, via)) = expected.owner {
            let pid = self.part(role)?.player.pid();
            event["owner"] = json!({"pid": pid, "comm": role, "via": via.name()});
        }
        if let Doer::Role(role) | Doer::Dying(role, _) = expected.actor {
            let pid = self.part(role)?.player.pid();
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

    /// `piece` with the processes of its roles.
    fn with_pids(&self, piece: &str) -> String {
        self.parts.iter().fold(piece.to_owned(), |piece, part| {
            let process = format!("{}[{}]", part.name, part.player.pid());
            piece.replace(&format!("{{{}}}", part.name), &process)
        })
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
                "await"
                    | "await-unread"
                    | "kill"
                    | "exit"
                    | "crash"
                    | "accept"
                    | "fork"
                    | "flood"
                    | "begin"
                    | "inject"
                    | "forge"
                    | "mimic",
                ..
            ]
        );
        ensure!(
            errno.is_none() || role_decides,
            "a step that cannot be demanded to fail"
        );
        match words[..] {
            ["cut"] => self.netns_of(Host::B)?.go_deaf(&self.addresses(Host::B)),
            ["mend"] => self.netns_of(Host::B)?.hear_again(&self.addresses(Host::B)),
            ["replace"] => {
                self.netns_of(Host::A)?.unwire()?;
                self.wire(Host::C)
            }
            [role, "await", "CLOSE"] => self.await_row(role, "its end", |row| row.is_none()),
            [role, "await", state] => self.await_row(role, &format!("state {state}"), |row| {
                row.is_some_and(|row| row.state.name() == state && row.state != TcpState::Listen)
            }),
            [role, "await-unread", count] => {
                let count: u32 = count.parse().context("no number")?;
                self.await_row(role, "so much unread data", |row| {
                    row.is_some_and(|row| row.unread == count)
                })
            }
            [role, "kill"] => self.part_mut(role)?.player.kill(Signal::SIGKILL),
            [role, "exit" | "crash", ..] => {
                self.part_mut(role)?.player.end_by(&words[1..].join(" "))
            }
            [role, "listen"] => {
                let address = self.address(self.part(role)?.host);
                self.listen(role, SocketAddr::new(address, 0), errno)
            }
            [role, "listen", end] => self.listen(role, self.known_end(end)?, errno),
            [role, "connect", end] => self.connect(role, "connect", end, errno),
            [role, "begin", end] => self.connect(role, "begin", end, None),
            [role, "inject" | "forge" | "mimic", ..] => self.send_stray(role, &words[1..]),
            [role, "destroy", other] => {
                let (own, peer) = self.connection(other)?;
                let command = format!("destroy {own} {peer}");
                let answer = self.part_mut(role)?.player.ask(&command, STEP)?;
                answer.demand(errno).map(drop)
            }
            [role, "flood", end, count] => {
                let command = format!("flood {} {count}", self.known_end(end)?);
                let answer = self.part_mut(role)?.player.ask(&command, FLOOD)?;
                answer.demand(None).map(drop)
            }
            [role, "accept"] => {
                let own = self.known_end(role)?;
                let part = self.part_mut(role)?;
                let peer = part.player.ask("accept", STEP)?.demand(None)?;
                part.connection = Some((own, peer.parse().context("no address")?));
                Ok(())
            }
            [role, "fork"] => {
                let player = &mut self.part_mut(role)?.player;
                let pid = player.ask("fork", STEP)?.demand(None)?;
                player.becomes(pid.parse().context("no PID")?);
                Ok(())
            }
            [role, ..] => {
                let command = words[1..].join(" ");
                let answer = self.part_mut(role)?.player.ask(&command, STEP)?;
                answer.demand(errno).map(drop)
            }
            [] => bail!("an empty step"),
        }
    }

    /// The steps that send a segment through a raw socket.
    fn send_stray(&mut self, role: &str, words: &[&str]) -> Result<()> {
        match *words {
            ["inject", from, to, flags, ref payload @ ..] => {
                let from = self.end_or_new(from)?;
                let to = self.known_end(to)?;
                self.inject(role, (from, to), flags, STRAY, payload)
            }
            ["forge", other, flags, ref payload @ ..] => {
                let (own, peer) = self.connection(other)?;
                let (sent, received) = self.sequence(other)?;
                self.inject(role, (peer, own), flags, (received, sent), payload)
            }
            ["mimic", other, flags, ref payload @ ..] => {
                let ends = self.connection(other)?;
                let numbers = self.sequence(other)?;
                self.inject(role, ends, flags, numbers, payload)
            }
            _ => bail!("no segment to be sent"),
        }
    }

    fn listen(&mut self, role: &str, at: SocketAddr, errno: Option<&str>) -> Result<()> {
        let answer = self
            .part_mut(role)?
            .player
            .ask(&format!("listen {at}"), STEP)?;
        let port = answer.demand(errno)?;
        if errno.is_none() {
            let end = SocketAddr::new(at.ip(), port.parse().context("no port")?);
            self.ends.insert(role.to_owned(), end);
        }
        Ok(())
    }

    /// The number that the role's connection sends next, and the one that it expects.
    fn sequence(&mut self, role: &str) -> Result<(u32, u32)> {
        let answer = self.part_mut(role)?.player.ask("sequence", STEP)?;
        let numbers = answer.demand(None)?;
        let (sent, received) = numbers.split_once(' ').context("no numbers")?;
        Ok((sent.parse()?, received.parse()?))
    }

    /// Sends a segment between two ends, with its sequence and acknowledgement number.
    fn inject(
        &mut self,
        role: &str,
        (from, to): (SocketAddr, SocketAddr),
        flags: &str,
        (seq, ack): (u32, u32),
        payload: &[&str],
    ) -> Result<()> {
        let payload = payload.first().unwrap_or(&"0");
        let command = format!("inject {from} {to} {flags} {seq} {ack} {payload}");
        let answer = self.part_mut(role)?.player.ask(&command, STEP)?;
        answer.demand(None).map(drop)
    }

    fn connect(&mut self, role: &str, how: &str, end: &str, errno: Option<&str>) -> Result<()> {
        let remote = self.known_end(end)?;
        let address = self.address(self.part(role)?.host);
        let cast = self.part_mut(role)?;
        let answer = cast.player.ask(&format!("{how} {remote}"), STEP)?;
        let port = answer.demand(errno)?.parse().context("no port")?;
        let local = SocketAddr::new(address, port);
        cast.connection = Some((local, remote));
        self.ends.insert(role.to_owned(), local);
        Ok(())
    }

    /// Waits until the kernel's row of the role's connection is as `wanted`.
    fn await_row(
        &self,
        role: &str,
        what: &str,
        wanted: impl Fn(Option<&Row>) -> bool,
    ) -> Result<()> {
        let connection = self.connection(role)?;
        tcp_table::await_row(self.part(role)?.player.started(), connection, what, wanted)
    }

    /// Own end and other end of the role's last connection.
    fn connection(&self, role: &str) -> Result<(SocketAddr, SocketAddr)> {
        self.part(role)?
            .connection
            .with_context(|| format!("{role} has no connection"))
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

    /// The end of that name, or `NAME+N`.
    fn known_end(&self, name: &str) -> Result<SocketAddr> {
        let (name, above) = match name.split_once('+') {
            Some((name, above)) => (name, above.parse().context("no number")?),
            None => (name, 0),
        };
        let mut end = self
            .end(name)
            .with_context(|| format!("{name} has neither listened nor connected"))?;
        end.set_port(end.port() + above);
        Ok(end)
    }

    /// The end of a role, which gets one without a socket if it has none.
    fn end_or_new(&mut self, role: &str) -> Result<SocketAddr> {
        if !self.ends.contains_key(role) {
            let end = SocketAddr::new(self.address(self.part(role)?.host), SOCKETLESS);
            self.ends.insert(role.to_owned(), end);
        }
        self.known_end(role)
    }

    fn part(&self, name: &str) -> Result<&Part> {
        self.parts
            .iter()
            .find(|part| part.name == name)
            .with_context(|| format!("there is no role {name}"))
    }

    fn part_mut(&mut self, name: &str) -> Result<&mut Part> {
        self.parts
            .iter_mut()
            .find(|part| part.name == name)
            .with_context(|| format!("there is no role {name}"))
    }
}
