//! Somebody wants to watch: now, soon, or not at all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::time::{Mono, Now};
use crate::face::http::connection::{PlayRequest, Refusal};
use crate::face::http::progressive::{Start, Viewer, backlog};
use crate::io::machine::Output;
use crate::metrics::table::Cell;
use crate::registry::stream::{State, Stream};
use crate::registry::streams::Lookup;
use crate::ring::marks::{Mark, MarkKind, Marks};
use crate::shard::Shard;
use crate::shard::connections::{Role, Talk, Waits};
use crate::shard::publish::Seat;

/// How long a viewer waits for the first access point of a stream that has just gone live.
const FIRST_ACCESS_POINT: Duration = Duration::from_secs(5);

/// What a connection is told whose address has too many.
pub(super) fn too_many_of_address() -> Refusal {
    Refusal::new(429, "too many connections from your address; close some or wait").retry_after(10)
}

/// Who of those that wait is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Everybody: something happened.
    All,
    /// Those whose time is over and those who wait for what nobody announces.
    Hasty,
}

/// Where a viewer may begin.
enum Entrance {
    /// Here, and this much has passed since.
    Open(Start, Duration),
    /// Not yet.
    Soon,
    /// The byte that was asked for has not come yet.
    Ahead,
    /// The byte that was asked for has left the window.
    Gone,
    /// Not while nobody publishes.
    NotLive,
    /// There is no such stream.
    Unknown,
}

impl Shard {
    /// Answers a request to play. Returns the connection's new role, or nothing if it stays an
    /// HTTP connection: refused, answered, or waiting.
    pub(super) fn play(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        request: PlayRequest,
    ) -> Option<Role> {
        if let Some(refusal) = self.admit_client(conn, request.client) {
            talk.connection.refuse(now.mono, &refusal);
            return None;
        }
        let (entrance, stream) = self.entrance(now, &request);
        match (entrance, stream) {
            (Entrance::Open(..), Some(_)) if request.head_only => {
                talk.connection.head_ok(now.mono, request.at);
                None
            }
            (Entrance::Open(start, behind), Some(stream)) => {
                self.seat_viewer(now, conn, talk, &stream, &start, behind)
            }
            (entrance, _) => {
                self.wait_or_refuse(now, conn, talk, request, &entrance);
                None
            }
        }
    }

    /// Looks again for those who wait for a stream or a seat.
    pub(super) fn retry_waiting(&mut self, now: Now, who: Retry) {
        self.haste = false;
        for conn in std::mem::take(&mut self.waiting) {
            match self.connections.take(conn) {
                Some(Role::Http(mut talk)) => {
                    let role = match talk.waits.take() {
                        Some(waits) => self.play_again(now, conn, &mut talk, waits, who),
                        None => {
                            self.hls_again(now, conn, &mut talk, who);
                            None
                        }
                    };
                    self.connections.put(conn, role.unwrap_or(Role::Http(talk)));
                    self.drive(now, conn);
                }
                Some(Role::Publisher(mut publisher)) => {
                    self.claim_again(now, conn, &mut publisher);
                    self.haste |= matches!(publisher.seat, Seat::Asking(_));
                    self.connections.put(conn, Role::Publisher(publisher));
                    self.drive(now, conn);
                }
                Some(role) => self.connections.put(conn, role),
                None => {}
            }
        }
    }

    fn play_again(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        mut waits: Waits,
        who: Retry,
    ) -> Option<Role> {
        if who == Retry::Hasty && !waits.soon && now.mono < waits.until {
            // A stream that goes live is announced: a crowd that waits for it costs little.
            talk.waits = Some(waits);
            self.waiting.push(conn);
            return None;
        }
        let (entrance, stream) = self.entrance(now, &waits.request);
        if is_near(&entrance) && !waits.soon {
            waits.soon = true;
            waits.until = waits.until.max(now.mono + FIRST_ACCESS_POINT);
        }
        self.haste |= waits.soon;
        if matches!(entrance, Entrance::Open(..)) || now.mono >= waits.until {
            let mut request = waits.request;
            request.wait = Duration::ZERO;
            return match (entrance, stream) {
                (Entrance::Open(..), Some(_)) => self.play(now, conn, talk, request),
                (entrance, _) => {
                    talk.connection.refuse(now.mono, &refusal(&entrance));
                    None
                }
            };
        }
        talk.waits = Some(waits);
        self.waiting.push(conn);
        None
    }

    fn wait_or_refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        request: PlayRequest,
        entrance: &Entrance,
    ) {
        let patience = match entrance {
            Entrance::Soon | Entrance::Ahead => request.wait.max(FIRST_ACCESS_POINT),
            Entrance::Gone => Duration::ZERO,
            Entrance::Open(..) | Entrance::NotLive | Entrance::Unknown => request.wait,
        };
        if patience.is_zero() {
            return talk.connection.refuse(now.mono, &refusal(entrance));
        }
        let soon = is_near(entrance);
        self.haste |= soon;
        talk.waits = Some(Waits { request, until: now.mono + patience, soon });
        self.waiting.push(conn);
    }

    /// Behind a trusted proxy the client's address is known only now.
    pub(super) fn admit_client(&mut self, conn: ConnId, client: IpAddr) -> Option<Refusal> {
        let permit = self.connections.permit(conn)?;
        match permit.client(client) {
            Ok(()) => None,
            Err(_) => {
                self.cells.add(Cell::RejectedAddress, 1);
                Some(too_many_of_address())
            }
        }
    }

    fn entrance(&self, now: Now, request: &PlayRequest) -> (Entrance, Option<Arc<Stream>>) {
        match self.registry.lookup(&request.name) {
            Lookup::Unknown => (Entrance::Unknown, None),
            Lookup::Known => (Entrance::NotLive, None),
            Lookup::Present(stream) if let Some(at) = request.at => {
                (exactly(&stream, at, now), Some(stream))
            }
            Lookup::Present(stream) if stream.state() == State::Held => (Entrance::NotLive, None),
            Lookup::Present(stream) => match find_start(&stream, request.start, now.mono) {
                Some((start, behind)) => (Entrance::Open(start, behind), Some(stream)),
                None => (Entrance::Soon, None),
            },
        }
    }

    fn seat_viewer(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        stream: &Arc<Stream>,
        start: &Start,
        behind: Duration,
    ) -> Option<Role> {
        let seat = self.connections.permit(conn).map(|permit| permit.viewer());
        if !matches!(seat, Some(Ok(()))) {
            self.cells.add(Cell::RejectedViewers, 1);
            let refusal = Refusal::new(503, "all places are taken; try again later");
            talk.connection.refuse(now.mono, &refusal.retry_after(10));
            return None;
        }
        let head = talk.connection.play(start.exact.then_some(start.at)).head;
        let bytes = backlog(stream.health().bitrate_bps, self.rules.max_lag);
        let viewer = Viewer::new(now.mono, start, &head, behind, bytes, &self.rules);
        let place = self.locals.attach(self.id, stream);
        let local = self.locals.get(place)?;
        let seat = local.viewers.len() as u32;
        let viewer = self.viewers.insert(viewer, conn, place, seat);
        local.viewers.push(viewer);
        let share = stream.share(self.id);
        share.viewers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.cells.add(Cell::Http2xx, 1);
        self.cells.add(Cell::HttpViewers, 1);
        self.out.push_back(Output::Backlog { conn, bytes });
        self.viewers.enqueue(viewer, &mut self.ready);
        Some(Role::Viewer(viewer))
    }

    /// The stream is over: closes everybody who watches it here.
    pub(super) fn stream_ended(&mut self, stream: &Arc<Stream>) {
        self.swarm.iter_mut().for_each(|face| face.handle_end(stream));
        let Some(place) = self.locals.find(stream) else { return };
        let viewers = self.locals.get(place).map(|local| local.viewers.clone());
        for viewer in viewers.unwrap_or_default() {
            self.close_viewer(viewer, Cell::ClosedStreamEnded);
        }
    }
}

fn refusal(entrance: &Entrance) -> Refusal {
    match entrance {
        Entrance::Unknown => Refusal::new(404, "no such stream; see / for what is live"),
        Entrance::Gone => Refusal::new(410, "this place of the stream is no longer kept"),
        Entrance::Ahead => {
            Refusal::new(503, "this place of the stream has not come yet").retry_after(2)
        }
        Entrance::Open(..) | Entrance::Soon | Entrance::NotLive => {
            Refusal::new(503, "the stream is not live now; add ?wait=10 to wait for it")
                .retry_after(2)
        }
    }
}

/// Whether it is worth looking often: nobody announces it.
fn is_near(entrance: &Entrance) -> bool {
    matches!(entrance, Entrance::Soon | Entrance::Ahead)
}

/// Where a viewer begins who asked for the very byte at `at`. While the publisher is away it is
/// there as well.
fn exactly(stream: &Stream, at: u64, now: Now) -> Entrance {
    let window = &stream.window;
    let behind = window.ingest_time(at).map_or(Duration::ZERO, |came| now.mono.since(came));
    match () {
        () if at < window.tail() => Entrance::Gone,
        () if at > window.head() => Entrance::Ahead,
        () => Entrance::Open(Start::exactly(at), behind),
    }
}

/// The access point where a viewer begins, and how long ago it came in. Without a wish for the
/// past never one from before the last break: the publisher that made it is gone.
fn find_start(stream: &Stream, ago: Option<Duration>, now: Mono) -> Option<(Start, Duration)> {
    let marks = stream.window.marks();
    let mark = match ago {
        Some(ago) => marks.access_point_before(now - ago),
        None => {
            let newest = marks.newest_access_point();
            newest.filter(|mark| mark.at >= last_break(&marks))
        }
    }?;
    Some((Start::of(mark)?, now.since(mark.ingest)))
}

fn last_break(marks: &Marks) -> u64 {
    let is_break = |mark: &&Arc<Mark>| matches!(mark.kind, MarkKind::Discontinuity);
    marks.iter().rev().find(is_break).map_or(0, |mark| mark.at)
}
