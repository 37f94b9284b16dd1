//! Who plays, and where.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Instant,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use rstwatch::scenario::{
    netns::{Address, Netns},
    player::{Answer, Player, STEP},
    tcp_table::{self, Row},
};

use crate::{
    score::{Doer, Wanted, Who},
    tracer::binary,
};

/// Two hosts joined by a wire, each with a loopback device. Most situations need but the first.
pub struct Scene {
    near: Netns,
    far: Netns,
}

impl Scene {
    /// Makes both. What is started there runs on the first core.
    pub fn new() -> Self {
        let (near, far) = (Netns::new(), Netns::new());
        let (near, far) = (near.expect("a namespace"), far.expect("a namespace"));
        let at = |last| {
            [Address {
                address: Ipv4Addr::new(10, 77, 0, last).into(),
                prefix: 24,
            }]
        };
        near.wire(&far, &at(1), &at(2)).expect("a wire");
        for netns in [&near, &far] {
            pin(netns, 0);
        }
        Self { near, far }
    }

    /// The inodes of the network namespaces, the near host's first.
    pub fn netns(&self) -> [u32; 2] {
        [self.near.inode(), self.far.inode()]
    }

    /// The near host's namespace.
    pub fn near(&self) -> &Netns {
        &self.near
    }

    /// A new process on the near host.
    pub fn role(&self, name: &'static str) -> Role {
        let player = Player::start(name, &self.near, &binary());
        Role::new(name, self.near.inode(), player)
    }

    /// A new process on the far host.
    pub fn far_role(&self, name: &'static str) -> Role {
        let player = Player::start(name, &self.far, &binary());
        Role::new(name, self.far.inode(), player)
    }

    /// A new process on the near host, in a PID namespace of its own.
    pub fn apart(&self, name: &'static str) -> Role {
        let prefix = ["unshare", "--pid", "--fork", "--kill-child"];
        let player = Player::start_through(&prefix, name, &self.near, &binary());
        let mut role = Role::new(name, self.near.inode(), player);
        // Once it answers, it is there.
        role.listen(Ipv4Addr::LOCALHOST.into());
        role.say("unlisten");
        let parent = role.player.pid();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.expect("the kernel lists no children");
        role.player
            .becomes(children.trim().parse().expect("one child"));
        role
    }

    /// A server that listens on a loopback address, IPv4 and IPv6 in turn.
    pub fn listening(&self, rep: usize) -> (Role, SocketAddr) {
        let mut server = self.role("server");
        let at = server.listen(loopback(rep));
        (server, at)
    }

    /// A server and a client, connected and accepted.
    pub fn pair(&self, rep: usize) -> Pair {
        let (server, at) = self.listening(rep);
        let mut pair = self.connected(server, at);
        pair.server.say("accept");
        pair
    }

    /// A server, and a client whose connection has not been accepted yet.
    pub fn connected(&self, server: Role, at: SocketAddr) -> Pair {
        let mut client = self.role("client");
        let from = client.connect(at);
        Pair {
            server,
            client,
            at,
            from,
        }
    }

    /// A server that listens, and a client that has sent an ACK on a connection that the
    /// server's host does not know, and closed when it was reset.
    pub fn resumed(&self, server: Role, at: SocketAddr) -> Pair {
        let mut client = self.role("client");
        let port = client.say(&format!("resume {at}"));
        client.is_reset();
        client.say("close");
        Pair {
            server,
            client,
            at,
            from: SocketAddr::new(at.ip(), port.parse().expect("a port")),
        }
    }
}

/// The loopback address of the repetition.
pub fn loopback(rep: usize) -> IpAddr {
    if rep.is_multiple_of(2) {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

/// Has everything that is started in a namespace run on one core, if there are that many.
fn pin(netns: &Netns, core: usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    netns
        .run(move || {
            let mut set = CpuSet::new();
            set.set(core % cores)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        })
        .expect("the namespace's thread")
        .expect("cannot choose a core");
}

/// A process in a role. What goes wrong in it fails the test.
pub struct Role {
    name: &'static str,
    netns: u32,
    player: Player,
}

impl Role {
    fn new(name: &'static str, netns: u32, player: anyhow::Result<Player>) -> Self {
        Self {
            name,
            netns,
            player: player.unwrap_or_else(|e| panic!("{name}: {e:#}")),
        }
    }

    /// Takes a step, which must succeed, and gives the answer.
    pub fn say(&mut self, step: &str) -> String {
        self.ask(step)
            .demand(None)
            .unwrap_or_else(|e| panic!("{}, step `{step}`: {e:#}", self.name))
    }

    /// Takes a step that the kernel must refuse.
    pub fn fail(&mut self, step: &str, errno: &str) {
        self.ask(step)
            .demand(Some(errno))
            .unwrap_or_else(|e| panic!("{}, step `{step}`: {e:#}", self.name));
    }

    fn ask(&mut self, step: &str) -> Answer {
        self.player
            .ask(step, STEP)
            .unwrap_or_else(|e| panic!("{}, step `{step}`: {e:#}", self.name))
    }

    /// Listens at a free port.
    pub fn listen(&mut self, address: IpAddr) -> SocketAddr {
        let port = self.say(&format!("listen {}", SocketAddr::new(address, 0)));
        SocketAddr::new(address, port.parse().expect("a port"))
    }

    /// Connects to an address of the same host, and gives its own end.
    pub fn connect(&mut self, to: SocketAddr) -> SocketAddr {
        let port = self.say(&format!("connect {to}"));
        SocketAddr::new(to.ip(), port.parse().expect("a port"))
    }

    /// Connects to where nobody listens, and gives its port.
    pub fn refused(&mut self, to: SocketAddr) -> u16 {
        let port = self
            .ask(&format!("connect {to}"))
            .demand(Some("ECONNREFUSED"));
        let port = port.unwrap_or_else(|e| panic!("{}: {e:#}", self.name));
        port.parse().expect("a port")
    }

    /// Learns that its connection was reset.
    pub fn is_reset(&mut self) {
        self.fail("recv 1", "ECONNRESET");
    }

    /// Sends data to an end that is closed, learns that, and closes.
    pub fn sends_in_vain(&mut self) {
        self.say("send 5");
        self.fail("send 5", "EPIPE");
        self.say("close");
    }

    /// Who it is.
    pub fn who(&self) -> Who {
        self.as_pid(self.player.pid())
    }

    /// Another process of the same name.
    pub fn as_pid(&self, pid: u32) -> Who {
        Who {
            pid,
            comm: self.name,
        }
    }

    /// The inode of its network namespace.
    pub fn netns(&self) -> u32 {
        self.netns
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.player.pid()
    }

    /// Starts a worker and gives its PID.
    pub fn branch(&mut self) -> u32 {
        self.say("branch").trim().parse().expect("a PID")
    }

    /// Goes on as a child whose parent is gone.
    pub fn becomes_daemon(&mut self) {
        let pid = self.say("daemon").parse().expect("a PID");
        self.player.becomes(pid);
        self.player.reap().expect("cannot wait for the parent");
    }

    /// Is ended by a signal, and gone.
    pub fn is_killed(&mut self, signal: Signal) {
        self.player
            .kill(signal)
            .unwrap_or_else(|e| panic!("{}: {e:#}", self.name));
    }

    /// Takes a step that ends it, and is gone.
    pub fn ends_by(&mut self, step: &str) {
        self.player
            .end_by(step)
            .unwrap_or_else(|e| panic!("{}, step `{step}`: {e:#}", self.name));
    }

    /// Waits until the kernel has a connection of this host, own end first, as `wanted`.
    pub fn await_row(
        &self,
        ends: (SocketAddr, SocketAddr),
        what: &str,
        wanted: impl Fn(&Row) -> bool,
    ) {
        tcp_table::await_row(self.player.started(), ends, what, |row| {
            row.is_some_and(&wanted)
        })
        .unwrap_or_else(|e| panic!("{}: {e:#}", self.name));
    }
}

/// A server and a client.
pub struct Pair {
    /// Listens.
    pub server: Role,
    /// Connects.
    pub client: Role,
    /// The server's end.
    pub at: SocketAddr,
    /// The client's end.
    pub from: SocketAddr,
}

impl Pair {
    /// A reset that the server's end sends.
    pub fn server_sends(&self) -> Wanted {
        Wanted::sent(self.server.netns(), self.at, self.from)
    }

    /// A reset that the client's end sends.
    pub fn client_sends(&self) -> Wanted {
        Wanted::sent(self.client.netns(), self.from, self.at)
    }

    /// A reset that the server's end receives, if nothing else is said as the server's.
    pub fn server_receives(&self) -> Wanted {
        Wanted::received(self.server.netns(), self.at, self.from).owner(self.server.who())
    }

    /// A reset that the client's end receives, if nothing else is said as the client's.
    pub fn client_receives(&self) -> Wanted {
        Wanted::received(self.client.netns(), self.from, self.at).owner(self.client.who())
    }

    /// The client resets the connection.
    pub fn client_aborts(&mut self) -> Wanted {
        self.client.say("linger0");
        self.client.say("close");
        self.client_sends()
            .owner(self.client.who())
            .actor(Doer::process(self.client.who()))
    }

    /// The server resets the connection.
    pub fn server_aborts(&mut self) -> Wanted {
        self.server.say("linger0");
        self.server.say("close");
        self.server_sends()
            .owner(self.server.who())
            .actor(Doer::process(self.server.who()))
    }

    /// The client sends what the server does not read: its close will be a reset.
    pub fn leave_unread(&mut self) {
        self.client.say("send 64");
        self.server.say("peek 64");
    }

    /// The client learns of the server's reset, and closes.
    pub fn client_closes_reset(&mut self) -> Wanted {
        self.client.is_reset();
        self.client.say("close");
        self.client_receives()
    }

    /// The server learns of the client's reset, and closes.
    pub fn server_closes_reset(&mut self) -> Wanted {
        self.server.is_reset();
        self.server.say("close");
        self.server_receives()
    }

    /// Both processes.
    pub fn cast(self) -> [Role; 2] {
        [self.server, self.client]
    }
}

/// Short normal connections, as many as one core makes, in a namespace of their own.
pub struct Load {
    role: Role,
    _netns: Netns,
    begun: Instant,
}

impl Load {
    /// Begins.
    pub fn start() -> Self {
        let netns = Netns::new().expect("a namespace");
        pin(&netns, 1);
        let player = Player::start("load", &netns, &binary());
        let mut role = Role::new("load", netns.inode(), player);
        role.say("churn");
        Self {
            role,
            _netns: netns,
            begun: Instant::now(),
        }
    }

    /// Connections per second so far.
    pub fn rate(&self) -> u64 {
        let path = format!("/proc/{}/net/snmp", self.role.pid());
        let text = fs::read_to_string(path).expect("the load has ended");
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
        let (_, opened) = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(name, _)| *name == "PassiveOpens")
            .expect("PassiveOpens");
        opened.parse::<u64>().expect("a number") / self.begun.elapsed().as_secs().max(1)
    }
}
