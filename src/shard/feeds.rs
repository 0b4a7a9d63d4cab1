//! Configured ingests: streams that come in by datagrams or raw TCP.
//!
//! A feed takes the same seat as an HTTP publisher and loses it in the same way: one publisher
//! per stream, silence leaves the stream held, coming back resumes it behind a discontinuity.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use crate::base::ids::{ConnId, StreamName};
use crate::base::time::{Mono, Now};
use crate::ingest::intake::Taken;
use crate::ingest::settings::{Settings, Way};
use crate::ingest::tcp::{Place, Refused};
use crate::ingest::udp::{Outcome, Piece, Receiver};
use crate::metrics::table::Cell;
use crate::registry::keys::KeyId;
use crate::registry::stream::Proto;
use crate::registry::streams::Claim;
use crate::shard::Shard;
use crate::shard::connections::Role;
use crate::shard::publish::{Seat, Writing};

/// How long a feed that was refused its seat waits before it asks again: the registry is behind
/// a lock, and datagrams come by the thousand.
const RETRY: Duration = Duration::from_millis(250);

/// One configured ingest.
struct Feed {
    entrance: Entrance,
    publisher: FeedPublisher,
}

enum Entrance {
    Udp(Receiver),
    Tcp(Place),
}

/// Its end towards the stream.
struct FeedPublisher {
    name: StreamName,
    key: KeyId,
    seat: Seat,
    /// When the seat may be asked for again, after a refusal.
    refused_until: Option<Mono>,
}

/// The feeds of one shard: every `shards`th of the configuration, from the shard's number on.
#[derive(Default)]
pub(super) struct Feeds {
    feeds: Vec<Option<Feed>>,
    shards: usize,
    /// When packets that are waited for are given up.
    timer: Option<Mono>,
}

impl Feeds {
    /// The feeds of shard `id` out of all that are configured.
    pub(super) fn new(all: &[Settings], id: usize, shards: usize) -> Feeds {
        let ours = all.iter().zip(0u16..).skip(id).step_by(shards.max(1));
        let feeds = ours.map(|(settings, index)| {
            let allow = settings.allow.clone();
            let entrance = match settings.way {
                Way::Udp { .. } => Entrance::Udp(Receiver::new(allow)),
                Way::Tcp { .. } => Entrance::Tcp(Place::new(allow)),
            };
            let (name, key) = (settings.stream.clone(), KeyId::ingest(index));
            let publisher = FeedPublisher { name, key, seat: Seat::Left, refused_until: None };
            Some(Feed { entrance, publisher })
        });
        Feeds { feeds: feeds.collect(), shards: shards.max(1), timer: None }
    }

    /// The place of the ingest of that index in the configuration.
    fn place(&self, index: u16) -> usize {
        usize::from(index) / self.shards
    }

    /// Takes a feed out, to be put back by [`Feeds::put`] in the same call.
    fn take(&mut self, place: usize) -> Option<Feed> {
        self.feeds.get_mut(place)?.take()
    }

    fn put(&mut self, place: usize, feed: Feed) {
        if let Entrance::Udp(receiver) = &feed.entrance {
            self.timer = self.timer.into_iter().chain(receiver.deadline()).min();
        }
        self.feeds[place] = Some(feed);
    }

    /// Those that are writing.
    pub(super) fn writing(&self) -> impl Iterator<Item = &Writing> {
        let seats = self.feeds.iter().flatten().map(|feed| &feed.publisher.seat);
        seats.filter_map(|seat| match seat {
            Seat::Writing(writing) => Some(&**writing),
            Seat::Asking(_) | Seat::Left => None,
        })
    }

    /// When [`Shard::feed_timers`] has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.timer
    }
}

impl Shard {
    /// Datagrams for the ingest of that index.
    pub(super) fn datagrams(
        &mut self,
        now: Now,
        index: u16,
        from: SocketAddr,
        segment: usize,
        data: &[u8],
    ) {
        let place = self.feeds.place(index);
        let Some(mut feed) = self.feeds.take(place).filter(|_| !self.draining) else { return };
        if let Feed { entrance: Entrance::Udp(receiver), publisher } = &mut feed {
            let mut taken = Taken::default();
            let outcome = receiver.handle(now.mono, from, segment, data, &mut |piece| {
                self.take_piece(now, publisher, piece, &mut taken);
            });
            self.count_datagrams(&outcome, &publisher.seat);
            self.note(now, &publisher.seat, taken);
        }
        self.feeds.put(place, feed);
    }

    /// Gives up packets that were waited for long enough.
    pub(super) fn feed_timers(&mut self, now: Now) {
        if self.feeds.timer.is_none_or(|timer| now.mono < timer) {
            return;
        }
        self.feeds.timer = None;
        for place in 0..self.feeds.feeds.len() {
            let Some(mut feed) = self.feeds.take(place) else { continue };
            if let Feed { entrance: Entrance::Udp(receiver), publisher } = &mut feed {
                let mut taken = Taken::default();
                let outcome = receiver.handle_timer(now.mono, &mut |piece| {
                    self.take_piece(now, publisher, piece, &mut taken);
                });
                self.count_datagrams(&outcome, &publisher.seat);
                self.note(now, &publisher.seat, taken);
            }
            self.feeds.put(place, feed);
        }
    }

    /// Completes and seals what has been open for too long.
    pub(super) fn seal_feeds(&mut self, now: Now) {
        for place in 0..self.feeds.feeds.len() {
            let Some(mut feed) = self.feeds.take(place) else { continue };
            self.seal_timer(now, &mut feed.publisher.seat);
            self.feeds.put(place, feed);
        }
    }

    fn count_datagrams(&self, outcome: &Outcome, seat: &Seat) {
        let taken = match seat {
            Seat::Writing(_) => Cell::DatagramsTaken,
            Seat::Asking(_) | Seat::Left => Cell::DatagramsNoSeat,
        };
        let counts = [
            (taken, outcome.taken),
            (Cell::DatagramsRefused, outcome.refused),
            (Cell::DatagramsForeign, outcome.foreign),
            (Cell::DatagramsMalformed, outcome.malformed),
            (Cell::DatagramsBadRtp, outcome.bad_rtp),
            (Cell::DatagramsLate, outcome.rtp.late),
            (Cell::RtpLost, outcome.rtp.lost),
            (Cell::RtpReordered, outcome.rtp.reordered),
        ];
        for (cell, n) in counts {
            if n > 0 {
                self.cells.add(cell, n);
            }
        }
    }

    fn take_piece(
        &mut self,
        now: Now,
        publisher: &mut FeedPublisher,
        piece: Piece<'_>,
        taken: &mut Taken,
    ) {
        match piece {
            Piece::Break => taken.add(publisher.seat.restart(now)),
            Piece::Bytes(proto, bytes) => {
                if self.seat_feed(now, publisher) {
                    taken.add(publisher.seat.push(now, proto, bytes));
                    publisher.seat.hear(now.mono);
                }
            }
        }
    }

    /// Sees to it that a feed has its seat. False if it has none now.
    fn seat_feed(&mut self, now: Now, publisher: &mut FeedPublisher) -> bool {
        if matches!(publisher.seat, Seat::Writing(_)) {
            return true;
        }
        if publisher.refused_until.is_some_and(|until| now.mono < until) {
            return false;
        }
        match self.registry.claim(&publisher.name, publisher.key, self.id, now) {
            Claim::Granted(lease) => {
                info!(stream = %publisher.name, "configured ingest began");
                publisher.seat = self.sit_down(now, lease);
                publisher.refused_until = None;
                true
            }
            refused => {
                let refusal = self.claim_refusal(&refused);
                if publisher.refused_until.is_none() {
                    warn!(stream = %publisher.name, why = %refusal.text, "ingest refused");
                }
                publisher.refused_until = Some(now.mono + RETRY);
                false
            }
        }
    }

    /// Somebody connected to the ingest of that index.
    pub(super) fn feed_accepted(&mut self, now: Now, conn: ConnId, index: u16, peer: SocketAddr) {
        let permit = if self.draining { None } else { self.admit() };
        let place = self.feeds.place(index);
        let entrance = self.feeds.feeds.get_mut(place).and_then(Option::as_mut);
        let took = match entrance.map(|feed| &mut feed.entrance) {
            Some(Entrance::Tcp(tcp)) if permit.is_some() => Some(tcp.take(conn, peer, now.mono)),
            _ => None,
        };
        let refused = match took {
            Some(Ok(())) => {
                info!(address = %peer, "a sender connected to a configured ingest");
                return self.connections.insert(conn, permit, Role::Feed(index));
            }
            Some(Err(Refused::Address)) => Some(Cell::IngestRefusedAddress),
            Some(Err(Refused::Foreign)) => Some(Cell::IngestRefusedForeign),
            None => None,
        };
        refused.into_iter().for_each(|cell| self.cells.add(cell, 1));
        self.connections.insert(conn, None, Role::Closing);
        self.close(conn);
    }

    /// Bytes of the connection that has the ingest of that index.
    pub(super) fn feed_received(&mut self, now: Now, conn: ConnId, index: u16, data: &[u8]) {
        let place = self.feeds.place(index);
        let Some(mut feed) = self.feeds.take(place) else { return };
        if let Feed { entrance: Entrance::Tcp(tcp), publisher } = &mut feed
            && tcp.hear(conn, now.mono)
        {
            let mut taken = Taken::default();
            // A second connection may come at once: what counts is what the registry says now.
            publisher.refused_until = publisher.refused_until.map(|_| now.mono);
            self.take_piece(now, publisher, Piece::Bytes(Proto::Tcp, data), &mut taken);
            self.note(now, &publisher.seat, taken);
            if publisher.refused_until.is_some() {
                self.cells.add(Cell::IngestRefusedNoSeat, 1);
                tcp.leave(conn);
                self.connections.replace(conn, Role::Closing);
                self.close(conn);
            }
        }
        self.feeds.put(place, feed);
    }

    /// The connection that has the ingest of that index is gone.
    pub(super) fn feed_closed(&mut self, now: Now, conn: ConnId, index: u16) {
        let place = self.feeds.place(index);
        let Some(mut feed) = self.feeds.take(place) else { return };
        if let Feed { entrance: Entrance::Tcp(tcp), publisher } = &mut feed
            && tcp.leave(conn)
        {
            self.leave(now, &mut publisher.seat, "left");
        }
        self.feeds.put(place, feed);
    }

    /// Takes the seat of feeds that have fallen silent.
    pub(super) fn sweep_feeds(&mut self, now: Now) {
        for place in 0..self.feeds.feeds.len() {
            let Some(mut feed) = self.feeds.take(place) else { continue };
            let silence = self.http.publisher_silence;
            let silent = |heard: Mono| now.mono.since(heard) >= silence;
            if let Seat::Writing(writing) = &feed.publisher.seat
                && silent(writing.stream.heard())
            {
                self.cells.add(Cell::PublishersVanished, 1);
                self.leave(now, &mut feed.publisher.seat, "vanished");
            }
            if let Entrance::Tcp(tcp) = &mut feed.entrance
                && let Some((conn, _)) = tcp.owner().filter(|(_, heard)| silent(*heard))
            {
                tcp.leave(conn);
                self.connections.replace(conn, Role::Closing);
                self.close(conn);
            }
            self.feeds.put(place, feed);
        }
    }

    /// The process ends: every feed parks its writer.
    pub(super) fn drain_feeds(&mut self, now: Now) {
        for place in 0..self.feeds.feeds.len() {
            let Some(mut feed) = self.feeds.take(place) else { continue };
            self.leave(now, &mut feed.publisher.seat, "drain");
            self.feeds.put(place, feed);
        }
    }
}
