//! `headwater keys`: makes publish keys, hashes those that exist, and shows streams' own.
//!
//! A key has 160 random bits, so nobody guesses it and a plain SHA-256 protects it: the file
//! holds the hash only, and a copy of the file lets nobody publish.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::Subcommand;

use crate::cli::output;
use crate::node::keeper;

/// Bytes of a new key before it is written in base 32: 160 bits, 32 digits.
const KEY_BYTES: usize = 20;

/// The most bytes of a key that is read from stdin.
const KEY_TEXT_MAX: u64 = 4096;

/// Arguments of `keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key. It is printed once and kept nowhere.
    New,
    /// Read a key from stdin and print its hash.
    Hash,
    /// Print the swarm id of every stream that a state directory knows: its public key.
    Swarm {
        /// The relay's state directory.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

/// Runs one of them.
pub fn keys(args: &Args) -> ExitCode {
    let text = match &args.command {
        Command::New => new(),
        Command::Hash => hash(std::io::stdin().lock()),
        Command::Swarm { state } => swarm(state),
    };
    match text {
        Ok(text) => output::say(&text),
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn new() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    let random = SystemRandom::new();
    random.fill(&mut bytes).map_err(|_| "the system has no random bytes".to_owned())?;
    let key = base32(&bytes);
    let hash = sha256_hex(&key);
    Ok(format!(
        "key:    {key}\n\
         config: keys = [\"sha256:{hash}\"]\n\
         Give the key to the broadcaster: it is not shown again. The line belongs in [publish].\n"
    ))
}

fn hash(from: impl Read) -> Result<String, String> {
    let mut text = String::new();
    from.take(KEY_TEXT_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|why| format!("cannot read a key from stdin: {why}"))?;
    let key = text.trim_end_matches(['\r', '\n']);
    match key.len() as u64 {
        0 => Err("there is no key on stdin".to_owned()),
        1..=KEY_TEXT_MAX => Ok(format!("sha256:{}\n", sha256_hex(key))),
        _ => Err(format!("a key has at most {KEY_TEXT_MAX} bytes")),
    }
}

/// One line for each stream: its name and its id, or why it has none.
fn swarm(state: &Path) -> Result<String, String> {
    let swarms = keeper::swarms(state)?;
    let lines = swarms.iter().map(|(name, id)| match id {
        Ok(id) => format!("{name} {id}\n"),
        Err(why) => format!("{name} - {why}\n"),
    });
    Ok(lines.collect())
}

/// RFC 4648 base 32 in lower case, which survives being read aloud. `bytes` in fives.
fn base32(bytes: &[u8; KEY_BYTES]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(KEY_BYTES / 5 * 8);
    for five in bytes.chunks_exact(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        text.extend((0..8).rev().map(|n| char::from(DIGITS[(bits >> (5 * n) & 31) as usize])));
    }
    text
}

fn sha256_hex(key: &str) -> String {
    digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10: base 32 of "fooba" is MZXW6YTB.
    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"foobafoobafoobafooba"), "mzxw6ytb".repeat(4));
    }

    /// FIPS 180-2, appendix B.1.
    #[test]
    fn a_key_from_a_pipe_loses_its_line_end_only() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
        assert_eq!(hash("abc\r\n".as_bytes()).unwrap(), abc);
        assert_ne!(hash(" abc".as_bytes()).unwrap(), abc);
        assert!(hash("\n".as_bytes()).is_err());
        assert!(hash("x".repeat(4096).as_bytes()).is_ok());
        assert!(hash("x".repeat(4097).as_bytes()).is_err());
    }
}
