//! README's commands are run, so that they stay true.
//!
//! Blocks marked `sh run` are run in order from the repository's root and must succeed. A block
//! marked `sh run background` is started first and left running for those that follow; it is
//! stopped by Ctrl-C at the end and must then end cleanly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A fresh release build is part of the first command.
const START_MAX: Duration = Duration::from_secs(900);

struct Block {
    background: bool,
    text: String,
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in readme.lines() {
        match (&mut open, line.trim()) {
            (None, "```sh run") => open = Some(Block { background: false, text: String::new() }),
            (None, "```sh run background") => {
                open = Some(Block { background: true, text: String::new() });
            }
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "README ends inside a block");
    blocks
}

/// Starts a block in a process group of its own and waits until it says that it is running.
fn start(text: &str) -> Child {
    let mut child = Command::new("bash")
        .args(["-euc", text])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            println!("{line}");
            if line.contains("metrics  http://") {
                let _ = tell.send(());
            }
        }
    });
    if told.recv_timeout(START_MAX).is_err() {
        interrupt(&child);
        panic!("this block never said that it is running:\n{text}");
    }
    child
}

fn interrupt(child: &Child) {
    let group = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::INT);
}

#[test]
fn the_blocks_marked_run_work() {
    for port in [8080, 9464] {
        if let Err(why) = TcpListener::bind(("127.0.0.1", port)) {
            println!("SKIPPED: port {port}, which README uses, is taken here: {why}");
            assert!(std::env::var_os("NO_SKIP").is_none(), "nothing may be skipped");
            return;
        }
    }
    let blocks = blocks(include_str!("../README.md"));
    assert!(blocks.iter().any(|block| block.background), "the demo is one of the blocks");
    let mut running = Vec::new();
    for block in &blocks {
        if block.background {
            running.push(start(&block.text));
            continue;
        }
        let outcome = Command::new("timeout")
            .args(["60", "bash", "-euc", &block.text])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr);
        if !outcome.status.success() {
            running.iter().for_each(interrupt);
            panic!("this block failed with {}:\n{}\n{said}", outcome.status, block.text);
        }
    }
    for mut child in running {
        interrupt(&child);
        let status = child.wait().unwrap();
        assert!(status.success(), "a background block ended with {status}");
    }
}
