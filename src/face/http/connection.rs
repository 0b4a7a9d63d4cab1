//! The HTTP connection machine: from the first byte to the last, or until it becomes a viewer.
//!
//! Calling contract:
//!
//! 1. For everything that happened call one `handle_*` method, or `refuse`, `play`, `head_ok`,
//!    `publish`, which answer an [`Event`].
//! 2. Call [`Connection::poll`] until it returns [`Event::None`], and answer its events: at once
//!    or later, whenever the registry has decided.
//! 3. Carry out [`Connection::next_send`] ([`Connection::next_read`] while
//!    [`Connection::is_downloading`]) and [`Connection::poll_socket`], each until `None`.
//! 4. Call [`Connection::handle_timer`] when [`Connection::deadline`] has passed.
//!
//! One request is dealt with at a time: the next one is read when the response before it has
//! been sent. What a client sends meanwhile is held up to a bound, and closes the connection
//! beyond it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::payload::Payload;
use crate::base::segment::Segment;
use crate::base::time::Mono;
use crate::face::http::download::{self, Download};
pub use crate::face::http::exchange::{
    Event, HlsRequest, PlayRequest, PlayStart, PublishRequest, Refusal, Site, SocketWish,
};
use crate::face::http::input::{Input, PENDING_BODY};
use crate::face::http::output::Output;
use crate::face::http::pages;
use crate::face::http::request::{Method, Request, refuse_head};
use crate::face::http::respond::{Frame, Response, SegmentPart};
use crate::face::http::route::{Decision, decide};
use crate::face::http::settings::Settings;
use crate::metrics::table::Cell;
use crate::ring::reader::{Overtaken, Reader};
use crate::wire::http::body::Body;
use crate::wire::http::head::{Head, HeadLimits, lines};
use crate::wire::http::response::CONTINUE;

/// How long a closed exchange is listened to, so that the client can read the response: a
/// connection that is closed with unread input is reset, and a reset discards the response.
const LINGER: Duration = Duration::from_secs(2);

/// The most bytes of a body nobody asked for that are read and discarded; a larger one ends the
/// connection instead.
const SKIP_MAX: u64 = 64 * 1024;

/// One HTTP connection until it becomes a viewer; also the body of a publisher.
///
/// An idle one owns no buffer; [`Connection::memory`] is bounded by the limit of a head plus
/// 256 KiB of a publisher's body that came before the decision, plus one response.
#[derive(Debug)]
pub struct Connection {
    settings: Arc<Settings>,
    peer: SocketAddr,
    state: State,
    /// What was received and not yet understood.
    input: Input,
    /// The response being sent.
    output: Output,
    /// What follows it from a window.
    download: Option<Download>,
    /// What the present response must honour.
    exchange: Exchange,
    /// The rest of a body that nobody asked for.
    skip: Option<Skip>,
    /// When the present state, or the last progress in it, began: the base of the deadline.
    since: Mono,
    last_received: Mono,
    wish: Option<SocketWish>,
    tally: Tally,
}

#[derive(Debug)]
enum State {
    /// Awaits a request.
    Reading,
    /// The shard decides; the body is there if the question is about a publisher.
    Deciding { body: Option<Body> },
    /// A publisher's body is open.
    Publishing(Body),
    /// A publisher's body ended; `poll` has to say so.
    Published { whole: bool },
    /// A response is being sent.
    Responding,
    /// The shard has taken over sending.
    Viewing,
    /// Everything is sent, the other end may still read.
    Lingering,
    /// Over.
    Closed,
}

/// What a request asks of its response.
#[derive(Clone, Copy, Debug, Default)]
struct Exchange {
    /// Another request may follow.
    keep: bool,
    /// The body is left out.
    head_only: bool,
    /// The client waits for `100 Continue`.
    expects: bool,
}

#[derive(Debug)]
struct Skip {
    body: Body,
    /// Bytes that may still come, whatever the coding makes of them.
    budget: u64,
}

/// Counts that wait for a [`Site`].
#[derive(Debug, Default)]
struct Tally {
    counts: [(u8, Option<Cell>); 4],
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(now: Mono, peer: SocketAddr, settings: &Arc<Settings>) -> Connection {
        Connection {
            settings: Arc::clone(settings),
            peer,
            state: State::Reading,
            input: Input::default(),
            output: Output::default(),
            download: None,
            exchange: Exchange::default(),
            skip: None,
            since: now,
            last_received: now,
            wish: None,
            tally: Tally::default(),
        }
    }

    /// Takes bytes. While a publisher's body is open its decoded bytes go to `body`, as slices
    /// of `data`; everything else is held, within bounds, for [`Connection::poll`].
    pub fn handle_received(&mut self, now: Mono, data: &[u8], body: &mut dyn FnMut(&[u8])) {
        self.last_received = now;
        self.drain_body(body);
        let used = match self.state {
            State::Publishing(_) => self.feed(data, body),
            // Nothing that comes after the last request is read.
            State::Responding | State::Deciding { body: None } if !self.exchange.keep => data.len(),
            State::Reading => self.discard(data).unwrap_or_else(|| {
                // The response was sent before the body turned out to be broken.
                self.close();
                data.len()
            }),
            State::Responding | State::Deciding { body: None } => {
                self.discard(data).unwrap_or_else(|| {
                    self.exchange.keep = false;
                    data.len()
                })
            }
            State::Deciding { .. } | State::Published { .. } => 0,
            State::Viewing | State::Lingering | State::Closed => data.len(),
        };
        let rest = &data[used..];
        if rest.is_empty() {
            return;
        }
        match self.state {
            State::Reading => {
                let limits = self.limits();
                self.input.push_head(rest, &limits);
            }
            State::Deciding { body: Some(_) } => self.input.push(rest, PENDING_BODY),
            _ => self.input.push(rest, self.settings.head_bytes),
        }
    }

    /// The kernel took `n` bytes of the last send. Returns how many of them came from a window.
    pub fn handle_sent(&mut self, now: Mono, n: usize) -> usize {
        let read = self.output.on_sent(n);
        self.download = self.download.and_then(|download| download.sent(read as u64));
        if let State::Responding = self.state {
            self.since = now;
            if self.output.is_empty() && self.download.is_none() {
                self.finish(now);
            }
        }
        read
    }

    /// The kernel took nothing of the last send.
    pub fn handle_blocked(&mut self) {
        self.output.on_blocked();
    }

    /// The socket can take bytes again.
    pub fn handle_writable(&mut self) {
        self.output.on_writable();
    }

    /// Ends what has taken too long; call it when [`Connection::deadline`] has passed, earlier
    /// it does nothing.
    pub fn handle_timer(&mut self, now: Mono) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let began = !self.input.bytes().is_empty();
        if matches!(self.state, State::Reading) && began {
            let refusal = Refusal::new(408, "the request took too long; send it whole at once");
            self.reject(now, &refusal);
        } else {
            self.close();
        }
    }

    /// The next thing to do, until [`Event::None`]. Requests that need no stream are answered
    /// here.
    pub fn poll(&mut self, now: Mono, site: &mut dyn Site) -> Event {
        let event = match self.state {
            State::Reading => self.poll_request(now, site),
            State::Published { whole } => self.poll_published(now, whole),
            _ => Event::None,
        };
        self.tally.flush(site);
        event
    }

    /// The next write; None while one is unanswered, the socket is full or nothing is queued.
    pub fn next_send(&mut self) -> Option<[Payload; 2]> {
        self.output.next_send()
    }

    /// Whether the response being sent comes from a window.
    #[must_use]
    pub fn is_downloading(&self) -> bool {
        self.download.is_some()
    }

    /// The next write while [`Connection::is_downloading`].
    ///
    /// # Errors
    /// [`Overtaken`] if the rest has left the window: close the connection, for the length that
    /// was announced cannot be kept.
    pub fn next_read(&mut self, reader: &mut Reader) -> Result<Option<[Payload; 2]>, Overtaken> {
        let Some(download) = self.download else { return Ok(self.output.next_send()) };
        self.output.next_with(|room| download.read(reader, room))
    }

    /// What the connection wants of its socket, told once.
    pub fn poll_socket(&mut self, now: Mono) -> Option<SocketWish> {
        if let State::Lingering = self.state {
            self.handle_timer(now);
        }
        self.wish.take()
    }

    /// When [`Connection::handle_timer`] is due. None while the shard decides, while a
    /// publisher's body is open and once the connection is a viewer: those times are the shard's.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Reading | State::Responding => Some(self.since + self.settings.request_timeout),
            State::Lingering => Some(self.since + LINGER),
            _ => None,
        }
    }

    /// Refuses what [`Event::Play`] or [`Event::Publish`] asked, or ends an open publisher, or
    /// turns a connection away before it asked anything. The response is counted at the next
    /// `poll`.
    pub fn refuse(&mut self, now: Mono, refusal: &Refusal) {
        match &self.state {
            State::Deciding { body: None } => {}
            // The rest of a publisher's body may be endless. A connection that may not even ask
            // is told so before it does.
            State::Deciding { .. }
            | State::Publishing(_)
            | State::Published { .. }
            | State::Reading => self.exchange.keep = false,
            _ => return,
        }
        let response = self.frame().refusal(refusal, None);
        self.respond(now, response);
    }

    /// Turns the connection into a viewer's: the head is to be sent first, then the stream; this
    /// object sends nothing more. The caller counts the response. `at`: what was asked for with
    /// `?at=`.
    pub fn play(&mut self, at: Option<u64>) -> PlayStart {
        self.state = State::Viewing;
        self.skip = None;
        self.input.clear();
        PlayStart { head: Frame { keep: false, ..self.frame() }.stream(at) }
    }

    /// Answers an [`Event::Play`] that asked for the head only.
    pub fn head_ok(&mut self, now: Mono, at: Option<u64>) {
        if let State::Deciding { body: None } = self.state {
            let head = self.frame().stream(at);
            self.respond(now, Response { status: 200, head, body: Bytes::new() });
        }
    }

    /// Answers an [`Event::Hls`] with a playlist.
    pub fn playlist(&mut self, now: Mono, request: &HlsRequest, body: Bytes, max_age: u32) {
        if let State::Deciding { body: None } = self.state {
            let tag = pages::tag(&body);
            let fresh = request.conditions.has(&tag);
            let response = self.frame().playlist(body, &tag, max_age, fresh);
            self.respond(now, response);
        }
    }

    /// Answers an [`Event::Hls`] with a segment. Its tables are sent by the connection; for the
    /// rest it asks for a reader if [`Connection::is_downloading`].
    pub fn segment(&mut self, now: Mono, request: &HlsRequest, segment: &Segment, tag: &str) {
        let State::Deciding { body: None } = self.state else { return };
        let length = segment.bytes();
        let part = download::part(&request.conditions, length, tag);
        let mut response = self.frame().segment(&part, length, tag);
        let range = match part {
            SegmentPart::Whole => 0..length,
            SegmentPart::Part(range) => range,
            SegmentPart::Known | SegmentPart::Unsatisfiable => 0..0,
        };
        if !self.exchange.head_only && !range.is_empty() {
            let tables = segment.tables.len() as u64;
            // Both fit: they are at most the length of the tables.
            let (first, end) = (range.start.min(tables) as usize, range.end.min(tables) as usize);
            let head = [&response.head[..], &segment.tables[first..end]].concat();
            response.head = head.into();
            self.download = Download::of(segment, range.start, range.end);
        }
        self.respond(now, response);
    }

    /// Admits a publisher: asks for the body if the client waits to be asked, and opens it.
    /// What has come already is delivered by [`Connection::drain_body`].
    pub fn publish(&mut self, now: Mono) {
        let State::Deciding { body: Some(body) } = self.state else {
            return;
        };
        self.since = now;
        if self.input.overflowed() {
            self.state = State::Published { whole: false };
            return;
        }
        // "A server MAY omit sending a 100 (Continue) response if it has already received some
        // or all of the content" (RFC 9110 section 10.1.1).
        if self.exchange.expects && self.input.bytes().is_empty() && !body.is_done() {
            self.output.push(Bytes::from_static(CONTINUE), Bytes::new());
        }
        self.state = State::Publishing(body);
        if body.is_done() {
            self.state = State::Published { whole: true };
        }
    }

    /// Delivers the body bytes that came before [`Connection::publish`].
    pub fn drain_body(&mut self, body: &mut dyn FnMut(&[u8])) {
        if matches!(self.state, State::Publishing(_)) && !self.input.bytes().is_empty() {
            let bytes = self.input.take();
            let used = self.feed(&bytes, body);
            self.input.put_back(bytes, used);
        }
    }

    /// Whether a publisher's body is over and `poll` has not said so yet.
    #[must_use]
    pub fn has_body_ended(&self) -> bool {
        matches!(self.state, State::Published { .. })
    }

    /// When bytes last came.
    #[must_use]
    pub fn last_received(&self) -> Mono {
        self.last_received
    }

    /// Bytes of memory that belong to this connection.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Connection>() + self.input.memory() + self.output.len()
    }

    fn limits(&self) -> HeadLimits {
        HeadLimits { bytes: self.settings.head_bytes, lines: self.settings.header_lines }
    }

    fn frame(&self) -> Frame<'_> {
        Frame { cors: &self.settings.cors, keep: self.exchange.keep }
    }

    /// Gives `data` to the open body; returns how much it used.
    fn feed(&mut self, data: &[u8], sink: &mut dyn FnMut(&[u8])) -> usize {
        let State::Publishing(body) = &mut self.state else {
            return 0;
        };
        let result = body.decode(data, sink);
        let done = body.is_done();
        if result.is_err() || done {
            self.state = State::Published { whole: done };
        }
        // After a fault nothing that follows means anything.
        result.unwrap_or(data.len())
    }

    /// Discards the part of `data` that belongs to a body nobody asked for; returns its length,
    /// or nothing if the body is broken or too large.
    fn discard(&mut self, data: &[u8]) -> Option<usize> {
        let Some(skip) = &mut self.skip else {
            return Some(0);
        };
        let used = skip.body.decode(data, &mut |_| {}).ok();
        let left = used.and_then(|used| skip.budget.checked_sub(used as u64));
        match left {
            Some(left) if !skip.body.is_done() => skip.budget = left,
            _ => self.skip = None,
        }
        left.and(used)
    }

    fn poll_request(&mut self, now: Mono, site: &mut dyn Site) -> Event {
        let end = match self.input.scan(&self.limits()) {
            Ok(None) => return Event::None,
            Ok(Some(end)) => end,
            Err(error) => {
                self.reject(now, &refuse_head(error));
                return Event::None;
            }
        };
        let mut room = lines();
        let head = match Head::parse(&self.input.bytes()[..end], &mut room) {
            Ok(head) => head,
            Err(error) => {
                self.reject(now, &refuse_head(error));
                return Event::None;
            }
        };
        let head_only = head.method == "HEAD";
        let request = match Request::read(&head) {
            Ok(request) => request,
            Err(refusal) => {
                self.exchange.head_only = head_only;
                self.reject(now, &refusal);
                return Event::None;
            }
        };
        let keep = request.keep && !self.input.overflowed();
        self.exchange = Exchange { keep, head_only, expects: request.expects };
        let (method, body) = (request.method, request.body);
        let decision = decide(&request, self.peer, &self.settings.trusted_proxies);
        self.input.consume(end);
        self.act(now, decision, method, body, site)
    }

    fn act(
        &mut self,
        now: Mono,
        decision: Decision,
        method: Method,
        body: Option<Body>,
        site: &mut dyn Site,
    ) -> Event {
        if let Decision::Publish(request) = decision {
            self.state = State::Deciding { body };
            return Event::Publish(request);
        }
        if !self.settle(body) && !method.publishes() {
            let refusal = Refusal::new(413, "this request needs no body; send none");
            self.reject(now, &refusal);
            return Event::None;
        }
        let frame = self.frame();
        let response = match decision {
            Decision::Play(request) => {
                self.state = State::Deciding { body: None };
                return Event::Play(request);
            }
            Decision::Hls(request) => {
                self.state = State::Deciding { body: None };
                return Event::Hls(request);
            }
            // Taken above; nothing here opens a body.
            Decision::Publish(_) => return Event::None,
            Decision::Asset { asset, tag, fresh } => frame.asset(asset, tag, fresh),
            Decision::Streams => frame.json(site.streams_json(now)),
            Decision::Status(name) => frame.json_or_404(site.status_json(&name)),
            Decision::Graph(name) => frame.json_or_404(site.graph_json(&name)),
            Decision::Swarm { name, host } => match site.swarm_json(&name, host.as_deref()) {
                Ok(body) => frame.json(body),
                Err(refusal) => frame.refusal(&refusal, None),
            },
            Decision::Preflight => frame.preflight(),
            Decision::Refuse(refusal) => frame.refusal(&refusal, None),
            Decision::NotAllowed { allow, text } => {
                frame.refusal(&Refusal::new(405, text), Some(allow))
            }
        };
        self.respond(now, response);
        Event::None
    }

    /// Arranges what becomes of a body that nobody asked for; false if it is too large to read.
    fn settle(&mut self, body: Option<Body>) -> bool {
        let Some(body) = body.filter(|body| !body.is_done()) else {
            return true;
        };
        let small = match body {
            Body::Length(n) => n <= SKIP_MAX,
            Body::Chunked(_) => true,
            Body::UntilClose => false,
        };
        // A client that waits to be asked may send its body or not once it sees the refusal:
        // what comes next could be either, so nothing may.
        if !small || self.exchange.expects {
            self.exchange.keep = false;
            return small;
        }
        self.skip = Some(Skip { body, budget: SKIP_MAX });
        let bytes = self.input.take();
        match self.discard(&bytes) {
            Some(used) => self.input.put_back(bytes, used),
            None => self.exchange.keep = false,
        }
        true
    }

    fn poll_published(&mut self, now: Mono, whole: bool) -> Event {
        if whole {
            self.exchange.keep &= !self.input.overflowed();
            let response = self.frame().text("published\n");
            self.respond(now, response);
            return Event::PublishEnded;
        }
        let refusal = if self.input.overflowed() {
            Refusal::new(503, "too much came before this stream could be admitted; send it again")
                .retry_after(1)
        } else {
            Refusal::new(400, "the body breaks the chunked coding; check what is between us")
        };
        self.reject(now, &refusal);
        Event::PublishBroken
    }

    /// Refuses what cannot be understood, after which the connection cannot go on.
    fn reject(&mut self, now: Mono, refusal: &Refusal) {
        self.exchange.keep = false;
        self.tally.add(Cell::HttpBad);
        let response = self.frame().refusal(refusal, None);
        self.respond(now, response);
    }

    fn respond(&mut self, now: Mono, response: Response) {
        match response.status {
            200..=299 => self.tally.add(Cell::Http2xx),
            400..=499 => self.tally.add(Cell::Http4xx),
            500..=599 => self.tally.add(Cell::Http5xx),
            _ => {}
        }
        let body = if self.exchange.head_only { Bytes::new() } else { response.body };
        self.output.push(response.head, body);
        self.state = State::Responding;
        self.since = now;
        if !self.exchange.keep {
            self.skip = None;
            self.input.clear();
        }
    }

    /// The response is sent.
    fn finish(&mut self, now: Mono) {
        let keep = self.exchange.keep && !self.input.overflowed();
        self.exchange = Exchange::default();
        self.since = now;
        self.state = if keep { State::Reading } else { State::Lingering };
        if !keep {
            self.skip = None;
            self.input.clear();
            self.wish = Some(SocketWish::Shutdown);
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.download = None;
        self.wish = Some(SocketWish::Close);
        self.skip = None;
        self.input.clear();
    }
}

impl Tally {
    fn add(&mut self, cell: Cell) {
        let mut places = self.counts.iter_mut();
        if let Some((count, place)) = places.find(|(_, c)| c.is_none_or(|c| c == cell)) {
            *count = count.saturating_add(1);
            *place = Some(cell);
        }
    }

    fn flush(&mut self, site: &mut dyn Site) {
        for (count, cell) in std::mem::take(self).counts {
            for _ in 0..count {
                cell.into_iter().for_each(|cell| site.count(cell));
            }
        }
    }
}
