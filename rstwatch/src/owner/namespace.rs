//! Names of network namespaces: `ip netns`'s, else that of the pod or the container whose
//! processes live there.
//!
//! The kernel uses a namespace's inode number again as soon as it is free. So a name is held
//! together with a witness that shows that it still holds, and is checked each second in which an
//! event needs it, and sooner when the event itself comes from another container.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use foldhash::fast::RandomState;

use super::place;
use crate::{event::Place, netns};

/// How long a name is believed, and between two listings of all namespaces, in nanoseconds.
const CHECK_NS: u64 = 1_000_000_000;

/// How long a name is believed that the event's own container contradicts, which may be in another
/// one's namespace, or in one that has got its number. No namespace goes and comes as fast.
const DOUBT_NS: u64 = 10_000_000;

/// Digits of a container's id that usually tell it from others, and that its runtime prints.
const SHORT_ID: usize = 12;

/// What is known of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: Option<Rc<str>>,
    /// Refers to the namespace as long as it is this one: `/run/netns/NAME`, `/proc/PID/ns/net`.
    witness: PathBuf,
    checked_ns: u64,
}

/// A namespace's inode number, its name where it has one, and a witness.
type Listed = (u32, Option<Rc<str>>, PathBuf);

/// What the names depend on.
trait System {
    /// The namespaces that there are.
    fn list(&self) -> Vec<Listed>;
    /// The namespace that a witness refers to.
    fn inode(&self, witness: &Path) -> Option<u32>;
}

/// Names by inode number.
#[derive(Debug)]
pub struct Names {
    names: Memory<Live>,
    host: Option<u32>,
}

impl Names {
    /// Reads which namespace is the host's; the others are listed when a name is asked for.
    pub fn read() -> Self {
        let host = host();
        Self {
            names: Memory::new(Live { host }),
            host,
        }
    }

    /// The name of the namespace with this inode number, at `now_ns` of any clock. `place` is where
    /// one lives that has a socket there: it names a namespace that has gone before it was seen.
    pub fn name(&mut self, netns: u32, place: Option<&Place>, now_ns: u64) -> Option<Rc<str>> {
        let own = place
            .filter(|_| self.host != Some(netns))
            .and_then(of_place);
        self.names.name(netns, own, now_ns)
    }
}

#[derive(Debug)]
struct Memory<S> {
    system: S,
    known: HashMap<u32, Named, RandomState>,
    listed_ns: u64,
    /// The last one that was asked for: in a storm it is often the same.
    last: Option<Last>,
}

/// What was known of a namespace when it was asked for.
#[derive(Debug)]
struct Last {
    netns: u32,
    name: Option<Rc<str>>,
    checked_ns: u64,
}

impl<S: System> Memory<S> {
    fn new(system: S) -> Self {
        Self {
            system,
            known: HashMap::default(),
            listed_ns: 0,
            last: None,
        }
    }

    /// The name of `netns`. `own` is what a container that has a socket there would call it.
    fn name(&mut self, netns: u32, own: Option<&str>, now_ns: u64) -> Option<Rc<str>> {
        if let Some(last) = &self.last
            && last.netns == netns
            && now_ns.abs_diff(last.checked_ns) < CHECK_NS
            && (own.is_none() || own == last.name.as_deref())
        {
            return last.name.clone();
        }
        let name = self.look_up(netns, own, now_ns);
        self.last = self.known.get(&netns).map(|named| Last {
            netns,
            name: name.clone(),
            checked_ns: named.checked_ns,
        });
        name
    }

    fn look_up(&mut self, netns: u32, own: Option<&str>, now_ns: u64) -> Option<Rc<str>> {
        let mut has_gone = false;
        if let Some(named) = self.known.get_mut(&netns) {
            if let (None, Some(own)) = (&named.name, own) {
                // Newer than the list, or gone before it.
                named.name = Some(Rc::from(own));
                return named.name.clone();
            }
            let is_doubtful = own.is_some() && named.name.as_deref() != own;
            let believed_ns = if is_doubtful { DOUBT_NS } else { CHECK_NS };
            // The other way round as well: a wall clock may have been set back.
            if now_ns.abs_diff(named.checked_ns) < believed_ns {
                return named.name.clone();
            }
            if self.system.inode(&named.witness) == Some(netns) {
                named.checked_ns = now_ns;
                return named.name.clone();
            }
            has_gone = is_doubtful;
        }
        if has_gone {
            self.known.remove(&netns);
        }
        if now_ns.abs_diff(self.listed_ns) >= CHECK_NS {
            self.list(now_ns);
        }
        // A namespace without a witness has gone, and what is told of it comes late: its name
        // stays until another has its number.
        let named = self.known.entry(netns).or_insert_with(|| Named {
            name: None,
            witness: PathBuf::new(),
            checked_ns: now_ns,
        });
        if let (None, Some(own)) = (&named.name, own) {
            named.name = Some(Rc::from(own));
        }
        named.name.clone()
    }

    fn list(&mut self, now_ns: u64) {
        self.listed_ns = now_ns;
        let listed = self.system.list();
        // The kernel bounds how many namespaces there are; those that have gone would add up.
        if self.known.len() > 2 * listed.len().max(1_024) {
            self.known.clear();
        }
        for (netns, name, witness) in listed {
            self.known.insert(
                netns,
                Named {
                    name,
                    witness,
                    checked_ns: now_ns,
                },
            );
        }
    }
}

/// The running system.
#[derive(Clone, Copy, Debug)]
struct Live {
    host: Option<u32>,
}

impl System for Live {
    /// `ip netns`'s come first; the host's own, which containers may share, has no other name.
    fn list(&self) -> Vec<Listed> {
        let mut found: HashMap<u32, (Option<Rc<str>>, PathBuf)> = HashMap::new();
        for (name, witness, netns) in netns::named() {
            found.insert(netns, (Some(Rc::from(name)), witness));
        }
        for process in netns::processes() {
            let witness = process.join("ns/net");
            let Ok(netns) = netns::inode_of(&witness) else {
                continue;
            };
            // Any process shows that the namespace is there; one in a container gives the name.
            let is_new = match found.get(&netns) {
                None => true,
                Some((None, _)) if self.host != Some(netns) => false,
                Some(_) => continue,
            };
            let name = if self.host == Some(netns) {
                None
            } else {
                fs::read(process.join("cgroup"))
                    .ok()
                    .map(|text| place::from_proc_cgroup(&String::from_utf8_lossy(&text)))
                    .and_then(|place| of_place(&place).map(Rc::from))
            };
            if is_new || name.is_some() {
                found.insert(netns, (name, witness));
            }
        }
        found
            .into_iter()
            .map(|(netns, (name, witness))| (netns, name, witness))
            .collect()
    }

    fn inode(&self, witness: &Path) -> Option<u32> {
        netns::inode_of(witness).ok()
    }
}

/// The name that a place gives to a network namespace of its own: a pod's containers share one.
fn of_place(place: &Place) -> Option<&str> {
    let container = || place.container.as_deref().map(short_id);
    place.pod.as_deref().or_else(container)
}

/// The first digits of a container's id; a name as it stands.
pub fn short_id(container: &str) -> &str {
    match container.get(..SHORT_ID) {
        Some(short) if container.bytes().all(|byte| byte.is_ascii_hexdigit()) => short,
        _ => container,
    }
}

/// The host's own namespace, which containers may share without giving it their names: that of the
/// first process, or, where that may not be looked at, this one's.
fn host() -> Option<u32> {
    ["/proc/1/ns/net", "/proc/self/ns/net"]
        .into_iter()
        .find_map(|path| netns::inode_of(Path::new(path)).ok())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Namespaces as a test sets them, and how often they were asked for.
    #[derive(Debug, Default)]
    struct Fake {
        there: RefCell<Vec<Listed>>,
        lists: Cell<u32>,
        checks: Cell<u32>,
    }

    impl Fake {
        fn set(&self, there: &[(u32, Option<&str>)]) {
            *self.there.borrow_mut() = there
                .iter()
                .enumerate()
                .map(|(i, (netns, name))| {
                    let witness = name.map_or_else(|| i.to_string(), str::to_owned);
                    (*netns, name.map(Rc::from), PathBuf::from(witness))
                })
                .collect();
        }
    }

    impl System for Fake {
        fn list(&self) -> Vec<Listed> {
            self.lists.set(self.lists.get() + 1);
            self.there.borrow().clone()
        }

        fn inode(&self, witness: &Path) -> Option<u32> {
            self.checks.set(self.checks.get() + 1);
            let there = self.there.borrow();
            let (netns, ..) = there.iter().find(|(.., path)| path == witness)?;
            Some(*netns)
        }
    }

    fn memory(there: &[(u32, Option<&str>)]) -> Memory<Fake> {
        let fake = Fake::default();
        fake.set(there);
        Memory::new(fake)
    }

    const START: u64 = 1_000 * CHECK_NS;

    #[test]
    fn a_storm_asks_once_a_second() {
        let mut memory = memory(&[(1, None), (2, Some("web"))]);
        for _ in 0..1_000 {
            assert_eq!(memory.name(2, None, START).as_deref(), Some("web"));
            assert_eq!(memory.name(1, None, START), None);
            assert_eq!(memory.name(3, None, START), None);
        }
        assert_eq!(memory.system.lists.get(), 1);
        assert_eq!(memory.system.checks.get(), 0);
        for _ in 0..1_000 {
            assert_eq!(
                memory.name(2, None, START + CHECK_NS).as_deref(),
                Some("web")
            );
        }
        assert_eq!(memory.system.lists.get(), 1);
        assert_eq!(memory.system.checks.get(), 1);
    }

    #[test]
    fn a_number_that_is_used_again_does_not_keep_its_name() {
        let mut memory = memory(&[(2, Some("web"))]);
        assert_eq!(memory.name(2, None, START).as_deref(), Some("web"));
        memory.system.set(&[(2, Some("db"))]);
        assert_eq!(
            memory.name(2, None, START + CHECK_NS).as_deref(),
            Some("db")
        );
        memory.system.set(&[(2, None)]);
        assert_eq!(memory.name(2, None, START + 2 * CHECK_NS), None);
    }

    #[test]
    fn a_container_that_has_got_the_number_of_another_is_not_called_by_its_name() {
        let mut memory = memory(&[(2, Some("web"))]);
        let soon = START + DOUBT_NS;
        assert_eq!(memory.name(2, None, START).as_deref(), Some("web"));
        // One that shares the other's namespace.
        let shared = memory.name(2, Some("db"), soon);
        assert_eq!(shared.as_deref(), Some("web"));
        memory.system.set(&[(2, None)]);
        let reused = memory.name(2, Some("db"), soon + DOUBT_NS);
        assert_eq!(reused.as_deref(), Some("db"));
        for _ in 0..1_000 {
            memory.name(2, Some("db"), soon + DOUBT_NS);
        }
        assert_eq!(
            (memory.system.lists.get(), memory.system.checks.get()),
            (1, 2)
        );
    }

    #[test]
    fn an_unnamed_namespace_gets_the_name_of_a_container_that_lives_there() {
        let mut memory = memory(&[(2, None)]);
        for (netns, own) in [(2, "db"), (3, "gone")] {
            assert_eq!(memory.name(netns, None, START), None);
            for own in [Some(own), None] {
                let name = memory.name(netns, own, START);
                assert_eq!(
                    name.as_deref(),
                    Some(if netns == 2 { "db" } else { "gone" })
                );
            }
        }
    }

    #[test]
    fn a_namespace_that_has_gone_keeps_its_name() {
        let mut memory = memory(&[(2, Some("web"))]);
        assert_eq!(memory.name(2, None, START).as_deref(), Some("web"));
        memory.system.set(&[]);
        for second in 1..5 {
            let now = START + second * CHECK_NS;
            assert_eq!(memory.name(2, None, now).as_deref(), Some("web"));
        }
    }

    #[test]
    fn what_has_gone_does_not_add_up() {
        let mut memory = memory(&[]);
        for second in 0..10_u32 {
            let first = second * 1_000;
            let there: Vec<_> = (first..first + 1_000).map(|netns| (netns, None)).collect();
            memory.system.set(&there);
            memory.name(first, None, START + u64::from(second) * CHECK_NS);
        }
        assert!(memory.known.len() <= 3_048, "{}", memory.known.len());
    }

    #[test]
    fn a_pod_names_the_namespace_that_its_containers_share() {
        let id = "0123456789abcdef".repeat(4);
        let mut place = Place {
            container: Some(Rc::from(&*id)),
            ..Place::default()
        };
        assert_eq!(of_place(&place), Some("0123456789ab"));
        place.pod = Some(Rc::from("12fdc709-933e-41d0-917f-cd84de9afa94"));
        assert_eq!(of_place(&place), place.pod.as_deref());
        assert_eq!(of_place(&Place::default()), None);
        assert_eq!(short_id("web"), "web");
        assert_eq!(short_id("a-name-that-is-long"), "a-name-that-is-long");
    }

    #[test]
    fn a_container_names_a_namespace_that_was_never_listed_but_not_the_hosts() {
        let host = host().unwrap();
        let container = Place {
            container: Some(Rc::from("web")),
            ..Place::default()
        };
        let mut names = Names::read();
        let shared = netns::names().remove(&host);
        let name = names.name(host, Some(&container), START);
        assert_eq!(name.as_deref(), shared.as_deref());
        let name = names.name(1, Some(&container), START);
        assert_eq!(name.as_deref(), Some("web"));
    }
}
