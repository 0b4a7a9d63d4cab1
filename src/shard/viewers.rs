//! The shard's viewers, and what a send's outcome means for them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::time::{Mono, Now};
use crate::face::http::progressive::{Next, Viewer};
use crate::io::machine::{Outbox, Output};
use crate::metrics::table::Cell;
use crate::shard::Shard;
use crate::shard::connections::Role;
use crate::shard::mail::Mail;

#[derive(Debug)]
struct Entry {
    viewer: Viewer,
    conn: ConnId,
    /// Place of its stream in the shard's table.
    local: u32,
    /// Where it stands in that stream's list of viewers.
    seat: u32,
    /// Whether it stands in the queue.
    queued: bool,
}

/// Viewers by place; a place is reused after the viewer is gone.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Viewers {
    /// Bytes of one place in the table.
    #[cfg(test)]
    pub(super) const ENTRY_BYTES: usize = size_of::<Option<Entry>>();

    pub(super) fn insert(&mut self, viewer: Viewer, conn: ConnId, local: u32, seat: u32) -> u32 {
        let entry = Some(Entry { viewer, conn, local, seat, queued: false });
        match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        }
    }

    /// Puts a viewer into the queue unless it stands there already.
    pub(super) fn enqueue(&mut self, place: u32, ready: &mut VecDeque<u32>) {
        if let Some(entry) = self.get(place)
            && !entry.queued
        {
            entry.queued = true;
            ready.push_back(place);
        }
    }

    pub(super) fn blocked(&mut self, place: u32, now: Mono) {
        if let Some(entry) = self.get(place) {
            entry.viewer.handle_blocked(now);
        }
    }

    pub(super) fn writable(&mut self, place: u32) {
        if let Some(entry) = self.get(place) {
            entry.viewer.handle_writable();
        }
    }

    /// Viewers whose connection has taken nothing for `timeout`.
    pub(super) fn stalled(&self, now: Mono, timeout: Duration) -> Vec<u32> {
        let entries = self.entries.iter().enumerate();
        let stalled = entries.filter(|(_, entry)| {
            let since = entry.as_ref().and_then(|entry| entry.viewer.blocked_since());
            since.is_some_and(|since| now.since(since) >= timeout)
        });
        stalled.map(|(place, _)| place as u32).collect()
    }

    /// Whether there is any viewer.
    pub(super) fn any(&self) -> bool {
        self.entries.len() > self.free.len()
    }

    fn get(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    fn remove(&mut self, place: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(entry)
    }
}

impl Shard {
    /// Looks at one viewer from the queue: sends what it is owed.
    pub(super) fn serve(&mut self, now: Now, place: u32, out: &mut Outbox<Mail>) {
        let Some(entry) = self.viewers.get(place) else { return };
        entry.queued = false;
        let Some(local) = self.locals.get(entry.local) else { return };
        let (jumps, cursor) = (entry.viewer.jumps(), entry.viewer.cursor());
        let next = entry.viewer.poll(now.mono, &mut local.reader, local.seen, &self.rules);
        let conn = entry.conn;
        let jumped = entry.viewer.jumps() - jumps;
        self.cells.add(Cell::HttpSkips, u64::from(jumped));
        if jumped > 0 && cursor < local.stream.window.tail() {
            self.cells.add(Cell::Overtaken, 1);
        }
        match next {
            Next::Wait => {}
            Next::Send(parts) => {
                self.cells.add(Cell::Sends, 1);
                out.push(Output::Send { conn, parts });
            }
            Next::TooSlow => {
                self.close_viewer(place, Cell::ClosedSlow);
            }
        }
    }

    pub(super) fn viewer_sent(&mut self, now: Now, place: u32, n: usize) {
        let Some(entry) = self.viewers.get(place) else { return };
        let Some(local) = self.locals.get(entry.local) else { return };
        let began = entry.viewer.cursor();
        let bytes = entry.viewer.handle_sent(n, &mut local.reader) as u64;
        if bytes > 0 {
            if entry.viewer.is_live()
                && let Some(came) = local.stream.window.ingest_time(began)
            {
                self.delays.record(now.mono.since(came));
            }
            let share = local.stream.share(self.id);
            share.egress_bytes.fetch_add(bytes, Relaxed);
            self.cells.add(Cell::EgressHttpBytes, bytes);
        }
        self.viewers.enqueue(place, &mut self.ready);
    }

    /// Closes a viewer's connection, for a reason of ours.
    pub(super) fn close_viewer(&mut self, place: u32, why: Cell) {
        let Some(conn) = self.viewers.get(place).map(|entry| entry.conn) else { return };
        self.connections.replace(conn, Role::Closing);
        self.viewer_gone(place, why);
        self.close(conn);
    }

    /// Forgets a viewer whose connection is closed or closing.
    pub(super) fn viewer_gone(&mut self, place: u32, why: Cell) {
        let Some(entry) = self.viewers.remove(place) else { return };
        self.cells.add(why, 1);
        self.cells.sub(Cell::HttpViewers, 1);
        if let Some(local) = self.locals.get(entry.local) {
            local.stream.share(self.id).viewers.fetch_sub(1, Relaxed);
            // Found by its seat: a search would make the end of a large stream quadratic.
            let seat = entry.seat as usize;
            if local.viewers.get(seat) == Some(&place) {
                local.viewers.swap_remove(seat);
                let moved = local.viewers.get(seat).and_then(|moved| self.viewers.get(*moved));
                if let Some(moved) = moved {
                    moved.seat = entry.seat;
                }
            }
        }
        self.locals.detach_if_idle(entry.local);
    }
}
