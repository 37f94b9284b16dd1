//! Capabilities: what each is needed for, which are missing, and giving up those that have served.
//!
//! Whether the kernel accepts what they allow is found out by `load`.

use std::{fs, io};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use crate::netns;

/// A capability that rstwatch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// What it is for.
    pub purpose: &'static str,
    /// What is not known without it; `None` when rstwatch cannot work without.
    pub cost: Option<&'static str>,
    /// When it is used.
    pub until: Until,
}

/// For how long a capability is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until every hook is in place.
    Attached,
    /// As long as the counters of the BPF side are read: where the kernel asks for it.
    Counted,
    /// To the end.
    End,
}

/// All that rstwatch uses, in the order in which it should be granted.
pub const NEEDS: [Need; 5] = [
    Need {
        capability: Capability::CAP_BPF,
        purpose: "to load BPF programs",
        cost: None,
        until: Until::Counted,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        purpose: "to let them read kernel memory",
        cost: None,
        until: Until::Attached,
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "to see what other users' processes hold",
        cost: Some(
            "connections that other users' processes accepted, or opened before the start, have no \
             owner, nor have owners an executable or a network namespace",
        ),
        until: Until::End,
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "to look into other users' /proc/PID/fd",
        cost: Some(
            "connections that other users' processes accepted, or opened before the start, have no \
             owner",
        ),
        until: Until::End,
    },
    Need {
        capability: Capability::CAP_SYSLOG,
        purpose: "to read kernel addresses in /proc/kallsyms",
        cost: Some(
            "resets that this host sends of its own accord have no actor, and their causes are less \
             certain",
        ),
        until: Until::Attached,
    },
];

/// The effective capabilities of this thread.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn effective() -> io::Result<CapsHashSet> {
    caps::read(None, CapSet::Effective).map_err(io::Error::other)
}

/// Those of [`NEEDS`] that are not among `held`.
pub fn missing(held: &CapsHashSet) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(|need| !has(held, need.capability))
}

/// Whether `held` allows what `capability` does: `CAP_SYS_ADMIN` includes what was split off it in 5.8
/// (`bpf_capable`, `perfmon_capable`, `include/linux/capability.h`).
fn has(held: &CapsHashSet, capability: Capability) -> bool {
    held.contains(&capability)
        || matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
            && held.contains(&Capability::CAP_SYS_ADMIN)
}

/// Gives up for good all capabilities that are not needed any more, of this thread and those that it
/// starts, and the way to new ones through `execve`. `counts` tells whether the BPF side's counters
/// can be read: kernels before 5.19 ask for `CAP_BPF` when `kernel.unprivileged_bpf_disabled` is set.
///
/// `CAP_SYS_ADMIN`, where there is one, stays only when there is a named network namespace that no
/// process lives in: its counter can be read from within alone.
///
/// # Errors
///
/// When the kernel refuses.
pub fn drop_unneeded(counts: impl Fn() -> bool) -> io::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let mut keep = kept(&permitted, Until::End);
    if permitted.contains(&Capability::CAP_SYS_ADMIN) && netns::has_empty() {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    // Those of the bounding set, which only `execve` looks at, are nobody's business here where
    // CAP_SETPCAP is missing: no new privileges can be had anyway.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::read(None, CapSet::Bounding).map_err(io::Error::other)? {
            if !keep.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
            }
        }
    }
    prctl::set_no_new_privs()?;
    // Kernels before 4.3 have no ambient set, and the inheritable one is used by `execve` only.
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &keep).map_err(io::Error::other)?;
    if !counts() {
        keep.extend(kept(&permitted, Until::Counted));
        caps::set(None, CapSet::Effective, &keep).map_err(io::Error::other)?;
    }
    caps::set(None, CapSet::Permitted, &keep).map_err(io::Error::other)
}

/// What is needed that long, as far as it is there.
fn kept(permitted: &CapsHashSet, until: Until) -> CapsHashSet {
    let mut keep: CapsHashSet = NEEDS
        .iter()
        .filter(|need| need.until == until && permitted.contains(&need.capability))
        .map(|need| need.capability)
        .collect();
    if until == Until::Counted && keep.is_empty() && permitted.contains(&Capability::CAP_SYS_ADMIN)
    {
        // It stands in for CAP_BPF.
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    keep
}

/// Whether this process is in the initial user namespace, the only one whose capabilities count for
/// BPF. `None` when that cannot be told.
pub fn is_initial_user_namespace() -> Option<bool> {
    // The initial one's inode is fixed (`PROC_USER_INIT_INO`, `include/linux/proc_ns.h`).
    let link = fs::read_link("/proc/self/ns/user").ok()?;
    Some(link.to_string_lossy() == "user:[4026531837]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(needs: impl Iterator<Item = &'a Need>) -> Vec<String> {
        needs.map(|need| need.capability.to_string()).collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        let all: CapsHashSet = NEEDS.iter().map(|need| need.capability).collect();
        assert_eq!(names(missing(&all)), Vec::<String>::new());
        for need in &NEEDS {
            let mut held = all.clone();
            held.remove(&need.capability);
            assert_eq!(names(missing(&held)), [need.capability.to_string()]);
        }
    }

    #[test]
    fn sys_admin_stands_in_for_what_was_split_off_it() {
        let held = CapsHashSet::from([Capability::CAP_SYS_ADMIN]);
        assert_eq!(
            names(missing(&held)),
            ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"]
        );
    }

    #[test]
    fn what_serves_to_the_end_is_kept_and_no_more() {
        let everything = caps::all();
        assert_eq!(
            kept(&everything, Until::End),
            CapsHashSet::from([Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH])
        );
        assert_eq!(
            kept(&everything, Until::Counted),
            CapsHashSet::from([Capability::CAP_BPF])
        );
        let admin = CapsHashSet::from([Capability::CAP_SYS_ADMIN]);
        assert_eq!(kept(&admin, Until::Counted), admin);
        assert_eq!(kept(&CapsHashSet::new(), Until::End), CapsHashSet::new());
    }
}
