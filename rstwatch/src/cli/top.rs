//! The command line of `rstwatch top`.

use std::time::Duration;

use clap::Args;

use super::{
    Environment, FilterArgs, Output, RunningArgs, TraceOptions, colour::ColourArgs, parse_time,
    ring_size,
};

pub(super) const AFTER_HELP: &str = "\
Press ? for the keys, q to quit. Run as root, or with the capabilities that `rstwatch trace` needs.";

pub(super) const AFTER_LONG_HELP: &str = "\
Keys:
  Tab, Shift-Tab      next table, table before
  Up, Down, j, k      row; PgUp, PgDn, Home, End
  Enter               the last events of the row, or of all with l; Esc: back
  e                   explain the cause of the row or event
  s                   sort by number or by name
  t                   numbers of the last seconds, or since the start
  n                   peers as addresses, or as networks (/24, /48)
  z                   the table on the whole screen, and back
  /                   show rows that contain a text; Esc: all again
  f                   freeze the order of the rows; the numbers go on
  Space               pause: the screen stands still; the counting goes on
  ?                   help
  q, Ctrl-C           quit, with a summary

Options choose what is counted, as for `rstwatch trace`. The sparkline has a second a column.

Exit status:
  0 fine, 1 failed (not on a terminal, for one), 2 wrong usage.";

/// The arguments of `top`, as they were written.
#[derive(Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten, next_help_heading = "How to show it")]
    colour: ColourArgs,

    /// Stop after this time: 60s, 5m, 1h30m; a number alone is seconds
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    #[arg(help_heading = "When to stop")]
    duration: Option<Duration>,

    #[command(flatten)]
    running: RunningArgs,
}

/// What `top` is to do, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopOptions {
    /// What to trace, and how.
    pub trace: TraceOptions,
    /// Whether the screen has colours.
    pub colour: bool,
}

impl TopArgs {
    /// The options that these arguments mean.
    ///
    /// # Errors
    ///
    /// As those of `trace`.
    pub fn into_options(self, environment: &Environment<'_>) -> Result<TopOptions, clap::Error> {
        Ok(TopOptions {
            colour: self
                .colour
                .is_on(environment.is_terminal, environment.no_color),
            trace: TraceOptions {
                filter: self.filter.into_filter(environment)?,
                output: Output::Screen,
                duration: self.duration,
                count: None,
                interval: None,
                max_rate: None,
                ready_file: self.running.ready_file,
                lend_hooks: self.running.lend_hooks,
                raw_tracepoints: self.running.raw_tracepoints,
                // There is no place on the screen to read it.
                bpf_log: false,
                ring_size: ring_size(self.running.ring_size, environment.page_size)?,
                history: self.running.history.next_power_of_two(),
                verbose: self.running.verbose,
            },
        })
    }
}
