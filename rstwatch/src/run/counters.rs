//! What the run is measured by: the kernel side's counters and the namespaces' `TcpOutRsts`, put
//! beside what went through the pipeline.

use std::{
    collections::{BTreeSet, HashMap},
    hash::BuildHasher,
    time::Instant,
};

use anyhow::{Context, Result};
use rstwatch_common::stats::Stat;

use super::tally;
use crate::{
    load::Tracer,
    netns,
    pipeline::Pipeline,
    sink::summary::{CauseCount, Lost, NamespaceCount, RING_FULL, Summary},
};

/// `TcpOutRsts` by network namespace.
type OutRsts = HashMap<u32, u64>;

/// The counters at the start. They are read on either side of the attachment, since they cannot be
/// read at its very moment.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    /// When tracing began.
    pub(super) started: Instant,
    /// Before the first program was attached.
    pub(super) before: OutRsts,
    /// After the last one was.
    pub(super) after: OutRsts,
}

impl Baseline {
    /// By how much a namespace's counter grew, given what it is on either side of the end: at least
    /// and at most. A namespace that was not there at the start began with nothing, and neither was
    /// one whose counter is lower now: it has got the inode of another that is gone.
    fn growth(&self, netns: u32, before_end: &OutRsts, after_end: &OutRsts) -> Option<(u64, u64)> {
        let last = *after_end.get(&netns)?;
        let start = |counts: &OutRsts| {
            let count = counts.get(&netns).copied().unwrap_or(0);
            if count > last { 0 } else { count }
        };
        let first = before_end.get(&netns).copied().unwrap_or(last);
        Some((
            first.saturating_sub(start(&self.after)),
            last.saturating_sub(start(&self.before)),
        ))
    }

    /// What was seen up to now. `before_end` and `after_end` are the namespaces' counters on
    /// either side of the end.
    ///
    /// # Errors
    ///
    /// When the kernel side's counters cannot be read.
    pub(super) fn summary(
        &self,
        tracer: &Tracer,
        skipped: Option<u64>,
        pipeline: &Pipeline,
        (before_end, after_end): (&OutRsts, &OutRsts),
        wall_ns: u64,
    ) -> Result<Summary> {
        let stat = |stat| {
            tracer
                .stat(stat)
                .with_context(|| format!("cannot read the BPF side's counter {stat:?}"))
        };
        let tally = pipeline.tally();
        let lost = vec![
            lost(
                RING_FULL,
                "resets not shown, because the ring buffer was full (see --ring-size)",
                stat(Stat::LostReset)?.saturating_sub(stat(Stat::NotReceivedLost)?),
            ),
            lost(
                "skipped",
                "resets not counted, because the kernel does not let a hook interrupt itself",
                skipped.unwrap_or(0),
            ),
            lost(
                "untallied",
                "resets counted without their kind, because there were too many kinds",
                stat(Stat::Untallied)?,
            ),
            lost(
                "undecoded",
                "records that could not be decoded",
                tally.undecoded,
            ),
            lost(
                "owner_not_awaited",
                "resets without their owner, because too many waited for theirs",
                pipeline.unawaited(),
            ),
            lost(
                "close_lost",
                "resets whose owner came too late for the ring",
                stat(Stat::LostClosed)?,
            ),
            lost(
                "listener_lost",
                "listeners not remembered, because the ring or their table was full",
                stat(Stat::LostListener)? + pipeline.forgotten_listeners(),
            ),
            lost(
                "sockets_full",
                "sockets not remembered, because the map of live sockets was full",
                stat(Stat::SocketsFull)?,
            ),
            lost(
                "history_failed",
                "times that the history of closed connections was busy",
                stat(Stat::HistoryFailed)?,
            ),
            lost(
                "read_failed",
                "reads of kernel memory that failed",
                stat(Stat::ReadFailed)?,
            ),
            lost(
                "stack_failed",
                "kernel stacks that could not be read",
                stat(Stat::StackFailed)?,
            ),
        ];
        let filtered_in_kernel = (stat(Stat::SentFiltered)? + stat(Stat::ReceivedFiltered)?)
            .saturating_sub(stat(Stat::NotReceivedFiltered)?);
        let kinds = tally::kinds(tracer.tally()?, |number| pipeline.reason(number));
        Ok(Summary {
            time_ns: wall_ns,
            duration: self.started.elapsed(),
            sent: stat(Stat::Sent)?,
            received: stat(Stat::Received)?.saturating_sub(stat(Stat::NotReceived)?),
            causes: tally
                .causes
                .iter()
                .map(|(direction, id, count)| CauseCount {
                    id,
                    direction,
                    count,
                })
                .collect(),
            shown: tally.shown,
            filtered: tally.filtered + filtered_in_kernel,
            filtered_in_kernel,
            kinds,
            limited: tally.limited,
            lost,
            namespaces: self.namespaces(&tally.sent_by_netns, before_end, after_end),
        })
    }

    /// The namespaces in which resets were seen sent, or in which the kernel counted any.
    fn namespaces(
        &self,
        seen: &HashMap<u32, u64, impl BuildHasher>,
        before_end: &OutRsts,
        after_end: &OutRsts,
    ) -> Vec<NamespaceCount> {
        let names = netns::names();
        let all: BTreeSet<u32> = seen.keys().chain(after_end.keys()).copied().collect();
        all.into_iter()
            .map(|netns| NamespaceCount {
                netns,
                name: names.get(&netns).cloned(),
                out_rsts_growth: self.growth(netns, before_end, after_end),
                sent: seen.get(&netns).copied().unwrap_or(0),
            })
            .filter(|count| {
                count.sent > 0 || count.out_rsts_growth.is_some_and(|(_, most)| most > 0)
            })
            .collect()
    }
}

fn lost(name: &'static str, text: &'static str, count: u64) -> Lost {
    Lost { name, text, count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(before: &[(u32, u64)], after: &[(u32, u64)]) -> Baseline {
        Baseline {
            started: Instant::now(),
            before: before.iter().copied().collect(),
            after: after.iter().copied().collect(),
        }
    }

    fn at(counts: &[(u32, u64)]) -> OutRsts {
        counts.iter().copied().collect()
    }

    #[test]
    fn growth_is_bracketed_by_the_readings_on_either_side() {
        let baseline = baseline(&[(1, 10)], &[(1, 12)]);
        let (before, after) = (at(&[(1, 20), (2, 5)]), at(&[(1, 21), (2, 5)]));
        assert_eq!(baseline.growth(1, &before, &after), Some((8, 11)));
        assert_eq!(baseline.growth(2, &before, &after), Some((5, 5)));
        assert_eq!(baseline.growth(3, &before, &after), None);
        let reused = at(&[(1, 2)]);
        assert_eq!(baseline.growth(1, &reused, &reused), Some((2, 2)));
    }

    #[test]
    fn namespaces_with_unseen_resets_are_told_as_well() {
        let baseline = baseline(&[(1, 10), (2, 7)], &[(1, 10), (2, 7)]);
        let end = at(&[(1, 13), (2, 7)]);
        let seen = HashMap::from([(4, 2)]);
        let counts = baseline.namespaces(&seen, &end, &end);
        let told: Vec<_> = counts
            .iter()
            .map(|count| (count.netns, count.out_rsts_growth, count.sent))
            .collect();
        assert_eq!(told, [(1, Some((3, 3)), 0), (4, None, 2)]);
    }
}
