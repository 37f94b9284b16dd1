//! Who may take a place in a bucket of live sockets, when several CPUs come at once. Nobody waits: who is not
//! alone goes elsewhere.
//!
//! Three counts go round. Whoever is alone adds atomically once, to the first: such an addition waits until all
//! that was stored before has left the processor.
//!
//! 1. Who comes adds one to *came*.
//! 2. Then it reads *done* and *went*, in one load, and after that *came*.
//! 3. If it [`is_alone`], the place is its own. At last it sets *done* to one more; nobody else writes that.
//! 4. If not, it adds one to *went*.
//!
//! *Came* is read last, so what is left of it without *done* and *went* are at least all who are there: one of
//! them is the reader, and whoever comes later finds two.

/// Whether the one who has come is the only one there. Of the counts there may be no more than 255 at once.
#[inline]
pub const fn is_alone(came: u8, done: u8, went: u8) -> bool {
    came == done.wrapping_add(went).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashSet, vec, vec::Vec};

    use super::is_alone;

    /// Where one who comes is in the protocol above, and what it has read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Step {
        Comes,
        ReadsGone,
        ReadsCame { done: u8, went: u8 },
        IsAlone { done: u8 },
        IsNotAlone,
        HasLeft,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct State {
        came: u8,
        done: u8,
        went: u8,
        /// Each CPU: where it is, and how often it will come again.
        cpus: Vec<(Step, u8)>,
    }

    impl State {
        /// What becomes of it when one CPU does its next step; `None` when that has nothing left to do.
        fn after(&self, cpu: usize) -> Option<Self> {
            let mut next = self.clone();
            let (step, again) = &mut next.cpus[cpu];
            *step = match *step {
                Step::Comes => {
                    next.came = next.came.wrapping_add(1);
                    Step::ReadsGone
                }
                Step::ReadsGone => Step::ReadsCame {
                    done: self.done,
                    went: self.went,
                },
                Step::ReadsCame { done, went } if is_alone(self.came, done, went) => {
                    Step::IsAlone { done }
                }
                Step::ReadsCame { .. } => Step::IsNotAlone,
                Step::IsAlone { done } => {
                    next.done = done.wrapping_add(1);
                    Step::HasLeft
                }
                Step::IsNotAlone => {
                    next.went = next.went.wrapping_add(1);
                    Step::HasLeft
                }
                Step::HasLeft => {
                    *again = again.checked_sub(1)?;
                    Step::Comes
                }
            };
            Some(next)
        }

        fn owners(&self) -> usize {
            let is_owner = |(step, _): &&(Step, u8)| matches!(step, Step::IsAlone { .. });
            self.cpus.iter().filter(is_owner).count()
        }
    }

    #[test]
    fn in_every_order_of_steps_at_most_one_is_alone_and_the_next_can_be() {
        let start = State {
            came: 254,
            done: 250,
            went: 4,
            cpus: vec![(Step::Comes, 1); 3],
        };
        let (mut seen, mut open) = (HashSet::new(), vec![start]);
        let (mut ends, mut owned) = (0, false);
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            assert!(state.owners() <= 1, "{state:?}");
            owned |= state.owners() == 1;
            let next: Vec<State> = (0..3).filter_map(|cpu| state.after(cpu)).collect();
            if next.is_empty() {
                ends += 1;
                let came = state.came.wrapping_add(1);
                assert!(is_alone(came, state.done, state.went), "{state:?}");
            }
            open.extend(next);
        }
        assert!(owned && ends > 1, "{} states", seen.len());
    }
}
