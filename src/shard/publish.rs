//! Somebody wants to publish: takes the seat, writes, leaves it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::{info, warn};

use crate::base::ids::{ConnId, ShardId, StreamName};
use crate::base::limits::TS_PACKET;
use crate::base::time::{Mono, Now};
use crate::face::http::connection::{Connection, Event, PublishRequest, Refusal};
use crate::ingest::intake::{Intake, Taken};
use crate::io::machine::Output;
use crate::media::segmenter::Segmenter;
use crate::metrics::table::Cell;
use crate::registry::keys::KeyRefusal;
use crate::registry::stream::{Proto, Stream, TAKEOVER_SILENCE};
use crate::registry::streams::{Claim, Lease};
use crate::shard::connections::{Claimant, Role, Talk};
use crate::shard::mail::Mail;
use crate::shard::sweep::Warned;
use crate::shard::{Lingering, Shard};

/// How long a publisher waits for a silent one to give up its seat.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a silent publisher is asked again: it may have spoken once in between.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The most publishers of one shard that wait for a seat; others are refused.
pub(super) const CLAIMANTS_MAX: usize = 4;

/// How often a line is logged about refused publishers: strangers must not fill the log.
const REFUSALS_APART: Duration = Duration::from_secs(1);

/// So many bytes without one packet of a transport stream: it is something else.
const STRAY_MAX: u64 = 1 << 20;

/// The same of a body that has ended: fewer are too few for packets to be recognised.
const STRAY_MIN: u64 = 10 * TS_PACKET as u64;

/// The most bytes kept while it waits; a publisher that sends more is refused.
pub(super) const HELD_MAX: usize = 4 << 20;

/// A connection that brings a stream.
pub(super) struct Publisher {
    pub(super) connection: Connection,
    pub(super) seat: Seat,
}

/// Whether it writes already.
pub(super) enum Seat {
    /// It writes.
    Writing(Box<Writing>),
    /// It waits for a silent publisher with the same key to leave.
    Asking(Box<Asking>),
    /// It was refused or has ended: what still comes is thrown away.
    Left,
}

pub(super) struct Asking {
    claimant: Claimant,
    held: Vec<u8>,
    until: Mono,
    asked: Mono,
    /// Counts for [`CLAIMANTS_MAX`] as long as it lives.
    _place: Rc<()>,
}

pub(super) struct Writing {
    pub(super) stream: Arc<Stream>,
    pub(super) ticket: u64,
    pub(super) intake: Intake,
    resyncs: u64,
    /// The bytes that came, as long as there was no packet among them.
    stray: Option<u64>,
    /// What the log says of it already.
    pub(super) warned: RefCell<Warned>,
}

impl Writing {
    /// Whether what comes (and, if it has `ended`, all that came) is no transport stream.
    fn is_no_stream(&self, ended: bool) -> bool {
        self.stray.is_some_and(|bytes| bytes > if ended { STRAY_MIN } else { STRAY_MAX })
    }
}

impl Shard {
    /// Answers a request to publish. Returns the connection's new role if it was accepted.
    pub(super) fn publish(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        request: &PublishRequest,
    ) -> Option<Role> {
        let PublishRequest { name, key, client, direct } = request;
        let key = match self.registry.authorise(key.as_deref(), name, *client, *direct) {
            Ok(key) => key,
            Err(why) => {
                self.cells.add(Cell::RejectedKey, 1);
                let refusal = key_refusal(why);
                self.log_refusal(now, name, *client, &refusal);
                talk.connection.refuse(now.mono, &refusal);
                return None;
            }
        };
        let claimant = Claimant { name: name.clone(), key };
        let seat = match self.registry.claim(name, key, self.id, now) {
            Claim::Granted(lease) => {
                info!(stream = %name, address = %client, "publisher connected");
                self.sit_down(now, lease)
            }
            Claim::Ask(stream, shard, ticket)
                if Rc::strong_count(&self.places) <= CLAIMANTS_MAX =>
            {
                self.ask(stream, shard, ticket);
                self.waiting.push(conn);
                self.haste = true;
                Seat::Asking(Box::new(Asking {
                    claimant,
                    held: Vec::new(),
                    until: now.mono + PATIENCE,
                    asked: now.mono,
                    _place: Rc::clone(&self.places),
                }))
            }
            refused => {
                let refusal = self.claim_refusal(&refused);
                self.log_refusal(now, name, *client, &refusal);
                talk.connection.refuse(now.mono, &refusal);
                return None;
            }
        };
        let idle = Connection::new(now.mono, (*client, 0).into(), &self.http);
        let mut connection = std::mem::replace(&mut talk.connection, idle);
        connection.publish(now.mono);
        let connections = &mut self.connections;
        self.publishers.retain(|conn| matches!(connections.role(*conn), Some(Role::Publisher(_))));
        self.publishers.push(conn);
        let mut publisher = Publisher { connection, seat };
        let Publisher { connection, seat } = &mut publisher;
        let mut taken = Taken::default();
        connection.drain_body(&mut |body| taken.add(seat.push(now, Proto::Http, body)));
        self.note(now, &publisher.seat, taken);
        Some(Role::Publisher(Box::new(publisher)))
    }

    /// Bytes from a publisher.
    pub(super) fn receive_body(&mut self, now: Now, conn: ConnId, data: &[u8]) {
        let Some(Role::Publisher(mut publisher)) = self.connections.take(conn) else { return };
        let Publisher { connection, seat } = &mut *publisher;
        let mut taken = Taken::default();
        connection.handle_received(now.mono, data, &mut |body| {
            taken.add(seat.push(now, Proto::Http, body));
        });
        if let Seat::Writing(writing) = seat {
            writing.stream.hear(now.mono);
        }
        self.note(now, &publisher.seat, taken);
        self.connections.put(conn, Role::Publisher(publisher));
    }

    /// Counts what was taken in, and rings for every shard that waits for it.
    pub(super) fn note(&mut self, now: Now, seat: &Seat, taken: Taken) {
        let Seat::Writing(writing) = seat else { return };
        self.cells.add(Cell::RingDroppedBytes, taken.dropped);
        self.cells.add(Cell::RingStarved, u64::from(taken.starved));
        if taken.discontinuity {
            writing.stream.discontinuities.fetch_add(1, Relaxed);
        }
        self.seals = self.seals.into_iter().chain(writing.intake.deadline()).min();
        let stream = Arc::clone(&writing.stream);
        self.count_sealed(&stream, taken);
        self.ring(now, &stream);
    }

    /// Counts what was marked and sealed.
    fn count_sealed(&mut self, stream: &Stream, taken: Taken) {
        let Taken { segments, sealed, .. } = taken;
        self.cells.add(Cell::SegmentsCut, segments);
        self.cells.add(Cell::SubtreesSigned, sealed.signed);
        self.cells.add(Cell::PaddingBytes, sealed.padding);
        if sealed.too_slow {
            let chunks = stream.identity().map_or(0, |identity| identity.size.chunks());
            warn!(
                stream = %stream.name, chunks,
                "the stream is too slow for its signatures: peers get it late; set \
                 swarm.chunks_per_signature to a smaller number"
            );
        }
    }

    /// Completes and seals what has been open for too long.
    pub(super) fn seal_timers(&mut self, now: Now) {
        if self.seals.is_none_or(|due| now.mono < due) {
            return;
        }
        self.seals = None;
        let mut publishers = std::mem::take(&mut self.publishers);
        publishers.retain(|conn| match self.connections.take(*conn) {
            Some(Role::Publisher(mut publisher)) => {
                self.seal_timer(now, &mut publisher.seat);
                self.connections.put(*conn, Role::Publisher(publisher));
                true
            }
            Some(role) => {
                self.connections.put(*conn, role);
                false
            }
            None => false,
        });
        self.publishers = publishers;
        self.seal_feeds(now);
    }

    pub(super) fn seal_timer(&mut self, now: Now, seat: &mut Seat) {
        let Seat::Writing(writing) = seat else { return };
        writing.identify();
        let due = writing.intake.deadline().is_some_and(|due| now.mono >= due);
        let taken = if due { writing.intake.handle_timer(now) } else { Taken::default() };
        self.note(now, seat, taken);
    }

    fn ring(&mut self, now: Now, stream: &Arc<Stream>) {
        for shard in 0..self.registry.shards() {
            let shard = ShardId(u16::try_from(shard).unwrap_or(u16::MAX));
            if !stream.window.bell(shard).take() {
                continue;
            }
            if shard == self.id {
                self.grown(now, stream.slot);
            } else {
                self.out.push_back(Output::Head { shard, stream: stream.slot });
            }
        }
    }

    pub(super) fn drive_publisher(
        &mut self,
        now: Now,
        conn: ConnId,
        mut publisher: Box<Publisher>,
    ) -> Role {
        match &publisher.seat {
            Seat::Asking(asking) if asking.held.len() > HELD_MAX => {
                self.refuse_publisher(now, &mut publisher, &busy());
            }
            // Not polled: to a body that has ended it would answer that all is published.
            Seat::Asking(_) => {}
            Seat::Writing(writing)
                if writing.is_no_stream(publisher.connection.has_body_ended()) =>
            {
                let refusal = no_stream();
                warn!(stream = %writing.stream.name, why = %refusal.text, "publisher refused");
                self.leave(now, &mut publisher.seat, "no transport stream");
                publisher.connection.refuse(now.mono, &refusal);
            }
            Seat::Writing(_) | Seat::Left => {
                match publisher.connection.poll(now.mono, &mut self.desk.site(now)) {
                    Event::PublishEnded | Event::PublishBroken => {
                        self.leave(now, &mut publisher.seat, "ended");
                    }
                    // Nothing else is asked while a body is open.
                    Event::None | Event::Play(_) | Event::Hls(_) | Event::Publish(_) => {}
                }
            }
        }
        if let Seat::Left = publisher.seat {
            return self.drive_http(now, conn, Box::new(Talk::new(publisher.connection)));
        }
        if self.settle(now, conn, &mut publisher.connection) {
            self.leave(now, &mut publisher.seat, "closed");
            return Role::Closing;
        }
        Role::Publisher(publisher)
    }

    /// The connection of a publisher is gone.
    pub(super) fn publisher_gone(&mut self, now: Now, mut publisher: Publisher, why: &str) {
        self.leave(now, &mut publisher.seat, why);
    }

    /// Gives the seat up; the stream is held for the next publisher.
    pub(super) fn leave(&mut self, now: Now, seat: &mut Seat, why: &str) {
        let Seat::Writing(mut writing) = std::mem::replace(seat, Seat::Left) else { return };
        writing.identify();
        let Writing { stream, ticket, intake, .. } = *writing;
        info!(stream = %stream.name, why, "publisher gone, stream is held");
        self.cells.sub(Cell::Publishers, 1);
        let (writer, taken) = intake.finish(now);
        stream.park(writer, now.mono);
        self.count_sealed(&stream, taken);
        self.ring(now, &stream);
        let until = now.mono + self.registry.linger();
        // An older ticket ends nothing any more.
        self.lingering.retain(|entry| !Arc::ptr_eq(&entry.stream, &stream));
        self.lingering.push(Lingering { stream, ticket, until });
        self.tell_all(|| Mail::Parked);
    }

    /// Another shard's publisher wants this seat: leaves it if the publisher is still silent.
    pub(super) fn give_up(&mut self, now: Now, stream: &Arc<Stream>, ticket: u64) {
        if now.mono.since(stream.heard()) < TAKEOVER_SILENCE {
            return;
        }
        let mut talking = Vec::new();
        self.connections.talking(&mut talking);
        for conn in talking {
            let Some(Role::Publisher(publisher)) = self.connections.role(conn) else { continue };
            let Seat::Writing(writing) = &publisher.seat else { continue };
            if writing.ticket == ticket && Arc::ptr_eq(&writing.stream, stream) {
                self.cells.add(Cell::Takeovers, 1);
                self.drop_publisher(now, conn, "replaced");
                return;
            }
        }
    }

    /// Closes a publisher's connection.
    pub(super) fn drop_publisher(&mut self, now: Now, conn: ConnId, why: &str) {
        if let Some(Role::Publisher(mut publisher)) = self.connections.replace(conn, Role::Closing)
        {
            self.leave(now, &mut publisher.seat, why);
            self.close(conn);
        }
    }

    /// Claims again for a publisher that asked for a seat.
    pub(super) fn claim_again(&mut self, now: Now, conn: ConnId, publisher: &mut Publisher) {
        let Seat::Asking(asking) = &mut publisher.seat else { return };
        let (claimant, until) = (asking.claimant.clone(), asking.until);
        match self.registry.claim(&claimant.name, claimant.key, self.id, now) {
            Claim::Granted(lease) => {
                info!(stream = %claimant.name, "publisher took over");
                let seat = self.sit_down(now, lease);
                let before = std::mem::replace(&mut publisher.seat, seat);
                if let Seat::Asking(before) = before {
                    let taken = publisher.seat.push(now, Proto::Http, &before.held);
                    self.note(now, &publisher.seat, taken);
                }
            }
            Claim::Ask(stream, shard, ticket) if now.mono < until => {
                if now.mono.since(asking.asked) >= ASK_AGAIN {
                    asking.asked = now.mono;
                    self.ask(stream, shard, ticket);
                }
                self.waiting.push(conn);
            }
            Claim::Taken if now.mono < until => self.waiting.push(conn),
            refused => {
                let refusal = self.claim_refusal(&refused);
                warn!(stream = %claimant.name, why = %refusal.text, "publisher refused");
                self.refuse_publisher(now, publisher, &refusal);
            }
        }
    }

    /// At most one line a second: a stranger must not be able to fill the log.
    fn log_refusal(&mut self, now: Now, name: &StreamName, client: IpAddr, refusal: &Refusal) {
        if now.mono >= self.next_refusal {
            self.next_refusal = now.mono + REFUSALS_APART;
            warn!(stream = %name, address = %client, why = %refusal.text, "publisher refused");
        }
    }

    fn refuse_publisher(&mut self, now: Now, publisher: &mut Publisher, refusal: &Refusal) {
        publisher.seat = Seat::Left;
        publisher.connection.refuse(now.mono, refusal);
    }

    fn ask(&mut self, stream: Arc<Stream>, shard: ShardId, ticket: u64) {
        self.out.push_back(Output::Mail { shard, mail: Mail::GiveUp { stream, ticket } });
    }

    pub(super) fn sit_down(&mut self, now: Now, lease: Lease) -> Seat {
        let Lease { stream, writer, ticket, resumed } = lease;
        self.cells.add(Cell::Publishers, 1);
        if resumed {
            stream.discontinuities.fetch_add(1, Relaxed);
        }
        self.tell_all(|| Mail::Live);
        let segments = Arc::clone(&stream.segments);
        let segmenter = Segmenter::new(self.settings.segment, segments, resumed);
        let intake = Intake::new(writer, segmenter, resumed, now);
        let (stray, warned) = (Some(0), RefCell::default());
        Seat::Writing(Box::new(Writing { stream, ticket, intake, resyncs: 0, stray, warned }))
    }

    pub(super) fn claim_refusal(&self, claim: &Claim) -> Refusal {
        match claim {
            Claim::TooMany => {
                self.cells.add(Cell::RejectedMemory, 1);
                Refusal::new(503, "as many streams as allowed are live (streams.max)")
                    .retry_after(10)
            }
            Claim::NoMemory => {
                self.cells.add(Cell::RejectedMemory, 1);
                Refusal::new(503, "memory: no room for another stream (memory.arena)")
                    .retry_after(10)
            }
            Claim::Refused(why) => {
                self.cells.add(Cell::RejectedState, 1);
                Refusal::new(503, format!("what was kept of this stream cannot be used: {why}"))
            }
            Claim::Granted(_) | Claim::Ask(..) | Claim::Taken => {
                self.cells.add(Cell::RejectedBusy, 1);
                busy()
            }
        }
    }
}

impl Writing {
    /// Seals what is published from the moment on at which the stream has its identity.
    fn identify(&mut self) {
        if let Some(identity) = self.stream.identity().filter(|_| !self.intake.is_sealed()) {
            self.intake.seal(identity);
        }
    }
}

impl Seat {
    pub(super) fn push(&mut self, now: Now, proto: Proto, body: &[u8]) -> Taken {
        match self {
            Seat::Writing(writing) => {
                writing.identify();
                let taken = writing.intake.push(now, body);
                writing.stream.take_in(proto, body.len() as u64);
                let found = taken.written + taken.dropped > 0;
                writing.stray =
                    writing.stray.filter(|_| !found).map(|bytes| bytes + body.len() as u64);
                let resyncs = writing.intake.resyncs();
                writing.stream.resyncs.fetch_add(resyncs - writing.resyncs, Relaxed);
                writing.resyncs = resyncs;
                taken
            }
            Seat::Asking(asking) => {
                // One step beyond the bound shows that it was passed.
                let held = &mut asking.held;
                let room = (HELD_MAX + 1).saturating_sub(held.len());
                held.extend_from_slice(&body[..body.len().min(room)]);
                Taken::default()
            }
            Seat::Left => Taken::default(),
        }
    }

    /// Notes that the publisher sent something.
    pub(super) fn hear(&self, now: Mono) {
        if let Seat::Writing(writing) = self {
            writing.stream.hear(now);
        }
    }

    /// What comes now continues nothing that was there before.
    pub(super) fn restart(&mut self, now: Now) -> Taken {
        let mut ended = Taken::default();
        if let Seat::Writing(writing) = std::mem::replace(self, Seat::Left) {
            let Writing { stream, ticket, intake, warned, .. } = *writing;
            stream.discontinuities.fetch_add(1, Relaxed);
            let (intake, taken) = intake.restart(now);
            ended = taken;
            *self = Seat::Writing(Box::new(Writing {
                stream,
                ticket,
                intake,
                resyncs: 0,
                stray: None,
                warned,
            }));
        }
        ended
    }
}

fn no_stream() -> Refusal {
    Refusal::new(415, "there is no MPEG transport stream in this; with ffmpeg: -f mpegts")
}

fn busy() -> Refusal {
    Refusal::new(409, "another publisher is sending this stream; stop it first").retry_after(1)
}

fn key_refusal(why: KeyRefusal) -> Refusal {
    match why {
        KeyRefusal::Missing => {
            Refusal::new(401, "a publish key is needed: add ?key=KEY or Authorization: Bearer KEY")
        }
        KeyRefusal::Wrong => Refusal::new(403, "this key may not publish this stream"),
        KeyRefusal::NotLocal => Refusal::new(
            403,
            "publishing is open to this machine only until publish.keys is configured",
        ),
    }
}
