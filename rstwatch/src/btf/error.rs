//! What can be wrong with BTF, and with a question asked of it.

use std::{error::Error, fmt};

/// Why bytes are not BTF that rstwatch can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BtfError {
    /// They do not begin with BTF's magic number, in either byte order.
    Magic,
    /// A version of the format other than 1.
    Version(u8),
    /// They end before what the header announces, or the header's numbers make no sense.
    Header,
    /// The strings do not begin and end with a NUL.
    Strings,
    /// A type's kind, or a bit of its description, is newer than this reader, so that the length
    /// of the type is not known.
    Info {
        /// Id of the type.
        id: u32,
        /// The word that describes it.
        info: u32,
    },
    /// The last type is cut off.
    Truncated {
        /// Id of the type.
        id: u32,
    },
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not BTF: the magic number is missing"),
            Self::Version(version) => write!(f, "BTF version {version} is not supported"),
            Self::Header => f.write_str("the BTF header does not fit the data"),
            Self::Strings => f.write_str("the BTF strings are not terminated"),
            Self::Info { id, info } => {
                write!(f, "BTF type {id} is of an unknown kind (info {info:#010x})")
            }
            Self::Truncated { id } => write!(f, "BTF type {id} is cut off"),
        }
    }
}

impl Error for BtfError {}

/// Why a member could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// No structure or union of that name has members.
    NoStructure,
    /// The structure has no such member, or a part of the path before the last is no structure.
    NoMember,
    /// Several structures have that name, and the member is not in the same place in all of them.
    Ambiguous,
    /// The types refer to each other in a circle, are nested deeper than the kernel's ever are, or
    /// refer to types that do not exist.
    Malformed,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoStructure => "no such structure",
            Self::NoMember => "no such member",
            Self::Ambiguous => "several structures of that name differ",
            Self::Malformed => "malformed type information",
        })
    }
}

impl Error for LookupError {}
