//! The one sentence that an operator reads of a reset: who, what, and the numbers that matter.
//!
//! What is certain and what is not stands in the verdict; the advice stands in the catalogue.

use std::fmt;

use super::{
    CauseId, Verdict,
    fact::{Bytes, Seconds, Signal},
    rules::silence_ns,
};
use crate::event::{Direction, Event, Process, Socket, TcpFlags};

/// One sentence without a full stop, with the process and the numbers in it. Strings from other
/// processes are escaped.
pub fn summary<'a>(event: &'a Event, verdict: &'a Verdict) -> impl fmt::Display + 'a {
    Sentence { event, verdict }
}

struct Sentence<'a> {
    event: &'a Event,
    verdict: &'a Verdict,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            local,
            remote,
            socket,
            ..
        } = self.event;
        let owner = self.owner();
        match self.verdict.id {
            CauseId::ClosedPort => {
                write!(
                    f,
                    "{remote} tried to connect to port {}, where nobody listens",
                    local.port
                )
            }
            CauseId::HalfOpen => {
                self.write_segment(f)?;
                write!(
                    f,
                    " for a connection to port {} that this host does not know",
                    local.port
                )
            }
            CauseId::DataAfterClose => {
                self.write_segment(f)?;
                write!(f, " after {owner} had closed the connection")
            }
            CauseId::ClosedWithUnreadData => {
                self.write_closing(f)?;
                match socket {
                    Some(Socket { unread, .. }) if *unread > 0 => {
                        write!(f, " with {} still unread", Bytes(*unread))
                    }
                    _ => f.write_str(" with data still unread"),
                }
            }
            CauseId::LingerAbort => {
                self.write_closing(f)?;
                f.write_str(" with SO_LINGER 0")?;
                self.write_unacked(f)
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
                write!(f, " of {owner}")
            }
            CauseId::Refused => write!(f, "{remote} refused the connection of {owner}"),
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
            CauseId::Unknown => self.write_unknown(f),
        }
    }
}

impl Sentence<'_> {
    fn owner(&self) -> Who<'_> {
        Who(self.event.owner.as_ref().map(|owner| &owner.process))
    }

    /// Who closed the connection, and whether it was dying: the actor, when it is an application.
    fn write_closing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actor = self
            .event
            .actor
            .as_ref()
            .filter(|actor| !actor.kernel_thread);
        match actor {
            Some(actor) => {
                let who = Who(Some(&actor.process));
                match actor.signal.filter(|_| actor.exiting) {
                    Some(signal) => write!(f, "{who} was killed by {}", Signal(signal)),
                    None if actor.exiting => write!(f, "{who} exited"),
                    None => write!(f, "{who} closed the connection"),
                }
            }
            None => write!(f, "{} closed the connection", self.owner()),
        }
    }

    /// That the peer sent the segment which drew the reset.
    fn write_segment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent ", self.event.remote)?;
        match self.event.segment {
            Some(segment) if segment.payload > 0 => write!(f, "{}", Bytes(segment.payload)),
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

/// A process as `name[pid]`.
struct Who<'a>(Option<&'a Process>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(process) => write!(f, "{}[{}]", process.comm, process.pid),
            None => f.write_str("an unknown process"),
        }
    }
}
