//! Loading the BPF programs and attaching them.
//!
//! - [`hook`]: the hooks, and by which means each is attached.
//! - [`Desks`], [`LaneMemory`]: what the programs share with user space beside the rings.
//! - [`preflight`]: what must be there first, so that the usual reasons for a failure are said in a
//!   sentence with the remedy.
//! - [`trial`]: loads and attaches every program in turn, to see which of them this kernel takes.
//!
//! Reading what the programs send is not done here.

mod desks;
pub mod hook;
mod lane_memory;
mod patch;
pub mod preflight;
pub mod trial;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::{Program, ProgramError},
};
use foldhash::{HashMap, HashMapExt as _};
use nix::{
    libc::RLIM_INFINITY,
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{SysconfVar, sysconf},
};
use rstwatch_common::{
    PER_CPU_MAPS,
    cast::Casts,
    filter::KernelFilter,
    lane::Slot,
    layout::{Features, Layout},
    stats::Stat,
    tally::{QUICK_KINDS, QuickTally, TallyKey},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use self::hook::{Hook, INTERRUPTING, Means};
pub use self::{desks::Desks, lane_memory::LaneMemory};
use crate::{
    bpf_object,
    btf::Btf as KernelTypes,
    kernel::{
        casts::KernelCasts,
        layout::{self, Hooks, MissingField, TRACEPOINTS},
        reasons::Reasons,
    },
    load::preflight::StartError,
};

/// What the running kernel's type information says.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Where its fields are.
    pub layout: Layout,
    /// The fields that it lacks, none of them required.
    pub missing: Vec<MissingField>,
    /// Its hooks.
    pub hooks: Hooks,
    /// Its reasons.
    pub reasons: Reasons,
    /// What it casts pointers to.
    pub casts: Option<KernelCasts>,
}

impl Kernel {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When the type information is not there, or lacks what rstwatch needs.
    pub fn read() -> Result<Self, StartError> {
        let bytes = preflight::read_btf()?;
        let types =
            KernelTypes::parse(&bytes).map_err(|error| StartError::BadBtf(error.to_string()))?;
        let (layout, missing) =
            layout::resolve(&types).map_err(|error| StartError::BadBtf(error.to_string()))?;
        let hooks = layout::hooks(&types);
        if ["tcp_send_reset", "tcp_receive_reset"]
            .iter()
            .all(|name| hooks.missing.contains(name))
        {
            return Err(StartError::NoTracepoint("tcp_send_reset"));
        }
        Ok(Self {
            layout,
            missing,
            hooks,
            reasons: Reasons::from_btf(&types),
            casts: KernelCasts::from_btf(&types),
        })
    }

    /// Whether the programs are to fill two rings. The verifier of 5.10 goes through half as much again for
    /// that (78,651 instructions of `btf_tcp_send_reset` instead of 50,657), that of 6.18 through no more; in
    /// between it was not measured.
    const fn has_two_rings(&self) -> bool {
        self.hooks.send_reset_reason
    }

    /// What switches code in the BPF programs.
    pub fn features(&self) -> Features {
        Features {
            send_reset_reason: u8::from(self.hooks.send_reset_reason),
            current_task_btf: u8::from(self.hooks.current_task_btf),
            destroy_sock: u8::from(!self.hooks.missing.contains(&"tcp_destroy_sock")),
            two_rings: u8::from(self.has_two_rings()),
        }
    }
}

/// What to load with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What is known of the running kernel.
    pub kernel: &'a Kernel,
    /// Size of both ring buffers together in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Closed connections to remember: a power of two.
    pub history: u32,
    /// Which resets the BPF programs tell of.
    pub filter: KernelFilter,
    /// Whether the BPF programs log their errors.
    pub log: bool,
    /// Attach by the means that ask the least of the kernel, even where better ones work: as raw
    /// tracepoints, and as kprobes.
    pub raw_only: bool,
}

impl Settings<'_> {
    /// How the lanes are to be; `None`: there are to be none. Programs fill them that are never in the middle of
    /// themselves.
    fn lanes(&self) -> Option<LaneSize> {
        self.kernel
            .hooks
            .send_reset_reason
            .then(|| LaneSize::new(self.ring_bytes, possible_cpus()))
    }
}

/// How the history of closed connections is laid out: a ring of records for each CPU, and rows of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HistorySize {
    cpus: u32,
    /// Records of each CPU: a power of two.
    places: u32,
    /// Of seven chains each: a power of two.
    rows: u32,
}

impl HistorySize {
    /// The least for a CPU: work is seldom spread evenly over many.
    const FEWEST: u32 = 1_024;

    /// Records that share a row, when the history is full: two and a bit a chain.
    const PER_ROW: u32 = 16;

    /// Room for `connections`, on a host that may have `cpus`.
    fn new(connections: u32, cpus: u32) -> Self {
        let places = (connections / cpus).max(Self::FEWEST).next_power_of_two();
        Self {
            cpus,
            places,
            rows: (cpus * places / Self::PER_ROW).next_power_of_two(),
        }
    }
}

/// How the lanes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LaneSize {
    cpus: u32,
    /// Slots of each CPU: a power of two.
    places: u32,
}

impl LaneSize {
    /// The least for a CPU. What a lane has no room for goes by the ring.
    const FEWEST: u32 = 64;

    /// In at most an eighth of the bytes that the rings have, on a host that may have `cpus`: 2,048 slots of each
    /// of two are a storm of some 25 ms, and the reader looks every millisecond.
    fn new(ring_bytes: u32, cpus: u32) -> Self {
        let room = ring_bytes as usize / 8 / cpus as usize / size_of::<Slot>();
        let room = u32::try_from(room).unwrap_or(u32::MAX).max(Self::FEWEST);
        Self {
            cpus,
            places: 1 << room.ilog2(),
        }
    }
}

/// The highest number that a CPU of this host may ever have, and one. One too many costs little; of a reset on one that is
/// left out nothing but the count is known.
fn possible_cpus() -> u32 {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    const MOST_LIKELY: u32 = 64;
    let possible = std::fs::read_to_string(POSSIBLE).ok();
    let last = possible.and_then(|numbers| last_of_list(&numbers));
    last.map_or(MOST_LIKELY, |last| last + 1)
}

/// The last number of a list of ranges such as `0-3,8` (`cpulist_parse`, `include/linux/cpumask.h`), which
/// stand in order.
fn last_of_list(numbers: &str) -> Option<u32> {
    numbers.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// The size of a page: what a ring has at least.
fn page_size() -> u32 {
    const USUAL: u32 = 4_096;
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u32::try_from(size).ok())
        .unwrap_or(USUAL)
}

/// A hook, and what became of it.
#[derive(Debug)]
pub struct Attached {
    /// The hook's name.
    pub hook: &'static str,
    /// By which means it was attached, or why by none.
    pub outcome: Result<Means, StartError>,
    /// Why a better means was refused.
    pub refusal: Option<StartError>,
}

/// The loaded and attached programs. Dropping it detaches and unloads all of them.
#[expect(missing_debug_implementations, reason = "aya's map types have none")]
pub struct Tracer {
    ebpf: Ebpf,
    stats: PerCpuArray<MapData, u64>,
    desks: Desks,
    /// The first kinds of each CPU.
    quick: Array<MapData, [[u64; size_of::<QuickTally>() / 8]; QUICK_KINDS]>,
    /// The others by kind, and what had no room there by kind without the port.
    tally: [PerCpuHashMap<MapData, [u8; size_of::<TallyKey>()], u64>; 2],
    /// What became of each hook that this kernel is to have; not of [`INTERRUPTING`], if it is waiting.
    pub hooks: Vec<Attached>,
    /// How to attach [`INTERRUPTING`], which is loaded and not attached yet.
    waiting: Option<Means>,
    lanes: Option<LaneSize>,
}

impl Tracer {
    /// Loads and attaches everything.
    ///
    /// # Errors
    ///
    /// When the kernel refuses what rstwatch cannot do without; the error says what, and what to do.
    pub fn start(settings: &Settings<'_>) -> Result<Self, StartError> {
        let mut ebpf = load_object(settings)?;
        let btf = if settings.raw_only {
            None
        } else {
            Btf::from_sys_fs().ok()
        };
        let (mut hooks, mut waiting) = (Vec::new(), None);
        let wanted = hook::wanted(&settings.kernel.hooks);
        let loaded = hook::load_all(&mut ebpf, btf.as_ref(), &wanted);
        for (hook, loaded) in wanted.into_iter().zip(loaded) {
            if hook.name == INTERRUPTING && loaded.is_ok() {
                waiting = Some(hook.first_means(btf.as_ref()));
                continue;
            }
            let (outcome, refusal) = attach(&mut ebpf, btf.as_ref(), &hook, loaded);
            let explain = |error| from_program(hook.name, error, settings.kernel);
            let outcome = outcome.map_err(explain);
            let outcome = if hook.required { Ok(outcome?) } else { outcome };
            hooks.push(Attached {
                hook: hook.name,
                outcome,
                refusal: refusal.map(explain),
            });
        }
        let stats = take_map(&mut ebpf, "STATS")?;
        let desks = map_desks(&ebpf)?;
        let quick = take_map(&mut ebpf, "TALLY_QUICK")?;
        let tally = [
            take_map(&mut ebpf, "TALLY")?,
            take_map(&mut ebpf, "TALLY_REST")?,
        ];
        Ok(Self {
            ebpf,
            stats,
            desks,
            quick,
            tally,
            hooks,
            waiting,
            lanes: settings.lanes(),
        })
    }

    /// Attaches [`INTERRUPTING`] once there are resets that can be interrupted: it makes every reset
    /// dearer, and most storms have none. Gives what became of it, that one time.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn heed_interruptions(&mut self) -> anyhow::Result<Option<Attached>> {
        let Some(means) = self.waiting else {
            return Ok(None);
        };
        if self.stat(Stat::OfOwnAccord)? == 0 {
            return Ok(None);
        }
        self.waiting = None;
        let outcome = hook::attach(&mut self.ebpf, INTERRUPTING, means)
            .map(|()| means)
            .map_err(|error| StartError::from_program(INTERRUPTING, error));
        Ok(Some(Attached {
            hook: INTERRUPTING,
            outcome,
            refusal: None,
        }))
    }

    /// Detaches all, for good, and keeps what the programs have counted and still write: another process that
    /// holds them may attach them.
    pub fn let_go(&mut self) {
        self.waiting = None;
        for (_, program) in self.ebpf.programs_mut() {
            hook::unload(program);
        }
    }

    /// The rings to read from, of the CPUs with even numbers and of the others, which are filled since the
    /// start. Mapping them makes all of them count as this process's memory, and twice, since each is mapped
    /// twice in a row: better after the start, which needs much itself, than within.
    ///
    /// # Errors
    ///
    /// When they cannot be mapped, or were taken already.
    pub fn take_rings(&mut self) -> Result<[RingBuf<MapData>; 2], StartError> {
        Ok([
            take_map(&mut self.ebpf, "EVENTS")?,
            take_map(&mut self.ebpf, "EVENTS_ODD")?,
        ])
    }

    /// The lanes to read from, where there are any: they count as this process's memory too.
    ///
    /// # Errors
    ///
    /// When they cannot be mapped, or were taken already.
    pub fn lanes(&self) -> Result<Option<LaneMemory>, StartError> {
        let Some(LaneSize { places, .. }) = self.lanes else {
            return Ok(None);
        };
        let desks = map_desks(&self.ebpf)?;
        LaneMemory::map(desks, &fd_of(&self.ebpf, "LANES")?, places)
            .map(Some)
            .map_err(StartError::MapShared)
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
        let on_desks = match stat {
            Stat::Sent => self.desks.sent(),
            Stat::Received => self.desks.received(),
            _ => 0,
        };
        Ok(values.iter().sum::<u64>() + on_desks)
    }

    /// Every reset that this host sent, as `tcp_send_reset` fired for it, whichever program told of it.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn sent(&self) -> anyhow::Result<u64> {
        Ok(self.stat(Stat::Sent)? + self.stat(Stat::Interrupting)?)
    }

    /// Every reset, sent or received, that the filter in the kernel held back.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn filtered(&self) -> anyhow::Result<u64> {
        let sent = self.stat(Stat::SentFiltered)? + self.stat(Stat::InterruptingFiltered)?;
        let received = self.stat(Stat::ReceivedFiltered)?;
        Ok((sent + received).saturating_sub(self.stat(Stat::NotReceivedFiltered)?))
    }

    /// Every kind of reset so far, and how many there were.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn tally(&self) -> anyhow::Result<Vec<(TallyKey, u64)>> {
        let is_key = |bytes: &[u8]| {
            TallyKey::read_from_bytes(bytes)
                .map_err(|_| anyhow::anyhow!("the BPF side's tally has keys of another type"))
        };
        let mut kinds = HashMap::new();
        for cpus in self.quick.iter() {
            for [key, count] in cpus.context("cannot read the BPF side's tally")? {
                if count > 0 {
                    *kinds.entry(is_key(key.as_bytes())?).or_default() += count;
                }
            }
        }
        for kind in self.tally.iter().flat_map(PerCpuHashMap::iter) {
            let (key, counts) = kind.context("cannot read the BPF side's tally")?;
            *kinds.entry(is_key(&key)?).or_default() += counts.iter().sum::<u64>();
        }
        Ok(kinds.into_iter().collect())
    }

    /// How often the kernel skipped `tcp_send_reset` and `tcp_receive_reset` programs, because they
    /// would have interrupted themselves on the same CPU, and no second program told of it: resets that
    /// were not even counted. `None` before 5.12, which does not tell.
    pub fn skipped(&self) -> Option<u64> {
        let mut sum = None;
        for Attached { hook, outcome, .. } in &self.hooks {
            let Ok(means) = outcome else { continue };
            // The first two only learn owners.
            if TRACEPOINTS[..2].contains(hook) || *hook == INTERRUPTING {
                continue;
            }
            let fd = match self.ebpf.program(&hook::program_name(hook, *means)) {
                Some(Program::BtfTracePoint(program)) => program.fd(),
                Some(Program::RawTracePoint(program)) => program.fd(),
                Some(Program::FEntry(program)) => program.fd(),
                Some(Program::KProbe(program)) => program.fd(),
                _ => continue,
            };
            let fd = fd.ok()?.as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            sum = Some(sum.unwrap_or(0) + parse_misses(&info)?);
        }
        Some(sum?.saturating_sub(self.stat(Stat::Interrupting).ok()?))
    }

    /// Stops tracing; the counters stay readable.
    pub fn detach(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            hook::unload(program);
        }
    }
}

/// Loads the object and makes its maps; its programs are not loaded yet.
fn load_object(settings: &Settings<'_>) -> Result<Ebpf, StartError> {
    if bpf_object::is_stub() {
        return Err(StartError::Stub);
    }
    raise_memlock_limit();
    let page = page_size();
    let (ring, odd_ring) = if settings.kernel.has_two_rings() {
        let half = (settings.ring_bytes / 2).max(page);
        (half, half)
    } else {
        (settings.ring_bytes, page)
    };
    let cpus = possible_cpus();
    let history = HistorySize::new(settings.history, cpus);
    let lanes = settings.lanes();
    let lane_slots = lanes.map_or(0, |lanes| lanes.places);
    let log_level = u8::from(settings.log) * u8::MAX;
    let casts = settings.kernel.casts;
    let object = patch::with_casts(bpf_object::OBJECT, casts.map(|casts| casts.function))?;
    let mut loader = EbpfLoader::new();
    for map in PER_CPU_MAPS {
        loader.map_max_entries(map, cpus);
    }
    loader
        // There are no CO-RE relocations to make.
        .btf(None)
        .override_global("LAYOUT", &settings.kernel.layout, true)
        .override_global("FEATURES", &settings.kernel.features(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, false)
        .map_max_entries("EVENTS", ring)
        .map_max_entries("EVENTS_ODD", odd_ring)
        .override_global("FILTER", &settings.filter, true)
        .override_global("HISTORY_PLACES", &history.places, true)
        .override_global("HISTORY_ROWS_MASK", &(history.rows - 1), true)
        .map_max_entries("HISTORY", history.cpus * history.places)
        .map_max_entries("CHAINS", history.rows)
        .override_global("LANE_SLOTS", &lane_slots, true)
        .map_max_entries("LANES", lanes.map_or(1, |lanes| lanes.cpus * lanes.places))
        .override_global(
            "CASTS",
            &casts.map_or(Casts::NONE, |casts| casts.types),
            true,
        )
        .load(object.as_bytes())
        .map_err(StartError::from_ebpf)
        .map_err(|error| blame_memlock(error, settings.kernel))
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

fn take_map<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, StartError> {
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or_else(|| StartError::Object(format!("it has no map {name}")))
}

fn map_desks(ebpf: &Ebpf) -> Result<Desks, StartError> {
    Desks::map(&fd_of(ebpf, "DESKS")?, possible_cpus()).map_err(StartError::MapShared)
}

/// The descriptor of an array that is to be mapped.
fn fd_of<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, StartError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map.fd().as_fd()),
        _ => Err(StartError::Object(format!("it has no array {name}"))),
    }
}

/// Attaches `hook` by the first means that works; `loaded` is what became of loading its program for
/// the first. Gives that means, or why none works, and why a better one did not.
fn attach(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    hook: &Hook,
    loaded: Result<(), ProgramError>,
) -> (Result<Means, ProgramError>, Option<ProgramError>) {
    let first = hook.first_means(btf);
    let Err(refusal) = loaded.and_then(|()| attach_or_unload(ebpf, hook, first)) else {
        return (Ok(first), None);
    };
    let [_, fallback] = hook.means;
    // When both are refused, the first refusal tells more: the fallback asks less of the kernel.
    if first != fallback
        && hook::load(ebpf, btf, hook.name, fallback).is_ok()
        && attach_or_unload(ebpf, hook, fallback).is_ok()
    {
        return (Ok(fallback), Some(refusal));
    }
    (Err(refusal), None)
}

fn attach_or_unload(ebpf: &mut Ebpf, hook: &Hook, means: Means) -> Result<(), ProgramError> {
    let attached = hook::attach(ebpf, hook.name, means);
    if attached.is_err()
        && let Some(program) = ebpf.program_mut(&hook::program_name(hook.name, means))
    {
        hook::unload(program);
    }
    attached
}

/// What the refusal of a program means on this kernel.
fn from_program(hook: &'static str, error: ProgramError, kernel: &Kernel) -> StartError {
    blame_memlock(StartError::from_program(hook, error), kernel)
}

/// Where maps and programs count as locked memory, EPERM means that there is too little of it: the
/// capabilities have been checked.
fn blame_memlock(error: StartError, kernel: &Kernel) -> StartError {
    match error {
        StartError::Refused { .. } if kernel.hooks.memlock => match memlock_limit() {
            Some(limit) => StartError::Memlock { kib: limit >> 10 },
            None => error,
        },
        error => error,
    }
}

/// The bytes that this process may lock; `None` when there is no limit.
pub fn memlock_limit() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Lifts the limit that kernels before 5.11 put on the memory of maps as far as it goes. Newer ones
/// account it to the cgroup, and need none of this: so a refusal is not an error here.
pub fn raise_memlock_limit() {
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err()
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
    {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cpu_of_a_list_is_found() {
        let lists = [("0\n", 0), ("0-3\n", 3), ("0,2-5,8\n", 8), ("0-3,8-11", 11)];
        for (list, last) in lists {
            assert_eq!(last_of_list(list), Some(last), "{list:?}");
        }
        assert_eq!(last_of_list("\n"), None);
        assert!(possible_cpus() > 0);
    }

    #[test]
    fn the_lanes_are_an_eighth_of_the_rings() {
        let places = |ring_bytes, cpus| LaneSize::new(ring_bytes, cpus).places;
        assert_eq!(places(8 << 20, 2), 2_048);
        assert_eq!(places(8 << 20, 3), 1_024);
        assert_eq!(places(8 << 20, 128), LaneSize::FEWEST);
        assert_eq!(places(4 << 10, 1), LaneSize::FEWEST);
    }

    #[test]
    fn the_history_is_shared_out_among_the_cpus() {
        let size = |connections, cpus| {
            let HistorySize { cpus, places, rows } = HistorySize::new(connections, cpus);
            (cpus, places, rows)
        };
        assert_eq!(size(32_768, 2), (2, 16_384, 2_048));
        assert_eq!(size(32_768, 3), (3, 16_384, 4_096));
        assert_eq!(size(32_768, 128), (128, 1_024, 8_192));
    }

    #[test]
    fn misses_are_read_from_a_programs_fdinfo() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t3\n";
        assert_eq!(parse_misses(info), Some(3));
        assert_eq!(parse_misses("pos:\t0\n"), None);
    }
}
