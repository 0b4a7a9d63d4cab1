//! Somebody plays by HLS: playlists are written from the window's marks, segments are sent from
//! its slabs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::ConnId;
use crate::base::segment::Segment;
use crate::base::time::Now;
use crate::face::http::connection::Refusal;
use crate::face::http::exchange::{HlsFile, HlsRequest};
use crate::face::http::progressive::backlog;
use crate::io::machine::Output;
use crate::media::playlist::{self, Terms};
use crate::metrics::table::Cell;
use crate::registry::stream::{State, Stream};
use crate::registry::streams::Lookup;
use crate::ring::reader::Overtaken;
use crate::shard::Shard;
use crate::shard::connections::{HlsWaits, Talk};
use crate::shard::play::Retry;

/// How long a player waits for the first segment of a stream that has just gone live.
const FIRST_SEGMENT: Duration = Duration::from_secs(10);

/// Why there is no answer with content.
enum Lack {
    /// Not yet.
    Soon,
    /// Not while nobody publishes.
    NotLive,
    /// There is no such stream.
    Unknown,
    /// No such segment yet.
    Ahead,
    /// The segment has left the window.
    Gone,
}

impl Shard {
    /// Answers a request for a playlist or a segment, or lets it wait.
    pub(super) fn hls(&mut self, now: Now, conn: ConnId, talk: &mut Talk, request: HlsRequest) {
        if let Some(refusal) = self.admit_client(conn, request.client) {
            return talk.connection.refuse(now.mono, &refusal);
        }
        let Err(lack) = self.hls_now(now, conn, talk, &request) else { return };
        let patience = match (&lack, request.file) {
            (_, HlsFile::Segment { .. }) => Duration::ZERO,
            (Lack::Soon, _) => request.wait.max(FIRST_SEGMENT),
            _ => request.wait,
        };
        if patience.is_zero() {
            return talk.connection.refuse(now.mono, &refusal(&lack));
        }
        let soon = matches!(lack, Lack::Soon);
        self.haste |= soon;
        talk.hls = Some(HlsWaits { request, until: now.mono + patience, soon });
        self.waiting.push(conn);
    }

    /// Looks again for somebody who waits.
    pub(super) fn hls_again(&mut self, now: Now, conn: ConnId, talk: &mut Talk, who: Retry) {
        let Some(mut waits) = talk.hls.take() else { return };
        let over = now.mono >= waits.until;
        // A stream that goes live is announced, its first segment is not.
        if who == Retry::All || waits.soon || over {
            let Err(lack) = self.hls_now(now, conn, talk, &waits.request) else { return };
            if matches!(lack, Lack::Soon) && !waits.soon {
                waits.soon = true;
                waits.until = waits.until.max(now.mono + FIRST_SEGMENT);
            } else if over {
                return talk.connection.refuse(now.mono, &refusal(&lack));
            }
            self.haste |= waits.soon;
        }
        talk.hls = Some(waits);
        self.waiting.push(conn);
    }

    /// Puts the next write of a download into the queue.
    pub(super) fn lend(&mut self, conn: ConnId, talk: &mut Talk) -> Result<(), Overtaken> {
        if !talk.connection.is_downloading() {
            talk.book = None;
            return Ok(());
        }
        let Some(book) = &talk.book else { return Err(Overtaken) };
        let parts = talk.connection.next_read(&mut book.reader.borrow_mut())?;
        if let Some(parts) = parts {
            self.out.push_back(Output::Send { conn, parts });
        }
        Ok(())
    }

    fn hls_now(
        &mut self,
        now: Now,
        conn: ConnId,
        talk: &mut Talk,
        request: &HlsRequest,
    ) -> Result<(), Lack> {
        let stream = match self.registry.lookup(&request.name) {
            Lookup::Unknown => return Err(Lack::Unknown),
            Lookup::Known => return Err(Lack::NotLive),
            Lookup::Present(stream) => stream,
        };
        match request.file {
            HlsFile::Segment { epoch, sequence } => {
                let segment = find(&stream, epoch, sequence)?;
                let tag = format!("\"{epoch:x}-{sequence:x}\"");
                talk.connection.segment(now.mono, request, &segment, &tag);
                self.cells.add(Cell::HlsSegments, 1);
                if talk.connection.is_downloading() {
                    let bytes = backlog(stream.health().bitrate_bps, self.rules.max_lag);
                    self.out.push_back(Output::Backlog { conn, bytes });
                    talk.book = Some(self.library.open(&stream));
                }
            }
            HlsFile::Playlist | HlsFile::Master => {
                let text = self.write_playlist(&stream, request.file)?;
                let max_age = (stream.segments.counts().target / 2).max(1);
                talk.connection.playlist(now.mono, request, text, max_age);
                self.cells.add(Cell::HlsPlaylists, 1);
            }
        }
        Ok(())
    }

    fn write_playlist(&mut self, stream: &Arc<Stream>, file: HlsFile) -> Result<Bytes, Lack> {
        let marks = stream.window.marks();
        let tail = stream.window.tail();
        let list = playlist::listed(marks.segments(), tail, self.settings.playlist);
        if list.is_empty() {
            return Err(match stream.state() {
                State::Live => Lack::Soon,
                State::Held => Lack::NotLive,
            });
        }
        let target = stream.segments.counts().target;
        if file == HlsFile::Master {
            return Ok(playlist::master(&list, target, &stream.health()).into());
        }
        let epoch = stream.since.as_unix_millis();
        let book: Rc<_> = self.library.open(stream);
        let write = || playlist::media(&list, Terms { target, epoch }).into();
        Ok(book.playlist(marks.count(), tail, write))
    }
}

/// The segment, if all of it is in the window.
fn find(stream: &Stream, epoch: u64, sequence: u64) -> Result<Segment, Lack> {
    let since = stream.since.as_unix_millis();
    if epoch != since {
        return Err(if epoch < since { Lack::Gone } else { Lack::Ahead });
    }
    let marks = stream.window.marks();
    let found = marks.segments().rev().find(|segment| segment.sequence == sequence);
    match found.filter(|segment| segment.begin >= stream.window.tail()) {
        Some(segment) => Ok(segment.clone()),
        None if sequence >= stream.segments.counts().next => Err(Lack::Ahead),
        None => Err(Lack::Gone),
    }
}

fn refusal(lack: &Lack) -> Refusal {
    match lack {
        Lack::Unknown => Refusal::new(404, "no such stream; see / for what is live"),
        Lack::Soon => Refusal::new(503, "the first segment is not complete yet").retry_after(2),
        Lack::NotLive => {
            Refusal::new(503, "the stream is not live now; add ?wait=10 to wait for it")
                .retry_after(2)
        }
        Lack::Ahead => Refusal::new(404, "no such segment; see the playlist, index.m3u8"),
        Lack::Gone => Refusal::new(410, "this segment is no longer kept; see index.m3u8"),
    }
}
