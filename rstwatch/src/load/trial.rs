//! Loads and attaches every program that this kernel is to have, by every means, one after the other:
//! which of them it takes is known only by trying.

use aya::{
    Btf,
    programs::{Program, ProgramError},
};

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
    /// Instructions that the verifier went through; `None` before 5.16, which does not tell.
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
