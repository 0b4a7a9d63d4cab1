//! The bytes of our answers.

use std::ops::Range;

use bytes::Bytes;

use crate::face::http::exchange::Refusal;
use crate::face::http::pages::Asset;
use crate::wire::http::response::ResponseHead;

/// What a page may load: itself, and video that its own script put together. It may be shown
/// in a frame anywhere: a broadcaster's site embeds the player.
const PAGE_POLICY: &str = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; \
                           object-src 'none'; base-uri 'none'; frame-ancestors *";

/// What all responses of a connection have in common.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The value of `Access-Control-Allow-Origin`; empty: none.
    pub cors: &'a str,
    /// Whether another request may follow.
    pub keep: bool,
}

/// A response before its bytes are queued.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The head.
    pub head: Bytes,
    /// The body, left out by the connection if the request was HEAD.
    pub body: Bytes,
}

/// An address of a segment means the same bytes for ever; an hour is more than anybody needs.
const SEGMENT_CACHE: &str = "public, max-age=3600, immutable";

/// How much of a segment is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentPart {
    /// All of it.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// Nothing: the client has it.
    Known,
    /// Nothing: the client wants bytes beyond its end.
    Unsatisfiable,
}

impl Frame<'_> {
    fn head(&self, status: u16) -> ResponseHead {
        let cors = Some(self.cors).filter(|value| !value.is_empty());
        ResponseHead::new(status)
            .with("Server", "headwater")
            .with_some("Connection", Some("close").filter(|_| !self.keep))
            .with("X-Content-Type-Options", "nosniff")
            .with_some("Access-Control-Allow-Origin", cors)
    }

    fn whole(status: u16, head: ResponseHead, content_type: &str, body: Bytes) -> Response {
        let head = head.with("Content-Type", content_type).with("Content-Length", body.len());
        Response { status, head: head.finish(), body }
    }

    /// The head of an endless stream; its end is the connection's end. `at`: the stream offset of
    /// its first byte, for who asked for that.
    #[must_use]
    pub fn stream(&self, at: Option<u64>) -> Bytes {
        let head = self.head(200).with("Content-Type", "video/mp2t");
        head.with("Cache-Control", "no-store").with_some("Headwater-Offset", at).finish()
    }

    /// A file, or word that the client has it already.
    #[must_use]
    pub fn asset(&self, asset: &Asset, tag: &str, fresh: bool) -> Response {
        let status = if fresh { 304 } else { 200 };
        let policy = Some(PAGE_POLICY).filter(|_| asset.is_page());
        let head = self
            .head(status)
            .with("ETag", tag)
            .with("Cache-Control", "no-cache")
            .with_some("Content-Security-Policy", policy);
        if fresh {
            return Response { status, head: head.finish(), body: Bytes::new() };
        }
        Frame::whole(status, head, asset.content_type, Bytes::from_static(asset.bytes))
    }

    /// A playlist of this moment, which a cache may keep for half a segment, or word that the
    /// client has it already.
    #[must_use]
    pub fn playlist(&self, body: Bytes, tag: &str, max_age: u32, fresh: bool) -> Response {
        let status = if fresh { 304 } else { 200 };
        let policy = format!("public, max-age={max_age}");
        let head = self.head(status).with("ETag", tag).with("Cache-Control", policy);
        if fresh {
            return Response { status, head: head.finish(), body: Bytes::new() };
        }
        Frame::whole(status, head, "application/vnd.apple.mpegurl", body)
    }

    /// The head of a segment of `length` bytes, or of a part of it, or word that the client has
    /// it, or that the part it wants is not there.
    #[must_use]
    pub fn segment(&self, part: &SegmentPart, length: u64, tag: &str) -> Response {
        let status = match part {
            SegmentPart::Whole => 200,
            SegmentPart::Part(_) => 206,
            SegmentPart::Known => 304,
            SegmentPart::Unsatisfiable => 416,
        };
        let head = self.head(status);
        let head = match part {
            SegmentPart::Unsatisfiable => {
                let text = Bytes::from_static(b"that range is not in this segment\n");
                let head = head.with("Content-Range", format_args!("bytes */{length}"));
                let head = head.with("Cache-Control", "no-store");
                return Frame::whole(status, head, "text/plain; charset=utf-8", text);
            }
            SegmentPart::Known => head,
            SegmentPart::Whole => head.with("Content-Length", length),
            SegmentPart::Part(range) => {
                let (first, last) = (range.start, range.end - 1);
                head.with("Content-Range", format_args!("bytes {first}-{last}/{length}"))
                    .with("Content-Length", range.end - range.start)
            }
        };
        let head = head
            .with("Content-Type", "video/mp2t")
            .with("Accept-Ranges", "bytes")
            .with("ETag", tag)
            .with("Cache-Control", SEGMENT_CACHE);
        Response { status, head: head.finish(), body: Bytes::new() }
    }

    /// A JSON document of this moment.
    #[must_use]
    pub fn json(&self, body: Bytes) -> Response {
        let head = self.head(200).with("Cache-Control", "no-store");
        Frame::whole(200, head, "application/json", body)
    }

    /// A JSON document about one stream, or word that there is no such stream.
    #[must_use]
    pub fn json_or_404(&self, body: Option<Bytes>) -> Response {
        let text = "no such stream; /streams.json lists those that are known";
        match body {
            Some(body) => self.json(body),
            None => self.refusal(&Refusal::new(404, text), None),
        }
    }

    /// One line of text.
    #[must_use]
    pub fn text(&self, line: &'static str) -> Response {
        let head = self.head(200).with("Cache-Control", "no-store");
        Frame::whole(200, head, "text/plain; charset=utf-8", Bytes::from_static(line.as_bytes()))
    }

    /// What may be asked from a page of another origin (Fetch standard, CORS protocol).
    #[must_use]
    pub fn preflight(&self) -> Response {
        const METHODS: &str = "GET, HEAD, PUT, POST, OPTIONS";
        let mut head = self.head(204).with("Allow", METHODS);
        if !self.cors.is_empty() {
            head = head
                .with("Access-Control-Allow-Methods", METHODS)
                .with("Access-Control-Allow-Headers", "Range, Authorization, Content-Type")
                .with("Access-Control-Max-Age", 86400);
        }
        Response { status: 204, head: head.finish(), body: Bytes::new() }
    }

    /// A refusal: one line that names the remedy.
    #[must_use]
    pub fn refusal(&self, refusal: &Refusal, allow: Option<&str>) -> Response {
        let challenge = Some("Bearer realm=\"headwater\"").filter(|_| refusal.status == 401);
        let head = self
            .head(refusal.status)
            .with("Cache-Control", "no-store")
            .with_some("Allow", allow)
            .with_some("Retry-After", refusal.retry_after)
            .with_some("WWW-Authenticate", challenge);
        let body = Bytes::from(format!("{}\n", refusal.text));
        Frame::whole(refusal.status, head, "text/plain; charset=utf-8", body)
    }
}
