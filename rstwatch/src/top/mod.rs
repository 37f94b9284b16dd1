//! `rstwatch top`: what is reset now, on a full screen.
//!
//! - [`data`]: what there is to show at a moment: values.
//! - [`app`]: what the operator looks at, and what keys do to it: a state machine.
//! - [`view`]: both as cells of a screen.
//! - [`terminal`]: takes the terminal, and leaves it as it was, whatever happens.
//!
//! What runs them beside the tracer is in `run::top`. Nothing is counted here.

pub mod app;
pub mod data;
pub mod terminal;
pub mod view;

#[cfg(test)]
mod tests;
