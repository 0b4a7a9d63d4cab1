//! Writes what viewers play to files: one reader more of each window.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::base::limits::SEND_MAX;
use crate::peer::figures::Board;
use crate::ring::reader::Reader;

/// How often windows are looked at: much more often than they turn over.
const PERIOD: Duration = Duration::from_millis(50);

/// The thread that writes.
pub(super) struct Dump {
    stop: Sender<()>,
    thread: JoinHandle<Result<(), String>>,
}

/// One viewer's file.
struct Tape {
    file: File,
    reader: Reader,
    at: u64,
}

impl Dump {
    /// Begins to write: one viewer to `path`, several to `path.0`, `path.1`, …
    ///
    /// # Errors
    /// If there is no thread.
    pub(super) fn start(path: PathBuf, count: usize, board: Board) -> Result<Dump, String> {
        let (stop, stopped) = channel();
        let body = move || {
            write(&path, count, &board, &stopped)
                .map_err(|why| format!("--dump {}: {why}", path.display()))
        };
        let thread = thread::Builder::new().name("dump".to_owned()).spawn(body);
        thread.map(|thread| Dump { stop, thread }).map_err(|why| format!("no thread: {why}"))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// What went wrong, then or before.
    pub(super) fn finish(self) -> Result<(), String> {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|_| Err("--dump: it panicked".to_owned()))
    }
}

fn write(path: &Path, count: usize, board: &Board, stopped: &Receiver<()>) -> io::Result<()> {
    let mut tapes: Vec<Option<Tape>> = Vec::new();
    tapes.resize_with(count, || None);
    loop {
        let last = !matches!(stopped.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
        if last || tapes.iter().any(Option::is_none) {
            for (index, figures) in board.read().iter().enumerate().take(count) {
                if let (None, Some((window, at))) = (&tapes[index], &figures.window) {
                    let file = File::create(name(path, index, count))?;
                    let reader = Reader::new(Arc::clone(window));
                    tapes[index] = Some(Tape { file, reader, at: *at });
                }
            }
        }
        tapes.iter_mut().flatten().try_for_each(Tape::write)?;
        if last {
            return Ok(());
        }
    }
}

fn name(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    name.into()
}

impl Tape {
    /// Writes what was played since the last time.
    fn write(&mut self) -> io::Result<()> {
        loop {
            let read = self.reader.read(self.at, SEND_MAX);
            let parts = read.map_err(|_| io::Error::other("the window turned over too soon"))?;
            let [first, second] = &parts;
            let bytes = (first.len() + second.len()) as u64;
            if bytes == 0 {
                break;
            }
            self.file.write_all(first.as_slice())?;
            self.file.write_all(second.as_slice())?;
            self.at += bytes;
        }
        self.reader.release();
        Ok(())
    }
}
