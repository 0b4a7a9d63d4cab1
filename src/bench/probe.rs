//! Probes: viewers that read everything and look at the time markers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::base::limits::TS_PACKET;
use crate::bench::marker::{self, Marker};
use crate::bench::playout::PlayOut;
use crate::bench::{Outcome, machine, relay};

/// How long a read may wait before the probe looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The most bytes of a response head.
const HEAD_MAX: usize = 4096;

/// Bytes of one read.
const READ: usize = 64 * 1024;

/// Some probes, each on a thread of its own.
#[derive(Debug)]
pub struct Probes {
    threads: Vec<JoinHandle<Result<PlayOut, String>>>,
    window: Arc<Window>,
}

/// Markers count if they come between these times of [`marker::now`].
#[derive(Debug)]
pub(super) struct Window {
    from: AtomicU64,
    to: AtomicU64,
    /// Delays in microseconds that nobody has asked for yet, while somebody asks.
    recent: Mutex<Vec<u64>>,
}

/// The most delays that are kept until somebody asks: a minute of some probes.
const RECENT_MAX: usize = 1 << 16;

impl Window {
    pub(super) fn has(&self, now: u64) -> bool {
        self.from.load(Ordering::Relaxed) <= now && now < self.to.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, delay: u64) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() < RECENT_MAX {
            recent.push(delay);
        }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.to.load(Ordering::Relaxed)
    }
}

impl Probes {
    /// Starts `count` probes on `cores` that play `behind` live. What comes is not counted yet.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        count: usize,
        to: SocketAddr,
        behind: Duration,
        cores: &[usize],
    ) -> Outcome<Probes> {
        Probes::of(count, |_| {
            let cores = cores.to_vec();
            move |window: &Window| {
                machine::pin(&cores)?;
                watch(to, behind, window)
            }
        })
    }

    /// Starts `count` probes that do what `make` makes for each, until the window is over.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(super) fn of<W>(count: usize, mut make: impl FnMut(usize) -> W) -> Outcome<Probes>
    where
        W: FnOnce(&Window) -> Outcome<PlayOut> + Send + 'static,
    {
        let window = Arc::new(Window {
            from: u64::MAX.into(),
            to: u64::MAX.into(),
            recent: Mutex::default(),
        });
        let probe = |index| {
            let (window, watch) = (Arc::clone(&window), make(index));
            thread::Builder::new().name(format!("probe-{index}")).spawn(move || {
                // Where it is not allowed, the probe waits its turn behind the load.
                let _ = rustix::process::setpriority_process(None, -10);
                watch(&window).map_err(|why| why.to_string())
            })
        };
        let threads = (0..count).map(probe).collect::<Result<_, _>>()?;
        Ok(Probes { threads, window })
    }

    /// From now on markers count.
    pub fn begin(&self) {
        self.window.from.store(marker::now(), Ordering::Relaxed);
    }

    /// Delays in microseconds of the markers that came since the last call, in any order.
    #[must_use]
    pub fn recent(&self) -> Vec<u64> {
        std::mem::take(&mut self.window.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the probes: what they have seen since [`Probes::begin`], together.
    ///
    /// # Errors
    /// If one was refused, or lost its connection.
    pub fn end(mut self, behind: Duration) -> Outcome<PlayOut> {
        self.window.to.store(marker::now(), Ordering::Relaxed);
        let mut sum = PlayOut::new(behind)?;
        for probe in self.threads.drain(..) {
            sum.add(&probe.join().map_err(|_| "a probe has panicked")??)?;
        }
        Ok(sum)
    }
}

impl Drop for Probes {
    /// Threads that were not joined end within [`LOOK`].
    fn drop(&mut self) {
        self.window.to.store(0, Ordering::Relaxed);
    }
}

fn watch(to: SocketAddr, behind: Duration, window: &Window) -> Outcome<PlayOut> {
    let mut play = PlayOut::new(behind)?;
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LOOK))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: {to}\r\n\r\n", relay::path())?;
    let (mut buffer, mut cutter) = (vec![0; READ], Cutter::default());
    while !window.is_over(marker::now()) {
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Err("the relay closed a probe".into()),
            Ok(n) => n,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        let now = marker::now();
        cutter.handle(&buffer[..n], |packet| {
            if let Some(marker) = Marker::read(packet).filter(|_| window.has(now)) {
                play.handle(now, marker);
                window.tell(now.saturating_sub(marker.sent) / 1000);
            }
        })?;
    }
    Ok(play)
}

/// Cuts a response into its head and packets. The body begins with a packet.
#[derive(Debug, Default)]
struct Cutter {
    body: bool,
    /// The head so far; then the beginning of a packet.
    kept: Vec<u8>,
}

impl Cutter {
    fn handle(&mut self, mut bytes: &[u8], mut tell: impl FnMut(&[u8])) -> Outcome<()> {
        if !self.body {
            self.kept.extend_from_slice(bytes);
            let end = self.kept.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else {
                let long = self.kept.len() > HEAD_MAX;
                return if long { Err("an endless response head".into()) } else { Ok(()) };
            };
            if !self.kept.starts_with(b"HTTP/1.1 200") {
                return Err("the relay refused a probe".into());
            }
            self.body = true;
            let rest = self.kept.split_off(end + 4);
            self.kept.clear();
            return self.handle(&rest, tell);
        }
        if !self.kept.is_empty() {
            let missing = (TS_PACKET - self.kept.len()).min(bytes.len());
            let (first, rest) = bytes.split_at(missing);
            self.kept.extend_from_slice(first);
            bytes = rest;
            if self.kept.len() < TS_PACKET {
                return Ok(());
            }
            tell(&self.kept);
            self.kept.clear();
        }
        let (packets, rest) = bytes.as_chunks::<TS_PACKET>();
        packets.iter().for_each(|packet| tell(packet));
        self.kept.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n".to_vec();
        let markers: Vec<_> = (0..20).map(|number| Marker { number, sent: number * 3 }).collect();
        markers.iter().for_each(|marker| bytes.extend_from_slice(&marker.packet()));
        for step in [1, 3, 187, 188, 189, 500, bytes.len()] {
            let (mut cutter, mut found) = (Cutter::default(), Vec::new());
            for piece in bytes.chunks(step) {
                cutter.handle(piece, |packet| found.extend(Marker::read(packet))).unwrap();
            }
            assert_eq!(found, markers, "in steps of {step}");
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut cutter = Cutter::default();
        assert!(cutter.handle(b"HTTP/1.1 503 No\r\n", |_| ()).is_ok());
        assert!(cutter.handle(b"\r\n", |_| ()).is_err());
        assert!(Cutter::default().handle(&[b'x'; HEAD_MAX + 1], |_| ()).is_err());
    }
}
