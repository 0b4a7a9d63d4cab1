//! How a body is delimited (RFC 9112 section 6), and its bytes.

use crate::wire::http::answer::Answer;
use crate::wire::http::chunked::{BadChunk, Chunked};
use crate::wire::http::fields::Fields;
use crate::wire::http::head::Head;

/// Why nobody can say where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFraming {
    /// Both `Content-Length` and `Transfer-Encoding`.
    Both,
    /// A `Content-Length` that is no number, or more than one.
    Length,
    /// `Transfer-Encoding` more than once, or in HTTP/1.0.
    Coding,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
}

/// What is left of a body.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// This many bytes.
    Length(u64),
    /// As the chunked coding says.
    Chunked(Chunked),
    /// Everything until the other end closes.
    UntilClose,
}

impl Body {
    /// The body that `head` announces; None if neither header is there.
    ///
    /// # Errors
    /// [`BadFraming`]: whatever is ambiguous is refused, not repaired.
    pub fn of(head: &Head<'_>) -> Result<Option<Body>, BadFraming> {
        Body::framed(head, head.minor)
    }

    /// The body of the answer to a GET.
    ///
    /// # Errors
    /// [`BadFraming`].
    pub fn of_answer(answer: &Answer<'_>) -> Result<Body, BadFraming> {
        // "Any response with a 1xx (Informational), 204 (No Content), or 304 (Not Modified)
        // status code is always terminated by the first empty line" (6.3).
        if matches!(answer.status, 100..=199 | 204 | 304) {
            return Ok(Body::Length(0));
        }
        // "Otherwise, this is a response message without a declared message body length, so
        // the message body length is determined by the number of octets received prior to the
        // server closing the connection" (6.3).
        Ok(Body::framed(answer, answer.minor)?.unwrap_or(Body::UntilClose))
    }

    fn framed(fields: &Fields<'_>, minor: u8) -> Result<Option<Body>, BadFraming> {
        let codings = fields.all("Transfer-Encoding").count();
        let lengths = fields.all("Content-Length").count();
        match (codings, lengths) {
            (0, 0) => Ok(None),
            (0, _) => {
                let value = fields.one("Content-Length").ok().flatten();
                let value = value.ok_or(BadFraming::Length)?;
                length(value).map(|n| Some(Body::Length(n))).ok_or(BadFraming::Length)
            }
            (1, 0) if minor == 0 => Err(BadFraming::Coding),
            (1, 0) => match fields.one("Transfer-Encoding") {
                Ok(Some(coding)) if coding.eq_ignore_ascii_case("chunked") => {
                    Ok(Some(Body::Chunked(Chunked::default())))
                }
                _ => Err(BadFraming::UnknownCoding),
            },
            (_, 0) => Err(BadFraming::Coding),
            (_, _) => Err(BadFraming::Both),
        }
    }

    /// Decodes `data`, hands the body's bytes to `sink` as slices of it, and returns how many
    /// bytes it used: fewer than all only when the body is complete.
    ///
    /// # Errors
    /// [`BadChunk`]; whatever came before the fault has been handed over.
    pub fn decode(&mut self, data: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, BadChunk> {
        match self {
            Body::Chunked(chunked) => chunked.decode(data, sink),
            Body::Length(left) => {
                let n = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= n as u64;
                if n > 0 {
                    sink(&data[..n]);
                }
                Ok(n)
            }
            Body::UntilClose => {
                sink(data);
                Ok(data.len())
            }
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::UntilClose => false,
        }
    }
}

/// `Content-Length = 1*DIGIT`, and nothing that `str::parse` would allow beyond that.
fn length(value: &str) -> Option<u64> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| value.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::head::lines;

    #[test]
    fn ambiguous_framing_is_refused() {
        let cases: &[(&str, Result<&str, BadFraming>)] = &[
            ("", Ok("None")),
            ("Content-Length: 0\r\n", Ok("Some(Length(0))")),
            ("Content-Length: 18446744073709551615\r\n", Ok("Some(Length(18446744073709551615))")),
            ("Content-Length: 18446744073709551616\r\n", Err(BadFraming::Length)),
            ("Content-Length: +5\r\n", Err(BadFraming::Length)),
            ("Content-Length: -5\r\n", Err(BadFraming::Length)),
            ("Content-Length: 5, 5\r\n", Err(BadFraming::Length)),
            ("Content-Length: \r\n", Err(BadFraming::Length)),
            ("Content-Length: 0x5\r\n", Err(BadFraming::Length)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(BadFraming::Length)),
            ("Content-Length: 5\r\ncontent-length: 6\r\n", Err(BadFraming::Length)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(BadFraming::Both)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(BadFraming::UnknownCoding)),
            ("Transfer-Encoding: xchunked\r\n", Err(BadFraming::UnknownCoding)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(BadFraming::UnknownCoding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(BadFraming::UnknownCoding)),
            ("Transfer-Encoding: \u{b}chunked\r\n", Err(BadFraming::UnknownCoding)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                Err(BadFraming::Coding),
            ),
        ];
        for (fields, expected) in cases {
            let text = format!("PUT / HTTP/1.1\r\n{fields}\r\n");
            let mut room = lines();
            let Ok(head) = Head::parse(text.as_bytes(), &mut room) else {
                assert!(fields.contains('\u{b}'), "{fields:?}");
                continue;
            };
            let got = Body::of(&head).map(|body| format!("{body:?}"));
            assert_eq!(got.as_deref().map_err(|e| *e), *expected, "{fields:?}");
        }
        let mut room = lines();
        let text = b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = Head::parse(text, &mut room).unwrap();
        assert_eq!(Body::of(&head).unwrap_err(), BadFraming::Coding);
    }

    #[test]
    fn a_length_takes_its_bytes_and_no_more() {
        let mut body = Body::Length(5);
        let mut got = Vec::new();
        assert_eq!(body.decode(b"hel", &mut |b| got.extend_from_slice(b)), Ok(3));
        assert!(!body.is_done());
        assert_eq!(body.decode(b"loGET", &mut |b| got.extend_from_slice(b)), Ok(2));
        assert!(body.is_done());
        assert_eq!(got, b"hello");
    }
}
