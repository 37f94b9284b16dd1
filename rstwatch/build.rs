//! Brings the BPF object to where `src/bpf_object.rs` includes it from.

use std::{
    env, fs,
    io::{Error, Result},
    path::{Path, PathBuf},
};

/// Names the object that `cargo xtask build` made.
const OBJECT: &str = "RSTWATCH_BPF_OBJECT";

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={OBJECT}");
    let out = env::var_os("OUT_DIR").ok_or_else(|| Error::other("cargo set no OUT_DIR"))?;
    let embedded = Path::new(&out).join("rstwatch.bpf.o");

    let Some(object) = env::var_os(OBJECT).map(PathBuf::from) else {
        // An empty stub, so that building, linting and documenting the host's part works on
        // machines that cannot compile BPF.
        return fs::write(embedded, []);
    };
    println!("cargo:rerun-if-changed={}", object.display());
    fs::copy(&object, embedded).map_err(|error| {
        let advice = "make it with `cargo xtask build`, or unset the variable";
        Error::other(format!("{OBJECT}={}: {error}; {advice}", object.display()))
    })?;
    Ok(())
}
