//! Events as JSON, one object a line: the contract for scripts. A field that cannot be known is
//! `null` and never missing; a new field may come, and none changes its meaning.
//!
//! Written by hand rather than through a `Serialize` tree: the fields are fixed, and this is the longest piece of work on
//! an event's way.
//!
//! - `line`: what a line says, and in which order.
//! - `kept`: what it has in common with one before is copied from there.
//! - `writer`: numbers, names and strings as text; `clock`: times.

mod clock;
mod kept;
mod line;
mod writer;

use bytes::BytesMut;

use self::kept::Kept;
pub use self::kept::Mark;
pub(super) use self::{clock::Clock, writer::Writer};
use crate::{cause::Verdict, event::Event};

/// Appends events as JSON. It remembers the second that it last printed, and lines that may come again.
#[derive(Debug, Default)]
pub struct Json {
    clock: Clock,
    kept: Kept,
}

impl Json {
    /// Appends `event` with its `verdict` as one object and a newline.
    pub fn append(&mut self, out: &mut BytesMut, event: &Event, verdict: &Verdict) {
        let w = Writer::over(out);
        w.raw("{\"time\":\"");
        self.clock.append(w, event.time_ns);
        self.kept.append(w, event, verdict);
    }

    /// The same for an event that may have been preceded by one of its kind, whose line has this mark: it is not looked
    /// for then. The mark becomes that of this event's line.
    pub(super) fn append_like(
        &mut self,
        out: &mut BytesMut,
        event: &Event,
        verdict: &Verdict,
        mark: &mut Mark,
    ) {
        let w = Writer::over(out);
        w.raw("{\"time\":\"");
        self.clock.append(w, event.time_ns);
        self.kept.append_like(w, event, verdict, mark);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample, sample::Index};

    use super::*;
    use crate::{
        cause::{CauseId, HostFacts, Reasons, catalogue, classify},
        event::{Comm, Direction, Segment, Socket, TcpState, Trigger},
        fixture::{
            self,
            any::{any_event, any_host},
        },
    };

    fn line(event: &Event) -> String {
        let host = HostFacts {
            uptime: None,
            reasons: Reasons::All,
        };
        let mut out = BytesMut::new();
        Json::default().append(&mut out, event, &classify(event, &host));
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    fn value(event: &Event) -> serde_json::Value {
        let line = line(event);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn a_closed_port() {
        insta::assert_snapshot!(line(&fixture::closed_port()));
    }

    #[test]
    fn a_close_with_unread_data() {
        insta::assert_snapshot!(line(&fixture::unread()));
    }

    /// Events that have what changes from line to line from one of these.
    fn any_values() -> impl Strategy<Value = (Event, Segment, Socket)> {
        let end = || {
            let addr = sample::select(vec!["10.0.0.5", "127.0.0.1", "2001:db8::5", "::1"]);
            (addr, sample::select(vec![1, 443, 51_234]))
        };
        let number = || prop_oneof![Just(0_u32), Just(64), any::<u32>()];
        let ns = || sample::select(vec![None, Some(0), Some(1_500_000), Some(u64::MAX)]);
        (
            any::<u64>(),
            (end(), end()),
            [(); 3].map(|()| number()),
            [(); 3].map(|()| ns()),
            [(); 4].map(|()| number()),
        )
            .prop_map(|(time_ns, (local, remote), segment, idle, bytes)| {
                let event = Event {
                    time_ns,
                    local: fixture::endpoint(local.0, local.1),
                    remote: fixture::endpoint(remote.0, remote.1),
                    ..fixture::closed_port()
                };
                let segment = Segment {
                    seq: segment[0],
                    ack: segment[1],
                    ..fixture::segment(0, segment[2])
                };
                let socket = Socket {
                    age_ns: idle[0],
                    idle_rx_ns: idle[1],
                    idle_tx_ns: idle[2],
                    bytes_sent: bytes[0].into(),
                    bytes_received: bytes[1].into(),
                    unread: bytes[2],
                    unacked: bytes[3],
                    ..Socket::default()
                };
                (event, segment, socket)
            })
    }

    /// `event` with these values.
    fn change(event: &mut Event, (from, segment, socket): &(Event, Segment, Socket)) {
        (event.time_ns, event.local, event.remote) = (from.time_ns, from.local, from.remote);
        if let Some(own) = &mut event.segment {
            *own = Segment {
                flags: own.flags,
                ..*segment
            };
        }
        if let Some(own) = &mut event.socket {
            *own = Socket {
                kernel_owned: own.kernel_owned,
                held: own.held,
                orphan: own.orphan,
                ..*socket
            };
        }
    }

    proptest! {
        #[test]
        fn a_line_reads_the_same_whatever_was_kept(
            mut events in vec(any_event(), 1..4),
            host in any_host(),
            changes in vec((any::<Index>(), any_values()), 1..24),
        ) {
            let len = events.len();
            let mut json = Json::default();
            for (which, values) in changes {
                let event = &mut events[which.index(len)];
                change(event, &values);
                let verdict = classify(event, &host);
                let (mut kept, mut anew) = (BytesMut::new(), BytesMut::new());
                json.append(&mut kept, event, &verdict);
                Json::default().append(&mut anew, event, &verdict);
                prop_assert_eq!(kept, anew);
            }
        }
    }

    #[test]
    fn both_ends_of_one_process_are_kept() {
        let host = HostFacts {
            uptime: None,
            reasons: Reasons::All,
        };
        let sent = fixture::unread();
        let mut received = sent.clone();
        received.direction = Direction::Received;
        received.trigger = Trigger::Received;
        (received.reason, received.actor) = (None, None);
        let mut json = Json::default();
        let mut out = BytesMut::new();
        for event in [&sent, &received, &sent, &received] {
            json.append(&mut out, event, &classify(event, &host));
        }
        assert_eq!(json.kept.len(), 2);
        let text = String::from_utf8(out.to_vec()).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1]), (lines[2], lines[3]));
    }

    #[test]
    fn ipv6_with_several_holders_and_a_killed_actor() {
        let mut event = fixture::unread();
        event.local = fixture::endpoint("2001:db8::5", 8080);
        event.remote = fixture::endpoint("fe80::5054:ff:fe12:3456", 51234);
        event.owner.as_mut().expect("an owner").holders = vec![812, 813];
        let actor = event.actor.as_mut().expect("an actor");
        actor.exiting = true;
        actor.signal = Some(9);
        insta::assert_snapshot!(line(&event));
    }

    #[test]
    fn a_container_of_a_pod() {
        let mut event = fixture::unread();
        event.netns_name = Some("12fdc709-933e-41d0-917f-cd84de9afa94".into());
        event.place = Some(fixture::pod().into());
        insta::assert_snapshot!(line(&event));
    }

    #[test]
    fn the_kernels_own_socket_says_so() {
        let mut event = fixture::received(TcpState::Established);
        assert_eq!(value(&event)["socket"]["kernel"], false);
        event.owner = None;
        event.socket.as_mut().expect("a socket").kernel_owned = true;
        assert_eq!(value(&event)["socket"]["kernel"], true);
        assert_eq!(value(&event)["owner"], serde_json::Value::Null);
    }

    #[test]
    fn one_holder_is_the_owner_and_is_not_listed() {
        let mut event = fixture::unread();
        event.owner.as_mut().expect("an owner").holders = vec![812];
        assert!(value(&event)["owner"].get("holders").is_none());
    }

    #[test]
    fn hostile_names_stay_inside_their_strings() {
        let mut event = fixture::unread();
        let owner = event.owner.as_mut().expect("an owner");
        owner.process.comm = Comm::from_text(b"\x1b[2J\"}\n\xff");
        event.netns_name = Some("web\u{1b}".into());
        event.place = Some(crate::owner::place::from_path("/a\n\"/b\u{7f}.service").into());
        owner.process.exe = Some("/tmp/a\"b\\c\u{202e}\u{9b}\u{7f}".into());
        let line = line(&event);
        assert!(
            line.trim_end_matches('\n')
                .chars()
                .all(|c| !c.is_control() && c != '\u{202e}')
        );
        let value = value(&event);
        assert_eq!(value["owner"]["comm"], "\\x1b[2J\"}\\n\\xff");
        assert_eq!(value["owner"]["exe"], "/tmp/a\"b\\\\c\\u{202e}\\u{9b}\\x7f");
        assert_eq!(value["netns_name"], "web\\x1b");
        assert_eq!(value["cgroup"], "/a\\n\"/b\\x7f.service");
        assert_eq!(value["unit"], "b\\x7f.service");
        assert_eq!(
            value["cause"]["summary"],
            "nginx[812] closed the connection with 64 bytes still unread"
        );
    }

    #[test]
    fn a_known_event_gives_the_same_as_a_json_library() {
        let value = value(&fixture::received(TcpState::SynSent));
        assert_eq!(value["direction"], "received");
        assert_eq!(value["state"], "SYN_SENT");
        assert_eq!(value["reason"], serde_json::Value::Null);
        assert_eq!(value["actor"], serde_json::Value::Null);
        assert_eq!(value["peer"], serde_json::Value::Null);
        assert_eq!(value["socket"]["age_s"], 0.0015);
        assert_eq!(value["socket"]["idle_rx_s"], serde_json::Value::Null);
        assert_eq!(value["cause"]["id"], "refused");
        assert_eq!(
            value["cause"]["advice"],
            catalogue::entry(CauseId::Refused).advice
        );
    }
}
