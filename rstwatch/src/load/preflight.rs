//! Why tracing cannot start, each said in one sentence with its remedy, and the checks that find it
//! out before the kernel answers with a bare errno.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{EbpfError, maps::MapError, programs::ProgramError};
use caps::CapsHashSet;
use thiserror::Error;

use crate::{
    kernel::{layout::FUNCTIONS, stack::Stacks, symbols::SymbolsError},
    privileges,
};

/// Where the kernel gives its BTF.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Where the kernel lists its symbols.
const KALLSYMS: &str = "/proc/kallsyms";

/// Lines of the verifier's log that are shown with `-v`.
const LOG_LINES: usize = 20;

/// Why tracing cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The binary was built without its BPF programs.
    #[error(
        "this rstwatch was built without its BPF programs (a plain `cargo build`): build it with `cargo xtask build`"
    )]
    Stub,
    /// Neither root nor the capabilities.
    #[error(
        "loading BPF programs needs root, or the capabilities CAP_BPF and CAP_PERFMON ({missing} missing): run it with sudo, or `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog+ep` on the binary"
    )]
    Capability {
        /// The missing ones.
        missing: String,
    },
    /// No BTF.
    #[error(
        "BTF not found at {VMLINUX_BTF}: boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (the distributions' kernels are)"
    )]
    NoBtf,
    /// BTF there, but not to be read.
    #[error("cannot read {VMLINUX_BTF} ({0}): check its permissions, and that /sys is mounted")]
    UnreadableBtf(#[source] io::Error),
    /// BTF there, but not understood.
    #[error("cannot use the kernel's BTF ({0}): please report this kernel (`uname -r`)")]
    BadBtf(String),
    /// Lockdown in confidentiality mode.
    #[error(
        "the kernel is locked down (confidentiality), which forbids BPF to read kernel memory: boot with lockdown=integrity or none"
    )]
    Lockdown,
    /// Before ring buffers.
    #[error("kernel {release} is too old: rstwatch needs 5.8 or later, with BTF")]
    TooOld {
        /// `uname -r`.
        release: String,
    },
    /// A tracepoint that the kernel does not have.
    #[error(
        "this kernel has no tracepoint {0}: boot a kernel with CONFIG_TRACEPOINTS=y and CONFIG_INET=y (5.8 or later)"
    )]
    NoTracepoint(&'static str),
    /// A function that the kernel does not have, or does not let anyone hook.
    #[error(
        "this kernel has no function {0} that can be hooked: boot one with CONFIG_FUNCTION_TRACER=y or CONFIG_KPROBES=y, or 6.10 or later"
    )]
    NoFunction(&'static str),
    /// Too little memory may be locked, on a kernel that counts maps so.
    #[error(
        "this kernel counts BPF maps as locked memory, of which {kib} KiB may be used (`ulimit -l`): run rstwatch as root or with CAP_SYS_RESOURCE, or after `ulimit -l unlimited`"
    )]
    Memlock {
        /// The limit in KiB.
        kib: u64,
    },
    /// Memory that the BPF programs share with user space was not to be had.
    #[error(
        "cannot map the memory that the BPF programs share with rstwatch ({0}): is there a limit on this process's address space (`ulimit -v`)?"
    )]
    MapShared(#[source] io::Error),
    /// The kernel's answer was EPERM though nothing seemed missing.
    #[error(
        "the kernel refused {what} ({source}): a security module, seccomp or the container's runtime forbids bpf(); run it on the host, or allow bpf and perf_event_open"
    )]
    Refused {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// The verifier.
    #[error(
        "the kernel's verifier refused the program for {hook} ({source}): run again with -v for its log, and please report it with `uname -r`"
    )]
    Verifier {
        /// The tracepoint.
        hook: &'static str,
        /// The system call's error.
        source: io::Error,
        /// The verifier's log.
        log: String,
    },
    /// A map could not be made.
    #[error(
        "cannot create the BPF map {name} ({source}): free memory, raise `ulimit -l`, or give a smaller --ring-size"
    )]
    Map {
        /// Its name.
        name: String,
        /// The system call's error.
        source: io::Error,
    },
    /// The object does not fit this program.
    #[error("the built-in BPF object is damaged ({0}): build it again with `cargo xtask build`")]
    Object(String),
    /// Anything else of one hook.
    #[error("cannot attach to {hook}: {source}")]
    Attach {
        /// The tracepoint.
        hook: &'static str,
        /// What aya says.
        source: ProgramError,
    },
}

impl StartError {
    /// The last lines of the verifier's log, when there is one.
    pub fn verifier_log(&self) -> Option<String> {
        let Self::Verifier { log, .. } = self else {
            return None;
        };
        let lines: Vec<&str> = log.lines().collect();
        Some(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }

    pub(super) fn from_ebpf(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                if io_error.kind() == io::ErrorKind::PermissionDenied {
                    Self::Refused {
                        what: format!("the BPF map {name}"),
                        source: io_error,
                    }
                } else {
                    Self::Map {
                        name,
                        source: io_error,
                    }
                }
            }
            error => Self::Object(error.to_string()),
        }
    }

    pub(super) fn from_program(hook: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = verifier_log.to_string();
                // The verifier says nothing when it was not even asked.
                if io_error.kind() == io::ErrorKind::PermissionDenied && log.trim().is_empty() {
                    Self::Refused {
                        what: format!("the BPF program for {hook}"),
                        source: io_error,
                    }
                } else {
                    Self::Verifier {
                        hook,
                        source: io_error,
                        log,
                    }
                }
            }
            ProgramError::Btf(_) if FUNCTIONS.contains(&hook) => Self::NoFunction(hook),
            ProgramError::SyscallError(error)
                if error.io_error.kind() == io::ErrorKind::NotFound
                    && FUNCTIONS.contains(&hook) =>
            {
                Self::NoFunction(hook)
            }
            ProgramError::SyscallError(error)
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Self::NoTracepoint(hook)
            }
            ProgramError::SyscallError(error)
                if error.io_error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::Refused {
                    what: format!("to attach to {hook}"),
                    source: error.io_error,
                }
            }
            source => Self::Attach { hook, source },
        }
    }
}

/// Checks what needs no attempt: kernel version, capabilities, lockdown.
///
/// # Errors
///
/// The first thing that is in the way.
pub fn check() -> Result<(), StartError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if is_too_old(&release) {
        return Err(StartError::TooOld {
            release: release.trim().to_owned(),
        });
    }
    // When the kernel does not tell, it will when it is asked to load.
    if let Ok(held) = privileges::effective()
        && let Some(missing) = missing_capabilities(&held)
    {
        return Err(StartError::Capability { missing });
    }
    if lockdown().as_deref() == Some("confidentiality") {
        return Err(StartError::Lockdown);
    }
    Ok(())
}

/// The kernel's lockdown mode: `none`, `integrity` or `confidentiality`; `None` where it has none, or
/// securityfs is not mounted.
pub fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Reads the kernel's BTF.
///
/// # Errors
///
/// When it is not there, or cannot be read.
pub fn read_btf() -> Result<Vec<u8>, StartError> {
    let path = Path::new(VMLINUX_BTF);
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::NoBtf,
        _ => StartError::UnreadableBtf(error),
    })
}

/// Reads where the kernel's functions are.
///
/// # Errors
///
/// When that cannot be read, or is hidden.
pub fn read_stacks() -> Result<Stacks> {
    let text = File::open(KALLSYMS).with_context(|| format!("cannot read {KALLSYMS}"))?;
    Stacks::from_kallsyms(BufReader::new(text)).map_err(|error| {
        let what = match error {
            SymbolsError::Unreadable(_) => format!("cannot read {KALLSYMS}"),
            SymbolsError::Hidden | SymbolsError::Empty => format!(
                "{KALLSYMS} shows no addresses (it takes CAP_SYSLOG, and kernel.kptr_restrict not to be 2)"
            ),
        };
        anyhow::Error::new(error).context(what)
    })
}

/// Ring buffers came with 5.8. An unreadable version is let through: the kernel itself will tell.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (5, 8),
        _ => false,
    }
}

/// Names what is missing among `held` that nothing works without.
fn missing_capabilities(held: &CapsHashSet) -> Option<String> {
    let missing: Vec<String> = privileges::missing(held)
        .filter(|need| need.cost.is_none())
        .map(|need| need.capability.to_string())
        .collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caps::Capability;

    #[test]
    fn kernels_before_ring_buffers_are_too_old() {
        for (release, too_old) in [
            ("4.19.0-27-amd64\n", true),
            ("5.7.19", true),
            ("5.8.0", false),
            ("5.10.0-36-amd64", false),
            ("6.18.44", false),
            ("10.0.1", false),
            ("unknown", false),
            ("", false),
        ] {
            assert_eq!(is_too_old(release), too_old, "{release}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let missing = |held: &[Capability]| missing_capabilities(&held.iter().copied().collect());
        assert_eq!(missing(&[Capability::CAP_SYS_ADMIN]), None);
        assert_eq!(
            missing(&[Capability::CAP_BPF, Capability::CAP_PERFMON]),
            None
        );
        assert_eq!(
            missing(&[Capability::CAP_BPF]).as_deref(),
            Some("CAP_PERFMON")
        );
        assert_eq!(missing(&[]).as_deref(), Some("CAP_BPF and CAP_PERFMON"));
    }

    #[test]
    fn every_start_error_is_one_sentence_with_a_remedy() {
        let errno = || io::Error::from_raw_os_error(1);
        let errors = [
            StartError::Stub,
            StartError::Capability {
                missing: "CAP_BPF".into(),
            },
            StartError::NoBtf,
            StartError::UnreadableBtf(errno()),
            StartError::BadBtf("no magic".into()),
            StartError::Lockdown,
            StartError::NoTracepoint("tcp_send_reset"),
            StartError::NoFunction("tcp_v4_send_reset"),
            StartError::Memlock { kib: 64 },
            StartError::Refused {
                what: "the BPF map EVENTS".into(),
                source: errno(),
            },
            StartError::Verifier {
                hook: "tcp_send_reset",
                source: errno(),
                log: String::new(),
            },
            StartError::Map {
                name: "EVENTS".into(),
                source: errno(),
            },
            StartError::Object("x".into()),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(": "), "no remedy: {text}");
            assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn the_end_of_the_verifiers_log_is_shown() {
        let log: Vec<String> = (0..50).map(|line| line.to_string()).collect();
        let error = StartError::Verifier {
            hook: "tcp_send_reset",
            source: io::Error::from_raw_os_error(13),
            log: log.join("\n"),
        };
        let shown = error.verifier_log().unwrap();
        assert_eq!(shown.lines().count(), LOG_LINES);
        assert!(shown.ends_with("49"));
        assert_eq!(StartError::Stub.verifier_log(), None);
    }
}
