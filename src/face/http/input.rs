//! Bytes received and not understood yet: bounded, and no memory while there are none.

use crate::wire::http::head::{HeadError, HeadLimits, HeadScanner};

/// The most body bytes that are held while it is decided whether a publisher may come in.
pub const PENDING_BODY: usize = 256 * 1024;

/// The smallest buffer: what one request of a player or browser usually needs.
const FIRST_BUFFER: usize = 1024;

/// The input buffer of a connection.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    scanner: HeadScanner,
    /// What the scanner found, until the head is consumed.
    found: Option<Result<usize, HeadError>>,
    /// Bytes were thrown away: the connection cannot go on after what is in the buffer.
    overflow: bool,
}

impl Input {
    /// Adds bytes up to `limit` in all; beyond it they are thrown away.
    pub fn push(&mut self, data: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        let kept = data.len().min(room);
        self.overflow |= kept < data.len();
        if kept == 0 {
            return;
        }
        let needed = self.bytes.len() + kept;
        if needed > self.bytes.capacity() {
            // Doubling keeps a dribbling client cheap; the limit bounds it all the same.
            let target = needed.max(FIRST_BUFFER).max(2 * self.bytes.capacity());
            let target = target.min(limit.max(needed));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend_from_slice(&data[..kept]);
    }

    /// Adds bytes while a request head is awaited. What follows a head in the same segment is
    /// the beginning of a publisher's stream, if it is anything that large.
    pub fn push_head(&mut self, data: &[u8], limits: &HeadLimits) {
        let room = limits.bytes.saturating_sub(self.bytes.len());
        let (first, rest) = data.split_at(room.min(data.len()));
        self.push(first, limits.bytes);
        if rest.is_empty() {
            return;
        }
        // Without a head's end the buffer is as full as it may get: the verdict is an error.
        if let Ok(Some(end)) = self.scan(limits) {
            let limit = if self.publishes() { end + PENDING_BODY } else { limits.bytes };
            self.push(rest, limit);
        }
    }

    /// The length of the head in front, once it is complete.
    pub fn scan(&mut self, limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        if let Some(found) = self.found {
            return found.map(Some);
        }
        let verdict = self.scanner.scan(&self.bytes, limits);
        self.found = verdict.transpose();
        verdict
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether bytes were thrown away.
    pub fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Removes `n` bytes; the next byte begins a head.
    pub fn consume(&mut self, n: usize) {
        self.bytes.drain(..n);
        self.scanner = HeadScanner::default();
        self.found = None;
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Takes everything out; [`Input::put_back`] returns what was not used.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Puts back what [`Input::take`] took, without its first `used` bytes.
    pub fn put_back(&mut self, bytes: Vec<u8>, used: usize) {
        self.bytes = bytes;
        self.consume(used);
    }

    /// Forgets everything; the connection reads no further request.
    pub fn clear(&mut self) {
        *self = Input::default();
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    fn publishes(&self) -> bool {
        let request = self.bytes.trim_ascii_start();
        request.starts_with(b"PUT ") || request.starts_with(b"POST ")
    }
}
