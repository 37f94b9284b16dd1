//! `cargo xtask vm`: the same static binary in virtual machines, one for each kernel.
//!
//! - [`kernel`], [`release`], [`shelf`]: the kernels, and where they come from.
//! - [`initramfs`], [`machine`], [`accelerator`]: a guest, and how it is run.
//! - [`suite`]: what is run there; [`matrix`]: what came of it; [`guard`]: what the verifiers count.

mod accelerator;

mod guard;
mod initramfs;
mod kernel;
mod machine;
mod matrix;
mod qemu;
mod release;
mod shelf;
mod suite;

use std::{
    ffi::OsString,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::release::Wanted;
use self::{
    accelerator::Accelerator,
    guard::Record,
    initramfs::Initramfs,
    kernel::{Kernel, Kernels},
    machine::{Machine, Outcome, Stream},
    matrix::Column,
    qemu::Qemu,
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
    /// Put the verifier's counts on record, instead of comparing them with those that are
    #[arg(long)]
    bless: bool,
    /// Run the tests as well, after doctor and selftest
    #[arg(long)]
    tests: bool,
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
    /// What the logs of this run are called.
    name: &'static str,
}

/// Boots every kernel asked for, and runs the command there, or the suite.
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
    let qemu = Qemu::find_or_fetch()?;
    let accelerator = Accelerator::find(&qemu, &kernels[0].image, &directory)?;
    let site = Site {
        qemu,
        accelerator,
        logs: arguments
            .logs
            .clone()
            .unwrap_or_else(|| directory.join("logs")),
    };
    if arguments.command.is_empty() {
        whole_suite(arguments, &kernels, &site)
    } else {
        one_command(arguments, &kernels, &site)
    }
}

fn one_command(arguments: &Arguments, kernels: &[Kernel], site: &Site) -> Result<()> {
    let binary = match &arguments.binary {
        Some(path) => {
            static_binary::check(path)?;
            path.clone()
        }
        None => static_binary::build()?.path,
    };
    let payload = Payload {
        busybox: busybox()?,
        binary,
        command: script(&arguments.command)?,
        files: arguments.files.clone(),
        name: "command",
    };
    let ended = on_all(kernels, |kernel| {
        site.boot(kernel, &payload, |stream, line| {
            let prefix = if kernels.len() > 1 {
                format!("[{}] ", kernel.name)
            } else {
                String::new()
            };
            match stream {
                Stream::Output => println!("{prefix}{line}"),
                Stream::Error => eprintln!("{prefix}{line}"),
            }
        })
    });
    let failed: Vec<_> = kernels
        .iter()
        .zip(ended)
        .filter_map(|(kernel, outcome)| match outcome {
            Ok(outcome) if outcome.status == 0 => None,
            Ok(outcome) => Some(format!("{}: exit status {}", kernel.name, outcome.status)),
            Err(error) => Some(format!("{}: {error:#}", kernel.name)),
        })
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Runs the suite in every kernel, and prints what came of it.
fn whole_suite(arguments: &Arguments, kernels: &[Kernel], site: &Site) -> Result<()> {
    ensure!(
        arguments.binary.is_none() && arguments.files.is_empty(),
        "--binary and --file go with a command: the suite builds what it tests"
    );
    let binary = static_binary::build()?;
    let payload = Payload {
        busybox: busybox()?,
        command: suite::script(arguments.tests),
        files: if arguments.tests {
            suite::files(&binary)?
        } else {
            Vec::new()
        },
        binary: binary.path,
        name: "suite",
    };
    let digest = command::output(Command::new("sha256sum").arg(&payload.binary))?;
    let digest = digest.split(' ').next().unwrap_or_default();
    let started = Instant::now();
    let columns = on_all(kernels, |kernel| {
        let outcome = site.boot(kernel, &payload, |stream, line| {
            if let (Stream::Output, Some(step)) = (stream, suite::progress(line)) {
                let seconds = started.elapsed().as_secs();
                eprintln!("vm: {seconds:>4} s  {}: {step}", kernel.name);
            }
        });
        Column {
            kernel: kernel.name.clone(),
            tests: arguments.tests,
            steps: outcome
                .map(|outcome| suite::parse(&outcome.stdout))
                .map_err(|error| format!("{error:#}")),
        }
    });
    let mut faults: Vec<_> = columns.iter().flat_map(Column::faults).collect();
    if arguments.bless {
        Record::read_or_empty()?.bless(&columns)?;
    } else {
        let record = Record::read()?;
        faults.extend(columns.iter().flat_map(|column| record.faults(column)));
    }
    let tables = format!(
        "One static binary, sha256 {digest}\n\n{}",
        matrix::tables(&columns)
    );
    print!("{tables}");
    let path = site.logs.join("matrix.md");
    fs::write(&path, tables).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!(
        "vm: {} kernels in {} s; the logs are in {}",
        kernels.len(),
        started.elapsed().as_secs(),
        project::shown(&site.logs)
    );
    if !faults.is_empty() {
        bail!("not as it must be:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let busybox = command::find("busybox").context("there is no busybox")?;
    static_binary::check(&busybox).context("install busybox-static")?;
    Ok(busybox)
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
        None => Kernels::of_debian(directory, arguments.refresh)?,
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

/// How machines are run here.
struct Site {
    qemu: Qemu,
    accelerator: Accelerator,
    logs: PathBuf,
}

impl Site {
    /// Boots one kernel and runs the payload there. Logs are kept in a directory of their own.
    fn boot(
        &self,
        kernel: &Kernel,
        payload: &Payload,
        show: impl FnMut(Stream, &str),
    ) -> Result<Outcome> {
        let logs = self.logs.join(&kernel.name).join(payload.name);
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
            qemu: &self.qemu,
            accelerator: self.accelerator,
            image: &kernel.image,
            initramfs: &path,
            logs: &logs,
        };
        let outcome = machine.run(show);
        // It is large, and made anew in a second.
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        outcome
    }
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
        text.push_str(" '");
        text.push_str(&word.replace('\'', r"'\''"));
        text.push('\'');
    }
    text.push('\n');
    Ok(text)
}
