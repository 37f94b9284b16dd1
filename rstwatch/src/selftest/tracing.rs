//! The tracing that the scenarios are played under: the ordinary one, in a thread of this process.

use std::{
    io::Write,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::oneshot;

use crate::{
    cause::Abilities,
    cli::TraceOptions,
    output::Destination,
    run::{self, Ending},
};

/// A run of the tracer, with every hook in place.
pub(super) struct Tracing {
    abilities: Abilities,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Ending>>,
}

impl Tracing {
    /// Starts tracing, its output written to `to`.
    ///
    /// # Errors
    ///
    /// When tracing cannot start.
    pub(super) fn start(options: TraceOptions, to: impl Write + Send + 'static) -> Result<Self> {
        let (tell, ready) = mpsc::channel();
        let (stop, asked) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .context("cannot start the tasks' runtime")?
                    .block_on(run::trace_into(
                        options,
                        Destination::Other(Box::new(to)),
                        |abilities| {
                            // Whoever starts it waits for this.
                            let _ = tell.send(abilities);
                        },
                        // Gone unasked, nobody needs the run any more.
                        async { asked.await.unwrap_or(()) },
                    ))
            })
            .context("cannot start a thread")?;
        match ready.recv() {
            Ok(abilities) => Ok(Self {
                abilities,
                stop,
                thread,
            }),
            Err(_) => Err(match join(thread) {
                Err(error) => error,
                Ok(_) => anyhow!("interrupted"),
            }),
        }
    }

    /// What the kernel tells.
    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Whether it has ended by itself: by a signal, an error, or because nobody reads the output.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it, after everything that has been seen is written.
    ///
    /// # Errors
    ///
    /// When tracing failed or was interrupted.
    pub(super) fn stop(self) -> Result<()> {
        // It may have ended already.
        let _ = self.stop.send(());
        match join(self.thread)? {
            Ending::Signal => bail!("interrupted"),
            Ending::Other => Ok(()),
        }
    }
}

fn join(thread: JoinHandle<Result<Ending>>) -> Result<Ending> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the thread that traces panicked")))
}
