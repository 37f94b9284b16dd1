use rstwatch_common::{
    COMM_LEN,
    entry::MARK_RESET,
    record::{Header, LateReset, STACK_FRAMES, SegmentReset},
};
use zerocopy::FromZeros;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn interpreter() -> Interpreter {
    Interpreter {
        clock: Clock::fixed(1_000 * i128::from(SECOND), 4_000_000),
        reasons: Reasons::default(),
        // __tcp_close and do_syscall_64's caller, as /proc/kallsyms shows them.
        stacks: Stacks::from_kallsyms(
            &b"ffffffff81000000 T __tcp_close\nffffffff81001000 T __fput\n\
              ffffffff81002000 T tcp_keepalive_timer\nffffffff81003000 T tcp_abort\n\
              ffffffff81004000 T other\n"[..],
        )
        .unwrap(),
    }
}

fn task(pid: u32) -> Task {
    let mut comm = [0; COMM_LEN];
    comm[..3].copy_from_slice(b"app");
    Task {
        pid,
        tid: pid + 1,
        uid: 33,
        start_ns: 5 * SECOND,
        comm,
        ..Task::NONE
    }
}

fn mapped(last: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last]
}

fn reset(state: u8) -> Reset {
    let mut reset = Reset::new_zeroed();
    reset.header = Header {
        time_ns: 60 * SECOND,
        sock: 0xffff_8880_0000_1000,
        ..Header::new_zeroed()
    };
    reset.tuple = Tuple {
        local: mapped(5),
        remote: mapped(9),
        local_port: 8_080,
        remote_port: 51_234,
        netns: 4_026_531_840,
    };
    reset.state = state;
    reset
}

fn socket_reset(state: u8) -> SocketReset {
    let mut record = SocketReset::new_zeroed();
    record.reset = reset(state);
    record.entry = SocketEntry::EMPTY;
    record.socket.flags = SOCK_HELD;
    record
}

fn sighting(record: Record<'_>) -> Sighting {
    match interpreter().interpret(record, &mut Spare::default()) {
        Observation::Reset(sighting) => sighting,
        other => panic!("no reset: {other:?}"),
    }
}

fn owner_of(sighting: &Sighting) -> Option<(u32, Via)> {
    let owner = sighting.event.owner.as_ref()?;
    Some((owner.process.pid, owner.via))
}

#[test]
fn times_addresses_and_families_become_those_of_people() {
    let mut record = SegmentReset::new_zeroed();
    record.reset = reset(0);
    record.reset.flags = HAS_SEGMENT;
    record.reset.tcp_flags = TcpFlags::SYN;
    let event = sighting(Record::Segment(&record)).event;
    assert_eq!(event.time_ns, 1_060 * SECOND);
    assert_eq!(event.local.to_string(), "10.0.0.5:8080");
    assert_eq!(event.remote.to_string(), "10.0.0.9:51234");
    assert!(event.is_ipv4() && event.state.is_none() && event.socket.is_none());
    assert_eq!(event.segment.unwrap().flags, TcpFlags(TcpFlags::SYN));
    assert_eq!(event.netns, Some(4_026_531_840));

    record.reset.tuple.local = [0x20; 16];
    record.reset.tuple.netns = 0;
    record.reset.flags = 0;
    let event = sighting(Record::Segment(&record)).event;
    assert!(!event.is_ipv4());
    assert_eq!((event.netns, event.segment), (None, None));
}

#[test]
fn the_state_is_the_one_before_an_abort() {
    let mut record = socket_reset(7);
    assert_eq!(sighting(Record::Answer(&record)).event.state, None);
    record.entry.prev_state = 8;
    let state = |record: &SocketReset| sighting(Record::Answer(record)).event.state;
    assert_eq!(state(&record), Some(TcpState::CloseWait));
    record.reset.state = 1;
    assert_eq!(state(&record), Some(TcpState::Established));
}

#[test]
fn a_fin_is_neither_unread_nor_received_data() {
    let facts = |state: u8| {
        let mut record = socket_reset(state);
        record.socket.copied_seq = 100;
        record.socket.rcv_nxt = 165;
        record.socket.bytes_received = 1;
        record.socket.snd_una = 10;
        record.socket.snd_nxt = 11;
        record.socket.now_jiffies = 500;
        record.socket.last_received = 250;
        sighting(Record::Received(&record)).event.socket.unwrap()
    };
    let open = facts(1);
    assert_eq!((open.unread, open.unacked), (65, 1));
    assert_eq!(open.idle_rx_ns, Some(SECOND));
    let closing = facts(8);
    assert_eq!((closing.unread, closing.bytes_received), (64, 0));
    assert_eq!(closing.idle_rx_ns, None);
    // Its own FIN is in flight.
    assert_eq!(facts(4).unacked, 0);
    assert_eq!(facts(2).unacked, 0);
}

#[test]
fn whoever_closed_a_socket_owns_it_rather_than_who_opened_it() {
    let mut record = socket_reset(1);
    assert_eq!(owner_of(&sighting(Record::Received(&record))), None);
    record.entry.owner = task(10);
    record.entry.via = VIA_CONNECT;
    let owner = |record: &SocketReset| owner_of(&sighting(Record::Received(record)));
    assert_eq!(owner(&record), Some((10, Via::Connect)));
    record.entry.closer = task(10);
    assert_eq!(owner(&record), Some((10, Via::Connect)));
    record.entry.closer = task(11);
    assert_eq!(owner(&record), Some((11, Via::Close)));
    // The kernel's thread that does a close is nobody's owner.
    record.entry.closer.flags = PF_KTHREAD;
    assert_eq!(owner(&record), Some((10, Via::Connect)));
    record.entry.owner.flags = PF_KTHREAD;
    assert_eq!(owner(&record), None);
}

#[test]
fn a_held_socket_is_worth_waiting_for_and_a_closed_one_is_not() {
    let mut record = socket_reset(1);
    record.entry.marks = MARK_RESET | MARK_AWAIT_CLOSE;
    record.socket.flags |= SOCK_SHARED;
    let waits = |record: &SocketReset| {
        let sighting = sighting(Record::Received(record));
        (sighting.await_close, sighting.shared)
    };
    assert_eq!(waits(&record), (true, true));
    record.socket.flags = 0;
    assert_eq!(waits(&record), (false, false));
}

#[test]
fn both_hooks_of_data_after_close_are_marked() {
    let mut record = socket_reset(4);
    record.entry.marks = MARK_RESET | MARK_MAYBE_DATA;
    let received = sighting(Record::Received(&record));
    assert!(received.maybe_data && !received.answers_data);
    let sent = sighting(Record::Answer(&record));
    assert!(sent.answers_data && !sent.maybe_data);
    for other in [MARK_RESET, MARK_RESET | MARK_MAYBE_DATA | MARK_UNTOLD] {
        record.entry.marks = other;
        assert!(!sighting(Record::Answer(&record)).answers_data);
    }
}

fn active(frames: &[u64]) -> ActiveReset {
    let whole = socket_reset(7);
    let mut stack = [0; STACK_FRAMES];
    stack[..frames.len()].copy_from_slice(frames);
    ActiveReset {
        reset: whole.reset,
        socket: whole.socket,
        entry: whole.entry,
        current: task(20),
        stack,
    }
}

const CLOSE: u64 = 0xffff_ffff_8100_0010;
const FPUT: u64 = 0xffff_ffff_8100_1010;
const KEEPALIVE: u64 = 0xffff_ffff_8100_2010;
const ABORT: u64 = 0xffff_ffff_8100_3010;

#[test]
fn current_is_believed_only_when_the_stack_proves_it() {
    let closed = sighting(Record::Active(&active(&[CLOSE, FPUT])));
    assert_eq!(owner_of(&closed), Some((20, Via::Close)));
    assert_eq!(closed.event.actor.as_ref().unwrap().tid, 21);
    assert!(!closed.await_close);

    let timer = sighting(Record::Active(&active(&[KEEPALIVE])));
    assert_eq!((owner_of(&timer), timer.event.actor), (None, None));

    let unknown = sighting(Record::Active(&active(&[])));
    assert_eq!((owner_of(&unknown), unknown.event.actor), (None, None));
}

#[test]
fn who_destroys_a_socket_is_its_actor_and_not_its_owner() {
    let mut record = active(&[ABORT, FPUT]);
    record.entry.owner = task(10);
    record.entry.via = VIA_CONNECT;
    let destroyed = sighting(Record::Active(&record));
    assert_eq!(owner_of(&destroyed), Some((10, Via::Connect)));
    assert_eq!(destroyed.event.actor.unwrap().process.pid, 20);
}

#[test]
fn how_an_actor_ended_is_told_while_it_ends() {
    let actor = |flags: u32, exit_code: u32, marks: u32| {
        let mut record = active(&[CLOSE, FPUT]);
        record.current.flags = flags;
        record.current.exit_code = exit_code;
        record.current.marks = marks;
        let actor = sighting(Record::Active(&record)).event.actor.unwrap();
        (actor.exiting, actor.signal, actor.exit_status, actor.oom)
    };
    assert_eq!(actor(0, 9, 0), (false, None, None, false));
    assert_eq!(actor(PF_EXITING, 9, TASK_OOM), (true, Some(9), None, true));
    assert_eq!(
        actor(PF_EXITING, 0x80 + 11, 0),
        (true, Some(11), None, false)
    );
    assert_eq!(actor(PF_EXITING, 3 << 8, 0), (true, None, Some(3), false));
}

#[test]
fn the_history_tells_how_a_connection_ended() {
    let past = |entry: SocketEntry| {
        let mut record = LateReset::new_zeroed();
        record.reset = reset(6);
        record.reset.substate = 5;
        record.past = entry;
        let event = sighting(Record::Late(&record)).event;
        assert_eq!(event.time_wait, Some(TcpState::FinWait2));
        event.past.unwrap()
    };
    let closed = SocketEntry {
        closed_ns: 59 * SECOND,
        prev_state: 5,
        ..SocketEntry::EMPTY
    };
    assert_eq!(past(closed).closed_ago_ns, Some(SECOND));
    assert_eq!(past(closed).ended, Ended::Closed);
    let with = |prev_state, marks, error| {
        past(SocketEntry {
            prev_state,
            marks,
            error,
            ..closed
        })
        .ended
    };
    assert_eq!(with(2, 0, 110), Ended::NeverConnected);
    assert_eq!(with(1, 0, 110), Ended::TimedOut);
    assert_eq!(with(1, MARK_ABORTED | MARK_RESET, 0), Ended::Aborted);
    assert_eq!(with(1, MARK_RESET, 104), Ended::Reset);
}

#[test]
fn a_close_names_its_process_unless_the_kernel_did_it() {
    let mut record = record::Closed::new_zeroed();
    record.header.sock = 7;
    record.closer = task(10);
    let closer =
        |record: &_| match interpreter().interpret(Record::Closed(record), &mut Spare::default()) {
            Observation::Closed { sock, closer } => (sock, closer.map(|process| process.pid)),
            other => panic!("no close: {other:?}"),
        };
    assert_eq!(closer(&record), (7, Some(10)));
    record.closer.flags = PF_KTHREAD;
    assert_eq!(closer(&record), (7, None));
}

#[test]
fn a_refused_connect_belongs_to_who_connects() {
    let mut record = Refused::new_zeroed();
    record.reset = reset(2);
    record.owner = task(10);
    record.born_ns = 59 * SECOND;
    record.cgroup = 77;
    let sighting = sighting(Record::Refused(&record));
    assert_eq!(owner_of(&sighting), Some((10, Via::Connect)));
    assert!(!sighting.await_close && !sighting.maybe_data);
    let event = sighting.event;
    assert_eq!(event.direction, Direction::Received);
    assert_eq!(event.state, Some(TcpState::SynSent));
    let socket = event.socket.unwrap();
    assert_eq!((socket.age_ns, socket.cgroup), (Some(SECOND), 77));
}

#[test]
fn the_state_before_a_reset_of_a_closed_connection_follows_from_its_close() {
    type Change = fn(&mut SocketReset);
    let state = |prev_state, answers: bool, change: Change| {
        let mut record = SocketReset::new_zeroed();
        record.reset = reset(7);
        record.reset.flags = if answers { HAS_SEGMENT } else { 0 };
        record.entry = SocketEntry {
            closed_ns: 59 * SECOND,
            prev_state,
            ..SocketEntry::EMPTY
        };
        change(&mut record);
        sighting(Record::Answer(&record)).event.state
    };
    for (prev_state, answers, change, expected) in [
        (1, true, (|_| ()) as Change, TcpState::FinWait2),
        (1, false, |_| (), TcpState::FinWait1),
        (8, false, |_| (), TcpState::LastAck),
        (
            1,
            false,
            |record| record.socket.linger2 = -1,
            TcpState::FinWait2,
        ),
        // A reset, an abort or an error has noted the state itself.
        (
            1,
            true,
            |record| record.entry.marks = MARK_RESET,
            TcpState::Established,
        ),
        (
            1,
            false,
            |record| record.entry.marks = MARK_ABORTED,
            TcpState::Established,
        ),
        (
            4,
            false,
            |record| record.entry.error = 110,
            TcpState::FinWait1,
        ),
        // One that was never closed.
        (
            1,
            false,
            |record| record.entry.closed_ns = 0,
            TcpState::Established,
        ),
    ] {
        assert_eq!(
            state(prev_state, answers, change),
            Some(expected),
            "{prev_state} {answers}"
        );
    }
}
