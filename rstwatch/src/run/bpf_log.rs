//! The BPF side's own messages, printed on standard error with `--bpf-log`.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Prints a message a line.
struct Printer;

impl Log for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("rstwatch: bpf: {}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

/// The messages' way to us.
pub(super) struct BpfLog(EbpfLogger<Printer>);

impl BpfLog {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the object has no log.
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self> {
        EbpfLogger::init_with_logger(ebpf, Printer)
            .map(Self)
            .context("cannot open the log of the BPF programs")
    }

    /// Prints what has come.
    pub(super) fn print(&mut self) {
        self.0.flush();
    }
}
