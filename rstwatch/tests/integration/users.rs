//! Whose user an owner is: its process's real one, while it lives and after.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use rstwatch::scenario::netns::Netns;

use crate::tracer::{Scratch, Tracer, binary, calm};

#[test]
fn an_owner_has_the_user_of_its_process() {
    const USERS: [u32; 4] = [0, 1, 1_000, 65_534];
    let _calm = calm();
    let netns = Netns::new().expect("a namespace");
    let scratch = Scratch::new();
    let mut command = Command::new(binary());
    command
        .args(["-j", "--netns", &netns.inode().to_string()])
        .arg("--received")
        .stdout(File::create(scratch.path("stdout")).expect("a file"));
    let mut tracer = Tracer::spawn(command, scratch);
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
