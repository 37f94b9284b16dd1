//! What tracing costs: the same load without and with rstwatch, in pairs in one run, since machines
//! differ and are noisy. Prints medians and spread, and writes them as JSON.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{build, command, load::Load, project};

/// How long each measurement takes, in seconds.
const SECONDS: &str = "2";

/// What is measured: a load, under a way of tracing, in so many pairs.
struct Case {
    load: Load,
    tracing: Tracing,
    pairs: usize,
}

/// A way of running rstwatch.
#[derive(Clone, Copy)]
struct Tracing {
    title: &'static str,
    args: &'static [&'static str],
}

const JSON: Tracing = Tracing {
    title: "JSON",
    args: &["-j"],
};
const TABLE: Tracing = Tracing {
    title: "table",
    args: &[],
};
/// A port that the load does not use, at either end.
const FILTERED: Tracing = Tracing {
    title: "filtered in the kernel",
    args: &["-j", "-L", "1"],
};

const fn case(load: Load, tracing: Tracing, pairs: usize) -> Case {
    Case {
        load,
        tracing,
        pairs,
    }
}

const CASES: [Case; 6] = [
    // The smallest difference takes the most pairs to be seen.
    case(Load::Short, JSON, 21),
    case(Load::Refused, JSON, 7),
    case(Load::Refused, TABLE, 7),
    case(Load::Refused, FILTERED, 7),
    case(Load::RefusedTwice, JSON, 7),
    case(Load::RefusedTwice, FILTERED, 7),
];

/// Where the switch for counting BPF run time is.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One case's rates, without and with rstwatch, and what rstwatch used.
struct Rates {
    title: String,
    pairs: Vec<(f64, f64)>,
    used: Vec<Used>,
}

/// What a run of rstwatch used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Used {
    /// Until every hook was attached, in milliseconds.
    ready_ms: f64,
    /// CPU time in user space and in the kernel on its behalf, in seconds.
    cpu_s: f64,
    /// Peak resident memory, in MiB.
    peak_mib: f64,
    /// Resets that there were.
    resets: f64,
    /// Resets of which the detail was lost.
    lost: f64,
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
        output: project::target().join("bench.output"),
    };
    let mut all = Vec::new();
    for case in &CASES {
        let title = format!("{}, {}", case.load.title(), case.tracing.title);
        eprintln!("{title}: {} pairs of {SECONDS} s", case.pairs);
        all.push(bench.measure(case, title)?);
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:60} {:>10} {:>10} {:>22}",
        "", "without", "with", "with / without"
    )?;
    for rates in &all {
        let mut ratios: Vec<f64> = rates.pairs.iter().map(|(a, b)| b / a).collect();
        ratios.sort_by(f64::total_cmp);
        writeln!(
            out,
            "{:60} {:>8.0}/s {:>8.0}/s {:>8.3} ({:.3} - {:.3})",
            rates.title,
            median(rates.pairs.iter().map(|pair| pair.0)),
            median(rates.pairs.iter().map(|pair| pair.1)),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
        )?;
    }
    for rates in &all {
        let of = |get: fn(&Used) -> f64| median(rates.used.iter().map(get));
        writeln!(
            out,
            "{:60} ready {:.0} ms, {:.2} s of CPU a million resets, peak {:.1} MiB, lost {:.0} of {:.0}",
            rates.title,
            of(|used| used.ready_ms),
            of(|used| used.cpu_s / used.resets * 1e6),
            of(|used| used.peak_mib),
            rates.used.iter().map(|used| used.lost).sum::<f64>(),
            rates.used.iter().map(|used| used.resets).sum::<f64>(),
        )?;
    }
    for load in [Load::Short, Load::Refused] {
        for (program, times) in bench.hook_times(load)? {
            writeln!(
                out,
                "{:60} program {program}: {:.0} ns a run, {:.0} ns a connection",
                load.title(),
                times.a_run,
                times.a_connection
            )?;
        }
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
    output: PathBuf,
}

/// Nanoseconds of a BPF program.
struct HookTimes {
    a_run: f64,
    a_connection: f64,
}

impl Bench {
    fn measure(&self, case: &Case, title: String) -> Result<Rates> {
        let (mut pairs, mut used) = (Vec::new(), Vec::new());
        for pair in 0..case.pairs {
            // Each goes first as often, so that what drifts meets both alike.
            let (without, with) = if pair % 2 == 0 {
                let without = self.rate(case.load)?;
                (without, self.traced_rate(case)?)
            } else {
                let with = self.traced_rate(case)?;
                (self.rate(case.load)?, with)
            };
            pairs.push((without, with.0));
            used.push(with.1);
        }
        Ok(Rates { title, pairs, used })
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

    /// The same while rstwatch writes to a file, and what that took.
    fn traced_rate(&self, case: &Case) -> Result<(f64, Used)> {
        let begin = Instant::now();
        let tracer = self.start(case.tracing)?;
        let ready_ms = begin.elapsed().as_secs_f64() * 1e3;
        let rate = self.rate(case.load);
        // What waits in the ring belongs to it.
        thread::sleep(Duration::from_millis(300));
        let process = process_use(tracer.id());
        stop(tracer)?;
        let (cpu_s, peak_mib) = process?;
        let output = fs::read_to_string(&self.output)
            .with_context(|| format!("cannot read {}", self.output.display()))?;
        let (resets, lost) = summary(&output).context("rstwatch wrote no summary")?;
        let used = Used {
            ready_ms,
            cpu_s,
            peak_mib,
            resets,
            lost,
        };
        Ok((rate?, used))
    }

    fn start(&self, tracing: Tracing) -> Result<Child> {
        // It may be left from a run that was broken off.
        let _ = fs::remove_file(&self.ready);
        let output = fs::File::create(&self.output)
            .with_context(|| format!("cannot create {}", self.output.display()))?;
        let tracer = Command::new(&self.rstwatch)
            .args(tracing.args)
            .arg("--ready-file")
            .arg(&self.ready)
            .stdout(output)
            .spawn()
            .with_context(|| format!("cannot start {}", self.rstwatch.display()))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ready.exists() {
            if Instant::now() > deadline {
                bail!("rstwatch was not ready within 10 s");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(tracer)
    }

    /// Nanoseconds of each BPF program under a load, by the program's id.
    fn hook_times(&self, load: Load) -> Result<Vec<(String, HookTimes)>> {
        let before =
            fs::read_to_string(BPF_STATS).with_context(|| format!("cannot read {BPF_STATS}"))?;
        let tracer = self.start(JSON)?;
        fs::write(BPF_STATS, "1").with_context(|| format!("cannot write {BPF_STATS}"))?;
        let rate = self.rate(load);
        let times = run_times(&PathBuf::from(format!("/proc/{}/fdinfo", tracer.id())));
        let restored = fs::write(BPF_STATS, before.trim());
        stop(tracer)?;
        restored.with_context(|| format!("cannot restore {BPF_STATS}"))?;
        let seconds: f64 = SECONDS.parse().context("no number of seconds")?;
        let connections = rate? * seconds;
        Ok(times?
            .into_iter()
            .map(|(program, time, runs)| {
                let times = HookTimes {
                    a_run: time / runs,
                    a_connection: time / connections,
                };
                (program, times)
            })
            .collect())
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

/// CPU time in seconds and peak resident memory in MiB of a process.
fn process_use(pid: u32) -> Result<(f64, f64)> {
    /// `sysconf(_SC_CLK_TCK)`, which is this on every Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read stat")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read status")?;
    parse_use(&stat, &status)
        .map(|(ticks, kib)| (ticks / TICKS, kib / 1024.0))
        .context("cannot make out what rstwatch used")
}

/// Ticks of CPU time from `/proc/PID/stat`, and peak resident KiB from `/proc/PID/status`.
fn parse_use(stat: &str, status: &str) -> Option<(f64, f64)> {
    // Behind the name, which may hold anything: state is field 3, utime 14 and stime 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some((user + system, peak.split_whitespace().next()?.parse().ok()?))
}

/// Resets and lost ones, from the summary at the end of rstwatch's output: JSON or text.
fn summary(output: &str) -> Option<(f64, f64)> {
    if let Some(line) = output
        .lines()
        .rev()
        .find(|line| line.starts_with("{\"summary\""))
    {
        let number = |name: &str| -> Option<f64> {
            let rest = line.split_once(&format!("\"{name}\":"))?.1;
            rest.split([',', '}']).next()?.parse().ok()
        };
        return Some((number("sent")? + number("received")?, number("ring_full")?));
    }
    let (at, line) = output
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains(" sent, ") && line.ends_with(" received"))
        .last()?;
    let lost = output
        .lines()
        .skip(at)
        .find(|line| line.starts_with("lost: ") && line.contains("ring buffer was full"))
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Some((
        line.split_whitespace().next()?.parse().ok()?,
        lost.unwrap_or(0.0),
    ))
}

/// Each program's id, run time in nanoseconds and number of runs.
fn run_times(fdinfo: &Path) -> Result<Vec<(String, f64, f64)>> {
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

/// A program's id, nanoseconds and runs, from its `/proc/PID/fdinfo`; `None` for what is no program
/// or has not run.
fn parse_run_time(info: &str) -> Option<(String, f64, f64)> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let time: f64 = field("run_time_ns:")?.parse().ok()?;
    let runs: f64 = field("run_cnt:")?.parse().ok()?;
    (runs > 0.0).then(|| (field("prog_id:").unwrap_or("?").to_owned(), time, runs))
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
                "{{\"case\":\"{}\",\"pairs\":[{}]}}",
                rates.title,
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
        assert_eq!(parse_run_time(info), Some(("42".to_owned(), 300.0, 3.0)));
        assert_eq!(
            parse_run_time("prog_id:\t1\nrun_time_ns:\t0\nrun_cnt:\t0\n"),
            None
        );
        assert_eq!(parse_run_time("pos:\t0\n"), None);
    }

    #[test]
    fn what_a_process_used_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 0 0 20 0 2 0 5 1 1";
        let status = "Name:\ta\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_use(stat, status), Some((15.0, 2048.0)));
        assert_eq!(parse_use("", status), None);
    }

    #[test]
    fn the_summary_is_read_in_either_form() {
        let json = "{\"time\":1}\n{\"summary\":{\"sent\":5,\"received\":7,\"lost_detail\":{\"total\":1,\"ring_full\":1}}}\n";
        assert_eq!(summary(json), Some((12.0, 1.0)));
        let text = "12 resets in 1.0 s: 5 sent, 7 received\n12 shown, 0 filtered out\n";
        assert_eq!(summary(text), Some((12.0, 0.0)));
        let lost =
            format!("{text}lost: 3 resets not shown, because the ring buffer was full (see)\n");
        assert_eq!(summary(&lost), Some((12.0, 3.0)));
        assert_eq!(summary("TIME\n"), None);
    }

    #[test]
    fn medians_and_json() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        let rates = Rates {
            title: "short connections".to_owned(),
            pairs: vec![(2.0, 1.0)],
            used: Vec::new(),
        };
        assert_eq!(
            json(&[rates]),
            "[{\"case\":\"short connections\",\"pairs\":[[2,1]]}]\n"
        );
    }
}
