//! What is passed on to neighbours, and how much of it.

use std::time::Duration;

use crate::base::payload::Payload;
use crate::base::time::Mono;
use crate::peer::desk::{Desk, Wish};
use crate::peer::viewer::neighbours::Neighbours;
use crate::peer::viewer::neighbours::link::Gate;
use crate::peer::viewer::neighbours::shelf::{Load, sent_bytes};
use crate::peer::viewer::playing::Playing;
use crate::swarm::requests::Run;
use crate::swarm::sender::{Next, Over};
use crate::swarm::stripes::ALL_STRIPES;
use crate::swarm::upload::Child;
use crate::wire::ppspp::{Message, Span, Writer};

/// How often the upload is looked at.
pub(super) const OBSERVE: Duration = Duration::from_millis(250);

/// Trains of one round: the driver wants to hear of other things as well.
const ROUND_MAX: usize = 256;

/// Announcements of one datagram.
const HAVES_MAX: usize = 16;

impl Neighbours {
    /// A neighbour wants other stripes than before: as many are granted as the upload carries.
    pub(super) fn grant(&mut self, place: usize) {
        let link = &mut self.links[place];
        let granted = self.upload.grant(link.key, link.wanted);
        self.mesh.note_children(link.key, granted);
        link.sender.set_allowed(granted, &self.shelf.source);
        self.beats[place].sends_at = Mono::ZERO;
    }

    /// Looks at how the upload does.
    pub(super) fn observe(&mut self, now: Mono) {
        let bitrate = self.shelf.bitrate();
        self.mesh.set_bitrate(bitrate);
        self.upload.set_bitrate(bitrate);
        let children: Vec<Child> = self
            .links
            .iter_mut()
            .map(|link| {
                self.tally.questions_forgotten += link.sender.take_forgotten();
                let [acked, lost] = link.sender.take_counts();
                Child { key: link.key, queueing: link.sender.queueing(), acked, lost }
            })
            .collect();
        self.upload.observe(now, &children);
        self.grant_all();
    }

    /// The upload carries more than before, or less: all who want something are granted anew.
    pub(super) fn grant_all(&mut self) {
        for place in 0..self.links.len() {
            if self.links[place].wanted != 0 {
                self.grant(place);
            }
        }
    }

    /// Asks the sending halves what to send, a few chunks each in turn: all children get the same
    /// chunks at about the same time, and pass them on while the next ones come.
    pub(super) fn share(&mut self, now: Mono, playing: &Playing, desk: &mut Desk<'_>) {
        let mut line = self.line();
        if self.beats.iter().all(|beat| line.due(beat) > now) {
            return;
        }
        let mut over = Vec::new();
        let (mut sent, mut idle) = (0, 0);
        while idle < self.links.len() && sent < ROUND_MAX && !desk.full {
            let place = if self.turn < self.links.len() { self.turn } else { 0 };
            self.turn = place + 1;
            idle += 1;
            if line.due(&self.beats[place]) > now {
                continue;
            }
            match self.share_one(now, place, playing, desk) {
                Ok(true) => {
                    (sent, idle) = (sent + 1, 0);
                    line = self.line();
                }
                Ok(false) => {}
                Err(why) => {
                    over.push((self.links[place].channel, why));
                    let beat = &mut self.beats[place];
                    (beat.gate, beat.sends_at) = (Gate::Nothing, now + OBSERVE);
                }
            }
        }
        for (channel, why) in over {
            if let Some(place) = self.links.iter().position(|link| link.channel == channel) {
                self.remove(now, place, Some(why.bye()), playing, desk);
            }
        }
    }

    /// What one link sends next. Returns whether it has sent anything.
    fn share_one(
        &mut self,
        now: Mono,
        place: usize,
        playing: &Playing,
        desk: &mut Desk<'_>,
    ) -> Result<bool, Over> {
        let mut haves: Vec<Run> = Vec::new();
        let did = loop {
            let Neighbours { links, beats, shelf, upload, .. } = self;
            let link = &mut links[place];
            let sight = shelf.sight(now, playing, upload);
            match link.sender.next(now, &sight) {
                Next::Have(run) if haves.len() < HAVES_MAX => haves.push(run),
                Next::Have(_) => break false,
                Next::Send(parcel) => {
                    let Some(load) = shelf.load(playing, &parcel) else {
                        break true;
                    };
                    let Load { head, headers, header, body } = load;
                    let bytes = sent_bytes(&parcel);
                    let all = (head.len() + headers.len() + body.len()) as u64;
                    link.out_bytes += bytes;
                    self.tally.sent_bytes += bytes;
                    self.tally.integrity_out += head.len() as u64;
                    let (to, channel) = (link.to, link.receiver.them());
                    self.upload.sent(now, all);
                    let viewer = desk.viewer;
                    let train = |head, headers, body| Wish::Train {
                        viewer,
                        to,
                        channel,
                        head,
                        headers,
                        header,
                        body,
                    };
                    // A hash datagram is shorter than those with chunks: never in one train.
                    if !head.is_empty() {
                        desk.wish(train(head, Payload::Empty, Payload::Empty));
                    }
                    if !body.is_empty() {
                        desk.wish(train(Payload::Empty, headers, body));
                    }
                    break true;
                }
                Next::Wait => {
                    let (sender, beat) = (&link.sender, &mut beats[place]);
                    let asked = sender.is_asked();
                    beat.gate = match upload.ready() > now {
                        // What it would send it has not looked for.
                        true => Gate::Line,
                        false if asked && upload.spare_at() > now => Gate::Spare,
                        false => Gate::Nothing,
                    };
                    beat.stripes = if asked { ALL_STRIPES } else { sender.pushed_stripes() };
                    beat.sends_at = sender.deadline(now, &sight).max(now + GRAIN);
                    break false;
                }
                Next::Close(over) => return Err(over),
            }
        };
        if !haves.is_empty() {
            self.shelf.told_at = now;
            self.announce(place, &haves, desk);
        }
        Ok(did)
    }

    fn announce(&mut self, place: usize, runs: &[Run], desk: &mut Desk<'_>) {
        let link = &self.links[place];
        let (to, them) = (link.to, link.receiver.them());
        let addressing = self.profile.addressing;
        let mut writer = Writer::new(&mut self.buf[..], them, addressing);
        for span in runs.iter().filter_map(|run| Span::new(run.first(), run.last())) {
            let _ = writer.push(Message::Have(span));
        }
        let n = writer.len();
        self.tally.control_out += n as u64;
        desk.datagram(to, &self.buf[..n]);
    }
}

/// The least time until a sender that has nothing is asked again.
const GRAIN: Duration = Duration::from_millis(1);
