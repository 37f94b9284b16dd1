//! How many events went through, and what became of them.

use foldhash::HashMap;

use crate::{
    cause::{CauseId, catalogue},
    event::Direction,
    reconcile::Traced,
};

/// How many resets had which cause, by direction. An array: counting is on the way of every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseCounts([[u64; catalogue::ENTRIES.len()]; 2]);

impl CauseCounts {
    pub(super) fn add(&mut self, direction: Direction, id: CauseId, times: u64) {
        self.0[direction as usize][id as usize] += times;
    }

    /// Those that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, CauseId, u64)> {
        [Direction::Sent, Direction::Received]
            .into_iter()
            .flat_map(move |direction| {
                catalogue::ENTRIES.iter().map(move |entry| {
                    (
                        direction,
                        entry.id,
                        self.0[direction as usize][entry.id as usize],
                    )
                })
            })
            .filter(|(_, _, count)| *count > 0)
    }
}

/// What went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Resets by direction and cause.
    pub causes: CauseCounts,
    /// Resets written to the sink.
    pub shown: u64,
    /// Resets that the filter kept back.
    pub filtered: u64,
    /// Resets that the limit of rows a second kept back.
    pub limited: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Sent resets by the inode of their network namespace.
    pub sent_by_netns: HashMap<u32, Traced>,
}
