//! What was asked: a request head judged as a whole, with everything ambiguous refused.

use std::net::{IpAddr, SocketAddr};

use crate::face::http::exchange::Refusal;
use crate::registry::settings::Network;
use crate::wire::http::body::{BadFraming, Body};
use crate::wire::http::head::{Head, HeadError};

/// The methods that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// PUT.
    Put,
    /// POST.
    Post,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

impl Method {
    /// Whether the method only reads.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }

    /// Whether the method can publish.
    #[must_use]
    pub fn publishes(self) -> bool {
        matches!(self, Method::Put | Method::Post)
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

/// One request, borrowed from the buffer.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its head.
    pub head: &'a Head<'a>,
    /// Its method.
    pub method: Method,
    /// Its path as it was sent, still escaped.
    pub path: &'a str,
    /// What follows the `?`; empty if nothing does.
    pub query: &'a str,
    /// Its body; None if it has none.
    pub body: Option<Body>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects: bool,
    /// Whether the connection may carry another request.
    pub keep: bool,
}

impl<'a> Request<'a> {
    /// Judges a head. An error ends the connection: where the next request would begin, or to
    /// whom this one was addressed, is unknown.
    ///
    /// # Errors
    /// What to tell the client.
    pub fn read(head: &'a Head<'a>) -> Result<Request<'a>, Refusal> {
        let method = Method::from(head.method);
        let modern = head.minor > 0;
        check_host(head)?;
        let (path, query) = split_target(head.target, method).ok_or_else(|| {
            Refusal::new(400, "the request target must be a path or an absolute http URL")
        })?;
        let announced = Body::of(head).map_err(refuse_framing)?;
        let body = match announced {
            None if method.publishes() => Some(Body::UntilClose),
            Some(Body::Length(0)) if !method.publishes() => None,
            body => body,
        };
        let expectation = head.all("Expect").next().filter(|_| modern);
        if expectation.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Err(Refusal::new(417, "the only expectation served here is 100-continue"));
        }
        let close = head.list("Connection").any(|option| option.eq_ignore_ascii_case("close"));
        let endless = matches!(body, Some(Body::UntilClose));
        Ok(Request {
            head,
            method,
            path,
            query,
            body,
            expects: expectation.is_some() && body.is_some(),
            keep: modern && !close && !endless,
        })
    }
}

/// What to tell a client whose bytes are no request head.
#[must_use]
pub fn refuse_head(error: HeadError) -> Refusal {
    let (status, text) = match error {
        HeadError::Malformed => (400, "this is not an HTTP/1.1 request; lines end in CR LF"),
        HeadError::Folded => (400, "a header must be on one line; folding is obsolete"),
        HeadError::TargetTooLong => (414, "the request target is too long; 4096 bytes at most"),
        HeadError::TooLarge => {
            (431, "the request head is too large; send fewer or shorter headers")
        }
        HeadError::TooManyLines => (431, "too many header lines; send fewer"),
        HeadError::Version => (505, "HTTP/1.1 and HTTP/1.0 are spoken here"),
    };
    Refusal::new(status, text)
}

fn refuse_framing(error: BadFraming) -> Refusal {
    let (status, text) = match error {
        BadFraming::Both => (400, "send Content-Length or Transfer-Encoding, not both"),
        BadFraming::Length => (400, "Content-Length must be one decimal number, given once"),
        BadFraming::Coding => (400, "Transfer-Encoding may be given once, in HTTP/1.1 only"),
        BadFraming::UnknownCoding => (501, "the only transfer coding served here is chunked"),
    };
    Refusal::new(status, text)
}

/// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
/// that lacks a Host header field and to any request message that contains more than one Host
/// header field line or a Host header field with an invalid field value" (RFC 9112 section 3.2).
fn check_host(head: &Head<'_>) -> Result<(), Refusal> {
    let fine = match head.one("Host") {
        Ok(None) => head.minor == 0,
        Ok(Some(host)) => host.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'%')
                || matches!(b, b'[' | b']')
        }),
        Err(_) => false,
    };
    if fine { Ok(()) } else { Err(Refusal::new(400, "send exactly one valid Host header")) }
}

/// Path and query of a target in origin-form, absolute-form, or `*` for OPTIONS (RFC 9112
/// section 3.2).
fn split_target(target: &str, method: Method) -> Option<(&str, &str)> {
    if target == "*" {
        return (method == Method::Options).then_some(("*", ""));
    }
    if target.contains('#') {
        return None;
    }
    let local = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        if authority == 0 || rest[..authority].contains('@') {
            return None;
        }
        &rest[authority..]
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// The client's real address: from the right, the first one in `X-Forwarded-For` that is not a
/// trusted proxy, provided that every hop to its right is one; an entry that is no address ends
/// the search at the hop that wrote it.
#[must_use]
pub fn client(head: &Head<'_>, peer: SocketAddr, trusted: &[Network]) -> IpAddr {
    let mut address = peer.ip().to_canonical();
    for hop in head.list("X-Forwarded-For").rev() {
        if !trusted.iter().any(|network| network.contains(address)) {
            break;
        }
        match hop_address(hop) {
            Some(earlier) => address = earlier,
            None => break,
        }
    }
    address
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let plain = bare.parse::<IpAddr>().ok();
    let address = plain.or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    Some(address.to_canonical())
}

/// Whether nobody forwarded the request and no web page caused it. A page anywhere can make the
/// browser on this machine send a PUT or POST to a loopback address; browsers mark such
/// requests, programs that publish do not.
#[must_use]
pub fn is_direct(head: &Head<'_>) -> bool {
    !head.any(|name| {
        matches!(name, "forwarded" | "via" | "x-real-ip" | "origin" | "sec-fetch-site")
            || name.starts_with("x-forwarded-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::head::lines;

    #[test]
    fn the_client_is_the_last_hop_that_we_do_not_trust() {
        let net = |a: &str, prefix| Network { address: a.parse().unwrap(), prefix };
        let trusted = [net("10.0.0.0", 8), net("2001:db8::", 32)];
        let cases = [
            // (peer, header lines, client)
            ("198.51.100.7:1", "X-Forwarded-For: 1.1.1.1\r\n", "198.51.100.7"),
            ("10.0.0.1:1", "", "10.0.0.1"),
            ("10.0.0.1:1", "X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            ("10.0.0.1:1", "X-Forwarded-For: 9.9.9.9, 1.1.1.1\r\n", "1.1.1.1"),
            ("10.0.0.1:1", "X-Forwarded-For: 1.1.1.1, 10.2.3.4\r\n", "1.1.1.1"),
            ("10.0.0.1:1", "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 10.2.3.4\r\n", "1.1.1.1"),
            ("10.0.0.1:1", "X-Forwarded-For: 10.9.9.9, 10.2.3.4\r\n", "10.9.9.9"),
            ("10.0.0.1:1", "X-Forwarded-For: 1.1.1.1, unknown, 10.2.3.4\r\n", "10.2.3.4"),
            ("10.0.0.1:1", "X-Forwarded-For: 1.1.1.1:99\r\n", "1.1.1.1"),
            ("10.0.0.1:1", "X-Forwarded-For: [2001:db9::1]:99\r\n", "2001:db9::1"),
            ("10.0.0.1:1", "X-Forwarded-For: [2001:db9::1]\r\n", "2001:db9::1"),
            ("[2001:db8::5]:1", "X-Forwarded-For: 2001:db9::1\r\n", "2001:db9::1"),
            ("[::ffff:10.0.0.1]:1", "X-Forwarded-For: ::ffff:1.1.1.1\r\n", "1.1.1.1"),
            ("[::ffff:127.0.0.1]:1", "", "127.0.0.1"),
        ];
        for (peer, fields, expected) in cases {
            let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            let mut room = lines();
            let head = Head::parse(text.as_bytes(), &mut room).unwrap();
            let got = client(&head, peer.parse().unwrap(), &trusted);
            assert_eq!(got, expected.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
    }

    #[test]
    fn targets() {
        let get = |target| split_target(target, Method::Get);
        assert_eq!(get("/a?b?c"), Some(("/a", "b?c")));
        assert_eq!(get("http://h/a?b"), Some(("/a", "b")));
        assert_eq!(get("HTTP://h"), Some(("/", "")));
        assert_eq!(get("http://h?b"), Some(("/", "b")));
        for bad in ["*", "a", "h:80", "ftp://h/", "http:///a", "http://u@h/", "/a#b"] {
            assert_eq!(get(bad), None, "{bad}");
        }
        assert_eq!(split_target("*", Method::Options), Some(("*", "")));
    }
}
