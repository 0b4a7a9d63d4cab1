//! `swarm.json`: how a peer is invited into a stream's swarm.

use std::net::SocketAddr;

use crate::base::limits::CHUNK;
use crate::base::time::Now;
use crate::face::http::exchange::Refusal;
use crate::registry::identity::Identity;
use crate::registry::stream::Stream;
use crate::ring::marks::MarkKind;
use crate::ring::window::Window;
use crate::swarm::integrity::freshness::SERVED;
use crate::swarm::integrity::ntp;
use crate::wire::ppspp::handshake::{ECDSA_P256, SHA256, UNIFIED_MERKLE_TREE};
use crate::wire::swarm_json::{AccessPoint, EXT, Live, SwarmJson};

/// The most access points that are named.
const ACCESS_POINTS: usize = 8;

/// Where peers come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The bound address.
    pub address: SocketAddr,
    /// What peers are told instead; empty: the name by which they asked.
    pub advertise: Vec<String>,
}

impl Door {
    /// The addresses that somebody is told who asked with this `Host`.
    fn addresses(&self, host: Option<&str>) -> Vec<String> {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        let port = self.address.port();
        match host.map(name).filter(|name| !name.is_empty()) {
            Some(name) => vec![format!("{name}:{port}")],
            // HTTP/1.0 names no host. "[::]" is nowhere.
            None if self.address.ip().is_unspecified() => Vec::new(),
            None => vec![self.address.to_string()],
        }
    }
}

/// The name or address of a `Host` value, an IPv6 address in its brackets, without the port.
fn name(host: &str) -> &str {
    match host.find(']') {
        Some(end) if host.starts_with('[') => &host[..=end],
        _ => host.split(':').next().unwrap_or_default(),
    }
}

/// The invitation into the swarm of `stream`.
///
/// # Errors
/// Why there is none (yet).
pub fn invitation(
    stream: &Stream,
    door: Option<&Door>,
    host: Option<&str>,
    now: Now,
) -> Result<SwarmJson, Refusal> {
    let Some(door) = door else {
        let text = "there is no swarm here; play /live/NAME.ts, or set swarm.listen on the relay";
        return Err(Refusal::new(503, text).retry_after(60));
    };
    let identity = stream.identity();
    let (Some(identity), Some(signed)) = (identity, stream.window.signed_head()) else {
        let text = "the stream's bitrate is being measured; ask again";
        return Err(Refusal::new(503, text).retry_after(1));
    };
    // Both fit: they are a chunk and at most 16 of them.
    Ok(SwarmJson {
        ext: EXT,
        swarm_id: identity.swarm_id.to_string(),
        chunk_size: CHUNK as u32,
        chunk_addressing: identity.addressing.code(),
        chunks_per_signature: identity.size.chunks() as u32,
        integrity: UNIFIED_MERKLE_TREE,
        hash: SHA256,
        signature: ECDSA_P256,
        udp: door.addresses(host),
        live: Live {
            signed: signed / CHUNK as u64,
            now: identity.clock.utc(now.mono).as_unix_millis(),
        },
        access_points: access_points(&stream.window, identity, now),
        alternates: Vec::new(),
    })
}

/// The newest access points behind the last break that can be asked for: their subtree is signed,
/// and not so long ago that it is not served any more.
fn access_points(window: &Window, identity: &Identity, now: Now) -> Vec<AccessPoint> {
    let clock = identity.clock.ntp(now.mono);
    let is_served = |at: u64| {
        let record = window.record(at / identity.size.bytes());
        record.is_ok_and(|record| ntp::before(clock, record.ntp).unwrap_or_default() <= SERVED)
    };
    let marks = window.marks();
    let mut points = Vec::with_capacity(ACCESS_POINTS);
    for mark in marks.iter().rev() {
        match mark.kind {
            MarkKind::Discontinuity => break,
            MarkKind::AccessPoint { pat, .. } if is_served(pat) => {
                let age = now.mono.since(mark.ingest).as_millis();
                points.push(AccessPoint {
                    chunk: pat / CHUNK as u64,
                    offset: (pat % CHUNK as u64) as u32,
                    age_ms: u64::try_from(age).unwrap_or(u64::MAX),
                });
            }
            _ => {}
        }
        if points.len() == ACCESS_POINTS {
            break;
        }
    }
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_the_name_by_which_they_asked() {
        let door = |address: &str, advertise: &[&str]| Door {
            address: address.parse().unwrap(),
            advertise: advertise.iter().map(|&text| text.to_owned()).collect(),
        };
        let wide = door("[::]:7000", &[]);
        for (host, told) in [
            ("relay.example:8080", "relay.example:7000"),
            ("relay.example", "relay.example:7000"),
            ("192.0.2.1:80", "192.0.2.1:7000"),
            ("[2001:db8::1]:8080", "[2001:db8::1]:7000"),
            ("[::1]", "[::1]:7000"),
        ] {
            assert_eq!(wide.addresses(Some(host)), [told]);
        }
        assert!(wide.addresses(None).is_empty());
        assert_eq!(door("127.0.0.1:7000", &[]).addresses(None), ["127.0.0.1:7000"]);
        let public = door("[::]:7000", &["a.example:1", "[2001:db8::1]:2"]);
        assert_eq!(public.addresses(Some("x")), ["a.example:1", "[2001:db8::1]:2"]);
    }
}
