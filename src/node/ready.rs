//! The ready file: tells whoever started the relay where it listens. Written whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use crate::base::ids::StreamName;
use crate::ingest::settings::Way;
use crate::node::Addresses;

#[derive(Serialize)]
struct Ready<'a> {
    pid: u32,
    http: String,
    control: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    swarm: Option<String>,
    io_driver: &'a str,
    shards: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ingest: Vec<BTreeMap<&'static str, String>>,
}

/// The configuration's word for a way in.
pub(super) fn word(way: &Way) -> &'static str {
    match way {
        Way::Udp { .. } => "udp",
        Way::Tcp { .. } => "tcp",
    }
}

/// Writes the ready file.
///
/// # Errors
/// If the file or its folder cannot be written.
pub(super) fn write(
    path: &Path,
    addresses: &Addresses,
    io_driver: &str,
    shards: usize,
) -> io::Result<()> {
    let ready = Ready {
        pid: std::process::id(),
        http: addresses.http.to_string(),
        control: addresses.control.to_string(),
        swarm: addresses.swarm.map(|address| address.to_string()),
        io_driver,
        shards,
        ingest: addresses.ingest.iter().map(|(stream, way)| ingest(stream, way)).collect(),
    };
    replace(path, &serde_json::to_vec(&ready)?, Access::Everybody)
}

fn ingest(stream: &StreamName, way: &Way) -> BTreeMap<&'static str, String> {
    [("stream", stream.to_string()), (word(way), way.address().to_string())].into()
}

/// Takes the ready file away: what it says is not true yet, or no longer.
pub(super) fn remove(path: Option<&Path>) {
    // Most often it is not there; one that cannot be removed cannot be written either, and
    // that is an error.
    let _ = path.map(fs::remove_file);
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Whom the process's umask lets.
    Everybody,
    /// The user of the process: there is a secret in it.
    Owner,
}

/// Puts `bytes` in the place of the file at `path`: a reader sees the old file or the new one,
/// also after a crash.
///
/// # Errors
/// If the file or its folder cannot be written.
pub(super) fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    // A crash may have left one behind, open to others.
    if access == Access::Owner {
        let _ = fs::remove_file(&temporary);
    }
    let mode = if access == Access::Owner { 0o600 } else { 0o666 };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
