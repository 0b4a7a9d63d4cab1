//! A folder in memory that is gone when the bench is, however that ends.
//!
//! A process that is killed cannot clean up, so a small one beside it does: the sweeper waits
//! for the end of its input, which the kernel closes with the bench, and removes the folder.

use std::fs::{self, DirBuilder};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bench::Outcome;

/// A file system in memory, where there is one.
const MEMORY: &str = "/dev/shm";

/// What the names of our folders begin with: nothing else is ever removed.
const PREFIX: &str = "headwater-bench-";

/// A folder of our own. Dropping it removes it with everything in it.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
    sweeper: Child,
}

impl Shelf {
    /// Makes a folder, in memory where that is possible.
    ///
    /// # Errors
    /// If it cannot be made, or its sweeper cannot be started.
    pub fn new() -> Outcome<Shelf> {
        Shelf::swept_by(&std::env::current_exe()?)
    }

    fn swept_by(program: &Path) -> Outcome<Shelf> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new(MEMORY);
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = above.join(format!("{PREFIX}{}-shelf-{count}", std::process::id()));
        let mut command = Command::new(program);
        command.args(["bench", "sweep"]).arg(&path);
        // In a group of its own: a Ctrl-C in the terminal is for the others.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let sweeper = command.spawn()?;
        // From here on the folder goes, also if making it fails.
        let shelf = Shelf { path, sweeper };
        DirBuilder::new().mode(0o700).create(&shelf.path)?;
        Ok(shelf)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        // Fails only if somebody else has waited for it.
        let _ = self.sweeper.wait();
    }
}

/// Is a sweeper: waits for the end of its input and removes `path`. Blocks.
///
/// # Errors
/// If the folder is not one of ours, or cannot be removed.
pub fn sweep(path: &Path) -> Outcome<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with(PREFIX) {
        return Err(format!("{} is no folder of a bench", path.display()).into());
    }
    // A broken input is an end as well.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(fs::remove_dir_all(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_others_are_not_swept() {
        let folder = tempfile::tempdir().unwrap();
        let why = sweep(folder.path()).unwrap_err().to_string();
        assert!(why.contains("no folder of a bench") && folder.path().exists(), "{why}");
    }

    #[test]
    fn a_shelf_is_a_private_folder_in_memory() {
        // `true` sweeps nothing: the folder is removed here.
        let shelf = Shelf::swept_by(Path::new("true")).unwrap();
        let path = shelf.path().to_owned();
        assert!(path.is_dir());
        drop(shelf);
        fs::remove_dir_all(&path).unwrap();
    }
}
