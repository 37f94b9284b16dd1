//! The end of a connection that the test holds itself, so that each step comes when the one before is
//! done.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::place::{FRONT, Place, alone};

/// For how long a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server answers.
pub const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Served,
    /// The end of the stream, be it that a reset followed.
    Closed,
    /// An error that says that the connection was reset.
    Reset,
}

/// An end of a connection.
pub struct Client {
    /// `None` only while dropping.
    stream: Option<TcpStream>,
    own: SocketAddr,
    peer: SocketAddr,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("cannot set a timeout");
        }
        Self {
            own: stream.local_addr().expect("an address"),
            peer: stream.peer_addr().expect("an address"),
            stream: Some(stream),
        }
    }

    /// Connects.
    pub fn connect(place: &Place, port: u16) -> Self {
        Self::new(place.connect(port))
    }

    /// Waits for a connection.
    pub fn accept(listener: &TcpListener) -> Self {
        Self::new(listener.accept().expect("cannot accept").0)
    }

    /// Connects to an HTTP server that answers `done`, and has a request answered.
    pub fn served(place: &Place) -> Self {
        let client = Self::connect(place, FRONT);
        client.get("/");
        client.hear("done");
        client
    }

    fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("it is not being dropped")
    }

    /// Its own end.
    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Writes all of it.
    pub fn say(&self, text: &str) {
        self.stream()
            .write_all(text.as_bytes())
            .expect("cannot write");
    }

    /// Writes a request.
    pub fn get(&self, path: &str) {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }

    /// Reads until `text` has come, and gives all that was read.
    pub fn hear(&self, text: &str) -> String {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !heard.ends_with(text.as_bytes()) {
            let read = self.stream().read(&mut byte);
            let lossy = String::from_utf8_lossy(&heard);
            let read = read.unwrap_or_else(|e| panic!("{e} instead of `{text}`, after: {lossy}"));
            assert_eq!(read, 1, "the end instead of `{text}`, after: {lossy}");
            heard.push(byte[0]);
        }
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// A client whose request a proxy has passed on to `server`, and that end of it.
    pub fn asked(place: &Place, server: &TcpListener) -> (Self, Self) {
        let client = Self::connect(place, FRONT);
        client.get("/");
        let behind = Self::accept(server);
        behind.hear_request();
        (client, behind)
    }

    /// Reads a request without a body.
    pub fn hear_request(&self) {
        self.hear("\r\n\r\n");
    }

    /// Reads until the end of the stream.
    pub fn hears_end(&self) {
        let mut rest = Vec::new();
        self.stream()
            .read_to_end(&mut rest)
            .expect("no end of the stream");
    }

    /// Reads until the connection is reset.
    pub fn hears_reset(&self) {
        let end = self.stream().read_to_end(&mut Vec::new());
        let kind = end.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::ConnectionReset));
    }

    /// Asks an HTTP server that answers `done`, and says what comes of it.
    pub fn ask(&self) -> Outcome {
        let asked = self
            .stream()
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        if let Err(error) = asked {
            let was_reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(was_reset.contains(&error.kind()), "{error}");
            return Outcome::Reset;
        }
        let mut answer = Vec::new();
        let mut part = [0; 512];
        while !answer.ends_with(b"done") {
            match self.stream().read(&mut part) {
                Ok(0) => return Outcome::Closed,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    return Outcome::Reset;
                }
            }
        }
        Outcome::Served
    }

    /// Writes for as long as anything goes into the connection.
    pub fn fill(&self) {
        let nonblocking = |on| self.stream().set_nonblocking(on).expect("a socket");
        nonblocking(true);
        let part = [0; 8192];
        while self.stream().write(&part).is_ok() {}
        nonblocking(false);
    }

    /// Closes.
    pub fn close(self) {
        drop(self);
    }

    /// Closes with a reset.
    pub fn abort(self) {
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(self.stream(), sockopt::Linger, &at_once).expect("cannot set SO_LINGER");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _alone = alone();
        self.stream = None;
    }
}
