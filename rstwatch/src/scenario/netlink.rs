//! The few rtnetlink requests that a private network needs, so that it takes no `ip` command:
//! minimal systems and test machines have none.
//!
//! Every request acts on the network namespace of the calling thread. Which namespaces there are is
//! for `netns` to say.

use std::{
    io::Error,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// The loopback device's index, in every namespace (`LOOPBACK_IFINDEX`, `include/net/flow.h`).
pub const LOOPBACK: u32 = 1;

/// Nested attribute of a veth device: its other end (`VETH_INFO_PEER`, `include/uapi/linux/veth.h`).
const VETH_INFO_PEER: u16 = 1;

/// Bytes of `struct nlmsghdr`, after which the payload begins.
const HEADER: usize = size_of::<libc::nlmsghdr>();

/// Sets a device up.
///
/// # Errors
///
/// When the kernel refuses.
pub fn set_up(index: u32) -> Result<()> {
    let mut message = Message::new(libc::RTM_NEWLINK, 0);
    message.link(index, true);
    message.request().context("cannot set a device up")
}

/// Makes a pair of joined devices, both with the index `index` and still down: one end in this
/// namespace, the other in that of `peer`.
///
/// # Errors
///
/// When the kernel refuses, because it has no veth driver or the index is taken.
pub fn add_veth(index: u32, peer: BorrowedFd<'_>) -> Result<()> {
    let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    message.link(index, false);
    message.attribute(libc::IFLA_IFNAME, b"wire\0");
    message.nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"veth\0");
        info.nested(libc::IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |end| {
                end.link(index, false);
                end.attribute(libc::IFLA_IFNAME, b"wire\0");
                end.attribute(libc::IFLA_NET_NS_FD, &peer.as_raw_fd().to_ne_bytes());
            });
        });
    });
    message.request().context("cannot make a veth pair")
}

/// Deletes a device; of a veth pair both ends go.
///
/// # Errors
///
/// When the kernel refuses.
pub fn delete(index: u32) -> Result<()> {
    let mut message = Message::new(libc::RTM_DELLINK, 0);
    message.link(index, false);
    message.request().context("cannot delete a device")
}

/// Gives a device an address that is used at once, without asking the network whether it is taken.
///
/// # Errors
///
/// When the kernel refuses.
pub fn add_address(index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWADDR, flags);
    message.address(index, address, prefix);
    message
        .request()
        .with_context(|| format!("cannot add the address {address}"))
}

/// Takes an address from a device.
///
/// # Errors
///
/// When the kernel refuses.
pub fn delete_address(index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut message = Message::new(libc::RTM_DELADDR, 0);
    message.address(index, address, prefix);
    message
        .request()
        .with_context(|| format!("cannot delete the address {address}"))
}

/// A request under construction.
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).cast_unsigned() as u16;
        let mut message = Self(Vec::with_capacity(128));
        // The length stands first and is known last.
        message.0.extend(0_u32.to_ne_bytes());
        message.0.extend(kind.to_ne_bytes());
        message.0.extend(flags.to_ne_bytes());
        // Sequence number and sender: one request a socket needs neither.
        message.0.extend([0; 8]);
        message
    }

    /// Appends bytes as they are.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// `struct ifinfomsg`.
    fn link(&mut self, index: u32, up: bool) {
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        // Which flags are meant.
        self.0.extend(flags.to_ne_bytes());
    }

    /// `struct ifaddrmsg` and the address.
    fn address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        self.0.extend([
            family.cast_unsigned() as u8,
            prefix,
            libc::IFA_F_NODAD as u8,
            0,
        ]);
        self.0.extend(index.to_ne_bytes());
        self.attribute(libc::IFA_LOCAL, &bytes);
        self.attribute(libc::IFA_ADDRESS, &bytes);
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.nested(kind, |attribute| attribute.0.extend(payload));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn request(self) -> Result<()> {
        self.request_of(SockProtocol::NetlinkRoute)
    }

    /// Sends the request and waits for the kernel's answer, which comes before `send` returns.
    pub(super) fn request_of(mut self, protocol: SockProtocol) -> Result<()> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .context("cannot open a netlink socket")?;
        send(socket.as_raw_fd(), &self.0, MsgFlags::empty()).context("netlink took no request")?;
        let mut answer = [0; 1024];
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())
            .context("netlink gave no answer")?;
        match error_in(&answer[..len]) {
            Some(0) => Ok(()),
            Some(error) => Err(Error::from_raw_os_error(error).into()),
            None => bail!("netlink gave an answer of {len} bytes that is no acknowledgement"),
        }
    }
}

/// The errno of an acknowledgement (0: done); `None` when the bytes are none.
fn error_in(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == libc::NLMSG_ERROR as u16).then_some(-error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_padded_to_four_bytes() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.nested(18, |info| info.attribute(1, b"veth\0"));
        let mut expected = Vec::new();
        expected.extend(16_u16.to_ne_bytes());
        expected.extend(18_u16.to_ne_bytes());
        expected.extend(9_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(b"veth\0\0\0\0");
        assert_eq!(message.0[HEADER..], expected);
    }

    #[test]
    fn only_an_acknowledgement_has_an_error() {
        let mut answer = vec![0; HEADER + 4];
        assert_eq!(error_in(&answer), None);
        answer[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        assert_eq!(error_in(&answer), Some(0));
        answer[HEADER..].copy_from_slice(&(-libc::EEXIST).to_ne_bytes());
        assert_eq!(error_in(&answer), Some(libc::EEXIST));
        assert_eq!(error_in(&answer[..HEADER + 3]), None);
    }
}
