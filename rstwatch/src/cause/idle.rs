//! After which silence common load balancers, address translators, firewalls and servers drop a
//! connection: their defaults, as their documentation gives them. That a silence fits one of them is
//! a hint and no proof.

/// An idle limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleLimit {
    /// In seconds.
    pub seconds: u64,
    /// Whose default it is.
    pub whose: &'static str,
}

/// How far a silence may be from a limit, in percent of the limit.
pub const TOLERANCE_PERCENT: u64 = 2;

const NS_PER_S: u64 = 1_000_000_000;

/// Every known limit, the shortest first, further from each other than the tolerance.
pub const LIMITS: [IdleLimit; 12] = [
    limit_of(5, "Node.js, Apache httpd, Uvicorn (keep-alive)"),
    limit_of(60, "AWS Application Load Balancer"),
    limit_of(75, "nginx (keepalive_timeout)"),
    limit_of(120, "Microsoft IIS"),
    limit_of(130, "ASP.NET Core Kestrel (keep-alive)"),
    limit_of(240, "Azure Load Balancer, Azure NAT gateway"),
    limit_of(300, "F5 BIG-IP, Oracle Cloud load balancer"),
    limit_of(
        350,
        "AWS Network Load Balancer, AWS NAT gateway, AWS Network Firewall",
    ),
    limit_of(600, "Google Cloud load balancer and firewall"),
    limit_of(900, "Linux IPVS"),
    limit_of(3_600, "Cisco ASA, FortiGate"),
    limit_of(28_800, "MySQL (wait_timeout)"),
];

const fn limit_of(seconds: u64, whose: &'static str) -> IdleLimit {
    IdleLimit { seconds, whose }
}

/// The limit that a silence of `idle_ns` fits.
pub fn limit(idle_ns: u64) -> Option<&'static IdleLimit> {
    LIMITS.iter().find(|limit| {
        let limit_ns = limit.seconds * NS_PER_S;
        idle_ns.abs_diff(limit_ns) <= limit_ns / 100 * TOLERANCE_PERCENT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_fits_a_limit_within_two_percent() {
        let cases = [
            (343_000, Some(350)),
            (350_000, Some(350)),
            (357_000, Some(350)),
            (342_900, None),
            (357_100, None),
            (4_900, Some(5)),
            (5_000, Some(5)),
            (5_200, None),
            (0, None),
        ];
        for (ms, seconds) in cases {
            assert_eq!(
                limit(ms * 1_000_000).map(|limit| limit.seconds),
                seconds,
                "{ms} ms"
            );
        }
        assert_eq!(limit(u64::MAX), None);
    }

    #[test]
    fn no_silence_fits_two_limits() {
        for pair in LIMITS.windows(2) {
            let above = pair[0].seconds * (100 + TOLERANCE_PERCENT);
            let below = pair[1].seconds * (100 - TOLERANCE_PERCENT);
            assert!(above < below, "{pair:?}");
        }
    }
}
