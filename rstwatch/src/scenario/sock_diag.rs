//! Destroying a socket from outside, as `ss -K` does: one request of `sock_diag`
//! (`net/core/sock_diag.c`, `net/ipv4/inet_diag.c`; `CONFIG_INET_DIAG_DESTROY`).

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use nix::{libc, sys::socket::SockProtocol};

use super::netlink::Message;

/// `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`).
const SOCK_DESTROY: u16 = 21;

/// Of `struct inet_diag_req_v2` the states that are asked for: all.
const ANY_STATE: u32 = u32::MAX;

/// A socket's cookie where none is asked for (`INET_DIAG_NOCOOKIE`), twice.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Destroys the socket between `local` and `remote` in the caller's network namespace.
///
/// # Errors
///
/// Without `CAP_NET_ADMIN`, without such a socket, or when the kernel cannot do it (`EOPNOTSUPP`, or
/// `ENOENT` where a module is missing).
pub fn destroy(local: SocketAddr, remote: SocketAddr) -> Result<()> {
    let mut message = Message::new(SOCK_DESTROY, 0);
    message.extend(&request(local, remote));
    message
        .request_of(SockProtocol::NetlinkSockDiag)
        .context("cannot destroy the socket")
}

/// `struct inet_diag_req_v2`, with `struct inet_diag_sockid` in it.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut bytes = vec![family.cast_unsigned() as u8, libc::IPPROTO_TCP as u8, 0, 0];
    bytes.extend(ANY_STATE.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(address) => field[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => field = address.octets(),
        }
        bytes.extend(field);
    }
    // On whatever device.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(NO_COOKIE);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_length_and_order_of_the_kernels_structure() {
        let bytes = request(
            "10.0.0.1:258".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
        );
        assert_eq!(bytes.len(), 56);
        assert_eq!(bytes[..4], [2, 6, 0, 0]);
        assert_eq!(bytes[8..12], [1, 2, 0, 80]);
        assert_eq!(bytes[12..17], [10, 0, 0, 1, 0]);
        assert_eq!(bytes[28..33], [10, 0, 0, 2, 0]);
    }
}
