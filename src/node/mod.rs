//! The only assembler: builds everything from a configuration and drives it.
#![forbid(unsafe_code)]

/// Runs the relay until it is told to stop.
///
/// # Errors
/// Why it could not start or go on, in one line.
pub fn run(_config: crate::config::Config) -> Result<(), String> {
    Err("this build has no relay".to_owned())
}
