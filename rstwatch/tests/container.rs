//! Resets in containers of real runtimes carry the container: its id, runtime, cgroup and network
//! namespace. Needs root, and the binary with its BPF programs: `cargo xtask test` provides both.
//!
//! The runtimes are started as docker, podman and the kubelet start them: with a cgroup path of
//! their form. The containers' root file system holds a static busybox and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, and its helpers are no test functions"
)]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says which network namespace it is in, and for each line that comes, and at the end, connects to
/// a port where nobody listens. `nc` is a process of its own.
const SCRIPT: &str = "busybox ip link set lo up && busybox readlink /proc/self/ns/net; \
                      while read go; do busybox nc 127.0.0.1 9; done; busybox nc 127.0.0.1 9";

const POD: &str = "12fdc709-933e-41d0-917f-cd84de9afa94";

/// Asks again and again until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// A directory that is removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("rstwatch-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// rstwatch, and what it prints.
struct Tracer {
    child: Child,
    events: Receiver<Value>,
}

impl Tracer {
    fn start(directory: &Path) -> Self {
        let binary = env::var_os("RSTWATCH_BIN")
            .expect("RSTWATCH_BIN names no binary to test: run `cargo xtask test`");
        let ready = directory.join("ready");
        let mut child = Command::new(binary)
            .args(["-j", "--ready-file"])
            .arg(&ready)
            .stdout(Stdio::piped())
            .spawn()
            .expect("rstwatch starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("JSON");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut tracer = Self { child, events };
        wait_for("rstwatch to be ready", || {
            let ended = tracer.child.try_wait().unwrap();
            assert_eq!(ended, None, "rstwatch ended: do the tests run as root?");
            ready.exists().then_some(())
        });
        tracer
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// The next event of this direction in a network namespace.
    #[track_caller]
    fn event(&self, direction: &str, netns: u64) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|error| panic!("no event: {error}"));
            if event["netns"] == netns && event["direction"] == direction {
                return event;
            }
        }
    }

    /// Whether it watches the cgroup with this inode number for new ones.
    fn watches(&self, inode: u64) -> bool {
        let watch = format!(" ino:{inode:x} ");
        let files = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        files
            .flatten()
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .flat_map(|info| info.lines().map(str::to_owned).collect::<Vec<_>>())
            .any(|line| line.starts_with("inotify ") && line.contains(&watch))
    }

    /// Stops it where it is, so that it misses what happens meanwhile.
    fn pause(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        wait_for("rstwatch to stop", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            fields.trim_start().starts_with('T').then_some(())
        });
    }

    fn go_on(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Killed without a word, since it may be paused.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One test at a time: the kernel gives a namespace's number to the next one, so that a tracer would
/// take the events of another test's container for its own's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A container that runs [`SCRIPT`].
struct Container {
    runtime: &'static str,
    id: String,
    cgroup: String,
    /// The cgroup above that was made for it and every other.
    top: String,
    directory: TempDir,
    child: Child,
    stdin: Option<ChildStdin>,
    netns: u64,
}

impl Container {
    /// Starts a container whose id is made of `digit`, with a cgroup of the form `path`, in which
    /// `ID` stands for the id.
    fn start(name: &str, runtime: &'static str, digit: char, path: &str) -> Self {
        let directory = TempDir::new(name);
        let bin = directory.0.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(find("busybox"), bin.join("busybox")).unwrap();

        let id = digit.to_string().repeat(64);
        let top = format!("/rstwatch-{name}-{}", std::process::id());
        let cgroup = format!("{top}{}", path.replace("ID", &id));
        let made = Command::new(runtime)
            .arg("spec")
            .current_dir(&directory.0)
            .status()
            .unwrap_or_else(|error| panic!("{runtime}: {error}: run `cargo xtask test`"));
        assert!(made.success());
        let config = directory.0.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/busybox", "sh", "-c", SCRIPT]);
        spec["linux"]["cgroupsPath"] = json!(cgroup);
        // Rules for devices are a BPF program, for which not every host has a limit to spare.
        spec["linux"].as_object_mut().unwrap().remove("resources");
        fs::write(&config, spec.to_string()).unwrap();

        let mut child = Self::command(runtime, &directory.0)
            .args(["run", &id])
            .current_dir(&directory.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let netns = line
            .trim()
            .strip_prefix("net:[")
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|inode| inode.parse().ok())
            .unwrap_or_else(|| panic!("{runtime} did not start the container: {line:?}"));
        Self {
            runtime,
            id,
            cgroup,
            top,
            directory,
            child,
            stdin,
            netns,
        }
    }

    /// The runtime, with its state in `directory`. crun does not know the mixture of old and
    /// unified hierarchies: it gets a mount namespace with the unified one alone.
    fn command(runtime: &str, directory: &Path) -> Command {
        const UNIFIED: &str = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.arg("--mount");
        match runtime {
            "crun" => command.args([
                "sh",
                "-c",
                UNIFIED,
                "sh",
                "crun",
                "--cgroup-manager=cgroupfs",
            ]),
            other => command.arg(other),
        };
        command.arg("--root").arg(directory.join("state"));
        command
    }

    /// Lets it make a reset.
    fn reset(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Lets it make its last reset, and waits until the runtime has cleaned up behind it.
    fn finish(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
        assert!(!self.directory_of_cgroup().exists(), "{}", self.cgroup);
    }

    fn directory_of_cgroup(&self) -> PathBuf {
        let (mount, _) = hierarchies()
            .into_iter()
            .find(|(_, kind)| kind == "cgroup2")
            .expect("a mounted unified hierarchy");
        mount.join(self.cgroup.trim_start_matches('/'))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = Self::command(self.runtime, &self.directory.0)
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
        // The runtimes leave the cgroups above the container's.
        for (mount, _) in hierarchies() {
            let mut left = Path::new(&self.cgroup);
            while left.starts_with(&self.top) {
                let _ = fs::remove_dir(mount.join(left.strip_prefix("/").unwrap()));
                left = left.parent().unwrap();
            }
        }
    }
}

/// Mount points of cgroup hierarchies and their kinds.
fn hierarchies() -> Vec<(PathBuf, String)> {
    fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup")
                .then(|| (PathBuf::from(point), kind.to_owned()))
        })
        .collect()
}

fn find(program: &str) -> PathBuf {
    env::split_paths(&env::var_os("PATH").unwrap())
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no {program}: run `cargo xtask test`"))
}

#[track_caller]
fn assert_place(event: &Value, container: &Container, runtime: Option<&str>, pod: Option<&str>) {
    assert_eq!(event["container"], *container.id, "{event}");
    assert_eq!(event["runtime"], json!(runtime), "{event}");
    assert_eq!(event["pod"], json!(pod), "{event}");
    assert_eq!(event["cgroup"], *container.cgroup, "{event}");
    assert_eq!(event["unit"], Value::Null, "{event}");
    let name = pod.unwrap_or(&container.id[..12]);
    assert_eq!(event["netns_name"], *name, "{event}");
}

#[test]
fn resets_in_a_living_container_carry_it() {
    let _alone = alone();
    let directory = TempDir::new("living");
    let tracer = Tracer::start(&directory.0);
    let mut container = Container::start("docker", "runc", 'd', "/docker/ID");
    container.reset();
    let event = tracer.event("received", container.netns);
    assert_eq!(event["cause"]["id"], "refused");
    assert_eq!(event["owner"]["comm"], "busybox");
    assert_eq!(event["socket"]["kernel"], false);
    assert_place(&event, &container, Some("docker"), None);
    container.finish();
}

/// The port that was closed has no owner; the namespace that it was closed in has a name, for which
/// all processes are looked at. When that was done for another namespace, it is a second until it is
/// done again.
#[test]
fn a_reset_without_an_owner_names_the_containers_namespace() {
    let _alone = alone();
    let directory = TempDir::new("nobody");
    let tracer = Tracer::start(&directory.0);
    let path = format!("/kubepods/besteffort/pod{POD}/ID");
    let mut container = Container::start("pod", "runc", 'e', &path);
    wait_for("the namespace's name", || {
        container.reset();
        let event = tracer.event("sent", container.netns);
        assert_eq!(event["cause"]["id"], "closed-port");
        assert_eq!(event["owner"], Value::Null);
        assert_eq!(event["container"], Value::Null);
        (event["netns_name"] == POD).then_some(())
    });
    let event = tracer.event("received", container.netns);
    assert_place(&event, &container, None, Some(POD));
    container.finish();
}

/// Nothing is left to be asked when the event is read: neither the process, which was never seen
/// before, nor the container, nor its cgroup.
#[test]
fn a_reset_in_a_container_that_has_gone_carries_it() {
    let _alone = alone();
    let directory = TempDir::new("gone");
    let tracer = Tracer::start(&directory.0);
    for (name, runtime, digit, path, named) in [
        (
            "podman",
            "crun",
            'a',
            "/libpod_parent/libpod-ID",
            Some("podman"),
        ),
        ("split", "runc", 'b', "/docker/ID", Some("docker")),
    ] {
        let mut container = Container::start(name, runtime, digit, path);
        let inode = fs::metadata(container.directory_of_cgroup()).unwrap().ino();
        wait_for("rstwatch to watch the cgroup", || {
            tracer.watches(inode).then_some(())
        });
        tracer.pause();
        container.finish();
        tracer.go_on();
        let event = tracer.event("received", container.netns);
        assert_eq!(event["owner"]["exe"], Value::Null, "{event}");
        assert_place(&event, &container, named, None);
    }
}

/// Nobody waits for anybody: whether the process, the container and its cgroup are still there
/// when the event is read, or the watching thread was as quick as the container, is left to chance.
/// The place is right or unknown, and never another container's.
#[test]
fn short_lived_containers_are_told_apart() {
    let _alone = alone();
    let directory = TempDir::new("short");
    let tracer = Tracer::start(&directory.0);
    let mut known = 0;
    for digit in "0123456789".chars() {
        let name = format!("short{digit}");
        let mut container = Container::start(&name, "runc", digit, "/docker/ID");
        container.finish();
        let event = tracer.event("received", container.netns);
        if event["container"] != Value::Null {
            assert_place(&event, &container, Some("docker"), None);
            known += 1;
        }
    }
    assert!(known > 0, "no place of ten was known");
}
