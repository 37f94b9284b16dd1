//! What must be shown of a reset: part of the JSON object of its event.

use std::{fs, net::SocketAddr};

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

/// The test's own process, which plays the raw client or server. Cargo gives its file a name that
/// changes.
pub fn test() -> Value {
    let comm = fs::read_to_string("/proc/self/comm").expect("/proc");
    json!({"pid": std::process::id(), "comm": comm.trim_end()})
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

    /// The sent end of a connect from a port that nobody knows.
    pub fn sent_to_connect(local: SocketAddr, cause: &str) -> Self {
        Self::new("sent", &end(local), &json!({}), cause)
    }

    /// The received end of a connect from a port that nobody knows.
    pub fn received_by_connect(remote: SocketAddr, cause: &str) -> Self {
        Self::new("received", &json!({}), &end(remote), cause)
    }

    /// Whose socket it is.
    pub fn owner(mut self, who: Who) -> Self {
        self.0["owner"] = json!({"pid": who.pid, "comm": who.comm});
        self
    }

    /// The owner is the test's own process.
    pub fn owner_is_test(mut self) -> Self {
        self.0["owner"] = test();
        self
    }

    /// The process that pulled the trigger, of its own will.
    pub fn by(mut self, who: Who) -> Self {
        self.0["actor"] = json!({
            "pid": who.pid, "comm": who.comm, "exiting": false, "signal": null,
        });
        self
    }

    /// The test's own process pulled the trigger.
    pub fn by_test(mut self) -> Self {
        self.0["actor"] = test();
        self
    }

    /// The owner, who is no longer, was ended by a signal.
    pub fn by_killed(mut self, who: Who, signal: nix::sys::signal::Signal) -> Self {
        self.0["actor"] = json!({
            "pid": who.pid, "comm": who.comm, "exiting": true, "signal": signal as i32,
        });
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

/// The test resets an open connection from `own`, for this cause, and `victim` has the other end.
pub fn aborted_by_test(own: SocketAddr, peer: SocketAddr, cause: &str, victim: Who) -> [Reset; 2] {
    [
        Reset::sent(own, peer, cause)
            .state("ESTABLISHED")
            .owner_is_test()
            .by_test(),
        Reset::received(peer, own, "peer-aborted")
            .state("ESTABLISHED")
            .owner(victim),
    ]
}

/// `culprit` resets an open connection from `from`, for this cause, and the test has the other end.
pub fn aborted_by(culprit: Who, from: SocketAddr, to: SocketAddr, cause: &str) -> [Reset; 2] {
    [
        Reset::sent(from, to, cause)
            .state("ESTABLISHED")
            .owner(culprit)
            .by(culprit),
        Reset::received(to, from, "peer-aborted")
            .state("ESTABLISHED")
            .owner_is_test(),
    ]
}

fn end(end: SocketAddr) -> Value {
    json!({"addr": end.ip().to_string(), "port": end.port()})
}
