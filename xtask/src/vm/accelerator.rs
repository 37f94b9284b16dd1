//! Whether this host can run guests on its own processor, or must interpret them.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::qemu::Qemu;

/// How long a kernel may take to its first word. With KVM that is a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What QEMU runs the guest's instructions with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU itself: some ten times slower, and the same everywhere.
    Tcg,
}

impl Accelerator {
    /// The best that works here, which is tried out with the kernel `image` once.
    ///
    /// Inside another virtual machine KVM can be there, take a guest and never run it. So it is
    /// believed only when a kernel has said something. `scratch` is a directory for its words.
    pub(super) fn find(qemu: &Qemu, image: &Path, scratch: &Path) -> Result<Self> {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(*found);
        }
        let found = if kvm_runs(qemu, image, scratch)? {
            Self::Kvm
        } else {
            eprintln!("vm: KVM runs no guest here: QEMU interprets them");
            Self::Tcg
        };
        Ok(*FOUND.get_or_init(|| found))
    }

    /// QEMU's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

fn kvm_runs(qemu: &Qemu, image: &Path, scratch: &Path) -> Result<bool> {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(false);
    }
    let console = scratch.join("kvm-console.log");
    fs::write(&console, []).with_context(|| format!("cannot write {}", console.display()))?;
    let mut qemu = qemu.command();
    // It has no file system, so it panics and is gone.
    qemu.args([
        "-accel",
        "kvm",
        "-cpu",
        "max",
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
    ])
    .args(["-no-reboot", "-display", "none", "-nic", "none", "-kernel"])
    .arg(image)
    .args(["-append", "console=ttyS0 panic=-1", "-serial"])
    .arg(format!("file:{}", console.display()))
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut child = qemu.spawn().context("cannot start QEMU")?;
    let runs = speaks(&mut child, &console);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().context("cannot wait for QEMU")?;
    Ok(runs)
}

fn speaks(child: &mut Child, console: &Path) -> bool {
    let begin = Instant::now();
    loop {
        if fs::metadata(console).is_ok_and(|meta| meta.len() > 0) {
            return true;
        }
        let has_ended = child.try_wait().is_ok_and(|status| status.is_some());
        if has_ended || begin.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(LOOK);
    }
}
