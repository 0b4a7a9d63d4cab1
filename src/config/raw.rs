//! What was typed, key by key: nothing checked but the type, nothing filled in.
//!
//! Every field is an Option, also the flags: so a layer that does not mention a key leaves the
//! layer below as it is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use toml::Spanned;

/// A value that may be a word or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mixed {
    /// A whole number.
    Number(i64),
    /// Anything in quotes.
    Text(String),
}

/// One publish key as typed.
#[derive(Clone, Debug)]
pub enum PublishKey {
    /// `"sha256:<hex>"`
    Hash(String),
    /// `{ sha256 = "<hex>", streams = ["a"] }`
    Table(KeyTable),
}

/// The table form of one publish key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyTable {
    /// The hash.
    pub sha256: Spanned<String>,
    /// The streams; absent: all.
    #[serde(default)]
    pub streams: Vec<Spanned<String>>,
}

/// A list of strings, each with its place.
pub type List = Vec<Spanned<String>>;

/// One `[[ingest]]` as typed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// `stream`
    pub stream: Option<Spanned<String>>,
    /// `udp`
    pub udp: Option<Spanned<String>>,
    /// `tcp`
    pub tcp: Option<Spanned<String>>,
    /// `interface`
    pub interface: Option<Spanned<Mixed>>,
    /// `allow`
    pub allow: Option<Spanned<List>>,
}

/// As TOML, a line for each name that was given.
impl fmt::Display for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| toml::Value::String(text.to_owned());
        let plain = |typed: &Option<Spanned<String>>| typed.as_ref().map(|t| text(t.get_ref()));
        let interface = self.interface.as_ref().map(|typed| match typed.get_ref() {
            Mixed::Number(index) => toml::Value::Integer(*index),
            Mixed::Text(address) => text(address),
        });
        let list =
            |list: &Spanned<List>| list.get_ref().iter().map(|t| text(t.get_ref())).collect();
        let allow = self.allow.as_ref().map(|typed| toml::Value::Array(list(typed)));
        let values = [
            ("stream", plain(&self.stream)),
            ("udp", plain(&self.udp)),
            ("tcp", plain(&self.tcp)),
            ("interface", interface),
            ("allow", allow),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                writeln!(f, "{name} = {value}")?;
            }
        }
        Ok(())
    }
}

/// Defines the sections, the whole of them, and how one layer covers another.
macro_rules! sections {
    ($($section:ident: $Section:ident { $($key:ident: $Type:ty),* $(,)? })*) => {
        /// A whole configuration as typed.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Raw {
            $(
                #[doc = concat!("`[", stringify!($section), "]`")]
                pub $section: $Section,
            )*
            /// `[[ingest]]`: in the file only.
            pub ingest: Option<Vec<Spanned<Ingest>>>,
        }

        impl Raw {
            /// Lays `upper` over this one: what it mentions covers what was here.
            pub fn cover(&mut self, upper: Raw) {
                $($(
                    if upper.$section.$key.is_some() {
                        self.$section.$key = upper.$section.$key;
                    }
                )*)*
                if upper.ingest.is_some() {
                    self.ingest = upper.ingest;
                }
            }
        }

        $(
            #[doc = concat!("`[", stringify!($section), "]` as typed.")]
            #[derive(Debug, Default, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section {
                $(
                    #[doc = concat!("`", stringify!($section), ".", stringify!($key), "`")]
                    pub $key: Option<Spanned<$Type>>,
                )*
            }
        )*
    };
}

sections! {
    listen: Listen { http: String, control: String }
    cores: Cores { shards: Mixed, pin: bool, busy_target: i64, io_driver: String }
    memory: Memory { arena: Mixed }
    streams: Streams { max: i64, window: String, memory: Mixed, linger: String }
    hls: Hls { segment: String, playlist: i64 }
    viewers: Viewers {
        max_lag: String,
        max_jumps_per_minute: i64,
        max_batch_delay: String,
        stall_timeout: String,
    }
    swarm: Swarm {
        listen: String,
        advertise: List,
        chunk_addressing: i64,
        chunks_per_signature: Mixed,
        join: String,
        tokens: List,
        peers: i64,
        egress: Mixed,
        mode: String,
    }
    publish: Publish { keys: Vec<Spanned<PublishKey>>, silence: String }
    limits: Limits {
        viewers: i64,
        connections: Mixed,
        per_address: i64,
        exempt: List,
        request_timeout: String,
        head_bytes: i64,
        header_lines: i64,
    }
    proxy: Proxy { trusted: List }
    http: Http { cors: String }
    state: State { dir: String }
    log: Log { format: String, level: String }
    ready: Ready { file: String }
}

impl<'de> Deserialize<'de> for Mixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mixed, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Mixed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Mixed, E> {
                Ok(Mixed::Number(number))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Mixed, E> {
                Ok(Mixed::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for PublishKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PublishKey, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PublishKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string \"sha256:...\" or a table { sha256, streams }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PublishKey, E> {
                Ok(PublishKey::Hash(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PublishKey, A::Error> {
                KeyTable::deserialize(MapAccessDeserializer::new(map)).map(PublishKey::Table)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
