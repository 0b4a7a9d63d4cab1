//! What the relay offered over HLS, as it went: recorded in one half of a pair, and laid out in a
//! folder at the same pace in the other, so that another server offers the very same.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::hls::list::List;
use crate::bench::{Outcome, machine, relay};

/// How often the recorder looks for a new playlist.
const LOOK: Duration = Duration::from_millis(50);

/// What was new at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// When, after the beginning of the tape.
    pub at: Duration,
    /// The playlist from then on.
    pub playlist: Vec<u8>,
    /// Segments that it is the first to list: their addresses and bytes.
    pub segments: Vec<(String, Vec<u8>)>,
}

/// Records on a thread of its own. Dropping it ends that.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    scenes: Mutex<Vec<Scene>>,
}

impl Shared {
    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    fn scenes(&self) -> std::sync::MutexGuard<'_, Vec<Scene>> {
        self.scenes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Begins to record what is in `folder` (with a slash at its end) at `from`, on `cores`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(from: SocketAddr, folder: &str, cores: &[usize]) -> Outcome<Recorder> {
        let (start, shared) = (Instant::now(), Arc::new(Shared::default()));
        let (ours, folder, cores) = (Arc::clone(&shared), folder.to_owned(), cores.to_vec());
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            // Refused: then it runs wherever it may.
            let _ = machine::pin(&cores);
            let mut seen = Vec::new();
            while !ours.ends() {
                // What fails now (not live yet, gone meanwhile) is tried again.
                if let Ok(scene) = look(from, &folder, &ours, &mut seen) {
                    ours.scenes().push(Scene { at: start.elapsed(), ..scene });
                }
                thread::sleep(LOOK);
            }
        })?;
        Ok(Recorder { start, shared, thread: Some(thread) })
    }

    /// Waits until `count` segments were recorded; the time on the tape then.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_for(&self, count: usize, limit: Duration) -> Outcome<Duration> {
        loop {
            let seen: usize = self.shared.scenes().iter().map(|scene| scene.segments.len()).sum();
            let passed = self.start.elapsed();
            if seen >= count {
                return Ok(passed);
            }
            if passed > limit {
                let time = limit.as_secs();
                return Err(format!("only {seen} HLS segments after {time} s").into());
            }
            thread::sleep(LOOK);
        }
    }

    /// Ends, and gives the tape.
    ///
    /// # Errors
    /// If the thread has panicked.
    pub fn end(mut self) -> Outcome<Vec<Scene>> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("the recorder has ended")?;
        thread.join().map_err(|_| "the recorder has panicked")?;
        Ok(std::mem::take(&mut self.shared.scenes()))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

/// A new playlist with its new segments; an error if there is none.
fn look(from: SocketAddr, folder: &str, shared: &Shared, seen: &mut Vec<String>) -> Outcome<Scene> {
    let playlist = relay::fetch(from, &format!("{folder}index.m3u8"))?;
    if shared.scenes().last().is_some_and(|last| last.playlist == playlist) {
        return Err("nothing new".into());
    }
    let list = List::parse(std::str::from_utf8(&playlist)?).ok_or("no playlist")?;
    let mut segments = Vec::new();
    for uri in list.entries.into_iter().map(|entry| entry.uri) {
        if !seen.contains(&uri) {
            segments.push((uri.clone(), relay::fetch(from, &format!("{folder}{uri}"))?));
        }
    }
    seen.extend(segments.iter().map(|(uri, _)| uri.clone()));
    Ok(Scene { at: Duration::ZERO, playlist, segments })
}

/// Lays a tape out in a folder, at its pace. Dropping it ends that.
#[derive(Debug)]
pub struct Player {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Player {
    /// Lays out what is on the tape up to the time `from`, then goes on from there on a thread.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn start(
        tape: &[Scene],
        from: Duration,
        folder: &Path,
        cores: &[usize],
    ) -> Outcome<Player> {
        let start = Instant::now();
        let folder = Folder(folder.to_owned());
        let (before, after) = tape.split_at(tape.partition_point(|scene| scene.at <= from));
        before.iter().try_for_each(|scene| folder.lay_out(scene))?;
        let (after, cores) = (after.to_vec(), cores.to_vec());
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::Builder::new().name("player".to_owned()).spawn(move || {
            // Refused: then it runs wherever it may.
            let _ = machine::pin(&cores);
            for scene in &after {
                let due = scene.at.saturating_sub(from);
                while start.elapsed() < due && !ended.load(Ordering::Relaxed) {
                    thread::sleep(LOOK.min(due.saturating_sub(start.elapsed())));
                }
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                folder.lay_out(scene).map_err(|why| why.to_string())?;
            }
            Ok(())
        })?;
        Ok(Player { ends, thread: Some(thread) })
    }

    /// Ends.
    ///
    /// # Errors
    /// If a file could not be written.
    pub fn end(mut self) -> Outcome<()> {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("the player has ended")?;
        Ok(thread.join().map_err(|_| "the player has panicked")??)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

struct Folder(PathBuf);

impl Folder {
    /// Each file appears as a whole, and the playlist after what it lists.
    fn lay_out(&self, scene: &Scene) -> Outcome<()> {
        let files = scene.segments.iter().map(|(uri, bytes)| (uri.as_str(), bytes));
        for (name, bytes) in files.chain([("index.m3u8", &scene.playlist)]) {
            let (path, part) = (self.0.join(name), self.0.join("part"));
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            fs::write(&part, bytes)?;
            fs::rename(&part, path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(ms: u64, name: &str) -> Scene {
        let segments = vec![(format!("seg/{name}.ts"), name.as_bytes().to_vec())];
        let at = Duration::from_millis(ms);
        Scene { at, playlist: format!("list {name}").into_bytes(), segments }
    }

    #[test]
    fn a_tape_is_laid_out_at_its_pace() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let tape = [scene(0, "a"), scene(100, "b"), scene(200, "c"), scene(9_000, "d")];
        let player = Player::start(&tape, Duration::from_millis(150), folder.path(), &[]).unwrap();
        assert_eq!((read("index.m3u8"), read("seg/a.ts")), ("list b".into(), "a".into()));
        let start = Instant::now();
        while read("index.m3u8") != "list c" {
            assert!(start.elapsed() < Duration::from_secs(5));
            thread::yield_now();
        }
        assert_eq!(read("seg/c.ts"), "c");
        player.end().unwrap();
        assert!(read("seg/d.ts").is_empty() && start.elapsed() < Duration::from_secs(5));
    }
}
