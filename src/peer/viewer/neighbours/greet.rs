//! Introductions and openings: links to neighbours begin and end.

use std::net::SocketAddr;

use crate::base::time::Mono;
use crate::peer::desk::Desk;
use crate::peer::viewer::neighbours::link::{Beat, Link};
use crate::peer::viewer::neighbours::{INTRODUCTIONS_MAX, LINKS_MAX, Neighbours, note_have};
use crate::peer::viewer::playing::Playing;
use crate::swarm::doors::{Entered, same};
use crate::swarm::mesh::Key;
use crate::swarm::receiver::{Ending, Receiver};
use crate::wire::ppspp::{Bye, Span};

/// The answer to an opening.
const ANSWER_MAX: usize = 256;

impl Neighbours {
    /// The relay named an address.
    pub(in crate::peer::viewer) fn introduce(&mut self, address: SocketAddr) {
        self.note_named(address);
        if self.introductions.contains(&address) {
            return;
        }
        if self.introductions.len() == INTRODUCTIONS_MAX {
            self.introductions.pop_front();
            self.tally.addresses_forgotten += 1;
        }
        self.introductions.push_back(address);
        self.tally.introduced += 1;
    }

    /// The relay named more of them than are taken at once.
    pub(in crate::peer::viewer) fn forget_addresses(&mut self, many: u64) {
        self.tally.addresses_forgotten += many;
    }

    /// An opening: a datagram on channel 0. Answered if the relay has introduced its sender.
    pub(in crate::peer::viewer) fn handle_opening(
        &mut self,
        now: Mono,
        from: SocketAddr,
        messages: &[u8],
        playing: &Playing,
        desk: &mut Desk<'_>,
    ) {
        if self.links.len() >= LINKS_MAX {
            self.tally.addresses_forgotten += 1;
            return;
        }
        // Introduced in this very moment: the relay told both.
        self.open_doors(now, desk);
        let Some(ours) = desk.channel(from) else { return };
        let source = &self.shelf.source;
        let window = source.window;
        let have = source.newest().and_then(|newest| {
            let first = newest.checked_mul(source.size)?;
            playing.assembly.is_whole(newest).then(|| Span::new(first, first + source.size - 1))?
        });
        let mut buf = [0; ANSWER_MAX];
        let length = messages.len() + 4;
        let have = have.into_iter();
        let answer =
            self.doors.handle_opening(now, from, length, messages, ours, window, have, &mut buf);
        if let Some(n) = answer {
            self.tally.control_out += n as u64;
            desk.datagram(from, &buf[..n]);
        }
        if !self.doors.holds(ours) {
            desk.forget_channel(ours);
        }
        self.take_back(desk);
    }

    /// A datagram on a channel of the doors: perhaps a link begins.
    pub(super) fn enter(
        &mut self,
        now: Mono,
        channel: u32,
        from: SocketAddr,
        messages: &[u8],
        playing: &Playing,
        desk: &mut Desk<'_>,
    ) {
        let entered = self.doors.handle_datagram(now, channel, from, messages);
        self.take_back(desk);
        let Some(Entered { ours, theirs, to, private, rtt, opened, .. }) = entered else { return };
        // It has begun anew: its old link is over.
        if let Some(old) = self.links.iter().position(|link| same(link.to, to)) {
            self.remove(now, old, None, playing, desk);
        }
        if self.links.len() >= LINKS_MAX {
            // Others were faster: it hears nothing more, and looks elsewhere.
            self.tally.addresses_forgotten += 1;
            self.doors.close(ours);
            desk.forget_channel(ours);
            return;
        }
        self.tally.opened += 1;
        self.keys = self.keys.wrapping_add(1);
        let key = Key(self.keys);
        let profile = self.profile;
        let receiver = Receiver::neighbour(profile, theirs, private, rtt, now);
        self.mesh.add(now, key, receiver.rtt());
        let mut link = Link::new(key, to, ours, receiver, now);
        link.named = self.doors.has_introduced(now, to);
        self.links.push(link);
        self.beats.push(Beat::new(ours));
        self.followed = false;
        for span in opened.iter().flat_map(|opened| opened.have()) {
            note_have(&mut self.mesh, now, key, span, self.shelf.source.size);
        }
    }

    /// Sends openings, gives up those in vain.
    pub(super) fn drive_doors(&mut self, now: Mono, desk: &mut Desk<'_>) {
        self.open_doors(now, desk);
        let window = self.shelf.source.window;
        while let Some((to, n)) = self.doors.poll_datagram(now, window, &mut self.buf[..]) {
            self.tally.control_out += n as u64;
            desk.datagram(to, &self.buf[..n]);
        }
        let unreachable = &mut self.tally.unreachable;
        self.doors.expire(now, &mut |channel, _, vain| {
            *unreachable += u64::from(vain);
            desk.forget_channel(channel);
        });
    }

    fn open_doors(&mut self, now: Mono, desk: &mut Desk<'_>) {
        while let Some(address) = self.introductions.pop_front() {
            if self.links.len() >= LINKS_MAX {
                self.tally.addresses_forgotten += 1;
                continue;
            }
            let Some(channel) = desk.channel(address) else { continue };
            if !self.doors.introduce(now, address, channel) {
                desk.forget_channel(channel);
            }
        }
    }

    /// Channels that the doors need no longer.
    fn take_back(&mut self, desk: &mut Desk<'_>) {
        while let Some(channel) = self.doors.take_dropped() {
            desk.forget_channel(channel);
        }
    }

    /// A link has ended: what that means.
    pub(super) fn end(&mut self, now: Mono, place: usize, playing: &Playing, desk: &mut Desk<'_>) {
        if let Some(Ending::Crime(crime)) = self.links[place].receiver.ended() {
            let address = self.links[place].to;
            tracing::info!(%address, why = crime.label(), "a neighbour was dropped");
            self.tally.drop_neighbour(address, crime.label());
        }
        self.remove(now, place, None, playing, desk);
    }

    /// Ends a link, for a reason of ours or another's; says so if there is somebody to hear it.
    pub(super) fn remove(
        &mut self,
        now: Mono,
        place: usize,
        bye: Option<Bye>,
        playing: &Playing,
        desk: &mut Desk<'_>,
    ) {
        let mut link = self.links.swap_remove(place);
        self.beats.swap_remove(place);
        self.followed = false;
        if let Some(bye) = bye {
            link.receiver.leave(bye);
        }
        let view = playing.view(None);
        let buf = &mut self.buf[..];
        while let Some(n) = link.receiver.poll_datagram(now, view, buf, &mut |_, _| {}) {
            desk.datagram(link.to, &buf[..n]);
        }
        self.tally.questions_forgotten += link.sender.take_forgotten();
        self.gone.add(link.receiver.counts());
        self.mesh.remove(now, link.key);
        self.upload.remove(link.key);
        self.doors.close(link.channel);
        desk.forget_channel(link.channel);
    }

    /// Leaves: tells all of them.
    pub(in crate::peer::viewer) fn leave(
        &mut self,
        now: Mono,
        playing: &Playing,
        desk: &mut Desk<'_>,
    ) {
        while !self.links.is_empty() {
            self.remove(now, self.links.len() - 1, Some(Bye::Leaving), playing, desk);
        }
    }
}
