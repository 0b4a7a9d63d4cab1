//! Where log lines go: the journal under systemd, else stdout. No files of our own.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::resolved::{Log, LogFormat};

/// Sets the process up to log. May be called once.
///
/// # Errors
/// If the journal was asked for by name and is not there, or the level cannot be parsed.
pub fn init(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|why| format!("log.level: {why}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let journal = match log.format {
        LogFormat::Journald => Some(
            tracing_journald::layer()
                .map_err(|why| format!("log.format = \"journald\": no journal here: {why}"))?,
        ),
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => {
            tracing_journald::layer().ok()
        }
        LogFormat::Auto | LogFormat::Text | LogFormat::Json => None,
    };
    let outcome = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None if log.format == LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json()).try_init()
        }
        None => {
            let colour = std::io::stdout().is_terminal();
            registry.with(tracing_subscriber::fmt::layer().with_ansi(colour)).try_init()
        }
    };
    outcome.map_err(|why| format!("logging: {why}"))
}
