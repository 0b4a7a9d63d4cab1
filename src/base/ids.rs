//! Identifiers: streams, shards, connections, listeners.

use std::fmt;
use std::str::FromStr;

use crate::base::limits::STREAM_NAME_MAX;

/// The name of a stream: `[A-Za-z0-9._-]{1,64}`, no leading dot, not ending in `.ts` or `.m3u8`.
///
/// The two endings belong to the faces (`/live/NAME.ts`), so a name can never be mistaken for a
/// URL of another stream. A leading dot is refused because names become file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Box<str>);

/// Why a string is no stream name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// The name is empty.
    Empty,
    /// The name is longer than 64 bytes.
    TooLong,
    /// The name begins with a dot.
    LeadingDot,
    /// The name has a character outside `[A-Za-z0-9._-]`.
    Character,
    /// The name ends in `.ts` or `.m3u8`.
    Ending,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadName::Empty => "a stream name must not be empty",
            BadName::TooLong => "a stream name has at most 64 characters",
            BadName::LeadingDot => "a stream name must not begin with a dot",
            BadName::Character => "a stream name may hold only A-Z a-z 0-9 . _ -",
            BadName::Ending => "a stream name must not end in .ts or .m3u8",
        })
    }
}

impl std::error::Error for BadName {}

impl FromStr for StreamName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<StreamName, BadName> {
        if s.is_empty() {
            return Err(BadName::Empty);
        }
        if s.len() > STREAM_NAME_MAX {
            return Err(BadName::TooLong);
        }
        if s.starts_with('.') {
            return Err(BadName::LeadingDot);
        }
        if !s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(BadName::Character);
        }
        if s.ends_with(".ts") || s.ends_with(".m3u8") {
            return Err(BadName::Ending);
        }
        Ok(StreamName(s.into()))
    }
}

impl StreamName {
    /// The name as text, without the `live/` in front.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a shard: 0 to `shards - 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The place of a stream in the registry's table; reused only after the stream was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSlot(pub u32);

/// Which listening socket a connection came through, in the order the node bound them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u16);

/// Which datagram socket something came through, in the order the node bound them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketId(pub u16);

impl SocketId {
    /// The socket of the swarm; every shard has one, and all of them share a port.
    pub const SWARM: SocketId = SocketId(u16::MAX);

    /// The socket of one of a process's viewers: each has an address of its own, by which its
    /// neighbours know it. That of the first is [`SWARM`](Self::SWARM). `None` for more viewers
    /// than there are ports.
    #[must_use]
    pub fn of_viewer(index: usize) -> Option<SocketId> {
        let below = u16::try_from(index).ok()?;
        Some(SocketId(Self::SWARM.0 - below))
    }

    /// The viewer whose socket it is, if it is one.
    #[must_use]
    pub fn viewer(self) -> usize {
        usize::from(Self::SWARM.0 - self.0)
    }
}

/// A connection of one driver. The generation makes a late event for a closed connection
/// recognisable: it never matches the connection that took its place in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Place in the driver's table.
    pub index: u32,
    /// Counts how often that place was reused.
    pub generation: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_viewer_has_a_socket() {
        assert_eq!(SocketId::of_viewer(0), Some(SocketId::SWARM));
        for index in [0, 1, 49, 65_535] {
            assert_eq!(SocketId::of_viewer(index).unwrap().viewer(), index);
        }
        assert_eq!(SocketId::of_viewer(65_536), None);
    }

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "cam1", "A.b_c-9", "x.ts.y", &"n".repeat(64)] {
            assert_eq!(good.parse::<StreamName>().unwrap().as_str(), good);
        }
        let bad = [
            ("", BadName::Empty),
            (".a", BadName::LeadingDot),
            ("a/b", BadName::Character),
            ("a b", BadName::Character),
            ("ü", BadName::Character),
            ("a.ts", BadName::Ending),
            ("a.m3u8", BadName::Ending),
        ];
        for (name, why) in bad {
            assert_eq!(name.parse::<StreamName>(), Err(why), "{name:?}");
        }
        assert_eq!("n".repeat(65).parse::<StreamName>(), Err(BadName::TooLong));
    }
}
