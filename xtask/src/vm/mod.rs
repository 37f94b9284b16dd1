//! `cargo xtask vm`: the same static binary in virtual machines, one for each kernel.

mod accelerator;
mod archive;
mod initramfs;
mod kernel;
mod machine;
mod release;

use std::{
    ffi::OsString,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::release::Wanted;
use self::{
    accelerator::Accelerator,
    initramfs::Initramfs,
    kernel::{Kernel, Kernels},
    machine::{Machine, Outcome, Stream},
};
use crate::{command, packages, project, static_binary};

/// The kernels that are tested when none is named.
const DEFAULT: [&str; 6] = ["5.10", "6.1", "6.12", "6.18/6.19", "7.2", "newest"];

/// What is to be run, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A kernel: 6.1, 6.1.192, 6.18/6.19 for the first that there is, or newest; may be repeated
    #[arg(long = "kernel", value_name = "RELEASE")]
    kernels: Vec<Wanted>,
    /// A folder of unpacked kernels, instead of Debian's packages
    #[arg(long, value_name = "DIR")]
    kernels_dir: Option<PathBuf>,
    /// Ask the mirror for newer kernels than it had the last time
    #[arg(long, conflicts_with = "kernels_dir")]
    refresh: bool,
    /// Where the logs of the machines are kept, instead of target/vm/logs
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// A static binary to run, instead of building it
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// A further file for the guest, by name here and there; may be repeated
    #[arg(long = "file", value_name = "HERE:THERE", value_parser = file)]
    files: Vec<(String, PathBuf)>,
    /// A command to run in each kernel: /bin/rstwatch is there, and busybox
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// What is the same for all machines of one run.
struct Payload {
    busybox: PathBuf,
    binary: PathBuf,
    /// The shell script that is run.
    command: String,
    /// Further files: name in the guest, place here.
    files: Vec<(String, PathBuf)>,
}

/// Boots every kernel asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels are x86-64 kernels, and the binary is built for the processor at hand"
    );
    packages::for_machines()?;
    let directory = project::target().join("vm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let kernels = chosen(arguments, &directory)?;
    let binary = match &arguments.binary {
        Some(path) => {
            static_binary::check(path)?;
            path.clone()
        }
        None => static_binary::build()?.path,
    };
    let busybox = command::find("busybox").context("there is no busybox")?;
    static_binary::check(&busybox)?;
    let payload = Payload {
        busybox,
        binary,
        command: script(&arguments.command)?,
        files: arguments.files.clone(),
    };
    let logs = arguments
        .logs
        .clone()
        .unwrap_or_else(|| directory.join("logs"));
    let accelerator = Accelerator::find(&kernels[0].image, &directory)?;
    let ended = on_all(&kernels, |kernel| {
        boot(
            kernel,
            accelerator,
            &payload,
            &logs,
            "command",
            kernels.len() > 1,
        )
    });
    let mut failed = Vec::new();
    for (kernel, outcome) in kernels.iter().zip(ended) {
        let text = match outcome {
            Ok(outcome) if outcome.status == 0 => continue,
            Ok(outcome) => format!("{}: exit status {}", kernel.name, outcome.status),
            Err(error) => format!("{}: {error:#}", kernel.name),
        };
        failed.push(text);
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The kernels that the command line names, or the default ones; each once.
fn chosen(arguments: &Arguments, directory: &Path) -> Result<Vec<Kernel>> {
    let wanted = if arguments.kernels.is_empty() {
        DEFAULT
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_>>()?
    } else {
        arguments.kernels.clone()
    };
    let source = match &arguments.kernels_dir {
        Some(folder) => Kernels::in_folder(folder.clone()),
        None => Kernels::of_debian(directory.to_owned(), arguments.refresh)?,
    };
    let mut kernels: Vec<Kernel> = Vec::new();
    for wanted in &wanted {
        let kernel = source.get(wanted)?;
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    Ok(kernels)
}

/// Boots one kernel and runs the payload there. Logs are kept in a directory of their own.
fn boot(
    kernel: &Kernel,
    accelerator: Accelerator,
    payload: &Payload,
    logs: &Path,
    run: &str,
    is_one_of_many: bool,
) -> Result<Outcome> {
    let logs = logs.join(&kernel.name).join(run);
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let path = logs.join("initramfs");
    let mut initramfs = Initramfs::create(&path)?;
    initramfs.add_system(&payload.busybox)?;
    for (index, module) in kernel.modules()?.iter().enumerate() {
        // The shell lists them in this order.
        let name = format!("modules/{index:02}-{}.ko", module.name);
        initramfs.add(&name, &module.bytes, 0o644)?;
    }
    initramfs.add_file("bin/rstwatch", &payload.binary)?;
    for (name, from) in &payload.files {
        initramfs.add_file(name, from)?;
    }
    initramfs.add("command", payload.command.as_bytes(), 0o755)?;
    initramfs.finish()?;
    let machine = Machine {
        accelerator,
        image: &kernel.image,
        initramfs: &path,
        logs: &logs,
    };
    let outcome = machine.run(|stream, line| {
        let prefix = match is_one_of_many {
            true => format!("[{}] ", kernel.name),
            false => String::new(),
        };
        match stream {
            Stream::Output => println!("{prefix}{line}"),
            Stream::Error => eprintln!("{prefix}{line}"),
        }
    });
    // It is large, and made anew in a second.
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    outcome
}

/// Does `job` for all kernels, as many at once as there are processors, and gives what came of it in
/// their order.
fn on_all<T: Send>(kernels: &[Kernel], job: impl Fn(&Kernel) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers.min(kernels.len()) {
            scope.spawn(|| {
                while let Some((index, kernel)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    kernels.get(index).map(|kernel| (index, kernel))
                } {
                    let result = job(kernel);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Reads `HERE:THERE` as a name in the guest, without the leading slash, and a file here.
fn file(text: &str) -> Result<(String, PathBuf)> {
    let (here, there) = text
        .rsplit_once(':')
        .context("name a file here and its name in the guest: ./program:/bin/program")?;
    Ok((
        there.trim_start_matches('/').to_owned(),
        PathBuf::from(here),
    ))
}

/// A script that becomes `command`.
fn script(command: &[OsString]) -> Result<String> {
    let mut text = String::from("#!/bin/sh\nexec");
    for word in command {
        let word = word
            .to_str()
            .context("the command is no UTF-8, which the guest's shell would not take")?;
        text.push_str(&format!(" '{}'", word.replace('\'', r"'\''")));
    }
    text.push('\n');
    Ok(text)
}
