//! What building and testing need: found, or brought here.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    apt::Apt,
    linker, packages, project,
    toolchain::{self, Toolchain},
};

/// What builds the BPF object.
pub(crate) struct BpfTools {
    /// Compiler and cargo.
    pub(crate) toolchain: Toolchain,
    /// bpf-linker.
    pub(crate) linker: PathBuf,
}

/// Everything, and what there is at the end.
pub(crate) fn all() -> Result<()> {
    let tools = for_testing()?;
    eprintln!("setup: the BPF object is compiled by {}", tools.toolchain);
    eprintln!("setup: and linked by {}", project::shown(&tools.linker));
    eprintln!("setup: the programs that the tests use are here");
    Ok(())
}

/// What `build` and `run` need. Says nothing when nothing is missing.
pub(crate) fn for_building() -> Result<BpfTools> {
    bpf_tools(&mut Apt::default())
}

/// What `test` needs. Says nothing when nothing is missing.
pub(crate) fn for_testing() -> Result<BpfTools> {
    let mut apt = Apt::default();
    let tools = bpf_tools(&mut apt)?;
    packages::find_or_install(&mut apt)?;
    Ok(tools)
}

fn bpf_tools(apt: &mut Apt) -> Result<BpfTools> {
    let toolchain = toolchain::find_or_install(apt)?;
    let linker = linker::find_or_build(&toolchain)?;
    Ok(BpfTools { toolchain, linker })
}
