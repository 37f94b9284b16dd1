//! Kernel releases, and which of them are asked for.

use std::{fmt, str::FromStr};

use anyhow::{Error, Result, ensure};

/// The numbers in a kernel's or a package's version, in order: 5.10.262-1 is 5, 10, 262, 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(Vec<u32>);

impl Release {
    pub(super) fn parse(text: &str) -> Self {
        let numbers = text.split(|c: char| !c.is_ascii_digit());
        Self(numbers.filter_map(|number| number.parse().ok()).collect())
    }

    /// Whether this is one of the releases that begin with the numbers of `series`.
    fn is_in(&self, series: &Self) -> bool {
        self.0.starts_with(&series.0)
    }
}

/// A kernel as it is asked for: `6.1`, `6.1.192`, `6.18/6.19` for the first of them that there is,
/// or `newest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    text: String,
    /// Empty for the newest.
    series: Vec<Release>,
}

impl Wanted {
    /// The place of the newest among `releases` that fits.
    pub(super) fn newest(&self, releases: &[&Release]) -> Option<usize> {
        let newest_of = |fits: &dyn Fn(&Release) -> bool| {
            let all = releases.iter().enumerate();
            all.filter(|(_, release)| fits(release))
                .max_by_key(|(_, release)| **release)
                .map(|(index, _)| index)
        };
        if self.series.is_empty() {
            return newest_of(&|_| true);
        }
        let mut series = self.series.iter();
        series.find_map(|series| newest_of(&|release| release.is_in(series)))
    }
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut series = Vec::new();
        if text != "newest" {
            for part in text.split('/') {
                let is_release =
                    part.starts_with(|first: char| first.is_ascii_digit()) && part.contains('.');
                ensure!(
                    is_release,
                    "`{part}` is no kernel release: say 6.1, 6.1.192, 6.18/6.19 or newest"
                );
                series.push(Release::parse(part));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            series,
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(wanted: &str, releases: &[&str]) -> Option<usize> {
        let releases: Vec<_> = releases.iter().map(|text| Release::parse(text)).collect();
        let wanted: Wanted = wanted.parse().expect("a release");
        wanted.newest(&releases.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_of_a_series_is_found_by_number() {
        let all = ["6.1.27-1", "6.1.192-2", "6.12.117-1", "6.1.176-1"];
        assert_eq!(pick("6.1", &all), Some(1));
        assert_eq!(pick("6.1.176", &all), Some(3));
        assert_eq!(pick("newest", &all), Some(2));
        assert_eq!(pick("6.18", &all), None);
    }

    #[test]
    fn the_first_alternative_that_there_is_wins() {
        let all = ["6.19.14-1", "6.12.117-1"];
        assert_eq!(pick("6.18/6.19", &all), Some(0));
        assert_eq!(pick("6.12/6.19", &all), Some(1));
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for text in ["", "latest", "6", "6.1/", "v6.1"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
