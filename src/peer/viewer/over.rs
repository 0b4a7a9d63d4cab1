//! Bytes of the stream that come over HTTP: played, counted, and nothing else.

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::{Mono, Now};
use crate::peer::call::Call;
use crate::peer::client::{Event, Limits, Sink};
use crate::peer::figures::{Figures, Source};
use crate::peer::viewer::playing::Playing;
use crate::ring::chunks::Refused;

/// How long the answer may take to begin and to go on.
pub(super) const LIMITS: Limits = Limits {
    body: u64::MAX,
    answer: Duration::from_secs(5),
    idle: Duration::from_secs(10),
    total: None,
};

/// What comes at once at the beginning is old; after this time bytes come as they come in.
const CATCH_UP: Duration = Duration::from_millis(300);

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// These bytes are not there, or no longer.
    Gone,
    /// Anything else.
    Broken,
}

/// Playing over HTTP.
pub(super) struct OverHttp {
    pub call: Call,
    /// Stream offset of the next byte that comes, as the relay counts.
    at: u64,
    /// The bytes of a chunk that is not whole.
    open: Vec<u8>,
    begun: Option<Mono>,
    /// When something was last played from here.
    pub filled: Option<Mono>,
    /// The first chunk that came over UDP since this began.
    pub recovered: Option<u64>,
}

impl OverHttp {
    /// `at`: the stream offset that `call` asks for, the beginning of a chunk.
    pub(super) fn new(call: Call, at: u64) -> OverHttp {
        let open = Vec::with_capacity(CHUNK);
        OverHttp { call, at, open, begun: None, filled: None, recovered: None }
    }

    /// Takes what the connection says; whether it is over.
    pub(super) fn take(
        &mut self,
        now: Now,
        what: impl FnOnce(&mut Call, Sink<'_>),
        playing: &mut Playing,
        figures: &mut Figures,
    ) -> Option<Over> {
        let OverHttp { call, at, open, begun, filled, .. } = self;
        let mut over = None;
        what(call, &mut |event| match event {
            Event::Head(answer) => {
                let offset = answer.one("Headwater-Offset").ok().flatten();
                let fits = offset.and_then(|text| text.parse().ok()) == Some(*at);
                match answer.status {
                    200 if fits => *begun = Some(now.mono),
                    410 => over = Some(Over::Gone),
                    _ => over = Some(Over::Broken),
                }
            }
            Event::Body(bytes) if over.is_none() => {
                let before = *at;
                let done = fill(now, at, open, bytes, playing);
                if done > 0 {
                    *filled = Some(now.mono);
                    figures.http_bytes += done;
                    figures.switch(now.mono, Source::Http);
                }
                let (begin, end) =
                    (playing.store.local_offset(before), playing.store.local_offset(*at));
                let stamp = playing.clock.at(now.mono);
                if begun.is_some_and(|begun| now.mono.since(begun) >= CATCH_UP) {
                    playing.line.note_run(begin, end, stamp);
                } else {
                    playing.line.note_head(end, stamp);
                }
            }
            Event::Body(_) => {}
            Event::End | Event::Failed(_) => over = over.or(Some(Over::Broken)),
        });
        over
    }

    /// Whether something was played from here a moment ago, or may be soon.
    pub(super) fn is_useful(&self, now: Mono, patience: Duration) -> bool {
        self.filled.or(self.begun).is_some_and(|last| now.since(last) < patience)
    }

    /// The chunk that comes next.
    pub(super) fn next_chunk(&self) -> u64 {
        self.at / CHUNK as u64
    }
}

/// Cuts bytes into chunks and plays those that are missing. Returns how many bytes were.
fn fill(
    now: Now,
    at: &mut u64,
    open: &mut Vec<u8>,
    mut bytes: &[u8],
    playing: &mut Playing,
) -> u64 {
    let mut filled = 0;
    while !bytes.is_empty() {
        let (part, rest) = bytes.split_at(bytes.len().min(CHUNK - open.len()));
        open.extend_from_slice(part);
        bytes = rest;
        *at += part.len() as u64;
        if let Ok(chunk) = <&[u8; CHUNK]>::try_from(open.as_slice()) {
            let id = *at / CHUNK as u64 - 1;
            match playing.store.fill(now.mono, id, chunk) {
                Ok(()) => filled += CHUNK as u64,
                // It came over UDP meanwhile; or there is no room, and the hole is asked for.
                Err(Refused::Late | Refused::Known | Refused::Ahead | Refused::Starved) => {}
            }
            open.clear();
        }
    }
    filled
}
