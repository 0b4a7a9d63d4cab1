//! One viewer: joins a stream, receives it over UDP or HTTP, plays it a little behind live.
//!
//! ```text
//! join        swarm.json, the handshake, the link; again and again
//! relay       the link to the relay
//! neighbours  links to other viewers: who feeds this one, whom it feeds
//! over        bytes that come over HTTP, while UDP says nothing
//! playing     the window, the play-out position, what is given up and jumped over
//! ```

mod join;
mod neighbours;
mod over;
mod playing;
mod relay;

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::time::{Mono, Now};
use crate::peer::call::Call;
use crate::peer::client::Sink;
use crate::peer::desk::{Desk, Which, Wish};
use crate::peer::figures::{Figures, Source};
use crate::peer::invitation::Invitation;
use crate::peer::settings::Room;
use crate::peer::viewer::join::{Document, is_new_life};
use crate::peer::viewer::neighbours::Neighbours;
use crate::peer::viewer::over::{LIMITS, Over, OverHttp};
use crate::peer::viewer::playing::Playing;
use crate::peer::viewer::relay::Link;
use crate::swarm::opener::{NO_ANSWER, Opener};
use crate::wire::ppspp::Report;

/// How often the play-out position moves.
const TICK: Duration = Duration::from_millis(20);

/// How often figures are copied to the board, and the page and the relay are told.
const FIGURES_APART: Duration = Duration::from_millis(500);
const REPORTS_APART: Duration = Duration::from_secs(1);

/// How soon HTTP is tried again after it failed.
const HTTP_AGAIN: Duration = Duration::from_millis(300);

/// A link that has said something in this time is alive.
const ALIVE: Duration = Duration::from_millis(300);

/// Subtrees over UDP in a row before HTTP is left.
const RECOVERED: u64 = 2;

/// Something about a connection.
pub(super) enum Happening<'a> {
    Connected(ConnId),
    Failed,
    Received(&'a [u8]),
    Sent(usize),
    Blocked,
    Writable,
    Closed { clean: bool },
}

/// One viewer.
pub(super) struct Viewer {
    index: usize,
    room: Room,
    pub(super) figures: Figures,
    invitation: Option<(Invitation, Mono)>,
    document: Option<Document>,
    /// When `swarm.json` is asked for next; `None`: no need.
    document_at: Option<Mono>,
    /// Attempts, by which addresses take turns.
    attempts: usize,
    opener: Option<(Opener, SocketAddr)>,
    link: Option<Link>,
    neighbours: Option<Box<Neighbours>>,
    /// What neighbours had given and got when the link to the relay was opened.
    base: [u64; 2],
    /// When UDP was last tried.
    tried: Mono,
    http: Option<OverHttp>,
    http_after: Mono,
    /// When the relay first said over HTTP that it no longer has the chunk that comes next.
    gone: Option<(Mono, u64)>,
    playing: Option<Playing>,
    next_tick: Mono,
    next_figures: Mono,
    next_report: Mono,
    leaving: bool,
}

impl Viewer {
    /// The round trip to the relay, as it is known.
    #[cfg(test)]
    pub(super) fn relay_rtt(&self) -> Option<Duration> {
        self.link.as_ref().map(|link| link.receiver.rtt())
    }

    pub(super) fn new(index: usize, room: Room, now: Mono) -> Viewer {
        Viewer {
            index,
            room,
            figures: Figures::new(now),
            invitation: None,
            document: None,
            document_at: Some(now),
            attempts: 0,
            opener: None,
            link: None,
            neighbours: None,
            base: [0; 2],
            tried: now,
            http: None,
            http_after: now,
            gone: None,
            playing: None,
            next_tick: now,
            next_figures: now,
            next_report: now + REPORTS_APART,
            leaving: false,
        }
    }

    /// Leaves: says so to the relay and closes everything.
    pub(super) fn leave(&mut self, now: Now, desk: &mut Desk<'_>) {
        self.leaving = true;
        self.close_http(desk);
        if let Some(document) = self.document.take() {
            hang_up(&document.call, desk);
        }
        self.drop_opener(desk);
        self.drop_link(now.mono, desk);
        self.tell_board(desk, true);
        if let (Some(neighbours), Some(playing)) = (&mut self.neighbours, &self.playing) {
            neighbours.leave(now.mono, playing, desk);
        }
    }

    /// Something happened to one of our connections.
    pub(super) fn handle_call(
        &mut self,
        now: Now,
        which: Which,
        happening: Happening<'_>,
        desk: &mut Desk<'_>,
    ) {
        match which {
            Which::Document => self.handle_document(now, happening, desk),
            Which::Http => self.handle_http(now, happening, desk),
        }
    }

    fn handle_http(&mut self, now: Now, happening: Happening<'_>, desk: &mut Desk<'_>) {
        let (Some(http), Some(playing)) = (&mut self.http, &mut self.playing) else { return };
        let failed = matches!(happening, Happening::Failed);
        let over = http.take(
            now,
            |call, sink| tell(call, now, &happening, sink),
            playing,
            &mut self.figures,
        );
        if playing.is_dry() {
            self.next_tick = now.mono;
        }
        if failed || over.is_some() {
            self.http_over(now, over.unwrap_or(Over::Broken), desk);
        }
    }

    fn http_over(&mut self, now: Now, why: Over, desk: &mut Desk<'_>) {
        self.close_http(desk);
        self.http_after = now.mono + HTTP_AGAIN;
        if why == Over::Gone {
            let next = self.playing.as_ref().map_or(0, |playing| playing.store.next());
            let before = self.gone.filter(|(_, chunk)| *chunk == next);
            self.gone = before.or(Some((now.mono, next)));
        }
        // What the relay has may have changed: it may be another one.
        if self.opener.is_none() && (why == Over::Gone || self.udp_is_silent(now.mono)) {
            self.ask_at(now.mono);
        }
    }

    fn close_http(&mut self, desk: &mut Desk<'_>) {
        if let Some(http) = self.http.take() {
            hang_up(&http.call, desk);
        }
    }

    /// Does everything that is due.
    pub(super) fn drive(&mut self, now: Now, desk: &mut Desk<'_>) {
        if self.leaving {
            return;
        }
        self.timeouts(now, desk);
        self.drive_document(now, desk);
        self.drive_http(now, desk);
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + TICK;
            self.tick(now, desk);
        }
        self.drive_udp(now, desk);
        if let (Some(neighbours), Some(playing)) = (&mut self.neighbours, &self.playing) {
            neighbours.drive(now.mono, playing, desk);
        }
        let calls = self.document.iter_mut().map(|document| &mut document.call);
        for call in calls.chain(self.http.iter_mut().map(|http| &mut http.call)) {
            if let Some((conn, data)) = call.next_send() {
                desk.wish(Wish::Send { conn, data });
            }
        }
        if now.mono >= self.next_figures {
            self.next_figures = now.mono + FIGURES_APART;
            self.tell_board(desk, false);
            if let Some(playing) = &self.playing {
                playing.tend(now, self.figures.source.is_some() && !playing.is_dry());
            }
        }
    }

    fn timeouts(&mut self, now: Now, desk: &mut Desk<'_>) {
        let due = |call: &Call| call.next_deadline().is_some_and(|at| at <= now.mono);
        if self.http.as_ref().is_some_and(|http| due(&http.call))
            && let (Some(http), Some(playing)) = (&mut self.http, &mut self.playing)
        {
            let late = |call: &mut Call, sink: Sink<'_>| call.handle_timeout(now, sink);
            let over = http.take(now, late, playing, &mut self.figures);
            self.http_over(now, over.unwrap_or(Over::Broken), desk);
        }
        if self.document.as_ref().is_some_and(|document| due(&document.call)) {
            self.document_failed(now, "the relay does not answer", desk);
        }
    }

    /// Whether UDP has said nothing for so long that HTTP has to help.
    fn udp_is_silent(&self, now: Mono) -> bool {
        let silent = match (&self.link, &self.opener) {
            (Some(link), _) => link.receiver.silence(now) >= NO_ANSWER,
            (None, Some((opener, _))) => opener.is_silent(now),
            (None, None) => true,
        };
        // Something newer comes several times in this time, from whomever.
        let fed = |neighbours: &Neighbours| neighbours.silence(now) < ALIVE;
        silent && !self.neighbours.as_deref().is_some_and(fed)
    }

    /// Plays over HTTP as long as UDP is silent, and a little beyond.
    fn drive_http(&mut self, now: Now, desk: &mut Desk<'_>) {
        let silent = self.udp_is_silent(now.mono);
        if silent {
            // What was under way when it fell silent was no recovery.
            self.http.iter_mut().for_each(|http| http.recovered = None);
        }
        let Some(playing) = &self.playing else { return };
        if let Some(http) = &self.http {
            let silence = self.link.as_ref().map(|link| link.receiver.silence(now.mono));
            let fed = self.neighbours.as_ref().map(|neighbours| neighbours.silence(now.mono));
            let alive = silence.into_iter().chain(fed).any(|silence| silence < ALIVE);
            let n = playing.profile.size.chunks() as u64;
            let recovered =
                http.recovered.is_some_and(|first| playing.store.next() >= first + RECOVERED * n);
            let behind =
                http.next_chunk() > playing.store.next() && !http.is_useful(now.mono, ALIVE);
            if alive && recovered {
                self.close_http(desk);
                self.figures.switch(now.mono, Source::Udp);
            } else if behind && http.filled.is_some() {
                // What it brought found no room: from the hole on, again.
                self.http_over(now, Over::Broken, desk);
            }
            return;
        }
        if !silent || now.mono < self.http_after {
            return;
        }
        let at = playing.wanted();
        let target = format!("/live/{}.ts?at={at}", desk.settings.name);
        let Ok(url) = desk.settings.url.with_target(&target) else { return };
        self.http_after = now.mono + HTTP_AGAIN;
        if let Some(call) = self.dial(now, &url, LIMITS, Which::Http, desk) {
            self.http = Some(OverHttp::new(call, at));
        }
    }

    /// Moves the play-out position.
    fn tick(&mut self, now: Now, desk: &mut Desk<'_>) {
        self.jump_if_needed(now, desk);
        let Some(playing) = &mut self.playing else { return };
        if let Some(neighbours) = &mut self.neighbours {
            neighbours.turn(now.mono, playing, desk);
            if let Some(link) = &mut self.link {
                link.receiver.set_stripes(neighbours.relay_stripes());
            }
        }
        if let Some(link) = &mut self.link {
            // What the others brought, and who is asked now, concerns it as well.
            link.tells_at = Mono::ZERO;
        }
        if playing.advance(now, &mut self.figures)
            && let Some((shard, stream)) = playing.ring()
        {
            desk.wish(Wish::Head { shard, stream });
        }
        if now.mono >= self.next_report
            && let Some(link) = &mut self.link
        {
            self.next_report = now.mono + REPORTS_APART;
            let counts = link.receiver.counts();
            let shared = self.neighbours.as_ref().map(|them| them.shared());
            let [peers, sent] = shared.unwrap_or_default();
            let (p50, p99) = self.figures.recent();
            let (arrival_p50, arrival_p99) = self.figures.recent_arrivals();
            let tally = self.figures.tally;
            link.receiver.set_report(Report {
                relay_bytes: counts.payload,
                peer_bytes: peers.saturating_sub(self.base[0]),
                sent_bytes: sent.saturating_sub(self.base[1]),
                delay_p50_ms: p50,
                delay_p99_ms: p99,
                stalls: u16::try_from(tally.stalls).unwrap_or(u16::MAX),
                stall_ms: u32::try_from(tally.stall_time.as_millis()).unwrap_or(u32::MAX),
                rescues: u32::try_from(counts.repaired).unwrap_or(u32::MAX),
                bad: u16::try_from(counts.bad()).unwrap_or(u16::MAX),
                arrival_p50_ms: arrival_p50,
                arrival_p99_ms: arrival_p99,
                duplicates: u32::try_from(counts.duplicates).unwrap_or(u32::MAX),
            });
        }
    }

    /// Goes on where the relay's chunks begin, if those before do not exist and nobody else
    /// brings them. To whom UDP does not come, the relay says so over HTTP.
    fn jump_if_needed(&mut self, now: Now, desk: &Desk<'_>) {
        let Some(playing) = &mut self.playing else { return };
        let Some((invitation, said)) = &self.invitation else { return };
        let next = playing.store.next();
        let told = self.link.as_ref().and_then(|link| link.receiver.floor());
        let newer = |at| at < *said || is_new_life(playing, invitation);
        let fresh = self.gone.is_some_and(|(at, chunk)| chunk == next && newer(at));
        let known = || playing.beyond(invitation).filter(|_| fresh);
        let Some(floor) = told.filter(|floor| *floor > next).or_else(known) else { return };
        let patience = NO_ANSWER;
        let waits = |http: &OverHttp| http.filled.is_none() || http.is_useful(now.mono, patience);
        if self.http.as_ref().is_some_and(waits) {
            return;
        }
        if playing.jump(now.mono, floor, invitation, desk.settings, &mut self.figures) {
            playing.assembly.rebase(now.mono, &playing.store);
            self.link.iter_mut().for_each(|link| link.receiver.rebase());
            self.neighbours.iter_mut().for_each(|neighbours| neighbours.rebase(playing));
        }
    }

    fn tell_board(&mut self, desk: &Desk<'_>, must: bool) {
        let mut figures = self.figures.clone();
        if let Some(link) = &self.link {
            figures.counts.add(link.receiver.counts());
        }
        if let Some(neighbours) = &self.neighbours {
            figures.sharing = neighbours.figures(&figures.counts);
            figures.counts.add(&neighbours.counts());
        }
        desk.board.write(self.index, figures, must);
    }

    /// When something is due.
    pub(super) fn next_deadline(&self, now: Mono) -> Option<Mono> {
        if self.leaving {
            return None;
        }
        let calls = self.document.iter().map(|document| &document.call);
        let calls = calls.chain(self.http.iter().map(|http| &http.call));
        let calls = calls.filter_map(Call::next_deadline);
        let tick = self.playing.as_ref().map(|_| self.next_tick);
        let opener = self.opener.as_ref().map(|(opener, _)| opener.next_deadline(now));
        let link = self.link_deadline();
        let neighbours = self.neighbours.as_ref().and_then(|them| them.next_deadline(now));
        let document = self.document_at.filter(|_| self.document.is_none());
        let figures = Some(self.next_figures);
        let own = [tick, opener, link, neighbours, document, figures];
        calls.chain(own.into_iter().flatten()).min()
    }
}

/// Gives what happened to the call.
fn tell(call: &mut Call, now: Now, happening: &Happening<'_>, sink: Sink<'_>) {
    match happening {
        Happening::Connected(conn) => call.conn = Some(*conn),
        Happening::Received(data) => call.handle_received(now, data, sink),
        Happening::Sent(n) => call.handle_sent(*n),
        Happening::Blocked => call.handle_blocked(),
        Happening::Writable => call.handle_writable(),
        Happening::Closed { clean } => call.handle_closed(*clean, sink),
        Happening::Failed => {}
    }
}

/// Lets a connection go, or one that is still to come.
fn hang_up(call: &Call, desk: &mut Desk<'_>) {
    match call.conn {
        Some(conn) => desk.wish(Wish::Close { conn }),
        None => desk.wish(Wish::Forget { token: call.token }),
    }
}
