//! What outlives the process: where each stream's numbers go on.
//!
//! Players and peers know a place in a stream by its number, so a number is never used twice.
//! While a stream is live its entry lies ahead of what was used; a crash loses some numbers and
//! reuses none. A clean stop writes the exact end.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::base::ids::StreamName;
use crate::media::segmenter::Counts;
use crate::node::ready::replace;
use crate::registry::streams::{Registry, Resume};

/// How far ahead of a live stream its entry lies: a minute at 140 Mbit/s.
const AHEAD: u64 = 1 << 30;

/// How many segments ahead: half an hour of the shortest.
const SEGMENTS_AHEAD: u64 = 4096;

/// How many breaks ahead.
const BREAKS_AHEAD: u64 = 64;

/// The form of the file that is written. The first one knew no segments.
const VERSION: u32 = 2;

/// How often the entries are moved ahead.
const PERIOD: Duration = Duration::from_secs(10);

/// The file in the state directory.
const FILE: &str = "streams.json";

/// The form of the file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    /// Stream offset at which each name goes on.
    next: BTreeMap<String, u64>,
    /// The same of its segments.
    #[serde(default)]
    segments: BTreeMap<String, Segments>,
}

/// Where the segments of a name go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Segments {
    /// The next media sequence number.
    next: u64,
    /// The discontinuity sequence number of the last segment.
    breaks: u64,
    /// The longest segment that players were promised, in seconds.
    target: u32,
}

/// The file, or nothing if no state is kept.
#[derive(Debug)]
pub(super) struct Ledger {
    path: Option<PathBuf>,
    /// What was so when the file was written.
    numbers: Vec<(StreamName, Resume)>,
    written: Instant,
}

impl Ledger {
    /// Reads the file into the registry, and moves it ahead of what will be used.
    ///
    /// # Errors
    /// If the directory cannot be used, or the file is there and cannot be understood: going on
    /// would use numbers twice.
    pub(super) fn open(dir: Option<&Path>, registry: &Registry) -> Result<Ledger, String> {
        let path = dir.map(|dir| dir.join(FILE));
        let written = Instant::now();
        if let Some(path) = &path {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder)
                .map_err(|why| format!("state.dir {}: {why}", folder.display()))?;
            registry.restore(read(path)?);
        }
        let mut ledger = Ledger { path, numbers: Vec::new(), written };
        let numbers = registry.numbers();
        if !numbers.is_empty() {
            // Whatever goes live before the first tick: a crash then must not bring back the
            // exact ends that the last clean stop wrote.
            ledger.write(numbers, true);
        }
        Ok(ledger)
    }

    /// Called about once a second: writes when a name is new, when half of what lies ahead is
    /// used, and every ten seconds.
    pub(super) fn tick(&mut self, registry: &Registry) {
        if self.path.is_none() {
            return;
        }
        let numbers = registry.numbers();
        let names = |of: &[(StreamName, Resume)]| -> Vec<StreamName> {
            of.iter().map(|(name, _)| name.clone()).collect()
        };
        let same = names(&numbers) == names(&self.numbers);
        let short = self.numbers.iter().zip(&numbers).any(|((_, old), (_, new))| {
            new.segments.next > old.segments.next.saturating_add(SEGMENTS_AHEAD / 2)
                || new.segments.breaks > old.segments.breaks.saturating_add(BREAKS_AHEAD / 2)
                || new.next > old.next.saturating_add(AHEAD / 2)
        });
        let live = registry.directory().iter().next().is_some();
        if !same || short || (live && self.written.elapsed() >= PERIOD) {
            self.write(numbers, true);
        }
    }

    /// Writes the exact end of every stream.
    pub(super) fn close(&mut self, registry: &Registry) {
        self.write(registry.numbers(), false);
    }

    fn write(&mut self, numbers: Vec<(StreamName, Resume)>, ahead: bool) {
        let Some(path) = &self.path else { return };
        let page = page(&numbers, ahead);
        let written = serde_json::to_vec(&page).map_err(std::io::Error::other);
        if let Err(why) = written.and_then(|bytes| replace(path, &bytes)) {
            error!(path = %path.display(), %why, "cannot keep the streams' numbers");
        }
        self.numbers = numbers;
        self.written = Instant::now();
    }
}

/// The file's contents: the numbers as they are, or as they may become until it is written again.
fn page(numbers: &[(StreamName, Resume)], ahead: bool) -> Page {
    let plus = |number: u64, more: u64| number.saturating_add(if ahead { more } else { 0 });
    let next = numbers.iter().map(|(name, resume)| (name.to_string(), plus(resume.next, AHEAD)));
    let segments = numbers.iter().map(|(name, Resume { segments, .. })| {
        let Counts { next, breaks, target } = *segments;
        let (next, breaks) = (plus(next, SEGMENTS_AHEAD), plus(breaks, BREAKS_AHEAD));
        (name.to_string(), Segments { next, breaks, target })
    });
    Page { version: VERSION, next: next.collect(), segments: segments.collect() }
}

fn read(path: &Path) -> Result<Vec<(StreamName, Resume)>, String> {
    let refuse = |why: &dyn std::fmt::Display| {
        format!(
            "{}: {why}; mend the file, or move it away to let numbers begin anew",
            path.display()
        )
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(refuse(&why)),
    };
    let page: Page = serde_json::from_slice(&text).map_err(|why| refuse(&why))?;
    if !(1..=VERSION).contains(&page.version) {
        return Err(refuse(&format!("version {} is not known", page.version)));
    }
    let parse = |(name, next): (String, u64)| {
        let Segments { next: sequence, breaks, target } =
            page.segments.get(&name).copied().unwrap_or_default();
        let segments = Counts { next: sequence, breaks, target };
        match name.parse() {
            Ok(name) => Ok((name, Resume { next, segments })),
            Err(why) => Err(refuse(&format!("{name:?}: {why}"))),
        }
    };
    page.next.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crash before the first tick must not bring back ends that were exact at the last stop.
    #[test]
    fn what_is_read_at_the_start_is_moved_ahead_at_once() {
        use crate::registry::settings::{Limits, Settings};
        let limits = Limits {
            viewers: 1,
            connections: 1,
            per_address: 1,
            exempt: Vec::new(),
            peers: 1,
            egress: None,
        };
        let settings = Settings {
            max_streams: 1,
            window: Duration::from_secs(1),
            window_bytes: 0,
            linger: Duration::ZERO,
            keys: Vec::new(),
            limits,
        };
        let registry = Registry::new(settings, crate::ring::arena::Arena::create(0).unwrap(), 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, r#"{"version":1,"next":{"cam":21056}}"#).unwrap();
        let mut ledger = Ledger::open(Some(dir.path()), &registry).unwrap();
        let cam = || "cam".parse().unwrap();
        let segments = |next, breaks| Counts { next, breaks, target: 0 };
        let ahead = segments(SEGMENTS_AHEAD, BREAKS_AHEAD);
        let ahead = Resume { next: 21_056 + AHEAD, segments: ahead };
        assert_eq!(read(&path), Ok(vec![(cam(), ahead)]));
        ledger.close(&registry);
        let exact = Resume { next: 21_056, segments: segments(0, 0) };
        assert_eq!(read(&path), Ok(vec![(cam(), exact)]), "a clean stop loses no numbers");
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(&path), Ok(vec![]));
        for bad in ["", "{", r#"{"version":3,"next":{}}"#, r#"{"version":1,"next":{"a/b":1}}"#] {
            fs::write(&path, bad).unwrap();
            let why = read(&path).unwrap_err();
            assert!(why.contains(FILE) && why.contains("mend"), "{why}");
        }
        fs::write(&path, r#"{"version":1,"next":{"cam":7}}"#).unwrap();
        let resume = Resume { next: 7, ..Resume::default() };
        assert_eq!(read(&path), Ok(vec![("cam".parse().unwrap(), resume)]), "the first form");
    }

    #[test]
    fn what_is_written_is_read_and_lies_ahead_unless_it_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let segments = Counts { next: 12, breaks: 3, target: 2 };
        let numbers = vec![("cam".parse().unwrap(), Resume { next: 21_056, segments })];
        for ahead in [false, true] {
            fs::write(&path, serde_json::to_vec(&page(&numbers, ahead)).unwrap()).unwrap();
            let read = read(&path).unwrap();
            if ahead {
                let ahead = read[0].1.segments;
                assert_eq!((ahead.next, ahead.breaks, ahead.target), (4108, 67, 2));
                assert_eq!(read[0].1.next, 21_056 + AHEAD);
            } else {
                assert_eq!(read, numbers);
            }
        }
    }
}
