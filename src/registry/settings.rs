//! What an operator can choose about streams, publishers and admission.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::ids::StreamName;

/// Settings of the registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most streams that are live or held at one time.
    pub max_streams: usize,
    /// How much of a stream is kept, in time.
    pub window: Duration,
    /// The most memory of one stream's window in bytes; reserved when it goes live.
    pub window_bytes: u64,
    /// How long viewers are held after a publisher vanished.
    pub linger: Duration,
    /// Who may publish. Empty: anybody on a loopback address, nobody else.
    pub keys: Vec<KeySetting>,
    /// Limits of admission.
    pub limits: Limits,
}

/// One publish key, stored as its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetting {
    /// SHA-256 of the key's text.
    pub sha256: [u8; 32],
    /// The streams it may publish; empty: all.
    pub streams: Vec<StreamName>,
}

/// Limits of admission. Beyond a limit newcomers are refused; nobody inside is degraded.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Viewers of the whole process.
    pub viewers: usize,
    /// Connections of the whole process, viewers included.
    pub connections: usize,
    /// Connections and peers of one IPv4 address or one IPv6 /64.
    pub per_address: usize,
    /// Networks to which `per_address` does not apply.
    pub exempt: Vec<Network>,
    /// Peers of the whole process.
    pub peers: usize,
    /// What may go out to peers together, in bits per second. `None`: anything.
    pub egress: Option<u64>,
}

/// An address range: `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of the range.
    pub address: IpAddr,
    /// Bits that count.
    pub prefix: u8,
}

impl Network {
    /// Whether `ip` lies in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u64::from(u32::from(net)) >> shift) == (u64::from(u32::from(ip)) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                let cut = |a: u128| a.checked_shr(shift).unwrap_or(0);
                cut(u128::from(net)) == cut(u128::from(ip))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_they_say() {
        let net = |a: &str, prefix| Network { address: a.parse().unwrap(), prefix };
        let has = |n: Network, a: &str| n.contains(a.parse().unwrap());
        assert!(has(net("127.0.0.0", 8), "127.9.9.9"));
        assert!(has(net("127.0.0.0", 8), "::ffff:127.0.0.1"));
        assert!(!has(net("127.0.0.0", 8), "128.0.0.1"));
        assert!(has(net("0.0.0.0", 0), "203.0.113.9"));
        assert!(!has(net("0.0.0.0", 0), "::1"));
        assert!(has(net("::", 0), "2001:db8::1"));
        assert!(has(net("2001:db8::", 64), "2001:db8::ffff"));
        assert!(!has(net("2001:db8::", 64), "2001:db8:0:1::"));
        assert!(has(net("::1", 128), "::1"));
    }
}
