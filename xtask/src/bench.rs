//! What tracing costs: the same load without and with rstwatch, in pairs in one run, since machines
//! differ and are noisy. Prints medians and spread, and writes them as JSON.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{build, command, load::Load, project};

/// Pairs of measurements for each load.
const PAIRS: usize = 7;

/// How long each measurement takes, in seconds.
const SECONDS: &str = "2";

const LOADS: [Load; 3] = [Load::Short, Load::Refused, Load::RefusedTwice];

/// Where the switch for counting BPF run time is.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One load's rates, without and with rstwatch.
struct Rates {
    load: Load,
    pairs: Vec<(f64, f64)>,
}

/// Measures everything.
pub(crate) fn run() -> Result<()> {
    let built = build::all()?;
    if !command::is_root()? {
        bail!(
            "the benchmark traces and makes network namespaces: run it as root, `sudo -E cargo xtask bench`"
        );
    }
    let bench = Bench {
        rstwatch: built.binary,
        own: env::current_exe().context("cannot find this program")?,
        ready: project::target().join("bench.ready"),
    };
    let mut all = Vec::new();
    for load in LOADS {
        eprintln!("{}: {PAIRS} pairs of {SECONDS} s", load.title());
        all.push(bench.measure(load)?);
    }
    let hooks = bench.hook_times()?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:40} {:>10} {:>10} {:>22}",
        "", "without", "with", "with / without"
    )?;
    for rates in &all {
        let mut ratios: Vec<f64> = rates.pairs.iter().map(|(a, b)| b / a).collect();
        ratios.sort_by(f64::total_cmp);
        writeln!(
            out,
            "{:40} {:>8.0}/s {:>8.0}/s {:>8.3} ({:.3} - {:.3})",
            rates.load.title(),
            median(rates.pairs.iter().map(|pair| pair.0)),
            median(rates.pairs.iter().map(|pair| pair.1)),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
        )?;
    }
    for (program, ns) in &hooks {
        writeln!(out, "BPF time a run, program {program}: {ns:.0} ns")?;
    }
    let path = project::target().join("bench.json");
    fs::write(&path, json(&all)).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "written to {}", path.display())?;
    Ok(())
}

struct Bench {
    rstwatch: PathBuf,
    own: PathBuf,
    ready: PathBuf,
}

impl Bench {
    fn measure(&self, load: Load) -> Result<Rates> {
        let mut pairs = Vec::new();
        for pair in 0..PAIRS {
            // Each goes first as often, so that what drifts meets both alike.
            let (without, with) = if pair % 2 == 0 {
                let without = self.rate(load)?;
                (without, self.traced_rate(load)?)
            } else {
                let with = self.traced_rate(load)?;
                (self.rate(load)?, with)
            };
            pairs.push((without, with));
        }
        Ok(Rates { load, pairs })
    }

    /// Connections a second.
    fn rate(&self, load: Load) -> Result<f64> {
        let name = clap::ValueEnum::to_possible_value(&load).context("a load without a name")?;
        let script = "ip link set lo up && exec \"$0\" load \"$1\" \"$2\"";
        let printed = command::output(
            Command::new("unshare")
                .args(["--net", "sh", "-c", script])
                .arg(&self.own)
                .args([name.get_name(), SECONDS]),
        )?;
        printed
            .trim()
            .parse()
            .with_context(|| format!("the load printed no rate: {printed}"))
    }

    /// The same while rstwatch writes every reset as JSON.
    fn traced_rate(&self, load: Load) -> Result<f64> {
        let tracer = self.start()?;
        let rate = self.rate(load);
        stop(tracer)?;
        rate
    }

    fn start(&self) -> Result<Child> {
        // It may be left from a run that was broken off.
        let _ = fs::remove_file(&self.ready);
        let tracer = Command::new(&self.rstwatch)
            .arg("-j")
            .arg("--ready-file")
            .arg(&self.ready)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.rstwatch.display()))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ready.exists() {
            if Instant::now() > deadline {
                bail!("rstwatch was not ready within 10 s");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(tracer)
    }

    /// Nanoseconds a run of each BPF program under refused connects, by the program's id.
    fn hook_times(&self) -> Result<Vec<(String, f64)>> {
        let before =
            fs::read_to_string(BPF_STATS).with_context(|| format!("cannot read {BPF_STATS}"))?;
        let tracer = self.start()?;
        fs::write(BPF_STATS, "1").with_context(|| format!("cannot write {BPF_STATS}"))?;
        let rate = self.rate(Load::Refused);
        let times = run_times(&PathBuf::from(format!("/proc/{}/fdinfo", tracer.id())));
        let restored = fs::write(BPF_STATS, before.trim());
        stop(tracer)?;
        rate?;
        restored.with_context(|| format!("cannot restore {BPF_STATS}"))?;
        times
    }
}

/// Ends rstwatch and waits for it.
fn stop(mut tracer: Child) -> Result<()> {
    command::run(Command::new("kill").args(["-INT", &tracer.id().to_string()]))?;
    let status = tracer.wait().context("cannot wait for rstwatch")?;
    if !status.success() {
        bail!("rstwatch ended with {status}");
    }
    Ok(())
}

fn run_times(fdinfo: &Path) -> Result<Vec<(String, f64)>> {
    let mut times = Vec::new();
    for entry in
        fs::read_dir(fdinfo).with_context(|| format!("cannot read {}", fdinfo.display()))?
    {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        times.extend(parse_run_time(&info));
    }
    times.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(times)
}

/// A program's id and nanoseconds a run, from its `/proc/PID/fdinfo`; `None` for what is no program
/// or has not run.
fn parse_run_time(info: &str) -> Option<(String, f64)> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let time: f64 = field("run_time_ns:")?.parse().ok()?;
    let runs: f64 = field("run_cnt:")?.parse().ok()?;
    (runs > 0.0).then(|| (field("prog_id:").unwrap_or("?").to_owned(), time / runs))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rates of every pair.
fn json(all: &[Rates]) -> String {
    let loads: Vec<String> = all
        .iter()
        .map(|rates| {
            let pairs: Vec<String> = rates
                .pairs
                .iter()
                .map(|(without, with)| format!("[{without},{with}]"))
                .collect();
            format!(
                "{{\"load\":\"{}\",\"pairs\":[{}]}}",
                rates.load.title(),
                pairs.join(",")
            )
        })
        .collect();
    format!("[{}]\n", loads.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_time_a_run_is_read() {
        let info = "prog_type:\t26\nprog_id:\t42\nrun_time_ns:\t300\nrun_cnt:\t3\n";
        assert_eq!(parse_run_time(info), Some(("42".to_owned(), 100.0)));
        assert_eq!(
            parse_run_time("prog_id:\t1\nrun_time_ns:\t0\nrun_cnt:\t0\n"),
            None
        );
        assert_eq!(parse_run_time("pos:\t0\n"), None);
    }

    #[test]
    fn medians_and_json() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        let rates = Rates {
            load: Load::Short,
            pairs: vec![(2.0, 1.0)],
        };
        assert_eq!(
            json(&[rates]),
            "[{\"load\":\"short connections\",\"pairs\":[[2,1]]}]\n"
        );
    }
}
