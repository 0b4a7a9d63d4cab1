//! Writing to the two standard streams, where the reader may be gone at any time.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Writes `text` to stdout. A reader that went away (`| head`) is a normal end.
pub fn say(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) if why.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(why) => {
            complain(&format!("error: cannot write to stdout: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes `text` to stderr, if anybody still reads it; the exit code says the rest.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
