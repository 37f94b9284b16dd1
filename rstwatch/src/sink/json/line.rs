//! What a line says, and in which order. Lines of one [`Kind`] have all in common but their [`Values`], their time and their
//! sentence: see [`super::kept`].

use std::{convert::Infallible, rc::Rc};

use arrayvec::ArrayVec;

use super::writer::Writer;
use crate::{
    cause::{
        CauseId, Confidence, Fact, MAX_FACTS, Verdict, catalogue, names_remote_end_alone, tell,
    },
    event::{
        Actor, Direction, Endpoint, Event, Owner, Peer, Place, Reason, Segment, Socket, TcpFlags,
        TcpState,
    },
};

/// The most parts of a line that are its own.
pub const MOST_OWN: usize = 12;

/// What takes the parts of a line one after the other.
pub trait Parts {
    /// A part that lines of a kind have in common.
    fn common(&mut self, write: impl FnOnce(&mut Writer));
    /// A part that depends on more: on values, and is the same as in another line of its kind with such values; or
    /// on anything.
    fn own(&mut self, is_same: impl FnOnce(&Values) -> bool, write: impl FnOnce(&mut Writer));
}

/// Gives `to` the parts of a line behind the time.
pub fn parts(event: &Event, verdict: &Verdict, to: &mut impl Parts) {
    to.common(|w| {
        w.raw(match event.direction {
            Direction::Sent => "\",\"direction\":\"sent\",\"family\":\"",
            Direction::Received => "\",\"direction\":\"received\",\"family\":\"",
        });
        w.raw(if event.is_ipv4() {
            "ipv4\",\"local\":{\"addr\":\""
        } else {
            "ipv6\",\"local\":{\"addr\":\""
        });
    });
    let Endpoint { addr, port } = event.local;
    to.own(|line| line.local.addr == addr, |w| w.addr(addr));
    to.common(|w| w.raw("\",\"port\":"));
    to.own(|line| line.local.port == port, |w| w.number(port));
    to.common(|w| w.raw("},\"remote\":{\"addr\":\""));
    let Endpoint { addr, port } = event.remote;
    to.own(|line| line.remote.addr == addr, |w| w.addr(addr));
    to.common(|w| w.raw("\",\"port\":"));
    to.own(|line| line.remote.port == port, |w| w.number(port));
    to.common(|w| {
        who(w, event);
        w.raw(",\"segment\":");
    });
    match &event.segment {
        Some(segment) => segment_parts(segment, to),
        None => to.common(|w| w.raw("null")),
    }
    to.common(|w| w.raw(",\"socket\":"));
    match &event.socket {
        Some(socket) => socket_parts(socket, to),
        None => to.common(|w| w.raw("null")),
    }
    to.common(|w| {
        w.raw(",\"peer\":");
        w.or_null(event.peer.as_deref(), peer);
        w.raw(",\"cause\":{\"id\":\"");
        w.raw(verdict.id.name());
        w.raw("\",\"confidence\":\"");
        w.raw(verdict.confidence.name());
        w.raw("\",\"summary\":\"");
    });
    to.own(
        |line| names_remote_end_alone(verdict.id) && line.remote == event.remote,
        |w| tell(event, verdict, w),
    );
    to.common(|w| w.raw("\",\"evidence\":["));
    if repeats(verdict) {
        to.common(|w| evidence(w, verdict));
    } else {
        to.own(|_| false, |w| evidence(w, verdict));
    }
    to.common(|w| {
        w.raw("],\"advice\":\"");
        // The catalogue's tests hold its texts to what needs no escaping.
        w.raw(catalogue::entry(verdict.id).advice);
        w.raw("\"}}\n");
    });
}

fn segment_parts(segment: &Segment, to: &mut impl Parts) {
    let Segment {
        seq, ack, payload, ..
    } = *segment;
    to.common(|w| {
        w.raw("{\"flags\":\"");
        let Ok(()) = segment.flags.pieces(|piece| {
            w.short(piece);
            Ok::<_, Infallible>(())
        });
        w.raw("\",\"seq\":");
    });
    to.own(
        |line| line.segment.is_some_and(|of| of.seq == seq),
        |w| w.number(seq),
    );
    to.common(|w| w.raw(",\"ack\":"));
    to.own(
        |line| {
            line.segment
                .is_some_and(|of| of.ack == ack && of.payload == payload)
        },
        |w| {
            w.number(ack);
            w.raw(",\"payload\":");
            w.number(payload);
        },
    );
    to.common(|w| w.raw("}"));
}

fn socket_parts(socket: &Socket, to: &mut impl Parts) {
    to.common(|w| w.raw("{\"age_s\":"));
    to.own(
        |line| {
            line.socket
                .as_ref()
                .is_some_and(|of| of.age_ns == socket.age_ns)
        },
        |w| w.seconds(socket.age_ns),
    );
    to.common(|w| w.raw(",\"idle_rx_s\":"));
    to.own(
        |line| {
            line.socket.as_ref().is_some_and(|of| {
                of.idle_rx_ns == socket.idle_rx_ns && of.idle_tx_ns == socket.idle_tx_ns
            })
        },
        |w| {
            w.seconds(socket.idle_rx_ns);
            w.raw(",\"idle_tx_s\":");
            w.seconds(socket.idle_tx_ns);
        },
    );
    to.common(|w| w.raw(",\"bytes_sent\":"));
    to.own(
        |line| {
            line.socket.as_ref().is_some_and(|of| {
                of.bytes_sent == socket.bytes_sent
                    && of.bytes_received == socket.bytes_received
                    && of.unread == socket.unread
                    && of.unacked == socket.unacked
            })
        },
        |w| {
            w.number(socket.bytes_sent);
            w.raw(",\"bytes_received\":");
            w.number(socket.bytes_received);
            w.raw(",\"unread\":");
            w.number(socket.unread);
            w.raw(",\"unacked\":");
            w.number(socket.unacked);
        },
    );
    to.common(|w| {
        w.raw(if socket.kernel_owned {
            ",\"kernel\":true}"
        } else {
            ",\"kernel\":false}"
        });
    });
}

/// From the end of the addresses to the place.
fn who(w: &mut Writer, event: &Event) {
    w.raw("},\"state\":");
    w.name(event.state.map(TcpState::name));
    w.raw(",\"reason\":");
    w.name(event.reason.map(Reason::name));
    w.raw(",\"owner\":");
    w.or_null(event.owner.as_ref(), owner);
    w.raw(",\"actor\":");
    w.or_null(event.actor.as_ref(), actor);
    w.raw(",\"netns\":");
    w.or_null(event.netns, Writer::number);
    w.raw(",\"netns_name\":");
    w.foreign(event.netns_name.as_deref());
    let place = event.place.as_deref();
    w.raw(",\"cgroup\":");
    w.foreign(place.and_then(|place| place.cgroup.as_deref()));
    w.raw(",\"unit\":");
    w.foreign(place.and_then(|place| place.unit.as_deref()));
    w.raw(",\"container\":");
    w.foreign(place.and_then(|place| place.container.as_deref()));
    w.raw(",\"runtime\":");
    w.name(place.and_then(|place| place.runtime));
    w.raw(",\"pod\":");
    w.foreign(place.and_then(|place| place.pod.as_deref()));
}

fn owner(w: &mut Writer, owner: &Owner) {
    let process = &owner.process;
    w.raw("{\"pid\":");
    w.number(process.pid);
    w.raw(",\"comm\":");
    w.escaped(process.comm.as_bytes());
    w.raw(",\"exe\":");
    w.foreign(process.exe.as_deref());
    w.raw(",\"uid\":");
    w.or_null(process.uid, Writer::number);
    w.raw(",\"via\":");
    w.name(Some(owner.via.name()));
    if owner.holders.len() > 1 {
        w.raw(",\"holders\":[");
        for (i, pid) in owner.holders.iter().enumerate() {
            if i > 0 {
                w.raw(",");
            }
            w.number(*pid);
        }
        w.raw("]");
    }
    w.raw("}");
}

fn actor(w: &mut Writer, actor: &Actor) {
    w.raw("{\"pid\":");
    w.number(actor.process.pid);
    w.raw(",\"tid\":");
    w.number(actor.tid);
    w.raw(",\"comm\":");
    w.escaped(actor.process.comm.as_bytes());
    w.raw(if actor.exiting {
        ",\"exiting\":true,\"signal\":"
    } else {
        ",\"exiting\":false,\"signal\":"
    });
    w.or_null(actor.signal, Writer::number);
    w.raw(",\"exit_status\":");
    w.or_null(actor.exit_status, Writer::number);
    w.raw(if actor.oom {
        ",\"oom\":true,\"kernel_thread\":"
    } else {
        ",\"oom\":false,\"kernel_thread\":"
    });
    w.raw(if actor.kernel_thread {
        "true}"
    } else {
        "false}"
    });
}

fn peer(w: &mut Writer, peer: &Peer) {
    w.raw("{\"owner\":");
    w.or_null(peer.owner.as_ref(), owner);
    w.raw(",\"actor\":");
    w.or_null(peer.actor.as_ref(), actor);
    w.raw(",\"cause\":");
    w.name(Some(peer.cause));
    w.raw("}");
}

fn evidence(w: &mut Writer, verdict: &Verdict) {
    for (i, fact) in verdict.facts.iter().enumerate() {
        w.raw(if i > 0 { ",\"" } else { "\"" });
        fact.tell(w);
        w.raw("\"");
    }
}

/// Whether the evidence is often the same.
fn repeats(verdict: &Verdict) -> bool {
    verdict.facts.iter().all(Fact::repeats)
}

/// All that the common parts of a line depend on.
#[derive(Debug)]
pub struct Kind {
    direction: Direction,
    ipv4: bool,
    state: Option<TcpState>,
    reason: Option<Reason>,
    owner: Option<Owner>,
    actor: Option<Actor>,
    netns: Option<u32>,
    netns_name: Option<Rc<str>>,
    place: Option<Rc<Place>>,
    /// Of a segment its flags.
    segment: Option<TcpFlags>,
    /// Of a socket whether it is the kernel's own.
    socket: Option<bool>,
    peer: Option<Peer>,
    id: CauseId,
    confidence: Confidence,
    /// The evidence, when it [`repeats`].
    facts: Option<ArrayVec<Fact, MAX_FACTS>>,
}

impl Kind {
    /// That of the line of an event.
    pub fn of(event: &Event, verdict: &Verdict) -> Self {
        Self {
            direction: event.direction,
            ipv4: event.is_ipv4(),
            state: event.state,
            reason: event.reason,
            owner: event.owner.clone(),
            actor: event.actor.clone(),
            netns: event.netns,
            netns_name: event.netns_name.clone(),
            place: event.place.clone(),
            segment: event.segment.map(|segment| segment.flags),
            socket: event.socket.as_ref().map(|socket| socket.kernel_owned),
            peer: event.peer.as_deref().cloned(),
            id: verdict.id,
            confidence: verdict.confidence,
            facts: repeats(verdict).then(|| verdict.facts.clone()),
        }
    }

    /// Whether it is the same as [`Kind::of`] them.
    pub fn is_of(&self, event: &Event, verdict: &Verdict) -> bool {
        let Self {
            direction,
            ipv4,
            state,
            reason,
            owner,
            actor,
            netns,
            netns_name,
            place,
            segment,
            socket,
            peer,
            id,
            confidence,
            facts,
        } = self;
        *direction == event.direction
            && *id == verdict.id
            && *confidence == verdict.confidence
            && *state == event.state
            && *netns == event.netns
            && *ipv4 == event.is_ipv4()
            && *segment == event.segment.as_ref().map(|segment| segment.flags)
            && *socket == event.socket.as_ref().map(|socket| socket.kernel_owned)
            && *reason == event.reason
            && *owner == event.owner
            && *actor == event.actor
            && *netns_name == event.netns_name
            && *place == event.place
            && peer.as_ref() == event.peer.as_deref()
            && match facts {
                Some(facts) => *facts == verdict.facts,
                None => !repeats(verdict),
            }
    }

    /// A number that seldom another kind has of those that come in turn: the same process may hold both ends, in the same
    /// state, and a reset between them is sent and received.
    pub fn mark(event: &Event, verdict: &Verdict) -> u32 {
        let pid = |owner: Option<&Owner>| owner.map_or(0, |owner| owner.process.pid);
        let state = event.state.map_or(0, |state| state as u32);
        let peer = (event.peer.as_deref()).map_or(0, |peer| pid(peer.owner.as_ref()));
        pid(event.owner.as_ref())
            ^ peer.rotate_left(8)
            ^ state << 22
            ^ (event.direction as u32) << 26
            ^ (verdict.id as u32) << 27
            ^ event.netns.unwrap_or(0).rotate_left(16)
    }
}

/// What the parts of a line depend on that lines of a kind do not have in common.
#[derive(Debug)]
pub struct Values {
    local: Endpoint,
    remote: Endpoint,
    segment: Option<Segment>,
    socket: Option<Socket>,
}

impl Values {
    /// Those of an event.
    pub const fn of(event: &Event) -> Self {
        Self {
            local: event.local,
            remote: event.remote,
            segment: event.segment,
            socket: event.socket,
        }
    }
}
