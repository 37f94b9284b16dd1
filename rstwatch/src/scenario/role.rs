//! The process that plays a role: it does to one listener and one connection what it is told over
//! its standard input, a line a step, and answers each step on its standard output.
//!
//! | step | what it does | answer after `ok` |
//! |---|---|---|
//! | `listen ADDR` | listens | the port |
//! | `accept` | accepts a connection | the peer |
//! | `connect ADDR` | connects | the local port |
//! | `flood ADDR N` | connects N times, each time to be refused | |
//! | `send N`, `recv N` | sends, receives N bytes | |
//! | `peek N` | waits until N bytes have come, and leaves them unread | |
//! | `eof` | waits until the other end has closed, with nothing to be read before that | |
//! | `fill` | sends until neither side takes more | the bytes sent |
//! | `linger0` | `SO_LINGER` with 0 | |
//! | `keepalive` | `SO_KEEPALIVE`: one probe, a second after a second of silence | |
//! | `shutdown wr`, `shutdown rdwr` | `shutdown()` | |
//! | `close`, `unlisten` | closes the connection, the listener | |
//! | `disconnect` | `connect()` to `AF_UNSPEC` | |
//! | `resume ADDR` | connects without a word, then sends an ACK to the end that knows nothing | the local port |
//! | `dup`, `close-dup` | duplicates the connection's descriptor, closes the duplicate | |
//! | `hear NAME` | takes the abstract Unix address NAME | |
//! | `pass NAME`, `take` | sends the connection to whoever hears NAME, takes what was sent | |
//! | `uring-accept`, `uring-connect ADDR` | as without `uring-`, through `io_uring` | as without |
//! | `direct-accept`, `direct-connect ADDR` | the same, as a direct descriptor | |
//! | `direct-close` | closes that | |
//! | `many ADDR N`, `accept-many N` | connects, accepts N more connections and keeps them | |
//! | `reset I` | closes the I-th of those with `SO_LINGER` 0 | its own end, the other end |
//! | `backlog N` | listens on, with a queue that takes N + 1 | |
//! | `defer` | `TCP_DEFER_ACCEPT`: a connection is made when its first data comes | |
//! | `begin ADDR` | begins to connect and does not wait | the local port |
//! | `user-timeout MS` | `TCP_USER_TIMEOUT` | |
//! | `no-fin-wait2` | a negative `TCP_LINGER2` | |
//! | `send N after MS` | sends when nothing has come for so long | |
//! | `sequence` | reads the connection's sequence numbers | the next to send, to receive |
//! | `inject FROM TO FLAGS SEQ ACK N` | sends a segment with N bytes through a raw socket | |
//! | `destroy LOCAL REMOTE` | destroys a socket of this host, as `ss -K` does | |
//! | `sysctl PATH VALUE` | sets what `/proc/sys/PATH` has for the network namespace | |
//! | `mptcp` | opens multipath TCP sockets from now on | |
//! | `squeeze` | closes the connection while the host allows no orphans | |
//! | `churn` | makes short connections to itself until it ends | |
//! | `thread STEP` | takes the step in a thread of its own | its id, the step's answer |
//! | `fork` | goes on as a child; the parent closes the connection and waits | the child's PID |
//! | `daemon` | goes on as a child; the parent ends | the child's PID |
//! | `branch`, `branch PID` | starts a worker, a copy of the role (with this PID) | the worker's PID |
//! | `tell N STEP`, `end N` | has the N-th worker take a step, end | the worker's |
//! | `name HEX` | renames the process | |
//! | `exit`, `exit STATUS` | ends, without closing anything first | |
//! | `crash`, `eat` | ends by a null pointer; takes memory until it is killed | |
//!
//! A step that the kernel refuses is answered with `fail ERRNO`, a `connect` with the local port
//! after it; anything else that goes wrong with `error TEXT`. Who tells a role what to do, and why, is
//! not known here: that is `stage`.

mod options;
mod worker;

use std::{
    ffi::{CString, OsString},
    fs,
    io::{self, BufRead as _, IoSlice, IoSliceMut, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram},
    },
    process, ptr, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag,
            SockType, SockaddrStorage, UnixAddr, bind, connect, getsockname, listen, recv, recvmsg,
            sendmsg, setsockopt, socket, sockopt,
        },
        wait::waitpid,
    },
    unistd::{ForkResult, fork, gettid},
};

use self::worker::{Side, Worker};
use super::{
    orphans,
    segment::{self, Forged},
    sock_diag,
    uring::Ring,
};

/// For how long neither side may take a byte more before a connection counts as filled.
const FULL: Duration = Duration::from_millis(100);

/// For how long a listener waits for the first data of a connection, in seconds: longer than any
/// scenario takes to send it.
const DEFER_S: libc::c_int = 30;

/// Plays a role until the director says `exit` or is gone. The first of `args` is the role's name,
/// which becomes the name of the process.
///
/// # Errors
///
/// Without a name, or when the director cannot be heard or answered.
pub fn main(mut args: impl Iterator<Item = OsString>) -> Result<()> {
    let name = args.next().context("a role needs a name")?;
    rename(name.into_encoded_bytes())?;
    die_with_parent()?;
    let mut role = Role::default();
    for line in io::stdin().lock().lines() {
        let answer = answer(role.play(&line.context("cannot hear the director")?));
        // A lone write, so that no part of an answer is left in a buffer when the role is killed.
        io::stdout()
            .write_all(format!("{answer}\n").as_bytes())
            .context("cannot answer the director")?;
    }
    Ok(())
}

/// A director that was gone before this call closes standard input, which ends the role as well.
fn die_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask to die with the director")
}

fn rename(name: Vec<u8>) -> Result<()> {
    let name = CString::new(name).context("a name cannot hold a NUL")?;
    prctl::set_name(&name).context("cannot rename the process")
}

/// Why a step was not done.
enum Failure {
    /// The kernel refused. A connect that is refused had a local port all the same.
    Refused(Errno, Option<u16>),
    /// A worker's answer that is no success, as it gave it.
    Relayed(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno, None)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::Refused(Errno::from_raw(errno), None),
            None => Self::Other(error.into()),
        }
    }
}

fn answer(result: Result<String, Failure>) -> String {
    match result {
        Ok(text) => format!("ok {text}"),
        Err(Failure::Refused(errno, None)) => format!("fail {errno:?}"),
        Err(Failure::Refused(errno, Some(port))) => format!("fail {errno:?} {port}"),
        Err(Failure::Relayed(answer)) => answer,
        Err(Failure::Other(error)) => format!("error {error:#}"),
    }
}

/// What the process holds.
#[derive(Default)]
struct Role {
    listener: Option<TcpListener>,
    connection: Option<TcpStream>,
    duplicate: Option<TcpStream>,
    many: Vec<Option<TcpStream>>,
    mailbox: Option<UnixDatagram>,
    ring: Option<Ring>,
    workers: Vec<Option<Worker>>,
    /// Whether sockets are opened for multipath TCP.
    mptcp: bool,
}

impl Role {
    fn play(&mut self, step: &str) -> Result<String, Failure> {
        let words: Vec<&str> = step.split_ascii_whitespace().collect();
        match words[..] {
            ["listen", address] => {
                let listener = self.bind(parse(address)?)?;
                let port = listener.local_addr()?.port();
                self.listener = Some(listener);
                return Ok(port.to_string());
            }
            ["accept"] => {
                let listener = self.listener.as_ref().context("nothing listens")?;
                let (connection, peer) = listener.accept()?;
                self.connection = Some(connection);
                return Ok(peer.to_string());
            }
            ["connect", address] => {
                let (connection, port) = connect_from(parse(address)?, self.mptcp)?;
                self.connection = Some(connection);
                return Ok(port.to_string());
            }
            ["flood", address, count] => flood(parse(address)?, parse(count)?)?,
            ["send", count] => self.connection()?.write_all(&vec![b'x'; parse(count)?])?,
            ["recv", count] => {
                let mut bytes = vec![0; parse(count)?];
                self.connection()?.read_exact(&mut bytes)?;
            }
            ["peek", count] => {
                let mut bytes = vec![0; parse(count)?];
                let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
                recv(self.connection()?.as_raw_fd(), &mut bytes, flags)?;
            }
            ["eof"] => {
                if self.connection()?.read(&mut [0])? != 0 {
                    return Err(anyhow!("there is something to be read").into());
                }
            }
            ["fill"] => return Ok(fill(self.connection()?)?.to_string()),
            ["linger0"] => abort_on_close(self.connection()?)?,
            ["keepalive"] => {
                let connection = self.connection()?;
                setsockopt(connection, sockopt::TcpKeepIdle, &1)?;
                setsockopt(connection, sockopt::TcpKeepInterval, &1)?;
                setsockopt(connection, sockopt::TcpKeepCount, &1)?;
                setsockopt(connection, sockopt::KeepAlive, &true)?;
            }
            ["shutdown", "wr"] => self.connection()?.shutdown(Shutdown::Write)?,
            ["shutdown", "rdwr"] => self.connection()?.shutdown(Shutdown::Both)?,
            ["close"] => drop(self.connection.take().context("nothing to close")?),
            ["unlisten"] => drop(self.listener.take().context("nothing listens")?),
            ["disconnect"] => disconnect(self.connection()?)?,
            ["resume", address] => {
                let (connection, port) = resume(parse(address)?)?;
                self.connection = Some(connection);
                return Ok(port.to_string());
            }
            ["dup"] => self.duplicate = Some(self.connection()?.try_clone()?),
            ["close-dup"] => drop(self.duplicate.take().context("nothing to close")?),
            ["hear", name] => {
                let address = UnixAddress::from_abstract_name(name)?;
                self.mailbox = Some(UnixDatagram::bind_addr(&address)?);
            }
            ["pass", name] => pass(self.connection()?, name)?,
            ["take"] => {
                let mailbox = self.mailbox.as_ref().context("nothing is heard")?;
                self.connection = Some(take(mailbox)?);
            }
            [
                "uring-accept" | "uring-connect" | "direct-accept" | "direct-connect"
                | "direct-close",
                ..,
            ] => return self.play_on_ring(&words),
            ["many", address, count] => {
                let address: SocketAddr = parse(address)?;
                self.keep_many(parse(count)?, |_| Ok(TcpStream::connect(address)?))?;
            }
            ["accept-many", count] => self.keep_many(parse(count)?, |role| {
                let listener = role.listener.as_ref().context("nothing listens")?;
                Ok(listener.accept()?.0)
            })?,
            ["reset", index] => {
                let kept = self.many.get_mut(parse::<usize>(index)?);
                let connection = kept.and_then(Option::take).context("no such connection")?;
                let ends = format!("{} {}", connection.local_addr()?, connection.peer_addr()?);
                abort_on_close(&connection)?;
                return Ok(ends);
            }
            _ => return self.play_with_options(&words),
        }
        Ok(String::new())
    }

    /// The steps that take more than the ordinary calls of a server or a client.
    fn play_with_options(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["backlog", count] => {
                let listener = self.listener.as_ref().context("nothing listens")?;
                listen(listener, Backlog::new(parse::<i32>(count)?)?)?;
            }
            ["defer"] => {
                let listener = self.listener.as_ref().context("nothing listens")?;
                options::set(listener, libc::TCP_DEFER_ACCEPT, DEFER_S)?;
            }
            ["begin", address] => {
                let (connection, port) = begin(parse(address)?)?;
                self.connection = Some(connection);
                return Ok(port.to_string());
            }
            ["user-timeout", ms] => {
                options::set(self.connection()?, libc::TCP_USER_TIMEOUT, parse(ms)?)?;
            }
            ["no-fin-wait2"] => options::set(self.connection()?, libc::TCP_LINGER2, -1)?,
            ["send", count, "after", ms] => {
                let connection = self.connection()?;
                options::await_silence(connection, Duration::from_millis(parse(ms)?))?;
                connection.write_all(&vec![b'x'; parse(count)?])?;
            }
            ["sequence"] => {
                let (sent, received) = options::sequence(self.connection()?)?;
                return Ok(format!("{sent} {received}"));
            }
            ["inject", from, to, flags, seq, ack, payload] => segment::send(&Forged {
                from: parse(from)?,
                to: parse(to)?,
                flags: segment::parse_flags(flags)?,
                seq: parse(seq)?,
                ack: parse(ack)?,
                payload: parse(payload)?,
            })?,
            ["destroy", local, remote] => {
                sock_diag::destroy(parse(local)?, parse(remote)?).map_err(|error| {
                    match error.downcast::<io::Error>() {
                        Ok(error) => Failure::from(error),
                        Err(error) => Failure::Other(error),
                    }
                })?;
            }
            ["sysctl", path, value] => {
                // The kernel shows a process the settings of the namespace that it lives in.
                let path = format!("/proc/sys/{path}");
                fs::write(&path, value).with_context(|| format!("cannot set {path}"))?;
            }
            ["mptcp"] => self.mptcp = true,
            ["squeeze"] => {
                let connection = self.connection.take().context("nothing to close")?;
                orphans::close_with_none_allowed(connection)?;
            }
            _ => return self.play_as_process(words),
        }
        Ok(String::new())
    }

    /// A listener, as the standard library makes one, of the kind of TCP that is asked for.
    fn bind(&self, address: SocketAddr) -> Result<TcpListener, Failure> {
        if !self.mptcp {
            return Ok(TcpListener::bind(address)?);
        }
        let socket = open(address, true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::MAXCONN)?;
        Ok(TcpListener::from(socket))
    }

    /// The steps that the process takes as a whole.
    fn play_as_process(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["churn"] => churn()?,
            ["thread", ..] => return self.play_in_thread(&words[1..].join(" ")),
            ["fork"] => return Ok(self.go_on_as_child(true)?.to_string()),
            ["daemon"] => return Ok(self.go_on_as_child(false)?.to_string()),
            ["branch"] => return self.branch(None),
            ["branch", pid] => return self.branch(Some(parse(pid)?)),
            ["tell", worker, ..] => {
                let answer = self.worker(parse(worker)?)?.ask(&words[2..].join(" "))?;
                return relay(answer);
            }
            ["end", worker] => {
                let worker = self.workers.get_mut(parse::<usize>(worker)?);
                let worker = worker.and_then(Option::take).context("no such worker")?;
                worker.end()?;
            }
            ["name", digits] => rename(from_hex(digits).context("no hexadecimal digits")?)?,
            // The kernel closes what is open, as it does for any process that ends.
            ["exit"] => process::exit(0),
            ["exit", status] => process::exit(parse(status)?),
            ["crash"] => crash()?,
            ["eat"] => eat(),
            _ => return Err(anyhow!("there is no such step: {}", words.join(" ")).into()),
        }
        Ok(String::new())
    }

    fn connection(&mut self) -> Result<&mut TcpStream> {
        self.connection.as_mut().context("there is no connection")
    }

    /// Returns in the child only, with its PID.
    fn go_on_as_child(&mut self, parent_waits: bool) -> Result<u32> {
        // SAFETY: a role has no other threads now, so no lock is held by one that the child lacks,
        // and the child may do all that the parent may.
        match unsafe { fork() }.context("cannot fork")? {
            ForkResult::Child => {
                if parent_waits {
                    die_with_parent()?;
                }
                Ok(process::id())
            }
            ForkResult::Parent { .. } if !parent_waits => process::exit(0),
            ForkResult::Parent { child } => {
                self.connection = None;
                self.listener = None;
                // However the child ended: the director has been told, or has killed it.
                let _ = waitpid(child, None);
                process::exit(0);
            }
        }
    }

    /// Returns in both processes: in the child to tell the parent that it is there, in the parent
    /// to pass that on.
    fn branch(&mut self, pid: Option<libc::pid_t>) -> Result<String, Failure> {
        match Worker::start(pid)? {
            Side::Parent(mut worker) => {
                let answer = worker.hear()?;
                self.workers.push(Some(worker));
                relay(answer)
            }
            Side::Child => {
                die_with_parent()?;
                // Its siblings are not its own to direct.
                self.workers.clear();
                Ok(process::id().to_string())
            }
        }
    }

    fn worker(&mut self, number: usize) -> Result<&mut Worker> {
        self.workers
            .get_mut(number)
            .and_then(Option::as_mut)
            .context("no such worker")
    }

    /// The thread is gone when this returns, so that the role may fork again.
    fn play_in_thread(&mut self, step: &str) -> Result<String, Failure> {
        thread::scope(|scope| {
            thread::Builder::new()
                .name("not-the-process".to_owned())
                .spawn_scoped(scope, || {
                    let rest = self.play(step)?;
                    Ok(format!("{} {rest}", gettid()))
                })?
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread panicked").into()))
        })
    }

    fn play_on_ring(&mut self, words: &[&str]) -> Result<String, Failure> {
        let ring = match &mut self.ring {
            Some(ring) => ring,
            none => none.insert(Ring::new()?),
        };
        let listener = self.listener.as_ref().context("nothing listens");
        match words {
            ["uring-accept"] => {
                let connection = TcpStream::from(ring.accept(listener?.as_fd())?);
                let peer = connection.peer_addr()?;
                self.connection = Some(connection);
                Ok(peer.to_string())
            }
            ["uring-connect", address] => {
                let address: SocketAddr = parse(address)?;
                let connection = TcpStream::from(open(address, false)?);
                ring.connect(connection.as_fd(), address)?;
                let port = connection.local_addr()?.port();
                self.connection = Some(connection);
                Ok(port.to_string())
            }
            ["direct-accept"] => Ok(ring
                .accept_direct(listener?.as_fd())
                .map(|()| String::new())?),
            ["direct-connect", address] => Ok(ring
                .connect_direct(parse(address)?)
                .map(|()| String::new())?),
            ["direct-close"] => Ok(ring.close_direct().map(|()| String::new())?),
            _ => Err(anyhow!("there is no such step: {}", words.join(" ")).into()),
        }
    }

    fn keep_many(&mut self, count: usize, one: impl Fn(&Self) -> Result<TcpStream>) -> Result<()> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        for _ in 0..count {
            let connection = one(self)?;
            self.many.push(Some(connection));
        }
        Ok(())
    }
}

/// A worker's answer as the role's own.
fn relay(answer: String) -> Result<String, Failure> {
    match answer.strip_prefix("ok") {
        Some(rest) => Ok(rest.trim_start().to_owned()),
        None => Err(Failure::Relayed(answer)),
    }
}

fn abort_on_close(connection: &TcpStream) -> Result<(), Errno> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(connection, sockopt::Linger, &linger)
}

fn disconnect(connection: &TcpStream) -> Result<(), Errno> {
    // SAFETY: an address of zeros is a valid one of the family 0, which is AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the address, which has this length.
    let result = unsafe {
        libc::connect(
            connection.as_raw_fd(),
            &raw const nowhere,
            size_of_val(&nowhere) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// In repair mode `connect()` sends nothing (`tcp_connect`, `net/ipv4/tcp_output.c`): the ACK that
/// the connection then sends meets an end that does not know of it.
fn resume(to: SocketAddr) -> Result<(TcpStream, u16), Failure> {
    let connection = TcpStream::from(open(to, false)?);
    options::set(&connection, libc::TCP_REPAIR, 1)?;
    connect(connection.as_raw_fd(), &SockaddrStorage::from(to))?;
    let port = connection.local_addr()?.port();
    // Leaving the mode sends a window probe: an ACK.
    options::set(&connection, libc::TCP_REPAIR, 0)?;
    Ok((connection, port))
}

/// Sends a copy of the connection's descriptor.
fn pass(connection: &TcpStream, name: &str) -> Result<(), Failure> {
    let socket = UnixDatagram::unbound()?;
    let to = UnixAddr::new_abstract(name.as_bytes())?;
    let files = [connection.as_raw_fd()];
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&files)],
        MsgFlags::empty(),
        Some(&to),
    )?;
    Ok(())
}

/// Takes a descriptor that was sent.
fn take(mailbox: &UnixDatagram) -> Result<TcpStream, Failure> {
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<UnixAddr>(
        mailbox.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(files) = control
            && let Some(file) = files.first()
        {
            // SAFETY: the kernel has just put it into this process's table.
            return Ok(unsafe { TcpStream::from_raw_fd(*file) });
        }
    }
    Err(anyhow!("nothing was passed").into())
}

/// Ends the process by SIGSEGV.
fn crash() -> Result<(), Errno> {
    // The core would be of no use to anybody.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // SAFETY: it is not safe. That is what this step is for, and it harms this process alone.
    unsafe { ptr::write_volatile(ptr::null_mut::<u8>(), 0) };
    Ok(())
}

/// Takes memory until the kernel ends the process.
fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
    }
}

/// Makes short connections to itself, both sides of which close them in order, in a thread that
/// ends with the process.
fn churn() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::Builder::new().spawn(move || {
        loop {
            // Every port may be in TIME_WAIT for a moment.
            let Ok(mut client) = TcpStream::connect(address) else {
                thread::yield_now();
                continue;
            };
            let Ok((mut server, _)) = listener.accept() else {
                return;
            };
            let mut byte = [0];
            let exchanged = client
                .write_all(b"x")
                .and_then(|()| server.read_exact(&mut byte));
            if exchanged.is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Connects, and tells the local port even when that fails.
fn connect_from(to: SocketAddr, mptcp: bool) -> Result<(TcpStream, u16), Failure> {
    let socket = open(to, mptcp)?;
    let connected = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    let port = local_port(&socket)?;
    match connected {
        Ok(()) => Ok((TcpStream::from(socket), port)),
        Err(errno) => Err(Failure::Refused(errno, Some(port))),
    }
}

/// Begins to connect, and gives the socket as it is then.
fn begin(to: SocketAddr) -> Result<(TcpStream, u16), Failure> {
    let connection = TcpStream::from(open(to, false)?);
    connection.set_nonblocking(true)?;
    match connect(connection.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    connection.set_nonblocking(false)?;
    let port = local_port(&connection)?;
    Ok((connection, port))
}

fn local_port(socket: &impl AsRawFd) -> Result<u16> {
    let local: SockaddrStorage = getsockname(socket.as_raw_fd()).context("no local end")?;
    local
        .as_sockaddr_in()
        .map(nix::sys::socket::SockaddrIn::port)
        .or_else(|| {
            local
                .as_sockaddr_in6()
                .map(nix::sys::socket::SockaddrIn6::port)
        })
        .context("the local end is no inet address")
}

fn open(to: SocketAddr, mptcp: bool) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    if !mptcp {
        return socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    }
    // SAFETY: it takes numbers alone.
    let result = unsafe {
        libc::socket(
            family as libc::c_int,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::IPPROTO_MPTCP,
        )
    };
    // SAFETY: the kernel has just given it, and nobody else has it.
    Errno::result(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects `count` times, as fast as it can.
fn flood(to: SocketAddr, count: u32) -> Result<()> {
    let address = SockaddrStorage::from(to);
    for done in 0..count {
        let socket = open(to, false).context("cannot open a socket")?;
        match connect(socket.as_raw_fd(), &address) {
            Err(Errno::ECONNREFUSED) => {}
            other => bail!("connect {done} of {count} was not refused: {other:?}"),
        }
    }
    Ok(())
}

/// Sends until the connection takes nothing more.
fn fill(connection: &mut TcpStream) -> Result<u64, Failure> {
    connection.set_write_timeout(Some(FULL))?;
    let chunk = vec![b'x'; 65_536];
    let mut sent = 0;
    loop {
        match connection.write(&chunk) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    connection.set_write_timeout(None)?;
    Ok(sent)
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .with_context(|| format!("cannot read `{text}`"))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_that_begins_with_its_kind() {
        let mut role = Role::default();
        assert!(answer(role.play("close")).starts_with("error nothing to close"));
        assert!(answer(role.play("listen nowhere")).starts_with("error cannot read `nowhere`"));
        assert!(answer(role.play("dance")).starts_with("error there is no such step"));
        assert_eq!(answer(Err(Errno::EPIPE.into())), "fail EPIPE");
    }

    #[test]
    fn a_refused_connect_tells_its_port() {
        // Bound without listening: the port is taken, and nobody answers.
        let unheard = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let any = SockaddrStorage::from("127.0.0.1:0".parse::<SocketAddr>().unwrap());
        bind(unheard.as_raw_fd(), &any).unwrap();
        let bound: SockaddrStorage = getsockname(unheard.as_raw_fd()).unwrap();
        let answer = answer(Role::default().play(&format!("connect {bound}")));
        let port = answer.strip_prefix("fail ECONNREFUSED ").unwrap();
        assert_ne!(port.parse::<u16>().unwrap(), 0);
    }

    #[test]
    fn a_role_talks_to_a_role() {
        let (mut server, mut client) = (Role::default(), Role::default());
        let port = answer(server.play("listen 127.0.0.1:0"));
        let port = port.strip_prefix("ok ").unwrap().to_owned();
        assert!(answer(client.play(&format!("connect 127.0.0.1:{port}"))).starts_with("ok "));
        assert!(answer(server.play("accept")).starts_with("ok 127.0.0.1:"));
        assert_eq!(answer(client.play("send 5")), "ok ");
        assert_eq!(answer(server.play("recv 5")), "ok ");
        assert_eq!(answer(client.play("linger0")), "ok ");
        assert_eq!(answer(client.play("close")), "ok ");
        assert_eq!(answer(server.play("recv 1")), "fail ECONNRESET");
    }

    #[test]
    fn names_come_in_hexadecimal() {
        assert_eq!(from_hex("1b5b0a"), Some(vec![0x1b, b'[', b'\n']));
        assert_eq!(from_hex("1b5"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
