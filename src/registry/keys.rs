//! Who may publish: keys are known only by their hashes.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::base::ids::StreamName;
use crate::registry::settings::KeySetting;

/// Which key a publisher showed. Two connections with the same id may replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(u32);

/// The id of publishers that needed no key.
const LOCAL: KeyId = KeyId(u32::MAX);

/// The id of what is received from others.
const RECEIVED: KeyId = KeyId(u32::MAX - 1);

/// The first id of the configured ingests: beyond every key, of which there are 2^16 at most.
const INGEST: u32 = 1 << 16;

impl KeyId {
    /// The id of the configured ingest of that index: nobody else has it.
    #[must_use]
    pub fn ingest(index: u16) -> KeyId {
        KeyId(INGEST + u32::from(index))
    }

    /// The id of a stream's only writer if it is received from others: no publisher has it.
    #[must_use]
    pub fn received() -> KeyId {
        RECEIVED
    }
}

/// Why a publisher was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Keys are configured and none was given.
    Missing,
    /// The key is not one of ours, or not for this stream.
    Wrong,
    /// No keys are configured and the publisher is not on a loopback address.
    NotLocal,
}

/// The keys of the configuration.
///
/// Keys are random and long (`headwater keys new` makes 160 bits), so one round of SHA-256 is
/// enough: there is no dictionary to try. Every key is compared in constant time.
#[derive(Debug)]
pub struct Keyring(Vec<KeySetting>);

impl Keyring {
    /// A key ring of these keys.
    #[must_use]
    pub fn new(keys: Vec<KeySetting>) -> Keyring {
        Keyring(keys)
    }

    /// Whether a publisher with `key` may write `name`.
    ///
    /// `client` is the real address behind trusted proxies; `direct` is false if the request
    /// shows any trace of a proxy, which then is never taken for a loopback address.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn check(
        &self,
        key: Option<&str>,
        name: &StreamName,
        client: IpAddr,
        direct: bool,
    ) -> Result<KeyId, KeyRefusal> {
        if self.0.is_empty() {
            let local = direct && client.to_canonical().is_loopback();
            return if local { Ok(LOCAL) } else { Err(KeyRefusal::NotLocal) };
        }
        let hash = digest(&SHA256, key.ok_or(KeyRefusal::Missing)?.as_bytes());
        let mut found = Err(KeyRefusal::Wrong);
        for (index, entry) in self.0.iter().enumerate() {
            let same = verify_slices_are_equal(hash.as_ref(), &entry.sha256).is_ok();
            if same && (entry.streams.is_empty() || entry.streams.contains(name)) {
                let index = u16::try_from(index).map_err(|_| KeyRefusal::Wrong);
                found = index.map(|index| KeyId(u32::from(index)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, streams: &[&str]) -> KeySetting {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        KeySetting { sha256, streams: streams.iter().map(|s| s.parse().unwrap()).collect() }
    }

    #[test]
    fn without_keys_only_direct_loopback_publishes() {
        let ring = Keyring::new(vec![]);
        let name = "a".parse().unwrap();
        let check = |ip: &str, direct| ring.check(None, &name, ip.parse().unwrap(), direct);
        assert_eq!(check("127.0.0.1", true), Ok(LOCAL));
        assert_eq!(check("::1", true), Ok(LOCAL));
        assert_eq!(check("::ffff:127.0.0.1", true), Ok(LOCAL));
        assert_eq!(check("127.0.0.1", false), Err(KeyRefusal::NotLocal));
        assert_eq!(check("192.0.2.1", true), Err(KeyRefusal::NotLocal));
    }

    #[test]
    fn keys_open_their_streams_only() {
        let ring = Keyring::new(vec![setting("one", &["cam1"]), setting("all", &[])]);
        let ip = "192.0.2.1".parse().unwrap();
        let (cam1, cam2) = ("cam1".parse().unwrap(), "cam2".parse().unwrap());
        assert_eq!(ring.check(None, &cam1, ip, true), Err(KeyRefusal::Missing));
        assert_eq!(ring.check(Some("two"), &cam1, ip, true), Err(KeyRefusal::Wrong));
        assert_eq!(ring.check(Some("one"), &cam1, ip, true), Ok(KeyId(0)));
        assert_eq!(ring.check(Some("one"), &cam2, ip, true), Err(KeyRefusal::Wrong));
        assert_eq!(ring.check(Some("all"), &cam2, ip, false), Ok(KeyId(1)));
    }
}
