//! What a connection and its shard say to each other.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::StreamName;
use crate::base::time::Mono;
use crate::metrics::table::Cell;

/// What the shard has to do next for a connection.
#[derive(Debug)]
pub enum Event {
    /// Nothing.
    None,
    /// Somebody wants to watch: answer with `play`, `head_ok` or `refuse`.
    Play(PlayRequest),
    /// A player wants a file of HLS: answer with `playlist`, `segment` or `refuse`.
    Hls(HlsRequest),
    /// Somebody wants to publish: answer with `publish` or `refuse`.
    Publish(PublishRequest),
    /// The body of a publisher is complete. The connection has answered and lives on if it can.
    PublishEnded,
    /// The body of a publisher breaks the chunked coding, or more of it came than could be held
    /// before it was admitted. The connection has answered and closes.
    PublishBroken,
}

/// `GET /live/NAME.ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayRequest {
    /// The stream.
    pub name: StreamName,
    /// `?start=-10s`: how far behind live to begin, at most an hour. None: the newest access
    /// point.
    pub start: Option<Duration>,
    /// `?at=STREAM_OFFSET`: the very byte to begin with, the first of a packet.
    pub at: Option<u64>,
    /// `?wait=10`: how long to wait for the stream to be live, at most a minute.
    pub wait: Duration,
    /// A HEAD request: answer with `head_ok`, not with `play`.
    pub head_only: bool,
    /// The client's address; see [`PublishRequest::client`].
    pub client: IpAddr,
}

/// `GET` below `/live/NAME/`: a playlist or a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HlsRequest {
    /// The stream.
    pub name: StreamName,
    /// What of it.
    pub file: HlsFile,
    /// `?wait=10`: how long to wait for a playlist, at most a minute.
    pub wait: Duration,
    /// The client's address; see [`PublishRequest::client`].
    pub client: IpAddr,
    /// On what conditions.
    pub conditions: Conditions,
}

/// A file of HLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HlsFile {
    /// `index.m3u8`
    Playlist,
    /// `master.m3u8`
    Master,
    /// `seg/EPOCH-SEQUENCE.ts`
    Segment {
        /// The life of the stream in which it was cut.
        epoch: u64,
        /// Its media sequence number.
        sequence: u64,
    },
}

/// The header lines that decide how much of a file is sent, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-None-Match`
    pub known: Option<Box<str>>,
    /// `Range`, of a GET.
    pub range: Option<Box<str>>,
    /// `If-Range`
    pub if_range: Option<Box<str>>,
}

impl Conditions {
    /// Whether the client has the file with this strong tag already: "the recipient MUST use the
    /// weak comparison function" (RFC 9110 section 13.1.2).
    #[must_use]
    pub fn has(&self, tag: &str) -> bool {
        let mut known = self.known.iter().flat_map(|list| list.split(',')).map(str::trim);
        known.any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
    }

    /// The range that counts: "If-Range" with another tag, or with a date, makes it void.
    #[must_use]
    pub fn range_of(&self, tag: &str) -> Option<&str> {
        let fits = self.if_range.as_deref().is_none_or(|known| known == tag);
        self.range.as_deref().filter(|_| fits)
    }
}

/// `PUT /live/NAME` or `POST /live/NAME`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// The stream.
    pub name: StreamName,
    /// `?key=` or `Authorization: Bearer`.
    pub key: Option<String>,
    /// The client's address: what a trusted proxy says, else the other end of the connection.
    /// Never an IPv4 address mapped into IPv6.
    pub client: IpAddr,
    /// Whether the request came straight from a program on the other end: false if a proxy put
    /// its mark on it, and false if a web page made a browser send it. Only a direct request
    /// may count as loopback.
    pub direct: bool,
}

impl std::fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret; a log line is not.
        let key = self.key.as_ref().map(|_| "…");
        f.debug_struct("PublishRequest")
            .field("name", &self.name)
            .field("key", &key)
            .field("client", &self.client)
            .field("direct", &self.direct)
            .finish()
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status: 4xx or 5xx.
    pub status: u16,
    /// One line that names the remedy, without its end.
    pub text: Cow<'static, str>,
    /// When to try again, in seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal that does not say when to try again.
    #[must_use]
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, text: text.into(), retry_after: None }
    }

    /// The same, to be tried again after `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Refusal {
        Refusal { retry_after: Some(seconds), ..self }
    }
}

/// What a viewer's connection begins with.
#[derive(Clone, Debug)]
pub struct PlayStart {
    /// The response head, to be sent before the stream's first byte.
    pub head: Bytes,
}

/// What the connection wants of its socket, beyond sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketWish {
    /// Send FIN and go on receiving.
    Shutdown,
    /// Close.
    Close,
}

/// What the shard supplies so that a connection can answer by itself.
pub trait Site {
    /// The body of `/streams.json`.
    fn streams_json(&mut self, now: Mono) -> Bytes;
    /// The body of `/live/NAME/status.json`; None if there is no such stream.
    fn status_json(&mut self, name: &StreamName) -> Option<Bytes>;
    /// The body of `/live/NAME/graph.json`; None if there is no such stream.
    fn graph_json(&mut self, name: &StreamName) -> Option<Bytes>;
    /// The body of `/live/NAME/swarm.json`, for somebody who asked this host for it.
    ///
    /// # Errors
    /// Why there is none (yet).
    fn swarm_json(&mut self, name: &StreamName, host: Option<&str>) -> Result<Bytes, Refusal>;
    /// Adds one to a counter.
    fn count(&mut self, cell: Cell);
}
