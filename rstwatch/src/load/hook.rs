//! The hooks: the means by which each can be attached, in the order of preference, and the programs
//! for each.

use std::{collections::HashMap, fmt, panic::resume_unwind, path::Path, thread};

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

/// The tracepoint of resets that this host sends.
const SEND_RESET: &str = "tcp_send_reset";

/// The second program on it, for resets in the middle of another one's hook.
pub const INTERRUPTING: &str = "interrupting_tcp_send_reset";

/// A program on a place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint's or function's name, or [`INTERRUPTING`].
    pub name: &'static str,
    /// The means to try, best first.
    pub means: [Means; 2],
    /// Whether it is a tracepoint, without which rstwatch does not start.
    pub required: bool,
}

impl Hook {
    /// The best means that there can be with the kernel's `btf`, or without.
    pub(super) fn first_means(&self, btf: Option<&Btf>) -> Means {
        let [best, fallback] = self.means;
        if btf.is_some() { best } else { fallback }
    }
}

/// The tracepoint or function that the hook of that name is at.
fn place(name: &str) -> &str {
    if name == INTERRUPTING {
        SEND_RESET
    } else {
        name
    }
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
    // Which of the two the kernel runs first is of no consequence.
    let second = (!hooks.missing.contains(&SEND_RESET)).then_some(Hook {
        name: INTERRUPTING,
        means: Means::TRACEPOINT,
        required: false,
    });
    tracepoints.chain(functions).chain(second).collect()
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
    let program = ebpf
        .program_mut(&name)
        .ok_or(ProgramError::InvalidName { name })?;
    load_program(program, btf, hook, means)
}

/// As [`load`], when the program is at hand.
fn load_program(
    program: &mut Program,
    btf: Option<&Btf>,
    hook: &str,
    means: Means,
) -> Result<(), ProgramError> {
    let unknown = || ProgramError::InvalidName {
        name: program_name(hook, means),
    };
    match means {
        Means::Btf => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(place(hook), btf.ok_or_else(unknown)?)
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

/// Loads the programs for all of `hooks`, each by the first of its means that there can be. At once,
/// for going through them is most of what the start takes, and the kernel lets several processors do it.
/// Gives what became of each, in the order of `hooks`.
pub(super) fn load_all(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hooks: &[Hook],
) -> Vec<Result<(), ProgramError>> {
    let mut programs: HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    thread::scope(|scope| {
        let loads: Vec<_> = hooks
            .iter()
            .map(|hook| {
                let means = hook.first_means(btf);
                let name = program_name(hook.name, means);
                let program = programs
                    .remove(&name)
                    .ok_or(ProgramError::InvalidName { name });
                scope.spawn(move || load_program(program?, btf, hook.name, means))
            })
            .collect();
        loads
            .into_iter()
            .map(|load| load.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
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
            program.attach(place(hook)).map(drop)
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
        assert_eq!(names(&hooks)[..4], TRACEPOINTS);
        assert_eq!(names(&hooks)[4..], [INTERRUPTING]);
        hooks.sends_all = false;
        assert!(names(&hooks).starts_with(&TRACEPOINTS));
        assert!(names(&hooks).contains(&"tcp_v4_send_reset"));
        hooks.missing = vec!["tcp_destroy_sock"];
        assert_eq!(names(&hooks)[..3], TRACEPOINTS[1..]);
    }
}
