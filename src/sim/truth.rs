//! What was really published: the relay's window, kept for longer than the relay keeps it, and
//! what viewers show held against it, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::peer::figures::{Figures, Run};
use crate::registry::stream::Stream;
use crate::ring::reader::Reader;
use crate::ring::window::Window;

/// Figures are at most this old: what was shown earlier is described by them.
const FIGURES: Duration = Duration::from_millis(600);

/// Bytes read at a time.
const AT_ONCE: usize = 1 << 20;

/// The stream as the relay numbered it.
#[derive(Default)]
pub struct Truth {
    /// Runs of bytes by their first stream offset: one for each life of the relay.
    runs: BTreeMap<u64, Vec<u8>>,
    followed: Option<(Arc<Window>, Reader, u64)>,
}

impl Truth {
    /// Takes what is new in the relay's window.
    pub fn follow(&mut self, stream: &Stream) {
        let new =
            self.followed.as_ref().is_none_or(|(window, ..)| !Arc::ptr_eq(window, &stream.window));
        if new {
            let (window, first) = (Arc::clone(&stream.window), stream.window.tail());
            self.followed = Some((Arc::clone(&window), Reader::new(window), first));
            self.runs.insert(first, Vec::new());
        }
        let Some((_, reader, first)) = &mut self.followed else { return };
        let Some(run) = self.runs.get_mut(first) else { return };
        while let Ok(parts) = reader.read(*first + run.len() as u64, AT_ONCE) {
            if parts[0].is_empty() {
                break;
            }
            parts.iter().for_each(|part| run.extend_from_slice(part.as_slice()));
        }
        reader.release();
    }

    /// The published bytes from stream offset `at` on, as far as they lie in one run.
    #[must_use]
    pub fn from(&self, at: u64) -> &[u8] {
        let run = self.runs.range(..=at).next_back();
        run.and_then(|(first, run)| run.get(usize::try_from(at - first).ok()?..)).unwrap_or(&[])
    }

    /// The sum of a chunk's bytes, once it was published.
    #[must_use]
    pub fn sum(&self, chunk: u64) -> Option<u64> {
        let bytes = self.from(chunk.checked_mul(CHUNK as u64)?).get(..CHUNK)?;
        Some(sum(bytes))
    }

    /// All runs, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.values().map(Vec::as_slice)
    }
}

/// A sum of bytes in which each counts. Four words at a time, which do not wait for each other:
/// every chunk that is passed on is summed.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let add = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut sums = [bytes.len() as u64, 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = add(*sum, u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().fold(0, |sum, byte| add(sum, u64::from(*byte)));
    sums.into_iter().fold(rest, add)
}

/// What one viewer has shown, as far as it was looked at.
#[derive(Default)]
pub struct Shown {
    open: Option<(Arc<Window>, Reader)>,
    /// The next offset in the window that is looked at.
    at: u64,
    /// The window's head at the last look: what lies before it is described by newer figures.
    head: u64,
    /// When that was.
    looked: Mono,
    /// Bytes that were compared.
    pub bytes: u64,
}

impl Shown {
    /// Gives the window back: its viewer is gone.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Looks at what was shown until the look before this one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn look(&mut self, now: Mono, figures: &Figures, truth: &Truth) -> Result<(), String> {
        if now.since(self.looked) < FIGURES {
            return Ok(());
        }
        self.looked = now;
        let Some((window, start)) = &figures.window else { return Ok(()) };
        if self.open.as_ref().is_none_or(|(known, _)| !Arc::ptr_eq(known, window)) {
            self.open = Some((Arc::clone(window), Reader::new(Arc::clone(window))));
            (self.at, self.head) = (*start, *start);
        }
        let Some((window, reader)) = &mut self.open else { return Ok(()) };
        let end = std::mem::replace(&mut self.head, window.head());
        while self.at < end {
            let Some(run) = run_of(figures, self.at) else { return Err("no run".to_owned()) };
            let lost = figures
                .losses
                .iter()
                .find(|loss| (loss.local..loss.local + loss.bytes).contains(&self.at));
            if let Some(loss) = lost {
                self.at = loss.local + loss.bytes;
                continue;
            }
            let next_loss = figures.losses.iter().map(|loss| loss.local).filter(|l| *l > self.at);
            let next_run = figures.runs.iter().map(|run| run.local).filter(|l| *l > self.at);
            let until = next_loss.chain(next_run).min().unwrap_or(end).min(end);
            let want = usize::try_from(until - self.at).unwrap_or(AT_ONCE).min(AT_ONCE);
            let parts = reader.read(self.at, want).map_err(|_| "it left the window".to_owned())?;
            for part in parts {
                let (shown, wire) = (part.as_slice(), self.at - run.local + run.wire);
                let real = truth.from(wire);
                if !real.starts_with(shown) {
                    let wrong = shown.iter().zip(real).take_while(|(a, b)| a == b).count();
                    let at = wire + wrong as u64;
                    let (losses, local) = (&figures.losses, self.at + wrong as u64);
                    let near = losses.iter().find(|loss| loss.local + loss.bytes >= local);
                    let is = &shown[wrong..(wrong + 16).min(shown.len())];
                    return Err(format!(
                        "wrong byte at stream offset {at}, {local} in the window: {is:02x?}; \
                         next {near:?}"
                    ));
                }
                self.at += shown.len() as u64;
                self.bytes += shown.len() as u64;
            }
        }
        reader.release();
        Ok(())
    }
}

/// The run in which an offset of the window lies.
fn run_of(figures: &Figures, at: u64) -> Option<Run> {
    figures.runs.iter().rev().find(|run| run.local <= at).copied()
}
