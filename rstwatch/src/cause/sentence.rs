//! The one sentence that an operator reads of a reset: who, what, and the numbers that matter.
//!
//! What is certain and what is not stands in the verdict; the advice stands in the catalogue.

use std::fmt;

use super::{
    CauseId, Fact, SCAN_PORTS, Verdict,
    fact::End,
    prose::{Bytes, Piece, Prose, Seconds, Waiting, Who, display, say},
    rules::silence_ns,
};
use crate::event::{
    Actor, Direction, Ended, Event, Peer, Segment, Socket, TcpFlags, TcpState, Trigger,
};

/// One sentence without a full stop, with the process and the numbers in it. Strings from other
/// processes are escaped.
pub fn summary<'a>(event: &'a Event, verdict: &'a Verdict) -> impl fmt::Display + 'a {
    Sentence { event, verdict }
}

/// Gives `to` the pieces of the [`summary`].
pub fn tell(event: &Event, verdict: &Verdict, to: &mut impl Prose) {
    Sentence { event, verdict }.tell(to);
}

/// Whether [`tell`] says the same of all events with this cause that have the remote end, the owner and the peer in common.
pub const fn names_remote_end_alone(id: CauseId) -> bool {
    matches!(id, CauseId::Refused)
}

#[derive(Clone, Copy)]
struct Sentence<'a> {
    event: &'a Event,
    verdict: &'a Verdict,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(f, |to| self.tell(to))
    }
}

impl Piece for Sentence<'_> {
    fn tell(self, to: &mut impl Prose) {
        match self.event.trigger {
            Trigger::Segment => self.answer(to),
            Trigger::Active { .. } => self.abort(to),
            Trigger::Received => {
                self.received(to);
                if let Some(peer) = &self.event.peer {
                    say!(to; "; ", &**peer);
                }
            }
        }
    }
}

/// The other end, which is on this host.
impl Piece for &Peer {
    fn tell(self, to: &mut impl Prose) {
        let owner = self.owner.as_ref().map(|owner| &owner.process);
        let actor = (self.actor.as_ref())
            .filter(|actor| !actor.kernel_thread)
            .map(|actor| &actor.process);
        match (owner, actor) {
            (Some(owner), Some(actor)) if owner.pid != actor.pid => {
                say!(to; Who(Some(actor)), " sent it for ", Who(Some(owner)));
            }
            (None, None) => to.words("this host sent it"),
            (owner, actor) => say!(to; Who(owner.or(actor)), " sent it"),
        }
        say!(to; ": ", self.cause);
    }
}

impl<'a> Sentence<'a> {
    fn owner(self) -> Who<'a> {
        Who(self.event.owner.as_ref().map(|owner| &owner.process))
    }

    /// The actor, when it is an application.
    fn actor(self) -> Option<&'a Actor> {
        self.event
            .actor
            .as_ref()
            .filter(|actor| !actor.kernel_thread)
    }

    /// A reset that answered a segment.
    fn answer(self, to: &mut impl Prose) {
        let Event { local, remote, .. } = *self.event;
        let port = local.port;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::ClosedPort => {
                say!(to; remote, " tried to connect to port ", port, ", where nobody listens");
                if let Some(ports) = self.event.scan.filter(|ports| *ports >= SCAN_PORTS) {
                    let seconds = crate::scan::WINDOW.as_secs();
                    say!(to; ": a scan, ", ports, " closed ports within ", seconds, " s");
                }
            }
            CauseId::ListenerGone => self.listener_gone(to),
            CauseId::LateSegment | CauseId::ConnectionTimedOut => {
                self.segment(to);
                to.words(" for a connection that ");
                self.past(to);
            }
            CauseId::HalfOpen => {
                self.segment(to);
                say!(to; " for a connection to port ", port, " that this host does not know");
                let booted = self.verdict.facts.iter().find_map(|fact| match fact {
                    Fact::Booted(seconds) => Some(*seconds),
                    _ => None,
                });
                if let Some(seconds) = booted {
                    say!(to; ": it booted ", seconds, " s before");
                }
            }
            CauseId::LateSynAck => {
                say!(to; remote, " accepted a connect that ");
                self.past(to);
            }
            CauseId::Backscatter => say!(
                to; remote, " sent a SYN-ACK to port ", port, ", from where nobody is known to have connected",
            ),
            CauseId::AcceptQueueOverflow => {
                say!(to; "the accept queue of ", owner, " on port ", port, " is full");
                if let Some((waiting, limit)) = self.event.socket.and_then(|socket| socket.backlog)
                {
                    say!(to; ": ", Waiting(waiting), ", the limit is ", limit);
                }
            }
            CauseId::FinWait2Timeout => say!(
                to; owner, " had closed the connection and does not wait for ", remote,
                " to close it too (TCP_LINGER2)",
            ),
            CauseId::DataAfterClose => {
                self.segment(to);
                // A socket that a process still holds is shut down, not closed.
                let done = match self.event.socket {
                    Some(Socket {
                        held: true,
                        orphan: false,
                        ..
                    }) => " had shut the connection down",
                    _ => " had closed the connection",
                };
                say!(to; " after ", owner, done);
            }
            CauseId::BadSegment => self.bad_segment(to),
            CauseId::Mptcp => {
                say!(to; "multipath TCP on port ", port, " rejected a segment of ", remote);
                self.because(to);
            }
            _ => self.unknown(to),
        }
    }

    fn listener_gone(self, to: &mut impl Prose) {
        let Event { local, remote, .. } = *self.event;
        say!(to; remote, " tried to connect to port ", local.port, ", where ");
        let Some(listener) = self.event.listener.as_deref() else {
            return to.words("somebody listened until lately");
        };
        say!(to; Who(Some(&listener.process)), " listened until ");
        match &listener.ended {
            Some(end) => {
                // A forked process may have been the last to hold the listener.
                let closer = &end.closer.process;
                if closer.pid == listener.process.pid {
                    to.words("it ");
                } else {
                    say!(to; Who(Some(closer)), " ");
                }
                say!(to; End::of(&end.closer), " ", Seconds(end.ago_ns), " before");
            }
            None => to.words("lately"),
        }
    }

    /// A reset of the host's own accord.
    fn abort(self, to: &mut impl Prose) {
        let Event { remote, socket, .. } = self.event;
        let remote = *remote;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::ClosedWithUnreadData => {
                self.closing(to);
                to.words(" with ");
                self.unread(to);
            }
            CauseId::LingerAbort => {
                self.closing(to);
                to.words(" with SO_LINGER 0");
                self.unacked(to);
            }
            CauseId::ProcessDied => {
                self.closing(to);
                say!(to; " with the connection to ", remote, " open, ");
                if self.verdict.facts.contains(&Fact::Linger(0)) {
                    to.words("SO_LINGER 0");
                    self.unacked(to);
                } else {
                    self.unread(to);
                }
            }
            CauseId::ListenerClosed => {
                match self.actor().map(|actor| (End::of(actor), &actor.process)) {
                    Some((End::Closed, actor)) => {
                        say!(to; Who(Some(actor)), " closed its listener");
                    }
                    Some((end, actor)) => say!(to; Who(Some(actor)), " ", end),
                    None => say!(to; owner, " ended its listener"),
                }
                let port = self.event.local.port;
                say!(to; " before it had accepted ", remote, " on port ", port);
            }
            CauseId::KeepaliveTimeout => {
                say!(to; remote, " answered ");
                match socket {
                    Some(Socket { probes_out: 1, .. }) => to.words("not the one keepalive probe"),
                    Some(Socket { probes_out, .. }) if *probes_out > 0 => {
                        say!(to; "none of ", *probes_out, " keepalive probes");
                    }
                    _ => to.words("no keepalive probe"),
                }
                say!(to; " of ", owner);
                if let Some(ns) = socket.as_ref().and_then(silence_ns) {
                    say!(to; " and was silent for ", Seconds(ns));
                }
            }
            CauseId::FinWait2Timeout => {
                let in_time = match socket {
                    Some(Socket {
                        no_fin_wait2: true, ..
                    }) => " at once (TCP_LINGER2)",
                    _ => " in time",
                };
                say!(to; owner, " had closed the connection, and ", remote, " did not close it too", in_time);
            }
            CauseId::OrphanLimit => say!(
                to; "the kernel has too many closed connections to finish, or no memory for them: it gave up \
                that of ", owner, " with ", remote,
            ),
            CauseId::Disconnect => {
                let who = self
                    .actor()
                    .map_or(owner, |actor| Who(Some(&actor.process)));
                say!(to; who, " took its socket off ", remote, " (connect to AF_UNSPEC)");
                self.unacked(to);
            }
            CauseId::SocketDestroyed => {
                match self.event.actor.as_ref() {
                    Some(actor) => say!(to; Who(Some(&actor.process))),
                    None => to.words("somebody"),
                }
                say!(to; " destroyed the connection of ", owner, " with ", remote);
            }
            CauseId::Mptcp => {
                say!(to; "multipath TCP ended a subflow of ", owner, " to ", remote);
                self.because(to);
            }
            _ => self.unknown(to),
        }
    }

    /// A reset that came.
    fn received(self, to: &mut impl Prose) {
        let Event { remote, socket, .. } = self.event;
        let remote = *remote;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::Refused => say!(to; remote, " refused the connection of ", owner),
            CauseId::HandshakeReset => {
                say!(to; remote, " reset its unfinished handshake with ", owner);
            }
            CauseId::IdleDrop => {
                say!(to; remote, " answered ", owner, " with a reset after");
                let idle = self.verdict.facts.iter().find_map(|fact| match fact {
                    Fact::Idle(ns) => Some(*ns),
                    _ => None,
                });
                match idle {
                    Some(ns) => say!(to; " ", Seconds(ns), " of silence"),
                    None => to.words(" a silence"),
                }
                self.unacked(to);
            }
            CauseId::PeerGone => {
                say!(to; remote, " had closed its side when ", owner, " sent more");
                self.unacked(to);
            }
            CauseId::ResetDuringClose => {
                say!(to; remote, " reset the connection after ", owner, " had closed it");
                self.unacked(to);
            }
            CauseId::PeerAborted => {
                say!(to; remote, " reset the connection with ", owner);
                if let Some(ns) = socket.as_ref().and_then(silence_ns) {
                    say!(to; ", last heard ", Seconds(ns), " before");
                }
                self.unacked(to);
            }
            _ => self.unknown(to),
        }
    }

    /// Who closed the connection, and whether it was dying: the actor, when it is an application.
    fn closing(self, to: &mut impl Prose) {
        let Some(actor) = self.actor() else {
            return say!(to; self.owner(), " closed the connection");
        };
        say!(to; Who(Some(&actor.process)));
        match End::of(actor) {
            End::Closed => to.words(" closed the connection"),
            End::Exited(Some(0)) => to.words(" exited"),
            end => say!(to; " ", end),
        }
    }

    fn unread(self, to: &mut impl Prose) {
        match self.event.socket {
            Some(Socket { unread, .. }) if unread > 0 => say!(to; Bytes(unread), " still unread"),
            _ => to.words("data still unread"),
        }
    }

    /// Completes "a connection that" with how and when it ended.
    fn past(self, to: &mut impl Prose) {
        let Some(past) = &self.event.past else {
            return to.words("had ended here");
        };
        let owner = self.owner();
        let never = past.ended == Ended::NeverConnected || past.state == Some(TcpState::SynSent);
        match past.ended {
            _ if never => say!(to; owner, " had given up"),
            Ended::NeverConnected | Ended::Closed => say!(to; owner, " had closed"),
            Ended::Aborted => say!(to; owner, " had reset"),
            Ended::TimedOut => say!(to; "had timed out for ", owner),
            Ended::Reset => to.words("the peer itself had reset"),
        }
        if let Some(ns) = past.closed_ago_ns {
            say!(to; " ", Seconds(ns), " before");
        }
        if let Some(ns) = past.lasted_ns.filter(|_| never) {
            say!(to; ", after ", Seconds(ns));
        }
    }

    fn bad_segment(self, to: &mut impl Prose) {
        let Event {
            remote,
            local,
            state,
            time_wait,
            segment,
            ..
        } = self.event;
        say!(to; *remote, " sent a segment ");
        if let Some(Segment { flags, .. }) = segment {
            say!(to; "(", *flags, ") ");
        }
        say!(to; "to port ", local.port, " that ");
        match (time_wait, state) {
            (Some(_), _) => to.words("opens anew a connection which is not closed yet"),
            (None, Some(TcpState::SynSent)) => {
                say!(to; "does not answer the connect of ", self.owner());
            }
            (None, Some(TcpState::Listen | TcpState::SynRecv)) => {
                to.words("does not fit its handshake");
            }
            (None, None) => to.words("no TCP sends, as scanners do"),
            (None, Some(state)) => say!(to; "does not fit state ", state.name()),
        }
        self.because(to);
    }

    /// That the peer sent the segment which drew the reset.
    fn segment(self, to: &mut impl Prose) {
        say!(to; self.event.remote, " sent ");
        match self.event.segment {
            Some(segment) if segment.payload > 0 => say!(to; Bytes(segment.payload)),
            Some(segment) if segment.flags.has(TcpFlags::SYN) => to.words("a SYN-ACK"),
            Some(segment) if segment.flags.has(TcpFlags::FIN) => to.words("a FIN"),
            Some(_) => to.words("an ACK"),
            None => to.words("more"),
        }
    }

    fn unknown(self, to: &mut impl Prose) {
        let Event { remote, state, .. } = *self.event;
        let owner = self.owner();
        match (self.event.direction, state) {
            (Direction::Sent, _) => {
                say!(to; "this host reset the connection of ", owner, " with ", remote);
                self.because(to);
            }
            (Direction::Received, Some(state)) => {
                say!(to; remote, " reset the connection with ", owner, " in state ", state.name());
            }
            (Direction::Received, None) => say!(to; remote, " reset the connection with ", owner),
        }
    }

    /// The kernel's reason, where it tells more than the cause: `, kernel reason ...`.
    fn because(self, to: &mut impl Prose) {
        if let Some(reason) = self.event.reason {
            say!(to; ", kernel reason ", reason.name());
        }
    }

    fn unacked(self, to: &mut impl Prose) {
        if let Some(Socket { unacked, .. }) = self.event.socket
            && unacked > 0
        {
            say!(to; ", ", Bytes(unacked), " not acknowledged");
        }
    }
}
