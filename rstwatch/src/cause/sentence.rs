//! The one sentence that an operator reads of a reset: who, what, and the numbers that matter.
//!
//! What is certain and what is not stands in the verdict; the advice stands in the catalogue.

use std::fmt;

use super::{
    CauseId, Fact, SCAN_PORTS, Verdict,
    fact::{Bytes, End, Seconds, Waiting},
    rules::silence_ns,
};
use crate::event::{
    Actor, Direction, Ended, Endpoint, Event, Peer, Process, Socket, TcpFlags, TcpState, Trigger,
};

/// One sentence without a full stop, with the process and the numbers in it. Strings from other
/// processes are escaped.
pub fn summary<'a>(event: &'a Event, verdict: &'a Verdict) -> impl fmt::Display + 'a {
    Sentence { event, verdict }
}

struct Sentence<'a> {
    event: &'a Event,
    verdict: &'a Verdict,
}

/// What takes the words of a [`summary`] one after the other.
pub trait Prose {
    /// Words of this program.
    fn words(&mut self, words: &'static str);
    /// One end of a connection.
    fn end(&mut self, end: Endpoint);
    /// A number.
    fn number(&mut self, number: u64);
    /// A process as `name[pid]`.
    fn process(&mut self, process: &Process);
}

/// Gives `to` the words of the [`summary`], if it is one of those that most storms are made of: so they are
/// written without formatting. Returns whether it is; if not, nothing was given.
pub fn tell(event: &Event, verdict: &Verdict, to: &mut impl Prose) -> bool {
    let owner = event.owner.as_ref().map(|owner| &owner.process);
    match (verdict.id, event.trigger) {
        (CauseId::ClosedPort, Trigger::Segment) => {
            to.end(event.remote);
            to.words(" tried to connect to port ");
            to.number(event.local.port.into());
            to.words(", where nobody listens");
            if let Some(ports) = event.scan.filter(|ports| *ports >= SCAN_PORTS) {
                to.words(": a scan, ");
                to.number(ports.into());
                to.words(" closed ports within ");
                to.number(crate::scan::WINDOW.as_secs());
                to.words(" s");
            }
        }
        (CauseId::Refused, Trigger::Received) => {
            to.end(event.remote);
            to.words(" refused the connection of ");
            tell_process(owner, to);
            if let Some(peer) = &event.peer {
                tell_peer(peer, to);
            }
        }
        _ => return false,
    }
    true
}

fn tell_process(process: Option<&Process>, to: &mut impl Prose) {
    match process {
        Some(process) => to.process(process),
        None => to.words("an unknown process"),
    }
}

/// The other end, which is on this host.
fn tell_peer(peer: &Peer, to: &mut impl Prose) {
    let owner = peer.owner.as_ref().map(|owner| &owner.process);
    let actor = (peer.actor.as_ref())
        .filter(|actor| !actor.kernel_thread)
        .map(|actor| &actor.process);
    to.words("; ");
    match (owner, actor) {
        (Some(owner), Some(actor)) if owner.pid != actor.pid => {
            to.process(actor);
            to.words(" sent it for ");
            to.process(owner);
        }
        (None, None) => to.words("this host sent it"),
        (owner, actor) => {
            tell_process(owner.or(actor), to);
            to.words(" sent it");
        }
    }
    to.words(": ");
    to.words(peer.cause);
}

/// Words as they are displayed.
struct Displayed<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    result: fmt::Result,
}

impl Displayed<'_, '_> {
    fn display(&mut self, value: impl fmt::Display) {
        self.result = self.result.and_then(|()| value.fmt(self.f));
    }
}

impl Prose for Displayed<'_, '_> {
    fn words(&mut self, words: &'static str) {
        self.result = self.result.and_then(|()| self.f.write_str(words));
    }

    fn end(&mut self, end: Endpoint) {
        self.display(end);
    }

    fn number(&mut self, number: u64) {
        self.display(number);
    }

    fn process(&mut self, process: &Process) {
        self.display(Who(Some(process)));
    }
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut displayed = Displayed { f, result: Ok(()) };
        if tell(self.event, self.verdict, &mut displayed) {
            return displayed.result;
        }
        match self.event.trigger {
            Trigger::Segment => self.write_answer(f),
            Trigger::Active { .. } => self.write_abort(f),
            Trigger::Received => {
                self.write_received(f)?;
                let mut displayed = Displayed { f, result: Ok(()) };
                if let Some(peer) = &self.event.peer {
                    tell_peer(peer, &mut displayed);
                }
                displayed.result
            }
        }
    }
}

impl Sentence<'_> {
    fn owner(&self) -> Who<'_> {
        Who(self.event.owner.as_ref().map(|owner| &owner.process))
    }

    /// A reset that answered a segment.
    fn write_answer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { local, remote, .. } = self.event;
        let port = local.port;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::ListenerGone => {
                write!(f, "{remote} tried to connect to port {port}, where ")?;
                match self.event.listener.as_deref() {
                    Some(listener) => {
                        write!(f, "{} listened until ", Who(Some(&listener.process)))?;
                        match &listener.ended {
                            Some(end) => {
                                // A forked process may have been the last to hold the listener.
                                let closer = &end.closer.process;
                                if closer.pid == listener.process.pid {
                                    write!(f, "it {}", End::of(&end.closer))?;
                                } else {
                                    write!(f, "{} {}", Who(Some(closer)), End::of(&end.closer))?;
                                }
                                write!(f, " {} before", Seconds(end.ago_ns))
                            }
                            None => f.write_str("lately"),
                        }
                    }
                    None => f.write_str("somebody listened until lately"),
                }
            }
            CauseId::LateSegment | CauseId::ConnectionTimedOut => {
                self.write_segment(f)?;
                write!(f, " for a connection that ")?;
                self.write_past(f)
            }
            CauseId::HalfOpen => {
                self.write_segment(f)?;
                write!(
                    f,
                    " for a connection to port {port} that this host does not know"
                )?;
                let booted = self.verdict.facts.iter().find_map(|fact| match fact {
                    Fact::Booted(seconds) => Some(*seconds),
                    _ => None,
                });
                match booted {
                    Some(seconds) => write!(f, ": it booted {seconds} s before"),
                    None => Ok(()),
                }
            }
            CauseId::LateSynAck => {
                write!(f, "{remote} accepted a connect that ")?;
                self.write_past(f)
            }
            CauseId::Backscatter => write!(
                f,
                "{remote} sent a SYN-ACK to port {port}, from where nobody is known to have connected"
            ),
            CauseId::AcceptQueueOverflow => {
                write!(f, "the accept queue of {owner} on port {port} is full")?;
                match self.event.socket.and_then(|socket| socket.backlog) {
                    Some((waiting, limit)) => {
                        write!(f, ": {}, the limit is {limit}", Waiting(waiting))
                    }
                    None => Ok(()),
                }
            }
            CauseId::FinWait2Timeout => write!(
                f,
                "{owner} had closed the connection and does not wait for {remote} to close it too \
                 (TCP_LINGER2)"
            ),
            CauseId::DataAfterClose => {
                self.write_segment(f)?;
                // A socket that a process still holds is shut down, not closed.
                match self.event.socket {
                    Some(Socket {
                        held: true,
                        orphan: false,
                        ..
                    }) => write!(f, " after {owner} had shut the connection down"),
                    _ => write!(f, " after {owner} had closed the connection"),
                }
            }
            CauseId::BadSegment => self.write_bad_segment(f),
            CauseId::Mptcp => write!(
                f,
                "multipath TCP on port {port} rejected a segment of {remote}{}",
                Because(self.event)
            ),
            _ => self.write_unknown(f),
        }
    }

    /// A reset of the host's own accord.
    fn write_abort(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { remote, socket, .. } = self.event;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::ClosedWithUnreadData => {
                self.write_closing(f)?;
                f.write_str(" with ")?;
                self.write_unread(f)
            }
            CauseId::LingerAbort => {
                self.write_closing(f)?;
                f.write_str(" with SO_LINGER 0")?;
                self.write_unacked(f)
            }
            CauseId::ProcessDied => {
                self.write_closing(f)?;
                write!(f, " with the connection to {remote} open, ")?;
                if self.verdict.facts.contains(&Fact::Linger(0)) {
                    f.write_str("SO_LINGER 0")?;
                    self.write_unacked(f)
                } else {
                    self.write_unread(f)
                }
            }
            CauseId::ListenerClosed => {
                let port = self.event.local.port;
                match self.actor().map(|actor| (End::of(actor), actor)) {
                    Some((End::Closed, actor)) => {
                        write!(f, "{} closed its listener", Who(Some(&actor.process)))?;
                    }
                    Some((end, actor)) => write!(f, "{} {end}", Who(Some(&actor.process)))?,
                    None => write!(f, "{owner} ended its listener")?,
                }
                write!(f, " before it had accepted {remote} on port {port}")
            }
            CauseId::KeepaliveTimeout => {
                write!(f, "{remote} answered ")?;
                match socket {
                    Some(Socket { probes_out: 1, .. }) => {
                        f.write_str("not the one keepalive probe")?;
                    }
                    Some(Socket { probes_out, .. }) if *probes_out > 0 => {
                        write!(f, "none of {probes_out} keepalive probes")?;
                    }
                    _ => f.write_str("no keepalive probe")?,
                }
                write!(f, " of {owner}")?;
                match socket.as_ref().and_then(silence_ns) {
                    Some(ns) => write!(f, " and was silent for {}", Seconds(ns)),
                    None => Ok(()),
                }
            }
            CauseId::FinWait2Timeout => {
                write!(
                    f,
                    "{owner} had closed the connection, and {remote} did not close it too"
                )?;
                match socket {
                    Some(Socket {
                        no_fin_wait2: true, ..
                    }) => f.write_str(" at once (TCP_LINGER2)"),
                    _ => f.write_str(" in time"),
                }
            }
            CauseId::OrphanLimit => write!(
                f,
                "the kernel has too many closed connections to finish, or no memory for them: it \
                 gave up that of {owner} with {remote}"
            ),
            CauseId::Disconnect => {
                match self.actor() {
                    Some(actor) => write!(f, "{}", Who(Some(&actor.process)))?,
                    None => write!(f, "{owner}")?,
                }
                write!(f, " took its socket off {remote} (connect to AF_UNSPEC)")?;
                self.write_unacked(f)
            }
            CauseId::SocketDestroyed => {
                match self.event.actor.as_ref() {
                    Some(actor) => write!(f, "{}", Who(Some(&actor.process)))?,
                    None => f.write_str("somebody")?,
                }
                write!(f, " destroyed the connection of {owner} with {remote}")
            }
            CauseId::Mptcp => write!(
                f,
                "multipath TCP ended a subflow of {owner} to {remote}{}",
                Because(self.event)
            ),
            _ => self.write_unknown(f),
        }
    }

    /// A reset that came.
    fn write_received(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { remote, socket, .. } = self.event;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::HandshakeReset => {
                write!(f, "{remote} reset its unfinished handshake with {owner}")
            }
            CauseId::IdleDrop => {
                write!(f, "{remote} answered {owner} with a reset after")?;
                let idle = self.verdict.facts.iter().find_map(|fact| match fact {
                    Fact::Idle(ns) => Some(*ns),
                    _ => None,
                });
                match idle {
                    Some(ns) => write!(f, " {} of silence", Seconds(ns))?,
                    None => f.write_str(" a silence")?,
                }
                self.write_unacked(f)
            }
            CauseId::PeerGone => {
                write!(f, "{remote} had closed its side when {owner} sent more")?;
                self.write_unacked(f)
            }
            CauseId::ResetDuringClose => {
                write!(
                    f,
                    "{remote} reset the connection after {owner} had closed it"
                )?;
                self.write_unacked(f)
            }
            CauseId::PeerAborted => {
                write!(f, "{remote} reset the connection with {owner}")?;
                if let Some(ns) = socket.as_ref().and_then(silence_ns) {
                    write!(f, ", last heard {} before", Seconds(ns))?;
                }
                self.write_unacked(f)
            }
            _ => self.write_unknown(f),
        }
    }

    /// The actor, when it is an application.
    fn actor(&self) -> Option<&Actor> {
        self.event
            .actor
            .as_ref()
            .filter(|actor| !actor.kernel_thread)
    }

    /// Who closed the connection, and whether it was dying: the actor, when it is an application.
    fn write_closing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.actor() {
            Some(actor) => {
                let who = Who(Some(&actor.process));
                match End::of(actor) {
                    End::Closed => write!(f, "{who} closed the connection"),
                    End::Exited(Some(0)) => write!(f, "{who} exited"),
                    end => write!(f, "{who} {end}"),
                }
            }
            None => write!(f, "{} closed the connection", self.owner()),
        }
    }

    fn write_unread(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event.socket {
            Some(Socket { unread, .. }) if unread > 0 => {
                write!(f, "{} still unread", Bytes(unread))
            }
            _ => f.write_str("data still unread"),
        }
    }

    /// Completes "a connection that" with how and when it ended.
    fn write_past(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(past) = &self.event.past else {
            return f.write_str("had ended here");
        };
        let owner = self.owner();
        let never = past.state == Some(TcpState::SynSent);
        match past.ended {
            Ended::NeverConnected => write!(f, "{owner} had given up")?,
            _ if never => write!(f, "{owner} had given up")?,
            Ended::Closed => write!(f, "{owner} had closed")?,
            Ended::Aborted => write!(f, "{owner} had reset")?,
            Ended::TimedOut => write!(f, "had timed out for {owner}")?,
            Ended::Reset => f.write_str("the peer itself had reset")?,
        }
        if let Some(ns) = past.closed_ago_ns {
            write!(f, " {} before", Seconds(ns))?;
        }
        match past.lasted_ns {
            Some(ns) if never || past.ended == Ended::NeverConnected => {
                write!(f, ", after {}", Seconds(ns))
            }
            _ => Ok(()),
        }
    }

    fn write_bad_segment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            remote,
            local,
            state,
            time_wait,
            segment,
            ..
        } = self.event;
        write!(f, "{remote} sent a segment ")?;
        if let Some(segment) = segment {
            write!(f, "({}) ", segment.flags)?;
        }
        write!(f, "to port {} that ", local.port)?;
        match (time_wait, state) {
            (Some(_), _) => f.write_str("opens anew a connection which is not closed yet")?,
            (None, Some(TcpState::SynSent)) => {
                write!(f, "does not answer the connect of {}", self.owner())?;
            }
            (None, Some(TcpState::Listen | TcpState::SynRecv)) => {
                f.write_str("does not fit its handshake")?;
            }
            (None, None) => f.write_str("no TCP sends, as scanners do")?,
            (None, Some(state)) => write!(f, "does not fit state {}", state.name())?,
        }
        write!(f, "{}", Because(self.event))
    }

    /// That the peer sent the segment which drew the reset.
    fn write_segment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent ", self.event.remote)?;
        match self.event.segment {
            Some(segment) if segment.payload > 0 => write!(f, "{}", Bytes(segment.payload)),
            Some(segment) if segment.flags.has(TcpFlags::SYN) => f.write_str("a SYN-ACK"),
            Some(segment) if segment.flags.has(TcpFlags::FIN) => f.write_str("a FIN"),
            Some(_) => f.write_str("an ACK"),
            None => f.write_str("more"),
        }
    }

    fn write_unknown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            remote,
            reason,
            state,
            ..
        } = self.event;
        let owner = self.owner();
        match (self.event.direction, reason, state) {
            (Direction::Sent, Some(reason), _) => write!(
                f,
                "this host reset the connection of {owner} with {remote}, kernel reason {}",
                reason.name()
            ),
            (Direction::Sent, None, _) => {
                write!(f, "this host reset the connection of {owner} with {remote}")
            }
            (Direction::Received, _, Some(state)) => write!(
                f,
                "{remote} reset the connection with {owner} in state {}",
                state.name()
            ),
            (Direction::Received, _, None) => {
                write!(f, "{remote} reset the connection with {owner}")
            }
        }
    }

    fn write_unacked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event.socket {
            Some(Socket { unacked, .. }) if *unacked > 0 => {
                write!(f, ", {} not acknowledged", Bytes(*unacked))
            }
            _ => Ok(()),
        }
    }
}

/// The kernel's reason, where it tells more than the cause: `, kernel reason ...`.
struct Because<'a>(&'a Event);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.reason {
            Some(reason) => write!(f, ", kernel reason {}", reason.name()),
            None => Ok(()),
        }
    }
}

/// A process as `name[pid]`.
struct Who<'a>(Option<&'a Process>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(process) => {
                process.comm.fmt(f)?;
                f.write_str("[")?;
                f.write_str(itoa::Buffer::new().format(process.pid))?;
                f.write_str("]")
            }
            None => f.write_str("an unknown process"),
        }
    }
}
