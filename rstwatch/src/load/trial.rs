//! Loads and attaches every program that this kernel is to have, by every means, one after the other:
//! which of them it takes is known only by trying.

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use rstwatch_common::filter::KernelFilter;

use super::{
    Kernel, Settings, from_program, hook, hook::Means, load_object, preflight::StartError,
};

/// Enough of a ring buffer and of a history to load with.
const RING_BYTES: u32 = 1 << 18;
const HISTORY: u32 = 1_024;

/// What became of a program.
#[derive(Debug)]
pub struct Trial {
    /// The hook's name.
    pub hook: &'static str,
    /// By which means.
    pub means: Means,
    /// The program's name in the object.
    pub program: String,
    /// What is known of it once it is loaded, or why it cannot be.
    pub loaded: Result<Loaded, StartError>,
    /// Whether it could be attached, or why not; `None` when it was not loaded.
    pub attached: Option<Result<(), StartError>>,
}

impl Trial {
    /// Why it was not loaded or attached.
    pub fn error(&self) -> Option<&StartError> {
        match (&self.loaded, &self.attached) {
            (Err(error), _) | (_, Some(Err(error))) => Some(error),
            _ => None,
        }
    }

    /// Whether it was attached.
    pub const fn works(&self) -> bool {
        matches!(self.attached, Some(Ok(())))
    }
}

/// What the kernel says of a loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Instructions that the verifier went through.
    pub verified_insns: Option<u32>,
    /// Bytes of the program after the verifier has rewritten it.
    pub translated_bytes: Option<u32>,
}

/// Tries them all. Nothing stays loaded.
///
/// # Errors
///
/// When not even the maps can be made.
pub fn all(kernel: &Kernel) -> Result<Vec<Trial>, StartError> {
    let mut ebpf = load_object(&Settings {
        kernel,
        ring_bytes: RING_BYTES,
        history: HISTORY,
        filter: KernelFilter::ALL,
        log: false,
        raw_only: false,
    })?;
    let btf = Btf::from_sys_fs().ok();
    let mut trials = Vec::new();
    for hook in hook::wanted(&kernel.hooks) {
        for means in hook.means {
            let explain = |error: ProgramError| from_program(hook.name, error, kernel);
            let name = hook::program_name(hook.name, means);
            let loaded = hook::load(&mut ebpf, btf.as_ref(), hook.name, means)
                .map(|()| ebpf.program(&name).map_or(Loaded::UNKNOWN, Loaded::of))
                .map_err(explain);
            let attached = loaded
                .is_ok()
                .then(|| hook::attach(&mut ebpf, hook.name, means).map_err(explain));
            if let Some(program) = ebpf.program_mut(&name) {
                hook::unload(program);
            }
            let loaded = loaded.map(|loaded| Loaded {
                verified_insns: loaded
                    .verified_insns
                    .or_else(|| count_by_log(&mut ebpf, btf.as_ref(), hook.name, means)),
                ..loaded
            });
            trials.push(Trial {
                hook: hook.name,
                means,
                program: name,
                loaded,
                attached,
            });
        }
    }
    Ok(trials)
}

/// Instructions that the verifier goes through, from the end of its log: before 5.16 they are told
/// nowhere else. `None` when there is no log.
fn count_by_log(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: &str, means: Means) -> Option<u32> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // The log is kept only of a load that fails. This one does, when the verifier is through and the
    // program is to be given a file descriptor.
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).ok()?;
    let loaded = hook::load(ebpf, btf, hook, means);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).ok()?;
    match loaded {
        Err(ProgramError::LoadError { verifier_log, .. }) => {
            processed_in(&verifier_log.to_string())
        }
        _ => None,
    }
}

/// The number in the last line of a verifier's log: `processed 2400 insns (limit 1000000) ...`
/// (`print_verification_stats`, 5.2 and later).
fn processed_in(log: &str) -> Option<u32> {
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("processed "))?;
    line.split(' ').next()?.parse().ok()
}

impl Loaded {
    const UNKNOWN: Self = Self {
        verified_insns: None,
        translated_bytes: None,
    };

    fn of(program: &Program) -> Self {
        program.info().map_or(Self::UNKNOWN, |info| Self {
            verified_insns: info.verified_instruction_count(),
            translated_bytes: info.size_translated(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_end_of_the_log() {
        let log = "0: (b7) r0 = 0\n1: (95) exit\nverification time 21 usec\nstack depth 0\n\
                   processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0\n";
        assert_eq!(processed_in(log), Some(2));
        assert_eq!(processed_in("0: (b7) r0 = 0\n"), None);
    }
}
