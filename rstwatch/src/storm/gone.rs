//! Who listened until lately on the ports that resets are sent from, and how that ended.

use arrayvec::ArrayVec;

use crate::{
    cause::fact::End,
    event::{Comm, Event},
};

/// Ports that are remembered; the one that was noted first goes first.
const MOST: usize = 32;

/// A listener that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its port, in host byte order.
    pub port: u16,
    /// The PID of who listened.
    pub pid: u32,
    /// Its name.
    pub comm: Comm,
    /// How it let go of the listener; when it was another process that did so last, how that did.
    pub end: End,
    /// That other process.
    pub closer: Option<(u32, Comm)>,
    /// When, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

/// The listeners that are gone, one a port.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(ArrayVec<Gone, MOST>);

impl Listeners {
    /// Notes the listener that is gone, when `event` tells of one.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(listener) = event.listener.as_deref() else {
            return;
        };
        let Some(end) = &listener.ended else {
            return;
        };
        let port = event.local.port;
        let (pid, closer) = (listener.process.pid, &end.closer.process);
        let known = self.0.iter().position(|gone| gone.port == port);
        // Who comes to the port in a storm is told the same by each event.
        let other = (closer.pid != pid).then_some((closer.pid, closer.comm));
        if known.is_some_and(|i| (self.0[i].pid, self.0[i].closer) == (pid, other)) {
            return;
        }
        let gone = Gone {
            port,
            pid,
            comm: listener.process.comm,
            end: End::of(&end.closer),
            closer: other,
            at_ns: event.time_ns.saturating_sub(end.ago_ns),
        };
        if let Some(i) = known {
            self.0[i] = gone;
            return;
        }
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(gone);
    }

    /// Who listened on `port`.
    pub(super) fn find(&self, port: u16) -> Option<Gone> {
        self.0.iter().find(|gone| gone.port == port).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{ListenerEnd, Listening},
        fixture,
    };

    fn gone(port: u16, pid: u32, closer: u32) -> Event {
        let mut event = fixture::closed_port();
        event.local.port = port;
        event.listener = Some(Box::new(Listening {
            process: fixture::process(pid, "nginx"),
            inode: 0,
            age_ns: None,
            ended: Some(ListenerEnd {
                closer: fixture::actor(closer, "nginx"),
                ago_ns: 1_000,
            }),
        }));
        event
    }

    #[test]
    fn the_last_listener_of_a_port_is_remembered() {
        let mut listeners = Listeners::default();
        listeners.note(&gone(80, 812, 812));
        listeners.note(&gone(80, 900, 901));
        listeners.note(&fixture::closed_port());
        let found = listeners.find(80).expect("a listener");
        assert_eq!((found.pid, found.end), (900, End::Closed));
        assert_eq!(found.closer.map(|(pid, _)| pid), Some(901));
        assert_eq!(found.at_ns, fixture::TIME_NS - 1_000);
        assert_eq!(listeners.find(8080), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut listeners = Listeners::default();
        for port in 1..=1_000 {
            listeners.note(&gone(port, 812, 812));
        }
        assert_eq!(listeners.0.len(), MOST);
        assert_eq!(listeners.find(1), None);
        assert!(listeners.find(1_000).is_some());
    }
}
