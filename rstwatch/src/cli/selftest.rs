//! The arguments of `selftest` and `demo`.

use clap::Args;

use super::{cause_parser, colour::ColourArgs};
use crate::cause::CauseId;

/// What follows the help of `selftest`.
pub(super) const AFTER_SELFTEST: &str = "\
It makes each kind of reset with processes of its own, in network namespaces of its own, traces them,
and compares cause, confidence and owner with what is true. Nothing outside of those namespaces is
touched. It takes root, half a minute at most, and no other program.

Verdicts:
  right             everything as it must be
  right, less sure  the kernel tells less than newer ones do, and the confidence says so
  cannot be made    not on this kernel, for the reason that is given
  WRONG             what was seen instead stands below

Exit status:
  0 all that could be made is right, 1 something is wrong or was interrupted, 2 wrong usage.";

/// What follows the help of `demo`.
pub(super) const AFTER_DEMO: &str = "\
The resets are real, made by processes of its own in network namespaces of its own; nothing outside of
those is touched. It takes root.";

/// The arguments of `selftest`, as they were written.
#[derive(Args, Debug)]
pub struct SelftestArgs {
    /// Make the resets with this cause only
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = cause_parser())]
    pub only: Vec<CauseId>,

    /// Print JSON, one object a cause, and the verdict as the last
    #[arg(short, long)]
    pub json: bool,

    /// Make orphan-limit as well: lowers `net.ipv4.tcp_max_orphans` of the whole host for
    /// some microseconds
    #[arg(long)]
    pub host_limits: bool,
}

/// The arguments of `demo`, as they were written.
#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    colour: ColourArgs,
}

impl DemoArgs {
    /// Whether to colour on a terminal or elsewhere, where `NO_COLOR` may be set.
    pub fn colour(&self, is_terminal: bool, no_color: bool) -> bool {
        self.colour.is_on(is_terminal, no_color)
    }
}
