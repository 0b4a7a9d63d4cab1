//! A viewer among others: whom it knows, who feeds it, whom it feeds.
//!
//! ```text
//! advice  whom the relay names to feed us
//! link    one link to another viewer, both halves
//! greet   introductions, openings, links that begin and end
//! probe   the line is measured
//! share   what is passed on, and how much of it
//! shelf   what there is to pass on
//! ```
//!
//! Who feeds whom is decided by [`crate::swarm::mesh`], how much is passed on by
//! [`crate::swarm::upload`]; here is only who tells them what, and who does what they want.

mod advice;
mod greet;
mod link;
mod probe;
mod share;
mod shelf;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::peer::desk::Desk;
use crate::peer::figures::{Figures, Neighbour, Sharing};
use crate::peer::viewer::neighbours::link::{Beat, Ear, Gate, Line, Link, STATE_APART, differs};
use crate::peer::viewer::neighbours::share::OBSERVE;
use crate::peer::viewer::neighbours::shelf::Shelf;
use crate::peer::viewer::playing::Playing;
use crate::swarm::doors::{Doors, same};
use crate::swarm::mesh::{Key, Mesh, Missing, Pusher, Source};
use crate::swarm::receiver::{Counts, News, Profile, Receiver, Tools};
use crate::swarm::requests::Run;
use crate::swarm::settings::Strategy;
use crate::swarm::stripes::STRIPES;
use crate::swarm::upload::Upload;
use crate::wire::ppspp::{Bye, Link as PeerLink, Links, Message, Private, Span, State, Writer};

/// Links to neighbours, at most; beyond it nobody is let in.
const LINKS_MAX: usize = 64;

/// Links over which nobody has been fed for so long are kept up to this many, to ask for what is
/// missing: each costs both ends news and keepalives.
const IDLE_AFTER: Duration = Duration::from_secs(5);
const IDLE_MAX: usize = 8;

/// With fewer of them the relay is asked for more.
const LINKS_WANTED: usize = 3;

/// The same where nobody pushes: who has what is a matter of chance.
const LINKS_PULLED: usize = 8;

/// How often it is asked.
const ASK_APART: Duration = Duration::from_secs(2);

/// A neighbour that has said nothing for so long is gone: each says something every second.
const SILENCE: Duration = Duration::from_secs(3);

/// How often the relay hears who feeds us.
const LINKS_APART: Duration = Duration::from_secs(2);

/// Addresses that the relay named and that are still to be opened to; the oldest makes room.
const INTRODUCTIONS_MAX: usize = 32;

/// Subtrees that are looked at, at most: those that lie ahead of what is played.
const MISSING_MAX: usize = 256;

/// News go with other things in a datagram that is shorter than this.
const NEWS_BELOW: usize = 256;

/// A viewer's neighbours.
pub(super) struct Neighbours {
    profile: Profile,
    doors: Doors,
    mesh: Mesh,
    upload: Upload,
    links: Vec<Link>,
    /// One for each link, in the same order.
    beats: Vec<Beat>,
    /// Whose turn it is to be sent something.
    turn: usize,
    shelf: Shelf,
    keys: u16,
    /// Addresses that the relay named.
    introductions: VecDeque<SocketAddr>,
    /// Who is to feed us, and which stripes, as the relay says.
    advice: Vec<(SocketAddr, u8)>,
    /// Whether the mesh was told, of all links that there are.
    followed: bool,
    /// What the links saw that are gone, and what was counted besides.
    gone: Counts,
    tally: Sharing,
    /// When the relay was last asked for more, and told what.
    asked_at: Mono,
    /// When chunks last came from one of them while there was something newer than before, and
    /// the newest subtree that was proven by then.
    fed: Option<Mono>,
    newest: u64,
    links_at: Mono,
    relay_told: Option<State>,
    relay_told_at: Mono,
    observed_at: Mono,
    /// The last train by which the line is measured, and when it was sent.
    probed: Option<(u8, Mono)>,
    missing: Vec<Missing>,
    buf: Box<[u8; 1_500]>,
}

impl Neighbours {
    /// Nobody. `seed` is random: viewers shall not all choose alike.
    pub(super) fn new(now: Mono, seed: u64, limit: Option<u64>, playing: &Playing) -> Neighbours {
        let shelf = Shelf::new(playing);
        let mut mesh = Mesh::new(seed);
        mesh.backlog_until(playing.assembly.edge() / playing.assembly.n());
        mesh.set_bitrate(shelf.bitrate());
        Neighbours {
            profile: playing.profile,
            doors: Doors::new(playing.profile),
            mesh,
            upload: Upload::new(limit, shelf.bitrate()),
            links: Vec::new(),
            beats: Vec::new(),
            turn: 0,
            shelf,
            keys: 0,
            introductions: VecDeque::new(),
            advice: Vec::new(),
            followed: false,
            gone: Counts::default(),
            tally: Sharing::default(),
            asked_at: Mono::ZERO,
            fed: None,
            newest: 0,
            links_at: now,
            relay_told: None,
            relay_told_at: Mono::ZERO,
            observed_at: now,
            probed: None,
            missing: Vec::new(),
            buf: Box::new([0; 1_500]),
        }
    }

    /// What the relay plans by.
    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        self.mesh.set_pulls(strategy == Strategy::Pull);
    }

    /// Whether the relay is to be asked for the holes of a subtree.
    pub(super) fn asks_relay(&self, subtree: u64) -> bool {
        self.links.is_empty() || self.mesh.source(subtree) == Source::Relay
    }

    /// How long no neighbour has brought anything newer. That they talk does not feed us, nor
    /// that they bring what is late: where the relay is cut off from all, that is soon at its end.
    pub(super) fn silence(&self, now: Mono) -> Duration {
        self.fed.map_or(Duration::MAX, |fed| now.since(fed))
    }

    /// The relay has let us in, perhaps again: it feeds us until neighbours do.
    pub(super) fn begin_anew(&mut self) {
        self.advice.clear();
        self.followed = false;
        self.mesh.begin_anew();
    }

    /// The stripes that the relay is to push.
    pub(super) fn relay_stripes(&self) -> u8 {
        self.mesh.relay_stripes()
    }

    /// The relay's link has brought something.
    pub(super) fn note_relay(
        &mut self,
        now: Mono,
        news: impl Iterator<Item = News>,
        rtt: Duration,
        playing: &Playing,
    ) {
        self.shelf.note_proven(playing);
        self.mesh.set_relay_rtt(rtt);
        self.mesh.note_relay_heard(now);
        let n = self.shelf.source.size;
        for news in news {
            match news {
                News::Hashed(subtree) => {
                    self.mesh.note_hash(now, Pusher::Relay, subtree);
                }
                News::Have(span) => {
                    let (first, end) = whole(span, n);
                    (first..end).for_each(|subtree| self.mesh.note_relay_have(now, subtree));
                }
            }
        }
    }

    /// Takes the messages of a datagram, if it is for a neighbour's link. Returns whether chunks
    /// came with it.
    pub(super) fn handle_datagram(
        &mut self,
        now: Mono,
        letter: Letter<'_>,
        playing: &mut Playing,
        figures: &mut Figures,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Letter { channel, from, messages } = letter;
        if self.doors.holds(channel) {
            self.enter(now, channel, from, messages, playing, desk);
        }
        let known = |(beat, link): (&Beat, &Link)| beat.channel == channel && same(link.to, from);
        let mut links = self.beats.iter().zip(&self.links);
        let Some(place) = links.position(known) else { return false };
        let Neighbours { links, beats, shelf, mesh, .. } = self;
        let (link, beat) = (&mut links[place], &mut beats[place]);
        let Link { receiver, sender, wanted, state, asked, .. } = link;
        let before = (receiver.counts().payload, *wanted);
        let stirred = sender.hear(now);
        mesh.note_heard(now, link.key);
        let mut ear = Ear { now, sender, source: &shelf.source, wanted, state, stirred };
        let Playing { assembly, store, fresh, .. } = playing;
        let mut tools = Tools { assembly, store, fresh, verifier: desk.verifier };
        receiver.handle_datagram(now, messages, &mut tools, &mut |message| ear.hear(&message));
        let stirred = ear.stirred;
        for news in receiver.take_news() {
            match news {
                News::Hashed(subtree) => {
                    *asked = true;
                    mesh.note_hash(now, Pusher::Neighbour(link.key), subtree);
                }
                News::Have(span) => note_have(mesh, now, link.key, span, assembly.n()),
            }
        }
        for signed in receiver.take_signed().collect::<Vec<_>>() {
            playing.note_signed(now, signed);
        }
        if let Some(state) = link.state.take() {
            mesh.note_state(link.key, &state);
        }
        // Of the way alone: queues come and go.
        if let Some(rtt) = link.sender.rtt().filter(|rtt| *rtt < link.receiver.rtt()) {
            link.receiver.set_rtt(rtt);
            mesh.note_rtt(link.key, rtt);
        }
        let came = link.receiver.counts().payload > before.0;
        beat.hear(now, link, stirred);
        let brought = link.receiver.take_brought();
        shelf.note_proven(playing);
        if link.wanted != before.1 {
            self.grant(place);
        }
        let newest = playing.assembly.proven_edge();
        if newest > self.newest {
            (self.newest, self.fed) = (newest, Some(now));
        }
        self.wake(brought);
        self.note_whole(now, playing, figures);
        if self.links[place].receiver.ended().is_some() {
            self.end(now, place, playing, desk);
        }
        came
    }

    /// Subtrees that became whole, whoever brought the last chunk.
    pub(super) fn note_whole(&mut self, now: Mono, playing: &mut Playing, figures: &mut Figures) {
        for signed in playing.assembly.take_whole() {
            self.mesh.note_whole(now, signed.number);
            figures.arrived(now, playing.age(now, signed));
            let at = self.shelf.tells_at();
            // What is acknowledged soon goes with news.
            let shares = self.upload.shares();
            let tells = |link: &Link| {
                shares && link.sender.tells_of(signed.number) && !link.receiver.owes()
            };
            for (link, beat) in self.links.iter().zip(&mut self.beats) {
                if beat.sends_at > at && tells(link) {
                    beat.sends_at = at;
                }
            }
        }
    }

    /// There is more to pass on, of these stripes; as soon as the line has room.
    pub(super) fn wake(&mut self, stripes: u8) {
        for beat in self.beats.iter_mut().filter(|beat| beat.stripes & stripes != 0) {
            beat.gate = Gate::Line;
        }
    }

    /// When the line takes something, as things are.
    fn line(&self) -> Line {
        Line { ready: self.upload.ready(), spare: self.upload.spare_at() }
    }

    /// Lets the mesh decide if it wants to; call it every few milliseconds.
    pub(super) fn turn(&mut self, now: Mono, playing: &Playing, desk: &mut Desk<'_>) {
        self.shelf.refresh(playing);
        self.shelf.release();
        if self.links.is_empty() {
            return;
        }
        self.follow();
        if self.mesh.next_deadline().is_none_or(|at| at <= now) {
            self.decide(now, playing);
            let state = self.state(playing);
            let links = self.links.iter().zip(&mut self.beats);
            for (_, beat) in links.filter(|(link, _)| link.wants_state(now, &state)) {
                beat.receives_at = Mono::ZERO;
            }
        }
        // All links are looked at, which lie far apart.
        if now.since(self.observed_at) < OBSERVE {
            return;
        }
        self.observed_at = now;
        self.observe(now);
        while let Some(place) = self.links.iter().position(|l| l.receiver.silence(now) >= SILENCE) {
            self.remove(now, place, Some(Bye::Leaving), playing, desk);
        }
        if let Some(place) = self.idlest(now) {
            self.tally.idle_ended += 1;
            self.remove(now, place, Some(Bye::Busy), playing, desk);
        }
    }

    /// The link that has been idle for longest, if too many are.
    fn idlest(&mut self, now: Mono) -> Option<usize> {
        if self.mesh.pulls() {
            return None;
        }
        let idle = self.links.iter_mut().map(|link| link.idle(now)).enumerate();
        let idle: Vec<_> = idle.filter(|(_, idle)| *idle >= IDLE_AFTER).collect();
        let most = idle.iter().max_by_key(|(_, idle)| *idle).map(|(place, _)| *place);
        most.filter(|_| idle.len() > IDLE_MAX)
    }

    /// Lets the mesh decide, and does what it says.
    fn decide(&mut self, now: Mono, playing: &Playing) {
        let Playing { assembly, store, .. } = playing;
        let missing = assembly.missing(store).map(|(subtree, since)| Missing {
            subtree,
            since,
            deadline: playing.deadline(now, subtree),
        });
        self.missing.clear();
        self.missing.extend(missing.take(MISSING_MAX));
        self.mesh.turn(now, &self.missing);
        let events = self.mesh.take_events();
        self.tally.grafts += events.grafts;
        self.tally.prunes += events.prunes;
        self.tally.tracks_forgotten += events.forgotten;
        for (link, beat) in self.links.iter_mut().zip(&mut self.beats) {
            let stripes = self.mesh.stripes(link.key);
            if stripes != link.receiver.stripes() {
                link.receiver.set_stripes(stripes);
                link.sender.set_fed(stripes);
                beat.receives_at = Mono::ZERO;
            }
        }
        self.links.iter_mut().for_each(|link| link.asked = false);
        for hole in &self.missing {
            if let Source::Neighbour(key) = self.mesh.source(hole.subtree)
                && let Some(place) = self.links.iter().position(|link| link.key == key)
            {
                self.links[place].asked = true;
                self.beats[place].receives_at = self.beats[place].receives_at.min(now);
            }
        }
    }

    /// Everything that is due: openings, what the links say, what is passed on.
    pub(super) fn drive(&mut self, now: Mono, playing: &Playing, desk: &mut Desk<'_>) {
        self.drive_doors(now, desk);
        let mut ended = Vec::new();
        let mut state = None;
        for place in 0..self.links.len() {
            if self.beats[place].receives_at > now {
                continue;
            }
            let may = self.links[place].may_be_told(now);
            let state = may.then(|| *state.get_or_insert_with(|| self.state(playing)));
            let Neighbours { links, beats, mesh, buf, tally, shelf, upload, .. } = self;
            let link = &mut links[place];
            let sight = shelf.sight(now, playing, upload);
            let state = state.filter(|state| link.wants_state(now, state));
            let (key, asked) = (link.key, link.asked);
            let source = |subtree| mesh.source(subtree) == Source::Neighbour(key);
            let asks: Option<&dyn Fn(u64) -> bool> = if asked { Some(&source) } else { None };
            let mut untold = state;
            loop {
                let view = playing.view(asks);
                let deadline = link.receiver.next_deadline(view).unwrap_or(now + SILENCE);
                beats[place].receives_at = deadline;
                if deadline > now && untold.is_none() {
                    break;
                }
                let Link { receiver, sender, .. } = link;
                let mut more = |writer: &mut Writer<'_>, _| {
                    untold.take_if(|state| writer.push(Message::Private(Private::State(*state))));
                    if !writer.is_empty() {
                        tell(writer, || sender.news(now, &sight));
                    }
                };
                let wrote = receiver.poll_datagram(now, view, &mut buf[..], &mut more);
                let Some(n) = wrote else { break };
                tally.control_out += n as u64;
                desk.datagram(link.to, &buf[..n]);
            }
            if let Some(state) = state.filter(|_| untold.is_none()) {
                link.note_told(now, state);
            }
            if link.receiver.ended().is_some() {
                ended.push(link.channel);
            }
        }
        for channel in ended {
            if let Some(place) = self.links.iter().position(|link| link.channel == channel) {
                self.end(now, place, playing, desk);
            }
        }
        self.share(now, playing, desk);
    }

    /// When something is due.
    pub(super) fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let line = self.line();
        let links = self.beats.iter().map(|beat| beat.receives_at.min(line.due(beat)));
        let links = links.min();
        let doors = if self.introductions.is_empty() {
            self.doors.next_deadline(now)
        } else {
            Some(Mono::ZERO)
        };
        [links, doors].into_iter().flatten().min()
    }

    /// What the relay is to be told.
    pub(super) fn notes(&self, now: Mono, playing: &Playing, relay: &Receiver) -> Notes {
        let few = self.links.len() < if self.mesh.pulls() { LINKS_PULLED } else { LINKS_WANTED };
        let may = relay.is_private() && now.since(self.relay_told_at) >= STATE_APART;
        let news = |state: &State| self.relay_told.is_none_or(|told| differs(&told, state));
        let tells = relay.is_extended() && now.since(self.links_at) >= LINKS_APART;
        Notes {
            asks: few && relay.names_peers() && now.since(self.asked_at) >= ASK_APART,
            state: may.then(|| self.state(playing)).filter(news),
            links: tells.then(|| self.told_links()),
        }
    }

    /// The links that the relay hears of. Not all may fit: who feeds us comes first, then whom we
    /// feed, then who only talks.
    fn told_links(&self) -> Vec<PeerLink> {
        let ranked = self.links.iter().map(|link| {
            let (stripes_in, stripes_out) =
                (self.mesh.stripes(link.key), link.sender.pushed_stripes());
            let told = PeerLink { address: link.to, stripes_in };
            ((stripes_in == 0, stripes_out == 0), told)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, told)| told).take(Links::MAX).collect()
    }

    /// It was told so, in a datagram of `bytes`, or not.
    pub(super) fn noted(&mut self, now: Mono, notes: &Notes, said: bool, bytes: usize) {
        self.tally.control_out += bytes as u64;
        if !said {
            return;
        }
        if notes.asks {
            self.asked_at = now;
        }
        if notes.state.is_some() {
            (self.relay_told, self.relay_told_at) = (notes.state, now);
        }
        if notes.links.is_some() {
            self.links_at = now;
        }
    }

    /// Bytes of chunks from neighbours, and to them.
    pub(super) fn shared(&self) -> [u64; 2] {
        [self.counts().payload, self.tally.sent_bytes]
    }

    fn state(&self, playing: &Playing) -> State {
        let (play_chunk, buffer) = playing.buffer();
        self.upload.state(play_chunk, buffer)
    }

    /// The ids go on elsewhere: everything that was being put together is forgotten.
    pub(super) fn rebase(&mut self, playing: &Playing) {
        self.links.iter_mut().for_each(|link| link.receiver.rebase());
        self.shelf.refresh(playing);
        self.mesh.backlog_until(playing.assembly.edge() / playing.assembly.n());
    }

    /// What the neighbours gave and got.
    pub(super) fn figures(&self, relay: &Counts) -> Sharing {
        let counts = self.counts();
        let state = self.upload.state(0, Duration::ZERO);
        let neighbours = self.links.iter().map(|link| Neighbour {
            address: link.to,
            stripes_in: self.mesh.stripes(link.key),
            stripes_out: link.sender.pushed_stripes(),
            in_bytes: link.receiver.counts().payload,
            out_bytes: link.out_bytes,
            rtt: link.receiver.rtt(),
        });
        Sharing {
            relay_bytes: relay.payload,
            peer_bytes: counts.payload,
            pushed_bytes: counts.pushed,
            control_in: counts.control + relay.control,
            integrity_in: counts.integrity + relay.integrity,
            duplicates: counts.duplicates + relay.duplicates,
            rescues: relay.payload.saturating_sub(relay.pushed) / CHUNK as u64,
            neighbours: neighbours.collect(),
            upload_kbit: state.upload_kbit,
            room_kbit: state.room_kbit,
            overfull: self.overfull(),
            addresses_forgotten: self.tally.addresses_forgotten + self.doors.forgotten(),
            news_forgotten: counts.news_forgotten + relay.news_forgotten,
            ..self.tally.clone()
        }
    }

    /// A table that holds more than it may: a defect, whoever did what.
    fn overfull(&self) -> Option<&'static str> {
        let tables = [
            ("links", self.links.len(), LINKS_MAX),
            ("introductions", self.introductions.len(), INTRODUCTIONS_MAX),
            ("advice", self.advice.len(), STRIPES),
            ("missing", self.missing.len(), MISSING_MAX),
        ];
        let own = tables.into_iter().find(|(_, len, most)| len > most).map(|(name, ..)| name);
        own.or_else(|| self.doors.overfull()).or_else(|| self.mesh.overfull())
    }

    /// What all links to neighbours have seen.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.gone.clone();
        self.links.iter().for_each(|link| counts.add(link.receiver.counts()));
        counts
    }
}

/// A datagram.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a> {
    /// The channel that it is for, and where it came from.
    pub channel: u32,
    pub from: SocketAddr,
    pub messages: &'a [u8],
}

/// What the relay is to be told beside what its link says.
pub(super) struct Notes {
    /// We want more neighbours.
    asks: bool,
    state: Option<State>,
    /// Who feeds us.
    links: Option<Vec<PeerLink>>,
}

impl Notes {
    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        !self.asks && self.state.is_none() && self.links.is_none()
    }

    /// Writes them; whether anything was written.
    pub(super) fn write(&self, writer: &mut Writer<'_>) -> bool {
        let mut wrote = self.asks && writer.push(Message::PexRequest);
        if let Some(state) = self.state {
            wrote |= writer.push(Message::Private(Private::State(state)));
        }
        if let Some(links) = &self.links {
            let mut buf = [0; Links::MAX * PeerLink::BYTES];
            let links = Links::fill(links.iter().copied(), &mut buf);
            wrote |= writer.push(Message::Private(Private::Links(links)));
        }
        wrote
    }
}

/// Adds news to a datagram as long as there is room for them.
fn tell(writer: &mut Writer<'_>, mut news: impl FnMut() -> Option<Run>) {
    while writer.len() < NEWS_BELOW
        && let Some(run) = news()
    {
        let span = Span::new(run.first(), run.last());
        span.into_iter().for_each(|span| {
            let _ = writer.push(Message::Have(span));
        });
    }
}

/// A neighbour has chunks: the subtrees of which it has all.
fn note_have(mesh: &mut Mesh, now: Mono, key: Key, span: Span, n: u64) {
    let (first, end) = whole(span, n);
    (first..end).for_each(|subtree| mesh.note_have(now, key, subtree));
}

/// The newest subtrees all chunks of which are in a span.
fn whole(span: Span, n: u64) -> (u64, u64) {
    let (first, end) = (span.first.div_ceil(n), (span.last + 1) / n);
    (first.max(end.saturating_sub(MISSING_MAX as u64)), end)
}
