//! TCP segments that no ordinary socket sends: of a connection that never was, or with numbers that
//! no kernel would give them. What they are good for is for the scenarios to say.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, sendto,
        socket,
    },
};

use crate::event::TcpFlags;

/// Bytes of a TCP header without options.
const HEADER: usize = 20;

/// Where the checksum stands in it.
const CHECKSUM: usize = 16;

/// A segment; its payload is of no account but for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged {
    /// The sender, whose address must be one of the host's.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// Its flags.
    pub flags: TcpFlags,
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub payload: usize,
}

/// Sends a segment through a raw socket (`CAP_NET_RAW`); the kernel puts the IP header before it.
/// It is not traced as sent: it comes from no TCP socket.
///
/// # Errors
///
/// When the kernel refuses.
pub fn send(segment: &Forged) -> io::Result<()> {
    let family = if segment.from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Tcp,
    )?;
    // Of a raw socket's addresses the port is a protocol, and must be 0 for IPv6.
    let without_port = |end: SocketAddr| SockaddrStorage::from(SocketAddr::new(end.ip(), 0));
    bind(socket.as_raw_fd(), &without_port(segment.from))?;
    let bytes = encode(segment);
    sendto(
        socket.as_raw_fd(),
        &bytes,
        &without_port(segment.to),
        MsgFlags::empty(),
    )?;
    Ok(())
}

/// The flags that `words` name, joined by `+`: `syn+ack`; `none` for none.
///
/// # Errors
///
/// When one of them is no flag.
pub fn parse_flags(words: &str) -> Result<TcpFlags> {
    words
        .split('+')
        .filter(|word| *word != "none")
        .try_fold(0, |flags, word| {
            let flag = match word {
                "fin" => TcpFlags::FIN,
                "syn" => TcpFlags::SYN,
                "rst" => TcpFlags::RST,
                "psh" => TcpFlags::PSH,
                "ack" => TcpFlags::ACK,
                _ => return None,
            };
            Some(flags | flag)
        })
        .map(TcpFlags)
        .with_context(|| format!("no TCP flags: {words}"))
}

fn encode(segment: &Forged) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + segment.payload);
    bytes.extend(segment.from.port().to_be_bytes());
    bytes.extend(segment.to.port().to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    // The header's length in words of four bytes, in the upper half.
    bytes.push(((HEADER / 4) as u8) << 4);
    bytes.push(segment.flags.0);
    // The window; checksum and urgent pointer.
    bytes.extend(u16::MAX.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.resize(HEADER + segment.payload, b'x');
    let sum = checksum(segment.from.ip(), segment.to.ip(), &bytes);
    bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The checksum of RFC 9293, 3.1, over the pseudo header and `segment`.
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut sum = segment.len() as u32 + libc::IPPROTO_TCP.cast_unsigned();
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    };
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => add(&address.octets()),
            IpAddr::V6(address) => add(&address.octets()),
        }
    }
    add(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged(from: &str, to: &str, payload: usize) -> Forged {
        Forged {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            flags: TcpFlags(TcpFlags::SYN | TcpFlags::ACK),
            seq: 0x0102_0304,
            ack: 5,
            payload,
        }
    }

    #[test]
    fn a_header_is_in_network_order() {
        let bytes = encode(&forged("10.0.0.1:258", "10.0.0.2:80", 3));
        assert_eq!(bytes.len(), HEADER + 3);
        assert_eq!(bytes[..8], [1, 2, 0, 80, 1, 2, 3, 4]);
        assert_eq!(bytes[12..16], [0x50, 0x12, 0xff, 0xff]);
    }

    #[test]
    fn the_sum_of_everything_with_the_checksum_is_all_ones() {
        for (from, to) in [
            ("10.77.0.1:40000", "10.77.0.2:9"),
            ("[fd77::1]:40000", "[fd77::2]:9"),
        ] {
            for payload in [0, 1, 2, 1000] {
                let segment = forged(from, to, payload);
                let bytes = encode(&segment);
                // A receiver sums the checksum itself as well, and finds zero.
                assert_eq!(checksum(segment.from.ip(), segment.to.ip(), &bytes), 0);
            }
        }
    }

    #[test]
    fn flags_have_names() {
        assert_eq!(parse_flags("syn+ack").unwrap().0, 0x12);
        assert_eq!(parse_flags("fin").unwrap().0, 0x01);
        assert_eq!(parse_flags("none").unwrap().0, 0);
        assert!(parse_flags("syn+nack").is_err());
    }
}
