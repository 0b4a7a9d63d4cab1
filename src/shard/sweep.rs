//! Timers. None needs to be exact, so a sweep a few times a second replaces a timer per
//! connection; a shard on which nothing waits does not sweep at all.

use std::time::Duration;

use tracing::{info, warn};

use crate::base::time::{Mono, Now};
use crate::metrics::table::Cell;
use crate::shard::Shard;
use crate::shard::connections::Role;
use crate::shard::mail::Mail;
use crate::shard::play::Retry;
use crate::shard::publish::{Seat, Writing};

/// How often request timeouts and silent publishers are looked for.
const SWEEP: Duration = Duration::from_millis(100);

/// The same while somebody waits for a seat or a first access point, which nobody announces.
const SWEEP_WAITING: Duration = Duration::from_millis(20);

/// How often figures are published and stalled viewers looked for.
const FIGURES: Duration = Duration::from_millis(250);

impl Shard {
    pub(super) fn sweep_deadline(&self) -> Option<Mono> {
        let busy = self.connections.any_talking()
            || !self.lingering.is_empty()
            || self.feeds.writing().next().is_some();
        let peers = self.swarm.as_ref().is_some_and(|face| face.has_peers());
        let sweep = (busy || !self.waiting.is_empty()).then_some(self.next_sweep);
        let second = (busy || self.viewers.any() || peers).then_some(self.next_figures);
        [sweep, second].into_iter().flatten().min()
    }

    pub(super) fn sweep(&mut self, now: Now) {
        if now.mono >= self.next_sweep {
            self.sweep_connections(now);
            self.sweep_feeds(now);
            self.end_lingering(now);
            self.retry_waiting(now, Retry::Hasty);
            self.next_sweep = now.mono + SWEEP;
        }
        if self.haste {
            self.next_sweep = self.next_sweep.min(now.mono + SWEEP_WAITING);
        }
        if now.mono >= self.next_figures {
            self.next_figures = now.mono + FIGURES;
            self.publish_figures(now);
            // Nobody tells the shard that a stream has got its identity.
            self.seals = self.seals.or(Some(now.mono));
            for viewer in self.viewers.stalled(now.mono, self.settings.stall_timeout) {
                self.close_viewer(viewer, Cell::ClosedStalled);
            }
        }
    }

    fn sweep_connections(&mut self, now: Now) {
        let mut talking = std::mem::take(&mut self.swept);
        self.connections.talking(&mut talking);
        for conn in talking.drain(..) {
            match self.connections.role(conn) {
                Some(Role::Http(talk)) if talk.waits.is_none() => {
                    if talk.connection.deadline().is_some_and(|at| now.mono >= at) {
                        talk.connection.handle_timer(now.mono);
                        self.drive(now, conn);
                    }
                }
                Some(Role::Publisher(publisher)) => {
                    let heard = match &publisher.seat {
                        Seat::Writing(writing) => writing.stream.heard(),
                        Seat::Asking(_) | Seat::Left => publisher.connection.last_received(),
                    };
                    if now.mono.since(heard) >= self.http.publisher_silence {
                        self.cells.add(Cell::PublishersVanished, 1);
                        self.drop_publisher(now, conn, "vanished");
                    }
                }
                Some(Role::Http(_) | Role::Feed(_) | Role::Viewer(_) | Role::Closing) | None => {}
            }
        }
        self.swept = talking;
    }

    fn end_lingering(&mut self, now: Now) {
        let lingering = std::mem::take(&mut self.lingering);
        for entry in lingering {
            if now.mono < entry.until {
                self.lingering.push(entry);
            } else if self.registry.end(&entry.stream, entry.ticket, now.mono) {
                info!(stream = %entry.stream.name, "stream is over");
                self.tell_all(|| Mail::Ended(entry.stream.clone()));
            }
        }
    }

    fn publish_figures(&mut self, now: Now) {
        self.delays.publish(&self.shelf);
        let mut talking = std::mem::take(&mut self.swept);
        self.connections.talking(&mut talking);
        for conn in talking.drain(..) {
            let Some(Role::Publisher(publisher)) = self.connections.role(conn) else { continue };
            let Seat::Writing(writing) = &publisher.seat else { continue };
            publish_health(now, writing);
        }
        self.swept = talking;
        self.feeds.writing().for_each(|writing| publish_health(now, writing));
        self.swarm.iter_mut().for_each(|face| face.publish_figures(now.mono));
    }
}

/// How long the same warning about the same publisher is not logged again.
const WARNINGS_APART: Duration = Duration::from_secs(60);

/// The kinds of warnings that are remembered; more than there are.
const WARNINGS_MAX: usize = 16;

fn publish_health(now: Now, writing: &Writing) {
    let health = writing.intake.health(now);
    for warning in &health.warnings {
        if writing.warned.borrow_mut().is_due(now.mono, warning) {
            warn!(stream = %writing.stream.name, "{warning}");
        }
    }
    writing.stream.set_health(health);
}

/// What was logged about one publisher, and when it last held: a state is told when it begins,
/// not as long as it lasts, and not each time that it comes back.
#[derive(Default)]
pub(super) struct Warned(Vec<(String, Mono)>);

impl Warned {
    /// Whether `text`, which holds now, is to be logged. It is known by its words: its numbers
    /// are other ones at every look.
    fn is_due(&mut self, now: Mono, text: &str) -> bool {
        let words: String = text.chars().filter(|c| !c.is_numeric()).collect();
        if let Some((_, held)) = self.0.iter_mut().find(|(known, _)| *known == words) {
            let since = now.since(*held);
            *held = now;
            return since >= WARNINGS_APART;
        }
        let room = self.0.len() < WARNINGS_MAX;
        if room {
            self.0.push((words, now));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_logged_when_it_begins_whatever_its_numbers() {
        let mut warned = Warned::default();
        let mut due =
            |seconds: u64, text: &str| warned.is_due(Mono::from_millis(seconds * 1000), text);
        assert!(due(0, "bursts of 1565 ms"));
        assert!(due(0, "no key frame for 5 s"));
        assert!(!due(1, "bursts of 1566 ms"));
        assert!(!due(59, "bursts of 2 ms") && !due(100, "bursts of 7 ms"), "it lasts");
        assert!(due(161, "bursts of 9 ms"), "it was over for a minute");
        assert!((0..WARNINGS_MAX + 9).filter(|n| due(200, &"x".repeat(*n + 1))).count() < 16);
    }
}
