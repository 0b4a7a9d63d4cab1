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
use crate::node::ready::replace;
use crate::registry::streams::Registry;

/// How far ahead of a live stream its entry lies: a minute at 140 Mbit/s.
const AHEAD: u64 = 1 << 30;

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
}

/// The file, or nothing if no state is kept.
#[derive(Debug)]
pub(super) struct Ledger {
    path: Option<PathBuf>,
    names: Vec<StreamName>,
    written: Instant,
}

impl Ledger {
    /// Reads the file into the registry.
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
        let mut ledger = Ledger { path, names: Vec::new(), written };
        let numbers = registry.numbers();
        if !numbers.is_empty() {
            // Whatever goes live before the first tick: a crash then must not bring back the
            // exact ends that the last clean stop wrote.
            ledger.write(numbers, AHEAD);
        }
        Ok(ledger)
    }

    /// Called about once a second: writes when a name is new, and every ten seconds.
    pub(super) fn tick(&mut self, registry: &Registry) {
        if self.path.is_none() {
            return;
        }
        let numbers = registry.numbers();
        let same = numbers.iter().map(|(name, _)| name).eq(self.names.iter());
        let live = registry.directory().iter().next().is_some();
        if !same || (live && self.written.elapsed() >= PERIOD) {
            self.write(numbers, AHEAD);
        }
    }

    /// Writes the exact end of every stream.
    pub(super) fn close(&mut self, registry: &Registry) {
        self.write(registry.numbers(), 0);
    }

    fn write(&mut self, numbers: Vec<(StreamName, u64)>, ahead: u64) {
        let Some(path) = &self.path else { return };
        let next =
            numbers.iter().map(|(name, next)| (name.to_string(), next.saturating_add(ahead)));
        let page = Page { version: 1, next: next.collect() };
        let written = serde_json::to_vec(&page).map_err(std::io::Error::other);
        if let Err(why) = written.and_then(|bytes| replace(path, &bytes)) {
            error!(path = %path.display(), %why, "cannot keep the streams' numbers");
        }
        self.names = numbers.into_iter().map(|(name, _)| name).collect();
        self.written = Instant::now();
    }
}

fn read(path: &Path) -> Result<Vec<(StreamName, u64)>, String> {
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
    if page.version != 1 {
        return Err(refuse(&format!("version {} is not known", page.version)));
    }
    let parse = |(name, next): (String, u64)| match name.parse() {
        Ok(name) => Ok((name, next)),
        Err(why) => Err(refuse(&format!("{name:?}: {why}"))),
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
        let limits = Limits { viewers: 1, connections: 1, per_address: 1, exempt: Vec::new() };
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
        assert_eq!(read(&path), Ok(vec![(cam(), 21_056 + AHEAD)]));
        ledger.close(&registry);
        assert_eq!(read(&path), Ok(vec![(cam(), 21_056)]), "a clean stop loses no numbers");
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(&path), Ok(vec![]));
        for bad in ["", "{", r#"{"version":2,"next":{}}"#, r#"{"version":1,"next":{"a/b":1}}"#] {
            fs::write(&path, bad).unwrap();
            let why = read(&path).unwrap_err();
            assert!(why.contains(FILE) && why.contains("mend"), "{why}");
        }
        fs::write(&path, r#"{"version":1,"next":{"cam":7}}"#).unwrap();
        assert_eq!(read(&path), Ok(vec![("cam".parse().unwrap(), 7)]));
    }
}
