//! The arguments of `doctor`.

use clap::Args;

use super::colour::ColourArgs;
use crate::doctor::Look;

pub(super) const AFTER_HELP: &str = "\
It loads and attaches every BPF program, and leaves nothing behind.

Exit status:
  0 rstwatch works here, 1 it does not, 2 wrong usage.";

/// The arguments of `doctor`, as they were written.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Print JSON, one object with all that was found
    #[arg(short, long)]
    json: bool,

    #[command(flatten)]
    colour: ColourArgs,
}

impl DoctorArgs {
    /// How the report is to look on a standard output that is a terminal or not; `None`: as JSON.
    pub fn look(&self, is_terminal: bool, no_color: bool) -> Option<Look> {
        (!self.json).then(|| Look {
            colour: self.colour.is_on(is_terminal, no_color),
        })
    }
}
