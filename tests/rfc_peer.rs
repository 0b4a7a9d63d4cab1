//! A second implementation of the swarm, in Python, against ours: `tests/rfc_peer.py`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use common::skipped;

/// A Python that has what `rfc_peer.py` needs. There may be several, and not all have it.
fn python() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&str>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        ["python3", "/usr/bin/python3"].into_iter().find(|program| {
            let mut probe = Command::new(program);
            probe.args(["-c", "import cryptography.hazmat.primitives.asymmetric.ec"]);
            probe.stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        })
    });
    if found.is_none() {
        skipped("rfc_peer.py", "no python3 with the package cryptography");
    }
    *found
}

/// `rfc_peer.py` with arguments still to come.
fn rfc_peer(python: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rfc_peer.py"));
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn succeeded(output: &Output) {
    let (out, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{errors}", output.status);
}

#[test]
fn agrees_with_the_vectors_and_with_itself() {
    let Some(python) = python() else { return };
    succeeded(&rfc_peer(python).arg("selftest").output().unwrap());
}
