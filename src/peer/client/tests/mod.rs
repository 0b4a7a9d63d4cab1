//! Answers of all kinds, cut in all ways; TLS against a server in memory.

mod secure;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::time::Utc;
use crate::wire::http::body::BadFraming;

pub const LIMITS: Limits = Limits {
    body: 1000,
    answer: Duration::from_secs(5),
    idle: Duration::from_secs(2),
    total: None,
};

/// The first second of 2026.
pub fn now(millis: u64) -> Now {
    let utc = Utc::from_unix_millis(1_767_225_600_000 + millis);
    Now { mono: Mono::from_millis(millis), utc }
}

/// Everything that an exchange said.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    pub status: Option<u16>,
    pub offset: Option<String>,
    pub body: Vec<u8>,
    /// `None` until the last event.
    pub end: Option<Result<(), Failure>>,
}

impl Heard {
    pub fn take(&mut self, event: Event<'_>) {
        assert!(self.end.is_none(), "{event:?} after the last event");
        match event {
            Event::Head(answer) => {
                assert!(self.status.is_none() && self.body.is_empty());
                self.status = Some(answer.status);
                self.offset = answer.one("Headwater-Offset").unwrap().map(str::to_owned);
            }
            Event::Body(bytes) => {
                assert!(self.status.is_some() && !bytes.is_empty());
                self.body.extend_from_slice(bytes);
            }
            Event::End => self.end = Some(Ok(())),
            Event::Failed(failure) => self.end = Some(Err(failure)),
        }
    }
}

pub fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn plain() -> Exchange {
    Exchange::get(now(0), &url("http://relay:8080/live/x.ts?at=0"), &[], None, LIMITS).unwrap()
}

/// What an answer says that comes in pieces of these lengths, and then the end.
fn hear(answer: &[u8], pieces: &[usize], clean: bool) -> Heard {
    let (mut exchange, mut heard) = (plain(), Heard::default());
    let mut rest = answer;
    for piece in pieces.iter().cycle().copied() {
        let (now_, later) = rest.split_at(piece.min(rest.len()));
        exchange.handle_received(now(1), now_, &mut |event| heard.take(event));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    exchange.handle_closed(clean, &mut |event| heard.take(event));
    assert!(exchange.is_done() && heard.end.is_some());
    assert_eq!(exchange.next_deadline(), None);
    heard
}

#[test]
fn the_request_says_what_it_wants() {
    let fields = [("Range", "bytes=0-"), ("X", "y")];
    let mut exchange =
        Exchange::get(now(0), &url("http://[::1]:8080/a?b"), &fields, None, LIMITS).unwrap();
    let request = exchange.take_output();
    assert_eq!(
        String::from_utf8_lossy(&request),
        format!(
            "GET /a?b HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: headwater/{}\r\nAccept: */*\r\n\
             Accept-Encoding: identity\r\nConnection: close\r\nRange: bytes=0-\r\nX: y\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert!(exchange.take_output().is_empty());
}

/// An answer, and the status, body and end that it comes to.
type Case = (&'static str, Option<u16>, &'static str, Result<(), Failure>);

fn cases() -> Vec<Case> {
    let ok = Some(200);
    vec![
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok, "hello", Ok(())),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", ok, "hello", Ok(())),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok, "", Ok(())),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", ok, "until the end", Ok(())),
        ("HTTP/1.0 404 No\r\n\r\n", Some(404), "", Ok(())),
        ("HTTP/1.1 204 No\r\n\r\n", Some(204), "", Ok(())),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n2\r\n !\r\n\
             0\r\n\r\n",
            ok,
            "hello !",
            Ok(()),
        ),
        (
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n\
             Content-Length: 1\r\n\r\n!",
            ok,
            "!",
            Ok(()),
        ),
        ("HTTP/1.1 101 Switch\r\n\r\nxx", Some(101), "", Ok(())),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", ok, "hell", Err(Failure::Truncated)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            ok,
            "hel",
            Err(Failure::Truncated),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!",
            ok,
            "hello",
            Err(Failure::Chunked),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\nx", ok, "", Err(Failure::TooLarge)),
        ("", None, "", Err(Failure::NoAnswer)),
        ("HTTP/1.1 200 OK\r\n", None, "", Err(Failure::Truncated)),
        ("HTTP/1.1 200 OK\n\n", None, "", Err(Failure::Head(HeadError::Malformed))),
        ("HTTP/2.0 200 OK\r\n\r\n", None, "", Err(Failure::Head(HeadError::Version))),
        ("\u{15}\u{3}\u{1}\0\u{2}", None, "", Err(Failure::Head(HeadError::Malformed))),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
            "",
            Err(Failure::Framing(BadFraming::Both)),
        ),
    ]
}

#[test]
fn answers_end_as_they_say_however_they_are_cut() {
    for (answer, status, body, end) in cases() {
        for pieces in [&[usize::MAX][..], &[1], &[7, 2, 30]] {
            let heard = hear(answer.as_bytes(), pieces, true);
            let said = (heard.status, String::from_utf8_lossy(&heard.body).into_owned(), heard.end);
            assert_eq!(said, (status, body.to_owned(), Some(end.clone())), "{answer:?} {pieces:?}");
        }
    }
}

#[test]
fn a_reset_ends_no_answer_well() {
    let heard = hear(b"HTTP/1.1 200 OK\r\n\r\nuntil", &[100], false);
    assert_eq!((heard.body.as_slice(), heard.end), (&b"until"[..], Some(Err(Failure::Truncated))));
}

#[test]
fn headers_are_there_for_the_asking() {
    let heard = hear(b"HTTP/1.1 200 OK\r\nheadwater-offset: 77\r\n\r\n", &[100], true);
    assert_eq!(heard.offset.as_deref(), Some("77"));
}

#[test]
fn nothing_grows_beyond_its_limit() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(HEAD.bytes));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    let endless = "HTTP/1.1 100 Go\r\n\r\n".repeat(9);
    for (answer, fault) in [
        (long, HeadError::TooLarge),
        (many, HeadError::TooManyLines),
        (endless, HeadError::TooLarge),
    ] {
        for pieces in [usize::MAX, 100] {
            let heard = hear(answer.as_bytes(), &[pieces], true);
            assert_eq!(heard.end, Some(Err(Failure::Head(fault))));
        }
    }
    // Without a length the body is counted.
    for head in ["\r\n", "Transfer-Encoding: chunked\r\n\r\n400\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}{}", "x".repeat(1024));
        let heard = hear(answer.as_bytes(), &[100], true);
        assert_eq!(heard.end, Some(Err(Failure::TooLarge)));
        assert!(heard.body.len() <= 1000);
    }
}

#[test]
fn deadlines_follow_the_answer() {
    let limits = Limits { total: Some(Duration::from_secs(8)), ..LIMITS };
    let asked = url("http://relay/");
    let ask = || Exchange::get(now(0), &asked, &[], None, limits).unwrap();
    let at = |exchange: &Exchange| exchange.next_deadline().unwrap().as_nanos() / 1_000_000;
    let mut exchange = ask();
    let mut heard = Heard::default();
    assert_eq!(at(&exchange), 5000);
    exchange.handle_received(now(4000), b"HTTP/1.1 200 OK\r\n", &mut |e| heard.take(e));
    assert_eq!(at(&exchange), 5000, "a slow head is not a fast one");
    exchange.handle_received(now(4500), b"\r\n", &mut |e| heard.take(e));
    assert_eq!(at(&exchange), 6500);
    exchange.handle_timeout(now(6499), &mut |e| heard.take(e));
    exchange.handle_received(now(6499), b"x", &mut |e| heard.take(e));
    assert_eq!(at(&exchange), 8000);
    exchange.handle_timeout(now(8000), &mut |e| heard.take(e));
    assert_eq!(heard.end, Some(Err(Failure::TooLong)));
    // Nothing comes after the last event, whatever happens.
    exchange.handle_received(now(8001), b"x", &mut |e| heard.take(e));
    exchange.handle_timeout(now(9999), &mut |e| heard.take(e));
    exchange.handle_closed(true, &mut |e| heard.take(e));
    for (said, late, failure) in
        [("", 5000, Failure::SlowAnswer), ("HTTP/1.1 200 OK\r\n\r\n", 2001, Failure::Stalled)]
    {
        let (mut exchange, mut heard) = (ask(), Heard::default());
        exchange.handle_received(now(1), said.as_bytes(), &mut |e| heard.take(e));
        exchange.handle_timeout(now(late - 1), &mut |e| heard.take(e));
        assert_eq!(heard.end, None);
        exchange.handle_timeout(now(late), &mut |e| heard.take(e));
        assert_eq!(heard.end, Some(Err(failure)));
    }
}

proptest! {
    #[test]
    fn any_answer_ends_in_exactly_one_way(
        case in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        pieces in prop::collection::vec(1..40usize, 1..5),
        clean in any::<bool>(),
    ) {
        let cases = cases();
        let mut answer = case.get(&cases).0.as_bytes().to_vec();
        for (at, byte) in changes {
            if !answer.is_empty() {
                let at = at.index(answer.len());
                answer[at] = byte;
            }
        }
        // `hear` asserts the order of events. How the bytes are cut changes nothing.
        prop_assert_eq!(hear(&answer, &pieces, clean), hear(&answer, &[usize::MAX], clean));
    }
}
