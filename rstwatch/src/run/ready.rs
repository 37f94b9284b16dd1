//! The file that says that every hook is in place.

use std::{
    fs::File,
    path::PathBuf,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail};

/// A file to be created later, with the privileges of now: a thread of its own keeps them until then,
/// and ends.
pub(super) struct ReadyFile {
    go: Sender<()>,
    done: JoinHandle<Result<()>>,
}

impl ReadyFile {
    /// Gets ready to create the file at `path`.
    pub(super) fn prepare(path: PathBuf) -> Self {
        let (go, gone) = channel();
        let done = thread::spawn(move || {
            // Nobody asks when tracing could not start.
            if gone.recv().is_ok() {
                File::create(&path)
                    .with_context(|| format!("cannot create the ready file {}", path.display()))?;
            }
            Ok(())
        });
        Self { go, done }
    }

    /// Creates it.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub(super) fn create(self) -> Result<()> {
        // The thread waits for this; if it has ended, the next line says why.
        let _ = self.go.send(());
        match self.done.join() {
            Ok(created) => created,
            Err(_) => bail!("the thread that creates the ready file panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_only_when_it_is_asked_for() {
        let path = std::env::temp_dir().join(format!("rstwatch-ready-{}", std::process::id()));
        let ready = ReadyFile::prepare(path.clone());
        assert!(!path.exists());
        ready.create().unwrap();
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        drop(ReadyFile::prepare(path.clone()));
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let error = ReadyFile::prepare("/nowhere/ready".into())
            .create()
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/ready"), "{error}");
    }
}
