//! What a reset's processes and sockets tell about where they live: the executable and the place of
//! a process, from `/proc` while it lives; the place of a socket, from its cgroup, when the process
//! has gone or is not known; the name of the network namespace.
//!
//! All is read once and kept, so that a storm costs a look into a table for each event, and so that
//! it is still known when the process has died.

use std::{fs, os::unix::ffi::OsStrExt, rc::Rc};

use super::{cgroup::Cgroups, namespace::Names, place, procfs, recent::Recent};
use crate::event::{Escaped, Event, Place, Process};

/// Processes in a generation of those that are remembered.
const GENERATION: usize = 4_096;

/// `PF_EXITING` (`include/linux/sched.h`), the same on every version.
const EXITING: u32 = 0x4;

/// What is known of one process; nothing when it was gone.
#[derive(Clone, Debug, Default)]
struct Details {
    exe: Option<Rc<str>>,
    place: Option<Rc<Place>>,
}

/// What tells a process from all others: PID and start.
type Key = (u32, Option<u64>);

/// Remembers processes, cgroups and network namespaces.
#[derive(Debug)]
pub struct ProcessDetails {
    known: Recent<Key, Details>,
    /// The last one again: in a storm it is often the same process.
    last: Option<(Key, Details)>,
    cgroups: Cgroups,
    namespaces: Names,
}

impl ProcessDetails {
    /// Begins to watch which cgroups come and go.
    pub fn watch() -> Self {
        Self::new(Cgroups::watch())
    }

    fn new(cgroups: Cgroups) -> Self {
        Self {
            known: Recent::new(GENERATION),
            last: None,
            cgroups,
            namespaces: Names::read(),
        }
    }

    /// Reads what is not known yet of an event's processes: as early as can be, since they may be
    /// gone when the event is complete.
    pub fn learn(&mut self, event: &Event) {
        let owner = event.owner.as_ref().map(|owner| &owner.process);
        let actor = event.actor.as_ref().map(|actor| &actor.process);
        for process in owner.into_iter().chain(actor) {
            self.of(process);
        }
    }

    /// Adds to an event its place, the name of its network namespace, and its processes'
    /// executables.
    pub fn complete(&mut self, event: &mut Event) {
        let mut place = None;
        if let Some(owner) = &mut event.owner {
            let details = self.of(&owner.process);
            owner.process.exe.clone_from(&details.exe);
            place.clone_from(&details.place);
        }
        if let Some(actor) = &mut event.actor {
            let process = &mut actor.process;
            process.exe = match &event.owner {
                // Whoever resets its own connection need not be looked up again.
                Some(owner)
                    if (owner.process.pid, owner.process.start_ns)
                        == (process.pid, process.start_ns) =>
                {
                    owner.process.exe.clone()
                }
                _ => self.of(process).exe.clone(),
            };
        }
        event.place = match (place, &event.socket) {
            (None, Some(socket)) if socket.cgroup != 0 && !socket.kernel_owned => {
                self.cgroups.place(socket.cgroup)
            }
            (place, _) => place,
        };
        if let Some(netns) = event.netns {
            event.netns_name = self
                .namespaces
                .name(netns, event.place.as_deref(), event.time_ns);
        }
    }

    fn of(&mut self, process: &Process) -> &Details {
        let key = (process.pid, process.start_ns);
        let last = self.last.take().filter(|(last, _)| *last == key);
        let (_, details) = self.last.insert(last.unwrap_or_else(|| {
            let details = self.known.get(&key).unwrap_or_else(|| {
                let details = read(process);
                self.known.insert(key, details.clone());
                details
            });
            (key, details)
        }));
        details
    }
}

/// Reads the details, and only then checks that the PID is still the process's: another that got
/// the PID meanwhile must not lend it its name.
fn read(process: &Process) -> Details {
    let pid = process.pid;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .map(|path| Rc::from(Escaped(path.as_os_str().as_bytes()).to_string()));
    let place = fs::read(format!("/proc/{pid}/cgroup"))
        .ok()
        .map(|text| place::from_proc_cgroup(&String::from_utf8_lossy(&text)))
        // A process that exits is shown at the root of each old hierarchy, wherever it lived.
        .filter(|place| place.cgroup.as_deref() != Some("/") || !is_exiting(pid))
        .map(Rc::new);
    let unchanged = procfs::read_process(pid).is_some_and(|now| now.is_same(process));
    if unchanged {
        Details { exe, place }
    } else {
        Details::default()
    }
}

fn is_exiting(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| parse_exiting(&stat) == Some(true))
}

/// Whether the flags in `/proc/PID/stat` say so: the ninth field, the seventh behind the name.
fn parse_exiting(stat: &[u8]) -> Option<bool> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let flags: u32 = rest.split_ascii_whitespace().nth(9 - 3)?.parse().ok()?;
    Some(flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{
        event::{Socket, Via},
        fixture,
    };

    fn details() -> ProcessDetails {
        ProcessDetails::new(Cgroups::none())
    }

    #[test]
    fn a_living_process_has_an_executable_and_a_reused_pid_has_none() {
        let mine = procfs::read_process(std::process::id()).unwrap();
        let mut details = details();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(details.of(&mine).exe.as_deref(), exe.to_str());
        assert!(details.of(&mine).place.is_some());
        let mut other = mine;
        other.start_ns = Some(1);
        assert_eq!(details.of(&other).exe, None);
        assert!(details.of(&other).place.is_none());
    }

    #[test]
    fn what_was_known_of_a_process_is_known_after_its_death() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = procfs::read_process(child.id()).unwrap();
        let mut event = fixture::unread();
        event.owner = Some(fixture::owner(process.pid, "sleep", Via::Close));
        event.owner.as_mut().unwrap().process = process.clone();
        event.actor = Some(fixture::actor(process.pid, "sleep"));
        event.actor.as_mut().unwrap().process = process;
        let mut details = details();
        details.complete(&mut event);
        let before = event.clone();
        assert!(before.place.is_some());
        assert_eq!(
            before.actor.as_ref().unwrap().process.exe,
            before.owner.as_ref().unwrap().process.exe
        );
        child.kill().unwrap();
        child.wait().unwrap();
        event.place = None;
        details.complete(&mut event);
        assert_eq!(event, before);
    }

    #[test]
    fn a_place_is_not_kept_from_an_event_before() {
        let mut event = fixture::unread();
        event.socket = Some(Socket::default());
        event.owner = None;
        details().complete(&mut event);
        assert_eq!(event.place, None);
    }

    #[test]
    fn the_flags_tell_who_exits() {
        let stat = |flags| format!("812 (a) (b c) R 1 812 812 0 -1 {flags} 1 2 3").into_bytes();
        assert_eq!(parse_exiting(&stat(0x0040_0000)), Some(false));
        assert_eq!(parse_exiting(&stat(0x0040_0004)), Some(true));
        assert_eq!(parse_exiting(b"812 (cut) R"), None);
        assert_eq!(parse_exiting(b""), None);
    }
}
