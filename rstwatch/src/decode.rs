//! From the ring's bytes to records, with every check that keeps garbage out.
//!
//! Only form is checked here: version, kind, length, alignment. What a record means is for
//! `interpret` to say.

use std::fmt;

use rstwatch_common::record::{
    ActiveReset, Closed, Header, KIND_ACTIVE_RESET, KIND_CLOSED, KIND_LATE_RESET, KIND_LISTEN,
    KIND_LISTEN_END, KIND_RECEIVED, KIND_REFUSED, KIND_SEGMENT_RESET, KIND_SOCKET_RESET,
    LAYOUT_VERSION, LateReset, Listener, Refused, Reset, SegmentReset, SocketReset,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::Direction;

/// A record of the ring buffer, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A RST was sent for a segment that met no full socket, and the connection is not known.
    Segment(&'a SegmentReset),
    /// The same for a connection closed a short while ago.
    Late(&'a LateReset),
    /// A RST was sent for a segment that met a full socket.
    Answer(&'a SocketReset),
    /// A RST was sent without a segment.
    Active(&'a ActiveReset),
    /// `tcp_receive_reset` fired.
    Received(&'a SocketReset),
    /// `tcp_receive_reset` fired for a connect under way.
    Refused(&'a Refused),
    /// A reset socket was closed by its process.
    Closed(&'a Closed),
    /// A listener begins.
    Listen(&'a Listener),
    /// A listener ends.
    ListenEnd(&'a Listener),
}

impl Record<'_> {
    /// The reset that it tells of, if it does, and which way that went.
    pub const fn reset(&self) -> Option<(&Reset, Direction)> {
        match self {
            Self::Segment(record) => Some((&record.reset, Direction::Sent)),
            Self::Late(record) => Some((&record.reset, Direction::Sent)),
            Self::Answer(record) => Some((&record.reset, Direction::Sent)),
            Self::Active(record) => Some((&record.reset, Direction::Sent)),
            Self::Received(record) => Some((&record.reset, Direction::Received)),
            Self::Refused(record) => Some((&record.reset, Direction::Received)),
            Self::Closed(_) | Self::Listen(_) | Self::ListenEnd(_) => None,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Too short for a header, or not of the length that its kind has.
    Length {
        /// The kind, when there was a header.
        kind: Option<u16>,
        /// The length in bytes.
        len: usize,
    },
    /// Written by BPF programs of another version.
    Version(u16),
    /// No such kind.
    Kind(u16),
    /// Not aligned to 8 bytes.
    Alignment,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { kind: None, len } => write!(f, "{len} bytes are too few for a record"),
            Self::Length {
                kind: Some(kind),
                len,
            } => write!(f, "a record of kind {kind} cannot have {len} bytes"),
            Self::Version(version) => write!(
                f,
                "the record's layout is version {version}, this program's {LAYOUT_VERSION}"
            ),
            Self::Kind(kind) => write!(f, "there is no record of kind {kind}"),
            Self::Alignment => f.write_str("the record is not aligned to 8 bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads one record.
///
/// # Errors
///
/// When the bytes are not exactly one record of this program's layout.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| DecodeError::Length {
        kind: None,
        len: bytes.len(),
    })?;
    if header.version != LAYOUT_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    match header.kind {
        KIND_SEGMENT_RESET => whole(bytes, header.kind).map(Record::Segment),
        KIND_LATE_RESET => whole(bytes, header.kind).map(Record::Late),
        KIND_SOCKET_RESET => whole(bytes, header.kind).map(Record::Answer),
        KIND_ACTIVE_RESET => whole(bytes, header.kind).map(Record::Active),
        KIND_RECEIVED => whole(bytes, header.kind).map(Record::Received),
        KIND_REFUSED => whole(bytes, header.kind).map(Record::Refused),
        KIND_CLOSED => whole(bytes, header.kind).map(Record::Closed),
        KIND_LISTEN => whole(bytes, header.kind).map(Record::Listen),
        KIND_LISTEN_END => whole(bytes, header.kind).map(Record::ListenEnd),
        kind => Err(DecodeError::Kind(kind)),
    }
}

fn whole<T: FromBytes + KnownLayout + Immutable>(
    bytes: &[u8],
    kind: u16,
) -> Result<&T, DecodeError> {
    if bytes.len() != size_of::<T>() {
        return Err(DecodeError::Length {
            kind: Some(kind),
            len: bytes.len(),
        });
    }
    T::ref_from_bytes(bytes).map_err(|_| DecodeError::Alignment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    /// Bytes at an address that is a multiple of 8, as the ring gives them.
    fn aligned(bytes: &[u8]) -> (Vec<u64>, usize) {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        (words, bytes.len())
    }

    fn header(kind: u16) -> Header {
        Header {
            kind,
            version: LAYOUT_VERSION,
            cpu: 1,
            time_ns: 2,
            sock: 3,
        }
    }

    #[test]
    fn a_record_of_each_kind_is_told_by_its_header() {
        let mut closed = Closed::new_zeroed();
        closed.header = header(KIND_CLOSED);
        assert_eq!(decode(closed.as_bytes()), Ok(Record::Closed(&closed)));

        let mut answer = SocketReset::new_zeroed();
        answer.reset.header = header(KIND_SOCKET_RESET);
        assert_eq!(decode(answer.as_bytes()), Ok(Record::Answer(&answer)));
        answer.reset.header = header(KIND_RECEIVED);
        assert_eq!(decode(answer.as_bytes()), Ok(Record::Received(&answer)));

        let mut active = ActiveReset::new_zeroed();
        active.reset.header = header(KIND_ACTIVE_RESET);
        assert_eq!(decode(active.as_bytes()), Ok(Record::Active(&active)));

        let mut late = LateReset::new_zeroed();
        late.reset.header = header(KIND_LATE_RESET);
        assert_eq!(decode(late.as_bytes()), Ok(Record::Late(&late)));

        let mut refused = Refused::new_zeroed();
        refused.reset.header = header(KIND_REFUSED);
        assert_eq!(decode(refused.as_bytes()), Ok(Record::Refused(&refused)));

        let mut listener = Listener::new_zeroed();
        listener.header = header(KIND_LISTEN);
        assert_eq!(decode(listener.as_bytes()), Ok(Record::Listen(&listener)));
        listener.header = header(KIND_LISTEN_END);
        assert_eq!(
            decode(listener.as_bytes()),
            Ok(Record::ListenEnd(&listener))
        );

        let mut segment = SegmentReset::new_zeroed();
        segment.reset.header = header(KIND_SEGMENT_RESET);
        assert_eq!(decode(segment.as_bytes()), Ok(Record::Segment(&segment)));
    }

    #[test]
    fn what_is_no_record_is_refused_by_name() {
        let mut closed = Closed::new_zeroed();
        closed.header = header(KIND_CLOSED);
        let bytes = closed.as_bytes();
        assert_eq!(
            decode(&bytes[..64]),
            Err(DecodeError::Length {
                kind: Some(KIND_CLOSED),
                len: 64
            })
        );
        assert_eq!(
            decode(&bytes[..3]),
            Err(DecodeError::Length { kind: None, len: 3 })
        );
        closed.header.version = LAYOUT_VERSION + 1;
        assert_eq!(
            decode(closed.as_bytes()),
            Err(DecodeError::Version(LAYOUT_VERSION + 1))
        );
        closed.header = header(99);
        assert_eq!(decode(closed.as_bytes()), Err(DecodeError::Kind(99)));
        closed.header = header(KIND_CLOSED);
        let mut shifted = [0_u64; 10];
        shifted.as_mut_bytes()[4..76].copy_from_slice(closed.as_bytes());
        assert_eq!(
            decode(&shifted.as_bytes()[4..76]),
            Err(DecodeError::Alignment)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_good_header_admits_one_length_only(kind in 0_u16..10, len in 0_usize..700) {
            let mut bytes = vec![0xa5_u8; len];
            if let Some(start) = bytes.get_mut(..4) {
                start[..2].copy_from_slice(&kind.to_ne_bytes());
                start[2..].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
            }
            let (words, len) = aligned(&bytes);
            let expected = match kind {
                KIND_SEGMENT_RESET => Some(size_of::<SegmentReset>()),
                KIND_LATE_RESET => Some(size_of::<LateReset>()),
                KIND_SOCKET_RESET | KIND_RECEIVED => Some(size_of::<SocketReset>()),
                KIND_ACTIVE_RESET => Some(size_of::<ActiveReset>()),
                KIND_CLOSED => Some(size_of::<Closed>()),
                KIND_REFUSED => Some(size_of::<Refused>()),
                KIND_LISTEN | KIND_LISTEN_END => Some(size_of::<Listener>()),
                _ => None,
            };
            prop_assert_eq!(decode(&words.as_bytes()[..len]).is_ok(), Some(len) == expected);
        }
    }
}
