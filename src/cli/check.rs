//! `headwater check FILE`: is the file good?

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{output, relay};
use crate::config;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file.
    file: PathBuf,
}

/// Checks the file alone, without environment and flags: the answer is about the file.
pub fn check(args: &Args) -> ExitCode {
    match config::load(Some(&args.file), [], &[]) {
        Ok(_) => output::say(&format!("{}: ok\n", args.file.display())),
        Err(error) => relay::complain(&error),
    }
}
