//! Absolute `http` and `https` URLs, as far as somebody types them for a relay.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The longest URL in bytes.
const URL_MAX: usize = 4096;

/// The longest host name in bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, in lower case.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    https: bool,
    host: Host,
    port: u16,
    target: String,
}

/// Why a text is no URL that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// It does not begin with a scheme.
    NoScheme,
    /// A scheme other than http and https.
    Scheme,
    /// A name or password before the host.
    UserInfo,
    /// No host, or one with characters that no host has.
    Host,
    /// A port that is no number from 1 to 65535.
    Port,
    /// Blanks, control or other characters that must be escaped.
    Characters,
    /// Longer than 4,096 bytes.
    TooLong,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadUrl::NoScheme => "no scheme: a URL begins with http:// or https://",
            BadUrl::Scheme => "unknown scheme: only http:// and https:// can be fetched",
            BadUrl::UserInfo => "user names and passwords in a URL are not supported",
            BadUrl::Host => {
                "no valid host: a name of letters, digits, `-`, `_` and `.`, an IPv4 \
                             address, or an IPv6 address in brackets"
            }
            BadUrl::Port => "no valid port: a number from 1 to 65535",
            BadUrl::Characters => "blanks, control and non-ASCII characters must be escaped (%20)",
            BadUrl::TooLong => "longer than 4096 bytes",
        })
    }
}

impl std::error::Error for BadUrl {}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        if text.len() > URL_MAX {
            return Err(BadUrl::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadUrl::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::NoScheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            "" => return Err(BadUrl::NoScheme),
            _ => return Err(BadUrl::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        if authority.contains('@') {
            return Err(BadUrl::UserInfo);
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.unwrap_or(if https { 443 } else { 80 });
        // The fragment is for whoever reads the document; no server sees it.
        let target = after.split('#').next().unwrap_or_default();
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { https, host, port, target: format!("{slash}{target}") })
    }
}

/// Host, and port if there is one.
fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), BadUrl> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inside) => {
            let (ip, rest) = inside.split_once(']').ok_or(BadUrl::Host)?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| BadUrl::Host)?;
            (Host::Ip(ip.into()), rest)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, rest) = authority.split_at(end);
            (named(name)?, rest)
        }
    };
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        None => Err(BadUrl::Host),
        // "http://host:/" means the default port (RFC 3986, 3.2.3).
        Some("") => Ok((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => match port.parse() {
            Ok(0) | Err(_) => Err(BadUrl::Port),
            Ok(port) => Ok((host, Some(port))),
        },
        Some(_) => Err(BadUrl::Port),
    }
}

fn named(name: &str) -> Result<Host, BadUrl> {
    if let Ok(ip) = name.parse() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let labels = name.strip_suffix('.').unwrap_or(name);
    // "1.2.3" and "0x7f.1" are addresses to some resolvers and names to others.
    let last = labels.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|c: char| c.is_ascii_digit());
    let whole = !labels.is_empty() && labels.split('.').all(|label| (1..64).contains(&label.len()));
    if !whole || numeric || name.len() > NAME_MAX || !name.bytes().all(fits) {
        return Err(BadUrl::Host);
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

impl Url {
    /// Whether it is fetched over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Where the server is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's port, the scheme's own if none was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query; begins with `/`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The same server, another path and query.
    ///
    /// # Errors
    /// [`BadUrl`] if `target` does not begin with `/` or has characters that must be escaped.
    pub fn with_target(&self, target: &str) -> Result<Url, BadUrl> {
        if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(BadUrl::Characters);
        }
        Ok(Url { target: target.to_owned(), ..self.clone() })
    }

    /// Whether the server is this machine by its very name: whoever could read what is sent to
    /// it needs no network.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }

    /// Host, and port if it is not the scheme's own: what the header `Host` says.
    #[must_use]
    pub fn authority(&self) -> String {
        match (self.https, self.port) {
            (false, 80) | (true, 443) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, authority, port, target, shown) in [
            ("http://relay", "relay", 80, "/", "http://relay/"),
            ("HTTP://Relay:80/a", "relay", 80, "/a", "http://relay/a"),
            ("https://relay.example", "relay.example", 443, "/", "https://relay.example/"),
            ("https://r:80/a?b#c", "r:80", 80, "/a?b", "https://r:80/a?b"),
            ("http://r?b", "r", 80, "/?b", "http://r/?b"),
            ("http://r:#b", "r", 80, "/", "http://r/"),
            ("http://my_relay.:8080/x", "my_relay.:8080", 8080, "/x", "http://my_relay.:8080/x"),
            ("http://127.0.0.1:1/", "127.0.0.1:1", 1, "/", "http://127.0.0.1:1/"),
            ("http://[::1]:8080/x", "[::1]:8080", 8080, "/x", "http://[::1]:8080/x"),
            ("https://[2001:DB8::1]/", "[2001:db8::1]", 443, "/", "https://[2001:db8::1]/"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.authority().as_str(), url.port()), (authority, port), "{text}");
            assert_eq!((url.target(), url.to_string().as_str()), (target, shown));
            assert_eq!(shown.parse::<Url>().unwrap(), url);
        }
    }

    #[test]
    fn what_is_no_url_is_told_why() {
        let long_label = format!("http://{}.example/", "a".repeat(64));
        let long = format!("http://a/{}", "a".repeat(URL_MAX));
        for (text, why) in [
            ("", BadUrl::NoScheme),
            ("relay:8080/live/x", BadUrl::NoScheme),
            ("://relay", BadUrl::NoScheme),
            ("rtmp://relay/x", BadUrl::Scheme),
            ("http://me:secret@relay/", BadUrl::UserInfo),
            ("http:///x", BadUrl::Host),
            ("http://:80/", BadUrl::Host),
            ("http://a..b/", BadUrl::Host),
            ("http://a,b/", BadUrl::Host),
            ("http://1.2.3/", BadUrl::Host),
            ("http://1.2.3.4.5/", BadUrl::Host),
            ("http://0x7f000001/", BadUrl::Host),
            ("http://::1/", BadUrl::Host),
            ("http://[::1/", BadUrl::Host),
            ("http://[1.2.3.4]/", BadUrl::Host),
            ("http://[fe80::1%25eth0]/", BadUrl::Host),
            ("http://[::1]80/", BadUrl::Host),
            (&long_label, BadUrl::Host),
            ("http://a:0/", BadUrl::Port),
            ("http://a:65536/", BadUrl::Port),
            ("http://a:+1/", BadUrl::Port),
            ("http://a:http/", BadUrl::Port),
            ("http://a/b c", BadUrl::Characters),
            ("http://a/\r\nX: y", BadUrl::Characters),
            ("http://a/ü", BadUrl::Characters),
            (&long, BadUrl::TooLong),
        ] {
            assert_eq!(text.parse::<Url>(), Err(why), "{text}");
            assert!(!why.to_string().is_empty());
        }
    }

    #[test]
    fn another_target_on_the_same_server() {
        let url: Url = "http://r:8080/live/x?key=1".parse().unwrap();
        assert_eq!(url.path(), "/live/x");
        let other = url.with_target("/live/x/swarm.json").unwrap();
        assert_eq!(other.to_string(), "http://r:8080/live/x/swarm.json");
        for bad in ["", "live", "/a b", "/a\r\nb", "/a#b"] {
            assert_eq!(url.with_target(bad), Err(BadUrl::Characters));
        }
    }

    #[test]
    fn loopback_is_by_name_or_address() {
        for (text, loopback) in [
            ("http://localhost/", true),
            ("http://a.localhost./", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
