//! The kernel's clocks: wall-clock time for stamps of `CLOCK_MONOTONIC`, and the length of a jiffy.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getres, clock_gettime};

/// Turns the BPF programs' stamps (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`) into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds to add to `CLOCK_MONOTONIC` for nanoseconds since the Unix epoch.
    offset_ns: i128,
    /// Nanoseconds in a jiffy.
    jiffy_ns: u64,
}

impl Clock {
    /// Reads the clocks.
    ///
    /// # Errors
    ///
    /// When the system has no such clocks.
    pub fn read() -> Result<Self> {
        // The coarse clock ticks once a jiffy (`kernel/time/posix-timers.c`,
        // `posix_get_coarse_res`): its resolution gives CONFIG_HZ without the kernel's config.
        let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .context("cannot read the resolution of CLOCK_MONOTONIC_COARSE")?;
        let mut clock = Self {
            offset_ns: 0,
            jiffy_ns: u64::try_from(Duration::from(jiffy).as_nanos())
                .unwrap_or(0)
                .max(1),
        };
        clock.refresh()?;
        Ok(clock)
    }

    /// Follows a step of the wall clock.
    ///
    /// # Errors
    ///
    /// When the system has no such clocks.
    pub fn refresh(&mut self) -> Result<()> {
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).context("cannot read CLOCK_REALTIME")?;
        self.offset_ns = nanos(wall) - i128::from(monotonic_ns()?);
        Ok(())
    }

    /// A clock with known values, for tests.
    pub const fn fixed(offset_ns: i128, jiffy_ns: u64) -> Self {
        Self {
            offset_ns,
            jiffy_ns,
        }
    }

    /// Nanoseconds since the Unix epoch at `monotonic_ns`.
    pub fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        u64::try_from(i128::from(monotonic_ns) + self.offset_ns).unwrap_or(0)
    }

    /// Nanoseconds between the jiffies `then` and `now`, of which the low 32 bits are given. `None`
    /// when `then` was never set (0) or lies in the future.
    pub fn jiffies_ago_ns(&self, now: u32, then: u32) -> Option<u64> {
        if then == 0 {
            return None;
        }
        let jiffies = now.wrapping_sub(then);
        // Half the range ahead is the past seen from beyond the wrap: a stamp of the future.
        (jiffies < 1 << 31).then(|| u64::from(jiffies) * self.jiffy_ns)
    }

    /// Nanoseconds in `jiffies`.
    pub const fn jiffies_ns(&self, jiffies: u64) -> u64 {
        jiffies.saturating_mul(self.jiffy_ns)
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of the BPF programs' stamps.
///
/// # Errors
///
/// When the system has no such clock.
pub fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read CLOCK_MONOTONIC")?;
    Ok(u64::try_from(nanos(now)).unwrap_or(0))
}

fn nanos(time: nix::sys::time::TimeSpec) -> i128 {
    i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_wrap_and_stamps_of_the_future_are_refused() {
        let clock = Clock::fixed(0, 4_000_000);
        assert_eq!(clock.jiffies_ago_ns(1_250, 1_000), Some(1_000_000_000));
        assert_eq!(clock.jiffies_ago_ns(10, u32::MAX - 9), Some(80_000_000));
        assert_eq!(clock.jiffies_ago_ns(10, 11), None);
        assert_eq!(clock.jiffies_ago_ns(10, 0), None);
    }

    #[test]
    fn the_systems_jiffy_is_a_plausible_one() {
        let clock = Clock::read().unwrap();
        assert!((500_000..=20_000_000).contains(&clock.jiffies_ns(1)));
    }
}
