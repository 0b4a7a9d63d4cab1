//! The line is measured: trains to the relay, and what it says of them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::peer::desk::Desk;
use crate::peer::viewer::neighbours::Neighbours;
use crate::swarm::upload::Probe as Train;
use crate::wire::ppspp::{Message, Private, Probe, Writer};

impl Neighbours {
    /// The link to the relay begins, which `measures` lines or does not.
    pub(in crate::peer::viewer) fn linked(&mut self, now: Mono, measures: bool) {
        self.mesh.note_relay_heard(now);
        self.upload.linked(now, measures);
    }

    /// Sends the train that is due to the relay, whose channel is `them`.
    pub(in crate::peer::viewer) fn probe(
        &mut self,
        now: Mono,
        to: SocketAddr,
        them: u32,
        desk: &mut Desk<'_>,
    ) {
        // Behind what waits for the socket it would show how the socket is emptied.
        if desk.full {
            return;
        }
        let Some(train) = self.upload.probe(now) else { return };
        let Train { run, of, bytes } = train;
        let addressing = self.profile.addressing;
        for index in 0..of {
            let mut writer = Writer::new(&mut self.buf[..], them, addressing);
            let probe = Probe::filling(bytes.into(), run, index, of);
            let whole = writer.push(Message::Private(Private::Probe(probe)));
            debug_assert!(whole);
            let n = writer.len();
            self.tally.control_out += n as u64;
            desk.datagram(to, &self.buf[..n]);
        }
        self.upload.probed(now, train);
        self.probed = Some((run, now));
    }

    /// The relay says how fast a train came. Returns how long that took, from the train on: a
    /// round trip at the most.
    pub(in crate::peer::viewer) fn measured(
        &mut self,
        now: Mono,
        run: u8,
        kbit: u32,
    ) -> Option<Duration> {
        let trip = self.probed.take_if(|(sent, _)| *sent == run).map(|(_, at)| now.since(at));
        if let Some(kbit) = self.upload.measured(now, run, kbit) {
            tracing::info!(kbit, "upload measured");
            self.grant_all();
        }
        trip
    }
}
