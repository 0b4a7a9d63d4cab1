//! Response heads: the status line and the header lines.

use std::fmt::{Display, Write};

use bytes::Bytes;

/// The interim response that asks for a body that the client held back (RFC 9110 section
/// 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes one response head.
#[derive(Debug)]
pub struct ResponseHead {
    text: String,
}

impl ResponseHead {
    /// Begins with the status line.
    #[must_use]
    pub fn new(status: u16) -> ResponseHead {
        let mut text = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(text, "HTTP/1.1 {status} {}\r\n", reason(status));
        ResponseHead { text }
    }

    /// Adds a header line. Control characters in `value` become blanks: nothing that an
    /// operator or a client chose can begin a line of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> ResponseHead {
        let start = self.text.len() + name.len() + 2;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{name}: {value}");
        if self.text[start..].bytes().any(|b| b.is_ascii_control()) {
            let clean = self.text[start..].replace(|c: char| c.is_ascii_control(), " ");
            self.text.truncate(start);
            self.text.push_str(&clean);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Adds a header line if there is a value.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Display>) -> ResponseHead {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Ends the head.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.text.push_str("\r\n");
        Bytes::from(self.text)
    }
}

/// The reason phrase of the statuses we send (RFC 9110 section 15, RFC 6585).
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // "A client SHOULD ignore the reason-phrase content" (RFC 9112 section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_begin_a_line() {
        let head = ResponseHead::new(404)
            .with("A", "b\r\nSet-Cookie: x")
            .with_some("C", Some(5))
            .with_some("D", None::<u8>)
            .finish();
        assert_eq!(head, "HTTP/1.1 404 Not Found\r\nA: b  Set-Cookie: x\r\nC: 5\r\n\r\n");
    }
}
