//! What `swarm.json` says: the root of trust, and where and how to join.

use std::fmt;
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::SwarmId;
use crate::swarm::playout::Entrance;
use crate::swarm::receiver::Profile;
use crate::wire::ppspp::Addressing;
use crate::wire::ppspp::handshake::{ECDSA_P256, SHA256, UNIFIED_MERKLE_TREE};
use crate::wire::swarm_json::{AccessPoint, SwarmJson};

/// Addresses and access points beyond which the rest of a document is not looked at.
const LIST_MAX: usize = 64;

/// How to join a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What all peers agree about.
    pub profile: Profile,
    /// Where the relay speaks UDP: host and port, as text.
    pub udp: Vec<(String, u16)>,
    /// The chunk behind the newest signed subtree.
    pub signed: u64,
    /// The relay's clock: milliseconds since 1970.
    pub now: u64,
    /// Stream offsets where a decoder can start and how long ago they came in, oldest first.
    pub access_points: Vec<Entrance>,
}

/// Why a document is no invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadInvitation {
    /// It is not the JSON that was asked for.
    Json(String),
    /// Chunks of another size than this version speaks.
    ChunkSize(u32),
    /// A number that this version does not speak, and what it is of.
    Unknown(&'static str, u64),
    /// No swarm id.
    SwarmId,
}

impl fmt::Display for BadInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadInvitation::Json(why) => write!(f, "swarm.json cannot be read: {why}"),
            BadInvitation::ChunkSize(size) => {
                write!(f, "the stream has chunks of {size} bytes; this version plays {CHUNK}")
            }
            BadInvitation::Unknown(what, value) => {
                write!(f, "swarm.json: this version does not know {what} {value}")
            }
            BadInvitation::SwarmId => f.write_str("swarm.json: the swarm id is none"),
        }
    }
}

impl std::error::Error for BadInvitation {}

impl Invitation {
    /// Reads a document.
    ///
    /// # Errors
    /// [`BadInvitation`] says what is wrong with it.
    pub fn read(json: &[u8]) -> Result<Invitation, BadInvitation> {
        let document: SwarmJson =
            serde_json::from_slice(json).map_err(|why| BadInvitation::Json(why.to_string()))?;
        if document.chunk_size != CHUNK as u32 {
            return Err(BadInvitation::ChunkSize(document.chunk_size));
        }
        let unknown = |what, value: u8| BadInvitation::Unknown(what, u64::from(value));
        for (what, value, known) in [
            ("integrity", document.integrity, UNIFIED_MERKLE_TREE),
            ("hash", document.hash, SHA256),
            ("signature", document.signature, ECDSA_P256),
        ] {
            if value != known {
                return Err(unknown(what, value));
            }
        }
        let code = document.chunk_addressing;
        let addressing =
            Addressing::from_code(code).ok_or_else(|| unknown("chunk_addressing", code))?;
        let n = document.chunks_per_signature;
        let size = usize::try_from(n).ok().and_then(SubtreeSize::new);
        let size = size.ok_or(BadInvitation::Unknown("chunks_per_signature", u64::from(n)))?;
        let swarm_id: SwarmId = document.swarm_id.parse().map_err(|_| BadInvitation::SwarmId)?;
        let point = |point: &AccessPoint| {
            let offset =
                point.chunk.checked_mul(CHUNK as u64)?.checked_add(u64::from(point.offset))?;
            Some((offset, Duration::from_millis(point.age_ms)))
        };
        let points = document.access_points.iter().rev().take(LIST_MAX).filter_map(point);
        let mut access_points: Vec<Entrance> = points.collect();
        access_points.sort_unstable();
        Ok(Invitation {
            profile: Profile { swarm_id, addressing, size },
            udp: document.udp.iter().take(LIST_MAX).filter_map(|text| endpoint(text)).collect(),
            signed: document.live.signed,
            now: document.live.now,
            access_points,
        })
    }
}

impl Invitation {
    /// How long a chunk takes at the rate between the access points and now; `None` if there is
    /// too little to tell.
    #[must_use]
    pub fn chunk_time(&self) -> Option<Duration> {
        let (offset, age) = self.access_points.first()?;
        let chunks = self.signed.checked_sub(offset / CHUNK as u64)?;
        let each = *age / u32::try_from(chunks).ok().filter(|chunks| *chunks > 0)?;
        (*age >= Duration::from_millis(500)).then_some(each)
    }
}

/// `host:port`, the host of an IPv6 address in brackets.
fn endpoint(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A document, with one member replaced.
    pub(in crate::peer) fn document(member: &str, value: serde_json::Value) -> Vec<u8> {
        let mut document = serde_json::json!({
            "ext": 1, "swarm_id": format!("0d{}", "5a".repeat(64)), "chunk_size": 1316,
            "chunk_addressing": 4, "chunks_per_signature": 16, "integrity": 3, "hash": 2,
            "signature": 13, "udp": ["127.0.0.1:7000", "[::1]:7001", "relay.test:7002", "x"],
            "live": {"signed": 4096, "now": 1_767_225_600_000_u64},
            "access_points": [
                {"chunk": 4000, "offset": 188, "age_ms": 1400},
                {"chunk": 4090, "offset": 0, "age_ms": 400},
            ],
            "alternates": [],
        });
        document[member] = value;
        serde_json::to_vec(&document).unwrap()
    }

    #[test]
    fn documents_are_read() {
        let read = Invitation::read(&document("x", 1.into())).unwrap();
        assert_eq!(read.profile.size.chunks(), 16);
        assert_eq!(read.profile.addressing, Addressing::Chunks64);
        let udp: Vec<_> = read.udp.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(udp, [("127.0.0.1", 7000), ("::1", 7001), ("relay.test", 7002)]);
        let age = Duration::from_millis;
        let points = [(4000 * 1316 + 188, age(1_400)), (4090 * 1316, age(400))];
        assert_eq!((read.signed, read.access_points), (4096, points.to_vec()));
    }

    #[test]
    fn what_this_version_does_not_speak_is_refused_by_name() {
        for (member, value, word) in [
            ("chunk_size", 1024, "1024 bytes"),
            ("chunk_addressing", 3, "chunk_addressing 3"),
            ("chunks_per_signature", 32, "chunks_per_signature 32"),
            ("integrity", 1, "integrity 1"),
            ("hash", 0, "hash 0"),
            ("signature", 5, "signature 5"),
            ("swarm_id", 5, "cannot be read"),
        ] {
            let why = Invitation::read(&document(member, value.into())).unwrap_err();
            assert!(why.to_string().contains(word), "{why}");
        }
        let short = document("swarm_id", "0d5a".into());
        assert_eq!(Invitation::read(&short), Err(BadInvitation::SwarmId));
        assert!(Invitation::read(b"<html>").is_err());
    }
}
