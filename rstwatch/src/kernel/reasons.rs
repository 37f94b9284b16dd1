//! The running kernel's numbering of reset reasons.
//!
//! `enum sk_rst_reason` (`include/net/rstreason.h`) came with 6.10, and its numbers are not
//! stable: 11 to 18 mean something else in 6.12 than in 6.11. What a reason means for the cause of
//! a reset is not decided here.

use std::sync::{Mutex, PoisonError};

use crate::{btf::Btf, event::Reason};

/// The kernel's enumeration of reset reasons.
pub const ENUMERATION: &str = "sk_rst_reason";

/// What each of its names begins with.
const PREFIX: &str = "SK_RST_REASON_";

/// Numbers from here on are not believed; 7.2 has 25.
const MAX_NUMBER: usize = 256;

/// Names that rstwatch does not know and keeps for as long as it runs; 7.2 has 8 (MPTCP's).
const MAX_NAMES: usize = 256;

/// Reasons by number. Empty on a kernel without reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<Option<Reason>>);

impl Reasons {
    /// Reads the names and numbers of `enum sk_rst_reason`. The end mark (`MAX`) is no reason.
    pub fn from_btf(btf: &Btf) -> Self {
        let mut reasons = Vec::new();
        for (name, number) in btf.enum_values(ENUMERATION).unwrap_or_default() {
            let Some(name) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let Some(number) = usize::try_from(number).ok().filter(|&n| n < MAX_NUMBER) else {
                continue;
            };
            if name == "MAX" {
                continue;
            }
            if reasons.len() <= number {
                reasons.resize(number + 1, None);
            }
            reasons[number] = Reason::from_name(name).or_else(|| intern(name).map(Reason::Other));
        }
        Self(reasons)
    }

    /// The reason with the kernel's number `number`.
    pub fn get(&self, number: u32) -> Option<Reason> {
        self.0.get(number as usize).copied().flatten()
    }

    /// Whether the kernel has this reason.
    pub fn knows(&self, reason: Reason) -> bool {
        self.0.contains(&Some(reason))
    }

    /// Whether the kernel has no reasons.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keeps a name for as long as rstwatch runs, so that a [`Reason`] can be copied freely. Each name
/// is kept once, and at most [`MAX_NAMES`] are.
fn intern(name: &str) -> Option<&'static str> {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.iter().find(|known| **known == name) {
        return Some(known);
    }
    if names.len() == MAX_NAMES {
        return None;
    }
    let kept: &'static str = Box::leak(name.into());
    names.push(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::builder::{Builder, kind};

    const V6_12: &[u8] = include_bytes!("../../tests/fixtures/btf/6.12.btf");
    const V6_1: &[u8] = include_bytes!("../../tests/fixtures/btf/6.1.btf");

    fn names(reasons: &Reasons) -> Vec<Option<&'static str>> {
        let names = reasons.0.iter();
        names.map(|reason| reason.map(Reason::name)).collect()
    }

    #[test]
    fn numbers_of_6_12() {
        let reasons = Reasons::from_btf(&Btf::parse(V6_12).unwrap());
        let expected = [
            "NOT_SPECIFIED",
            "NO_SOCKET",
            "TCP_INVALID_ACK_SEQUENCE",
            "TCP_RFC7323_PAWS",
            "TCP_TOO_OLD_ACK",
            "TCP_ACK_UNSENT_DATA",
            "TCP_FLAGS",
            "TCP_OLD_ACK",
            "TCP_ABORT_ON_DATA",
            "TCP_TIMEWAIT_SOCKET",
            "INVALID_SYN",
            "TCP_ABORT_ON_CLOSE",
            "TCP_ABORT_ON_LINGER",
            "TCP_ABORT_ON_MEMORY",
            "TCP_STATE",
            "TCP_KEEPALIVE_TIMEOUT",
            "TCP_DISCONNECT_WITH_DATA",
            "MPTCP_RST_EUNSPEC",
            "MPTCP_RST_EMPTCP",
            "MPTCP_RST_ERESOURCE",
            "MPTCP_RST_EPROHIBIT",
            "MPTCP_RST_EWQ2BIG",
            "MPTCP_RST_EBADPERF",
            "MPTCP_RST_EMIDDLEBOX",
            "ERROR",
        ];
        assert_eq!(names(&reasons), expected.map(Some));
        assert_eq!(reasons.get(11), Some(Reason::AbortOnClose));
        assert_eq!(reasons.get(17), Some(Reason::Other("MPTCP_RST_EUNSPEC")));
        assert_eq!(reasons.get(25), None, "MAX is no reason");
        assert_eq!(reasons.get(u32::MAX), None);
    }

    #[test]
    fn numbers_of_6_11_mean_something_else() {
        let mut builder = Builder::new();
        let names = [
            "NOT_SPECIFIED",
            "NO_SOCKET",
            "TCP_INVALID_ACK_SEQUENCE",
            "TCP_RFC7323_PAWS",
            "TCP_TOO_OLD_ACK",
            "TCP_ACK_UNSENT_DATA",
            "TCP_FLAGS",
            "TCP_OLD_ACK",
            "TCP_ABORT_ON_DATA",
            "TCP_TIMEWAIT_SOCKET",
            "INVALID_SYN",
            "MPTCP_RST_EUNSPEC",
            "MPTCP_RST_EMPTCP",
            "MPTCP_RST_ERESOURCE",
            "MPTCP_RST_EPROHIBIT",
            "MPTCP_RST_EWQ2BIG",
            "MPTCP_RST_EBADPERF",
            "MPTCP_RST_EMIDDLEBOX",
            "ERROR",
            "MAX",
        ];
        enumeration(&mut builder, (0..).zip(names));
        let reasons = Reasons::from_btf(&Btf::parse(&builder.finish()).unwrap());
        assert_eq!(reasons.get(10), Some(Reason::InvalidSyn));
        assert_eq!(reasons.get(11), Some(Reason::Other("MPTCP_RST_EUNSPEC")));
        assert_eq!(reasons.get(14), Some(Reason::Other("MPTCP_RST_EPROHIBIT")));
        assert_eq!(reasons.get(18), Some(Reason::Other("ERROR")));
        assert_eq!(reasons.get(19), None);
    }

    #[test]
    fn a_kernel_without_the_enumeration_has_no_reasons() {
        let reasons = Reasons::from_btf(&Btf::parse(V6_1).unwrap());
        assert!(reasons.is_empty());
        assert_eq!(reasons.get(0), None);
    }

    #[test]
    fn absurd_numbers_are_not_believed() {
        let mut builder = Builder::new();
        let values = [(1, "NO_SOCKET"), (0x7fff_ffff, "FAR"), (u32::MAX, "BELOW")];
        enumeration(&mut builder, values.into_iter());
        let reasons = Reasons::from_btf(&Btf::parse(&builder.finish()).unwrap());
        assert_eq!(names(&reasons), [None, Some("NO_SOCKET")]);
    }

    #[test]
    fn an_unknown_name_is_kept_once() {
        let first = intern("SOMETHING_NEW").unwrap();
        assert!(std::ptr::eq(first, intern("SOMETHING_NEW").unwrap()));
    }

    fn enumeration<'a>(builder: &mut Builder, values: impl Iterator<Item = (u32, &'a str)>) {
        let words: Vec<u32> = values
            .flat_map(|(value, name)| [builder.name(format!("{PREFIX}{name}").as_bytes()), value])
            .collect();
        let name = ENUMERATION.as_bytes();
        builder.add(kind::ENUM, true, name, 4, words.len() / 2, &words);
    }
}
