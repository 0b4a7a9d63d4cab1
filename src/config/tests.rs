//! The configuration as a whole: sources over each other, every message word for word.

use std::io::Write;
use std::time::Duration;

use super::resolved::{Choice, IoDriver, LogFormat};
use super::sources::{Override, Source};
use super::table::{KEYS, Kind};
use super::*;
use crate::ingest::settings::Way;
use crate::swarm::settings::{Addressing, Join, Mode, SubtreeSize};

/// Loads `text` as a file; the file's name is replaced by `F` in messages.
fn load_all(text: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Outcome {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    let flags: Vec<_> =
        flags.iter().map(|(flag, value)| Override { flag, value: (*value).to_owned() }).collect();
    let name = file.path().display().to_string();
    load(Some(file.path()), env, &flags).map_err(|error| error.to_string().replace(&name, "F"))
}

type Outcome = Result<Loaded, String>;

fn file(text: &str) -> Outcome {
    load_all(text, &[], &[])
}

fn message(text: &str) -> String {
    file(text).map(|_| ()).unwrap_err()
}

#[test]
fn defaults_are_what_the_manual_says() {
    let config = load(None, [], &[]).unwrap().config;
    assert_eq!(config.listen.http, "[::]:8080".parse().unwrap());
    assert_eq!(config.listen.control, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(config.cores.shards, Choice::Auto);
    assert!(config.cores.pin);
    assert_eq!(config.cores.io_driver, IoDriver::Auto);
    assert_eq!(config.arena, 256 << 20);
    assert_eq!(config.connections, Choice::Auto);
    assert_eq!((config.state_dir.clone(), config.ready_file.clone()), (None, None));
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Auto, "info"));
    let registry = config.registry(77);
    assert_eq!((registry.max_streams, registry.window_bytes), (16, 16 << 20));
    assert_eq!(
        (registry.window, registry.linger),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert!(registry.keys.is_empty());
    assert_eq!((registry.limits.viewers, registry.limits.per_address), (20_000, 256));
    assert_eq!(registry.limits.connections, 77);
    assert!(registry.limits.exempt.iter().any(|net| net.contains("::1".parse().unwrap())));
    assert_eq!(config.http.publisher_silence, Duration::from_millis(2500));
    assert_eq!((config.http.head_bytes, config.http.header_lines), (16_384, 64));
    assert_eq!(config.http.request_timeout, Duration::from_secs(10));
    assert_eq!((config.http.cors.as_str(), config.http.trusted_proxies.len()), ("*", 0));
    assert_eq!((config.shard.max_lag, config.shard.max_jumps), (Duration::from_secs(5), 6));
    assert_eq!(config.shard.stall_timeout, Duration::from_secs(30));
    assert_eq!(config.shard.max_batch_delay, Duration::from_millis(200));
    assert!((config.shard.busy_target - 0.35).abs() < 1e-9);
}

#[test]
fn the_swarm_is_where_http_is_unless_it_is_told_otherwise() {
    let swarm = |text: &str| load_all(text, &[], &[]).unwrap().config.swarm;
    let default = swarm("");
    assert_eq!(default.listen, Some("[::]:8080".parse().unwrap()));
    assert!(default.advertise.is_empty() && default.size.is_none() && default.egress.is_none());
    assert_eq!((default.addressing, default.join), (Addressing::Chunks64, Join::Open));
    assert_eq!((default.peers, default.mode), (20_000, Mode::Auto));
    for (word, mode) in [("direct", Mode::Direct), ("hybrid", Mode::Hybrid), ("auto", Mode::Auto)] {
        assert_eq!(swarm(&format!("[swarm]\nmode = \"{word}\"\n")).mode, mode);
    }
    let moved = load_all("", &[], &[("--http", "127.0.0.1:0")]).unwrap().config;
    assert_eq!(moved.swarm.listen, Some("127.0.0.1:0".parse().unwrap()));
    assert_eq!(swarm("[swarm]\nlisten = \"off\"\n").listen, None);
    let text = "[swarm]\nlisten = \"[::1]:9000\"\nadvertise = [\"a.example:1\", \"[::1]:2\"]\n\
                chunk_addressing = 2\nchunks_per_signature = 4\njoin = \"token\"\n\
                tokens = [\"sha256:TT\"]\npeers = 7\negress = \"1Gbit\"\n";
    let all = swarm(&text.replace("TT", &"ab".repeat(32)));
    assert_eq!(all.listen, Some("[::1]:9000".parse().unwrap()));
    assert_eq!(all.advertise, ["a.example:1", "[::1]:2"]);
    assert_eq!((all.addressing, all.size), (Addressing::Chunks32, SubtreeSize::new(4)));
    assert_eq!(all.join, Join::Token(vec![[0xab; 32]]));
    assert_eq!((all.peers, all.egress), (7, Some(1_000_000_000)));
}

#[test]
fn mistakes_about_the_swarm_are_named() {
    for (text, word) in [
        ("listen = \"8080\"", "[::]:8080"),
        ("advertise = [\"0.0.0.0:1\"]", "is nowhere"),
        ("chunk_addressing = 3", "2 or 4"),
        ("chunks_per_signature = 5", "5 is no size"),
        ("chunks_per_signature = \"many\"", "auto"),
        ("join = \"tokens\"", "did you mean \"token\""),
        ("join = \"token\"", "nobody could join"),
        ("egress = 20", "add a unit"),
        ("mode = \"hybird\"", "did you mean \"hybrid\""),
        ("peers = 0", "out of range"),
    ] {
        let told = message(&format!("[swarm]\n{text}\n"));
        assert!(told.contains(word), "{text}: {told}");
    }
    let secret = message("[swarm]\ntokens = [\"my secret\"]\n");
    assert!(secret.contains("headwater keys new") && !secret.contains("secret\""), "{secret}");
    let ingest = "[swarm]\nlisten = \"127.0.0.1:5000\"\n\
                  [[ingest]]\nstream = \"cam\"\nudp = \"127.0.0.1:5000\"\n";
    assert!(message(ingest).contains("collide"));
}

#[test]
fn a_window_is_long_enough_for_two_playlists_and_a_long_segment() {
    let window = |text: &str| load_all(text, &[], &[]).unwrap().config.registry(1).window;
    assert_eq!(window("[streams]\nwindow = \"5s\"\n"), Duration::from_secs(28));
    let text = "[streams]\nwindow = \"5s\"\n[hls]\nsegment = \"500ms\"\nplaylist = 3\n";
    assert_eq!(window(text), Duration::from_secs(5));
    let text = "[hls]\nsegment = \"10s\"\nplaylist = 60\n";
    assert_eq!(window(text), Duration::from_secs(1220));
}

#[test]
fn stronger_sources_cover_weaker_ones_key_by_key() {
    let text = "[streams]\nmax = 4\nlinger = \"1s\"\nwindow = \"50s\"\n[cores]\npin = false\n";
    let env = [("HEADWATER_STREAMS_LINGER", "2s"), ("HEADWATER_STREAMS_WINDOW", "60s")];
    let loaded = load_all(text, &env, &[("--memory", "32MiB")]).unwrap();
    let registry = loaded.config.registry(1);
    assert_eq!(registry.max_streams, 4);
    assert_eq!(registry.linger, Duration::from_secs(2));
    assert_eq!(registry.window, Duration::from_secs(60));
    assert_eq!(registry.window_bytes, 8 << 20, "auto: arena / max");
    assert!(!loaded.config.cores.pin, "a flag that was not given resets nothing");
    let source = |path| loaded.layers.origin(path).unwrap().source.clone();
    assert_eq!(source("cores.pin"), Source::File);
    assert_eq!(source("streams.linger"), Source::Variable("HEADWATER_STREAMS_LINGER".to_owned()));
    assert_eq!(source("memory.arena"), Source::Flag("--memory"));
    assert_eq!(source("viewers.max_lag"), Source::Default);
}

/// Each key can be set through its variable, and the raw structs know each key of the table.
#[test]
fn every_key_has_a_working_variable() {
    for key in KEYS {
        let value = key.default.trim_matches('"').to_owned();
        let loaded = load(None, [(key.variable().into(), value.into())], &[])
            .unwrap_or_else(|error| panic!("{}: {error}", key.path));
        let origin = loaded.layers.origin(key.path).unwrap();
        assert_eq!(origin.source, Source::Variable(key.variable()));
        if !matches!(key.kind, Kind::List | Kind::Keys) {
            assert_eq!(origin.literal, key.default);
        }
    }
}

#[test]
fn lists_in_variables_are_arrays_or_words_with_commas() {
    let nets = |value| {
        let loaded = load_all("", &[("HEADWATER_PROXY_TRUSTED", value)], &[]);
        loaded.map(|loaded| loaded.config.http.trusted_proxies.len())
    };
    assert_eq!(nets("10.0.0.0/8, ::1"), Ok(2));
    assert_eq!(nets("[\"10.0.0.0/8\", '::1']"), Ok(2));
    assert_eq!(nets(""), Ok(0));
    // What looks like a second key stays a word of this one.
    assert!(nets("[]\nsneaky = 1").unwrap_err().contains("is not a network"));
}

#[test]
fn unknown_names_are_shown_with_what_was_meant() {
    let want = "\
F:2:1: error: unknown key \"worker\" in [cores]
  |
2 | worker = 2
  | ^^^^^^
  = help: did you mean \"shards\"?
";
    assert_eq!(message("[cores]\nworker = 2\n"), want);
    let two = message("[lisen]\n[streams]\nmax_lag = 1\nzzz = 1\n");
    assert!(two.contains("F:1:2: error: unknown section [lisen]"), "{two}");
    assert!(two.contains("help: did you mean [listen]?"), "{two}");
    assert!(two.contains("F:3:1: error: unknown key \"max_lag\" in [streams]"), "{two}");
    assert!(two.contains("help: did you mean \"max_lag\" in [viewers]?"), "{two}");
    assert!(two.contains("help: allowed: max, window, memory, linger"), "{two}");
    assert!(message("shards = 2").contains("did you mean \"shards\" in [cores]?"));
    assert!(message("listen = 2").contains("\"listen\" is a section, not a value"));
    let key = message("[publish]\nkeys = [{ sha265 = \"\" }]");
    assert!(key.contains("F:2:11: error: unknown name \"sha265\" in a publish key"), "{key}");
    assert!(key.contains("did you mean \"sha256\"?"), "{key}");
}

#[test]
fn wrong_types_and_syntax_have_a_place() {
    let want = "\
F:2:10: error: [streams] window: invalid type: integer `30`, expected a string
  |
2 | window = 30
  |          ^^
  = help: allowed: a duration from \"4s\" to \"1h\"
";
    assert_eq!(message("[streams]\nwindow = 30\n"), want);
    let pin = message("[cores]\npin = \"yes\"");
    assert!(pin.starts_with("F:2:7: error: [cores] pin: invalid type: string"), "{pin}");
    assert!(message("[cores\n").starts_with("F:1:7: error: "), "{}", message("[cores\n"));
    assert!(message("[cores]\npin = true\npin = true").starts_with("F:3:1: error: duplicate key"));
}

#[test]
fn values_out_of_range_have_a_place_and_a_remedy() {
    let want = "\
F:2:11: error: [publish] silence: \"10s\" is out of range
  |
2 | silence = \"10s\"
  |           ^^^^^
  = help: allowed: a duration from \"500ms\" to \"3s\"
";
    assert_eq!(message("[publish]\nsilence = \"10s\"\n"), want);
    for (section, line, what) in [
        ("publish", "silence = \"499ms\"", "out of range"),
        ("streams", "window = \"3999ms\"", "out of range"),
        ("streams", "max = 0", "out of range"),
        ("streams", "max = -1", "out of range"),
        ("memory", "arena = \"7MiB\"", "the arena has 8 MiB"),
        ("memory", "arena = \"256M\"", "write MiB or MB"),
        ("cores", "shards = 257", "out of range"),
        ("cores", "shards = \"many\"", "neither \"auto\" nor a number"),
        ("cores", "io_driver = \"urnig\"", "did you mean \"uring\"?"),
        ("limits", "head_bytes = 100", "out of range"),
        ("limits", "header_lines = 1000", "out of range"),
        ("limits", "exempt = [\"::1\", \"10.0.0.0/33\"]", "too long for IPv4"),
        ("listen", "http = \"localhost:80\"", "\"127.0.0.1:80\""),
        ("http", "cors = \"*\\r\\nX: y\"", "is not an origin"),
        ("log", "level = \"inf\"", "did you mean \"info\"?"),
        ("log", "level = \"headwater=loud\"", "is not a log filter"),
        ("log", "format = \"xml\"", "none of the choices"),
    ] {
        let message = message(&format!("[{section}]\n{line}\n"));
        assert!(message.starts_with("F:2:") && message.contains(what), "{line}: {message}");
    }
    let exempt = message("[limits]\nexempt = [\"::1\", \"10.0.0.0/33\"]");
    assert!(exempt.starts_with("F:2:18: "), "the place is the item: {exempt}");
    for good in ["debug", "info,headwater::io=trace", "headwater::io", "WARN"] {
        file(&format!("[log]\nlevel = {good:?}")).unwrap();
    }
}

#[test]
fn publish_keys_are_read_in_both_forms_and_never_shown() {
    let hash = "0123456789abcdef".repeat(4);
    let text = format!(
        "[publish]\nkeys = [\"sha256:{hash}\", {{ sha256 = \"{}\", streams = [\"cam1\"] }}]",
        hash.replace('0', "1")
    );
    let keys = file(&text).unwrap().config.registry(1).keys;
    assert_eq!(keys[0].sha256[..2], [0x01, 0x23]);
    assert_eq!(keys[1].sha256[..2], [0x11, 0x23]);
    assert_eq!((keys[0].streams.len(), keys[1].streams[0].as_str()), (0, "cam1"));

    let twice =
        message(&format!("[publish]\nkeys = [\"sha256:{hash}\", {{ sha256 = \"{hash}\" }}]"));
    assert!(twice.contains("the same hash a second time"), "{twice}");
    let name =
        message(&format!("[publish]\nkeys = [{{ sha256 = \"{hash}\", streams = [\"a/b\"] }}]"));
    assert!(name.contains("a stream name may hold only"), "{name}");
    assert!(message(&format!("[publish]\nkeys = [\"{hash}\"]")).contains("write \"sha256:\""));
    let secret = message("[publish]\nkeys = [\"hush hush\"]");
    assert!(secret.contains("F:2:9: error: [publish] keys: not a hash"), "{secret}");
    assert!(!secret.contains("hush"), "{secret}");
}

#[test]
fn problems_of_variables_and_flags_name_them() {
    let problem = |env: &[_], flags: &[_]| load_all("", env, flags).map(|_| ()).unwrap_err();
    let want = "\
environment variable HEADWATER_STREAMS_MAX: error: [streams] max: invalid type: string \"many\", \
expected an integer
 = help: allowed: 1 to 4096
";
    assert_eq!(problem(&[("HEADWATER_STREAMS_MAX", "many")], &[]), want);
    let want = "\
flag --shards: error: [cores] shards: \"x\" is neither \"auto\" nor a number
 = help: allowed: \"auto\" or 1 to 256
";
    assert_eq!(problem(&[], &[("--shards", "x")]), want);
    let unknown = problem(&[("HEADWATER_LISTEN_HTPP", "[::]:1")], &[]);
    assert!(unknown.contains("variable HEADWATER_LISTEN_HTPP: error: unknown key \"htpp\""));
    assert!(unknown.contains("did you mean HEADWATER_LISTEN_HTTP?"), "{unknown}");
    // What container platforms set for a service of our name is none of our business.
    load_all("", &[("HEADWATER_SERVICE_HOST", "x"), ("HEADWATER_PORT", "tcp://x")], &[]).unwrap();
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_both_keys() {
    let want = "\
F:2:10: error: [streams] memory x max is 536870912 bytes, but [memory] arena has only 268435456
  |
2 | memory = \"32MiB\"
  |          ^^^^^^^
  = help: lower [streams] memory to 16777216 or max to 8, or raise [memory] arena
";
    assert_eq!(message("[streams]\nmemory = \"32MiB\"\n"), want);
    file("[streams]\nmemory = \"16MiB\"\n").unwrap();
    let small = message("[streams]\nmax = 4096\n");
    assert!(small.starts_with("F:2:7: error: [streams] memory is 65536 bytes"), "{small}");
    let flag = load_all("[streams]\nmax = 100\n", &[], &[("--memory", "8MiB")]);
    assert!(flag.map(|_| ()).unwrap_err().contains("raise [memory] arena"));

    let collide = |http: &str, control: &str| {
        file(&format!("[listen]\nhttp = \"{http}\"\ncontrol = \"{control}\"")).is_err()
    };
    assert!(collide("127.0.0.1:80", "127.0.0.1:80"));
    assert!(collide("[::]:80", "127.0.0.1:80"));
    assert!(collide("0.0.0.0:80", "127.0.0.1:80"));
    assert!(collide("[::1]:80", "[::]:80"));
    assert!(!collide("0.0.0.0:80", "[::1]:80"));
    assert!(!collide("[::]:0", "[::]:0"));
    assert!(!collide("[::]:80", "[::]:81"));
}

#[test]
fn files_that_cannot_be_read_are_told_from_bad_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.toml");
    assert!(matches!(load(Some(&path), [], &[]), Err(Error::Unreadable { .. })));
    std::fs::write(&path, b"[log]\nlevel = \"\xff\"").unwrap();
    let error = load(Some(&path), [], &[]).unwrap_err();
    assert!(matches!(&error, Error::Invalid(_)));
    assert!(error.to_string().contains("none.toml:2:10: error: the file is not UTF-8"), "{error}");
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(load(Some(&path), [], &[]), Err(Error::Invalid(_))));
}

#[test]
fn what_is_printed_can_be_read_again_and_says_the_same() {
    let text = "[proxy]\ntrusted = [\n  \"10.0.0.0/8\", # office\n]\n[log]\nlevel = 'debug'\n";
    let env = [("HEADWATER_HTTP_CORS", "https://a.example")];
    let first = load_all(text, &env, &[("--shards", "3")]).unwrap();
    let printed = print::in_force(&first.layers);
    let again = file(&printed).unwrap();
    assert_eq!(format!("{:?}", first.config), format!("{:?}", again.config));
    assert!(printed.contains("cors = \"https://a.example\"  # environment: HEADWATER_HTTP_CORS\n"));
    assert!(printed.contains("shards = \"3\"  # flag: --shards\n"));
    assert!(printed.contains("max = 16  # default\n"));
    assert!(
        printed
            .lines()
            .any(|line| line.starts_with("level = 'debug'  # /") && line.ends_with(":6"))
    );
}

/// The shipped file is the printer's. After a change of the table, write it anew:
/// `HEADWATER_BLESS=1 cargo test --lib shipped_file`.
#[test]
fn the_shipped_file_is_the_printed_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/headwater.toml");
    if std::env::var_os("HEADWATER_BLESS").is_some() {
        std::fs::write(path, print::defaults()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), print::defaults());
    load(Some(Path::new(path)), [], &[]).unwrap();
    assert!(print::defaults().lines().all(|line| line.len() <= 100));
}

#[test]
fn an_ingest_is_read_with_its_defaults() {
    let text = r#"
[[ingest]]
stream = "cam1"
udp = "239.1.2.3:5000"
interface = "192.0.2.1"
allow = ["192.0.2.0/24"]
[[ingest]]
stream = "cam2"
tcp = "127.0.0.1:5001"
[[ingest]]
stream = "cam3"
udp = "[ff02::7]:5000"
interface = 2
allow = ["fe80::/10"]
[[ingest]]
stream = "cam4"
udp = "[::]:0"
"#;
    let loaded = file(text).unwrap();
    let ingest = &loaded.config.ingest;
    let ways: Vec<_> = ingest.iter().map(|one| one.way).collect();
    let (any, none) = (std::net::Ipv4Addr::UNSPECIFIED, 0);
    let udp = |address: &str, local: std::net::Ipv4Addr, index| Way::Udp {
        address: address.parse().unwrap(),
        local,
        index,
    };
    let local = "192.0.2.1".parse().unwrap();
    assert_eq!(ways[0], udp("239.1.2.3:5000", local, none));
    assert_eq!(ways[1], Way::Tcp { address: "127.0.0.1:5001".parse().unwrap() });
    assert_eq!(ways[2], udp("[ff02::7]:5000", any, 2));
    assert_eq!(ways[3], udp("[::]:0", any, none));
    let allows = |index: usize, ip: &str| {
        ingest[index].allow.iter().any(|net| net.contains(ip.parse().unwrap()))
    };
    assert!(allows(0, "192.0.2.9") && !allows(0, "127.0.0.1"));
    assert!(allows(1, "127.9.9.9") && allows(3, "::1") && !allows(3, "192.0.2.9"));

    let printed = print::in_force(&loaded.layers);
    assert!(printed.contains(":7\nstream = \"cam2\"\ntcp = \"127.0.0.1:5001\"\n"), "{printed}");
    let again = file(&printed).unwrap();
    assert_eq!(again.config.ingest, loaded.config.ingest);
}

#[test]
fn an_ingest_that_cannot_be_is_refused_with_its_place() {
    let want = "\
F:3:7: error: [[ingest]] udp: \"239.1.2.3\" is not an address with a port
  |
3 | udp = \"239.1.2.3\"
  |       ^^^^^^^^^^^
  = help: add the port
";
    assert_eq!(message("[[ingest]]\nstream = \"a\"\nudp = \"239.1.2.3\"\n"), want);
    for (lines, what) in [
        ("stream = \"a\"", "neither udp nor tcp is given"),
        ("udp = \"0.0.0.0:1\"", "[[ingest]] stream: has no value"),
        ("stream = \"a/b\"\nudp = \"0.0.0.0:1\"", "a stream name may hold only"),
        ("stream = \"a\"\nudp = \"0.0.0.0:1\"\ntcp = \"0.0.0.0:1\"", "udp is given as well"),
        ("stream = \"a\"\nudp = \"239.1.1.1:1\"", "needs to know who may send"),
        ("stream = \"a\"\ntcp = \"239.1.1.1:1\"", "write it as udp"),
        ("stream = \"a\"\ntcp = \"[::]:8080\"", "[listen] http collide"),
        ("stream = \"a\"\nudp = \"0.0.0.0:1\"\nallow = []", "nobody may send"),
        ("stream = \"a\"\nudp = \"0.0.0.0:1\"\nallow = [\"x\"]", "is not a network"),
        ("stream = \"a\"\nudp = \"0.0.0.0:1\"\ninterface = 1", "is no multicast group"),
        ("stream = \"a\"\ntcp = \"0.0.0.0:1\"\ninterface = 1", "only a multicast group"),
        (
            "stream = \"a\"\nudp = \"[ff02::7]:1\"\nallow = [\"::/0\"]\ninterface = 0",
            "names no interface",
        ),
        ("stream = \"a\"\nudb = \"0.0.0.0:1\"", "did you mean \"udp\"?"),
        (
            "stream = \"a\"\nudp = \"0.0.0.0:1\"\n[[ingest]]\nstream = \"a\"\nudp = \"[::]:2\"",
            "F:4:1: error: [[ingest]] stream: \"a\" has an [[ingest]] already",
        ),
        (
            "stream = \"a\"\nudp = \"0.0.0.0:1\"\n[[ingest]]\nstream = \"b\"\nudp = \"[::]:1\"",
            "collide",
        ),
        (
            "stream = \"a\"\nudp = \"0.0.0.0:1\"\n[[ingest]]\nstream = \"b\"\ntcp = \"[::]:1\"\n\
             [streams]\nmax = 1",
            "2 streams, but [streams] max is 1",
        ),
    ] {
        let message = message(&format!("[[ingest]]\n{lines}\n"));
        assert!(message.starts_with("F:") && message.contains(what), "{lines}: {message}");
    }
    assert!(message("[ingest]\nstream = \"a\"").contains("write [[ingest]]"));
    assert!(message("[[ingst]]\nstream = \"a\"").contains("did you mean [[ingest]]?"));
}
