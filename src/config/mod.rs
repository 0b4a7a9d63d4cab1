//! The configuration: what was typed becomes what the process runs on, or an error with a place.
//!
//! Four sources in rising order of strength: the defaults in [`table`], the file, the
//! environment (`HEADWATER_SECTION_KEY`), the flags. [`sources`] lays them over each other as
//! `raw::Raw`; `resolve` checks the result and makes a [`Config`] of it; [`mod@print`] writes it
//! back as a commented file. Nothing below this module sees a file or a variable: lower modules
//! define their own `settings` and get them filled in.
#![forbid(unsafe_code)]

pub mod error;
mod ingest;
mod parse;
pub mod print;
mod raw;
mod resolve;
pub mod resolved;
pub mod sources;
mod swarm;
pub mod table;

pub use error::Error;
pub use resolved::Config;

use std::ffi::OsString;
use std::path::Path;

use sources::{Layers, Override};

/// A checked configuration together with where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The values as they were typed, and where.
    pub layers: Layers,
}

/// Reads and checks the configuration from all four sources. Blocks on reading `file`.
///
/// `environment` is every variable of the process: those of other programs are ignored.
///
/// # Errors
/// [`Error::Unreadable`] if the file cannot be read, [`Error::Invalid`] with every problem found
/// if what was read makes no configuration.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[Override],
) -> Result<Loaded, Error> {
    let layers = Layers::read(file, environment, flags)?;
    let config = resolve::resolve(&layers).map_err(Error::Invalid)?;
    Ok(Loaded { config, layers })
}

#[cfg(test)]
mod tests;
