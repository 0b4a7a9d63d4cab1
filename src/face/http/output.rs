//! What waits to be sent: one response at a time, as handles.

use bytes::{Buf, Bytes};

use crate::base::limits::SEND_MAX;
use crate::base::payload::Payload;

/// The unsent rest of a response.
#[derive(Debug, Default)]
pub struct Output {
    parts: [Bytes; 2],
    /// A send was handed out and not answered yet.
    outstanding: bool,
    /// The kernel took nothing; wait until it would.
    blocked: bool,
}

impl Output {
    /// Queues a response behind whatever is unsent. That is never more than an interim response,
    /// so joining the two costs nothing worth avoiding.
    pub fn push(&mut self, head: Bytes, body: Bytes) {
        let head = if self.is_empty() {
            head
        } else {
            [&self.parts[0], &self.parts[1], &head].map(|part| &part[..]).concat().into()
        };
        self.parts = [head, body];
    }

    /// The next write, if one may be made.
    pub fn next_send(&mut self) -> Option<[Payload; 2]> {
        if self.outstanding || self.blocked || self.is_empty() {
            return None;
        }
        self.outstanding = true;
        let first = self.parts[0].len().min(SEND_MAX);
        let second = self.parts[1].len().min(SEND_MAX - first);
        Some([self.parts[0].slice(..first).into(), self.parts[1].slice(..second).into()])
    }

    /// The next write, with more behind it that is not queued here: `more` gives it, of at most
    /// so many bytes.
    ///
    /// # Errors
    /// What `more` says.
    pub fn next_with<E>(
        &mut self,
        more: impl FnOnce(usize) -> Result<[Payload; 2], E>,
    ) -> Result<Option<[Payload; 2]>, E> {
        if self.outstanding || self.blocked {
            return Ok(None);
        }
        if !self.parts[1].is_empty() || self.parts[0].len() > SEND_MAX {
            return Ok(self.next_send());
        }
        let head = self.parts[0].clone();
        let [first, second] = more(SEND_MAX - head.len())?;
        self.outstanding = true;
        Ok(Some(if head.is_empty() { [first, second] } else { [head.into(), first] }))
    }

    /// The kernel took `n` bytes. Returns how many of them were not queued here.
    pub fn on_sent(&mut self, n: usize) -> usize {
        self.outstanding = false;
        let first = n.min(self.parts[0].len());
        self.parts[0].advance(first);
        let second = (n - first).min(self.parts[1].len());
        self.parts[1].advance(second);
        if self.is_empty() {
            self.parts = [Bytes::new(), Bytes::new()];
        }
        n - first - second
    }

    /// The kernel took nothing.
    pub fn on_blocked(&mut self) {
        self.outstanding = false;
        self.blocked = true;
    }

    /// The kernel would take something.
    pub fn on_writable(&mut self) {
        self.blocked = false;
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_response_goes_out_in_order_in_bounded_writes() {
        let body: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut output = Output::default();
        output.push(Bytes::from_static(b"head"), Bytes::from(body.clone()));
        let mut wire = Vec::new();
        while let Some(parts) = output.next_send() {
            let write: Vec<u8> = parts.iter().flat_map(|p| p.as_slice().to_vec()).collect();
            assert!(!write.is_empty() && write.len() <= SEND_MAX);
            // Every write is short by a third.
            let n = write.len() - write.len() / 3;
            wire.extend_from_slice(&write[..n]);
            output.on_sent(n);
        }
        assert!(output.is_empty());
        assert_eq!(wire, [b"head", &body[..]].concat());
    }
}
