//! The playing half of a viewer: the window, what is in it and when, and its turn to be played.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX};
use crate::base::time::{Mono, Now};
use crate::ingest::follow::Follower;
use crate::media::segmenter::Segmenter;
use crate::peer::figures::{Figures, Loss, Run};
use crate::peer::invitation::Invitation;
use crate::peer::settings::{Room, Settings};
use crate::registry::stream::Stream;
use crate::registry::streams::NotReceived;
use crate::ring::window::open_received;
use crate::swarm::integrity::Freshness;
use crate::swarm::playout::{BREAKS_MAX, Playout, ready, tune_in};
use crate::swarm::receiver::assembly::Assembly;
use crate::swarm::receiver::compose::View;
use crate::swarm::receiver::store::Store;
use crate::swarm::receiver::{Profile, Signed};
use crate::swarm::stamp::{RelayClock, Stamp};
use crate::swarm::timeline::Timeline;

/// Chunks of the largest subtree, at which windows and jumps begin.
const ALIGN: u64 = SUBTREE_CHUNKS_MAX as u64;

const CHUNK_BYTES: u64 = CHUNK as u64;

/// Why nothing can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unplayable {
    /// There is no access point yet that is young enough.
    NoEntrance,
    /// No memory for the window.
    NoMemory,
    /// The window's numbers are beyond the stream's.
    Numbers,
}

/// A window that nobody else numbers has the stream's own numbers, if they are below this: beyond
/// them it still has to count.
const ALIKE_MAX: u64 = 1 << 60;

/// Where the window's bytes are shown.
enum Outlet {
    /// To players of this process.
    Local { follower: Box<Follower>, stream: Arc<Stream> },
    /// To nobody: the head moves all the same.
    Headless,
}

/// A stream that is being played.
pub(super) struct Playing {
    pub profile: Profile,
    pub store: Store,
    pub assembly: Assembly,
    pub playout: Playout,
    pub line: Timeline,
    pub clock: RelayClock,
    pub fresh: Freshness,
    outlet: Outlet,
    /// Offsets in the window at which something else goes on, to be marked when they are shown:
    /// as many as play-out has, and the oldest makes room, which then is not marked.
    breaks: VecDeque<u64>,
    unmarked: u64,
}

impl Playing {
    /// Tunes in: opens a window from the access point on that the play-out rule chooses.
    pub(super) fn open(
        now: Now,
        invitation: &Invitation,
        asked: Mono,
        room: &Room,
        settings: &Settings,
        figures: &mut Figures,
    ) -> Result<Playing, Unplayable> {
        // The document took a connect and a request.
        let (trip, points) = (now.mono.since(asked) / 2, &invitation.access_points);
        let playout = settings.playout.over(trip);
        let ready = ready(trip);
        let (entrance, age) = tune_in(points, &playout, ready).ok_or(Unplayable::NoEntrance)?;
        let first = entrance / CHUNK_BYTES / ALIGN * ALIGN;
        let size = invitation.profile.size;
        let (writer, stream) = match room {
            Room::Registered { registry, .. } => {
                let opened = registry.receive(&settings.name, size, now);
                let (stream, writer) = opened.map_err(|why| match why {
                    NotReceived::Taken | NotReceived::TooMany => Unplayable::Numbers,
                    NotReceived::NoMemory => Unplayable::NoMemory,
                })?;
                (writer, Some(stream))
            }
            Room::Own { arena, memory } => {
                let from = Some(first * CHUNK_BYTES).filter(|from| *from < ALIKE_MAX);
                let opened = open_received(arena, memory, size, from.unwrap_or(0), 1);
                (opened.map_err(|_| Unplayable::NoMemory)?.0, None)
            }
        };
        let outlet = match (stream, room) {
            (Some(stream), Room::Registered { segment, .. }) => {
                stream.set_live(true);
                let segmenter = Segmenter::new(*segment, Arc::clone(&stream.segments), false);
                Outlet::Local { follower: Box::new(Follower::new(&writer, segmenter)), stream }
            }
            _ => Outlet::Headless,
        };
        let mut store = Store::new(writer, size, first).ok_or(Unplayable::Numbers)?;
        skip_to(&mut store, now.mono, entrance);
        let start = store.local_offset(entrance);
        figures.window = Some((Arc::clone(store.window()), start));
        figures.run(Run { local: start, wire: entrance });
        let mut playing = Playing {
            profile: invitation.profile,
            playout: Playout::new(playout, start).with_trip(trip).with_age(age + ready),
            assembly: Assembly::new(invitation.profile, &store, invitation.chunk_time()),
            store,
            line: Timeline::default(),
            clock: RelayClock::new(invitation.now, asked, now.mono),
            fresh: Freshness::new(invitation.now, asked, now.mono),
            outlet,
            breaks: VecDeque::new(),
            unmarked: 0,
        };
        playing.note(invitation, asked, now.mono);
        Ok(playing)
    }

    /// A fresh word of the relay about its clock and what came in when.
    pub(super) fn note(&mut self, invitation: &Invitation, asked: Mono, now: Mono) {
        self.clock = RelayClock::new(invitation.now, asked, now);
        self.fresh = Freshness::new(invitation.now, asked, now);
        self.note_entrances(invitation);
    }

    /// When access points came in. Those of another numbering wait until that is ours.
    fn note_entrances(&mut self, invitation: &Invitation) {
        let said = Stamp::from_micros(invitation.now.saturating_mul(1_000));
        let end = self.store.ahead() * CHUNK_BYTES;
        for (offset, age) in invitation.access_points.iter().filter(|(at, _)| *at < end) {
            let local = self.store.local_offset(*offset);
            if local >= self.playout.position() {
                self.line.note_head(local, said.minus(*age));
            }
        }
    }

    /// A subtree was verified: its bytes came in until it was signed.
    pub(super) fn note_signed(&mut self, now: Mono, signed: Signed) {
        let bytes = self.profile.size.bytes();
        let time = Stamp::from_ntp(signed.ntp, self.clock.at(now));
        let begin = self.store.local_offset(signed.number.saturating_mul(bytes));
        let end = self.store.local_offset((signed.number + 1).saturating_mul(bytes));
        // Of another life of the relay it may be, as long as the window has not jumped there.
        let ahead = self.store.local_offset(self.store.ahead() * CHUNK_BYTES);
        if end > begin && begin < ahead {
            self.line.note_run(begin, end, time);
        }
    }

    /// How long ago a subtree was signed.
    pub(super) fn age(&self, now: Mono, signed: Signed) -> Duration {
        let stamp = self.clock.at(now);
        stamp.since(Stamp::from_ntp(signed.ntp, stamp))
    }

    /// When the first byte of a subtree is to be played; if nothing behind it is known, as far as
    /// can be told from the newest one that is and the stream's rate.
    pub(super) fn deadline(&self, now: Mono, subtree: u64) -> Option<Mono> {
        let first = self.store.local_offset(subtree.saturating_mul(self.profile.size.bytes()));
        if let Some(time) = self.line.time_of(first) {
            return Some(self.clock.when(time.plus(self.playout.delay())));
        }
        let (newest, ntp) = self.assembly.newest()?;
        let stamp = Stamp::from_ntp(ntp, self.clock.at(now));
        let each = self.assembly.chunk_time() * self.assembly.n() as u32;
        let apart =
            |subtrees: u64| each.saturating_mul(u32::try_from(subtrees).unwrap_or(u32::MAX));
        // The newest was signed when its last byte had come in.
        let begun = match (subtree + 1).checked_sub(newest) {
            Some(ahead) => stamp.plus(apart(ahead)).minus(each * 2),
            None => stamp.minus(apart(newest - subtree) + each),
        };
        Some(self.clock.when(begun.plus(self.playout.delay())))
    }

    /// The chunk that is played, and how long what is there lasts.
    pub(super) fn buffer(&self) -> (u64, Duration) {
        let position = self.playout.position();
        let chunk = self.store.wire_offset(position) / CHUNK_BYTES;
        let chunks = self.store.next().saturating_sub(chunk);
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        (chunk, self.assembly.chunk_time().saturating_mul(chunks))
    }

    /// What composing a datagram looks at.
    pub(super) fn view<'a>(&'a self, asks: Option<&'a dyn Fn(u64) -> bool>) -> View<'a> {
        View { assembly: &self.assembly, store: &self.store, asks }
    }

    /// Stream offset of the first missing byte, as the relay counts.
    pub(super) fn wanted(&self) -> u64 {
        self.store.next() * CHUNK_BYTES
    }

    /// Offset in the window of the first missing byte.
    fn end(&self) -> u64 {
        self.store.local_offset(self.wanted())
    }

    /// Moves the play-out position on and shows what is due. Returns whether anything is new.
    pub(super) fn advance(&mut self, now: Now, figures: &mut Figures) -> bool {
        let stamp = self.clock.at(now.mono);
        let head = self.store.window().head();
        let before = self.playout.position();
        let mut position = self.playout.advance(stamp, self.end(), &self.line);
        if position >= self.end() && self.breaks.is_empty() {
            self.skip_if_hopeless(now, stamp, figures);
            position = self.playout.advance(stamp, self.end(), &self.line);
        }
        while let Some(at) = self.breaks.front().copied().filter(|at| *at <= position) {
            self.show(now, at);
            self.break_off(now);
            self.breaks.pop_front();
        }
        if self.playout.has_begun() {
            self.show(now, position);
        }
        // Over a break or a hole the position goes though nothing is shown yet.
        if position > before && self.playout.has_begun() {
            let came = self.line.time_of(before).unwrap_or(stamp);
            figures.played(now.mono, stamp.since(came));
        }
        figures.target = self.playout.delay();
        figures.tally = self.playout.tally();
        figures.breaks_forgotten =
            self.playout.breaks_forgotten() + self.line.breaks_forgotten() + self.unmarked;
        self.line.forget_below(position.saturating_sub(CHUNK_BYTES * ALIGN));
        self.store.window().head() > head
    }

    /// Gives up a hole whose turn is long over, if there is something behind it.
    fn skip_if_hopeless(&mut self, now: Now, stamp: Stamp, figures: &mut Figures) {
        if !self.playout.gives_up(stamp, &self.line) {
            return;
        }
        let Some(beyond) = self.store.beyond(self.store.ahead()) else { return };
        let local = self.end();
        self.show(now, local);
        let lost = self.store.give_up(now.mono, beyond);
        if lost == 0 {
            return;
        }
        self.break_off(now);
        figures.given_up += lost;
        figures.loss(Loss { local, bytes: lost * CHUNK_BYTES });
        self.playout.skip(stamp, self.store.local_offset(beyond * CHUNK_BYTES), &self.line);
    }

    /// The chunk of the first access point behind all that is there, in steps of the largest
    /// subtree; if there is none yet, of what is newest.
    pub(super) fn beyond(&self, invitation: &Invitation) -> Option<u64> {
        let chunks = invitation.access_points.iter().map(|(at, _)| at / CHUNK_BYTES);
        let newest = invitation.signed.saturating_sub(1);
        let mut chunks = chunks.chain([newest]).map(|chunk| chunk / ALIGN * ALIGN);
        chunks.find(|chunk| *chunk > self.store.next())
    }

    /// Goes on at the access point that suits, not before chunk `floor`: the ids before that do
    /// not exist. Returns whether it did.
    pub(super) fn jump(
        &mut self,
        now: Mono,
        floor: u64,
        invitation: &Invitation,
        settings: &Settings,
        figures: &mut Figures,
    ) -> bool {
        let fits = |(offset, _): &&(u64, Duration)| offset / CHUNK_BYTES / ALIGN * ALIGN >= floor;
        let points: Vec<_> = invitation.access_points.iter().filter(fits).copied().collect();
        let floor = floor.next_multiple_of(ALIGN);
        let young = tune_in(&points, &settings.playout, Duration::ZERO);
        let entrance = young.or_else(|| points.last().copied()).map(|(offset, _)| offset);
        let entrance = entrance.unwrap_or(floor * CHUNK_BYTES);
        let to = entrance / CHUNK_BYTES / ALIGN * ALIGN;
        let end = self.end();
        if to <= self.store.next() || !self.store.jump(now, to) {
            return false;
        }
        skip_to(&mut self.store, now, entrance);
        let begin = self.store.local_offset(entrance);
        self.line.note_break(begin);
        self.note_entrances(invitation);
        self.playout.add_break(end, begin);
        if self.breaks.len() >= BREAKS_MAX {
            self.breaks.pop_front();
            self.unmarked += 1;
        }
        self.breaks.push_back(end);
        figures.loss(Loss { local: end, bytes: begin - end });
        figures.run(Run { local: begin, wire: entrance });
        true
    }

    /// Whether what is there is played to its end.
    pub(super) fn is_dry(&self) -> bool {
        self.playout.position() >= self.end()
    }

    fn show(&mut self, now: Now, until: u64) {
        let writer = self.store.writer();
        match &mut self.outlet {
            Outlet::Local { follower, .. } => {
                follower.follow_below(now, writer, until);
            }
            Outlet::Headless => writer.publish_below(now.mono, until),
        }
    }

    fn break_off(&mut self, now: Now) {
        if let Outlet::Local { follower, stream } = &mut self.outlet {
            follower.break_off(now, self.store.writer());
            stream.discontinuities.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The shard to be told that there is something new, if it asked for that.
    pub(super) fn ring(&self) -> Option<(ShardId, StreamSlot)> {
        let Outlet::Local { stream, .. } = &self.outlet else { return None };
        let shard = ShardId(0);
        stream.window.bell(shard).take().then_some((shard, stream.slot))
    }

    /// Tells the stream's page how it is doing, about once a second.
    pub(super) fn tend(&self, now: Now, live: bool) {
        if let Outlet::Local { follower, stream } = &self.outlet {
            stream.set_live(live);
            if live {
                stream.hear(now.mono);
            }
            stream.set_health(follower.health(now.mono));
        }
    }
}

/// Leaves out what lies before the subtree of the access point: it is not played.
fn skip_to(store: &mut Store, now: Mono, entrance: u64) {
    let n = store.size().chunks() as u64;
    store.give_up(now, entrance / CHUNK_BYTES / n * n);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{CHUNK, SLAB_LARGE};
    use crate::base::time::Utc;
    use crate::ring::arena::Arena;
    use crate::ring::records::SubtreeSize;
    use crate::ring::window;
    use crate::swarm::integrity::{KeyPair, Signer};
    use crate::wire::ppspp::Addressing;

    const NOW: Now = Now { mono: Mono::from_millis(50_000), utc: Utc::from_unix_millis(5) };

    /// What the relay says: its newest chunk, and an access point of this age.
    fn invitation(signed: u64, entrance: u64, age: Duration) -> Invitation {
        let swarm_id = KeyPair::generate().unwrap().swarm_id();
        let size = SubtreeSize::new(16).unwrap();
        let profile = Profile { swarm_id, addressing: Addressing::Chunks64, size };
        let access_points = vec![(entrance, age)];
        Invitation { profile, udp: vec![], signed, now: 1_000_000, access_points }
    }

    /// Nobody is asked: what is played is told by the tests.
    fn settings() -> Settings {
        Settings {
            url: "http://192.0.2.1:1/live/a".parse().unwrap(),
            name: "a".parse().unwrap(),
            addresses: vec![],
            pin: None,
            token: None,
            tls: None,
            playout: crate::swarm::playout::Settings::default(),
            upload: Some(0),
            strategy: crate::swarm::settings::Strategy::Trees,
        }
    }

    fn opened(figures: &mut Figures) -> Playing {
        opened_at(0, figures)
    }

    /// At an access point in this chunk.
    fn opened_at(chunk: u64, figures: &mut Figures) -> Playing {
        let arena = Arena::create(16 * SLAB_LARGE as u64).unwrap();
        let memory = window::Settings { bytes: 8 << 20, span: Duration::from_secs(60) };
        let room = Room::Own { arena, memory };
        let invitation = invitation(chunk + 320, chunk * CHUNK_BYTES, ms(1_800));
        Playing::open(NOW, &invitation, NOW.mono, &room, &settings(), figures).unwrap()
    }

    #[test]
    fn a_window_of_its_own_has_the_numbers_of_the_stream_far_from_their_end() {
        for (chunk, own) in [(4_005, true), (ALIKE_MAX / CHUNK_BYTES + 20, false)] {
            let mut figures = Figures::new(NOW.mono);
            let playing = opened_at(chunk, &mut figures);
            let run = figures.runs[0];
            assert_eq!((run.wire, run.local == run.wire), (chunk * CHUNK_BYTES, own));
            assert_eq!(playing.store.next(), chunk / 16 * 16);
            assert!(own || run.local < 1 << 20, "{}", run.local);
        }
    }

    /// A stream's rate changes from subtree to subtree: by the mean, this one's turn would be
    /// thought to come more than half a second late, and it was asked for when it was too late.
    #[test]
    fn when_a_subtree_is_played_is_known_from_when_it_came_in() {
        let mut playing = opened(&mut Figures::new(NOW.mono));
        let came =
            |millis: u64| Stamp::from_micros(1_000_000_000).plus(ms(millis)).minus(ms(1_800));
        let bytes = playing.profile.size.bytes();
        playing.line.note_run(0, bytes, came(100));
        playing.line.note_run(bytes, 2 * bytes, came(200));
        playing.line.note_run(2 * bytes, 20 * bytes, came(2_000));
        let turn = |subtree| playing.deadline(NOW.mono, subtree).unwrap().since(NOW.mono);
        assert_eq!(turn(1), ms(100));
        assert_eq!(turn(2), ms(1_750), "padded after a pause: it came in at the end");
        assert_eq!(playing.deadline(NOW.mono, 20), None, "nothing was verified yet");
    }

    /// A relay that starts again and again before anything is played.
    #[test]
    fn breaks_that_wait_to_be_marked_are_bounded_and_counted() {
        let mut figures = Figures::new(NOW.mono);
        let mut playing = opened(&mut figures);
        for life in 1..=BREAKS_MAX as u64 + 2 {
            let first = life << 24;
            let invitation = invitation(first + 320, first * CHUNK_BYTES, ms(1_800));
            assert!(
                playing.jump(NOW.mono, first, &invitation, &settings(), &mut figures),
                "{life}"
            );
        }
        assert_eq!((playing.breaks.len(), playing.unmarked), (BREAKS_MAX, 2));
        playing.advance(NOW, &mut figures);
        // Play-out and the timeline have lost theirs, too.
        assert_eq!(figures.breaks_forgotten, 3 * 2);
    }

    /// The first bytes never come: it goes on behind them, and waits for enough in hand there.
    #[test]
    fn a_hole_that_is_passed_is_no_startup() {
        let mut figures = Figures::new(NOW.mono);
        let mut playing = opened(&mut figures);
        let came = playing.clock.at(NOW.mono).minus(ms(6_000));
        playing.line.note_run(0, 200 * CHUNK_BYTES, came);
        assert!(playing.store.write(NOW.mono, 100, &[7; CHUNK]).is_ok());
        playing.advance(NOW, &mut figures);
        assert_eq!(playing.playout.position(), 100 * CHUNK_BYTES);
        assert_eq!((playing.playout.has_begun(), figures.startup), (false, None));
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}
