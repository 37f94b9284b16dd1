//! The hooks: the means by which each can be attached, in the order of preference, and the programs
//! for each.

use std::{fmt, path::Path};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, KProbe, Program, ProgramError, RawTracePoint},
};

use crate::kernel::layout::{FUNCTIONS, Hooks, TRACEPOINTS};

/// There when the kernel has IPv6, and it is not switched off.
const IPV6: &str = "/proc/net/if_inet6";

/// How a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// BTF tracepoint: typed reads.
    Btf,
    /// Raw tracepoint: reads through a helper.
    Raw,
    /// A trampoline at a function's entry: typed reads.
    Fentry,
    /// A breakpoint or jump at a function's entry: reads through a helper.
    Kprobe,
}

impl Means {
    /// For a tracepoint.
    const TRACEPOINT: [Self; 2] = [Self::Btf, Self::Raw];
    /// For a function.
    const FUNCTION: [Self; 2] = [Self::Fentry, Self::Kprobe];

    /// What the names of the programs for it begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Raw => "raw",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }

    /// Whether the programs read through a helper, which asks less of the kernel.
    pub const fn is_fallback(self) -> bool {
        matches!(self, Self::Raw | Self::Kprobe)
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Btf => "BTF tracepoint",
            Self::Raw => "raw tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        })
    }
}

/// A place in the kernel to attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint's or function's name.
    pub name: &'static str,
    /// The means to try, best first.
    pub means: [Means; 2],
    /// Whether it is a tracepoint, without which rstwatch does not start.
    pub required: bool,
}

/// Those to attach to a kernel that is described so, in order.
pub fn wanted(hooks: &Hooks) -> Vec<Hook> {
    let tracepoints = TRACEPOINTS
        .into_iter()
        .filter(|name| !hooks.missing.contains(name))
        .map(|name| Hook {
            name,
            means: Means::TRACEPOINT,
            required: true,
        });
    let functions = FUNCTIONS
        .into_iter()
        .filter(|name| {
            !hooks.sends_all && (*name != "tcp_v6_send_reset" || Path::new(IPV6).exists())
        })
        .map(|name| Hook {
            name,
            means: Means::FUNCTION,
            required: false,
        });
    tracepoints.chain(functions).collect()
}

/// The name of the program for `hook` by `means`.
pub(super) fn program_name(hook: &str, means: Means) -> String {
    format!("{}_{hook}", means.prefix())
}

/// Loads the program for `hook` by `means`. `btf` is the kernel's; without it only fallbacks load.
///
/// # Errors
///
/// When the kernel or the object refuses.
pub(super) fn load(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hook: &str,
    means: Means,
) -> Result<(), ProgramError> {
    let name = program_name(hook, means);
    let unknown = || ProgramError::InvalidName { name: name.clone() };
    let program = ebpf.program_mut(&name).ok_or_else(unknown)?;
    match means {
        Means::Btf => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook, btf.ok_or_else(unknown)?)
        }
        Means::Raw => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()
        }
        Means::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(hook, btf.ok_or_else(unknown)?)
        }
        Means::Kprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()
        }
    }
}

/// Attaches the loaded program for `hook` by `means`.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn attach(ebpf: &mut Ebpf, hook: &str, means: Means) -> Result<(), ProgramError> {
    let name = program_name(hook, means);
    let program = ebpf
        .program_mut(&name)
        .ok_or_else(|| ProgramError::InvalidName { name: name.clone() })?;
    match means {
        Means::Btf => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.attach().map(drop)
        }
        Means::Raw => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.attach(hook).map(drop)
        }
        Means::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.attach().map(drop)
        }
        Means::Kprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.attach(hook, 0).map(drop)
        }
    }
}

/// Detaches and unloads a program, if it is loaded.
pub(super) fn unload(program: &mut Program) {
    // One that is not loaded has nothing to unload.
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hooks: &Hooks) -> Vec<&'static str> {
        wanted(hooks).iter().map(|hook| hook.name).collect()
    }

    #[test]
    fn functions_are_hooked_only_where_the_tracepoint_does_not_tell_all() {
        let mut hooks = Hooks {
            send_reset_reason: true,
            sends_all: true,
            memlock: false,
            current_task_btf: true,
            missing: Vec::new(),
        };
        assert_eq!(names(&hooks), TRACEPOINTS);
        hooks.sends_all = false;
        assert!(names(&hooks).starts_with(&TRACEPOINTS));
        assert!(names(&hooks).contains(&"tcp_v4_send_reset"));
        hooks.missing = vec!["tcp_destroy_sock"];
        assert_eq!(names(&hooks)[..3], TRACEPOINTS[1..]);
    }
}
