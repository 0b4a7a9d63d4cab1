//! One GET over a connection of the driver: what the exchange wants, as sends and closes.

use bytes::{Buf, Bytes};

use crate::base::ids::ConnId;
use crate::base::payload::Payload;
use crate::base::time::{Mono, Now};
use crate::peer::client::{Exchange, Failure, Limits, Sink, Tls, Url};

/// A GET under way.
pub(super) struct Call {
    /// Names its connect.
    pub(super) token: u64,
    /// Its connection, once there is one.
    pub(super) conn: Option<ConnId>,
    exchange: Exchange,
    /// What is to be sent and was not taken yet.
    out: Bytes,
    /// The last send was not answered.
    sending: bool,
    blocked: bool,
}

impl Call {
    /// Asks for `url`; `token` names the connect that the caller makes.
    pub(super) fn new(
        now: Now,
        token: u64,
        url: &Url,
        tls: Option<&Tls>,
        limits: Limits,
    ) -> Result<Call, Failure> {
        let exchange = Exchange::get(now, url, &[], tls, limits)?;
        Ok(Call { token, conn: None, exchange, out: Bytes::new(), sending: false, blocked: false })
    }

    /// What to send now.
    pub(super) fn next_send(&mut self) -> Option<(ConnId, Payload)> {
        let conn = self.conn.filter(|_| !self.sending && !self.blocked)?;
        if self.out.is_empty() {
            self.out = self.exchange.take_output();
        }
        if self.out.is_empty() {
            return None;
        }
        self.sending = true;
        Some((conn, Payload::from(self.out.clone())))
    }

    pub(super) fn handle_sent(&mut self, n: usize) {
        self.sending = false;
        self.out.advance(n.min(self.out.len()));
    }

    pub(super) fn handle_blocked(&mut self) {
        (self.sending, self.blocked) = (false, true);
    }

    pub(super) fn handle_writable(&mut self) {
        self.blocked = false;
    }

    pub(super) fn handle_received(&mut self, now: Now, data: &[u8], sink: Sink<'_>) {
        self.exchange.handle_received(now, data, sink);
    }

    pub(super) fn handle_closed(&mut self, clean: bool, sink: Sink<'_>) {
        self.conn = None;
        self.exchange.handle_closed(clean, sink);
    }

    pub(super) fn handle_timeout(&mut self, now: Now, sink: Sink<'_>) {
        self.exchange.handle_timeout(now, sink);
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.exchange.next_deadline()
    }
}
