//! Whose user an owner is: its process's real one, while it lives and after.

use std::{
    fs::File,
    io::ErrorKind,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    libc::{SYS_setresuid, syscall},
    sys::signal::Signal,
};
use rstwatch::scenario::netns::Netns;

use crate::tracer::{Scratch, Tracer, binary, calm};

/// Traces the resets that are received in a namespace.
fn received_in(netns: &Netns) -> Tracer {
    let scratch = Scratch::new();
    let mut command = Command::new(binary());
    command
        .args(["-j", "--netns", &netns.inode().to_string()])
        .arg("--received")
        .stdout(File::create(scratch.path("stdout")).expect("a file"));
    Tracer::spawn(command, scratch)
}

#[test]
fn an_owner_has_the_user_of_its_process() {
    const USERS: [u32; 4] = [0, 1, 1_000, 65_534];
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let mut tracer = received_in(&netns);
    for user in USERS {
        let status = netns
            .run(move || {
                Command::new("bash")
                    .args(["-c", "exec 3<>/dev/tcp/127.0.0.1/9"])
                    .current_dir("/")
                    .stderr(Stdio::null())
                    .uid(user)
                    .status()
            })
            .expect("a job")
            .expect("cannot start bash");
        assert!(!status.success(), "nothing listens there");
    }
    tracer.await_lines(USERS.len());
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    let users: Vec<_> = events
        .iter()
        .map(|event| event["owner"]["uid"].as_u64())
        .collect();
    assert_eq!(users, USERS.map(|user| Some(user.into())), "{events:?}");
}

/// What the kernel side remembers of a thread must not outlive what it was read from.
#[test]
fn an_owner_has_the_user_that_its_thread_has_just_become() {
    const USERS: [u32; 6] = [0, 1_000, 0, 65_534, 1_000, 1];
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let mut tracer = received_in(&netns);
    // One right after the other, by a thread that the others of this process do not follow.
    netns
        .run(move || {
            for user in USERS.into_iter().chain([0]) {
                become_really(user);
                let refused = TcpStream::connect(("127.0.0.1", 9)).expect_err("a connection");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            }
        })
        .expect("a job");
    tracer.await_lines(USERS.len() + 1);
    let (events, _) = tracer.stop(Signal::SIGINT).json();
    let users: Vec<_> = events
        .iter()
        .filter_map(|event| event["owner"]["uid"].as_u64())
        .collect();
    let wanted: Vec<_> = USERS.into_iter().chain([0]).map(u64::from).collect();
    assert_eq!(users, wanted, "{events:?}");
}

/// Makes `user` this thread's real user, and leaves its rights as they are. The C library's function would do so for
/// all threads.
fn become_really(user: u32) {
    const AS_IT_IS: u32 = u32::MAX;
    // SAFETY: it takes numbers only.
    let done = unsafe { syscall(SYS_setresuid, user, AS_IT_IS, AS_IT_IS) };
    assert_eq!(done, 0, "{}", Errno::last());
}
