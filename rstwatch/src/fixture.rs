//! Events and kernels that the tests of several stages begin with.

pub(crate) mod any;

use std::{net::IpAddr, rc::Rc};

use crate::{
    cause::{Abilities, Reasons},
    event::{
        Actor, Comm, Context, Direction, Endpoint, Event, Owner, Path, Place, Process, Reason,
        Segment, Socket, TcpFlags, TcpState, Trigger, Via,
    },
    owner::place,
};

/// What a kernel tells that names every reason and has every tracepoint.
pub(crate) const NEW: Abilities = Abilities {
    reasons: Reasons::All,
    without_socket: true,
};

/// What one tells that names no reason, nor a reset without a full socket.
pub(crate) const OLD: Abilities = Abilities {
    reasons: Reasons::None,
    without_socket: false,
};

/// 2026-11-20T21:00:00.123456789Z.
pub(crate) const TIME_NS: u64 = 1_795_208_400_123_456_789;

pub(crate) fn endpoint(addr: &str, port: u16) -> Endpoint {
    Endpoint {
        addr: addr.parse::<IpAddr>().expect("an address"),
        port,
    }
}

pub(crate) fn segment(flags: u8, payload: u32) -> Segment {
    Segment {
        flags: TcpFlags(flags),
        seq: 1,
        ack: 2,
        payload,
        window: 502,
        ttl: 64,
    }
}

pub(crate) fn process(pid: u32, comm: &str) -> Process {
    Process {
        pid,
        start_ns: Some(1),
        comm: Comm::from_text(comm.as_bytes()),
        uid: Some(33),
        exe: Some(Rc::from(format!("/usr/sbin/{comm}"))),
    }
}

pub(crate) fn owner(pid: u32, comm: &str, via: Via) -> Owner {
    Owner {
        process: process(pid, comm),
        via,
        holders: Vec::new(),
    }
}

pub(crate) fn actor(pid: u32, comm: &str) -> Actor {
    Actor {
        process: process(pid, comm),
        tid: pid + 3,
        exiting: false,
        signal: None,
        exit_status: None,
        oom: false,
        kernel_thread: false,
    }
}

/// A container of a Kubernetes pod.
pub(crate) fn pod() -> Place {
    place::from_path(
        "/kubepods.slice/kubepods-pod12fdc709_933e_41d0_917f_cd84de9afa94.slice/cri-containerd-\
         0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
    )
}

/// A SYN for a port where nobody listens.
pub(crate) fn closed_port() -> Event {
    Event {
        netns: Some(4_026_531_840),
        reason: Some(Reason::NoSocket),
        segment: Some(segment(TcpFlags::SYN, 0)),
        ..Event::new(
            TIME_NS,
            Direction::Sent,
            Trigger::Segment,
            endpoint("10.0.0.5", 8080),
            endpoint("10.0.0.9", 51234),
        )
    }
}

/// nginx closes with 64 bytes unread.
pub(crate) fn unread() -> Event {
    Event {
        state: Some(TcpState::Established),
        reason: Some(Reason::AbortOnClose),
        trigger: Trigger::Active {
            path: Path::Close,
            context: Context::Process,
        },
        segment: None,
        socket: Some(Socket {
            age_ns: Some(12_300_000_000),
            idle_rx_ns: Some(200_000_000),
            idle_tx_ns: Some(100_000_000),
            idle_ack_ns: Some(100_000_000),
            bytes_sent: 100,
            bytes_received: 200,
            unread: 64,
            rcv_shutdown: true,
            send_shutdown: true,
            held: true,
            inode: 4711,
            ..Socket::default()
        }),
        owner: Some(owner(812, "nginx", Via::Close)),
        actor: Some(actor(812, "nginx")),
        place: Some(Rc::new(Place {
            cgroup: Some(Rc::from("/system.slice/nginx.service")),
            unit: Some(Rc::from("nginx.service")),
            ..Place::default()
        })),
        ..closed_port()
    }
}

/// curl's connection is reset by its peer in `state`.
pub(crate) fn received(state: TcpState) -> Event {
    Event {
        direction: Direction::Received,
        local: endpoint("10.0.0.5", 40000),
        remote: endpoint("10.0.0.9", 443),
        state: Some(state),
        reason: None,
        trigger: Trigger::Received,
        segment: None,
        socket: Some(Socket {
            age_ns: Some(1_500_000),
            held: true,
            ..Socket::default()
        }),
        owner: Some(owner(4242, "curl", Via::Connect)),
        ..closed_port()
    }
}
