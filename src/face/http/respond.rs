//! The bytes of our answers.

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

    /// The head of an endless stream; its end is the connection's end.
    #[must_use]
    pub fn stream(&self) -> Bytes {
        let head = self.head(200).with("Content-Type", "video/mp2t");
        head.with("Cache-Control", "no-store").finish()
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

    /// A JSON document of this moment.
    #[must_use]
    pub fn json(&self, body: Bytes) -> Response {
        let head = self.head(200).with("Cache-Control", "no-store");
        Frame::whole(200, head, "application/json", body)
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
