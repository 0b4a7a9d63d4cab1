//! Request heads: found in a growing buffer, bounded while they grow, then read at once.

use std::ops::Deref;

use httparse::{EMPTY_HEADER, Header};

use crate::wire::http::fields::Fields;

/// The most header lines that can be read, whatever the settings say.
pub const HEADER_LINES_MAX: usize = 256;

/// The longest request target in bytes.
pub const TARGET_BYTES_MAX: usize = 4096;

/// The longest method in bytes; every registered one fits.
const METHOD_BYTES_MAX: usize = 32;

/// Bounds of one request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// The most bytes, the empty line included.
    pub bytes: usize,
    /// The most header lines.
    pub lines: usize,
}

/// Why bytes are no request head. After any of these the connection cannot go on: nobody knows
/// where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A line does not follow the grammar; also a bare CR or LF, or a control byte.
    Malformed,
    /// A folded header line (RFC 9112 section 5.2), which recipients read differently.
    Folded,
    /// The request target is too long.
    TargetTooLong,
    /// The head is larger than the limit.
    TooLarge,
    /// There are more header lines than the limit.
    TooManyLines,
    /// HTTP, but neither version 1.0 nor 1.1.
    Version,
}

/// Looks for the end of a head in a buffer that grows at its end, each byte once.
///
/// It goes strictly from left to right and stops at the first thing wrong, so the verdict never
/// depends on how the bytes were cut into segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    /// Bytes looked at.
    at: usize,
    /// Where the present line began.
    line_start: usize,
    /// Lines that ended, the request line included.
    lines: usize,
    /// Spaces seen in the request line: its second word is the target.
    spaces: usize,
    /// Length of the present word of the request line.
    word: usize,
}

impl HeadScanner {
    /// Looks at the bytes that came since the last call. Some: the head's length.
    ///
    /// # Errors
    /// [`HeadError`] at the first byte that no acceptable head can have there.
    pub fn scan(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        while let Some(&byte) = input.get(self.at) {
            if self.at >= limits.bytes {
                break;
            }
            let after_cr = self.at > self.line_start && input.get(self.at - 1) == Some(&b'\r');
            // "A recipient of such a bare CR MUST consider that element to be invalid"
            // (RFC 9112 section 2.2). A bare LF may be taken for a line end; refusing it keeps
            // us of one mind with every proxy.
            if after_cr != (byte == b'\n') {
                return Err(HeadError::Malformed);
            }
            self.at += 1;
            if byte != b'\n' {
                self.on_byte(byte)?;
            } else if self.on_line(limits)? {
                return Ok(Some(self.at));
            }
        }
        match () {
            () if self.at < limits.bytes => Ok(None),
            () if self.lines == 0 => Err(HeadError::TargetTooLong),
            () => Err(HeadError::TooLarge),
        }
    }

    /// Judges a byte that is not LF.
    fn on_byte(&mut self, byte: u8) -> Result<(), HeadError> {
        match byte {
            b'\r' => return Ok(()),
            b'\t' if self.lines > 0 => {}
            0..0x20 | 0x7f => return Err(HeadError::Malformed),
            _ => {}
        }
        let first_of_line = self.at == self.line_start + 1;
        if self.lines > 0 {
            let folded = first_of_line && matches!(byte, b' ' | b'\t');
            return if folded { Err(HeadError::Folded) } else { Ok(()) };
        }
        if byte == b' ' {
            self.spaces += 1;
            self.word = 0;
            return Ok(());
        }
        self.word += 1;
        match self.spaces {
            0 if self.word > METHOD_BYTES_MAX => Err(HeadError::Malformed),
            1 if self.word > TARGET_BYTES_MAX => Err(HeadError::TargetTooLong),
            _ => Ok(()),
        }
    }

    /// Ends a line; true if it was the empty line that ends the head.
    fn on_line(&mut self, limits: &HeadLimits) -> Result<bool, HeadError> {
        let empty = self.at == self.line_start + 2;
        self.line_start = self.at;
        if empty {
            // "a server that is expecting to receive and parse a request-line SHOULD ignore at
            // least one empty line (CRLF) received prior to the request-line" (section 2.2).
            return Ok(self.lines > 0);
        }
        self.lines += 1;
        if self.lines - 1 > limits.lines.min(HEADER_LINES_MAX) {
            return Err(HeadError::TooManyLines);
        }
        Ok(false)
    }
}

/// Room for the header lines of one head.
pub type Lines<'a> = [Header<'a>; HEADER_LINES_MAX];

/// Empty room.
#[must_use]
pub fn lines<'a>() -> Lines<'a> {
    [EMPTY_HEADER; HEADER_LINES_MAX]
}

/// A request head, borrowed from the buffer. Its header lines are [`Fields`].
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// The target as it was sent.
    pub target: &'a str,
    /// The minor version: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    fields: Fields<'a>,
}

impl<'a> Head<'a> {
    /// Reads the head whose end a [`HeadScanner`] found.
    ///
    /// # Errors
    /// [`HeadError`] if it does not follow the grammar.
    pub fn parse(bytes: &'a [u8], lines: &'a mut Lines<'a>) -> Result<Head<'a>, HeadError> {
        let mut request = httparse::Request::new(lines);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Err(httparse::Error::Version) if says_http(bytes) => return Err(HeadError::Version),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyLines),
            _ => return Err(HeadError::Malformed),
        }
        match (request.method, request.path, request.version) {
            (Some(method), Some(target), Some(minor)) => {
                Ok(Head { method, target, minor, fields: Fields::new(request.headers) })
            }
            _ => Err(HeadError::Malformed),
        }
    }
}

impl<'a> Deref for Head<'a> {
    type Target = Fields<'a>;

    fn deref(&self) -> &Fields<'a> {
        &self.fields
    }
}

/// Whether the request line names a version of HTTP at all.
fn says_http(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|b| *b == b'\r').next().unwrap_or_default();
    line.split(|b| *b == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 8192, lines: 4 };

    fn scan(input: &[u8]) -> Result<Option<usize>, HeadError> {
        HeadScanner::default().scan(input, &LIMITS)
    }

    /// One byte at a time.
    fn dribble(input: &[u8]) -> Result<Option<usize>, HeadError> {
        let mut scanner = HeadScanner::default();
        for end in 1..=input.len() {
            match scanner.scan(&input[..end], &LIMITS) {
                Ok(None) => {}
                verdict => return verdict,
            }
        }
        Ok(None)
    }

    #[test]
    fn the_end_is_found_and_every_fault_where_it_is() {
        let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_BYTES_MAX));
        let fits = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_BYTES_MAX - 1));
        let large = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(8192));
        let cases: &[(&str, Result<Option<usize>, HeadError>)] = &[
            ("", Ok(None)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Ok(Some(27))),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(22))),
            ("GET / HTTP/1.1\n\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", Err(HeadError::Malformed)),
            ("GET\t/ HTTP/1.1\r\n\r\n", Err(HeadError::Malformed)),
            ("\u{16}\u{3}\u{1}", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err(HeadError::Folded)),
            ("GET / HTTP/1.1\r\n\tA: b\r\n\r\n", Err(HeadError::Folded)),
            ("GET / HTTP/1.1\r\na:1\r\na:1\r\na:1\r\na:1\r\n\r\n", Ok(Some(38))),
            (
                "GET / HTTP/1.1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\n\r\n",
                Err(HeadError::TooManyLines),
            ),
            (&long_target, Err(HeadError::TargetTooLong)),
            (&fits, Ok(Some(fits.len()))),
            (&large, Err(HeadError::TooLarge)),
            ("AVERYLONGMETHODTHATNOBODYREGISTERED / HTTP/1.1", Err(HeadError::Malformed)),
        ];
        for (input, expected) in cases {
            assert_eq!(scan(input.as_bytes()), *expected, "{input:?}");
            assert_eq!(dribble(input.as_bytes()), *expected, "{input:?}, one byte at a time");
        }
    }

    #[test]
    fn heads_are_read_strictly() {
        type Parts = (&'static str, &'static str, u8);
        let cases: &[(&str, Result<Parts, HeadError>)] = &[
            ("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", Ok(("GET", "/a?b", 1))),
            ("\r\nPUT * HTTP/1.0\r\n\r\n", Ok(("PUT", "*", 0))),
            ("GET / HTTP/2.0\r\n\r\n", Err(HeadError::Version)),
            ("GET / HTTP/1.2\r\n\r\n", Err(HeadError::Version)),
            ("GET / RTSP/1.0\r\n\r\n", Err(HeadError::Malformed)),
            ("GET /\r\n\r\n", Err(HeadError::Malformed)),
            ("GET  / HTTP/1.1\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1 \r\n\r\n", Err(HeadError::Malformed)),
            ("G(T / HTTP/1.1\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", Err(HeadError::Malformed)),
            ("GET / HTTP/1.1\r\n: x\r\n\r\n", Err(HeadError::Malformed)),
        ];
        for (input, expected) in cases {
            let mut room = lines();
            let got = Head::parse(input.as_bytes(), &mut room);
            assert_eq!(got.map(|h| (h.method, h.target, h.minor)), *expected, "{input:?}");
        }
    }
}
