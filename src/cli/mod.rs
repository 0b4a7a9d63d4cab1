//! The door: what was typed on the command line becomes a call and an exit code.
//!
//! Exit codes: 0 clean, 78 a configuration or a command line that cannot work (systemd must not
//! try again), 1 anything else. Nothing here panics when the reader of a pipe is gone.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod demo;
mod keys;
mod output;
mod peer;
mod relay;
mod sim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `EX_CONFIG` of sysexits.h: restarting will not help.
const EXIT_CONFIG: u8 = 78;

/// Relays live streams: one MPEG-TS stream in, tens of thousands of viewers out.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, max_term_width = 100, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay.
    Relay(relay::Args),
    /// Play a relay's stream on this machine, received over its swarm.
    Peer(peer::Args),
    /// Show the whole product at work, with a built-in stream.
    Demo(demo::Args),
    /// Say whether a configuration file is good.
    Check(check::Args),
    /// Make and hash publish keys; show the keys of streams.
    Keys(keys::Args),
    /// Measure the relay on this machine, beside what the kernel allows.
    Bench(bench::Args),
    /// Play a whole swarm in virtual time, decided by a seed.
    Sim(Box<sim::Args>),
}

/// Runs the command line of this process to its end.
#[must_use]
pub fn run() -> ExitCode {
    match Args::try_parse() {
        Ok(Args { command: Command::Relay(args) }) => relay::relay(&args),
        Ok(Args { command: Command::Peer(args) }) => peer::peer(&args),
        Ok(Args { command: Command::Demo(args) }) => demo::demo(&args),
        Ok(Args { command: Command::Check(args) }) => check::check(&args),
        Ok(Args { command: Command::Keys(args) }) => keys::keys(&args),
        Ok(Args { command: Command::Bench(args) }) => bench::bench(args),
        Ok(Args { command: Command::Sim(args) }) => sim::sim(&args),
        Err(error) if error.use_stderr() => {
            output::complain(&error.render().to_string());
            ExitCode::from(EXIT_CONFIG)
        }
        Err(help_or_version) => output::say(&help_or_version.render().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::table::KEYS;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    /// A flag in the table that clap does not know would be documented and refused.
    #[test]
    fn every_flag_of_the_table_is_a_flag_of_relay() {
        let command = Args::command();
        let relay = command.find_subcommand("relay").unwrap();
        for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
            let known = relay.get_arguments().filter_map(|arg| arg.get_long());
            assert!(known.into_iter().any(|long| format!("--{long}") == key.flag), "{}", key.flag);
        }
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let flags: Vec<_> = KEYS.iter().map(|key| key.flag).filter(|f| !f.is_empty()).collect();
        let words = flags.iter().map(|flag| format!("{flag}=value of {flag}"));
        let words = ["headwater", "relay"].into_iter().map(str::to_owned).chain(words);
        let Command::Relay(args) = Args::try_parse_from(words).unwrap().command else {
            panic!("not the relay");
        };
        let given = args.overrides();
        assert_eq!(given.len(), flags.len());
        for flag in flags {
            let value = given.iter().find(|given| given.flag == flag).map(|given| &given.value);
            assert_eq!(value, Some(&format!("value of {flag}")));
        }
    }
}
