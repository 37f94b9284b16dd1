//! When to colour: an option that every command with something to colour takes.

use clap::{Args, ValueEnum};

/// The option, to be flattened into a command's arguments.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ColourArgs {
    /// Use colours
    #[arg(
        long = "color",
        visible_alias = "colour",
        value_name = "WHEN",
        default_value = "auto"
    )]
    colour: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColourArgs {
    /// Whether to colour on a terminal or elsewhere, where `NO_COLOR` may be set.
    pub(super) const fn is_on(self, is_terminal: bool, no_color: bool) -> bool {
        match self.colour {
            Colour::Auto => is_terminal && !no_color,
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}
