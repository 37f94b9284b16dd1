//! A server that dies with connections of every kind: some wait to be accepted, some are idle, and
//! some have sent what nobody has read.

use nix::sys::signal::Signal;

use crate::{
    client::Client,
    expect::{Party::Test, Reset, Who, aborted, data_after_close},
    place::{FRONT, Place, at, stop},
};

/// How many connections of each kind.
const EACH: usize = 16;

/// A request, and the end of its answer.
#[derive(Clone, Copy)]
pub struct Talk {
    /// The request.
    pub ask: &'static str,
    /// The end of the answer.
    pub answer: &'static str,
}

/// To an HTTP server that answers `done`.
pub const HTTP: Talk = Talk {
    ask: "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    answer: "done",
};

/// The connections of a server that stands still.
pub struct Load {
    talk: Talk,
    asking: Vec<Client>,
    idle: Vec<Client>,
    waiting: Vec<Client>,
}

impl Load {
    /// Connects to the server in `place` whose process, or whose only worker, is `pid`, and stops
    /// that.
    pub fn new(place: &Place, pid: u32, talk: Talk) -> Self {
        let connected = || (0..EACH).map(|_| Client::connect(place, FRONT)).collect();
        let (asking, idle): (Vec<Client>, Vec<Client>) = (connected(), connected());
        for client in asking.iter().chain(&idle) {
            client.say(talk.ask);
            client.hear(talk.answer);
        }
        stop(pid);
        let waiting: Vec<Client> = connected();
        for client in asking.iter().chain(&waiting) {
            client.say(talk.ask);
            place.await_unread(at(FRONT), client.own(), 1);
        }
        Self {
            talk,
            asking,
            idle,
            waiting,
        }
    }

    /// The server is `killed`, and nobody else has its listener. Gives what must be shown.
    pub fn is_killed(&self, server: Who, killed: impl FnOnce()) -> Vec<Reset> {
        killed();
        let mut expected = self.worker_is_killed(server);
        let server = server.killed_by(Signal::SIGKILL);
        for client in &self.waiting {
            client.hears_reset();
            let pair = aborted(server, at(FRONT), client.own(), "listener-closed", Test);
            expected.extend(pair);
        }
        expected
    }

    /// The same, but a worker that was killed is replaced by another.
    pub fn worker_is_replaced(&self, worker: Who, killed: impl FnOnce()) -> Vec<Reset> {
        killed();
        for client in &self.waiting {
            client.hear(self.talk.answer);
        }
        self.worker_is_killed(worker)
    }

    fn worker_is_killed(&self, server: Who) -> Vec<Reset> {
        let server = server.killed_by(Signal::SIGKILL);
        let mut expected = Vec::new();
        for client in &self.asking {
            client.hears_reset();
            let pair = aborted(server, at(FRONT), client.own(), "process-died", Test);
            expected.extend(pair);
        }
        for client in &self.idle {
            // A FIN: nothing was lost with these.
            client.hears_end();
            client.say(self.talk.ask);
            expected.extend(data_after_close(server, at(FRONT), client.own(), Test));
        }
        expected
    }
}
