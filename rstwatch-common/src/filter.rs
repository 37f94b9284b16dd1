//! What of the user's filter is decided in the kernel, as a read-only global.

use crate::plain_data;

/// Ports that are compared in the kernel, at each end.
pub const MOST_PORTS: usize = 8;

/// The kernel chooses no port below this one: the range that it takes ports from
/// (`net.ipv4.ip_local_port_range`) begins where unprivileged ports do at the lowest
/// (`ipv4_local_port_range`, `net/ipv4/sysctl_net_ipv4.c`; tried on 5.10 and 6.18), which is here unless
/// `net.ipv4.ip_unprivileged_port_start` and the range were both lowered. In such a namespace a connect
/// may have no owner under a filter for a lower port.
pub const LOWEST_CHOSEN_PORT: u16 = 1024;

/// Networks that are compared in the kernel.
pub const MOST_NETS: usize = 4;

/// [`KernelFilter::families`]: IPv4.
pub const IPV4: u32 = 1;
/// [`KernelFilter::families`]: IPv6.
pub const IPV6: u32 = 2;

plain_data! {
    /// A network: an address belongs to it when `addr & mask` is `net`, word by word.
    pub struct Net {
        /// Its address, IPv4 in IPv4-mapped form, as it lies in memory.
        pub net: [u32; 4],
        /// Which bits count, as they lie in memory.
        pub mask: [u32; 4],
    }
    size 32
}

plain_data! {
    /// A connection passes when it, or the same seen from the other end, is admitted: the records of
    /// both ends are needed to pair them. Values of one field are alternatives; a field without
    /// any admits all.
    pub struct KernelFilter {
        /// 0: everything passes.
        pub on: u32,
        /// Bits [`IPV4`], [`IPV6`]; 0: both.
        pub families: u32,
        /// How many of `local` there are.
        pub locals: u32,
        /// How many of `remote` there are.
        pub remotes: u32,
        /// How many of `nets` there are.
        pub nets_len: u32,
        /// Whether a port that the kernel chooses for a connect may be a local port that is asked for:
        /// not 0 when none is asked for, or one from [`LOWEST_CHOSEN_PORT`] on.
        pub any_local: u32,
        /// The same for a remote port that is asked for.
        pub any_remote: u32,
        /// Local ports, in host byte order.
        pub local: [u16; MOST_PORTS],
        /// Remote ports, in host byte order.
        pub remote: [u16; MOST_PORTS],
        /// Networks that the address of either end belongs to.
        pub nets: [Net; MOST_NETS],
    }
    size 188
}

impl KernelFilter {
    /// Admits everything.
    pub const ALL: Self = Self {
        on: 0,
        families: 0,
        locals: 0,
        remotes: 0,
        nets_len: 0,
        any_local: 1,
        any_remote: 1,
        local: [0; MOST_PORTS],
        remote: [0; MOST_PORTS],
        nets: [Net {
            net: [0; 4],
            mask: [0; 4],
        }; MOST_NETS],
    };
}

#[cfg(feature = "user")]
mod pod {
    use super::KernelFilter;

    // SAFETY: it is made of integers, without padding.
    unsafe impl aya::Pod for KernelFilter {}
}
