//! Response heads, read by a client. [`HeadScanner`] finds where one ends, as for a request.
//!
//! [`HeadScanner`]: crate::wire::http::head::HeadScanner

use std::ops::Deref;

use crate::wire::http::fields::Fields;
use crate::wire::http::head::{HeadError, Lines};

/// A response head, borrowed from the buffer. Its header lines are [`Fields`].
#[derive(Debug)]
pub struct Answer<'a> {
    /// The status: 100 to 999.
    pub status: u16,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    fields: Fields<'a>,
}

impl<'a> Deref for Answer<'a> {
    type Target = Fields<'a>;

    fn deref(&self) -> &Fields<'a> {
        &self.fields
    }
}

impl<'a> Answer<'a> {
    /// Reads the head whose end a scanner found.
    ///
    /// # Errors
    /// [`HeadError`] if it does not follow the grammar.
    pub fn parse(bytes: &'a [u8], lines: &'a mut Lines<'a>) -> Result<Answer<'a>, HeadError> {
        let mut response = httparse::Response::new(lines);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Err(httparse::Error::Version) if bytes.trim_ascii_start().starts_with(b"HTTP/") => {
                return Err(HeadError::Version);
            }
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyLines),
            _ => return Err(HeadError::Malformed),
        }
        match (response.code, response.version) {
            (Some(status @ 100..), Some(minor)) => {
                Ok(Answer { status, minor, fields: Fields::new(response.headers) })
            }
            _ => Err(HeadError::Malformed),
        }
    }

    /// Whether another head follows: "A client MUST be able to parse one or more 1xx responses
    /// received prior to a final response" (RFC 9110 section 15.2). After 101 no HTTP follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::body::{BadFraming, Body};
    use crate::wire::http::head::lines;

    #[test]
    fn heads_are_read_strictly() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok((200, 1))),
            ("HTTP/1.0 404 \r\n\r\n", Ok((404, 0))),
            ("HTTP/1.1 503\r\n\r\n", Ok((503, 1))),
            ("HTTP/2.0 200 OK\r\n\r\n", Err(HeadError::Version)),
            ("HTTP/1.1 99 OK\r\n\r\n", Err(HeadError::Malformed)),
            ("HTTP/1.1 20 OK\r\n\r\n", Err(HeadError::Malformed)),
            ("HTTP/1.1 099 OK\r\n\r\n", Err(HeadError::Malformed)),
            ("HTTP/1.1 2000 OK\r\n\r\n", Err(HeadError::Malformed)),
            ("ICY 200 OK\r\n\r\n", Err(HeadError::Malformed)),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Err(HeadError::Malformed)),
            ("HTTP/1.1 200 OK\r\n\r\nmore", Err(HeadError::Malformed)),
        ] {
            let mut room = lines();
            let got = Answer::parse(text.as_bytes(), &mut room);
            assert_eq!(got.map(|a| (a.status, a.minor)), expected, "{text:?}");
        }
        let mut room = lines();
        let answer = Answer::parse(b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n", &mut room).unwrap();
        assert!(answer.is_interim());
        assert_eq!(answer.one("link"), Ok(Some("a")));
    }

    #[test]
    fn a_body_ends_as_the_head_says() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok("Length(5)")),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok("UntilClose")),
            ("HTTP/1.0 200 OK\r\n\r\n", Ok("UntilClose")),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok("Length(0)")),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Ok("Length(0)")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Err(BadFraming::Length),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(BadFraming::Both),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Err(BadFraming::UnknownCoding)),
        ] {
            let mut room = lines();
            let answer = Answer::parse(text.as_bytes(), &mut room).unwrap();
            let got = Body::of_answer(&answer).map(|body| format!("{body:?}"));
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{text:?}");
        }
    }
}
