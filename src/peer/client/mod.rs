//! One HTTP GET over a connection that somebody else drives: bytes in, bytes and events out.
//!
//! How to use an [`Exchange`]:
//!
//! 1. Open a TCP connection to the URL's host and port; make the exchange with [`Exchange::get`].
//! 2. Send what [`Exchange::take_output`] gives. Do so after every other call, too: TLS answers.
//! 3. Give what arrives to [`Exchange::handle_received`], the connection's end to
//!    [`Exchange::handle_closed`], and call [`Exchange::handle_timeout`] when
//!    [`Exchange::next_deadline`] has passed.
//! 4. After [`Event::End`] or [`Event::Failed`] (exactly one of them, and nothing after it) send
//!    what is left and close the connection: it serves one exchange only.

pub mod failure;
pub mod tls;
pub mod url;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use failure::Failure;
pub use tls::Tls;
pub use url::Url;

use crate::base::time::{Mono, Now};
use crate::peer::client::tls::{Clear, Session};
use crate::wire::http::answer::Answer;
use crate::wire::http::body::Body;
use crate::wire::http::head::{HeadError, HeadLimits, HeadScanner, lines};

/// What an answer's head may be.
const HEAD: HeadLimits = HeadLimits { bytes: 16 * 1024, lines: 100 };

/// The most interim answers (1xx) before the one that was asked for.
const INTERIM_MAX: u8 = 8;

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of the body.
    pub body: u64,
    /// The longest time until the answer's head is there, connecting and TLS included.
    pub answer: Duration,
    /// The longest time without a byte after that.
    pub idle: Duration,
    /// The longest time of the whole, if it is to end at all.
    pub total: Option<Duration>,
}

/// What an answer says.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its head is there; the first event.
    Head(&'a Answer<'a>),
    /// Some bytes of its body. Never empty.
    Body(&'a [u8]),
    /// It is complete.
    End,
    /// It will not be complete.
    Failed(Failure),
}

/// Takes events.
pub type Sink<'s> = &'s mut dyn FnMut(Event<'_>);

/// One GET and its answer.
#[derive(Debug)]
pub struct Exchange {
    layer: Layer,
    reader: Reader,
    limits: Limits,
    started: Mono,
    heard: Mono,
}

/// What lies between the connection and HTTP.
#[derive(Debug)]
enum Layer {
    /// Nothing; what is to be sent.
    Plain(Vec<u8>),
    Tls(Box<Session>),
}

impl Exchange {
    /// Asks for `url`, with header lines of the caller's own. `tls` is needed for https only.
    ///
    /// # Errors
    /// [`Failure`] if the URL's host cannot be the name of a TLS server, or `tls` is missing.
    pub fn get(
        now: Now,
        url: &Url,
        fields: &[(&str, &str)],
        tls: Option<&Tls>,
        limits: Limits,
    ) -> Result<Exchange, Failure> {
        let request = request(url, fields);
        let layer = if url.is_https() {
            let mut session = tls.ok_or(Failure::UnknownIssuer)?.connect(url)?;
            session.write(request.as_bytes());
            Layer::Tls(Box::new(session))
        } else {
            Layer::Plain(request.into_bytes())
        };
        let reader = Reader { state: State::default(), room: limits.body };
        Ok(Exchange { layer, reader, limits, started: now.mono, heard: now.mono })
    }

    /// What is to be sent next, each byte once; empty if nothing is.
    pub fn take_output(&mut self) -> Bytes {
        match &mut self.layer {
            Layer::Plain(out) => std::mem::take(out).into(),
            Layer::Tls(session) => {
                let mut out = Vec::new();
                session.take_output(&mut out);
                out.into()
            }
        }
    }

    /// Takes bytes that arrived.
    pub fn handle_received(&mut self, now: Now, data: &[u8], sink: Sink<'_>) {
        if self.is_done() {
            return;
        }
        self.heard = now.mono;
        let reader = &mut self.reader;
        match &mut self.layer {
            Layer::Plain(_) => reader.read(data, sink),
            Layer::Tls(session) => {
                let read = session.read(now, data, &mut |clear| {
                    match clear {
                        Clear::Bytes(bytes) => reader.read(bytes, sink),
                        Clear::End => reader.end(true, sink),
                    }
                    !reader.is_done()
                });
                if let Err(failure) = read {
                    reader.fail(failure, sink);
                }
            }
        }
    }

    /// The connection has ended; `clean` if by FIN.
    pub fn handle_closed(&mut self, clean: bool, sink: Sink<'_>) {
        // Over TLS anybody on the path can end the connection; only the server can say that the
        // answer ends there.
        let clean = clean && matches!(self.layer, Layer::Plain(_));
        self.reader.end(clean, sink);
    }

    /// Fails the exchange if a deadline has passed.
    pub fn handle_timeout(&mut self, now: Now, sink: Sink<'_>) {
        if let Some((deadline, failure)) = self.deadline()
            && deadline <= now.mono
        {
            self.reader.fail(failure, sink);
        }
    }

    /// When [`Exchange::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadline().map(|(deadline, _)| deadline)
    }

    /// Whether the last event has been given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    fn deadline(&self) -> Option<(Mono, Failure)> {
        let next = match &self.reader.state {
            State::Head { .. } => (self.started + self.limits.answer, Failure::SlowAnswer),
            State::Body(_) => (self.heard + self.limits.idle, Failure::Stalled),
            State::Done => return None,
        };
        let total = self.limits.total.map(|total| (self.started + total, Failure::TooLong));
        total.into_iter().chain([next]).min_by_key(|(deadline, _)| *deadline)
    }
}

/// The bytes of a request. Header values are the caller's own, without line ends.
fn request(url: &Url, fields: &[(&str, &str)]) -> String {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: headwater/{}\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n",
        url.target(),
        url.authority(),
        env!("CARGO_PKG_VERSION"),
    );
    for (name, value) in fields {
        debug_assert!(!format!("{name}{value}").contains(['\r', '\n']), "{name}");
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    text
}

/// Reads the answer.
#[derive(Debug)]
struct Reader {
    state: State,
    /// Bytes of body that may still come.
    room: u64,
}

#[derive(Debug)]
enum State {
    Head { bytes: Vec<u8>, scanner: HeadScanner, interim: u8 },
    Body(Body),
    Done,
}

impl Default for State {
    fn default() -> State {
        State::Head { bytes: Vec::new(), scanner: HeadScanner::default(), interim: 0 }
    }
}

impl Reader {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn fail(&mut self, failure: Failure, sink: Sink<'_>) {
        if !self.is_done() {
            self.state = State::Done;
            sink(Event::Failed(failure));
        }
    }

    /// Nothing more comes; `clean` if the server said so.
    fn end(&mut self, clean: bool, sink: Sink<'_>) {
        match &self.state {
            State::Body(Body::UntilClose) if clean => {
                self.state = State::Done;
                sink(Event::End);
            }
            State::Head { bytes, .. } if bytes.is_empty() => self.fail(Failure::NoAnswer, sink),
            State::Head { .. } | State::Body(_) => self.fail(Failure::Truncated, sink),
            State::Done => {}
        }
    }

    fn read(&mut self, mut data: &[u8], sink: Sink<'_>) {
        while let State::Head { .. } = self.state {
            match self.read_head(data, sink) {
                Ok(Some(rest)) => data = rest,
                Ok(None) => return,
                Err(failure) => return self.fail(failure, sink),
            }
        }
        if let Err(failure) = self.read_body(data, sink) {
            self.fail(failure, sink);
        }
    }

    /// Adds `data` to the head. What is left of it once the head is complete.
    fn read_head<'d>(
        &mut self,
        data: &'d [u8],
        sink: Sink<'_>,
    ) -> Result<Option<&'d [u8]>, Failure> {
        let State::Head { bytes, scanner, interim } = &mut self.state else {
            return Ok(Some(data));
        };
        let before = bytes.len();
        let take = data.len().min(HEAD.bytes - before);
        bytes.extend_from_slice(&data[..take]);
        let Some(length) = scanner.scan(bytes, &HEAD).map_err(Failure::Head)? else {
            return Ok(None);
        };
        let mut room = lines();
        let answer = Answer::parse(&bytes[..length], &mut room).map_err(Failure::Head)?;
        let rest = &data[length - before..];
        if answer.is_interim() {
            let interim = *interim + 1;
            if interim > INTERIM_MAX {
                return Err(Failure::Head(HeadError::TooLarge));
            }
            let scanner = HeadScanner::default();
            self.state = State::Head { bytes: Vec::new(), scanner, interim };
            return Ok(Some(rest));
        }
        let body = Body::of_answer(&answer).map_err(Failure::Framing)?;
        sink(Event::Head(&answer));
        if matches!(body, Body::Length(length) if length > self.room) {
            return Err(Failure::TooLarge);
        }
        self.state = State::Body(body);
        Ok(Some(rest))
    }

    fn read_body(&mut self, data: &[u8], sink: Sink<'_>) -> Result<(), Failure> {
        let State::Body(body) = &mut self.state else { return Ok(()) };
        let (room, mut large) = (&mut self.room, false);
        let read = body.decode(data, &mut |bytes| match room.checked_sub(bytes.len() as u64) {
            Some(left) if !large => {
                *room = left;
                if !bytes.is_empty() {
                    sink(Event::Body(bytes));
                }
            }
            _ => large = true,
        });
        if large {
            return Err(Failure::TooLarge);
        }
        read.map_err(|_| Failure::Chunked)?;
        // Bytes after the end are nobody's: the request said that the connection closes.
        if body.is_done() {
            self.state = State::Done;
            sink(Event::End);
        }
        Ok(())
    }
}
