//! `headwater peer`: plays a relay's stream on this machine.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::cli::{EXIT_CONFIG, output, relay};
use crate::config;
use crate::config::sources::Override;
use crate::node::logging;
use crate::node::peer::{Line, Options, run};
use crate::peer::client::Url;
use crate::peer::settings::Settings;
use crate::swarm::integrity::SwarmId;
use crate::swarm::playout;

/// Where local players find the stream, if that port is free.
const HTTP: &str = "127.0.0.1:8888";

/// Memory where the user leaves it to us: with local players, and of each viewer without.
const MEMORY: &str = "64MiB";
const MEMORY_HEADLESS_MIB: usize = 8;

/// How often the status is said where it cannot be replaced.
const QUIET: u32 = 10;

/// Flags of the viewer's node.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The stream at the relay: http://RELAY:8080/live/NAME
    url: String,
    /// Listen here for local players [default: 127.0.0.1:8888, or the next free port].
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Listen here for metrics, or at the next free port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9564")]
    control: String,
    /// So many viewers in one process; more than one only with --headless.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// No local players: receive, verify, count.
    #[arg(long)]
    headless: bool,
    /// Play for so many seconds [default: until a signal].
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// At the end, write a report (JSON) to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the played bytes to this file; with --count N to FILE.0, FILE.1 and so on.
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Accept this swarm id only; `headwater keys` shows it at the relay.
    #[arg(long, value_name = "HEX")]
    swarm_id: Option<String>,
    /// The token of a stream that asks for one.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How far behind live to play; further where the way to the relay is long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.8)]
    target_delay: f64,
    /// The most that it becomes after stalls.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    max_delay: f64,
    /// The most that is sent to other viewers, such as 2mbit; 0 shares nothing [default: what the
    /// line carries].
    #[arg(long, value_name = "RATE", value_parser = rate)]
    upload: Option<u64>,
    /// Memory for the stream [default: 64MiB; with --headless 8MiB for each viewer].
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// How the kernel is asked.
    #[arg(long, value_name = "auto|uring|epoll", default_value = "auto")]
    io_driver: String,
    /// What is worth a line in the log.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_level: String,
}

/// Bits per second: `0`, `800kbit`, `1.5mbit`.
fn rate(text: &str) -> Result<u64, String> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    let lower = text.to_ascii_lowercase();
    let found = units.iter().find_map(|(unit, factor)| {
        let number: f64 = lower.strip_suffix(unit)?.trim_end().parse().ok()?;
        Some(number * factor)
    });
    match found {
        _ if lower == "0" => Ok(0),
        // From a byte a second up to more than any line carries: the cast loses nothing.
        Some(bits) if bits == 0.0 || (8.0..1e12).contains(&bits) => Ok(bits as u64),
        _ => Err("0, or a number with kbit, mbit or gbit".to_owned()),
    }
}

/// Plays until it is stopped.
pub fn peer(args: &Args) -> ExitCode {
    let options = match args.options() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let terminal = std::io::stdout().is_terminal();
    let said = AtomicU32::new(0);
    let say = |line: Line| match line {
        Line::Fact(text) => {
            output::say(&format!("{text}\n"));
        }
        Line::Status(text) if terminal => {
            output::say(&format!("\r\x1b[K{text}"));
        }
        Line::Status(text) => {
            if said.fetch_add(1, Relaxed).is_multiple_of(QUIET) {
                output::say(&format!("{text}\n"));
            }
        }
    };
    let outcome = logging::init(&options.config.log).and_then(|()| run(options, say));
    if terminal {
        output::say("\n");
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// What was typed, checked.
    fn options(&self) -> Result<Options, ExitCode> {
        let bad = |why: String| {
            output::complain(&format!("error: {why}\n"));
            ExitCode::from(EXIT_CONFIG)
        };
        let url: Url = self.url.parse().map_err(|why| bad(format!("{}: {why}", self.url)))?;
        let name = Settings::stream(&url).ok_or_else(|| {
            bad(format!("{}: no stream; its address is http://RELAY:8080/live/NAME", self.url))
        })?;
        let pin = self.swarm_id.as_deref().map(str::parse::<SwarmId>).transpose();
        let pin = pin.map_err(|why| bad(format!("--swarm-id: {why}")))?;
        if self.count == 0 || (self.count > 1 && !self.headless) {
            return Err(bad("--count N needs --headless, and at least one viewer".to_owned()));
        }
        let seconds = |flag: &str, value: f64| match Duration::try_from_secs_f64(value) {
            Ok(time) if value > 0.0 => Ok(time),
            _ => Err(bad(format!("{flag} {value}: a number of seconds above 0"))),
        };
        let target = seconds("--target-delay", self.target_delay)?;
        let max = seconds("--max-delay", self.max_delay)?;
        if max < target {
            return Err(bad("--max-delay must not be below --target-delay".to_owned()));
        }
        let duration = self.duration.map(|value| seconds("--duration", value)).transpose()?;
        let memory = self.memory.clone().unwrap_or_else(|| match self.headless {
            true => format!("{}MiB", MEMORY_HEADLESS_MIB * self.count),
            false => MEMORY.to_owned(),
        });
        let flags = [
            ("--http", self.http.clone().unwrap_or_else(|| HTTP.to_owned())),
            ("--control", self.control.clone()),
            ("--io-driver", self.io_driver.clone()),
            ("--log-level", self.log_level.clone()),
            ("--memory", memory),
        ];
        let flags: Vec<_> =
            flags.into_iter().map(|(flag, value)| Override { flag, value }).collect();
        // The relay's variables and file are none of the viewer's.
        let none: [(OsString, OsString); 0] = [];
        let loaded = config::load(None, none, &flags).map_err(|error| relay::complain(&error))?;
        Ok(Options {
            url,
            name,
            config: loaded.config,
            any_port: self.http.is_none(),
            count: self.count,
            headless: self.headless,
            report: self.report.clone(),
            dump: self.dump.clone(),
            pin,
            token: self.token.clone(),
            duration,
            playout: playout::Settings { target, max },
            upload: self.upload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bits) in
            [("0", 0), ("800kbit", 800_000), ("2mbit", 2_000_000), ("1.5 Mbit", 1_500_000)]
        {
            assert_eq!(rate(text), Ok(bits), "{text}");
        }
        for bad in ["", "2", "fast", "-1mbit", "NaNmbit", "infgbit", "5MB", "0.001kbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
