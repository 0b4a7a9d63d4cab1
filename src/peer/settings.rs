//! What a viewer's node is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::StreamName;
use crate::peer::client::{Tls, Url};
use crate::registry::streams::Registry;
use crate::ring::arena::Arena;
use crate::ring::window;
use crate::swarm::integrity::SwarmId;
use crate::swarm::playout;
use crate::swarm::settings::Strategy;

/// Settings of all viewers of a node.
pub struct Settings {
    /// The relay, and the stream's path there.
    pub url: Url,
    /// The stream.
    pub name: StreamName,
    /// Where the relay's name leads, in the order in which it is tried.
    pub addresses: Vec<SocketAddr>,
    /// The only swarm that is accepted, if one was named.
    pub pin: Option<SwarmId>,
    /// The right to join, if the stream asks for one.
    pub token: Option<Box<[u8]>>,
    /// Whom to trust over https.
    pub tls: Option<Tls>,
    /// How far behind live to play.
    pub playout: playout::Settings,
    /// The most that is sent to other viewers, in bits per second; 0: nothing is shared. `None`:
    /// what the line carries is found out.
    pub upload: Option<u64>,
    /// What the relay plans by: viewers of a mesh in which nobody pushes ask for what they lack.
    pub strategy: Strategy,
}

impl Settings {
    /// The stream that a URL names: of `/live/NAME`, `/live/NAME.ts`, `/live/NAME/…` and
    /// `/watch/live/NAME`.
    #[must_use]
    pub fn stream(url: &Url) -> Option<StreamName> {
        let path = url.path();
        let path = path.strip_prefix("/watch").unwrap_or(path);
        let rest = path.strip_prefix("/live/")?;
        let name = rest.split('/').next().unwrap_or_default();
        name.strip_suffix(".ts").unwrap_or(name).parse().ok()
    }
}

/// Where a viewer's bytes go.
pub enum Room {
    /// A stream of the registry, from which a shard of this process serves players.
    Registered {
        /// The registry.
        registry: Arc<Registry>,
        /// How long HLS segments shall be.
        segment: Duration,
    },
    /// A window that nobody else sees.
    Own {
        /// Its memory.
        arena: Arc<Arena>,
        /// How much of it.
        memory: window::Settings,
    },
}

/// Finds addresses of names without waiting: the node does that elsewhere.
pub trait Names {
    /// The addresses of `name`; empty if there are none, `None` if that is not known yet.
    fn look_up(&mut self, name: &str) -> Option<Vec<std::net::IpAddr>>;
}

/// Knows no names: addresses only.
pub struct NoNames;

impl Names for NoNames {
    fn look_up(&mut self, _: &str) -> Option<Vec<std::net::IpAddr>> {
        Some(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_by_any_of_their_addresses() {
        let of = |target: &str| {
            let url: Url = format!("http://relay:8080{target}").parse().unwrap();
            Settings::stream(&url).map(|name| name.to_string())
        };
        for target in ["/live/a", "/live/a.ts", "/live/a/index.m3u8", "/watch/live/a", "/live/a?x"]
        {
            assert_eq!(of(target).as_deref(), Some("a"), "{target}");
        }
        for target in ["/", "/live/", "/live", "/live/.a", "/a"] {
            assert_eq!(of(target), None, "{target}");
        }
    }
}
