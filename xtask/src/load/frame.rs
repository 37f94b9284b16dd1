//! Ethernet frames that carry a SYN.

use std::net::Ipv4Addr;

/// An address of a network card.
pub(super) type Mac = [u8; 6];

/// Ethernet, IPv4 and TCP headers without options.
pub(super) const LENGTH: usize = 14 + 20 + 20;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;

/// Where a frame comes from or goes to.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) mac: Mac,
    pub(super) addr: Ipv4Addr,
    pub(super) port: u16,
}

/// A SYN from one end to the other.
pub(super) fn syn(from: End, to: End) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    let (ethernet, packet) = frame.split_at_mut(14);
    ethernet[..6].copy_from_slice(&to.mac);
    ethernet[6..12].copy_from_slice(&from.mac);
    ethernet[12..].copy_from_slice(&ETHERTYPE_IPV4);

    let (ip, tcp) = packet.split_at_mut(20);
    // Version 4, a header of five words; total length; do not fragment; 64 hops.
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40_u16.to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = PROTOCOL_TCP;
    ip[12..16].copy_from_slice(&from.addr.octets());
    ip[16..].copy_from_slice(&to.addr.octets());
    let sum = checksum(ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    tcp[..2].copy_from_slice(&from.port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port.to_be_bytes());
    // Any sequence number will do. A header of five words, and a window of 64 KiB.
    tcp[4..8].copy_from_slice(&1_u32.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = FLAG_SYN;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    // Over the addresses, the protocol and the length as well.
    let pseudo_header = sum_of(&ip[12..]) + u32::from(PROTOCOL_TCP) + 20;
    let sum = checksum(tcp, pseudo_header);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071) of an even number of bytes, begun with `start`.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start + sum_of(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's much used example, with its checksum left out.
    #[test]
    fn the_checksum_is_that_of_the_internet() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header, 0), 0xb861);
    }

    #[test]
    fn a_syn_has_its_ends_and_sums_that_add_up() {
        let end = |last, port| End {
            mac: [2, 0, 0, 0, 0, last],
            addr: Ipv4Addr::new(192, 0, 2, last),
            port,
        };
        let frame = syn(end(1, 4000), end(2, 9));
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 2]);
        assert_eq!(frame[26..34], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(frame[34..38], [0x0f, 0xa0, 0, 9]);
        assert_eq!(frame[47], FLAG_SYN);
        // A sum over all, with the checksum in it, is 0.
        assert_eq!(checksum(&frame[14..34], 0), 0);
        let pseudo_header = sum_of(&frame[26..34]) + 6 + 20;
        assert_eq!(checksum(&frame[34..], pseudo_header), 0);
    }
}
