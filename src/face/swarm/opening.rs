//! Datagrams to channel 0: somebody wants in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::base::limits::CHUNK;
use crate::base::payload::Payload;
use crate::base::planted::{self, Plant};
use crate::base::time::Mono;
use crate::face::swarm::sessions::Extras;
use crate::face::swarm::shoal::Shoal;
use crate::face::swarm::{LOOK_AGAIN, Shipment, Swarm};
use crate::metrics::table::Cell;
use crate::registry::identity::Identity;
use crate::registry::stream::Stream;
use crate::swarm::channel::Taken;
use crate::swarm::integrity::SwarmId;
use crate::swarm::settings::Mode;
use crate::wire::ppspp::build::reply;
use crate::wire::ppspp::{Handshake, Message, MessageSet, Messages, Options, kind};

/// The largest answer: a handshake and one HAVE are 60 bytes.
const REPLY_MAX: usize = 128;

impl Swarm {
    /// Answers an opening of `length` bytes, or is silent. The outcome is counted.
    pub(super) fn open(
        &mut self,
        now: Mono,
        from: SocketAddr,
        to: Option<IpAddr>,
        length: usize,
        messages: &[u8],
    ) {
        let outcome = match self.judge(now, messages) {
            Ok((theirs, extras, stream)) => {
                self.answer(now, (from, to), length, theirs, extras, &stream)
            }
            Err(why) => why,
        };
        self.cells.add(outcome, 1);
    }

    /// Whether an opening is right: the other end's channel, what it knows, and the stream.
    ///
    /// "a valid HANDSHAKE followed by an unknown or broken message counts": only the first
    /// message is read. HAVE in an opening is ignored.
    fn judge(&mut self, now: Mono, messages: &[u8]) -> Result<(u32, Extras, Arc<Stream>), Cell> {
        let Some(Ok(Message::Handshake(Handshake { channel, options }))) =
            Messages::opening(messages).next()
        else {
            return Err(Cell::SwarmOpeningsMalformed);
        };
        // Channel 0 closes; nobody is answered for leaving.
        if channel == 0 {
            return Err(Cell::SwarmOpeningsMalformed);
        }
        let id = options.swarm_id.ok_or(Cell::SwarmOpeningsUnfit)?;
        let id = SwarmId::from_bytes(id).map_err(|_| Cell::SwarmOpeningsUnknown)?;
        let stream = self.stream(now, &id).ok_or(Cell::SwarmOpeningsUnknown)?;
        let identity = stream.identity().ok_or(Cell::SwarmOpeningsUnknown)?;
        options
            .judge_opening(identity.addressing, CHUNK as u32)
            .map_err(|_| Cell::SwarmOpeningsUnfit)?;
        if self.draining || self.busy {
            return Err(Cell::SwarmOpeningsBusy);
        }
        Ok((channel, Extras::of(&options), stream))
    }

    fn answer(
        &mut self,
        now: Mono,
        (from, to): (SocketAddr, Option<IpAddr>),
        length: usize,
        theirs: u32,
        extras: Extras,
        stream: &Arc<Stream>,
    ) -> Cell {
        let slot = stream.slot;
        let taken = |id| {
            if let Some((_, session)) = self.sessions.find(id) {
                let same = session.to == from && session.theirs == theirs;
                return if same && session.stream == slot { Taken::Same } else { Taken::Other };
            }
            match self.openings.get(now, id) {
                Some(open) if open.is_from(from) && open.theirs == theirs => match open.stream {
                    same if same == slot => Taken::Same,
                    _ => Taken::Other,
                },
                Some(_) => Taken::Other,
                None => Taken::Free,
            }
        };
        let Some(ours) = self.channels.issue(from, theirs, taken) else {
            return Cell::SwarmOpeningsBusy;
        };
        let new = taken(ours) == Taken::Free;
        let Some(identity) = stream.identity() else { return Cell::SwarmOpeningsUnknown };
        let mut buf = [0; REPLY_MAX];
        // Nobody passes anything on: a line that is not used need not be known.
        let measures = self.settings.mode != Mode::Direct;
        let shoal = self.attend(now, stream, identity);
        let mut options = Options::reply(identity.addressing, shoal.source.window, CHUNK as u32);
        if !measures {
            options.messages = Some(MessageSet::OURS.without(kind::PROBE));
        }
        let have = shoal.span();
        // By the options that must be in it a request is larger than its answer; still, never
        // rely on that.
        let fits = |written: &usize| *written <= length;
        let written = reply(&mut buf, theirs, ours, options, have)
            .filter(fits)
            .or_else(|| reply(&mut buf, theirs, ours, options, None).filter(fits));
        let Some(written) = written else { return Cell::SwarmOpeningsUnfit };
        if new && self.openings.insert(now, from, [ours, theirs], slot, extras.0) {
            self.cells.add(Cell::SwarmOpeningsEvicted, 1);
        }
        stream.share(self.shard).swarm_bytes.fetch_add(written as u64, Relaxed);
        let head: Payload = Bytes::copy_from_slice(&buf[..written]).into();
        self.post(Shipment::letter(from, to, theirs, Payload::clone(&head)));
        if planted::is(Plant::AnswerTwice) {
            self.post(Shipment::letter(from, to, theirs, head));
        }
        Cell::SwarmOpeningsAnswered
    }

    /// The shoal of a stream, up to date.
    fn attend(&mut self, now: Mono, stream: &Arc<Stream>, identity: &Arc<Identity>) -> &mut Shoal {
        let index = stream.slot.0 as usize;
        if self.shoals.len() <= index {
            self.shoals.resize_with(index + 1, || None);
        }
        // Another stream had the place before, and is over.
        let stale = |shoal: &Shoal| !Arc::ptr_eq(&shoal.stream, stream);
        if self.shoals[index].as_ref().is_some_and(stale) {
            self.close_all(index);
            self.shoals[index] = None;
        }
        let shard = self.shard;
        let shoal =
            self.shoals[index].get_or_insert_with(|| Shoal::new(now, shard, stream, identity));
        shoal.refresh(now);
        shoal
    }

    /// The stream of this name in the swarm.
    fn stream(&mut self, now: Mono, id: &SwarmId) -> Option<Arc<Stream>> {
        let known = self.names.get(id).filter(|stream| !stream.ended());
        if let Some(stream) = known {
            return Some(Arc::clone(stream));
        }
        if self.named.is_some_and(|named| now.since(named) < LOOK_AGAIN) {
            return None;
        }
        self.named = Some(now);
        self.names.clear();
        for stream in self.registry.directory().iter() {
            if let Some(identity) = stream.identity() {
                self.names.insert(identity.swarm_id, Arc::clone(stream));
            }
        }
        self.names.get(id).cloned()
    }
}
