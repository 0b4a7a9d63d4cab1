//! What a request means here: from path and method to a decision.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::ids::StreamName;
use crate::base::limits::TS_PACKET;
use crate::face::http::exchange::{
    Conditions, HlsFile, HlsRequest, PlayRequest, PublishRequest, Refusal,
};
use crate::face::http::pages::{self, Asset};
use crate::face::http::request::{Method, Request, client, is_direct};
use crate::registry::settings::Network;
use crate::wire::http::text::{self, BadParameter};

/// The furthest back that a viewer may ask to begin.
const START_MAX: Duration = Duration::from_secs(3600);

/// The longest that a viewer is held for a stream that is not live; more is cut to this.
const WAIT_MAX: u64 = 60;

/// The methods of everything that is read.
const READ: &str = "GET, HEAD, OPTIONS";

/// The methods of a stream's place for publishers.
const WRITE: &str = "PUT, POST, OPTIONS";

/// What to do about a request.
#[derive(Debug)]
pub enum Decision {
    /// Send a file.
    Asset {
        /// The file.
        asset: &'static Asset,
        /// Its entity tag.
        tag: &'static str,
        /// Whether the client has it already.
        fresh: bool,
    },
    /// Send the list of streams.
    Streams,
    /// Send what is known about one stream.
    Status(StreamName),
    /// Send who feeds whom in a stream's swarm.
    Graph(StreamName),
    /// Invite into a stream's swarm.
    Swarm {
        /// The stream.
        name: StreamName,
        /// The `Host` that was asked.
        host: Option<Box<str>>,
    },
    /// Say what may be asked from where.
    Preflight,
    /// Ask the shard.
    Hls(HlsRequest),
    /// Ask the shard.
    Play(PlayRequest),
    /// Ask the shard.
    Publish(PublishRequest),
    /// Refuse.
    Refuse(Refusal),
    /// Refuse the method.
    NotAllowed {
        /// The methods that are served.
        allow: &'static str,
        /// The remedy.
        text: &'static str,
    },
}

impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Decision {
        Decision::Refuse(refusal)
    }
}

/// Decides.
#[must_use]
pub fn decide(request: &Request<'_>, peer: SocketAddr, trusted: &[Network]) -> Decision {
    if request.method == Method::Options {
        return Decision::Preflight;
    }
    let Ok(path) = text::decode_path(request.path) else {
        return Refusal::new(400, "the path has a bad percent-escape").into();
    };
    if let Some(name) = path.strip_prefix("/watch/live/") {
        return match name.parse::<StreamName>() {
            Ok(_) => read(request, || asset(request, pages::WATCH)),
            Err(why) => Refusal::new(400, why.to_string()).into(),
        };
    }
    if let Some(rest) = path.strip_prefix("/live/") {
        return match rest.split_once('/') {
            Some((name, file @ ("status.json" | "graph.json"))) => match name.parse() {
                Ok(name) if file == "graph.json" => read(request, || Decision::Graph(name)),
                Ok(name) => read(request, || Decision::Status(name)),
                Err(why) => Refusal::new(400, why.to_string()).into(),
            },
            Some((name, "swarm.json")) => match name.parse() {
                Ok(name) => {
                    let host = request.head.one("Host").ok().flatten().map(Box::from);
                    read(request, || Decision::Swarm { name, host })
                }
                Err(why) => Refusal::new(400, why.to_string()).into(),
            },
            Some((name, file)) => decide_hls(request, name, file, peer, trusted),
            None => decide_live(request, rest, peer, trusted),
        };
    }
    if path == "/streams.json" {
        return read(request, || Decision::Streams);
    }
    match pages::find(&path) {
        Some(_) => read(request, || asset(request, &path)),
        None => nothing_here(),
    }
}

/// Decides about `/live/NAME.ts` and `/live/NAME`.
fn decide_live(
    request: &Request<'_>,
    rest: &str,
    peer: SocketAddr,
    trusted: &[Network],
) -> Decision {
    let (name, plays) = match rest.strip_suffix(".ts") {
        Some(name) => (name, true),
        None => (rest, false),
    };
    let name: StreamName = match name.parse() {
        Ok(name) => name,
        Err(why) => return Refusal::new(400, why.to_string()).into(),
    };
    let decision = match (plays, request.method) {
        (true, method) if method.reads() => {
            let client = client(request.head, peer, trusted);
            play(request, name, client).map(Decision::Play)
        }
        (true, _) => Ok(Decision::NotAllowed {
            allow: READ,
            text: "this address plays a stream; publish to /live/NAME, without .ts",
        }),
        (false, method) if method.publishes() => {
            publish(request, name, peer, trusted).map(Decision::Publish)
        }
        (false, _) => Ok(Decision::NotAllowed {
            allow: WRITE,
            text: "publish here with PUT or POST; play /live/NAME.ts",
        }),
    };
    decision.unwrap_or_else(Decision::Refuse)
}

/// Decides about what lies below `/live/NAME/`. A name has no slash: nothing here can be the
/// address of another stream.
fn decide_hls(
    request: &Request<'_>,
    name: &str,
    file: &str,
    peer: SocketAddr,
    trusted: &[Network],
) -> Decision {
    let segment = || {
        let number = |text: &str| -> Option<u64> {
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let (epoch, sequence) = file.strip_prefix("seg/")?.strip_suffix(".ts")?.split_once('-')?;
        Some(HlsFile::Segment { epoch: number(epoch)?, sequence: number(sequence)? })
    };
    let file = match file {
        "index.m3u8" => Some(HlsFile::Playlist),
        "master.m3u8" => Some(HlsFile::Master),
        _ => segment(),
    };
    let Some(file) = file else { return nothing_here() };
    let name = match name.parse() {
        Ok(name) => name,
        Err(why) => return Refusal::new(400, format!("{why}")).into(),
    };
    let wait = match read_parameter(request, "wait", read_wait) {
        Ok(wait) => wait.unwrap_or_default(),
        Err(refusal) => return refusal.into(),
    };
    let line = |name| request.head.one(name).ok().flatten().map(Box::from);
    let known: Vec<&str> = request.head.list("If-None-Match").collect();
    let conditions = Conditions {
        known: (!known.is_empty()).then(|| known.join(",").into()),
        // "A server MUST ignore a Range header field received with a request method that is
        // unrecognized or for which range handling is not defined" (RFC 9110 section 14.2).
        range: line("Range").filter(|_| request.method == Method::Get),
        if_range: line("If-Range"),
    };
    let client = client(request.head, peer, trusted);
    read(request, || Decision::Hls(HlsRequest { name, file, wait, client, conditions }))
}

/// `decision`, if the request only reads.
fn read(request: &Request<'_>, decision: impl FnOnce() -> Decision) -> Decision {
    if request.method.reads() {
        decision()
    } else {
        Decision::NotAllowed { allow: READ, text: "use GET or HEAD here" }
    }
}

fn asset(request: &Request<'_>, path: &str) -> Decision {
    match pages::find(path) {
        Some((asset, tag)) => {
            // "the recipient MUST use the weak comparison function" (RFC 9110 section 13.1.2).
            let mut known = request.head.list("If-None-Match");
            let fresh = known.any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag);
            Decision::Asset { asset, tag, fresh }
        }
        None => nothing_here(),
    }
}

fn nothing_here() -> Decision {
    Refusal::new(404, "nothing here; see / for what is live, play /live/NAME.ts").into()
}

fn play(request: &Request<'_>, name: StreamName, client: IpAddr) -> Result<PlayRequest, Refusal> {
    let start = read_parameter(request, "start", read_start)?;
    let at = read_parameter(request, "at", read_at)?;
    if at.is_some() && start.is_some() {
        return Err(Refusal::new(400, "start and at both say where to begin; send one of them"));
    }
    let wait = read_parameter(request, "wait", read_wait)?.unwrap_or_default();
    let head_only = request.method == Method::Head;
    Ok(PlayRequest { name, start, at, wait, head_only, client })
}

fn read_at(value: &str) -> Result<u64, Refusal> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let at = value.parse().ok().filter(|_| digits);
    at.filter(|at: &u64| at.is_multiple_of(TS_PACKET as u64))
        .ok_or_else(|| Refusal::new(400, "at must be a stream offset, a multiple of 188"))
}

fn read_start(value: &str) -> Result<Duration, Refusal> {
    let back = value.strip_prefix('-').and_then(text::duration);
    back.filter(|back| *back <= START_MAX)
        .ok_or_else(|| Refusal::new(400, "start must be like -10s, -1m or -500ms, at most -60m"))
}

fn read_wait(value: &str) -> Result<Duration, Refusal> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(Refusal::new(400, "wait must be a whole number of seconds, such as 10"));
    }
    // Digits that do not fit are more than the most, too.
    Ok(Duration::from_secs(value.parse().unwrap_or(WAIT_MAX).min(WAIT_MAX)))
}

fn publish(
    request: &Request<'_>,
    name: StreamName,
    peer: SocketAddr,
    trusted: &[Network],
) -> Result<PublishRequest, Refusal> {
    let in_query = parameter(request, "key")?.map(Cow::into_owned);
    let in_header = bearer(request)?.map(str::to_owned);
    if in_query.is_some() && in_header.is_some() && in_query != in_header {
        return Err(Refusal::new(400, "two different keys; send ?key= or Authorization, not both"));
    }
    Ok(PublishRequest {
        name,
        key: in_query.or(in_header),
        client: client(request.head, peer, trusted),
        direct: is_direct(request.head),
    })
}

/// The token of `Authorization: Bearer`; None with another scheme, which some clients send
/// unasked.
fn bearer<'a>(request: &Request<'a>) -> Result<Option<&'a str>, Refusal> {
    let value = request
        .head
        .one("Authorization")
        .map_err(|_| Refusal::new(400, "send at most one Authorization header"))?;
    Ok(value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim()))
}

fn read_parameter<T>(
    request: &Request<'_>,
    name: &str,
    read: impl FnOnce(&str) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    parameter(request, name)?.map(|value| read(&value)).transpose()
}

fn parameter<'a>(request: &Request<'a>, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    text::parameter(request.query, name).map_err(|why| {
        let rule = match why {
            BadParameter::Twice => "may be given only once",
            BadParameter::Escape => "has a bad percent-escape",
        };
        Refusal::new(400, format!("the parameter {name} {rule}"))
    })
}
