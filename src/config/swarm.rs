//! `[swarm]`: from what was typed to what the swarm is told.

use std::net::SocketAddr;

use crate::config::parse::{self, Bad};
use crate::config::raw::{Mixed, Raw};
use crate::config::resolve::{COUNT_MAX, Reader, number, overlap, together, word};
use crate::config::resolved::{Config, Listen};
use crate::ingest::settings::Way;
use crate::swarm::settings::{Addressing, Join, Mode, Settings, Strategy, SubtreeSize};

/// What was typed for `swarm.listen`.
#[derive(Clone, Copy)]
enum Place {
    /// Where HTTP listens.
    Auto,
    Off,
    Here(SocketAddr),
}

/// Reads the section.
pub(super) fn read(r: &mut Reader<'_>, raw: &Raw, listen: Option<&Listen>) -> Option<Settings> {
    let s = &raw.swarm;
    let place = r.get("swarm.listen", &s.listen, |t| match t.as_str() {
        "auto" => Ok(Place::Auto),
        "off" => Ok(Place::Off),
        text => parse::address(text).map(Place::Here),
    });
    let advertise = r.get("swarm.advertise", &s.advertise, |list| Ok(list.clone()))?;
    let advertise =
        advertise.iter().map(|item| r.part("swarm.advertise", item, |t| parse::host(t)));
    let advertise: Vec<_> = advertise.collect();
    let addressing = r.get("swarm.chunk_addressing", &s.chunk_addressing, |t| {
        let code = u8::try_from(*t).ok().and_then(Addressing::from_code);
        code.ok_or_else(|| Bad::new(format!("{t} is no way to name chunks here")))
    });
    let size = r.get("swarm.chunks_per_signature", &s.chunks_per_signature, size);
    let words = [("open", false), ("token", true)];
    let by_token = r.get("swarm.join", &s.join, |t| word(t, &words));
    let tokens = tokens(r, raw);
    let peers = r.get("swarm.peers", &s.peers, |t| number(1..=COUNT_MAX, *t));
    let egress = r.get("swarm.egress", &s.egress, |t| match t {
        Mixed::Text(text) if text == "auto" => Ok(None),
        Mixed::Text(text) => parse::rate(text).map(Some),
        Mixed::Number(number) => parse::rate(&number.to_string()).map(Some),
    });
    let words = [("auto", Mode::Auto), ("direct", Mode::Direct), ("hybrid", Mode::Hybrid)];
    let mode = r.get("swarm.mode", &s.mode, |t| word(t, &words));
    let (by_token, tokens, listen) = (by_token?, tokens?, listen?);
    Some(Settings {
        listen: match place? {
            Place::Auto => Some(listen.http),
            Place::Off => None,
            Place::Here(address) => Some(address),
        },
        advertise: advertise.into_iter().collect::<Option<_>>()?,
        addressing: addressing?,
        size: size?,
        join: if by_token { Join::Token(tokens) } else { Join::Open },
        peers: peers?,
        egress: egress?,
        mode: mode?,
        strategy: Strategy::default(),
    })
}

fn size(typed: &Mixed) -> Result<Option<SubtreeSize>, Bad> {
    let chunks = match typed {
        Mixed::Text(text) if text == "auto" => return Ok(None),
        Mixed::Text(text) => text.parse().ok(),
        Mixed::Number(number) => usize::try_from(*number).ok(),
    };
    let typed = match typed {
        Mixed::Text(text) => format!("{text:?}"),
        Mixed::Number(number) => number.to_string(),
    };
    let size = chunks.and_then(SubtreeSize::new);
    size.map(Some).ok_or_else(|| Bad::new(format!("{typed} is no size of a subtree")))
}

fn tokens(r: &mut Reader<'_>, raw: &Raw) -> Option<Vec<[u8; 32]>> {
    const PATH: &str = "swarm.tokens";
    let list = r.get(PATH, &raw.swarm.tokens, |list| Ok(list.clone()))?;
    let all = list.iter().map(|item| {
        r.part(PATH, item, |text| match text.strip_prefix("sha256:") {
            Some(hex) => parse::sha256(hex),
            None => parse::sha256(text)
                .and(Err(Bad::with("a hash without its kind", "write \"sha256:\" in front of it"))),
        })
    });
    // Every item is looked at, also after a bad one.
    all.collect::<Vec<_>>().into_iter().collect()
}

/// What no key of the section can be blamed for alone.
pub(super) fn check_together(r: &mut Reader<'_>, config: &Config) {
    if config.swarm.join == Join::Token(Vec::new()) {
        let message = "[swarm] join is \"token\", but there are no tokens: nobody could join";
        let help = "make one with `headwater keys new` and put its hash into [swarm] tokens";
        together(r, ["swarm.join", "swarm.tokens"], message.to_owned(), help);
    }
    let Some(listen) = config.swarm.listen else { return };
    for ingest in &config.ingest {
        if let Way::Udp { address, .. } = ingest.way
            && overlap(address, listen)
        {
            let stream = ingest.stream.as_str();
            let message = format!("[swarm] listen {listen} and udp of [[ingest]] {stream} collide");
            together(r, ["swarm.listen"], message, "give one of them another port");
        }
    }
}
