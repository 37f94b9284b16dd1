//! What the run is measured by: the kernel side's counters and those of the network namespaces, put
//! beside what went through the pipeline.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context, Result};
use foldhash::HashMap;
use rstwatch_common::stats::Stat;

use super::tally;
use crate::{
    cause::Abilities,
    load::Tracer,
    mib::{Counter, Counts},
    netns::{self, CountsByNetns},
    pipeline::Pipeline,
    reconcile::{Bounds, Reconciled, Traced},
    sink::{
        namespaces::NamespaceCount,
        summary::{CauseCount, Kind, Lost, RING_FULL, Summary},
    },
};

/// The counters at the start. They are read on either side of the attachment, since they cannot be
/// read at its very moment.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    /// When tracing began.
    pub(super) started: Instant,
    /// Before the first program was attached.
    pub(super) before: CountsByNetns,
    /// After the last one was.
    pub(super) after: CountsByNetns,
}

/// What a namespace's counters are on either side of a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Around {
    before: Counts,
    after: Counts,
}

impl Around {
    /// By how much `counter` grew from one moment to another: at least and at most.
    fn growth(start: &Self, end: &Self, counter: Counter) -> Option<Bounds> {
        let at = |counts: &Counts| counts.get(counter);
        let last = at(&end.after)?;
        let first = at(&end.before).unwrap_or(last);
        let started = |counts: &Counts| at(counts).unwrap_or(0);
        Some(Bounds::between(
            first.saturating_sub(started(&start.after)),
            last.saturating_sub(started(&start.before)),
        ))
    }
}

/// What was traced, beside the kernel's own numbers that bound what has no detail.
struct Sent<'a> {
    /// Resets with all their detail.
    by_netns: &'a HashMap<u32, Traced>,
    /// Resets of all kinds, counted in the kernel.
    kinds: &'a [Kind],
    /// How many there were, counted in the kernel.
    total: u64,
    /// Resets that are in no kind's count.
    untallied: u64,
    /// Resets that the hook may not have seen.
    skipped: u64,
}

impl Sent<'_> {
    /// How many with all their detail bump `counter`.
    fn detailed(&self, counter: Counter) -> u64 {
        self.by_netns.values().fold(0, |sum: u64, traced| {
            sum.saturating_add(traced.get(counter))
        })
    }

    /// Whether there were resets without detail.
    fn is_without_detail(&self) -> bool {
        self.total > self.detailed(Counter::OutRsts)
    }

    /// How many without detail may bump `counter` at the most.
    fn without_detail(&self, counter: Counter) -> u64 {
        if counter == Counter::AbortFailed {
            return 0;
        }
        let without = self.total.saturating_sub(self.detailed(Counter::OutRsts));
        let all = tally::bumping(self.kinds, counter).high;
        let may = all
            .saturating_add(self.untallied)
            .saturating_sub(self.detailed(counter));
        without.min(may).saturating_add(self.skipped)
    }

    /// How many bump `counter` in a namespace.
    fn in_netns(&self, netns: u32, counter: Counter) -> Bounds {
        let traced = self.by_netns.get(&netns).copied().unwrap_or_default();
        let low = traced.get(counter);
        Bounds {
            low,
            high: low.saturating_add(self.without_detail(counter)),
        }
    }

    /// How many bump `counter` everywhere.
    fn everywhere(&self, counter: Counter) -> Bounds {
        let detailed = self.detailed(counter);
        if counter == Counter::OutRsts {
            return Bounds {
                low: self.total,
                high: self.total.saturating_add(self.skipped),
            };
        }
        let low = tally::bumping(self.kinds, counter).low.max(detailed);
        let high = detailed.saturating_add(self.without_detail(counter));
        Bounds {
            low,
            high: high.max(low),
        }
    }
}

impl Baseline {
    /// What a namespace's counters were at the start: nothing, when it was not there, and when it is
    /// another one now, which has got the inode of one that is gone.
    fn of(&self, netns: u32, now: &Counts) -> Around {
        let at = |counts: &CountsByNetns| {
            let then = counts.get(&netns).copied().unwrap_or_default();
            if now.began_after(&then) {
                Counts::default()
            } else {
                then
            }
        };
        Around {
            before: at(&self.before),
            after: at(&self.after),
        }
    }

    /// By how much a namespace's counter grew, given what they all are on either side of the end.
    fn growth(
        &self,
        netns: u32,
        counter: Counter,
        (before_end, after_end): (&CountsByNetns, &CountsByNetns),
    ) -> Option<Bounds> {
        let after = *after_end.get(&netns)?;
        let end = Around {
            before: before_end.get(&netns).copied().unwrap_or(after),
            after,
        };
        Around::growth(&self.of(netns, &after), &end, counter)
    }

    /// What was seen up to now. `end` has the namespaces' counters on either side of the end.
    ///
    /// # Errors
    ///
    /// When the kernel side's counters cannot be read.
    pub(super) fn summary(
        &self,
        tracer: &Tracer,
        skipped: Option<u64>,
        pipeline: &Pipeline,
        abilities: Abilities,
        end: (&CountsByNetns, &CountsByNetns),
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
                "sockets not remembered, because the table of live sockets was full",
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
        let unread = "cannot read the BPF side's counters";
        let filtered_in_kernel = tracer.filtered().context(unread)?;
        let kinds = tally::kinds(tracer.tally()?, |number| pipeline.reason(number));
        let total = tracer.sent().context(unread)?;
        let sent = Sent {
            by_netns: &tally.sent_by_netns,
            kinds: &kinds,
            total,
            untallied: stat(Stat::Untallied)?,
            skipped: skipped.unwrap_or(0),
        };
        let namespaces = self.namespaces(&sent, abilities, end);
        let everywhere = self.everywhere(&sent, abilities, end);
        Ok(Summary {
            time_ns: wall_ns,
            duration: self.started.elapsed(),
            sent: total,
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
            namespaces,
            everywhere,
        })
    }

    /// The namespaces in which resets were seen sent, or in which the kernel counted anything.
    fn namespaces(
        &self,
        sent: &Sent<'_>,
        abilities: Abilities,
        end: (&CountsByNetns, &CountsByNetns),
    ) -> Vec<NamespaceCount> {
        let names = netns::names();
        let all: BTreeSet<u32> = sent.by_netns.keys().chain(end.1.keys()).copied().collect();
        all.into_iter()
            .map(|netns| NamespaceCount {
                netns,
                name: names.get(&netns).cloned(),
                counters: Reconciled::new(abilities, |counter| {
                    (
                        self.growth(netns, counter, end),
                        sent.in_netns(netns, counter),
                    )
                }),
            })
            .filter(|namespace| namespace.counters.is_something())
            .collect()
    }

    /// All namespaces together. The counters of one that is gone cannot be read: the sum is not known
    /// when it had resets, or when more were traced than the rest counted and some without detail, so
    /// that it is not known where.
    fn everywhere(
        &self,
        sent: &Sent<'_>,
        abilities: Abilities,
        end: (&CountsByNetns, &CountsByNetns),
    ) -> Reconciled {
        let is_whole = sent.by_netns.keys().all(|netns| end.1.contains_key(netns));
        Reconciled::new(abilities, |counter| {
            let growth = |netns: &u32| self.growth(*netns, counter, end);
            let all: Option<Bounds> = end.1.keys().try_fold(Bounds::default(), |sum, netns| {
                growth(netns).map(|growth| sum.plus(growth))
            });
            let traced = sent.everywhere(counter);
            let has_all = |growth: &Bounds| {
                is_whole && (!sent.is_without_detail() || traced.low <= growth.high)
            };
            (all.filter(has_all), traced)
        })
    }
}

fn lost(name: &'static str, text: &'static str, count: u64) -> Lost {
    Lost { name, text, count }
}

#[cfg(test)]
mod tests;
