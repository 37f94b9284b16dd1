//! The command line: what a user writes, and the checked options that it becomes.
//!
//! Arguments are turned into options in one place ([`TraceArgs::into_options`]), which takes what it
//! must know of the system as an [`Environment`], so that nothing here reads it. A new subcommand is
//! a variant of [`Command`] with arguments of its own.
//!
//! Exit status: 0 fine, [`EXIT_FAILED`], [`EXIT_USAGE`].

mod colour;
mod doctor;
mod selftest;
pub mod top;

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use ipnet::{IpNet, Ipv4Net};

use self::colour::ColourArgs;
pub use self::doctor::DoctorArgs;
pub use self::selftest::{DemoArgs, SelftestArgs};
use crate::{
    cause::{CauseId, catalogue},
    event::Direction,
    explain::{self, Look},
    filter::{CommPattern, Family, Filter, UnitPattern},
    sink::table::TableOptions,
};

/// The exit status when the work could not be done.
pub const EXIT_FAILED: u8 = 1;
/// The exit status for arguments that make no sense; clap's own.
pub const EXIT_USAGE: u8 = 2;

/// The largest ring buffer that may be asked for, in bytes. The kernel would take more (up to a
/// `u32`), and charge all of it to this process.
const MAX_RING_SIZE: u32 = 1 << 30;

/// Rows a second that a terminal gets: more cannot be read.
const DEFAULT_MAX_RATE: u32 = 100;

/// Where `ip netns` keeps the names of network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Where the cgroup hierarchy is usually mounted: users copy paths from there.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

const AFTER_HELP: &str = "\
Run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_SYSLOG.
Ctrl-C ends it with a summary.";

const AFTER_EXPLAIN: &str = "\
Examples:
  rstwatch explain                             all causes, errors and words
  rstwatch explain linger-abort                a cause
  rstwatch explain TCP_ABORT_ON_CLOSE          a reason of the kernel
  rstwatch explain ECONNRESET                  an error, or 104
  rstwatch explain Connection closed by peer   what an application printed
  rstwatch explain FIN Timeout                 a firewall's word

Exit status:
  0 found, 1 not found, 2 wrong usage.";

const AFTER_LONG_HELP: &str = "\
Columns:
  PID and COMM are the process that owns the connection; - where it has none or none is known,
  [kernel] where the kernel itself does. PLACE (-w) is its systemd unit, container or cgroup.
  A CAUSE is certain as it stands, likely with ? behind it, and possible with ??.

What to show:
  Several values of one option are alternatives; different options must all agree.
  What is not known of a reset, such as an owner, matches no value.

Examples:
  rstwatch                                every reset that this host sends or receives
  rstwatch -p 812 -w                      those of one process, with reason, actor and a sentence
  rstwatch --unit nginx                   those of a systemd unit
  rstwatch --sent -L 443,8443             resets that a web server sends
  rstwatch --received --addr 10.0.0.0/8   resets that came from, or to, a network
  rstwatch --cause closed-port --duration 60s
  rstwatch -j --count 100 | jq -r '.cause.summary // empty'

Exit status:
  0 fine, 1 failed, 2 wrong usage.

Run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_SYSLOG.
Ctrl-C ends it with a summary.";

/// Traces TCP resets: whose they are, who caused them, why, and how sure that is.
#[derive(Debug, Parser)]
#[command(
    name = "rstwatch",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    trace: TraceArgs,
}

impl Cli {
    /// The command to run: `trace` unless another is named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Trace(self.trace))
    }
}

/// What rstwatch can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every reset as it happens (the default)
    #[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
    Trace(TraceArgs),
    /// Watch on a full screen what is reset now: rates, causes, owners, ports, peers
    #[command(after_help = top::AFTER_HELP, after_long_help = top::AFTER_LONG_HELP)]
    Top(top::TopArgs),
    /// Explain a cause, a kernel reason, an error or a text from a log; needs no privileges
    #[command(after_help = AFTER_EXPLAIN)]
    Explain(ExplainArgs),
    /// Say what this kernel gives, what is missing, and what that costs
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(DoctorArgs),
    /// Make each kind of reset on purpose, and check cause and owner; touches nothing else
    #[command(after_help = selftest::AFTER_SELFTEST)]
    Selftest(SelftestArgs),
    /// Show what each kind of reset looks like, made on purpose
    #[command(after_help = selftest::AFTER_DEMO)]
    Demo(DemoArgs),
}

/// The arguments of `explain`, as they were written.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// What to explain; without it, all that can be is listed
    #[arg(value_name = "ID | REASON | ERRNO | TEXT")]
    query: Vec<String>,

    #[command(flatten)]
    colour: ColourArgs,
}

impl ExplainArgs {
    /// What to explain; several words are one text.
    pub fn query(&self) -> String {
        self.query.join(" ")
    }

    /// How it is to look on a standard output that is a terminal of so many columns, or none.
    pub fn look(&self, columns: Option<u16>, is_terminal: bool, no_color: bool) -> Look {
        Look {
            colour: self.colour.is_on(is_terminal, no_color),
            width: explain::width(columns),
        }
    }
}

/// Which resets to show, as it was written.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own on the command line"
)]
pub struct FilterArgs {
    /// Show resets of this process: it owns or holds the socket, or caused the reset
    #[arg(
        short,
        long,
        value_name = "PID",
        value_delimiter = ',',
        help_heading = "What to show"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,

    /// Show resets of processes of this name; a name that ends in * matches what begins so
    #[arg(long, value_name = "NAME", help_heading = "What to show")]
    comm: Vec<String>,

    /// Show resets of connections to or from this port of this host
    #[arg(short = 'L', long, value_name = "PORT", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..), help_heading = "What to show")]
    local_port: Vec<u16>,

    /// Show resets of connections to or from this port of the other end
    #[arg(short = 'D', long, value_name = "PORT", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..), help_heading = "What to show")]
    remote_port: Vec<u16>,

    /// Show resets of connections with this address, or one in this network, at either end
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_net)]
    #[arg(help_heading = "What to show")]
    addr: Vec<IpNet>,

    /// Show IPv4 only
    #[arg(short = '4', long, help_heading = "What to show")]
    ipv4: bool,

    /// Show IPv6 only
    #[arg(short = '6', long, help_heading = "What to show")]
    ipv6: bool,

    /// Show resets that this host sent
    #[arg(long, help_heading = "What to show")]
    sent: bool,

    /// Show resets that this host received
    #[arg(long, help_heading = "What to show")]
    received: bool,

    /// Show resets with this cause
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = cause_parser())]
    #[arg(help_heading = "What to show")]
    cause: Vec<CauseId>,

    /// Show resets in this network namespace: its name (`ip netns`), a path or an inode number
    #[arg(long, value_name = "NAME", help_heading = "What to show")]
    netns: Vec<String>,

    /// Show resets of processes in this cgroup or below it
    #[arg(long, value_name = "PATH", value_parser = parse_cgroup)]
    #[arg(help_heading = "What to show")]
    cgroup: Vec<Arc<str>>,

    /// Show resets of processes in the container whose id begins so
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = parse_container)]
    #[arg(help_heading = "What to show")]
    container: Vec<Arc<str>>,

    /// Show resets of processes in this systemd unit; .service may be left out, and a name that
    /// ends in * matches what begins so
    #[arg(long, value_name = "NAME", help_heading = "What to show")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    unit: Vec<String>,
}

/// The arguments of `trace`, as they were written.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "options, each of which is given or not"
)]
pub struct TraceArgs {
    #[command(flatten)]
    filter: FilterArgs,

    /// Print the date before the time
    #[arg(short = 'T', long, help_heading = "How to show it")]
    timestamp: bool,

    /// Add reason, confidence, how the owner is known, network namespace, place, actor, a sentence
    #[arg(short, long, help_heading = "How to show it")]
    wide: bool,

    /// Print JSON, one object a line, with all that is known; the same as `--output json`
    #[arg(
        short,
        long,
        conflicts_with = "output",
        help_heading = "How to show it"
    )]
    json: bool,

    /// Print a table or JSON
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    #[arg(help_heading = "How to show it")]
    output: Format,

    #[command(flatten, next_help_heading = "How to show it")]
    colour: ColourArgs,

    /// Stop after this time: 60s, 5m, 1h30m; a number alone is seconds
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    #[arg(help_heading = "When to stop")]
    duration: Option<Duration>,

    /// Stop after so many resets were shown
    #[arg(long, value_name = "N", help_heading = "When to stop")]
    count: Option<NonZeroU64>,

    /// Print the shape of what came and a summary each time this time has passed, and not at the
    /// end only
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    #[arg(help_heading = "How to show it")]
    interval: Option<Duration>,

    /// Print at most so many resets a second, count the rest by cause; 0 is no limit [default: 100
    /// for a table on a terminal, else 0]
    #[arg(long, value_name = "N", help_heading = "How to show it")]
    max_rate: Option<u32>,

    #[command(flatten)]
    running: RunningArgs,

    /// Log what the BPF programs report of their own errors
    #[arg(long, help_heading = "Running it")]
    bpf_log: bool,
}

/// How to run, as it was written.
#[derive(Args, Debug)]
pub struct RunningArgs {
    /// Create this file once every hook is in place
    #[arg(long, value_name = "PATH", help_heading = "Running it")]
    ready_file: Option<PathBuf>,

    /// Let go of all hooks on SIGUSR1, and go on reading: for the benchmark, which holds their programs, and then
    /// attaches and detaches them itself
    #[arg(long, hide = true)]
    lend_hooks: bool,

    /// Size of the ring buffer between the kernel and rstwatch, rounded up to a power of two
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "8MiB")]
    #[arg(help_heading = "Running it")]
    ring_size: u64,

    /// How many closed connections to remember, for what still comes for them, rounded up to a power of two
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 32_768,
        help_heading = "Running it"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1_024..=4_194_304))]
    history: u32,

    /// Attach as raw tracepoints (and kprobes, before 6.10), which read more slowly, even where BTF
    /// tracepoints (and fentry) work
    #[arg(long, help_heading = "Running it")]
    raw_tracepoints: bool,

    /// Say on standard error what rstwatch does
    #[arg(short, long, help_heading = "Running it")]
    verbose: bool,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One row a reset
    Table,
    /// One object a line
    Json,
}

/// What the options depend on outside the command line.
pub struct Environment<'a> {
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
    /// Whether `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
    /// The system's page size in bytes: a power of two.
    pub page_size: u32,
    /// The inode number of the network namespace that is bound to a path.
    pub netns_inode: &'a dyn Fn(&Path) -> std::io::Result<u32>,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("is_terminal", &self.is_terminal)
            .field("no_color", &self.no_color)
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}

/// What `trace` is to do, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct TraceOptions {
    /// Which events to show.
    pub filter: Filter,
    /// How to show them.
    pub output: Output,
    /// Stop after this time; more than zero.
    pub duration: Option<Duration>,
    /// Stop after so many events were shown.
    pub count: Option<NonZeroU64>,
    /// Print the shape and a summary each time this has passed; more than zero.
    pub interval: Option<Duration>,
    /// Show at most so many events a second.
    pub max_rate: Option<NonZeroU32>,
    /// Create this file once every hook is in place.
    pub ready_file: Option<PathBuf>,
    /// Let go of the hooks on SIGUSR1.
    pub lend_hooks: bool,
    /// Attach as raw tracepoints only.
    pub raw_tracepoints: bool,
    /// Log what the BPF programs report.
    pub bpf_log: bool,
    /// Bytes of the ring buffer: a power of two, a multiple of the page size, at most 1 GiB.
    pub ring_size: u32,
    /// Closed connections to remember: 1,024 to 4,194,304.
    pub history: u32,
    /// Say what is being done.
    pub verbose: bool,
}

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// As a table.
    Table(TableOptions),
    /// As JSON.
    Json,
    /// On a full screen.
    Screen,
}

impl FilterArgs {
    /// The filter that these arguments mean.
    fn into_filter(self, environment: &Environment<'_>) -> Result<Filter, clap::Error> {
        let netns = self
            .netns
            .iter()
            .map(|name| find_netns(name, environment))
            .collect::<Result<_, _>>()?;
        Ok(Filter {
            pids: self.pid,
            comms: self
                .comm
                .iter()
                .map(|name| CommPattern::new(name))
                .collect(),
            local_ports: self.local_port,
            remote_ports: self.remote_port,
            families: switched_on([(self.ipv4, Family::V4), (self.ipv6, Family::V6)]),
            nets: self.addr,
            directions: switched_on([
                (self.sent, Direction::Sent),
                (self.received, Direction::Received),
            ]),
            causes: self.cause,
            netns,
            cgroups: self.cgroup,
            containers: self.container,
            units: self
                .unit
                .iter()
                .map(|name| UnitPattern::new(name))
                .collect(),
        })
    }
}

impl TraceArgs {
    /// The options that these arguments mean.
    ///
    /// # Errors
    ///
    /// A usage error, ready to be shown, when a network namespace is not found or the ring buffer
    /// would be larger than 1 GiB. What is wrong in a single argument was found by the parser.
    pub fn into_options(self, environment: &Environment<'_>) -> Result<TraceOptions, clap::Error> {
        let colour = self
            .colour
            .is_on(environment.is_terminal, environment.no_color);
        let output = if self.json || self.output == Format::Json {
            Output::Json
        } else {
            Output::Table(TableOptions {
                colour,
                wide: self.wide,
                date: self.timestamp,
                sentence: false,
            })
        };
        let by_itself = match output {
            Output::Table(_) if environment.is_terminal => DEFAULT_MAX_RATE,
            _ => 0,
        };
        let max_rate = NonZeroU32::new(self.max_rate.unwrap_or(by_itself));
        let filter = self.filter.into_filter(environment)?;
        Ok(TraceOptions {
            filter,
            output,
            duration: self.duration,
            count: self.count,
            interval: self.interval,
            max_rate,
            ready_file: self.running.ready_file,
            lend_hooks: self.running.lend_hooks,
            raw_tracepoints: self.running.raw_tracepoints,
            bpf_log: self.bpf_log,
            ring_size: ring_size(self.running.ring_size, environment.page_size)?,
            history: self.running.history.next_power_of_two(),
            verbose: self.running.verbose,
        })
    }
}

/// The values whose switch is on.
fn switched_on<T, const N: usize>(switches: [(bool, T); N]) -> Vec<T> {
    switches
        .into_iter()
        .filter_map(|(on, value)| on.then_some(value))
        .collect()
}

/// A usage error, with the usage line that clap adds.
fn usage_error(message: impl fmt::Display) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, message)
}

/// The inode number of a network namespace given by number, path or name.
fn find_netns(text: &str, environment: &Environment<'_>) -> Result<u32, clap::Error> {
    if let Ok(inode) = text.parse() {
        return Ok(inode);
    }
    let path = if text.contains('/') {
        PathBuf::from(text)
    } else {
        Path::new(NETNS_DIR).join(text)
    };
    (environment.netns_inode)(&path).map_err(|error| {
        let path = path.display();
        usage_error(format_args!(
            "no network namespace '{text}': {path}: {error}"
        ))
    })
}

/// The size of a ring buffer of at least `bytes`, as the kernel takes it: a power of two that is a
/// multiple of the page size.
fn ring_size(bytes: u64, page_size: u32) -> Result<u32, clap::Error> {
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= MAX_RING_SIZE)
        .map(|bytes| bytes.next_power_of_two().max(page_size))
        .ok_or_else(|| usage_error("the ring buffer may be 1 GiB at most"))
}

/// Causes by their names; the catalogue says what each means.
fn cause_parser() -> impl TypedValueParser<Value = CauseId> {
    let names = catalogue::ENTRIES
        .iter()
        .map(|entry| PossibleValue::new(entry.name).help(entry.title));
    PossibleValuesParser::new(names)
        .try_map(|name| CauseId::from_name(&name).ok_or("there is no such cause"))
}

/// A network, or a single address. IPv4-mapped IPv6 means IPv4, as it does in events.
fn parse_net(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "not an address, nor a network like 10.0.0.0/8 or 2001:db8::/32".to_owned())?;
    let mapped = match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => net
            .addr()
            .to_ipv4_mapped()
            .zip(net.prefix_len().checked_sub(128 - 32))
            .and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok()),
    };
    Ok(mapped.map_or(net, IpNet::V4).trunc())
}

/// A cgroup's path from the root of the hierarchy, without a slash at the end.
fn parse_cgroup(text: &str) -> Result<Arc<str>, String> {
    let path = match text.strip_prefix(CGROUP_MOUNT) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        Some(_) | None if text.starts_with('/') => text,
        Some(_) | None => return Err("not an absolute path like /system.slice".to_owned()),
    };
    Ok(Arc::from(path.trim_end_matches('/')))
}

/// The start of a container's id. Runtimes write the digits small; names, as of LXC, may have others.
fn parse_container(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() {
        return Err("not an id, nor the start of one".to_owned());
    }
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(if is_hex {
        Arc::from(text.to_ascii_lowercase())
    } else {
        Arc::from(text)
    })
}

/// A time of more than zero; a number alone is seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("not a time like 60s or 1h30m: {error}"))?,
    };
    if time.is_zero() {
        return Err("must be more than zero".to_owned());
    }
    Ok(time)
}

/// A number of bytes of more than zero, with or without a binary unit: `65536`, `64K`, `8MiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("not a size like 65536, 64K or 8MiB".to_owned()),
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or("not a size like 65536, 64K or 8MiB")?;
    if bytes == 0 {
        return Err("must be more than zero".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A terminal without `NO_COLOR`, 4 KiB pages and one named network namespace.
    fn environment() -> Environment<'static> {
        Environment {
            is_terminal: true,
            no_color: false,
            page_size: 4_096,
            netns_inode: &|path| match path.to_str() {
                Some("/run/netns/web") => Ok(4_026_532_000),
                Some("/proc/1/ns/net") => Ok(4_026_531_840),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    fn try_options(args: &[&str]) -> Result<TraceOptions, clap::Error> {
        let cli = Cli::try_parse_from(["rstwatch"].iter().chain(args))?;
        let Command::Trace(args) = cli.into_command() else {
            panic!("another command");
        };
        args.into_options(&environment())
    }

    #[track_caller]
    fn options(args: &[&str]) -> TraceOptions {
        try_options(args).expect("valid arguments")
    }

    #[track_caller]
    fn filter(args: &[&str]) -> Filter {
        options(args).filter
    }

    /// The error of `args`, which must be one of usage.
    #[track_caller]
    fn error(args: &[&str]) -> String {
        let error = try_options(args).expect_err("an error");
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
        error.to_string()
    }

    #[test]
    fn a_screen_takes_no_option_that_it_has_no_place_for() {
        for option in ["--bpf-log", "--interval=1s", "--count=1", "--json"] {
            let error = Cli::try_parse_from(["rstwatch", "top", option]).expect_err(option);
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
        }
        assert!(Cli::try_parse_from(["rstwatch", "top", "--history", "5000"]).is_ok());
    }

    fn table(options: TableOptions) -> Output {
        Output::Table(options)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help() {
        let mut command = Cli::command().term_width(100);
        insta::assert_snapshot!("short", command.render_help());
        insta::assert_snapshot!("long", command.render_long_help());
        let trace = command
            .find_subcommand("trace")
            .expect("a subcommand")
            .clone();
        insta::assert_snapshot!("trace", trace.term_width(100).render_help());
        let explain = command
            .find_subcommand("explain")
            .expect("a subcommand")
            .clone();
        insta::assert_snapshot!("explain", explain.term_width(100).render_help());
    }

    #[test]
    fn explain_takes_words_as_one_text() {
        let explain = |args: &[&str]| {
            let args = ["rstwatch", "explain"].iter().chain(args);
            match Cli::try_parse_from(args).map(Cli::into_command) {
                Ok(Command::Explain(args)) => args,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(explain(&[]).query(), "");
        assert_eq!(explain(&["FIN", "Timeout"]).query(), "FIN Timeout");
        let cases = [
            ("auto", true, false, true),
            ("auto", false, false, false),
            ("auto", true, true, false),
            ("always", false, true, true),
            ("never", true, false, false),
        ];
        for (when, is_terminal, no_color, colour) in cases {
            let look = explain(&["--color", when]).look(Some(90), is_terminal, no_color);
            assert_eq!(look, Look { colour, width: 90 });
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for flag in ["-h", "--help", "-V", "--version"] {
            let shown = try_options(&[flag]).expect_err("a text to show");
            assert_eq!(shown.exit_code(), 0, "{flag}");
        }
    }

    #[test]
    fn no_argument_traces_everything_as_a_table() {
        assert_eq!(
            options(&[]),
            TraceOptions {
                filter: Filter::default(),
                output: table(TableOptions {
                    colour: true,
                    ..TableOptions::default()
                }),
                duration: None,
                count: None,
                interval: None,
                max_rate: NonZeroU32::new(100),
                ready_file: None,
                lend_hooks: false,
                raw_tracepoints: false,
                bpf_log: false,
                ring_size: 8 << 20,
                history: 32_768,
                verbose: false,
            }
        );
    }

    #[test]
    fn trace_is_the_default_command_and_takes_the_same_options() {
        assert_eq!(options(&["trace"]), options(&[]));
        assert_eq!(options(&["trace", "-p", "1"]), options(&["-p", "1"]));
        error(&["-p", "1", "trace"]);
        error(&["nonsense"]);
    }

    #[test]
    fn pid() {
        assert_eq!(filter(&["-p", "1", "--pid", "2,3"]).pids, [1, 2, 3]);
        error(&["-p", "0"]);
        error(&["-p", "x"]);
        error(&["-p", "-1"]);
    }

    #[test]
    fn comm() {
        let comms = filter(&["--comm", "nginx", "--comm", "py*"]).comms;
        assert_eq!(comms, [CommPattern::new("nginx"), CommPattern::new("py*")]);
        assert_ne!(comms[1], CommPattern::new("py"));
    }

    #[test]
    fn ports() {
        assert_eq!(filter(&["-L", "80", "-L", "443"]).local_ports, [80, 443]);
        assert_eq!(filter(&["--local-port", "80,443"]).local_ports, [80, 443]);
        assert_eq!(filter(&["-D", "5432"]).remote_ports, [5432]);
        assert_eq!(filter(&["--remote-port", "5432"]).remote_ports, [5432]);
        error(&["-L", "0"]);
        error(&["-D", "65536"]);
    }

    #[test]
    fn families() {
        assert_eq!(filter(&["-4"]).families, [Family::V4]);
        assert_eq!(filter(&["--ipv6"]).families, [Family::V6]);
        assert_eq!(filter(&["-46"]).families, [Family::V4, Family::V6]);
    }

    #[test]
    fn directions() {
        assert_eq!(filter(&["--sent"]).directions, [Direction::Sent]);
        assert_eq!(filter(&["--received"]).directions, [Direction::Received]);
        assert_eq!(filter(&["--sent", "--received"]).directions.len(), 2);
    }

    #[test]
    fn addresses() {
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.5", "10.0.0.5/32"),
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.5", "10.0.0.5/32"),
            ("::ffff:10.0.0.5/120", "10.0.0.0/24"),
            ("::ffff:0.0.0.0/64", "::/64"),
        ];
        for (text, net) in cases {
            assert_eq!(
                filter(&["--addr", text]).nets,
                [net.parse::<IpNet>().expect("a network")],
                "{text}"
            );
        }
        assert_eq!(filter(&["--addr", "10.0.0.1,10.0.0.2"]).nets.len(), 2);
        error(&["--addr", "10.0.0.0/33"]);
        error(&["--addr", "example.org"]);
    }

    #[test]
    fn causes() {
        assert_eq!(
            filter(&["--cause", "closed-port,refused", "--cause", "unknown"]).causes,
            [CauseId::ClosedPort, CauseId::Refused, CauseId::Unknown]
        );
        let error = error(&["--cause", "close-port"]);
        for entry in &catalogue::ENTRIES {
            assert!(error.contains(entry.name), "{error}");
        }
    }

    #[test]
    fn network_namespaces() {
        assert_eq!(
            filter(&[
                "--netns",
                "4026531841",
                "--netns",
                "web",
                "--netns",
                "/proc/1/ns/net",
            ])
            .netns,
            [4_026_531_841, 4_026_532_000, 4_026_531_840]
        );
        assert!(error(&["--netns", "missing"]).contains("/run/netns/missing"));
    }

    #[test]
    fn cgroups() {
        let cases = [
            ("/system.slice/", "/system.slice"),
            ("/sys/fs/cgroup/system.slice", "/system.slice"),
            ("/sys/fs/cgroup", ""),
            ("/sys/fs/cgroups-of-mine", "/sys/fs/cgroups-of-mine"),
            ("/", ""),
        ];
        for (text, path) in cases {
            assert_eq!(*filter(&["--cgroup", text]).cgroups[0], *path, "{text}");
        }
        error(&["--cgroup", "system.slice"]);
    }

    #[test]
    fn containers() {
        let containers = filter(&["--container", "4CC8,web", "--container", "0"]).containers;
        assert_eq!(containers, ["4cc8", "web", "0"].map(Arc::from));
        assert_eq!(*filter(&["--container", "Web"]).containers[0], *"Web");
        error(&["--container", ""]);
    }

    #[test]
    fn units() {
        let units = filter(&["--unit", "nginx", "--unit", "a.socket", "--unit", "w*"]).units;
        assert_eq!(
            units,
            [
                UnitPattern::Exact(Arc::from("nginx.service")),
                UnitPattern::Exact(Arc::from("a.socket")),
                UnitPattern::Prefix(Arc::from("w")),
            ]
        );
        assert_eq!(
            UnitPattern::new("getty@tty1"),
            UnitPattern::Exact(Arc::from("getty@tty1.service"))
        );
        error(&["--unit", ""]);
    }

    #[test]
    fn output() {
        assert_eq!(options(&["-j"]).output, Output::Json);
        assert_eq!(options(&["--json"]).output, Output::Json);
        assert_eq!(options(&["-o", "json"]).output, Output::Json);
        assert_eq!(options(&["--output", "table"]), options(&[]));
        error(&["-j", "-o", "table"]);
        error(&["-o", "xml"]);
        let wide = TableOptions {
            colour: true,
            wide: true,
            date: false,
            sentence: false,
        };
        assert_eq!(options(&["-w"]).output, table(wide));
        assert_eq!(options(&["--wide"]).output, table(wide));
        let date = TableOptions {
            colour: true,
            wide: false,
            date: true,
            sentence: false,
        };
        assert_eq!(options(&["-T"]).output, table(date));
        assert_eq!(options(&["--timestamp"]).output, table(date));
    }

    #[test]
    fn colour_follows_the_option_then_no_color_then_the_terminal() {
        let cases = [
            ("auto", true, false, true),
            ("auto", false, false, false),
            ("auto", true, true, false),
            ("always", false, true, true),
            ("never", true, false, false),
        ];
        for (when, is_terminal, no_color, colour) in cases {
            for option in ["--color", "--colour"] {
                let cli = Cli::try_parse_from(["rstwatch", option, when]).expect("valid");
                let Command::Trace(args) = cli.into_command() else {
                    panic!("another command");
                };
                let options = args.into_options(&Environment {
                    is_terminal,
                    no_color,
                    ..environment()
                });
                assert_eq!(
                    options.expect("valid").output,
                    table(TableOptions {
                        colour,
                        ..TableOptions::default()
                    }),
                    "{when}"
                );
            }
        }
        error(&["--color", "sometimes"]);
    }

    #[test]
    fn times() {
        let cases = [
            ("60s", 60_000),
            ("60", 60_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
        ];
        for (text, millis) in cases {
            let time = Some(Duration::from_millis(millis));
            assert_eq!(options(&["--duration", text]).duration, time);
            assert_eq!(options(&["--interval", text]).interval, time);
        }
        for text in ["0", "0s", "soon", "", "5 parsecs"] {
            error(&["--duration", text]);
            error(&["--interval", text]);
        }
    }

    #[test]
    fn the_rate_is_limited_on_a_terminal_only() {
        let limit = |args: &[&str], is_terminal| {
            let cli = Cli::try_parse_from(["rstwatch"].iter().chain(args)).expect("valid");
            let Command::Trace(args) = cli.into_command() else {
                panic!("another command");
            };
            let environment = Environment {
                is_terminal,
                ..environment()
            };
            let options = args.into_options(&environment).expect("valid");
            options.max_rate.map_or(0, NonZeroU32::get)
        };
        assert_eq!(limit(&[], true), 100);
        assert_eq!(limit(&[], false), 0);
        assert_eq!(limit(&["-j"], true), 0);
        assert_eq!(limit(&["--max-rate", "0"], true), 0);
        for args in [&["--max-rate", "5"][..], &["-j", "--max-rate", "5"]] {
            assert_eq!((limit(args, true), limit(args, false)), (5, 5));
        }
        error(&["--max-rate", "fast"]);
    }

    #[test]
    fn count() {
        assert_eq!(options(&["--count", "5"]).count, NonZeroU64::new(5));
        error(&["--count", "0"]);
    }

    #[test]
    fn ring_sizes_are_what_the_kernel_takes() {
        let cases = [
            ("1", 4_096),
            ("4096", 4_096),
            ("4097", 8_192),
            ("64K", 65_536),
            ("64kib", 65_536),
            ("3M", 4 << 20),
            ("1 GiB", 1 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(options(&["--ring-size", text]).ring_size, bytes, "{text}");
        }
        for text in ["0", "", "M", "1.5M", "8 parsecs", "2G", "99999999999G"] {
            error(&["--ring-size", text]);
        }
    }

    #[test]
    fn running() {
        assert_eq!(
            options(&["--ready-file", "/run/ready"]).ready_file,
            Some(PathBuf::from("/run/ready"))
        );
        assert!(options(&["--lend-hooks"]).lend_hooks);
        assert!(options(&["--bpf-log"]).bpf_log);
        assert!(options(&["--raw-tracepoints"]).raw_tracepoints);
        assert_eq!(options(&["--history", "65536"]).history, 65_536);
        assert_eq!(options(&["--history", "65537"]).history, 131_072);
        error(&["--history", "1000"]);
        assert!(options(&["-v"]).verbose);
        assert!(options(&["--verbose"]).verbose);
    }
}
