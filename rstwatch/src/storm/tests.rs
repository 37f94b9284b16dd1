//! Recorded sequences of events under a clock that the tests set.

use jiff::tz::TimeZone;

use super::{words::Verdict as Words, *};
use crate::{
    cause::{HostFacts, classify},
    event::{Event, ListenerEnd, Listening, TcpFlags, TcpState, Via},
    fixture,
};

/// 21:03:00 of that day.
const START_NS: u64 = fixture::TIME_NS - fixture::TIME_NS % SECOND_NS + 180 * SECOND_NS;

const STEP_NS: u64 = rates::SAMPLE_NS;

/// Watches what is played to it.
struct Play {
    watch: Watch,
    ns: u64,
    /// Resets counted elsewhere, when they are.
    counted: Option<Counted>,
    said: Vec<Report>,
}

impl Play {
    fn new() -> Self {
        let mut play = Self {
            watch: Watch::default(),
            ns: 0,
            counted: None,
            said: Vec::new(),
        };
        play.tick();
        play
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ns: 7_000 + self.ns,
            wall_ns: START_NS + self.ns,
        }
    }

    fn tick(&mut self) {
        let report = self.watch.tick(self.now(), self.counted);
        self.said.extend(report);
    }

    /// `seconds` of `per_second` events; the n-th of all is made by `event`.
    fn run(&mut self, seconds: u64, per_second: u64, event: impl Fn(u64) -> Event) -> &mut Self {
        let each = per_second * STEP_NS / SECOND_NS;
        for step in 0..seconds * SECOND_NS / STEP_NS {
            for i in 0..each {
                let mut event = event(step * each + i);
                event.time_ns = START_NS + self.ns + i * STEP_NS / each;
                let verdict = classify(&event, &HostFacts::default());
                self.watch.note(&event, &verdict);
            }
            self.ns += STEP_NS;
            self.tick();
        }
        self
    }

    fn calm(&mut self, seconds: u64) -> &mut Self {
        self.run(seconds, 4, |_| fixture::unread())
    }

    fn phases(&self) -> Vec<Phase> {
        self.said.iter().map(|report| report.phase).collect()
    }

    fn sentence(&self, nth: usize) -> String {
        Words::new(&self.said[nth], &TimeZone::UTC).sentence()
    }
}

/// A SYN from one of `clients` addresses for port 8080, where nginx listened until it crashed.
fn gone(n: u64, clients: u64) -> Event {
    let mut killed = fixture::actor(812, "nginx");
    killed.exiting = true;
    killed.signal = Some(11);
    let mut event = fixture::closed_port();
    event.remote = fixture::endpoint(&format!("10.0.0.{}", 9 + n % clients), 50_000);
    event.listener = Some(Box::new(Listening {
        process: fixture::process(812, "nginx"),
        inode: 0,
        age_ns: None,
        ended: Some(ListenerEnd {
            closer: killed,
            ago_ns: 1,
        }),
    }));
    event
}

fn closed_port(port: u16, from: &str) -> Event {
    let mut event = fixture::closed_port();
    event.local.port = port;
    event.remote = fixture::endpoint(from, 50_000);
    event
}

#[test]
fn a_crash_is_told_with_its_time_and_who_comes_back() {
    let mut play = Play::new();
    play.calm(10).run(30, 41_000, |n| gone(n, 3));
    assert_eq!(play.phases(), [Phase::Begin]);
    assert_eq!(
        play.sentence(0),
        "storm since 21:03:10: 41,000/s sent, 10,300 times the usual 4/s; 99.9 % listener-gone on \
         :8080, whose listener nginx[812] was killed by SIGSEGV at 21:03:09, from 3 addresses"
    );
    play.calm(30);
    assert_eq!(play.phases(), [Phase::Begin, Phase::End]);
    assert_eq!(
        play.sentence(1),
        "the storm is over: from 21:03:10 to 21:03:40 (30 s), 1,230,000 resets, up to 41,000/s; \
         99.9 % listener-gone on :8080, whose listener nginx[812] was killed by SIGSEGV at \
         21:03:09, from 3 addresses"
    );
    let end = play.said[1].storm.expect("a storm");
    assert_eq!(end.since_ns, START_NS + 10 * SECOND_NS);
    assert!(!end.from_start);
}

#[test]
fn a_clock_that_is_set_does_not_move_the_beginning() {
    let mut play = Play::new();
    play.calm(10).run(5, 4_000, |n| gone(n, 3));
    let mut now = play.now();
    now.wall_ns += 3_600 * SECOND_NS;
    let storm = play.watch.report(now).storm.expect("a storm");
    assert_eq!(storm.since_ns, START_NS + 10 * SECOND_NS);
}

#[test]
fn a_storm_at_the_start_says_that_it_may_be_older() {
    let mut play = Play::new();
    play.run(4, 2_000, |_| closed_port(8080, "10.0.0.9"));
    assert_eq!(
        play.sentence(0),
        "storm since 21:03:00 or longer: 2,000/s sent; what is usual is not known yet; 100 % \
         closed-port on :8080, from 10.0.0.9"
    );
}

#[test]
fn another_cause_is_a_change_and_is_said_once() {
    let mut play = Play::new();
    play.calm(10)
        .run(20, 4_000, |n| gone(n, 3))
        .run(40, 4_000, |_| fixture::unread());
    assert_eq!(play.phases(), [Phase::Begin, Phase::Change]);
    let sentence = play.sentence(1);
    assert!(
        sentence.starts_with("the storm changed; since 21:03:10: 4,000/s sent"),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("closed-with-unread-data on :8080, of nginx[812], to 10.0.0.9"),
        "{sentence}"
    );
}

#[test]
fn a_storm_that_grows_much_is_a_change() {
    let mut play = Play::new();
    play.calm(10)
        .run(20, 1_000, |n| gone(n, 3))
        .run(20, 3_000, |n| gone(n, 3))
        .run(20, 9_000, |n| gone(n, 3));
    assert_eq!(play.phases(), [Phase::Begin, Phase::Change]);
    assert!(play.sentence(1).contains("9,000/s"), "{}", play.sentence(1));
}

#[test]
fn a_scan_is_told_as_one() {
    let mut play = Play::new();
    play.calm(10)
        .run(5, 2_000, |n| closed_port((n % 400) as u16 + 1, "10.0.0.9"));
    assert!(
        play.sentence(0)
            .ends_with("closed-port, a scan of 400 ports, from 10.0.0.9"),
        "{}",
        play.sentence(0)
    );
    let lead = play.said[0].shape.lead.as_ref().expect("a lead");
    assert!(lead.is_scan());
}

#[test]
fn a_flood_from_everywhere_is_bounded_and_says_so() {
    let mut play = Play::new();
    play.calm(10).run(6, 20_000, |n| {
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let from = format!("{}.{}.{}.7", 11 + n % 80, n / 80 % 256, n / 20_480 % 256);
        closed_port(443, &from)
    });
    let sentence = play.sentence(0);
    assert!(
        sentence.contains("closed-port on :443, from more than "),
        "{sentence}"
    );
    let shape = &play.said[0].shape;
    assert!(!shape.addrs.is_exact() && shape.addrs.distinct <= heavy::COUNTERS);
    assert!(shape.addrs.error * heavy::COUNTERS as u64 <= 4 * shape.total());
    // One port was asked for, so its count is exact.
    assert!(shape.ports.is_exact());
}

#[test]
fn a_flood_from_one_network_names_it() {
    let mut play = Play::new();
    play.calm(10).run(5, 2_000, |n| {
        closed_port(443, &format!("192.0.2.{}", n % 250))
    });
    // One of the addresses was there before.
    assert_eq!(
        play.sentence(0),
        "storm since 21:03:10: 2,000/s sent, 500 times the usual 4/s; 99.3 % closed-port on :443, \
         from 251 addresses, 99.3 % in 192.0.2.0/24"
    );
}

#[test]
fn both_ends_on_this_host_are_one_storm() {
    let mut play = Play::new();
    let both = |n: u64| {
        let mut event = if n.is_multiple_of(2) {
            fixture::closed_port()
        } else {
            fixture::received(TcpState::SynSent)
        };
        event.peer = Some(Box::new(crate::event::Peer {
            owner: None,
            actor: None,
            cause: "refused",
        }));
        event
    };
    play.calm(10).run(5, 2_000, both);
    assert_eq!(
        play.sentence(0),
        "storm since 21:03:10: 1,000/s sent, 1,000/s received (both ends are on this host), 500 \
         times the usual 4/s; 98.6 % of those sent closed-port on :8080, from 10.0.0.9"
    );
}

#[test]
fn an_owner_that_dominates_is_named() {
    let mut play = Play::new();
    let client = |n: u64| {
        let mut event = fixture::received(TcpState::SynSent);
        let pid = if n.is_multiple_of(10) { 5 } else { 77 };
        event.owner = Some(fixture::owner(pid, "client", Via::Connect));
        event
    };
    play.run(15, 4, client).run(5, 2_000, client);
    let sentence = play.sentence(0);
    assert!(
        sentence.ends_with(
            "100 % refused at port 443 of the other end, 90.0 % of client[77], from 10.0.0.9"
        ) || sentence.contains("% of client[77]"),
        "{sentence}"
    );
}

#[test]
fn no_cause_may_stand_out() {
    let mut play = Play::new();
    let mixed = |n: u64| match n % 3 {
        0 => fixture::closed_port(),
        1 => fixture::unread(),
        _ => {
            let mut event = fixture::closed_port();
            event.segment = Some(fixture::segment(TcpFlags::ACK, 10));
            event
        }
    };
    play.run(15, 4, mixed).run(5, 3_000, mixed);
    assert!(
        play.sentence(0)
            .contains("no cause stands out: 33.3 % sent "),
        "{}",
        play.sentence(0)
    );
}

#[test]
fn rates_come_from_the_exact_count_when_there_is_one() {
    let mut play = Play {
        watch: Watch::default(),
        ns: 0,
        counted: Some(Counted {
            sent: 1_000_000,
            received: 0,
        }),
        said: Vec::new(),
    };
    play.tick();
    // The kernel counts 40,000 a second; the detail of 1,000 of them is seen.
    for _ in 0..40 {
        if let Some(counted) = &mut play.counted {
            counted.sent += 1;
        }
        play.ns += STEP_NS;
        play.tick();
    }
    for _ in 0..20 {
        if let Some(counted) = &mut play.counted {
            counted.sent += 10_000;
        }
        for n in 0..250 {
            let event = gone(n, 3);
            let verdict = classify(&event, &HostFacts::default());
            play.watch.note(&event, &verdict);
        }
        play.ns += STEP_NS;
        play.tick();
    }
    assert_eq!(play.phases(), [Phase::Begin]);
    assert!(
        play.sentence(0)
            .contains(": 40,000/s sent, 10,000 times the usual 4/s; 100 % listener-gone"),
        "{}",
        play.sentence(0)
    );
    for _ in 0..40 {
        play.ns += STEP_NS;
        play.tick();
    }
    assert!(
        play.sentence(1)
            .ends_with("; told by the 2.5 % seen in detail"),
        "{}",
        play.sentence(1)
    );
}

#[test]
fn the_shape_is_of_the_last_seconds_or_of_all() {
    let mut play = Play::new();
    play.calm(10).run(3, 400, |n| gone(n, 3)).calm(30);
    let lately = play.watch.shape(Window::Lately, 10);
    let ever = play.watch.shape(Window::Ever, 10);
    assert!((20..=40).contains(&lately.sent), "{}", lately.sent);
    assert_eq!(lately.causes.rows.len(), 1);
    assert_eq!(ever.sent, 40 + 1_200 + 120);
    assert_eq!(ever.causes.rows[0].count, 1_200);
    assert_eq!(
        play.watch.seen(),
        Counted {
            sent: 1_360,
            received: 0
        }
    );
    let report = play.watch.report(play.now());
    assert_eq!(
        Words::new(&report, &TimeZone::UTC).headline,
        "4/s sent, usually 4/s"
    );
}

#[test]
fn a_storm_does_not_begin_before_the_crash_that_it_comes_from() {
    let since = 20 * SECOND_NS;
    let cases = [
        (None, since),
        (Some(since - 1), since),
        (Some(since), since),
        (Some(since + SECOND_NS / 4), since + SECOND_NS / 4),
        // Another listener, which went while the storm was on.
        (Some(since + SECOND_NS), since),
    ];
    for (gone, began) in cases {
        assert_eq!(began_ns(since, gone), began, "{gone:?}");
    }
}
