//! How a viewer joins, and joins again: `swarm.json`, then the handshake, then the link.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::{Mono, Now};
use crate::peer::call::Call;
use crate::peer::client::{Event, Limits, Url, url::Host};
use crate::peer::desk::{Desk, Which, Wish};
use crate::peer::invitation::Invitation;
use crate::peer::viewer::neighbours::Neighbours;
use crate::peer::viewer::playing::{Playing, Unplayable};
use crate::peer::viewer::relay::Link;
use crate::peer::viewer::{Happening, Viewer, hang_up, tell};
use crate::swarm::opener::{NO_ANSWER, Opened, Opener};
use crate::swarm::receiver::{Ending, Receiver};
use crate::wire::ppspp::{Bye, Writer};

/// What `swarm.json` may cost.
const LIMITS: Limits = Limits {
    body: 64 * 1024,
    answer: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Some(Duration::from_secs(10)),
};

/// How soon the document is asked for again: after no answer, after an answer that was none, and
/// while there is nothing to begin with.
const AFTER_FAILURE: Duration = Duration::from_millis(300);
const AFTER_REFUSAL: Duration = Duration::from_millis(500);
const NO_ENTRANCE: Duration = Duration::from_millis(200);

/// How soon UDP is tried again while HTTP plays.
const UDP_AGAIN: Duration = Duration::from_secs(3);

/// A relay that says nothing for so long is asked whether it is still the same: it tells of what
/// it has several times in this time.
const LOST: Duration = Duration::from_secs(1);

/// Another life of the relay begins with ids that are at least so far ahead: its state says 30 s.
const LIVES_APART: Duration = Duration::from_secs(15);

/// How soon after the relay said that the path or the downlink is at fault.
const UDP_AFTER_FAULT: Duration = Duration::from_secs(15);

/// What we say that we keep, in seconds of the stream.
const WINDOW: Duration = Duration::from_secs(20);

/// The shortest time of a chunk that is believed: 100 Mbit/s.
pub(super) const CHUNK_TIME_MIN: Duration = Duration::from_micros(100);

/// `swarm.json` under way.
pub(super) struct Document {
    pub call: Call,
    asked: Mono,
    status: u16,
    body: Vec<u8>,
}

impl Viewer {
    /// `swarm.json` is asked for at `at` at the latest.
    pub(super) fn ask_at(&mut self, at: Mono) {
        self.document_at = Some(self.document_at.map_or(at, |before| before.min(at)));
    }

    /// Opens a connection for a GET.
    pub(super) fn dial(
        &mut self,
        now: Now,
        url: &Url,
        limits: Limits,
        which: Which,
        desk: &mut Desk<'_>,
    ) -> Option<Call> {
        let addresses = &desk.settings.addresses;
        let to = *addresses.get(self.attempts % addresses.len().max(1))?;
        let token = desk.token();
        match Call::new(now, token, url, desk.settings.tls.as_ref(), limits) {
            Ok(call) => {
                desk.wish(Wish::Connect { token, to, viewer: self.index, which });
                Some(call)
            }
            Err(why) => {
                self.figures.problem = why.to_string();
                self.figures.failed = true;
                None
            }
        }
    }

    /// Asks for the document when it is time.
    pub(super) fn drive_document(&mut self, now: Now, desk: &mut Desk<'_>) {
        if self.document.is_some() || self.document_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.document_at = None;
        let target = format!("/live/{}/swarm.json", desk.settings.name);
        let Ok(url) = desk.settings.url.with_target(&target) else { return };
        if let Some(call) = self.dial(now, &url, LIMITS, Which::Document, desk) {
            let (asked, body) = (now.mono, Vec::new());
            self.document = Some(Document { call, asked, status: 0, body });
        }
    }

    pub(super) fn handle_document(
        &mut self,
        now: Now,
        happening: Happening<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(Document { call, status, body, .. }) = &mut self.document else { return };
        let mut failed = matches!(happening, Happening::Failed)
            .then(|| "the relay cannot be reached".to_owned());
        let mut complete = false;
        tell(call, now, &happening, &mut |event| match event {
            Event::Head(answer) => *status = answer.status,
            Event::Body(bytes) => body.extend_from_slice(bytes),
            Event::End => complete = true,
            Event::Failed(why) => failed = Some(why.to_string()),
        });
        if let Some(why) = failed {
            self.document_failed(now, &why, desk);
        } else if complete {
            self.document_came(now, desk);
        }
    }

    pub(super) fn document_failed(&mut self, now: Now, why: &str, desk: &mut Desk<'_>) {
        if let Some(document) = self.document.take() {
            hang_up(&document.call, desk);
        }
        self.figures.problem = why.to_owned();
        self.attempts += 1;
        self.ask_at(now.mono + AFTER_FAILURE);
    }

    fn document_came(&mut self, now: Now, desk: &mut Desk<'_>) {
        let Some(document) = self.document.take() else { return };
        hang_up(&document.call, desk);
        let read = match document.status {
            200 => Invitation::read(&document.body).map_err(|why| why.to_string()),
            404 => Err("the stream is not live".to_owned()),
            status => Err(format!(
                "the relay answers {status}: {}",
                String::from_utf8_lossy(&document.body).lines().next().unwrap_or_default()
            )),
        };
        let pinned = |invitation: &Invitation| {
            desk.settings.pin.is_none_or(|pin| pin == invitation.profile.swarm_id)
        };
        let accepted = read.and_then(|invitation| match pinned(&invitation) {
            true => Ok(invitation),
            false => Err("the stream has another swarm id than the one given".to_owned()),
        });
        match accepted {
            Ok(invitation) => self.invited(now, invitation, document.asked, desk),
            Err(why) => {
                self.figures.problem = why;
                self.ask_at(now.mono + AFTER_REFUSAL);
            }
        }
    }

    fn invited(&mut self, now: Now, invitation: Invitation, asked: Mono, desk: &mut Desk<'_>) {
        self.figures.problem.clear();
        match &mut self.playing {
            Some(playing) if playing.profile == invitation.profile => {
                playing.note(&invitation, asked, now.mono);
            }
            Some(_) => {
                // Its ids begin anew: what is played here cannot go on.
                self.figures.problem =
                    "another stream has this name now (its swarm id has changed); start again"
                        .to_owned();
                self.figures.failed = true;
                return;
            }
            None => {
                let (room, settings) = (&self.room, desk.settings);
                let opened =
                    Playing::open(now, &invitation, asked, room, settings, &mut self.figures);
                match opened {
                    Ok(playing) => {
                        self.playing = Some(playing);
                        desk.wish(Wish::Live);
                    }
                    Err(Unplayable::NoEntrance) => return self.ask_at(now.mono + NO_ENTRANCE),
                    Err(why) => {
                        self.figures.problem = format!("nothing can be played: {why:?}");
                        self.figures.failed = why == Unplayable::Numbers;
                        return self.ask_at(now.mono + UDP_AGAIN);
                    }
                }
            }
        }
        if self.is_linked(now.mono, &invitation) {
            self.invitation = Some((invitation, now.mono));
            self.tried = now.mono;
            return;
        }
        let to = udp_address(&invitation, self.attempts, desk);
        self.attempts += usize::from(self.link.is_none() && self.figures.joins > 0);
        self.invitation = Some((invitation, now.mono));
        self.tried = now.mono;
        self.drop_opener(desk);
        if let Some(to) = to
            && let Some(playing) = &self.playing
            && let Some(channel) = desk.channel(to)
        {
            self.opener = Some((Opener::new(playing.profile, channel, now.mono), to));
        }
    }

    /// Whether the link is kept: it speaks, or it is silent not for long, and the relay is the one
    /// that let us in. A new link would begin from nothing, and the relay would plan anew.
    fn is_linked(&self, now: Mono, invitation: &Invitation) -> bool {
        let (Some(link), Some(playing)) = (&self.link, &self.playing) else { return false };
        let silence = link.receiver.silence(now);
        // Neighbours may have told of the new life already; the window has not gone there.
        silence < NO_ANSWER || !is_new_life(playing, invitation) && silence < UDP_AGAIN
    }

    /// The handshake was answered: the link begins.
    pub(super) fn opened(&mut self, now: Now, opened: &Opened, desk: &mut Desk<'_>) {
        let Some((opener, to)) = self.opener.take() else { return };
        self.drop_link(now.mono, desk);
        let Some(playing) = &mut self.playing else { return };
        let Playing { profile, store, assembly, .. } = playing;
        let receiver = Receiver::new(*profile, opened, now.mono, store, assembly);
        let receiver = receiver.with_token(desk.settings.token.as_deref());
        self.link = Some(Link { receiver, channel: opener.channel(), to, tells_at: Mono::ZERO });
        let limit = desk.settings.upload;
        let neighbours = self.neighbours.get_or_insert_with(|| {
            Box::new(Neighbours::new(now.mono, opener.channel().into(), limit, playing))
        });
        neighbours.set_strategy(desk.settings.strategy);
        neighbours.begin_anew();
        neighbours.linked(now.mono, opened.measures);
        self.base = neighbours.shared();
        self.figures.joins += 1;
        self.next_tick = now.mono;
    }

    /// Sends what the handshake and the link want to send; notices when they end.
    pub(super) fn drive_udp(&mut self, now: Now, desk: &mut Desk<'_>) {
        if let Some((opener, to)) = &mut self.opener {
            let mut buf = [0; 1_500];
            let window = self.playing.as_ref().map_or(0, |playing| {
                let n = playing.profile.size.chunks() as u64;
                let each = self.invitation.as_ref().and_then(|(said, _)| said.chunk_time());
                let chunk = each.unwrap_or(Duration::from_millis(5)).max(CHUNK_TIME_MIN);
                ((WINDOW.as_nanos() / chunk.as_nanos()) as u64).next_multiple_of(n)
            });
            while let Some(n) = opener.poll_datagram(now.mono, window, &mut buf) {
                desk.datagram(*to, &buf[..n]);
            }
            if opener.is_over(now.mono) {
                self.drop_opener(desk);
                self.ask_at(now.mono + UDP_AGAIN - NO_ANSWER);
            }
        }
        if self.link.is_none() || self.playing.is_none() {
            return self.try_again(now.mono);
        }
        self.tell_relay(now.mono, desk);
        let Some(link) = &self.link else { return };
        if let Some(why) = link.receiver.ended() {
            self.figures.problem = match why {
                Ending::Crime(crime) => format!("the source was dropped: {}", crime.label()),
                Ending::Bye(why) => format!("the relay closed: {why:?}"),
                Ending::Closed | Ending::Left => "the relay closed".to_owned(),
            };
            self.drop_link(now.mono, desk);
            self.ask_at(
                now.mono
                    + match why {
                        Ending::Bye(Bye::Downlink | Bye::Mtu) => UDP_AFTER_FAULT,
                        Ending::Bye(Bye::Ended | Bye::Draining) | Ending::Closed => AFTER_REFUSAL,
                        Ending::Bye(_) | Ending::Crime(_) | Ending::Left => UDP_AGAIN,
                    },
            );
        } else if link.receiver.silence(now.mono) >= LOST {
            self.try_again(now.mono);
        }
    }

    /// Joins again, not too often.
    fn try_again(&mut self, now: Mono) {
        let idle = self.opener.is_none() && self.document.is_none() && self.document_at.is_none();
        if idle && self.playing.is_some() {
            self.ask_at((self.tried + UDP_AGAIN).max(now));
        }
    }

    pub(super) fn drop_opener(&mut self, desk: &mut Desk<'_>) {
        if let Some((opener, _)) = self.opener.take() {
            desk.forget_channel(opener.channel());
        }
    }

    /// Ends the link, if there is one, and says so.
    pub(super) fn drop_link(&mut self, now: Mono, desk: &mut Desk<'_>) {
        let Some(mut link) = self.link.take() else { return };
        link.receiver.leave(Bye::Leaving);
        let mut buf = [0; 64];
        if let Some(playing) = &self.playing {
            let (view, more) = (playing.view(None), &mut |_: &mut Writer<'_>, _| {});
            while let Some(n) = link.receiver.poll_datagram(now, view, &mut buf, more) {
                desk.datagram(link.to, &buf[..n]);
            }
        }
        self.figures.counts.add(link.receiver.counts());
        desk.forget_channel(link.channel);
    }
}

/// Whether the relay was started again since it numbered what is played.
pub(super) fn is_new_life(playing: &Playing, invitation: &Invitation) -> bool {
    let ahead = invitation.signed.saturating_sub(playing.store.next());
    let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
    playing.assembly.chunk_time().saturating_mul(ahead) >= LIVES_APART
}

/// Where the relay speaks UDP: its addresses take turns.
fn udp_address(invitation: &Invitation, attempt: usize, desk: &mut Desk<'_>) -> Option<SocketAddr> {
    let addresses = &desk.settings.addresses;
    let relay = addresses.get(attempt % addresses.len().max(1)).map(|address| address.ip());
    let own = match desk.settings.url.host() {
        Host::Name(name) => name.clone(),
        Host::Ip(ip) => ip.to_string(),
    };
    let mut found = Vec::new();
    for (host, port) in &invitation.udp {
        let ips = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            // The name that we came by: the address that answered.
            Err(_) if host.eq_ignore_ascii_case(&own) => relay.into_iter().collect(),
            Err(_) => desk.names.look_up(host).unwrap_or_default(),
        };
        found.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, *port)));
    }
    found.get(attempt % found.len().max(1)).copied()
}

const _: () = assert!(CHUNK < 1_500, "a datagram of ours fits the buffer");
