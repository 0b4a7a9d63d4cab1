//! The one table of keys: defaults, manual, environment names and suggestions all come from it.

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Section and name: `listen.http`.
    pub path: &'static str,
    /// What may be written, in TOML's terms.
    pub kind: Kind,
    /// The default as it would stand in the file.
    pub default: &'static str,
    /// What the key does, with its unit; lines of the manual.
    pub doc: &'static [&'static str],
    /// What may be written, in words.
    pub allowed: &'static str,
    /// The flag of `headwater relay` that sets the key; empty: none does.
    pub flag: &'static str,
    /// When a changed value takes effect.
    pub reload: Reload,
    /// Other names that people try first.
    pub synonyms: &'static [&'static str],
}

/// What may be written for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer.
    Integer,
    /// `true` or `false`.
    Bool,
    /// A string or an integer.
    Mixed,
    /// An array of strings.
    List,
    /// An array of strings and of tables with the names in [`KEY_FIELDS`].
    Keys,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At the next start of the process.
    Restart,
}

impl Reload {
    /// The word for it in the manual.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reload::Restart => "restart",
        }
    }
}

/// The names of the table form of one publish key.
pub const KEY_FIELDS: [&str; 2] = ["sha256", "streams"];

/// What a section is about, in the order in which the file is printed.
pub const SECTIONS: &[(&str, &str)] = &[
    ("listen", "Where connections come in."),
    ("cores", "How the work is spread over processor cores."),
    ("memory", "Memory that is reserved once, at start."),
    ("streams", "What is kept of each stream."),
    ("hls", "HTTP Live Streaming."),
    ("viewers", "Viewers that cannot keep up."),
    ("swarm", "Viewers that share: `headwater peer` and other peers of RFC 7574, over UDP."),
    ("publish", "Who may send a stream."),
    ("limits", "Beyond a limit newcomers are refused; nobody inside is degraded."),
    ("proxy", "Reverse proxies in front of the relay."),
    ("http", "Answers to browsers."),
    ("state", "What outlives the process."),
    ("log", "What is reported, and how."),
    ("ready", "A sign that the relay serves."),
];

/// One name of an `[[ingest]]`.
#[derive(Debug)]
pub struct Field {
    /// The name.
    pub name: &'static str,
    /// What it is; lines of the manual.
    pub doc: &'static [&'static str],
    /// What may be written, in words.
    pub allowed: &'static str,
    /// How it may stand in a file.
    pub example: &'static str,
}

/// What an `[[ingest]]` is. It has no default, no variable and no flag.
pub const INGEST_ABOUT: &[&str] = &[
    "Streams that come in otherwise than over HTTP: one [[ingest]] for each, with either udp or",
    "tcp. The first sender has the stream; others are refused until it has been silent for 3 s.",
];

/// The names of an `[[ingest]]`.
pub const INGEST_FIELDS: &[Field] = &[
    Field {
        name: "stream",
        doc: &["The stream that is filled."],
        allowed: "a stream name",
        example: r#""cam1""#,
    },
    Field {
        name: "udp",
        doc: &["Where datagrams come in: MPEG-TS or RTP with MPEG-TS, told apart by themselves."],
        allowed: "ADDRESS:PORT of this host or of a multicast group; port 0: the system chooses",
        example: r#""239.1.2.3:5000""#,
    },
    Field {
        name: "tcp",
        doc: &["Where the relay listens for connections that bring MPEG-TS and nothing else."],
        allowed: "ADDRESS:PORT; port 0: the system chooses",
        example: r#""127.0.0.1:5001""#,
    },
    Field {
        name: "interface",
        doc: &["The interface on which a multicast group is joined. Absent: the system chooses."],
        allowed: "for IPv4 an address of the interface, for IPv6 its index",
        example: r#""192.0.2.1""#,
    },
    Field {
        name: "allow",
        doc: &[
            "Who may send. Absent: programs on this machine; a multicast group has no default.",
            "The address in a datagram can be forged: let a firewall guard what the net can reach.",
        ],
        allowed: "an array of ADDRESS/PREFIX",
        example: r#"["192.0.2.0/24"]"#,
    },
];

const BASE: Key = Key {
    path: "",
    kind: Kind::Text,
    default: "",
    doc: &[],
    allowed: "",
    flag: "",
    reload: Reload::Restart,
    synonyms: &[],
};

const SIZE: &str = "bytes, or a whole number with KiB, MiB, GiB (powers of 1024) or kB, MB, GB";

/// Every key, in the order in which the file is printed.
pub static KEYS: &[Key] = &[
    Key {
        path: "listen.http",
        default: r#""[::]:8080""#,
        doc: &["Address and port for viewers and publishers. \"[::]\" takes IPv6 and IPv4."],
        allowed: "ADDRESS:PORT, an IPv6 address in brackets; port 0: the system chooses",
        flag: "--http",
        synonyms: &["bind", "address", "port", "addr", "host"],
        ..BASE
    },
    Key {
        path: "listen.control",
        default: r#""127.0.0.1:9464""#,
        doc: &[
            "Address and port for /metrics, /livez, /readyz and the JSON API.",
            "It asks for no password: keep it on a loopback or private address.",
        ],
        allowed: "ADDRESS:PORT, an IPv6 address in brackets; port 0: the system chooses",
        flag: "--control",
        synonyms: &["metrics", "admin", "api"],
        ..BASE
    },
    Key {
        path: "cores.shards",
        kind: Kind::Mixed,
        default: r#""auto""#,
        doc: &["Threads that serve connections. \"auto\": one per available core."],
        allowed: "\"auto\" or 1 to 256",
        flag: "--shards",
        synonyms: &["worker", "workers", "threads", "cores"],
        ..BASE
    },
    Key {
        path: "cores.pin",
        kind: Kind::Bool,
        default: "true",
        doc: &["Whether each of these threads stays on a core of its own."],
        allowed: "true or false",
        synonyms: &["affinity", "pinning"],
        ..BASE
    },
    Key {
        path: "cores.busy_target",
        kind: Kind::Integer,
        default: "35",
        doc: &[
            "Percent of a core above which its shard gathers bytes longer before it sends, which",
            "costs delay and saves work; below it the delay shrinks again.",
        ],
        allowed: "5 to 90",
        synonyms: &["busy", "load"],
        ..BASE
    },
    Key {
        path: "cores.io_driver",
        default: r#""auto""#,
        doc: &["How the kernel is asked. \"auto\": io_uring where it works, else epoll."],
        allowed: "\"auto\", \"uring\" or \"epoll\"",
        flag: "--io-driver",
        synonyms: &["driver", "io", "backend"],
        ..BASE
    },
    Key {
        path: "memory.arena",
        kind: Kind::Mixed,
        default: r#""256MiB""#,
        doc: &["Size of the memory in which the windows of all streams lie."],
        allowed: SIZE,
        flag: "--memory",
        synonyms: &["size", "max", "limit"],
        ..BASE
    },
    Key {
        path: "streams.max",
        kind: Kind::Integer,
        default: "16",
        doc: &["The most streams that are live or held at one time."],
        allowed: "1 to 4096",
        synonyms: &["limit", "count", "max_streams"],
        ..BASE
    },
    Key {
        path: "streams.window",
        default: r#""30s""#,
        doc: &[
            "How much of a stream is kept, in time. Its memory may end it earlier. HLS players",
            "need hls.segment x 2 x (hls.playlist + 1), so at least that is kept.",
        ],
        allowed: "a duration from \"4s\" to \"1h\"",
        synonyms: &["buffer", "history"],
        ..BASE
    },
    Key {
        path: "streams.memory",
        kind: Kind::Mixed,
        default: r#""auto""#,
        doc: &[
            "The most memory of one stream's window, reserved when it goes live.",
            "\"auto\": memory.arena / streams.max.",
        ],
        allowed: "\"auto\" or a size: bytes, KiB, MiB, GiB, kB, MB, GB",
        synonyms: &["size", "window_bytes"],
        ..BASE
    },
    Key {
        path: "streams.linger",
        default: r#""30s""#,
        doc: &["How long viewers are held after a publisher vanished."],
        allowed: "a duration up to \"1h\"",
        synonyms: &["hold", "grace"],
        ..BASE
    },
    Key {
        path: "hls.segment",
        default: r#""2s""#,
        doc: &["How long segments shall be. They are cut at the key frames nearest to it."],
        allowed: "a duration from \"500ms\" to \"10s\"",
        synonyms: &["segment_duration", "target_duration", "fragment", "hls_time"],
        ..BASE
    },
    Key {
        path: "hls.playlist",
        kind: Kind::Integer,
        default: "6",
        doc: &["How many segments a playlist lists."],
        allowed: "3 to 60",
        synonyms: &["playlist_length", "hls_list_size", "segments"],
        ..BASE
    },
    Key {
        path: "viewers.max_lag",
        default: r#""5s""#,
        doc: &["How far a viewer may fall behind before it jumps to the newest access point."],
        allowed: "a duration from \"500ms\" to \"1h\"",
        synonyms: &["lag"],
        ..BASE
    },
    Key {
        path: "viewers.max_jumps_per_minute",
        kind: Kind::Integer,
        default: "6",
        doc: &["Jumps in one minute after which a viewer is closed as too slow."],
        allowed: "1 to 1000",
        synonyms: &["max_jumps", "jumps"],
        ..BASE
    },
    Key {
        path: "viewers.max_batch_delay",
        default: r#""200ms""#,
        doc: &[
            "The longest that a busy shard gathers bytes before it sends them. An idle shard",
            "sends at once; see cores.busy_target.",
        ],
        allowed: "a duration from \"1ms\" to \"2s\"",
        synonyms: &["batch_delay", "merge_write", "coalesce"],
        ..BASE
    },
    Key {
        path: "viewers.stall_timeout",
        default: r#""30s""#,
        doc: &["How long a connection may take nothing at all before it is closed."],
        allowed: "a duration from \"1s\" to \"1h\"",
        synonyms: &["timeout"],
        ..BASE
    },
    Key {
        path: "swarm.listen",
        default: r#""auto""#,
        doc: &[
            "Address and UDP port for peers. \"auto\": those of listen.http. \"off\": no swarm,",
            "and nothing is signed.",
        ],
        allowed: "\"auto\", \"off\" or ADDRESS:PORT; port 0: the system chooses",
        flag: "--swarm",
        synonyms: &["udp", "port", "bind", "ppspp"],
        ..BASE
    },
    Key {
        path: "swarm.advertise",
        kind: Kind::List,
        default: "[]",
        doc: &[
            "Public addresses that peers are told. Empty: the name by which they asked for the",
            "stream, and the port of swarm.listen.",
        ],
        allowed: "an array of HOST:PORT, an IPv6 address in brackets",
        synonyms: &["public", "external", "announce"],
        ..BASE
    },
    Key {
        path: "swarm.chunk_addressing",
        kind: Kind::Integer,
        default: "4",
        doc: &[
            "How chunks are named (RFC 7574, 7.8): 4 for 64-bit numbers, 2 for 32-bit ones, which",
            "a stream of 2 Mbit/s uses up in 260 days. Chosen when a stream's key is made.",
        ],
        allowed: "2 or 4",
        synonyms: &["addressing", "cam"],
        ..BASE
    },
    Key {
        path: "swarm.chunks_per_signature",
        kind: Kind::Mixed,
        default: r#""auto""#,
        doc: &[
            "Chunks of 1316 bytes under one signature. Fewer: less delay at low bitrates, and more",
            "bytes of hashes. \"auto\": the most that take 150 ms or less, by the bitrate of the",
            "stream's first two seconds; kept with its key.",
        ],
        allowed: "\"auto\", 2, 4, 8 or 16",
        synonyms: &["signature", "nchunks_per_sig", "subtree"],
        ..BASE
    },
    Key {
        path: "swarm.join",
        default: r#""open""#,
        doc: &["Who may join: anybody, or who shows one of swarm.tokens."],
        allowed: "\"open\" or \"token\"",
        synonyms: &["access", "auth"],
        ..BASE
    },
    Key {
        path: "swarm.tokens",
        kind: Kind::List,
        default: "[]",
        doc: &["Hashes of the tokens that let a peer join; `headwater keys new` makes one."],
        allowed: "an array of \"sha256:<64 hex digits>\"",
        synonyms: &["token", "keys", "key", "password"],
        ..BASE
    },
    Key {
        path: "swarm.peers",
        kind: Kind::Integer,
        default: "20000",
        doc: &["Peers of the whole process."],
        allowed: "1 to 10000000",
        synonyms: &["max_peers", "max", "limit"],
        ..BASE
    },
    Key {
        path: "swarm.egress",
        kind: Kind::Mixed,
        default: r#""auto""#,
        doc: &[
            "What may go out to peers. Newcomers are refused for whom there is no room, and all of",
            "them from when nine tenths of it go out until it is less than eight. A peer counts",
            "by what it has the relay send, a tenth of the stream at least; who is new counts as",
            "much as those inside do. Nobody inside is cut off: when peers lose those who feed",
            "them they are served all the same, and for that up to ten times as much goes out.",
            "\"auto\": nine tenths of the network's speed where that is known, else no limit.",
        ],
        allowed: "\"auto\" or a rate: kbit, Mbit, Gbit, such as \"800Mbit\"",
        synonyms: &["budget", "bandwidth", "rate", "upload"],
        ..BASE
    },
    Key {
        path: "swarm.mode",
        default: r#""auto""#,
        doc: &[
            "Who sends to peers. \"direct\": the relay sends everything to everybody, and peers do",
            "not hear of each other. \"hybrid\": the relay sends each part to a few, who pass it",
            "on, and sends whatever they do not bring. \"auto\": hybrid for as long as there are",
            "eight peers and they can upload enough, stream by stream; two are enough where",
            "swarm.egress would have no room for another one in direct mode.",
        ],
        allowed: "\"auto\", \"direct\" or \"hybrid\"",
        synonyms: &["hybrid", "p2p", "share", "sharing", "policy"],
        ..BASE
    },
    Key {
        path: "publish.keys",
        kind: Kind::Keys,
        default: "[]",
        doc: &[
            "Hashes of the keys that may publish; `headwater keys new` makes one. Either",
            "\"sha256:<64 hex digits>\" for all streams or",
            "{ sha256 = \"<64 hex digits>\", streams = [\"cam1\"] } for some.",
            "Empty: anybody on a loopback address may publish, nobody else.",
        ],
        allowed: "an array of \"sha256:...\" and of { sha256 = \"...\", streams = [...] }",
        synonyms: &["key", "password", "token", "tokens"],
        ..BASE
    },
    Key {
        path: "publish.silence",
        default: r#""2500ms""#,
        doc: &["Silence after which a publisher counts as vanished."],
        allowed: "a duration from \"500ms\" to \"3s\"",
        synonyms: &["timeout"],
        ..BASE
    },
    Key {
        path: "limits.viewers",
        kind: Kind::Integer,
        default: "20000",
        doc: &["Viewers of the whole process."],
        allowed: "1 to 10000000",
        synonyms: &["max_viewers", "clients"],
        ..BASE
    },
    Key {
        path: "limits.connections",
        kind: Kind::Mixed,
        default: r#""auto""#,
        doc: &[
            "Connections of the whole process, viewers included.",
            "\"auto\": what the limit of open files (RLIMIT_NOFILE) allows, less 256 or a quarter.",
            "More than that works with io_uring only; raising the limit is simpler.",
        ],
        allowed: "\"auto\" or 1 to 10000000",
        synonyms: &["max_connections", "nofile"],
        ..BASE
    },
    Key {
        path: "limits.per_address",
        kind: Kind::Integer,
        default: "256",
        doc: &["Connections of one IPv4 address or one IPv6 /64."],
        allowed: "1 to 10000000",
        synonyms: &["per_ip"],
        ..BASE
    },
    Key {
        path: "limits.exempt",
        kind: Kind::List,
        default: r#"["127.0.0.0/8", "::1/128"]"#,
        doc: &["Networks to which limits.per_address does not apply."],
        allowed: "an array of ADDRESS/PREFIX",
        synonyms: &["allow", "whitelist"],
        ..BASE
    },
    Key {
        path: "limits.request_timeout",
        default: r#""10s""#,
        doc: &[
            "The longest time for one whole request head, and for which an idle connection",
            "is kept open.",
        ],
        allowed: "a duration from \"1s\" to \"10m\"",
        synonyms: &["timeout", "header_timeout", "keepalive"],
        ..BASE
    },
    Key {
        path: "limits.head_bytes",
        kind: Kind::Integer,
        default: "16384",
        doc: &["The most bytes of one request head."],
        allowed: "1024 to 262144",
        synonyms: &["max_header_bytes", "header_bytes"],
        ..BASE
    },
    Key {
        path: "limits.header_lines",
        kind: Kind::Integer,
        default: "64",
        doc: &["The most header lines of one request."],
        allowed: "8 to 256",
        synonyms: &["max_headers", "headers"],
        ..BASE
    },
    Key {
        path: "proxy.trusted",
        kind: Kind::List,
        default: "[]",
        doc: &["Proxies whose X-Forwarded-For is believed."],
        allowed: "an array of ADDRESS/PREFIX",
        synonyms: &["trusted_proxies", "proxies"],
        ..BASE
    },
    Key {
        path: "http.cors",
        default: r#""*""#,
        doc: &["Value of Access-Control-Allow-Origin. Empty: the header is not sent."],
        allowed: "\"*\", an origin such as \"https://example.org\", or \"\"",
        synonyms: &["origin", "allow_origin"],
        ..BASE
    },
    Key {
        path: "state.dir",
        default: r#""""#,
        doc: &["Directory for what outlives the process. Empty: nothing is kept."],
        allowed: "a path",
        flag: "--state",
        synonyms: &["directory", "path"],
        ..BASE
    },
    Key {
        path: "log.format",
        default: r#""auto""#,
        doc: &["\"auto\": the journal where systemd has connected it, else text on stdout."],
        allowed: "\"auto\", \"text\", \"json\" or \"journald\"",
        synonyms: &["style", "output"],
        ..BASE
    },
    Key {
        path: "log.level",
        default: r#""info""#,
        doc: &["What is worth a line: a level, or a filter such as \"info,headwater::io=debug\"."],
        allowed: "off, error, warn, info, debug, trace, or TARGET=LEVEL joined by commas",
        flag: "--log-level",
        synonyms: &["filter", "verbosity"],
        ..BASE
    },
    Key {
        path: "ready.file",
        default: r#""""#,
        doc: &["File that is written when every socket is bound, with the real ports."],
        allowed: "a path",
        flag: "--ready-file",
        synonyms: &["path", "ready_file"],
        ..BASE
    },
];

impl Key {
    /// The section that the key stands in.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The key's name inside its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable that sets the key: `HEADWATER_LISTEN_HTTP`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// What the names of all our environment variables begin with.
pub const VARIABLE_PREFIX: &str = "HEADWATER_";

/// The key of that path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The keys of one section, in order.
pub fn of_section(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

/// The candidate most like `typed`, if one is like enough to be meant.
#[must_use]
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&typed, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What somebody who wrote `name` in `section` may have meant: the same name elsewhere, a likely
/// name of that section, or a key of which it is a synonym.
#[must_use]
pub fn suggest(section: &str, name: &str) -> Option<&'static Key> {
    let names = of_section(section).map(Key::name);
    let near = nearest(name, names).and_then(|near| of_section(section).find(|k| k.name() == near));
    KEYS.iter()
        .find(|key| key.name() == name)
        .or(near)
        .or_else(|| of_section(section).find(|key| key.synonyms.contains(&name)))
        .or_else(|| KEYS.iter().find(|key| key.synonyms.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_stands_in_a_known_section() {
        for key in KEYS {
            assert!(SECTIONS.iter().any(|(name, _)| *name == key.section()), "{}", key.path);
            assert!(!key.doc.is_empty() && !key.allowed.is_empty(), "{}", key.path);
            assert_eq!(KEYS.iter().filter(|k| k.path == key.path).count(), 1, "{}", key.path);
            assert_eq!(KEYS.iter().filter(|k| k.variable() == key.variable()).count(), 1);
        }
        for (section, _) in SECTIONS {
            assert!(of_section(section).next().is_some(), "[{section}] has no key");
        }
    }

    #[test]
    fn suggestions_know_typing_errors_synonyms_and_other_sections() {
        let path = |section, name| suggest(section, name).map(|key| key.path);
        assert_eq!(path("cores", "shard"), Some("cores.shards"));
        assert_eq!(path("cores", "worker"), Some("cores.shards"));
        assert_eq!(path("listen", "port"), Some("listen.http"));
        assert_eq!(path("streams", "max_lag"), Some("viewers.max_lag"));
        assert_eq!(path("streams", "qqq"), None);
        assert_eq!(nearest("lsiten", ["listen", "limits"]), Some("listen"));
    }
}
