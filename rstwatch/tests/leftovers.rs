//! However it ends, the kernel is left with no program, map or link of it. Needs root, and the binary
//! with its BPF programs: `cargo xtask test` provides both.
//!
//! Other instances may run at the same time: what some process still holds is no leftover.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, and its helpers are no test functions"
)]

use std::{
    collections::HashSet,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// For how long an instance may take to start, and the kernel to clear up behind one.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is started and stopped.
const TIMES: usize = 10;

/// One test at a time: each looks at all that the kernel holds.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed while it held the lock has left nothing of its own behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that the kernel holds for BPF, by its kind and the number that it is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Object {
    Program(u32),
    Map(u32),
    Link(u32),
}

/// All objects in the kernel whose names, or whose program's names, are in `names`.
fn in_kernel(names: &Names) -> HashSet<Object> {
    // What goes between its listing and the look at it is an error, and no leftover.
    let programs: Vec<_> = loaded_programs()
        .flatten()
        .filter(|program| names.0.contains(program.name()))
        .map(|program| program.id())
        .collect();
    let maps = loaded_maps()
        .flatten()
        .filter(|map| names.0.contains(map.name()))
        .map(|map| Object::Map(map.id()));
    let links = loaded_links()
        .flatten()
        .filter(|link| programs.contains(&link.program_id()))
        .map(|link| Object::Link(link.id()));
    maps.chain(links)
        .chain(programs.iter().map(|id| Object::Program(*id)))
        .collect()
}

/// The names of the programs and maps of an instance, cut short as the kernel keeps them.
struct Names(HashSet<Vec<u8>>);

impl Names {
    fn of(objects: &HashSet<Object>) -> Self {
        let programs = loaded_programs()
            .flatten()
            .filter(|program| objects.contains(&Object::Program(program.id())))
            .map(|program| program.name().to_vec());
        let maps = loaded_maps()
            .flatten()
            .filter(|map| objects.contains(&Object::Map(map.id())))
            .map(|map| map.name().to_vec());
        Self(programs.chain(maps).collect())
    }
}

/// What the process `pid` holds.
fn held_by(pid: &str) -> HashSet<Object> {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(pid).join("fdinfo")) else {
        return HashSet::new();
    };
    files
        .flatten()
        .filter_map(|file| object_in(&fs::read_to_string(file.path()).ok()?))
        .collect()
}

/// The object that a file in `/proc/PID/fdinfo` is of. A link's names its program as well.
fn object_in(fdinfo: &str) -> Option<Object> {
    let number = |name: &str| {
        let value = fdinfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    number("link_id:")
        .map(Object::Link)
        .or_else(|| number("prog_id:").map(Object::Program))
        .or_else(|| number("map_id:").map(Object::Map))
}

/// What any process holds.
fn held() -> HashSet<Object> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
        .flat_map(|pid| held_by(&pid))
        .collect()
}

/// Waits until the kernel holds nothing of that name that was not there before and that no process
/// holds.
#[track_caller]
fn assert_nothing_left(names: &Names, before: &HashSet<Object>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = in_kernel(names);
        let held = held();
        let left: Vec<_> = now
            .iter()
            .filter(|object| !before.contains(object) && !held.contains(object))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A running instance. Dropping it kills it.
struct Instance {
    child: Child,
    ready: PathBuf,
}

impl Instance {
    fn start() -> Self {
        let binary = env::var_os("RSTWATCH_BIN")
            .expect("RSTWATCH_BIN names no binary to test: run `cargo xtask test`");
        let ready = env::temp_dir().join(format!("rstwatch-leftovers-{}", std::process::id()));
        // There only after a run that was killed.
        let _ = fs::remove_file(&ready);
        let child = Command::new(binary)
            .arg("--ready-file")
            .arg(&ready)
            .stdout(File::options().write(true).open("/dev/null").unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start the binary");
        Self { child, ready }
    }

    fn holds(&self) -> HashSet<Object> {
        held_by(&self.child.id().to_string())
    }

    /// Waits until `done`.
    fn await_that(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended by itself: {ended:?}");
            assert!(Instant::now() < deadline, "it takes too long");
            // A start takes a few hundred of these.
            thread::park_timeout(Duration::from_micros(500));
        }
    }

    fn await_ready(&mut self) {
        self.await_that(|instance| instance.ready.exists());
    }

    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has ended, or it is to, in the hardest way there is.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.ready);
    }
}

/// The names in use, and how many objects an instance holds when it is ready.
fn survey() -> (Names, usize) {
    let mut instance = Instance::start();
    instance.await_ready();
    let objects = instance.holds();
    let names = Names::of(&objects);
    let count = |is_it: fn(&Object) -> bool| objects.iter().filter(|object| is_it(object)).count();
    // Else the tests below look for nothing, and find nothing.
    assert!(
        count(|object| matches!(object, Object::Program(_))) >= 4,
        "{objects:?}"
    );
    assert!(
        count(|object| matches!(object, Object::Map(_))) >= 4,
        "{objects:?}"
    );
    assert!(in_kernel(&names).is_superset(&objects), "{objects:?}");
    instance.stop();
    (names, objects.len())
}

#[test]
fn ten_starts_leave_nothing() {
    let _alone = alone();
    let (names, count) = survey();
    let before = in_kernel(&names);
    for _ in 0..TIMES {
        let mut instance = Instance::start();
        instance.await_ready();
        assert_eq!(instance.holds().len(), count);
        instance.stop();
    }
    assert_nothing_left(&names, &before);
}

#[test]
fn a_kill_at_any_moment_leaves_nothing() {
    let _alone = alone();
    let (names, count) = survey();
    let before = in_kernel(&names);
    // At each step of the start, as far as its objects show it, and when it is complete.
    for step in 0..=count {
        let mut instance = Instance::start();
        instance.await_that(|instance| instance.holds().len() >= step);
        drop(instance);
    }
    let mut instance = Instance::start();
    instance.await_ready();
    drop(instance);
    assert_nothing_left(&names, &before);
}

#[test]
fn the_objects_of_a_process_are_read_from_its_files() {
    assert_eq!(
        object_in("pos:\t0\nmap_type:\t1\nmap_id:\t7\n"),
        Some(Object::Map(7))
    );
    let link = "link_type:\traw_tracepoint\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t9\n";
    assert_eq!(object_in(link), Some(Object::Link(3)));
    assert_eq!(
        object_in("pos:\t0\nprog_type:\t26\nprog_id:\t9\n"),
        Some(Object::Program(9))
    );
    assert_eq!(object_in("pos:\t0\nflags:\t02\n"), None);
}
