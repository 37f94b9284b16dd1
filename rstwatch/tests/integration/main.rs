//! The real binary, as root, against real resets in private network namespaces.
//!
//! The binary is the one that `RSTWATCH_BIN` names; `cargo xtask test` builds it and starts these
//! tests. What the resets are and how they are made is in `rstwatch::scenario`; here stands what a
//! user must see of them. Nothing is skipped: what cannot run fails and says why.

mod age;
mod counters;
mod doctor;
mod interrupted;
mod lent;
mod load;
mod options;
mod output;
mod privileges;
mod rest;
mod scenarios;
mod selftest;
mod stage;
mod start;
mod storm;
mod top;
mod tracer;
mod users;
mod when;
