//! Loading the BPF programs and attaching them: as BTF tracepoints, else as raw tracepoints.
//!
//! What must be there first is checked in [`preflight`], so that the usual reasons for a failure
//! are said in a sentence with the remedy. Reading what the programs send is for `ring`.

pub mod preflight;

use std::{
    fmt,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::{BtfTracePoint, Program, ProgramError, RawTracePoint},
    util::nr_cpus,
};
use nix::{
    libc::RLIM_INFINITY,
    sys::resource::{Resource, setrlimit},
};
use rstwatch_common::{
    filter::KernelFilter,
    layout::{Features, Layout},
    stats::Stat,
    tally::TallyKey,
};
use zerocopy::FromBytes as _;

use crate::{bpf_object, kernel::layout::TRACEPOINTS, load::preflight::StartError};

/// How a hook was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// BTF tracepoint: typed reads.
    Btf,
    /// Raw tracepoint: reads through a helper.
    Raw,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Btf => "BTF tracepoint",
            Self::Raw => "raw tracepoint",
        })
    }
}

/// What to load with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The running kernel's structures.
    pub layout: Layout,
    /// What the running kernel can do.
    pub features: Features,
    /// Size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Closed connections to remember: a power of two.
    pub history: u32,
    /// Which resets the BPF programs tell of.
    pub filter: KernelFilter,
    /// Whether the BPF programs log their errors.
    pub log: bool,
    /// Attach as raw tracepoints, even where BTF tracepoints work.
    pub raw_only: bool,
}

/// How the history of closed connections is laid out: a ring of records for each CPU, and chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HistorySize {
    cpus: u32,
    /// Records of each CPU: a power of two.
    places: u32,
    /// A power of two.
    chains: u32,
}

impl HistorySize {
    /// The least for a CPU: work is seldom spread evenly over many.
    const FEWEST: u32 = 1_024;

    /// Room for `connections`, on a host that may have `cpus`.
    fn new(connections: u32, cpus: u32) -> Self {
        let places = (connections / cpus).max(Self::FEWEST).next_power_of_two();
        Self {
            cpus,
            places,
            chains: (cpus * places).next_power_of_two(),
        }
    }
}

/// How many CPUs this host may ever have. One too many costs little; too few, and what the others
/// close is not remembered.
fn possible_cpus() -> u32 {
    const MOST_LIKELY: u32 = 64;
    nr_cpus().map_or(MOST_LIKELY, |cpus| {
        u32::try_from(cpus).unwrap_or(MOST_LIKELY)
    })
}

/// The loaded and attached programs. Dropping it detaches and unloads all of them.
#[expect(missing_debug_implementations, reason = "aya's map types have none")]
pub struct Tracer {
    ebpf: Ebpf,
    stats: PerCpuArray<MapData, u64>,
    tally: PerCpuHashMap<MapData, [u8; size_of::<TallyKey>()], u64>,
    /// How each of [`TRACEPOINTS`] was attached.
    pub means: [Means; TRACEPOINTS.len()],
}

impl Tracer {
    /// Loads and attaches everything. Returns the tracer and the ring to read from.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the error says what, and what to do.
    pub fn start(settings: &Settings) -> Result<(Self, RingBuf<MapData>), StartError> {
        if bpf_object::is_stub() {
            return Err(StartError::Stub);
        }
        raise_memlock_limit();
        let history = HistorySize::new(settings.history, possible_cpus());
        let log_level = u8::from(settings.log) * u8::MAX;
        let mut ebpf = EbpfLoader::new()
            // There are no CO-RE relocations to make.
            .btf(None)
            .override_global("LAYOUT", &settings.layout, true)
            .override_global("FEATURES", &settings.features, true)
            .override_global("FILTER", &settings.filter, true)
            .override_global("AYA_LOG_LEVEL", &log_level, false)
            .map_max_entries("EVENTS", settings.ring_bytes)
            .override_global("HISTORY_PLACES", &history.places, true)
            .override_global("HISTORY_CHAINS_MASK", &(history.chains - 1), true)
            .map_max_entries("RINGS", history.cpus)
            .map_max_entries("HISTORY", history.cpus * history.places)
            .map_max_entries("CHAINS", history.chains)
            .load(bpf_object::OBJECT)
            .map_err(StartError::from_ebpf)?;
        let btf = if settings.raw_only {
            None
        } else {
            Btf::from_sys_fs().ok()
        };
        let mut means = [Means::Raw; TRACEPOINTS.len()];
        for (hook, means) in TRACEPOINTS.iter().zip(&mut means) {
            *means = attach(&mut ebpf, btf.as_ref(), hook)?;
        }
        let ring = take_map(&mut ebpf, "EVENTS")?;
        let stats = take_map(&mut ebpf, "STATS")?;
        let tally = take_map(&mut ebpf, "TALLY")?;
        let tracer = Self {
            ebpf,
            stats,
            tally,
            means,
        };
        Ok((tracer, ring))
    }

    /// The loaded object, for the BPF side's log.
    pub const fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// A counter's sum over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn stat(&self, stat: Stat) -> anyhow::Result<u64> {
        let values = self.stats.get(&stat.index(), 0)?;
        Ok(values.iter().sum())
    }

    /// Every kind of reset so far, and how many there were.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn tally(&self) -> anyhow::Result<Vec<(TallyKey, u64)>> {
        let mut kinds = Vec::new();
        for kind in self.tally.iter() {
            let (key, counts) = kind.context("cannot read the BPF side's tally")?;
            // The key was made from the type.
            let key = TallyKey::read_from_bytes(&key)
                .map_err(|_| anyhow::anyhow!("the BPF side's tally has keys of another type"))?;
            kinds.push((key, counts.iter().sum()));
        }
        Ok(kinds)
    }

    /// How often the kernel skipped `tcp_send_reset` and `tcp_receive_reset` programs, because they
    /// would have interrupted themselves on the same CPU: resets that were not even counted. `None`
    /// before 5.12, which does not tell.
    pub fn skipped(&self) -> Option<u64> {
        let mut sum = None;
        for hook in &TRACEPOINTS[2..] {
            for kind in ["btf", "raw"] {
                let fd = match self.ebpf.program(&format!("{kind}_{hook}")) {
                    Some(Program::BtfTracePoint(program)) => program.fd(),
                    Some(Program::RawTracePoint(program)) => program.fd(),
                    _ => continue,
                };
                // The other of the two kinds is not loaded.
                let Ok(fd) = fd else { continue };
                let fd = fd.as_fd().as_raw_fd();
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
                sum = Some(sum.unwrap_or(0) + parse_misses(&info)?);
            }
        }
        sum
    }

    /// Stops tracing; the counters stay readable.
    pub fn detach(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            // One that is not loaded has nothing to unload.
            let _ = match program {
                Program::BtfTracePoint(program) => program.unload(),
                Program::RawTracePoint(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

/// `recursion_misses` in a program's `/proc/PID/fdinfo` (`bpf_prog_show_fdinfo`, 5.12 and later).
fn parse_misses(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?
        .trim()
        .parse()
        .ok()
}

fn take_map<T: TryFrom<aya::maps::Map>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, StartError> {
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or_else(|| StartError::Object(format!("it has no map {name}")))
}

fn attach(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: &'static str) -> Result<Means, StartError> {
    let refusal = match btf {
        Some(btf) => match attach_btf(ebpf, btf, hook) {
            Ok(()) => return Ok(Means::Btf),
            Err(refusal) => Some(refusal),
        },
        None => None,
    };
    // When both are refused, the first refusal tells more: the raw form asks less of the kernel.
    attach_raw(ebpf, hook)
        .map(|()| Means::Raw)
        .map_err(|error| StartError::from_program(hook, refusal.unwrap_or(error)))
}

fn attach_btf(ebpf: &mut Ebpf, btf: &Btf, hook: &str) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = program(ebpf, &format!("btf_{hook}"))?.try_into()?;
    program.load(hook, btf)?;
    program.attach()?;
    Ok(())
}

fn attach_raw(ebpf: &mut Ebpf, hook: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = program(ebpf, &format!("raw_{hook}"))?.try_into()?;
    program.load()?;
    program.attach(hook)?;
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    ebpf.program_mut(name)
        .ok_or_else(|| ProgramError::InvalidName {
            name: name.to_owned(),
        })
}

/// Lifts the limit that kernels before 5.11 put on the memory of maps. Newer ones account it to
/// the cgroup, and need none of this: so a refusal is not an error here.
fn raise_memlock_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_shared_out_among_the_cpus() {
        let size = |connections, cpus| {
            let HistorySize {
                cpus,
                places,
                chains,
            } = HistorySize::new(connections, cpus);
            (cpus, places, chains)
        };
        assert_eq!(size(32_768, 2), (2, 16_384, 32_768));
        assert_eq!(size(32_768, 3), (3, 16_384, 65_536));
        assert_eq!(size(32_768, 128), (128, 1_024, 131_072));
    }

    #[test]
    fn misses_are_read_from_a_programs_fdinfo() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t3\n";
        assert_eq!(parse_misses(info), Some(3));
        assert_eq!(parse_misses("pos:\t0\n"), None);
    }
}
