//! `swarm.json`: all that a peer must know of a live swarm before it can join (RFC 7574, 3.1).
//!
//! It is the root of trust: whoever can change it on its way can name another key.

use serde::{Deserialize, Serialize};

/// The private messages of this profile are understood.
pub const EXT: u8 = 1;

/// The document. Members that are not known are ignored: newer relays add some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmJson {
    /// Which private messages the relay understands; 0: none.
    #[serde(default)]
    pub ext: u8,
    /// The public key in hexadecimal digits, as in a handshake.
    pub swarm_id: String,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// Option 6 of the handshake.
    pub chunk_addressing: u8,
    /// Chunks of a subtree.
    pub chunks_per_signature: u32,
    /// Option 3.
    pub integrity: u8,
    /// Option 4.
    pub hash: u8,
    /// Option 5.
    pub signature: u8,
    /// Where the relay speaks UDP: `host:port`, an IPv6 address in brackets.
    #[serde(default)]
    pub udp: Vec<String>,
    /// How far the stream is.
    pub live: Live,
    /// Where a decoder can start, oldest first: the newest few whose subtrees are signed.
    #[serde(default)]
    pub access_points: Vec<AccessPoint>,
    /// Other relays of the same swarm.
    #[serde(default)]
    pub alternates: Vec<String>,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The chunk behind the newest signed subtree.
    pub signed: u64,
    /// The signer's clock, in milliseconds since 1970.
    pub now: u64,
}

/// Where a decoder can start: the PAT in front of a key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPoint {
    /// The chunk in which it begins.
    pub chunk: u64,
    /// The byte in that chunk.
    pub offset: u32,
    /// How long ago the key frame came in.
    pub age_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_of_the_protocol() {
        let document = SwarmJson {
            ext: EXT,
            swarm_id: "0d".to_owned(),
            chunk_size: 1316,
            chunk_addressing: 4,
            chunks_per_signature: 16,
            integrity: 3,
            hash: 2,
            signature: 13,
            udp: vec!["relay.example:8080".to_owned()],
            live: Live { signed: 32, now: 1_767_225_600_000 },
            access_points: vec![AccessPoint { chunk: 7, offset: 188, age_ms: 400 }],
            alternates: Vec::new(),
        };
        let text = "{\"ext\":1,\"swarm_id\":\"0d\",\"chunk_size\":1316,\"chunk_addressing\":4,\
                    \"chunks_per_signature\":16,\"integrity\":3,\"hash\":2,\"signature\":13,\
                    \"udp\":[\"relay.example:8080\"],\
                    \"live\":{\"signed\":32,\"now\":1767225600000},\
                    \"access_points\":[{\"chunk\":7,\"offset\":188,\"age_ms\":400}],\
                    \"alternates\":[]}";
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        let newer = text.replace("{\"ext\"", "{\"colour\":\"blue\",\"ext\"");
        assert_eq!(serde_json::from_str::<SwarmJson>(&newer).unwrap(), document);
    }
}
