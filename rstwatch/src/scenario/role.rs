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
//! | `fill` | sends until neither side takes more | the bytes sent |
//! | `linger0` | `SO_LINGER` with 0 | |
//! | `keepalive` | `SO_KEEPALIVE`: one probe, a second after a second of silence | |
//! | `shutdown wr`, `shutdown rdwr` | `shutdown()` | |
//! | `close`, `unlisten` | closes the connection, the listener | |
//! | `fork` | goes on as a child; the parent closes the connection and waits | the child's PID |
//! | `name HEX` | renames the process | |
//! | `exit` | ends, without closing anything first | |
//!
//! A step that the kernel refuses is answered with `fail ERRNO`, a `connect` with the local port
//! after it; anything else that goes wrong with `error TEXT`. Who tells a role what to do, and why, is
//! not known here: that is `stage`.

use std::{
    ffi::{CString, OsString},
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        signal::Signal,
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockname, setsockopt,
            socket, sockopt,
        },
        wait::waitpid,
    },
    unistd::{ForkResult, fork},
};

/// For how long neither side may take a byte more before a connection counts as filled.
const FULL: Duration = Duration::from_millis(100);

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
        Err(Failure::Other(error)) => format!("error {error:#}"),
    }
}

/// What the process holds.
#[derive(Default)]
struct Role {
    listener: Option<TcpListener>,
    connection: Option<TcpStream>,
}

impl Role {
    fn play(&mut self, step: &str) -> Result<String, Failure> {
        let words: Vec<&str> = step.split_ascii_whitespace().collect();
        match words[..] {
            ["listen", address] => {
                let listener = TcpListener::bind(parse::<SocketAddr>(address)?)?;
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
                let (connection, port) = connect_from(parse(address)?)?;
                self.connection = Some(connection);
                return Ok(port.to_string());
            }
            ["flood", address, count] => flood(parse(address)?, parse(count)?)?,
            ["send", count] => self.connection()?.write_all(&vec![b'x'; parse(count)?])?,
            ["recv", count] => {
                let mut bytes = vec![0; parse(count)?];
                self.connection()?.read_exact(&mut bytes)?;
            }
            ["fill"] => return Ok(fill(self.connection()?)?.to_string()),
            ["linger0"] => {
                let linger = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(self.connection()?, sockopt::Linger, &linger)?;
            }
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
            ["fork"] => return Ok(self.go_on_as_child()?.to_string()),
            ["name", digits] => rename(from_hex(digits).context("no hexadecimal digits")?)?,
            // The kernel closes what is open, as it does for any process that ends.
            ["exit"] => process::exit(0),
            _ => return Err(anyhow!("there is no such step: {step}").into()),
        }
        Ok(String::new())
    }

    fn connection(&mut self) -> Result<&mut TcpStream> {
        self.connection.as_mut().context("there is no connection")
    }

    /// Returns in the child only, with its PID.
    fn go_on_as_child(&mut self) -> Result<u32> {
        // SAFETY: a role never starts a thread, so no lock is held by one that the child lacks, and
        // the child may do all that the parent may.
        match unsafe { fork() }.context("cannot fork")? {
            ForkResult::Child => {
                die_with_parent()?;
                Ok(process::id())
            }
            ForkResult::Parent { child } => {
                self.connection = None;
                self.listener = None;
                // However the child ended: the director has been told, or has killed it.
                let _ = waitpid(child, None);
                process::exit(0);
            }
        }
    }
}

/// Connects, and tells the local port even when that fails.
fn connect_from(to: SocketAddr) -> Result<(TcpStream, u16), Failure> {
    let socket = open(to)?;
    let connected = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    let local: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = local
        .as_sockaddr_in()
        .map(nix::sys::socket::SockaddrIn::port)
        .or_else(|| {
            local
                .as_sockaddr_in6()
                .map(nix::sys::socket::SockaddrIn6::port)
        })
        .context("the local end is no inet address")?;
    match connected {
        Ok(()) => Ok((TcpStream::from(socket), port)),
        Err(errno) => Err(Failure::Refused(errno, Some(port))),
    }
}

fn open(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

/// Connects `count` times, as fast as it can.
fn flood(to: SocketAddr, count: u32) -> Result<()> {
    let address = SockaddrStorage::from(to);
    for done in 0..count {
        let socket = open(to).context("cannot open a socket")?;
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
        nix::sys::socket::bind(unheard.as_raw_fd(), &any).unwrap();
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
