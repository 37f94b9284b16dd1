//! The BPF object that is compiled into this binary.

/// The object file, aligned as its parser needs it; empty in a build without one.
///
/// `cargo xtask build` makes the object and names it to `build.rs`; a plain `cargo build` has none.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rstwatch.bpf.o"));

/// Whether this is a build without the BPF programs, which can trace nothing.
pub fn is_stub() -> bool {
    OBJECT.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_is_a_bpf_object_or_nothing() {
        assert!(is_stub() || OBJECT.starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_build_that_was_given_an_object_has_it() {
        let given = option_env!("RSTWATCH_BPF_OBJECT");
        assert_eq!(is_stub(), given.is_none());
    }
}
