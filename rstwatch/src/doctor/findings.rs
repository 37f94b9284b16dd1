//! What `doctor` sees on this host. What it means is not decided here.

use std::{fs, path::Path};

use caps::CapsHashSet;
use nix::{sys::utsname::uname, unistd::geteuid};

use crate::{
    load::{
        self, Kernel,
        preflight::{self, StartError},
        trial::{self, Trial},
    },
    netns,
    owner::{cgroup, procfs},
    privileges,
};

/// Where tracefs is usually mounted; rstwatch does without.
const TRACEFS: &str = "/sys/kernel/tracing/events";

/// As it was found.
#[derive(Debug)]
pub(super) struct Findings {
    /// `uname -r` and `-m`.
    pub(super) release: String,
    pub(super) machine: String,
    /// What is in the way before anything is tried.
    pub(super) preflight: Result<(), StartError>,
    pub(super) kernel: Result<Kernel, StartError>,
    /// `None`: there is no lockdown, or it cannot be read.
    pub(super) lockdown: Option<String>,
    pub(super) initial_user_namespace: Option<bool>,
    pub(super) uid: u32,
    /// The effective capabilities.
    pub(super) held: CapsHashSet,
    pub(super) sysctls: Sysctls,
    /// Whether addresses of kernel functions can be read, or why not.
    pub(super) symbols: Result<(), String>,
    /// Bytes that may be locked, after the limit was raised; `None`: any.
    pub(super) memlock: Option<u64>,
    pub(super) tracefs: bool,
    pub(super) cgroup2: bool,
    /// Sockets that were seen among the open files of processes, and processes that were seen.
    pub(super) sockets: usize,
    pub(super) processes: usize,
    /// Network namespaces whose `TcpOutRsts` could be read.
    pub(super) counters: usize,
    /// `None`: nothing was tried, since the kernel is not known.
    pub(super) trials: Option<Result<Vec<Trial>, StartError>>,
}

/// Kernel settings that matter, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls {
    pub(super) unprivileged_bpf_disabled: Option<String>,
    pub(super) perf_event_paranoid: Option<String>,
    pub(super) kptr_restrict: Option<String>,
}

impl Findings {
    /// Looks.
    pub(super) fn gather() -> Self {
        load::raise_memlock_limit();
        let (release, machine) = uname().map_or_else(
            |_| ("unknown".to_owned(), "unknown".to_owned()),
            |name| {
                (
                    name.release().to_string_lossy().into_owned(),
                    name.machine().to_string_lossy().into_owned(),
                )
            },
        );
        let kernel = Kernel::read();
        let trials = kernel.as_ref().ok().map(trial::all);
        Self {
            release,
            machine,
            preflight: preflight::check(),
            kernel,
            lockdown: preflight::lockdown(),
            initial_user_namespace: privileges::is_initial_user_namespace(),
            uid: geteuid().as_raw(),
            held: privileges::effective().unwrap_or_default(),
            sysctls: Sysctls {
                unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
                perf_event_paranoid: sysctl("perf_event_paranoid"),
                kptr_restrict: sysctl("kptr_restrict"),
            },
            symbols: preflight::read_stacks()
                .map(drop)
                .map_err(|error| format!("{error:#}")),
            memlock: load::memlock_limit(),
            tracefs: Path::new(TRACEFS).exists(),
            cgroup2: cgroup::is_mounted(),
            sockets: procfs::find_holders(None).len(),
            processes: netns::processes().count(),
            counters: netns::counters().len(),
            trials,
        }
    }
}

/// A setting below `kernel.`; `None` when the kernel has none of that name.
fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
    Some(text.trim().to_owned())
}
