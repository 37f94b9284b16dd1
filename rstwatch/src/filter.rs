//! Which events are shown.
//!
//! A pure predicate over an event and its verdict. Where the options come from is the command
//! line's business; what is not shown is counted all the same, by whoever asks.

use std::sync::Arc;

use ipnet::IpNet;
use rstwatch_common::filter::{self, KernelFilter};

use crate::{
    cause::{CauseId, Verdict},
    event::{Comm, Direction, Event, Place, Process},
};

/// What to show. Values of one field are alternatives, and each field that has any must agree; so
/// the default shows everything. What is not known of an event matches no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Process ids of the owner, of any holder of the socket, or of the actor.
    pub pids: Vec<u32>,
    /// Names of the owner or the actor.
    pub comms: Vec<CommPattern>,
    /// Ports of this host's end.
    pub local_ports: Vec<u16>,
    /// Ports of the other end.
    pub remote_ports: Vec<u16>,
    /// Address families; IPv4-mapped IPv6 is IPv4.
    pub families: Vec<Family>,
    /// Networks that contain the address of either end.
    pub nets: Vec<IpNet>,
    /// Sent, received.
    pub directions: Vec<Direction>,
    /// Causes.
    pub causes: Vec<CauseId>,
    /// Inode numbers of network namespaces.
    pub netns: Vec<u32>,
    /// Paths of cgroups from the root of the hierarchy, without a slash at the end (the root itself
    /// is empty); cgroups below them match too.
    pub cgroups: Vec<Arc<str>>,
    /// How the ids of containers begin.
    pub containers: Vec<Arc<str>>,
    /// systemd units.
    pub units: Vec<UnitPattern>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A process name, or how one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommPattern {
    /// The name is this.
    Exact(Comm),
    /// The name begins so.
    Prefix(Comm),
}

impl CommPattern {
    /// From what a user writes: a name, or the start of one and `*`. The kernel keeps no more than
    /// 15 bytes of a name, so longer ones are cut alike and still match.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Self::Prefix(Comm::from_text(start.as_bytes())),
            None => Self::Exact(Comm::from_text(text.as_bytes())),
        }
    }

    fn matches(&self, comm: &Comm) -> bool {
        match self {
            Self::Exact(name) => comm == name,
            Self::Prefix(start) => comm.as_bytes().starts_with(start.as_bytes()),
        }
    }
}

/// A systemd unit, or how its name begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitPattern {
    /// The name is this.
    Exact(Arc<str>),
    /// The name begins so.
    Prefix(Arc<str>),
}

impl UnitPattern {
    /// From what a user writes: a name, or the start of one and `*`. As for systemd's own tools, a
    /// name without a unit's suffix is that of a service.
    pub fn new(text: &str) -> Self {
        /// The kinds of units that processes run in.
        const SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
        if let Some(start) = text.strip_suffix('*') {
            Self::Prefix(Arc::from(start))
        } else if SUFFIXES.iter().any(|suffix| text.ends_with(suffix)) {
            Self::Exact(Arc::from(text))
        } else {
            Self::Exact(Arc::from(format!("{text}.service")))
        }
    }

    fn matches(&self, unit: &str) -> bool {
        match self {
            Self::Exact(name) => unit == &**name,
            Self::Prefix(start) => unit.starts_with(&**start),
        }
    }
}

impl Filter {
    /// Whether to show `event`, which has the cause `verdict`.
    pub fn matches(&self, event: &Event, verdict: &Verdict) -> bool {
        let family = if event.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        allows(&self.directions, |d| *d == event.direction)
            && allows(&self.causes, |id| *id == verdict.id)
            && allows(&self.families, |f| *f == family)
            && allows(&self.local_ports, |port| *port == event.local.port)
            && allows(&self.remote_ports, |port| *port == event.remote.port)
            && allows(&self.netns, |inode| Some(*inode) == event.netns)
            && allows(&self.nets, |net| {
                net.contains(&event.local.addr) || net.contains(&event.remote.addr)
            })
            && allows(&self.pids, |pid| {
                processes(event).any(|process| process.pid == *pid)
                    || event
                        .owner
                        .as_ref()
                        .is_some_and(|owner| owner.holders.contains(pid))
            })
            && allows(&self.comms, |pattern| {
                processes(event).any(|process| pattern.matches(&process.comm))
            })
            && allows(&self.cgroups, |above| {
                place(event, |place| place.cgroup.as_deref())
                    .is_some_and(|path| is_below(path, above))
            })
            && allows(&self.containers, |start| {
                place(event, |place| place.container.as_deref())
                    .is_some_and(|id| id.starts_with(&**start))
            })
            && allows(&self.units, |pattern| {
                place(event, |place| place.unit.as_deref())
                    .is_some_and(|unit| pattern.matches(unit))
            })
    }
}

impl Filter {
    /// The part that the BPF programs decide, so that what is not asked for costs next to nothing:
    /// families, ports and addresses, as far as the programs have room for them. It lets pass what
    /// either end of a connection asks for, since a reset between two processes of this host is
    /// told from both ends; and it cannot decide on the direction for the same reason, nor on the
    /// owner, who is often known only later.
    pub fn in_kernel(&self) -> KernelFilter {
        let mut filter = KernelFilter::ALL;
        for family in &self.families {
            filter.families |= match family {
                Family::V4 => filter::IPV4,
                Family::V6 => filter::IPV6,
            };
        }
        filter.locals = fill(&mut filter.local, self.local_ports.iter().copied());
        filter.remotes = fill(&mut filter.remote, self.remote_ports.iter().copied());
        filter.any_local = u32::from(may_be_chosen(&filter.local, filter.locals));
        filter.any_remote = u32::from(may_be_chosen(&filter.remote, filter.remotes));
        filter.nets_len = fill(&mut filter.nets, self.nets.iter().map(net));
        let decides = filter.families != 0 || filter.locals + filter.remotes + filter.nets_len > 0;
        filter.on = u32::from(decides);
        filter
    }
}

/// Whether a port that the kernel chooses may be one of the first `len` of `ports`; when there are none,
/// any may be.
fn may_be_chosen(ports: &[u16], len: u32) -> bool {
    let ports = &ports[..len as usize];
    allows(ports, |port| *port >= filter::LOWEST_CHOSEN_PORT)
}

/// Puts values where they belong when there is room for all of them. Returns how many it put there.
fn fill<T, const N: usize>(to: &mut [T; N], values: impl ExactSizeIterator<Item = T>) -> u32 {
    let len = values.len();
    if len > N {
        return 0;
    }
    for (to, value) in to.iter_mut().zip(values) {
        *to = value;
    }
    len as u32
}

/// A network as the BPF programs compare it.
fn net(net: &IpNet) -> filter::Net {
    let (addr, prefix) = match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped(), 96 + net.prefix_len()),
        IpNet::V6(net) => (net.network(), net.prefix_len()),
    };
    let mask = u128::MAX
        .checked_shl(128 - u32::from(prefix))
        .unwrap_or_default();
    let words = |bytes: [u8; 16]| {
        [0, 4, 8, 12]
            .map(|at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    };
    filter::Net {
        net: words(addr.octets()),
        mask: words(mask.to_be_bytes()),
    }
}

/// Whether no value is asked for, or one of them is met.
fn allows<T>(values: &[T], is_met: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(is_met)
}

/// The processes that an event names.
fn processes(event: &Event) -> impl Iterator<Item = &Process> {
    let owner = event.owner.as_ref().map(|owner| &owner.process);
    let actor = event.actor.as_ref().map(|actor| &actor.process);
    owner.into_iter().chain(actor)
}

/// A part of where the owner lives.
fn place(event: &Event, part: impl Fn(&Place) -> Option<&str>) -> Option<&str> {
    part(event.place.as_deref()?)
}

/// Whether the cgroup `path` is `above` or lies below it. Seen from within a cgroup namespace, what
/// is outside of it begins with `/..`, as often as that lies deep: the rest is its path for others.
fn is_below(mut path: &str, above: &str) -> bool {
    while let Some(rest) = path.strip_prefix("/..")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        path = rest;
    }
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, rc::Rc};

    use super::*;
    use crate::{
        cause::{HostFacts, classify},
        event::TcpState,
        fixture,
    };

    fn shows(filter: &Filter, event: &Event) -> bool {
        filter.matches(event, &classify(event, &HostFacts::default()))
    }

    /// Whether the kernel side, given this filter, would let the connection pass; as it decides.
    fn passes(filter: &KernelFilter, event: &Event) -> bool {
        let words = |addr: IpAddr| {
            let addr = match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                IpAddr::V6(addr) => addr,
            };
            filter::Net {
                net: super::net(&IpNet::from(IpAddr::V6(addr))).net,
                mask: [0; 4],
            }
            .net
        };
        let one_of =
            |len: u32, ports: &[u16], port| len == 0 || ports[..len as usize].contains(&port);
        let ports = |local, remote| {
            one_of(filter.locals, &filter.local, local)
                && one_of(filter.remotes, &filter.remote, remote)
        };
        let contains = |net: &filter::Net, addr| {
            words(addr)
                .iter()
                .zip(net.mask)
                .zip(net.net)
                .all(|((word, mask), net)| word & mask == net)
        };
        let nets = &filter.nets[..filter.nets_len as usize];
        let family = if event.is_ipv4() {
            filter::IPV4
        } else {
            filter::IPV6
        };
        let (local, remote) = (event.local, event.remote);
        filter.on == 0
            || (filter.families == 0 || filter.families & family != 0)
                && (ports(local.port, remote.port) || ports(remote.port, local.port))
                && (nets.is_empty()
                    || nets
                        .iter()
                        .any(|net| contains(net, local.addr) || contains(net, remote.addr)))
    }

    #[test]
    fn the_kernel_lets_pass_all_that_is_shown_and_its_other_end() {
        let event = fixture::closed_port();
        let mut other = event.clone();
        (other.local, other.remote) = (event.remote, event.local);
        let shown = [
            Filter::default(),
            Filter {
                local_ports: vec![event.local.port, 1],
                remote_ports: vec![event.remote.port],
                ..Filter::default()
            },
            Filter {
                families: vec![Family::V4],
                nets: vec![net("10.0.0.0/8"), net("192.0.2.0/24")],
                ..Filter::default()
            },
            // More than there is room for: not decided there.
            Filter {
                local_ports: (1..=10).chain([event.local.port]).collect(),
                ..Filter::default()
            },
        ];
        for filter in shown {
            assert!(shows(&filter, &event), "{filter:?}");
            assert!(passes(&filter.in_kernel(), &event), "{filter:?}");
            assert!(passes(&filter.in_kernel(), &other), "{filter:?}");
        }
        for filter in [
            Filter {
                local_ports: vec![1],
                ..Filter::default()
            },
            Filter {
                families: vec![Family::V6],
                ..Filter::default()
            },
            Filter {
                nets: vec![net("198.51.100.0/25")],
                ..Filter::default()
            },
        ] {
            assert!(!passes(&filter.in_kernel(), &event), "{filter:?}");
        }
        let direction = Filter {
            directions: vec![Direction::Sent],
            ..Filter::default()
        };
        assert_eq!(direction.in_kernel(), KernelFilter::ALL);
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    /// An IPv6 event of nginx, whose socket a second process holds.
    fn ipv6() -> Event {
        let mut event = fixture::unread();
        event.local = fixture::endpoint("2001:db8::5", 8080);
        event.remote = fixture::endpoint("2001:db8:1::9", 51234);
        event.owner.as_mut().expect("an owner").holders = vec![812, 813];
        let place = Rc::make_mut(event.place.as_mut().expect("a place"));
        place.container = Some(Rc::from("0123456789ab"));
        event
    }

    #[test]
    fn a_chosen_port_may_be_one_that_is_asked_for_unless_all_are_lower() {
        let cases: [(&[u16], u32); 5] = [
            (&[], 1),
            (&[443], 0),
            (&[22, 1023], 0),
            (&[22, 1024], 1),
            // More than the kernel side compares: it lets every port pass.
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9], 1),
        ];
        for (ports, any) in cases {
            let local = Filter {
                local_ports: ports.to_vec(),
                ..Filter::default()
            };
            let remote = Filter {
                remote_ports: ports.to_vec(),
                ..Filter::default()
            };
            let (local, remote) = (local.in_kernel(), remote.in_kernel());
            assert_eq!((local.any_local, local.any_remote), (any, 1), "{ports:?}");
            assert_eq!((remote.any_local, remote.any_remote), (1, any), "{ports:?}");
        }
    }

    #[test]
    fn no_option_shows_everything() {
        let all = Filter::default();
        assert!(shows(&all, &fixture::closed_port()));
        assert!(shows(&all, &fixture::unread()));
        assert!(shows(&all, &fixture::received(TcpState::SynSent)));
    }

    /// Each option alone: whether it shows nginx's IPv6 event, and the closed port, which has no
    /// owner.
    #[test]
    fn each_option_selects() {
        let none = Filter::default;
        let pids = |pids: &[u32]| Filter {
            pids: pids.to_vec(),
            ..none()
        };
        let comm = |text| Filter {
            comms: vec![CommPattern::new(text)],
            ..none()
        };
        let local = |port| Filter {
            local_ports: vec![port],
            ..none()
        };
        let remote = |port| Filter {
            remote_ports: vec![port],
            ..none()
        };
        let family = |family| Filter {
            families: vec![family],
            ..none()
        };
        let addr = |text| Filter {
            nets: vec![net(text)],
            ..none()
        };
        let direction = |direction| Filter {
            directions: vec![direction],
            ..none()
        };
        let cause = |id| Filter {
            causes: vec![id],
            ..none()
        };
        let netns = |inode| Filter {
            netns: vec![inode],
            ..none()
        };
        let cgroup = |path: &str| Filter {
            cgroups: vec![Arc::from(path)],
            ..none()
        };
        let container = |start: &str| Filter {
            containers: vec![Arc::from(start)],
            ..none()
        };
        let unit = |text| Filter {
            units: vec![UnitPattern::new(text)],
            ..none()
        };
        let cases = [
            (container("0123"), true, false),
            (container("123"), false, false),
            (unit("nginx"), true, false),
            (unit("nginx.service"), true, false),
            (unit("nginx.scope"), false, false),
            (unit("ngin"), false, false),
            (unit("ngin*"), true, false),
            (unit("*"), true, false),
            (unit("nginx.service*"), true, false),
            (pids(&[812]), true, false),
            (pids(&[813]), true, false),
            (pids(&[1]), false, false),
            (pids(&[1, 812]), true, false),
            (comm("nginx"), true, false),
            (comm("ngin"), false, false),
            (comm("ngin*"), true, false),
            (comm("*"), true, false),
            (comm("nginx2"), false, false),
            (local(8080), true, true),
            (local(51234), false, false),
            (remote(51234), true, true),
            (remote(8080), false, false),
            (family(Family::V4), false, true),
            (family(Family::V6), true, false),
            (addr("10.0.0.5/32"), false, true),
            (addr("10.0.0.9/32"), false, true),
            (addr("10.0.1.0/24"), false, false),
            (addr("2001:db8:1::/48"), true, false),
            (addr("::/0"), true, false),
            (addr("0.0.0.0/0"), false, true),
            (direction(Direction::Sent), true, true),
            (direction(Direction::Received), false, false),
            (cause(CauseId::ClosedPort), false, true),
            (cause(CauseId::ClosedWithUnreadData), true, false),
            (netns(4_026_531_840), true, true),
            (netns(1), false, false),
            (cgroup("/system.slice"), true, false),
            (cgroup("/system.slice/nginx.service"), true, false),
            (cgroup("/system.sl"), false, false),
            (cgroup("/user.slice"), false, false),
            (cgroup(""), true, false),
        ];
        for (filter, nginx, closed_port) in cases {
            assert_eq!(shows(&filter, &ipv6()), nginx, "nginx: {filter:?}");
            assert_eq!(
                shows(&filter, &fixture::closed_port()),
                closed_port,
                "closed port: {filter:?}"
            );
        }
    }

    #[test]
    fn a_cgroup_is_found_from_within_a_cgroup_namespace() {
        for (path, above, is_there) in [
            ("/../../system.slice/a.service", "/system.slice", true),
            ("/../../system.slice/a.service", "/system", false),
            ("/..", "", true),
            ("/..a/b", "/b", false),
            ("/..a/b", "/..a", true),
        ] {
            assert_eq!(is_below(path, above), is_there, "{path} {above}");
        }
    }

    #[test]
    fn different_options_must_all_agree() {
        let mut filter = Filter {
            pids: vec![812],
            local_ports: vec![80, 8080],
            ..Filter::default()
        };
        assert!(shows(&filter, &fixture::unread()));
        filter.causes = vec![CauseId::Refused];
        assert!(!shows(&filter, &fixture::unread()));
    }

    #[test]
    fn the_actor_counts_as_well_as_the_owner() {
        let mut event = fixture::unread();
        event.actor = Some(fixture::actor(99, "ss"));
        let filter = Filter {
            pids: vec![99],
            comms: vec![CommPattern::new("ss")],
            ..Filter::default()
        };
        assert!(shows(&filter, &event));
    }

    #[test]
    fn an_unknown_namespace_is_none_of_those_asked_for() {
        let mut event = fixture::closed_port();
        event.netns = None;
        let filter = Filter {
            netns: vec![4_026_531_840],
            ..Filter::default()
        };
        assert!(!shows(&filter, &event));
    }

    #[test]
    fn a_long_name_is_cut_as_the_kernel_cuts_it() {
        let mut event = fixture::unread();
        let owner = event.owner.as_mut().expect("an owner");
        owner.process.comm = Comm::from_text(b"a-very-long-program");
        for text in [
            "a-very-long-program",
            "a-very-long-pro",
            "a-very-long-program*",
        ] {
            let filter = Filter {
                comms: vec![CommPattern::new(text)],
                ..Filter::default()
            };
            assert!(shows(&filter, &event), "{text}");
        }
    }
}
