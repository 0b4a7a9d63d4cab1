//! `headwater relay`: from flags to a running relay.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{EXIT_CONFIG, output};
use crate::config::sources::Override;
use crate::config::{self, Error, Loaded, print};

/// Flags of the relay. All are optional: one that is not given leaves the file's value alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read this file. [default: none, every key has a default]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here for viewers and publishers.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Listen here for metrics, health and the JSON API.
    #[arg(long, value_name = "ADDRESS:PORT")]
    control: Option<String>,
    /// Listen here for peers, over UDP. [default: the address and port of --http]
    #[arg(long, value_name = "ADDRESS:PORT|auto|off")]
    swarm: Option<String>,
    /// Serve with this many threads.
    #[arg(long, value_name = "N|auto")]
    shards: Option<String>,
    /// How the kernel is asked.
    #[arg(long, value_name = "auto|uring|epoll")]
    io_driver: Option<String>,
    /// Memory for the windows of all streams.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Keep here what outlives the process.
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Write this file when every socket is bound.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<String>,
    /// What is worth a line in the log.
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Print the configuration in force, with the manual of each key and its source, and exit.
    #[arg(long)]
    print_config: bool,
}

impl Args {
    /// The values that were given on the command line.
    pub fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("--http", &self.http),
            ("--control", &self.control),
            ("--swarm", &self.swarm),
            ("--shards", &self.shards),
            ("--io-driver", &self.io_driver),
            ("--memory", &self.memory),
            ("--state", &self.state),
            ("--ready-file", &self.ready_file),
            ("--log-level", &self.log_level),
        ];
        let given =
            |(flag, value): (_, &Option<String>)| Some(Override { flag, value: value.clone()? });
        flags.into_iter().filter_map(given).collect()
    }
}

/// Runs the relay until it is told to stop, or prints its configuration.
pub fn relay(args: &Args) -> ExitCode {
    let loaded = match load(args.config.as_deref(), &args.overrides()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if args.print_config {
        return output::say(&print::in_force(&loaded.layers));
    }
    let logging = crate::node::logging::init(&loaded.config.log);
    match logging.and_then(|()| crate::node::run(loaded.config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The configuration from the file, this process's environment and `flags`; or, after the
/// reasons went to stderr, the exit code.
pub fn load(file: Option<&Path>, flags: &[Override]) -> Result<Loaded, ExitCode> {
    config::load(file, std::env::vars_os(), flags).map_err(|error| complain(&error))
}

/// Writes the reasons to stderr and gives the exit code.
pub fn complain(error: &Error) -> ExitCode {
    output::complain(&error.to_string());
    match error {
        Error::Unreadable { .. } => ExitCode::FAILURE,
        Error::Invalid(_) => ExitCode::from(EXIT_CONFIG),
    }
}
