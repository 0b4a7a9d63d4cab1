//! Questions and answers between a load process and its conductor: an empty line on standard
//! input asks, a line of JSON on standard output answers.

use std::io::{self, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use crate::bench::Outcome;

/// How many answers are wanted, from what is there to read; `None` at the end of the input,
/// which is the end of the process.
///
/// # Errors
/// Of read(2).
pub fn questions() -> Outcome<Option<usize>> {
    let mut asked = [0; 64];
    let n = rustix::io::read(io::stdin().as_fd(), &mut asked)?;
    let lines = asked[..n].iter().filter(|byte| **byte == b'\n').count();
    Ok((n > 0).then_some(lines))
}

/// Answers once.
///
/// # Errors
/// If the conductor is gone.
pub fn answer(mark: &impl Serialize) -> Outcome<()> {
    let mut line = serde_json::to_vec(mark)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    Ok(output.flush()?)
}
