//! From what was typed to what runs: every value is checked, alone and against the others.
//!
//! Problems are collected, not only the first is told. The checks between keys run when each key
//! is good in itself.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use tracing_subscriber::EnvFilter;

use crate::base::limits::{SHARDS_MAX, WINDOW_MIN};
use crate::config::error::{Place, Problem};
use crate::config::ingest;
use crate::config::parse::{self, Bad};
use crate::config::raw::{List, Mixed, PublishKey, Raw};
use crate::config::resolved::{Choice, Config, Cores, IoDriver, Listen, Log, LogFormat};
use crate::config::sources::{Layers, Source, allowed};
use crate::config::{swarm, table};
use crate::face::http::settings::Settings as Http;
use crate::registry::settings::{KeySetting, Limits, Network, Settings as Registry};
use crate::shard::settings::Settings as Shard;

/// The smallest arena in bytes: below, not even one stream of a few Mbit/s has its window.
const ARENA_MIN: u64 = 8 << 20;

/// The largest arena in bytes: a slip of the unit, not a machine of today.
const ARENA_MAX: u64 = 1 << 42;

/// The most connections or viewers that may be asked for.
pub(super) const COUNT_MAX: i64 = 10_000_000;

/// Checks all values.
///
/// # Errors
/// Every problem found; never an empty list.
pub fn resolve(layers: &Layers) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader { layers, problems: Vec::new() };
    let config = config(&mut reader, layers.raw());
    match config {
        Some(config) if reader.problems.is_empty() => {
            check_together(&mut reader, &config);
            if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
        }
        _ => Err(reader.problems),
    }
}

/// Reads values and keeps the problems.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The value of a key as `parse` understands it; `None` after a problem.
    pub(super) fn get<T, V>(
        &mut self,
        path: &str,
        typed: &Option<Spanned<T>>,
        parse: impl FnOnce(&T) -> Result<V, Bad>,
    ) -> Option<V> {
        let Some(typed) = typed else {
            self.report(path, None, Bad::new("has no value"));
            return None;
        };
        self.part(path, typed, parse)
    }

    /// The value of one part of a key.
    pub(super) fn part<T, V>(
        &mut self,
        path: &str,
        typed: &Spanned<T>,
        parse: impl FnOnce(&T) -> Result<V, Bad>,
    ) -> Option<V> {
        match parse(typed.get_ref()) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.report(path, Some(typed.span()), bad);
                None
            }
        }
    }

    pub(super) fn report(&mut self, path: &str, span: Option<Range<usize>>, bad: Bad) {
        let (section, name) = path.split_once('.').unwrap_or(("", path));
        let mut place = self.layers.place(path, span);
        if matches!(path, "publish.keys" | "swarm.tokens") {
            // Somebody may have written the key where its hash belongs.
            place = place.masked();
        }
        let help = match table::find(path) {
            Some(key) if bad.help.is_empty() => allowed(key),
            _ => bad.help,
        };
        let message = format!("[{section}] {name}: {}", bad.message);
        self.problems.push(Problem { place, message, help });
    }

    /// Networks of a list, each with its own place.
    pub(super) fn networks(
        &mut self,
        path: &str,
        typed: &Option<Spanned<List>>,
    ) -> Option<Vec<Network>> {
        let list = self.get(path, typed, |list| Ok(list.clone()))?;
        let all = list.iter().map(|item| self.part(path, item, |t| parse::network(t)));
        // Every item is looked at, also after a bad one.
        all.collect::<Vec<_>>().into_iter().collect()
    }
}

/// Everything, key by key.
fn config(r: &mut Reader<'_>, raw: &Raw) -> Option<Config> {
    let listen = listen(r, raw);
    let cores = cores(r, raw);
    let arena = r.get("memory.arena", &raw.memory.arena, |t| {
        between(ARENA_MIN..=ARENA_MAX, size(t)?, "the arena has 8 MiB to 4096 GiB")
    });
    let connections = r.get("limits.connections", &raw.limits.connections, choice_of_number);
    let registry = registry(r, raw, arena);
    let http = http(r, raw);
    let shard = shard(r, raw);
    let state_dir = r.get("state.dir", &raw.state.dir, |t| Ok(path(t)));
    let log = log(r, raw);
    let ready_file = r.get("ready.file", &raw.ready.file, |t| Ok(path(t)));
    let swarm = swarm::read(r, raw, listen.as_ref());
    let ingest = ingest::read(r, raw.ingest.as_deref().unwrap_or_default());
    Some(Config {
        listen: listen?,
        cores: cores?,
        arena: arena?,
        connections: connections?,
        http: http?,
        shard: shard?,
        swarm: swarm?,
        ingest: ingest?,
        state_dir: state_dir?,
        log: log?,
        ready_file: ready_file?,
        registry: registry?,
    })
}

fn listen(r: &mut Reader<'_>, raw: &Raw) -> Option<Listen> {
    let http = r.get("listen.http", &raw.listen.http, |t| parse::address(t));
    let control = r.get("listen.control", &raw.listen.control, |t| parse::address(t));
    Some(Listen { http: http?, control: control? })
}

fn cores(r: &mut Reader<'_>, raw: &Raw) -> Option<Cores> {
    let shards = r.get("cores.shards", &raw.cores.shards, |t| match choice_of_number(t)? {
        Choice::Fixed(shards) if shards > SHARDS_MAX => {
            Err(Bad::new(format!("{shards} is out of range")))
        }
        choice => Ok(choice),
    });
    let pin = r.get("cores.pin", &raw.cores.pin, |t| Ok(*t));
    let drivers =
        [("auto", IoDriver::Auto), ("uring", IoDriver::Uring), ("epoll", IoDriver::Epoll)];
    let io_driver = r.get("cores.io_driver", &raw.cores.io_driver, |t| word(t, &drivers));
    Some(Cores { shards: shards?, pin: pin?, io_driver: io_driver? })
}

fn registry(r: &mut Reader<'_>, raw: &Raw, arena: Option<u64>) -> Option<Registry> {
    let s = &raw.streams;
    let max_streams = r.get("streams.max", &s.max, |t| number(1..=4096, *t));
    let window = r.get("streams.window", &s.window, |t| time("4s", "1h", t));
    let memory = r.get("streams.memory", &s.memory, choice_of_size);
    let linger = r.get("streams.linger", &s.linger, |t| time("0s", "1h", t));
    let keys = keys(r, raw);
    let l = &raw.limits;
    let viewers = r.get("limits.viewers", &l.viewers, |t| number(1..=COUNT_MAX, *t));
    let per_address = r.get("limits.per_address", &l.per_address, |t| number(1..=COUNT_MAX, *t));
    let exempt = r.networks("limits.exempt", &l.exempt);
    let (arena, max_streams) = (arena?, max_streams?);
    Some(Registry {
        max_streams,
        window: window?,
        window_bytes: memory?.fixed_or(|| arena / max_streams as u64),
        linger: linger?,
        keys: keys?,
        // What else limits is filled in when it is known: see `Config::registry`.
        limits: Limits {
            viewers: viewers?,
            connections: 0,
            per_address: per_address?,
            exempt: exempt?,
            peers: 0,
            egress: None,
        },
    })
}

fn keys(r: &mut Reader<'_>, raw: &Raw) -> Option<Vec<KeySetting>> {
    const PATH: &str = "publish.keys";
    let typed = r.get(PATH, &raw.publish.keys, |keys| Ok(keys.clone()))?;
    let mut keys: Vec<KeySetting> = Vec::new();
    for item in &typed {
        let (sha256, streams) = match item.get_ref() {
            PublishKey::Hash(text) => {
                let hash = |_: &PublishKey| match text.strip_prefix("sha256:") {
                    Some(hex) => parse::sha256(hex),
                    None => parse::sha256(text).and(Err(Bad::with(
                        "a hash without its kind",
                        "write \"sha256:\" in front of it",
                    ))),
                };
                (r.part(PATH, item, hash), &Vec::new())
            }
            PublishKey::Table(table) => {
                (r.part(PATH, &table.sha256, |text| parse::sha256(text)), &table.streams)
            }
        };
        let parse_name = |text: &String| {
            text.parse().map_err(|why| Bad::with(format!("{text:?}: {why}"), "\"cam1\""))
        };
        let streams: Vec<_> = streams.iter().map(|name| r.part(PATH, name, parse_name)).collect();
        let streams: Option<Vec<_>> = streams.into_iter().collect();
        let (Some(sha256), Some(streams)) = (sha256, streams) else { continue };
        if keys.iter().any(|key| key.sha256 == sha256) {
            let help = "keep one entry; name all its streams there";
            r.report(PATH, Some(item.span()), Bad::with("the same hash a second time", help));
        }
        keys.push(KeySetting { sha256, streams });
    }
    Some(keys)
}

fn http(r: &mut Reader<'_>, raw: &Raw) -> Option<Http> {
    let l = &raw.limits;
    let request_timeout =
        r.get("limits.request_timeout", &l.request_timeout, |t| time("1s", "10m", t));
    let head_bytes = r.get("limits.head_bytes", &l.head_bytes, |t| number(1024..=262_144, *t));
    let header_lines = r.get("limits.header_lines", &l.header_lines, |t| number(8..=256, *t));
    let trusted = r.networks("proxy.trusted", &raw.proxy.trusted);
    let cors = r.get("http.cors", &raw.http.cors, |t| origin(t));
    let silence = r.get("publish.silence", &raw.publish.silence, |t| time("500ms", "3s", t));
    Some(Http {
        request_timeout: request_timeout?,
        head_bytes: head_bytes?,
        header_lines: header_lines?,
        trusted_proxies: trusted?,
        cors: cors?,
        publisher_silence: silence?,
        swarm: None,
    })
}

fn shard(r: &mut Reader<'_>, raw: &Raw) -> Option<Shard> {
    const JUMPS: &str = "viewers.max_jumps_per_minute";
    let v = &raw.viewers;
    let max_lag = r.get("viewers.max_lag", &v.max_lag, |t| time("500ms", "1h", t));
    let max_jumps = r.get(JUMPS, &v.max_jumps_per_minute, |t| number(1..=1000, *t));
    let stall_timeout = r.get("viewers.stall_timeout", &v.stall_timeout, |t| time("1s", "1h", t));
    let segment = r.get("hls.segment", &raw.hls.segment, |t| time("500ms", "10s", t));
    let playlist = r.get("hls.playlist", &raw.hls.playlist, |t| number(3..=60, *t));
    let busy = r.get("cores.busy_target", &raw.cores.busy_target, |t| number(5..=90, *t));
    let batch = r.get("viewers.max_batch_delay", &v.max_batch_delay, |t| time("1ms", "2s", t));
    Some(Shard {
        max_lag: max_lag?,
        max_jumps: u32::try_from(max_jumps?).ok()?,
        stall_timeout: stall_timeout?,
        busy_target: busy? as f64 / 100.0,
        max_batch_delay: batch?,
        segment: segment?,
        playlist: playlist?,
    })
}

fn log(r: &mut Reader<'_>, raw: &Raw) -> Option<Log> {
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
    let format = r.get("log.format", &raw.log.format, |t| word(t, &formats));
    let level = r.get("log.level", &raw.log.level, |t| filter(t));
    Some(Log { format: format?, level: level? })
}

/// What no key can be blamed for alone.
fn check_together(r: &mut Reader<'_>, config: &Config) {
    let (http, control) = (config.listen.http, config.listen.control);
    if overlap(http, control) {
        let message = format!("{http} and {control} in [listen] http and control collide");
        together(r, ["listen.control", "listen.http"], message, "give control another port");
    }
    ingest::check_together(r, config);
    swarm::check_together(r, config);
    let (max, each) = (config.registry.max_streams as u64, config.registry.window_bytes);
    let paths = ["streams.memory", "streams.max", "memory.arena"];
    let arena = config.arena;
    if each < WINDOW_MIN as u64 {
        let message = format!(
            "[streams] memory is {each} bytes for each of max = {max} streams; \
             a window needs {WINDOW_MIN} at least"
        );
        together(r, paths, message, "lower [streams] max or raise [memory] arena");
    } else if each.saturating_mul(max) > arena {
        let message = format!(
            "[streams] memory x max is {} bytes, but [memory] arena has only {arena}",
            each.saturating_mul(max)
        );
        let help = match arena / each {
            0 => format!("lower [streams] memory to {}, or raise [memory] arena", arena / max),
            fit => format!(
                "lower [streams] memory to {} or max to {fit}, or raise [memory] arena",
                arena / max
            ),
        };
        together(r, paths, message, &help);
    }
}

/// Reports a problem between keys at the first of them that somebody typed.
pub(super) fn together<const N: usize>(
    r: &mut Reader<'_>,
    paths: [&str; N],
    message: String,
    help: &str,
) {
    let typed =
        |path: &&str| r.layers.origin(path).is_some_and(|origin| origin.source != Source::Default);
    let place = paths.iter().find(|path| typed(path));
    let place = place.map_or(Place::Default, |path| r.layers.place(path, None));
    r.problems.push(Problem { place, message, help: help.to_owned() });
}

/// Whether two listening sockets would take each other's connections.
pub(super) fn overlap(a: std::net::SocketAddr, b: std::net::SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    // "[::]" takes IPv4 as well.
    let covers = |wide: std::net::IpAddr, other: std::net::IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
}

fn between(range: RangeInclusive<u64>, value: u64, rule: &str) -> Result<u64, Bad> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(Bad::new(format!("{value} bytes is out of range: {rule}")))
    }
}

pub(super) fn number(range: RangeInclusive<i64>, value: i64) -> Result<usize, Bad> {
    let bad = || Bad::new(format!("{value} is out of range"));
    if range.contains(&value) { usize::try_from(value).map_err(|_| bad()) } else { Err(bad()) }
}

fn choice_of_number(typed: &Mixed) -> Result<Choice<usize>, Bad> {
    match typed {
        Mixed::Text(text) if text == "auto" => Ok(Choice::Auto),
        Mixed::Text(text) => match text.parse() {
            Ok(value) => number(1..=COUNT_MAX, value).map(Choice::Fixed),
            Err(_) => Err(Bad::new(format!("{text:?} is neither \"auto\" nor a number"))),
        },
        Mixed::Number(value) => number(1..=COUNT_MAX, *value).map(Choice::Fixed),
    }
}

fn choice_of_size(typed: &Mixed) -> Result<Choice<u64>, Bad> {
    match typed {
        Mixed::Text(text) if text == "auto" => Ok(Choice::Auto),
        typed => size(typed).map(Choice::Fixed),
    }
}

fn size(typed: &Mixed) -> Result<u64, Bad> {
    match typed {
        Mixed::Text(text) => parse::size(text),
        Mixed::Number(bytes) => {
            u64::try_from(*bytes).map_err(|_| Bad::new(format!("{bytes} is not a size")))
        }
    }
}

fn time(shortest: &str, longest: &str, text: &str) -> Result<Duration, Bad> {
    let value = parse::duration(text)?;
    if (parse::duration(shortest)?..=parse::duration(longest)?).contains(&value) {
        Ok(value)
    } else {
        Err(Bad::new(format!("{text:?} is out of range")))
    }
}

pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Bad> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let message = format!("{text:?} is none of the choices");
        match table::nearest(text, words.iter().map(|(word, _)| *word)) {
            Some(word) => Bad::with(message, format!("did you mean {word:?}?")),
            None => Bad::new(message),
        }
    })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// A value of a header that we write: nothing in it may end the line.
fn origin(text: &str) -> Result<String, Bad> {
    let shape = text.is_empty() || text == "*" || text == "null" || text.contains("://");
    if shape && text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
        Ok(text.to_owned())
    } else {
        Err(Bad::new(format!("{text:?} is not an origin")))
    }
}

/// A filter of the log. `tracing` would take a misspelt level for the name of a target and then
/// show nothing else: here a word on its own must be a level.
fn filter(text: &str) -> Result<String, Bad> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let bad = format!("{text:?} is not a log filter");
    if text.trim().is_empty() {
        return Err(Bad::new(bad));
    }
    let words = text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', '}', ']']));
    for word in words {
        let lower = word.to_lowercase();
        if !LEVELS.contains(&lower.as_str()) && !word.contains("::") {
            return match table::nearest(&lower, LEVELS) {
                Some(level) => Err(Bad::with(bad, format!("did you mean {level:?}?"))),
                None => Err(Bad::new(bad)),
            };
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(Bad::new(format!("{bad}: {why}"))),
    }
}
