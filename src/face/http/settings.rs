//! What an operator can choose about HTTP.

use std::time::Duration;

use crate::face::http::invitation::Door;
use crate::registry::settings::Network;

/// Settings of the HTTP face.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest time a client may take for one whole request head, from the first wait to
    /// the empty line; also how long an idle connection is kept open.
    pub request_timeout: Duration,
    /// The most bytes of one request head.
    pub head_bytes: usize,
    /// The most header lines of one request.
    pub header_lines: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// The value of `Access-Control-Allow-Origin`; empty: the header is not sent.
    pub cors: String,
    /// Publisher silence after which it counts as vanished.
    pub publisher_silence: Duration,
    /// Where peers come in; `None`: there is no swarm. Filled in by the node, when it is bound.
    pub swarm: Option<Door>,
}
