//! The binary under test: started, watched and stopped without a sleep that stands for anything.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        utsname::uname,
    },
    unistd::{Pid, geteuid},
};
use rstwatch::{
    event::Direction,
    scenario::{Family, catalogue, stage::Stage},
};
use serde_json::Value;

/// For how long the binary may take to begin, to show what it saw, and to end.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(2);

/// Tracers see the whole host, so a storm made by one test is a storm in every other. Whoever makes
/// one holds this alone.
static CALM: RwLock<()> = RwLock::new(());

/// Held while a test must not run beside a storm.
pub fn calm() -> RwLockReadGuard<'static, ()> {
    // A test that failed while it held the lock has left nothing broken behind.
    CALM.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held while a test makes a storm.
pub fn storm() -> RwLockWriteGuard<'static, ()> {
    CALM.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let named = env::var_os("RSTWATCH_BIN").map(PathBuf::from);
    let binary = named.expect("RSTWATCH_BIN does not name a binary: run `cargo xtask test`");
    assert!(
        binary.is_file(),
        "RSTWATCH_BIN names {}, which is no file: run `cargo xtask test`",
        binary.display()
    );
    assert!(
        geteuid().is_root(),
        "tracing and network namespaces need root: run `cargo xtask test`"
    );
    binary
}

/// Whether this kernel gives a reason for every reset that it sends.
pub fn names_reasons() -> bool {
    is_since(6, 12)
}

/// Whether this kernel is of that version or a later one.
pub fn is_since(major: u32, minor: u32) -> bool {
    let release = uname().expect("uname").release().to_owned();
    let release = release.to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// A stage for the scenario `name`, with what comes before the tracer already played.
pub fn stage(name: &str, family: Family) -> Stage {
    let scenario = catalogue::find(name).expect("no such scenario");
    let mut stage = Stage::new(scenario, family, &binary()).unwrap_or_else(|e| panic!("{e:#}"));
    stage.prepare().unwrap_or_else(|e| panic!("{e:#}"));
    stage
}

/// Plays steps on a stage.
pub fn run(stage: &mut Stage, script: &str) {
    stage.run(script).unwrap_or_else(|e| panic!("{e:#}"));
}

/// A directory that goes with the test.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one, readable for everyone.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rstwatch-test-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("cannot make a directory for the test");
        Self(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary, tracing.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    scratch: Scratch,
}

impl Tracer {
    /// Starts it with `-j` and `args` for the network namespaces of `stage`, its output in a file.
    pub fn json<S: AsRef<OsStr>>(stage: &Stage, args: &[S]) -> Self {
        Self::start(
            stage,
            [OsStr::new("-j")]
                .into_iter()
                .chain(args.iter().map(AsRef::as_ref)),
        )
    }

    /// Starts it with `args` for the network namespaces of `stage`, its output in a file.
    pub fn start<S: AsRef<OsStr>>(stage: &Stage, args: impl IntoIterator<Item = S>) -> Self {
        Self::watching(stage.netns(), args)
    }

    /// The same for network namespaces by their inodes.
    pub fn watching<S: AsRef<OsStr>>(
        netns: impl IntoIterator<Item = u32>,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut command = Command::new(binary());
        for netns in netns {
            command.args(["--netns", &netns.to_string()]);
        }
        command.args(args);
        let scratch = Scratch::new();
        let stdout = File::create(scratch.path("stdout")).expect("cannot make a file");
        command.stdout(stdout);
        Self::spawn(command, scratch)
    }

    /// Starts `command`, a binary under test, with whatever standard output it has, and waits until
    /// it traces.
    pub fn spawn(mut command: Command, scratch: Scratch) -> Self {
        let ready = scratch.path("ready");
        let stderr = File::create(scratch.path("stderr")).expect("cannot make a file");
        let child = command
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("cannot start the binary");
        let mut tracer = Self { child, scratch };
        let begun = tracer.poll(|tracer| {
            let ended = tracer.child.try_wait().expect("cannot wait");
            assert!(
                ended.is_none(),
                "ended before it traced ({}): {}",
                ended.expect("just seen"),
                tracer.read("stderr")
            );
            ready.exists()
        });
        assert!(begun, "did not trace after {PATIENCE:?}");
        tracer
    }

    /// Waits until `count` lines were written, or for as long as it may take.
    pub fn await_lines(&mut self, count: usize) {
        self.poll(|tracer| tracer.read("stdout").lines().count() >= count);
    }

    /// Waits until a line was written in which `text` stands, and gives that line.
    pub fn await_text(&mut self, text: &str) -> String {
        let mut found = None;
        self.poll(|tracer| {
            let written = tracer.read("stdout");
            found = written
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no '{text}' in: {}", self.read("stdout")))
    }

    /// Asks it to end by `signal` and waits until it has.
    pub fn stop(self, signal: Signal) -> Finished {
        self.signal(signal);
        self.finish()
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("a PID"));
        kill(pid, signal).expect("cannot send a signal");
    }

    /// Waits until it has ended.
    pub fn finish(mut self) -> Finished {
        let mut status = None;
        let ended = self.poll(|tracer| {
            status = tracer.child.try_wait().expect("cannot wait");
            status.is_some()
        });
        assert!(ended, "did not end within {PATIENCE:?}");
        Finished {
            status: status.expect("it has ended"),
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
        }
    }

    /// The standard output, when the command was given a pipe.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("no pipe")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.scratch.path(name)).unwrap_or_default();
        String::from_utf8(bytes).expect("output that is not UTF-8")
    }

    /// Looks until `done`, but not for ever. Returns whether it was.
    fn poll(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left of a run.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Its events and its summary, after making sure that it ended well.
    pub fn json(&self) -> (Vec<Value>, Value) {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        // What a storm is like is said in between, and not all tests make one alone.
        let mut events: Vec<Value> = self
            .stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"))
            })
            .filter(|line: &Value| line.get("storm").is_none())
            .collect();
        let last = events.pop().expect("not even a summary");
        let summary = last["summary"].clone();
        assert!(summary.is_object(), "the last line is no summary: {last}");
        (events, summary)
    }
}

/// What a summary says of the namespaces of `stage`: resets seen sent, and by how much the kernel's
/// counter grew, at least and at most.
pub fn reconciled(summary: &Value, stage: &Stage) -> (u64, u64, u64) {
    reconciled_in(summary, &stage.netns())
}

/// The same of the network namespaces with these inodes.
pub fn reconciled_in(summary: &Value, netns: &[u32]) -> (u64, u64, u64) {
    let namespaces = summary["namespaces"].as_array().expect("no namespaces");
    let own = namespaces
        .iter()
        .filter(|count| netns.iter().any(|netns| count["netns"] == *netns));
    own.fold((0, 0, 0), |(sent, low, high), count| {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("in {count}"));
        (
            sent + number(&count["sent_seen"]),
            low + number(&count["out_rsts"]["low"]),
            high + number(&count["out_rsts"]["high"]),
        )
    })
}

/// Each end of a reset whose both ends were seen names the other: on loopback, and across the wire
/// between two namespaces.
pub fn check_pairs(events: &[Value]) {
    let of = |direction: Direction| {
        events
            .iter()
            .filter(move |event| event["direction"] == direction.name())
    };
    for received in of(Direction::Received) {
        let mut others = of(Direction::Sent).filter(|sent| {
            sent["local"] == received["remote"] && sent["remote"] == received["local"]
        });
        // Of several, all but one were lost.
        let Some(sent) = others
            .clone()
            .find(|sent| !sent["peer"].is_null())
            .or_else(|| others.next())
        else {
            assert_eq!(received["peer"], Value::Null, "{received}");
            continue;
        };
        for (end, other) in [(received, sent), (sent, received)] {
            assert_eq!(end["peer"]["owner"], other["owner"], "{end}\n{other}");
            assert_eq!(end["peer"]["actor"], other["actor"], "{end}\n{other}");
            assert_eq!(end["peer"]["cause"], other["cause"]["id"], "{end}\n{other}");
        }
        assert_eq!(received["cause"]["confidence"], "certain", "{received}");
    }
}
