//! Where programs run and are watched: a private network namespace with a PID namespace of its own,
//! so that nothing that a program leaves behind outlives the test.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rstwatch::{
    event::TcpState,
    scenario::{
        netns::Netns,
        tcp_table::{self, Row},
        verdict,
    },
};
use serde_json::Value;

use crate::expect::Reset;
use crate::tracer::{Finished, Scratch, Tracer, binary, check_pairs, reconciled_in};

/// For how long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Where the programs that are tested listen.
pub const FRONT: u16 = 8080;

/// Where what they pass requests on to listens.
pub const UPSTREAM: u16 = 9000;

/// Between fork and exec a child has the sockets of the test itself too. Who starts a program holds
/// this, and so does who closes a socket: else the child would be the last to close it.
static FORKING: Mutex<()> = Mutex::new(());

/// Held while a program starts, or a socket is closed.
pub fn alone() -> MutexGuard<'static, ()> {
    // A test that failed while it held the lock has left nothing broken behind.
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address that everything in a place has.
pub fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits until `look` finds what is wanted.
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} for {what} in vain"
        );
        thread::sleep(LOOK);
    }
}

/// Waits until `done`.
pub fn await_that(what: &str, mut done: impl FnMut() -> bool) {
    await_some(what, || done().then_some(()));
}

/// A private host with a loopback device, and a directory.
pub struct Place {
    /// The first process of the PID namespace: all others end with it.
    init: Child,
    netns: Netns,
    scratch: Scratch,
}

impl Place {
    /// Makes one.
    pub fn new() -> Self {
        let netns = Netns::new().expect("a network namespace");
        let _alone = alone();
        let init = netns.run(|| {
            unshare(CloneFlags::CLONE_NEWPID).expect("a PID namespace");
            // It ends with the thread that starts it, and so does everything else then.
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "sleep", "infinity"])
                .stdin(Stdio::null())
                .spawn()
                .expect("cannot run setpriv (util-linux)")
        });
        let init = init.expect("the namespace's thread");
        await_exec(init.id());
        Self {
            init,
            netns,
            scratch: Scratch::new(),
        }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Writes a file, and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("cannot write a file");
        path
    }

    /// What a file holds; nothing when there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file holds a line with `text` in it.
    pub fn await_text(&self, name: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read(name).contains(text) {
            assert!(
                Instant::now() < deadline,
                "{name} does not say `{text}`, but: {}",
                self.read(name)
            );
            thread::sleep(LOOK);
        }
    }

    /// Makes a file `large`, which does not fit into the buffers of a connection.
    pub fn large_file(&self) {
        let file = File::create(self.path("large")).expect("cannot make a file");
        file.set_len(64 << 20).expect("no room for a file");
    }

    /// The HTTP status that curl gets with `args`.
    pub fn curl_status(&self, args: &[&str]) -> String {
        let always = ["-sS", "-o", "curl.body", "-w", "%{http_code}"];
        let args = always.iter().chain(args).copied();
        self.start("curl", "curl", args).wait();
        self.read("curl.out")
    }

    /// Starts a program; what it prints goes to the files `NAME.out` and `NAME.err`.
    pub fn start<S: Into<OsString>>(
        &self,
        name: &str,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Program {
        self.spawn(name, program, args, Stdio::null(), None)
    }

    /// The same with a pipe from which it reads, and one to which it writes.
    pub fn start_piped<S: Into<OsString>>(
        &self,
        name: &str,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Program {
        self.spawn(name, program, args, Stdio::piped(), Some(Stdio::piped()))
    }

    fn spawn<S: Into<OsString>>(
        &self,
        name: &str,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
        stdin: Stdio,
        stdout: Option<Stdio>,
    ) -> Program {
        let file = |end| File::create(self.path(&format!("{name}.{end}"))).expect("a file");
        let mut command = Command::new(program);
        command
            .args(args.into_iter().map(Into::into))
            .current_dir(self.scratch.path(""))
            .env("LC_ALL", "C.UTF-8")
            .stdin(stdin)
            .stdout(stdout.unwrap_or_else(|| file("out").into()))
            .stderr(file("err"));
        let _alone = alone();
        let child = self.netns.run(move || command.spawn());
        let child = child
            .expect("the namespace's thread")
            .unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        await_exec(child.id());
        Program {
            name: program,
            child,
        }
    }

    /// Connects from the test's own process.
    pub fn connect(&self, port: u16) -> TcpStream {
        self.try_connect(port).expect("cannot connect")
    }

    /// Tries to connect from the test's own process to where nobody listens.
    pub fn is_refused(&self, port: u16) {
        let refused = self.try_connect(port).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
    }

    fn try_connect(&self, port: u16) -> io::Result<TcpStream> {
        let stream = self.netns.run(move || TcpStream::connect(at(port)));
        stream.expect("the namespace's thread")
    }

    /// Listens in the test's own process.
    pub fn listen(&self, port: u16) -> TcpListener {
        let listener = self.netns.run(move || TcpListener::bind(at(port)));
        listener
            .expect("the namespace's thread")
            .expect("cannot listen")
    }

    /// The TCP sockets of this place.
    pub fn rows(&self) -> Vec<Row> {
        tcp_table::read(self.init.id()).expect("the first process is there")
    }

    /// Waits until somebody listens at `port`.
    pub fn await_listener(&self, port: u16) {
        await_that(&format!("a listener at {port}"), || {
            self.rows()
                .iter()
                .any(|row| row.local.port() == port && row.state == TcpState::Listen)
        });
    }

    /// Waits until there is a row as `wanted`, and gives it.
    pub fn await_row(&self, what: &str, wanted: impl Fn(&Row) -> bool) -> Row {
        await_some(what, || self.rows().into_iter().find(&wanted))
    }

    /// Waits until there is no row like that.
    pub fn await_none(&self, what: &str, unwanted: impl Fn(&Row) -> bool) {
        await_that(&format!("the end of {what}"), || {
            !self.rows().iter().any(&unwanted)
        });
    }

    /// Waits until a connection from `port` is full: its receiver has no room, and nothing is under
    /// way.
    pub fn await_full(&self, port: u16) -> Row {
        self.await_row("a full connection", |row| {
            row.local.port() == port && row.probing
        })
    }

    /// Waits until at least `bytes` of what came to the end `local` are unread.
    pub fn await_unread(&self, local: SocketAddr, remote: SocketAddr, bytes: u32) {
        self.await_row("unread data", |row| {
            (row.local, row.remote) == (local, remote) && row.unread >= bytes
        });
    }

    /// Waits until no process holds the end `local` any more, whatever is left of it.
    pub fn await_closed(&self, local: SocketAddr, remote: SocketAddr) {
        self.await_none("an open end", |row| {
            (row.local, row.remote) == (local, remote) && row.held
        });
    }

    /// Starts the tracer for this place.
    pub fn trace(&self) -> Watched<'_> {
        let mut command = Command::new(binary());
        command
            .arg("-j")
            .args(["--netns", &self.netns.inode().to_string()]);
        let scratch = Scratch::new();
        let stdout = File::create(scratch.path("stdout")).expect("cannot make a file");
        command.stdout(stdout);
        let _alone = alone();
        Watched {
            place: self,
            tracer: Tracer::spawn(command, scratch),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A place that is being traced.
pub struct Watched<'a> {
    place: &'a Place,
    tracer: Tracer,
}

impl Watched<'_> {
    /// Demands that exactly these resets were shown, as the kernel counted them.
    pub fn expect(self, expected: &[Reset]) {
        let expected: Vec<Value> = expected.iter().map(Reset::json).collect();
        let (events, counts) = self.events(expected.len());
        let complaints = verdict::compare(&expected, &events);
        assert!(complaints.is_empty(), "\n- {}", complaints.join("\n- "));
        let sent = sent_among(&expected);
        assert_eq!(counts, (sent, sent, sent), "seen sent, and TcpOutRsts");
    }

    /// The events, once there are at least `count`, after making sure that both ends of each tell
    /// the same; and how many resets were seen sent, and the kernel counted, at least and at most.
    pub fn events(mut self, count: usize) -> (Vec<Value>, (u64, u64, u64)) {
        self.tracer.await_lines(count);
        let done: Finished = self.tracer.stop(Signal::SIGINT);
        let (events, summary) = done.json();
        assert_eq!(summary["lost_detail"]["total"], 0, "in {summary}");
        let counts = reconciled_in(&summary, &[self.place.netns.inode()]);
        check_pairs(&events);
        (events, counts)
    }
}

/// How many of these events are of a reset that was sent.
pub fn sent_among(events: &[Value]) -> u64 {
    events
        .iter()
        .filter(|event| event["direction"] == "sent")
        .count() as u64
}

/// A program that runs. Dropping it ends it.
pub struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its PID in the place.
    pub fn inner_pid(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let pid = pids.and_then(|pids| pids.split_ascii_whitespace().last());
        pid.expect("PIDs").to_owned()
    }

    /// What it writes to the pipe that it was given.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    /// The pipe that it reads.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// Its children.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).expect("the kernel lists no children");
        let pids = children.split_ascii_whitespace().map(str::parse);
        pids.map(|pid| pid.expect("a PID")).collect()
    }

    /// Waits until it has so many children, and gives them.
    pub fn await_children(&self, count: usize) -> Vec<u32> {
        await_some(&format!("{count} children of {}", self.name), || {
            Some(self.children()).filter(|pids| pids.len() == count)
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Ends it by a signal, and waits until it is gone.
    pub fn end_by(&mut self, signal: Signal) {
        self.signal(signal);
        self.wait();
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        await_some(&format!("the end of {}", self.name), || {
            child.try_wait().expect("cannot wait")
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a PID"));
    kill(pid, signal).expect("cannot send a signal");
}

/// Stops a process in its wait for events, and waits until it stands still. A signal that comes
/// meanwhile is the first thing that it sees when it goes on.
pub fn stop(pid: u32) {
    await_that("a process to wait", || state(pid) == Some('S'));
    send(pid, Signal::SIGSTOP);
    await_that("a process to stand still", || state(pid) == Some('T'));
}

/// Has a process that was stopped go on.
pub fn resume(pid: u32) {
    send(pid, Signal::SIGCONT);
}

/// Waits until a process that is not the test's own child is gone, all of its files closed.
pub fn await_end(pid: u32) {
    await_that("the end of a process", || {
        matches!(state(pid), None | Some('Z' | 'X'))
    });
}

/// Waits until a signal waits for a process that stands still.
pub fn await_pending(pid: u32, signal: Signal) {
    await_that(&format!("{signal} for process {pid}"), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let pending = status
            .lines()
            .filter_map(|line| {
                line.strip_prefix("SigPnd:")
                    .or(line.strip_prefix("ShdPnd:"))
            })
            .map(|mask| u64::from_str_radix(mask.trim(), 16).expect("a mask"))
            .fold(0, |all, mask| all | mask);
        pending & (1 << (signal as u32 - 1)) != 0
    });
}

/// Waits until a child of a namespace's thread has become another program, and has none of the
/// test's files any more: the kernel closes them before it gives the process the program's name
/// (`begin_new_exec`, `fs/exec.c`), but after it lets the parent go on.
fn await_exec(pid: u32) {
    await_that("a program to begin", || {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.expect("nobody has waited for it yet") != "netns\n"
    });
}

/// The state of a process in `/proc/PID/stat`.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
