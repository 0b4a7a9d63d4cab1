//! What the relay says about a stream's swarm: as much of swarm.json as a peer needs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::limits::CHUNK;
use crate::bench::{Outcome, relay, source};
use crate::swarm::integrity::SwarmId;
use crate::wire::ppspp::Addressing;

/// How often to ask.
const LOOK: Duration = Duration::from_millis(100);

/// The document, as it comes.
#[derive(Debug, Deserialize)]
struct Document {
    swarm_id: String,
    chunk_size: usize,
    chunk_addressing: u8,
    chunks_per_signature: u64,
    udp: Vec<String>,
}

/// What a peer must know before it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Where peers come in.
    pub udp: SocketAddr,
    /// The public key, in hexadecimal digits.
    pub swarm_id: String,
    /// How chunks are named.
    pub addressing: u8,
    /// Chunks under one signature.
    pub subtree: u64,
}

impl Facts {
    fn parse(text: &[u8]) -> Outcome<Facts> {
        let document: Document = serde_json::from_slice(text)?;
        if document.chunk_size != CHUNK {
            return Err(format!("chunks of {} bytes, not {CHUNK}", document.chunk_size).into());
        }
        let udp = document.udp.first().ok_or("swarm.json names no address")?;
        let udp = udp.to_socket_addrs()?.next().ok_or("swarm.json's address is none")?;
        let Document { swarm_id, chunk_addressing: addressing, .. } = document;
        let facts = Facts { udp, swarm_id, addressing, subtree: document.chunks_per_signature };
        facts.id()?;
        facts.method()?;
        if !facts.subtree.is_power_of_two() {
            return Err(format!("{} chunks under one signature", facts.subtree).into());
        }
        Ok(facts)
    }

    /// Asks the relay at `http` until it knows them.
    ///
    /// # Errors
    /// After `limit`: what it said last.
    pub fn fetch(http: SocketAddr, limit: Duration) -> Outcome<Facts> {
        let (start, path) = (Instant::now(), format!("/live/{}/swarm.json", source::NAME));
        loop {
            // 404 before the stream is there, 503 while its bitrate is not known.
            match relay::fetch(http, &path) {
                Ok(text) => return Facts::parse(&text),
                Err(why) if start.elapsed() > limit => return Err(why),
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    /// The swarm's name.
    ///
    /// # Errors
    /// If it is none.
    pub fn id(&self) -> Outcome<SwarmId> {
        Ok(self.swarm_id.parse()?)
    }

    /// How chunks are named.
    ///
    /// # Errors
    /// If we do not speak it.
    pub fn method(&self) -> Outcome<Addressing> {
        let method = Addressing::from_code(self.addressing);
        method.ok_or_else(|| format!("chunk addressing {}", self.addressing).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(addressing: u8, subtree: u64, udp: &str) -> String {
        let id = "0d".to_owned() + &"ab".repeat(64);
        format!(
            r#"{{"ext":1,"swarm_id":"{id}","chunk_size":1316,"chunk_addressing":{addressing},
            "chunks_per_signature":{subtree},"integrity":3,"hash":2,"signature":13,
            "udp":[{udp}],"live":{{"signed":7,"now":9}},"access_points":[],"alternates":[]}}"#
        )
    }

    #[test]
    fn the_document_is_read() {
        let facts = Facts::parse(document(4, 16, r#""127.0.0.1:99","x:1""#).as_bytes()).unwrap();
        assert_eq!((facts.udp.port(), facts.subtree), (99, 16));
        assert_eq!(facts.method().unwrap(), Addressing::Chunks64);
        assert_eq!(facts.id().unwrap().as_bytes()[1], 0xab);
        for bad in [document(3, 16, r#""127.0.0.1:99""#), document(4, 5, r#""127.0.0.1:99""#)] {
            assert!(Facts::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Facts::parse(document(4, 16, "").as_bytes()).is_err(), "no address");
    }
}
