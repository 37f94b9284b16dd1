//! What must be shown of a reset: part of the JSON object of its event.

use std::{fs, net::SocketAddr};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A process of which is known who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its PID.
    pub pid: u32,
    /// Its name.
    pub comm: &'static str,
}

/// The process `pid`, whose name is `comm`.
pub const fn who(pid: u32, comm: &'static str) -> Who {
    Who { pid, comm }
}

impl Who {
    /// Ended by `signal`.
    pub const fn killed_by(self, signal: Signal) -> Party {
        Party::Killed(self, signal)
    }
}

/// Who has an end of a connection, or resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The test itself, which plays the raw client or server.
    Test,
    /// A process that does so of its own will.
    Process(Who),
    /// A process that a signal ends.
    Killed(Who, Signal),
}

impl From<Who> for Party {
    fn from(who: Who) -> Self {
        Self::Process(who)
    }
}

impl Party {
    fn process(self) -> Value {
        match self {
            Self::Test => {
                // Cargo gives the test's file a name that changes.
                let comm = fs::read_to_string("/proc/self/comm").expect("/proc");
                json!({"pid": std::process::id(), "comm": comm.trim_end()})
            }
            Self::Process(who) | Self::Killed(who, _) => {
                json!({"pid": who.pid, "comm": who.comm})
            }
        }
    }

    fn actor(self) -> Value {
        let signal = match self {
            Self::Test | Self::Process(_) => None,
            Self::Killed(_, signal) => Some(signal as i32),
        };
        let mut actor = self.process();
        actor["exiting"] = signal.is_some().into();
        actor["signal"] = signal.into();
        actor
    }
}

/// A reset that must be shown.
pub struct Reset(Value);

impl Reset {
    /// One that was sent from `local`, for this cause, which must be certain.
    pub fn sent(local: SocketAddr, remote: SocketAddr, cause: &str) -> Self {
        Self::new("sent", &end(local), &end(remote), cause)
    }

    /// One that came to `local`.
    pub fn received(local: SocketAddr, remote: SocketAddr, cause: &str) -> Self {
        Self::new("received", &end(local), &end(remote), cause)
    }

    fn new(direction: &str, local: &Value, remote: &Value, cause: &str) -> Self {
        Self(json!({
            "direction": direction,
            "local": local,
            "remote": remote,
            "owner": null,
            "actor": null,
            "cause": {"id": cause, "confidence": "certain"},
        }))
    }

    /// Whose socket it is.
    pub fn owner(mut self, owner: impl Into<Party>) -> Self {
        self.0["owner"] = owner.into().process();
        self
    }

    /// Who pulled the trigger.
    pub fn by(mut self, actor: impl Into<Party>) -> Self {
        self.0["actor"] = actor.into().actor();
        self
    }

    /// In this state.
    pub fn state(mut self, state: &str) -> Self {
        self.0["state"] = state.into();
        self
    }

    /// As a part of the event.
    pub fn json(&self) -> Value {
        self.0.clone()
    }
}

/// What the two ends of a connection show.
pub type Pair = [Reset; 2];

/// `by` resets an open connection from its end `from`, for this cause, and `victim` has the other.
pub fn aborted(
    by: impl Into<Party>,
    from: SocketAddr,
    to: SocketAddr,
    cause: &str,
    victim: impl Into<Party>,
) -> Pair {
    let by = by.into();
    [
        Reset::sent(from, to, cause)
            .state("ESTABLISHED")
            .owner(by)
            .by(by),
        Reset::received(to, from, "peer-aborted")
            .state("ESTABLISHED")
            .owner(victim),
    ]
}

/// `by` has closed its end `from` in order, and data comes to it from `late`, who has not closed
/// the other.
pub fn data_after_close(
    by: impl Into<Party>,
    from: SocketAddr,
    to: SocketAddr,
    late: impl Into<Party>,
) -> Pair {
    let by = by.into();
    [
        Reset::sent(from, to, "data-after-close").owner(by).by(by),
        Reset::received(to, from, "peer-gone")
            .state("CLOSE_WAIT")
            .owner(late),
    ]
}

/// `client` connects, from a port that nobody knows, to `to`, where nobody listens for this cause.
pub fn refused(to: SocketAddr, cause: &str, client: impl Into<Party>) -> Pair {
    let (to, unknown) = (end(to), json!({}));
    [
        Reset::new("sent", &to, &unknown, cause),
        Reset::new("received", &unknown, &to, "refused")
            .state("SYN_SENT")
            .owner(client),
    ]
}

fn end(end: SocketAddr) -> Value {
    json!({"addr": end.ip().to_string(), "port": end.port()})
}
