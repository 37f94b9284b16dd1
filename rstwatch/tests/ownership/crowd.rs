//! Very many connections: those that exist at the start are known soon, and what is kept for those
//! that are made later has a bound.

use std::{fs, net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    cast::{Role, Scene},
    score::{Doer, Score, Wanted},
    tracer::storm,
    watch::Watch,
};

/// Connections that exist at the start.
const CROWD: usize = 10_000;

/// How many of them are reset.
const RESET: usize = 200;

/// More than the tracer may take to start on a busy machine. What it took is printed.
const START: Duration = Duration::from_secs(3);

/// Sockets that are tracked at the same time: as many as the map takes.
const TRACKED: usize = 65_536;

/// Connections between two processes. More would use up the ports, or the files that a process may
/// have open.
const OF_A_PAIR: usize = 16_384;

/// Connections that a listener's queue takes.
const QUEUE: usize = 100;

/// What the tracer may take for them, maps included, in bytes. What the start alone took, to read
/// the kernel's types and symbols, has been given back by then.
const MEMORY: u64 = 40 << 20;

/// Opens `count` connections, which both ends keep.
fn gather(server: &mut Role, client: &mut Role, at: SocketAddr, count: usize) {
    let mut left = count;
    while left > 0 {
        let some = left.min(QUEUE);
        client.say(&format!("many {at} {some}"));
        server.say(&format!("accept-many {some}"));
        left -= some;
    }
}

/// Numbers that are below `end` and differ, in no order that means anything.
fn scattered(count: usize, end: usize) -> impl Iterator<Item = usize> {
    // A step that shares no divisor with the end comes to every number once.
    (0..count).map(move |i| (i * 7_919 + 17) % end)
}

#[test]
fn a_crowd_at_the_start_is_known() {
    let _alone = storm();
    let scene = Scene::new();
    let (mut server, at) = scene.listening(0);
    let mut client = scene.role("client");
    gather(&mut server, &mut client, at, CROWD);

    let watch = Watch::start(scene.netns());
    let start = watch.start_time();
    let wanted: Vec<Vec<Wanted>> = scattered(RESET, CROWD)
        .map(|which| {
            let (by, other) = if which.is_multiple_of(2) {
                (&mut client, &server)
            } else {
                (&mut server, &client)
            };
            let ends = by.say(&format!("reset {which}"));
            let mut ends = ends.split(' ').map(|end| end.parse().expect("an end"));
            let (own, far) = (ends.next().expect("own"), ends.next().expect("far"));
            vec![
                Wanted::sent(by.netns(), own, far)
                    .owner(by.who())
                    .actor(Doer::process(by.who())),
                Wanted::received(other.netns(), far, own).owner(other.who()),
            ]
        })
        .collect();
    let seen = watch.await_events(&scene.netns(), 2 * RESET);
    let score = Score::new("one of a crowd", &wanted, &seen, start);
    watch.stop(Signal::SIGINT);

    println!("traces {CROWD} existing connections after {start:?}");
    println!("{}", crate::score::table(std::slice::from_ref(&score)));
    let complaints: Vec<&str> = score.complaints().take(3).collect();
    assert!(complaints.is_empty(), "\n- {}", complaints.join("\n- "));
    assert_eq!(crate::score::total(&[score]), (RESET, RESET));
    assert!(start < START, "took {start:?} to start");
}

#[test]
fn a_full_house_has_its_bound() {
    let _alone = storm();
    let scene = Scene::new();
    let watch = Watch::start(scene.netns());
    let mut cast = Vec::new();
    for _ in 0..TRACKED / OF_A_PAIR {
        let (mut server, at) = scene.listening(0);
        let mut client = scene.role("client");
        gather(&mut server, &mut client, at, OF_A_PAIR);
        cast.extend([server, client]);
    }
    let (own, mapped) = resident(watch.pid());
    let (peak, maps) = (peak_memory(watch.pid()), map_memory(watch.pid()));
    let kernel: u64 = maps.iter().map(|(_, bytes)| bytes).sum();
    watch.stop(Signal::SIGINT);

    let sum = own + kernel;
    println!("{TRACKED} tracked sockets: {sum} bytes: {own} of its own and {kernel} of maps");
    for (name, bytes) in &maps {
        println!("  map {name}: {bytes}");
    }
    println!("  peak RSS {peak}, with what only the start took and {mapped} of the ring's pages");
    assert!(sum < MEMORY, "{own} bytes of its own, and {maps:?}");
}

/// What of the process is in memory: its own, and pages of BPF maps, which [`map_memory`] counts.
fn resident(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the tracer has ended");
    let (mut own, mut mapped, mut is_map) = (0, 0, false);
    for line in text.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let bytes = 1_024
                * kib
                    .trim()
                    .trim_end_matches(" kB")
                    .parse::<u64>()
                    .expect("a number");
            *(if is_map { &mut mapped } else { &mut own }) += bytes;
        } else if !line
            .split(' ')
            .next()
            .is_some_and(|word| word.ends_with(':'))
        {
            // Not a field: a mapping begins, with what is mapped at the end of the line.
            is_map = line.ends_with("anon_inode:bpf-map");
        }
    }
    (own, mapped)
}

/// The process's greatest resident set so far.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the tracer has ended");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    1_024 * kib.expect("VmHWM").trim().parse::<u64>().expect("a number")
}

/// What each BPF map of the process takes in the kernel, by type and id.
fn map_memory(pid: u32) -> Vec<(String, u64)> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the tracer has ended");
    let mut maps: Vec<(String, u64)> = files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .filter_map(|text| {
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let name = format!(
                "type {}, {} entries of {} bytes, id {}",
                field("map_type:")?,
                field("max_entries:")?,
                field("value_size:")?,
                field("map_id:")?
            );
            Some((name, field("memlock:")?.parse().ok()?))
        })
        .collect();
    // A map may have several descriptors.
    maps.sort();
    maps.dedup();
    maps
}
