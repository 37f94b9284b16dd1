//! Who pulled the trigger: the process at its end, its killer's signal, the administrator.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::{
    Situation, Take,
    cast::Scene,
    live,
    score::{Doer, Who},
};

pub const ALL: &[Situation] = &[
    live("actor: exit(0) with unread data", exited),
    live("actor: exit(3) with unread data", exited_with_status),
    live("actor: killed by SIGKILL with unread data", killed),
    live("actor: crashed by SIGSEGV with unread data", crashed),
    live(
        "actor: killed by the OOM killer with unread data",
        out_of_memory,
    ),
    live("actor: ss -K, apart from the owner", destroyed),
    live("actor: connect(AF_UNSPEC)", disconnected),
];

/// The server ends as `end` says, with unread data in its connection.
fn ended(
    scene: &Scene,
    rep: usize,
    end: impl FnOnce(&mut crate::cast::Role),
    doer: impl FnOnce(Who) -> Doer,
) -> Take {
    let mut pair = scene.pair(rep);
    pair.leave_unread();
    let who = pair.server.who();
    end(&mut pair.server);
    let sent = pair.server_sends().owner(who).actor(doer(who));
    Take::new([sent.gone(), pair.client_closes_reset()], pair.cast())
}

fn exited(scene: &Scene, rep: usize) -> Take {
    let end = |server: &mut crate::cast::Role| server.ends_by("exit");
    ended(scene, rep, end, |who| Doer::exited(who, 0))
}

fn exited_with_status(scene: &Scene, rep: usize) -> Take {
    let end = |server: &mut crate::cast::Role| server.ends_by("exit 3");
    ended(scene, rep, end, |who| Doer::exited(who, 3))
}

fn killed(scene: &Scene, rep: usize) -> Take {
    let end = |server: &mut crate::cast::Role| server.is_killed(Signal::SIGKILL);
    ended(scene, rep, end, |who| {
        Doer::killed(who, Signal::SIGKILL as i32, false)
    })
}

fn crashed(scene: &Scene, rep: usize) -> Take {
    let end = |server: &mut crate::cast::Role| server.ends_by("crash");
    ended(scene, rep, end, |who| {
        Doer::killed(who, Signal::SIGSEGV as i32, false)
    })
}

fn out_of_memory(scene: &Scene, rep: usize) -> Take {
    let group = MemoryGroup::new(rep);
    let end = |server: &mut crate::cast::Role| {
        group.add(server.pid());
        server.ends_by("eat");
    };
    ended(scene, rep, end, |who| {
        Doer::killed(who, Signal::SIGKILL as i32, true)
    })
}

/// A memory cgroup that holds little.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(rep: usize) -> Self {
        let name = format!("rstwatch-test-{}-{rep}", std::process::id());
        let first = PathBuf::from("/sys/fs/cgroup/memory");
        let (path, limit) = if first.is_dir() {
            (first.join(name), "memory.limit_in_bytes")
        } else {
            (PathBuf::from("/sys/fs/cgroup").join(name), "memory.max")
        };
        fs::create_dir(&path).expect("cannot make a memory cgroup");
        let group = Self(path);
        fs::write(group.0.join(limit), "16777216").expect("cannot limit memory");
        group
    }

    fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("cannot join a cgroup");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty, or the test has failed.
        let _ = fs::remove_dir(&self.0);
    }
}

fn destroyed(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    let administrator = destroy(scene, pair.from);
    let sent = pair
        .client_sends()
        .owner(pair.client.who())
        .actor(Doer::process(administrator));
    pair.client.fail("recv 1", "ECONNABORTED");
    pair.client.say("close");
    Take::new([sent, pair.server_closes_reset()], pair.cast())
}

/// Has `ss -K` destroy the socket with this local port.
fn destroy(scene: &Scene, local: SocketAddr) -> Who {
    let filter = format!("sport = :{}", local.port());
    let run = scene.near().run(move || {
        let mut ss = Command::new("ss")
            .args(["-K", "-t", "-n", "-H", &filter])
            .stdout(Stdio::null())
            .spawn()
            .expect("cannot run ss (iproute2)");
        let pid = ss.id();
        assert!(ss.wait().expect("cannot wait for ss").success());
        pid
    });
    let pid = run.expect("the namespace's thread");
    Who { pid, comm: "ss" }
}

fn disconnected(scene: &Scene, rep: usize) -> Take {
    let mut pair = scene.pair(rep);
    pair.client.say("disconnect");
    let sent = pair
        .client_sends()
        .owner(pair.client.who())
        .actor(Doer::process(pair.client.who()));
    Take::new([sent, pair.server_closes_reset()], pair.cast())
}
