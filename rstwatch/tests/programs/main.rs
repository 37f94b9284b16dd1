//! Real servers and clients, as they come from the distribution, in private network namespaces: they
//! reset connections in the ways that operators meet, and the tracer must say why, whose they were
//! and who did it. What the programs themselves say of it in their logs is held against the
//! catalogue.
//!
//! The binary is the one that `RSTWATCH_BIN` names; `cargo xtask test` builds it, installs the
//! programs and starts these tests, as root. Nothing is skipped: what cannot run fails and says why.

mod client;
mod expect;
mod haproxy;
mod java;
mod load;
mod nginx;
mod place;
mod python;
mod redis;
mod script;
#[allow(
    dead_code,
    reason = "shared with the integration tests, which need more of it"
)]
#[path = "../integration/tracer.rs"]
mod tracer;
