//! The kernel's counters that resets bump: their names, and reading them from what `/proc/net/snmp`
//! and `/proc/net/netstat` say. Which namespaces there are is `netns`'s matter, what a difference
//! means is `reconcile`'s.

/// A counter of a network namespace.
///
/// What each counts stands at its place in the kernel (5.10 to 7.2; `net/ipv4/tcp.c`, `tcp_input.c`,
/// `tcp_minisocks.c`, `tcp_output.c`, `tcp_timer.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Counter {
    /// RSTs sent over IPv4 and IPv6 (`tcp_v4_send_reset`, `tcp_v6_send_response`,
    /// `tcp_send_active_reset`), and those that could not be (see [`Self::AbortFailed`]).
    OutRsts,
    /// Data for a connection whose receiving side is shut down, and a negative `TCP_LINGER2` of an
    /// orphan (`tcp_rcv_state_process`); any close with `SO_LINGER` 0 (`__tcp_close`), whether or not
    /// it sends a RST.
    AbortOnData,
    /// A close with unread data (`__tcp_close`).
    AbortOnClose,
    /// Too many orphans, or out of memory, at a close (`__tcp_close`) or in a timer
    /// (`tcp_out_of_resources`), which sends no RST to a peer that has been silent for long.
    AbortOnMemory,
    /// Any timeout (`tcp_write_err`), of which only that of keepalive sends a RST.
    AbortOnTimeout,
    /// A close in `FIN_WAIT2` with a negative `TCP_LINGER2` (`__tcp_close`).
    AbortOnLinger,
    /// RSTs of the host's own accord for which there was no memory, or which the layer below did not
    /// take (`tcp_send_active_reset`): no route, a firewall.
    AbortFailed,
    /// Handshakes that a segment ended before they were complete (`tcp_check_req`): a RST from the
    /// peer; or a SYN, or a full accept queue, which are answered with a RST.
    EmbryonicRsts,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::OutRsts,
        Self::AbortOnData,
        Self::AbortOnClose,
        Self::AbortOnMemory,
        Self::AbortOnTimeout,
        Self::AbortOnLinger,
        Self::AbortFailed,
        Self::EmbryonicRsts,
    ];

    /// All but [`Self::OutRsts`]: each counts a part of what that counts, and what sends no RST.
    pub fn of_parts() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|counter| *counter != Self::OutRsts)
    }

    /// The name that `nstat` gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutRsts => "TcpOutRsts",
            Self::AbortOnData => "TcpExtTCPAbortOnData",
            Self::AbortOnClose => "TcpExtTCPAbortOnClose",
            Self::AbortOnMemory => "TcpExtTCPAbortOnMemory",
            Self::AbortOnTimeout => "TcpExtTCPAbortOnTimeout",
            Self::AbortOnLinger => "TcpExtTCPAbortOnLinger",
            Self::AbortFailed => "TcpExtTCPAbortFailed",
            Self::EmbryonicRsts => "TcpExtEmbryonicRsts",
        }
    }

    /// The counter in the column `column` of the lines that begin with `group`.
    fn find(group: &str, column: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| {
            let name = counter.name().strip_prefix(group);
            name.is_some_and(|rest| rest == column)
        })
    }
}

/// What a namespace's counters are; `None` where one could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([Option<u64>; Counter::COUNT]);

impl Counts {
    /// From what `/proc/net/snmp` and `/proc/net/netstat` say: a line of names and a line of values,
    /// both beginning with their group's name.
    pub fn parse(snmp: &str, netstat: &str) -> Self {
        let mut counts = Self::default();
        counts.take(snmp, "Tcp");
        counts.take(netstat, "TcpExt");
        counts
    }

    fn take(&mut self, text: &str, group: &str) {
        let mut lines = text.lines().filter_map(|line| {
            line.strip_prefix(group)
                .and_then(|rest| rest.strip_prefix(':'))
        });
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return;
        };
        let columns = names
            .split_ascii_whitespace()
            .zip(values.split_ascii_whitespace());
        for (name, value) in columns {
            if let Some(counter) = Counter::find(group, name) {
                self.set(counter, value.parse().ok());
            }
        }
    }

    /// Sets one.
    pub const fn set(&mut self, counter: Counter, count: Option<u64>) {
        self.0[counter as usize] = count;
    }

    /// One of them.
    pub const fn get(&self, counter: Counter) -> Option<u64> {
        self.0[counter as usize]
    }

    /// Whether a counter is lower than it was in `earlier`: this is another namespace then.
    pub fn began_after(&self, earlier: &Self) -> bool {
        self.0
            .iter()
            .zip(&earlier.0)
            .any(|(now, then)| now.zip(*then).is_some_and(|(now, then)| now < then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                        Tcp: RtoAlgorithm InErrs OutRsts InCsumErrors\nTcp: 1 2 345 6\n";
    const NETSTAT: &str = "TcpExt: SyncookiesSent EmbryonicRsts TCPAbortOnData TCPAbortOnClose \
                           TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger TCPAbortFailed\n\
                           TcpExt: 99 1 2 3 4 5 6 7\nIpExt: InNoRoutes\nIpExt: 8\n";

    #[test]
    fn counters_are_found_by_their_names() {
        let counts = Counts::parse(SNMP, NETSTAT);
        let told = Counter::ALL.map(|counter| counts.get(counter));
        assert_eq!(told, [345, 2, 3, 4, 5, 6, 7, 1].map(Some));
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        for (snmp, netstat) in [
            ("", ""),
            ("Tcp: A B\nTcp: 1 2\n", "TcpExt: C\nTcpExt: 1\n"),
            ("Tcp: OutRsts\n", "TcpExt: EmbryonicRsts\n"),
            (
                "Tcp: OutRsts\nTcp: -\n",
                "TcpExt: A EmbryonicRsts\nTcpExt: 1\n",
            ),
            // Another group's column of the same name is another counter.
            (
                "TcpExt: OutRsts\nTcpExt: 1\n",
                "Tcp: EmbryonicRsts\nTcp: 1\n",
            ),
        ] {
            assert_eq!(Counts::parse(snmp, netstat), Counts::default(), "{snmp}");
        }
        let half = Counts::parse(SNMP, "");
        assert_eq!(half.get(Counter::OutRsts), Some(345));
        assert_eq!(half.get(Counter::AbortFailed), None);
    }

    #[test]
    fn numbers_are_places_in_the_list() {
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place);
        }
        assert_eq!(Counter::of_parts().count(), Counter::COUNT - 1);
    }

    #[test]
    fn a_lower_counter_is_that_of_another_namespace() {
        let counts = Counts::parse(SNMP, NETSTAT);
        assert!(!counts.began_after(&counts));
        assert!(!counts.began_after(&Counts::default()));
        assert!(!Counts::default().began_after(&counts));
        for counter in Counter::ALL {
            let mut lower = counts;
            lower.set(counter, Some(0));
            assert!(lower.began_after(&counts));
            assert!(!counts.began_after(&lower));
        }
    }
}
