//! What `/proc` adds to a known process while it lives: its executable and its place. Read once a
//! process, so that a storm costs one lookup.

use std::{collections::HashMap, fs, os::unix::ffi::OsStrExt, sync::Arc};

use crate::{
    event::{Escaped, Event, Place, Process},
    owner::{place, procfs},
};

/// Processes whose details are kept. When they are too many, all are forgotten: which costs a
/// reading each, and needs no bookkeeping on the way of an event.
const MOST_KNOWN: usize = 4_096;

/// What is known of one process; all `None` when it was gone.
#[derive(Clone, Debug, Default)]
struct Details {
    exe: Option<Arc<str>>,
    place: Option<Arc<Place>>,
}

/// Remembers the details of processes.
#[derive(Debug, Default)]
pub struct ProcessDetails {
    known: HashMap<(u32, Option<u64>), Details>,
}

impl ProcessDetails {
    /// Adds executable and place to an event's owner, and the executable to its actor.
    pub fn complete(&mut self, event: &mut Event) {
        if let Some(owner) = &mut event.owner {
            let details = self.of(&owner.process);
            owner.process.exe.clone_from(&details.exe);
            event.place.clone_from(&details.place);
        }
        if let Some(actor) = &mut event.actor {
            actor.process.exe.clone_from(&self.of(&actor.process).exe);
        }
    }

    fn of(&mut self, process: &Process) -> &Details {
        let key = (process.pid, process.start_ns);
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&key) {
            self.known.clear();
        }
        self.known.entry(key).or_insert_with(|| read(process))
    }
}

/// Reads the details, and only then checks that the PID is still the process's: another that got
/// the PID meanwhile must not lend it its name.
fn read(process: &Process) -> Details {
    let pid = process.pid;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .map(|path| Arc::from(Escaped(path.as_os_str().as_bytes()).to_string()));
    let place = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .ok()
        .map(|text| Arc::new(place::from_proc_cgroup(&text)));
    let unchanged = procfs::read_process(pid).is_some_and(|now| procfs::is_same(&now, process));
    if unchanged {
        Details { exe, place }
    } else {
        Details::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_an_executable_and_a_reused_pid_has_none() {
        let mine = procfs::read_process(std::process::id()).unwrap();
        let mut details = ProcessDetails::default();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(details.of(&mine).exe.as_deref(), exe.to_str());
        assert!(details.of(&mine).place.is_some());
        let mut other = mine;
        other.start_ns = Some(1);
        assert_eq!(details.of(&other).exe, None);
    }
}
