use super::*;
use crate::{
    cause::CauseId,
    event::{Direction, Reason, TcpState},
    fixture::{self, NEW},
    reconcile::Outcome,
};

/// Counters by namespace: `TcpOutRsts` and `TcpExtEmbryonicRsts`.
fn at(counts: &[(u32, u64, u64)]) -> CountsByNetns {
    let count = |&(netns, out_rsts, embryonic): &(u32, u64, u64)| {
        let mut counts = Counts::default();
        counts.set(Counter::OutRsts, Some(out_rsts));
        counts.set(Counter::EmbryonicRsts, Some(embryonic));
        (netns, counts)
    };
    counts.iter().map(count).collect()
}

fn baseline(before: &[(u32, u64, u64)], after: &[(u32, u64, u64)]) -> Baseline {
    Baseline {
        started: Instant::now(),
        before: at(before),
        after: at(after),
    }
}

/// `count` closes with unread data.
fn closes(count: u64) -> Traced {
    let mut traced = Traced::default();
    for _ in 0..count {
        traced.note(&fixture::unread(), CauseId::ClosedWithUnreadData, 1);
    }
    traced
}

fn kind(reason: Reason, state: TcpState, own_accord: bool, count: u64) -> Kind {
    Kind {
        direction: Direction::Sent,
        reason: Some(reason),
        own_accord,
        state: Some(state),
        port: None,
        count,
    }
}

fn sent<'a>(by_netns: &'a HashMap<u32, Traced>, kinds: &'a [Kind], total: u64) -> Sent<'a> {
    Sent {
        by_netns,
        kinds,
        total,
        untallied: 0,
        skipped: 0,
    }
}

#[test]
fn growth_is_bracketed_by_the_readings_on_either_side() {
    let baseline = baseline(&[(1, 10, 3)], &[(1, 12, 3)]);
    let (before, after) = (at(&[(1, 20, 4), (2, 5, 0)]), at(&[(1, 21, 4), (2, 5, 0)]));
    let growth = |netns, counter| baseline.growth(netns, counter, (&before, &after));
    let between = |low, high| Some(Bounds::between(low, high));
    assert_eq!(growth(1, Counter::OutRsts), between(8, 11));
    assert_eq!(growth(1, Counter::EmbryonicRsts), between(1, 1));
    assert_eq!(growth(1, Counter::AbortOnData), None);
    // A new one.
    assert_eq!(growth(2, Counter::OutRsts), between(5, 5));
    assert_eq!(growth(3, Counter::OutRsts), None);
}

#[test]
fn an_inode_that_is_used_again_begins_with_nothing() {
    let baseline = baseline(&[(1, 10, 3)], &[(1, 10, 3)]);
    // That one counter is lower tells of all of them.
    let end = at(&[(1, 15, 2)]);
    let growth = |counter| baseline.growth(1, counter, (&end, &end));
    assert_eq!(growth(Counter::OutRsts), Some(Bounds::exactly(15)));
    assert_eq!(growth(Counter::EmbryonicRsts), Some(Bounds::exactly(2)));
}

#[test]
fn namespaces_in_which_anything_was_counted_are_told() {
    let baseline = baseline(
        &[(1, 10, 0), (2, 7, 0), (3, 0, 1)],
        &[(1, 10, 0), (2, 7, 0), (3, 0, 1)],
    );
    let end = at(&[(1, 13, 0), (2, 7, 0), (3, 0, 5)]);
    let seen = HashMap::from_iter([(4, closes(2))]);
    let sent = sent(&seen, &[], 2);
    let counts = baseline.namespaces(&sent, NEW, (&end, &end));
    let told: Vec<_> = counts
        .iter()
        .map(|count| {
            let of = |counter| count.counters.get(counter).outcome();
            (
                count.netns,
                of(Counter::OutRsts),
                of(Counter::EmbryonicRsts),
            )
        })
        .collect();
    let untraced = |count| Outcome::Differs(crate::reconcile::Side::Untraced, count);
    assert_eq!(
        told,
        [
            (1, untraced(3), Outcome::Agrees),
            (3, Outcome::Agrees, untraced(4)),
            (4, Outcome::Unread, Outcome::Unread),
        ]
    );
}

#[test]
fn resets_without_detail_may_be_anywhere_but_not_anything() {
    let seen = HashMap::from_iter([(1, closes(2)), (2, closes(1))]);
    let kinds = [
        kind(Reason::AbortOnClose, TcpState::Close, true, 7),
        kind(Reason::InvalidSyn, TcpState::Listen, false, 1),
        kind(Reason::State, TcpState::Close, true, 2),
    ];
    let sent = sent(&seen, &kinds, 10);
    let in_netns = |netns, counter| sent.in_netns(netns, counter);
    assert_eq!(in_netns(1, Counter::OutRsts), Bounds::between(2, 9));
    assert_eq!(in_netns(1, Counter::AbortOnClose), Bounds::between(2, 6));
    assert_eq!(in_netns(2, Counter::AbortOnClose), Bounds::between(1, 5));
    assert_eq!(in_netns(3, Counter::AbortOnClose), Bounds::between(0, 4));
    assert_eq!(in_netns(1, Counter::EmbryonicRsts), Bounds::between(0, 1));
    assert_eq!(in_netns(1, Counter::AbortOnTimeout), Bounds::exactly(0));
    assert_eq!(in_netns(1, Counter::AbortFailed), Bounds::exactly(0));
    // Over all of them the kernel's own count of the kinds decides.
    assert_eq!(sent.everywhere(Counter::OutRsts), Bounds::exactly(10));
    assert_eq!(sent.everywhere(Counter::EmbryonicRsts), Bounds::exactly(1));
    assert_eq!(sent.everywhere(Counter::AbortOnClose), Bounds::exactly(7));
    assert_eq!(sent.everywhere(Counter::AbortOnData), Bounds::between(0, 2));
}

#[test]
fn with_every_detail_nothing_is_left_open() {
    let seen = HashMap::from_iter([(1, closes(2))]);
    let kinds = [kind(Reason::AbortOnClose, TcpState::Close, true, 2)];
    let sent = sent(&seen, &kinds, 2);
    for counter in Counter::ALL {
        let expected = match counter {
            Counter::OutRsts | Counter::AbortOnClose => 2,
            _ => 0,
        };
        assert_eq!(sent.in_netns(1, counter), Bounds::exactly(expected));
        assert_eq!(sent.everywhere(counter), Bounds::exactly(expected));
    }
}

#[test]
fn what_is_in_no_kinds_count_may_be_anything() {
    let seen = HashMap::default();
    let open = Sent {
        untallied: 3,
        skipped: 2,
        ..sent(&seen, &[], 3)
    };
    assert_eq!(
        open.in_netns(1, Counter::AbortOnLinger),
        Bounds::between(0, 5)
    );
    assert_eq!(open.everywhere(Counter::OutRsts), Bounds::between(3, 5));
    assert_eq!(open.everywhere(Counter::AbortFailed), Bounds::exactly(0));
}

#[test]
fn a_namespace_that_is_gone_leaves_the_sum_open() {
    let start = baseline(&[(1, 1, 0)], &[(1, 1, 0)]);
    let end = at(&[(1, 3, 0)]);
    let of = |seen: &HashMap<u32, Traced>, total| {
        let sent = sent(seen, &[], total);
        let everywhere = start.everywhere(&sent, NEW, (&end, &end));
        everywhere.get(Counter::OutRsts).growth
    };
    let here = HashMap::from_iter([(1, closes(2))]);
    assert_eq!(of(&here, 2), Some(Bounds::exactly(2)));
    let gone = HashMap::from_iter([(1, closes(2)), (2, closes(1))]);
    assert_eq!(of(&gone, 3), None);
    // One without detail that no namespace counted may have been in one that is gone.
    assert_eq!(of(&here, 3), None);
    let filtered = HashMap::default();
    assert_eq!(of(&filtered, 2), Some(Bounds::exactly(2)));
    // With all detail, more than was counted is told.
    let more = HashMap::from_iter([(1, closes(3))]);
    assert_eq!(of(&more, 3), Some(Bounds::exactly(2)));
}
