//! The small languages inside strings: addresses, sizes, durations, networks, hashes.
//!
//! Each function takes what was typed and gives the value, or a [`Bad`] that says what is wrong
//! and, where it can, what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::registry::settings::Network;

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead; empty: what the table of keys says is allowed.
    pub help: String,
}

impl Bad {
    /// A reason, with the table's word on what is allowed.
    pub fn new(message: impl Into<String>) -> Bad {
        Bad { message: message.into(), help: String::new() }
    }

    /// A reason with a remedy of its own.
    pub fn with(message: impl Into<String>, help: impl Into<String>) -> Bad {
        Bad { message: message.into(), help: help.into() }
    }
}

/// `ADDRESS:PORT`.
pub fn address(text: &str) -> Result<SocketAddr, Bad> {
    text.parse().map_err(|_| {
        let message = format!("{text:?} is not an address with a port");
        let port = text.strip_prefix(':').unwrap_or(text);
        match text.rsplit_once(':') {
            _ if port.parse::<u16>().is_ok() => Bad::with(message, format!("\"[::]:{port}\"")),
            Some(("localhost", port)) => Bad::with(message, format!("\"127.0.0.1:{port}\"")),
            Some(("*", port)) => Bad::with(message, format!("\"[::]:{port}\"")),
            _ if text.parse::<IpAddr>().is_ok() => Bad::with(message, "add the port"),
            _ => Bad::new(message),
        }
    })
}

/// The number in front of a unit, and the unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A size in bytes: `268435456`, `256MiB`, `300 MB`.
pub fn size(text: &str) -> Result<u64, Bad> {
    let bad = || Bad::new(format!("{text:?} is not a size"));
    let (number, unit) = split(text).ok_or_else(bad)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "K" | "k" | "KB" => return Err(Bad::with(bad().message, "write KiB or kB")),
        "M" | "m" | "G" | "g" => {
            let unit = unit.to_uppercase();
            return Err(Bad::with(bad().message, format!("write {unit}iB or {unit}B")));
        }
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(|| Bad::new(format!("{text:?} is too large")))
}

/// A rate in bits per second: `800kbit`, `20Mbit`, `1 Gbit`.
pub fn rate(text: &str) -> Result<u64, Bad> {
    let bad = || Bad::new(format!("{text:?} is not a rate"));
    let (number, unit) = split(text).ok_or_else(bad)?;
    let factor: u64 = match unit.strip_suffix("/s").unwrap_or(unit) {
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        "" => return Err(Bad::with(bad().message, format!("add a unit: \"{number}Mbit\""))),
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(|| Bad::new(format!("{text:?} is too large")))
}

/// `HOST:PORT`, of which others are told: a name or an address that is somewhere.
pub fn host(text: &str) -> Result<String, Bad> {
    let bad = |why: &str| Bad::new(format!("{text:?} {why}"));
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.ip().is_unspecified() || address.port() == 0 {
            true => Err(bad("is nowhere: peers need an address and a port to send to")),
            false => Ok(text.to_owned()),
        };
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(|| bad("has no port"))?;
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 253 || !name.chars().all(label) {
        return Err(bad("is no host with a port"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(bad("has no port")),
    }
}

/// A duration: `500ms`, `2s`, `1m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, Bad> {
    let bad = || Bad::new(format!("{text:?} is not a duration"));
    let (number, unit) = split(text).ok_or_else(bad)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(Bad::with(bad().message, format!("add a unit: \"{number}s\""))),
        _ => return Err(bad()),
    };
    millis.map(Duration::from_millis).ok_or_else(|| Bad::new(format!("{text:?} is too long")))
}

/// `ADDRESS/PREFIX`, or one address.
pub fn network(text: &str) -> Result<Network, Bad> {
    let bad = || Bad::with(format!("{text:?} is not a network"), "ADDRESS/PREFIX: \"10.0.0.0/8\"");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(prefix) => prefix.parse().map_err(|_| bad())?,
    };
    if prefix > longest {
        let family = if longest == 32 { "IPv4" } else { "IPv6" };
        let message = format!("{text:?}: a prefix of {prefix} bits is too long for {family}");
        return Err(Bad::with(message, format!("/0 to /{longest}")));
    }
    Ok(Network { address, prefix })
}

/// A SHA-256 in hexadecimal, with or without `sha256:` in front.
pub fn sha256(text: &str) -> Result<[u8; 32], Bad> {
    const HELP: &str = "make a key and its hash with `headwater keys new`";
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let digits: Option<Vec<u32>> = hex.chars().map(|c| c.to_digit(16)).collect();
    // What was typed may be the key itself: it must not end up in a log.
    let Some(digits) = digits else {
        return Err(Bad::with("not a hash: a SHA-256 has only the digits 0-9 a-f", HELP));
    };
    if digits.len() != 64 {
        let message = format!("not a hash: {} hexadecimal digits instead of 64", digits.len());
        return Err(Bad::with(message, HELP));
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).unwrap_or_default();
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("[::1]:0").unwrap(), "[::1]:0".parse().unwrap());
        assert_eq!(address("8080").unwrap_err().help, "\"[::]:8080\"");
        assert_eq!(address(":8080").unwrap_err().help, "\"[::]:8080\"");
        assert_eq!(address("localhost:80").unwrap_err().help, "\"127.0.0.1:80\"");
        assert_eq!(address("10.0.0.1").unwrap_err().help, "add the port");
        assert!(address("relay:8080").is_err() && address("1.2.3.4:65536").is_err());
    }

    #[test]
    fn sizes() {
        let good = [("0", 0), ("17", 17), ("4KiB", 4096), ("2 MiB", 2 << 20), ("1GiB", 1 << 30)];
        for (text, bytes) in good.into_iter().chain([("3kB", 3_000), ("5MB", 5_000_000)]) {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "MiB", "-1", "1.5GiB", "256M", "1mib", "17179869184GiB", "99999999999999999999"]
        {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(size("256M").unwrap_err().help, "write MiB or MB");
    }

    #[test]
    fn rates() {
        let good = [("64kbit", 64_000), ("20Mbit", 20_000_000), ("1 Gbit/s", 1_000_000_000)];
        for (text, rate) in good {
            assert_eq!(super::rate(text), Ok(rate), "{text}");
        }
        for bad in ["", "fast", "5MB", "1.5Mbit", "99999999999Gbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(rate("20").unwrap_err().help, "add a unit: \"20Mbit\"");
    }

    #[test]
    fn hosts() {
        for good in ["relay.example.org:8080", "192.0.2.1:1", "[2001:db8::1]:8080"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in [
            "relay",
            "relay:",
            "relay:0",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "a b:80",
            "::1",
            "x:70000",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("500ms", 500), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "2", "-2s", "2.5s", "2d", "99999999999999999999s", "9999999999999999h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("30").unwrap_err().help, "add a unit: \"30s\"");
    }

    #[test]
    fn networks() {
        let net = network("10.0.0.0/8").unwrap();
        assert!(net.contains("10.9.9.9".parse().unwrap()));
        assert_eq!(network("::1").unwrap().prefix, 128);
        assert!(network("10.0.0.0/33").unwrap_err().message.contains("too long for IPv4"));
        assert!(network("::/129").unwrap_err().message.contains("too long for IPv6"));
        for bad in ["", "/8", "10.0.0.0/", "10.0.0.0/x", "10.0.0/8", "::/-1", "::/999"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes() {
        let hex = "00ff".repeat(16);
        assert_eq!(sha256(&format!("sha256:{hex}")).unwrap()[..3], [0, 255, 0]);
        assert_eq!(sha256(&hex.to_uppercase()), sha256(&hex));
        assert!(sha256(&hex[1..]).unwrap_err().message.contains("63"));
        assert!(!sha256("my secret").unwrap_err().message.contains("secret"));
    }
}
