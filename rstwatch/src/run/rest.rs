//! When the reader looks into the ring again: by itself while events come, and when it is woken once none
//! have come for a while. A wake-up an event would cost more than the event; looking where nothing is costs
//! a host on which nothing is wrong.
//!
//! What becomes of the records is not decided here.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{sleep, timeout},
};

use super::rings::{Rings, Source};

/// How long the reader waits when the ring was empty and it does not sleep yet. It bounds how late an
/// event is shown and how much the ring must hold when a storm begins.
const IDLE: Duration = Duration::from_millis(20);

/// How long it waits while events come.
const BUSY: Duration = Duration::from_millis(1);

/// After so long without a record it sleeps. Longer than anything waits for a later record.
const QUIET: Duration = Duration::from_secs(1);

/// For how long it sleeps if nothing wakes it: counters want to be looked at as often.
const NAP: Duration = Duration::from_millis(250);

/// When the reader was at work.
pub(super) struct Rest {
    /// When there was something to do the last time.
    busy_at: Instant,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            busy_at: Instant::now(),
        }
    }

    /// There is something to do.
    pub(super) fn wake(&mut self) {
        self.busy_at = Instant::now();
    }

    /// Waits a moment after some records.
    pub(super) async fn briefly(&self) {
        sleep(BUSY).await;
    }

    /// Waits where there was no record. Cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// When the rings cannot be waited for.
    pub(super) async fn while_idle<S: Source + AsFd>(&self, rings: &mut Rings<S>) -> Result<()> {
        // Programs that still took the lanes for watched have long filled them when they are looked into again.
        if self.busy_at.elapsed() < QUIET || rings.watch(false) {
            sleep(IDLE).await;
            return Ok(());
        }
        // The kernel wakes whoever waits for the ring with the first record after all has been read. Only
        // for as long as this sleeps, so that it costs nothing in a storm.
        let [even, odd] = rings.as_fds().map(|ring| {
            // SAFETY: the borrowed descriptor stays open and the same as long as it is borrowed.
            let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
            registered
                .map_err(io::Error::from)
                .context("cannot wait for a ring buffer")
        });
        let (even, odd) = (even?, odd?);
        let either = async {
            tokio::select! {
                readable = even.readable() => readable.map(drop),
                readable = odd.readable() => readable.map(drop),
            }
        };
        // A nap that nothing ends is no error, nor is what woke it asked for again.
        if let Ok(readable) = timeout(NAP, either).await {
            readable.context("cannot wait for a ring buffer")?;
        }
        Ok(())
    }
}
