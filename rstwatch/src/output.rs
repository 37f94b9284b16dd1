//! Writing to standard output from a thread of its own, so that a slow terminal or a full pipe
//! holds up neither signals nor the reader, and never makes memory grow: chunks wait in a short
//! queue, and when that is full the reader leaves the events in the ring, where loss is counted.

use std::{
    io::{self, Write},
    os::fd::BorrowedFd,
    thread,
};

use anyhow::Context;
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

/// Chunks that may wait to be written.
const QUEUE: usize = 4;

/// How the writing went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Nobody reads any more: the end of the program, and no error.
    BrokenPipe,
}

/// The queue to the writer.
#[derive(Debug)]
pub struct Output {
    chunks: mpsc::Sender<Bytes>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts the writer.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(mut to: impl Write + Send + 'static) -> anyhow::Result<Self> {
        let (chunks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let (tell, ended) = oneshot::channel();
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let mut write = || -> io::Result<()> {
                    while let Some(chunk) = queue.blocking_recv() {
                        to.write_all(&chunk)?;
                        if queue.is_empty() {
                            to.flush()?;
                        }
                    }
                    to.flush()
                };
                // Nobody listens when the program ends without waiting for the output.
                let _ = tell.send(write());
            })
            .context("cannot start the thread that writes the output")?;
        Ok(Self { chunks, ended })
    }

    /// Waits for room in the queue. Cancelling loses nothing: what is to be written stays with the
    /// caller until there is room. `None` when the writer has ended.
    pub async fn room(&self) -> Option<mpsc::Permit<'_, Bytes>> {
        self.chunks.reserve().await.ok()
    }

    /// Room in the queue, when there is some at once.
    pub fn room_now(&self) -> Option<mpsc::Permit<'_, Bytes>> {
        self.chunks.try_reserve().ok()
    }

    /// Whether the writer has ended: an error, or nobody reads any more.
    pub fn has_ended(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Waits until everything is written, or nobody reads any more.
    ///
    /// # Errors
    ///
    /// When writing failed otherwise.
    pub async fn finish(self) -> anyhow::Result<Outcome> {
        let Self { chunks, ended } = self;
        drop(chunks);
        match ended.await {
            Ok(Ok(())) => Ok(Outcome::Done),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::BrokenPipe),
            Ok(Err(error)) => Err(error).context("cannot write the output"),
            Err(_) => anyhow::bail!("the thread that writes the output panicked"),
        }
    }
}

/// Whether the reader of a pipe has gone. The kernel says so without being written to, so that a
/// run ends on a quiet host as well. `false` for what is no pipe.
pub fn reader_has_left(pipe: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::AsFd as _,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn chunks_are_written_in_order() {
        let to = Shared::default();
        let output = Output::start(to.clone()).unwrap();
        for chunk in ["a", "b", "c", "d", "e", "f"] {
            output.room().await.unwrap().send(Bytes::from(chunk));
        }
        assert_eq!(output.finish().await.unwrap(), Outcome::Done);
        assert_eq!(to.0.lock().unwrap().as_slice(), b"abcdef");
    }

    #[tokio::test]
    async fn a_broken_pipe_ends_quietly_and_other_errors_do_not() {
        for (kind, quiet) in [
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::StorageFull, false),
        ] {
            let output = Output::start(Failing(kind)).unwrap();
            output.room().await.unwrap().send(Bytes::from("x"));
            let outcome = output.finish().await;
            assert_eq!(
                outcome.ok(),
                quiet.then_some(Outcome::BrokenPipe),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_pipe_tells_that_its_reader_has_left() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!reader_has_left(writer.as_fd()));
        drop(reader);
        assert!(reader_has_left(writer.as_fd()));
    }

    #[tokio::test]
    async fn no_room_is_given_once_nobody_reads() {
        let output = Output::start(Failing(io::ErrorKind::BrokenPipe)).unwrap();
        output.room().await.unwrap().send(Bytes::from("x"));
        while let Some(room) = output.room().await {
            drop(room);
            tokio::task::yield_now().await;
        }
    }
}
