//! Writing to standard output so that a slow terminal or a full pipe holds up neither signals nor the
//! reader, and never makes memory grow: a thread writes, chunks wait for it in a short queue, and when that
//! is full the reader leaves the events in the ring, where loss is counted.
//!
//! A file on this host takes what it is given. To it the reader writes itself: what it has just made is
//! still in its processor's cache, and nobody has to be woken for it.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Write},
    mem,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use anyhow::Context;
use bytes::Bytes;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::statfs::{FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, fstatfs},
};
use tokio::sync::{mpsc, oneshot};

/// Chunks that may wait to be written.
const QUEUE: usize = 4;

/// File systems that may keep a writer waiting for another host, or for a program, without end
/// (`include/uapi/linux/magic.h`): NFS, SMB in its three forms, 9P, Ceph, AFS, and all in FUSE.
const REMOTE: [FsType; 8] = [
    NFS_SUPER_MAGIC,
    SMB_SUPER_MAGIC,
    FsType(0xff53_4d42),
    FsType(0xfe53_4d42),
    FsType(0x0102_1997),
    FsType(0x00c3_6400),
    FsType(0x5346_414f),
    FUSE_SUPER_MAGIC,
];

/// How the writing went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Nobody reads any more: the end of the program, and no error.
    BrokenPipe,
}

/// Where the output goes.
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Something else, in a thread of its own.
    Other(Box<dyn Write + Send>),
}

/// The way to what is written to.
#[derive(Debug)]
pub struct Output(Way);

#[derive(Debug)]
enum Way {
    Thread {
        chunks: mpsc::Sender<Bytes>,
        ended: oneshot::Receiver<io::Result<()>>,
    },
    File {
        file: File,
        written: RefCell<io::Result<()>>,
    },
}

impl Output {
    /// Gets ready to write.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn open(to: Destination) -> anyhow::Result<Self> {
        match to {
            Destination::Other(to) => Self::start(to),
            Destination::Stdout => {
                let stdout = io::stdout();
                match stdout.as_fd().try_clone_to_owned().map(File::from) {
                    Ok(file) if is_file_here(&file) => Ok(Self::file(file)),
                    _ => Self::start(stdout),
                }
            }
        }
    }

    fn file(file: File) -> Self {
        Self(Way::File {
            file,
            written: RefCell::new(Ok(())),
        })
    }

    /// Starts the writer.
    fn start(mut to: impl Write + Send + 'static) -> anyhow::Result<Self> {
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
        Ok(Self(Way::Thread { chunks, ended }))
    }

    /// Waits for room. Cancelling loses nothing: what is to be written stays with the caller until there
    /// is room. `None` when the writing has ended.
    pub async fn room(&self) -> Option<Room<'_>> {
        match &self.0 {
            Way::Thread { chunks, .. } => chunks.reserve().await.ok().map(Room::Queue),
            Way::File { .. } => self.room_now(),
        }
    }

    /// Room, when there is some at once.
    pub fn room_now(&self) -> Option<Room<'_>> {
        match &self.0 {
            Way::Thread { chunks, .. } => chunks.try_reserve().ok().map(Room::Queue),
            Way::File { file, written } => (!self.has_ended()).then_some(Room::File(file, written)),
        }
    }

    /// Whether the writing has ended: an error, or nobody reads any more.
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            Way::Thread { chunks, .. } => chunks.is_closed(),
            Way::File { written, .. } => written.borrow().is_err(),
        }
    }

    /// Waits until everything is written, or nobody reads any more.
    ///
    /// # Errors
    ///
    /// When writing failed otherwise.
    pub async fn finish(self) -> anyhow::Result<Outcome> {
        let written = match self.0 {
            Way::Thread { chunks, ended } => {
                drop(chunks);
                let Ok(written) = ended.await else {
                    anyhow::bail!("the thread that writes the output panicked");
                };
                written
            }
            Way::File { written, .. } => written.into_inner(),
        };
        match written {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::BrokenPipe),
            Err(error) => Err(error).context("cannot write the output"),
        }
    }
}

/// Room for a chunk.
#[derive(Debug)]
pub enum Room<'a> {
    /// In the queue of the thread that writes.
    Queue(mpsc::Permit<'a, Bytes>),
    /// In this file. Beside it, how writing to it went.
    File(&'a File, &'a RefCell<io::Result<()>>),
}

impl Room<'_> {
    /// Has `chunk` written.
    pub fn send(self, chunk: Bytes) {
        match self {
            Self::Queue(permit) => permit.send(chunk),
            Self::File(mut file, written) => {
                let result = file.write_all(&chunk);
                drop(mem::replace(&mut *written.borrow_mut(), result));
            }
        }
    }
}

/// Whether it is a file, and one that no other host keeps.
fn is_file_here(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
        && fstatfs(file).is_ok_and(|system| !REMOTE.contains(&system.filesystem_type()))
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
        io::{Read as _, Seek as _},
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

    #[tokio::test]
    async fn a_file_here_is_written_to_at_once_and_behind_what_it_holds() {
        let mut file = tempfile();
        file.write_all(b"before ").unwrap();
        assert!(is_file_here(&file));
        let output = Output::file(file.try_clone().unwrap());
        output.room_now().unwrap().send(Bytes::from("a"));
        output.room().await.unwrap().send(Bytes::from("b"));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before ab");
        assert_eq!(output.finish().await.unwrap(), Outcome::Done);
    }

    #[tokio::test]
    async fn a_full_file_ends_the_writing_with_its_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(!is_file_here(&full), "a device is no file");
        let output = Output::file(full);
        output.room().await.unwrap().send(Bytes::from("x"));
        assert!(output.has_ended());
        assert!(output.room().await.is_none());
        let error = output.finish().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot write the output");
    }

    /// A file that nobody else has.
    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("rstwatch-output-{}", std::process::id()));
        let options = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = options.unwrap();
        std::fs::remove_file(path).unwrap();
        file
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
