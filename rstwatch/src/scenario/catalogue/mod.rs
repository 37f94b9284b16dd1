//! The scenarios. What the kernel does in each was read in `net/ipv4/tcp*.c`; how a script is read
//! stands at [`Scenario`].
//!
//! - `answers`: this host answers a segment with a RST.
//! - `aborts`: it resets a connection of its own accord.
//! - `received`: it receives a RST.

mod aborts;
mod answers;
mod received;

use super::{Host::A, Scenario};

/// Who plays where there is one host.
const AT_HOME: &[(&str, super::Host)] = &[("server", A), ("client", A)];

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [answers::ALL, aborts::ALL, received::ALL]
        .into_iter()
        .flatten()
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn only_roles_that_play_are_expected() {
        for scenario in all() {
            let plays = |name: &str| scenario.roles.iter().any(|(role, _)| *role == name);
            for expected in scenario.expected {
                let ends = [expected.local, expected.remote];
                assert!(
                    ends.iter()
                        .all(|end| plays(end) || end.starts_with("nobody")),
                    "{}: an end that does not play",
                    scenario.name
                );
                let owner = expected.owner.map(|(role, _)| role);
                assert!(owner.is_none_or(plays), "{}: owner", scenario.name);
            }
        }
    }

    #[test]
    fn only_hosts_of_the_ground_are_played_on() {
        for scenario in all() {
            for (role, host) in scenario.roles {
                assert!(
                    scenario.ground.hosts().contains(host),
                    "{}: {role} plays nowhere",
                    scenario.name
                );
            }
        }
    }
}
