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

use crate::load::Tracer;

/// How long the reader waits when the ring was empty. It bounds how late an event is shown and how
/// much the ring must hold when a storm begins.
const IDLE: Duration = Duration::from_millis(20);

/// How long it waits while events come.
const BUSY: Duration = Duration::from_millis(1);

/// After so long without a record it sleeps. Longer than anything waits for a later record.
const QUIET: Duration = Duration::from_secs(1);

/// For how long it sleeps if nothing wakes it: counters want to be looked at as often.
const NAP: Duration = Duration::from_millis(250);

/// Whether the reader is at work.
pub(super) struct Rest {
    /// When there was something to do the last time.
    busy_at: Instant,
    /// What the BPF side was told.
    asleep: bool,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            busy_at: Instant::now(),
            asleep: false,
        }
    }

    /// There is something to do.
    ///
    /// # Errors
    ///
    /// When the BPF side cannot be told.
    pub(super) fn wake(&mut self, tracer: &mut Tracer) -> Result<()> {
        self.busy_at = Instant::now();
        if self.asleep {
            tracer.reader_sleeps(false)?;
            self.asleep = false;
        }
        Ok(())
    }

    /// Waits a moment after some records.
    pub(super) async fn briefly(&self) {
        sleep(BUSY).await;
    }

    /// Waits where there was no record. Cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// When the BPF side cannot be told, or the ring not be waited for.
    pub(super) async fn while_idle(&mut self, tracer: &mut Tracer, ring: &impl AsFd) -> Result<()> {
        if self.asleep {
            // SAFETY: the borrowed descriptor stays open and the same as long as it is borrowed.
            let registered =
                unsafe { AsyncFd::register_with_interest(ring.as_fd(), Interest::READABLE) };
            let ring = registered
                .map_err(io::Error::from)
                .context("cannot wait for the ring buffer")?;
            // A nap that nothing ends is no error, nor is what woke it asked for again.
            if let Ok(readable) = timeout(NAP, ring.readable()).await {
                drop(readable.context("cannot wait for the ring buffer")?);
            }
            return Ok(());
        }
        if self.busy_at.elapsed() >= QUIET {
            // Whoever is submitting a record and has not seen it yet is done before the next look.
            tracer.reader_sleeps(true)?;
            self.asleep = true;
        }
        sleep(IDLE).await;
        Ok(())
    }
}
