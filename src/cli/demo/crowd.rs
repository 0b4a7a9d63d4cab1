//! The crowd of the demo: viewers that share, as `headwater peer --headless --count` has them,
//! and one line that says how it goes.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cli::output;
use crate::config;
use crate::config::sources::Override;
use crate::face::http::status::{self, Swarm};
use crate::node::peer::{self, Options};
use crate::registry::streams::Registry;
use crate::swarm::playout;

/// What each of them sends at most, in bits per second: about four times the demo's stream, as
/// little as an ordinary line carries.
const UPLOAD: u64 = 500_000;

/// Memory of each: the demo's stream takes less than 1 MiB a minute.
const MEMORY_MIB: usize = 2;

/// How often it is said how it goes, and how often where that cannot be replaced.
const STATUS: Duration = Duration::from_secs(1);
const STATUS_PLAIN: u32 = 10;

/// How often the stream is looked at before the crowd comes.
const LOOK: Duration = Duration::from_millis(100);

/// How long the crowd may take to leave once the relay has gone.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// The crowd at work.
pub(super) struct Crowd {
    /// Disconnected once all have left.
    left: Receiver<()>,
    /// What each of the two threads stops for.
    stop: [Sender<()>; 2],
    status: JoinHandle<()>,
}

impl Crowd {
    /// Lets `count` viewers come to the relay at `http`. `None`, with a complaint, if that cannot
    /// be: the demo goes on without them.
    pub(super) fn start(
        http: SocketAddr,
        count: usize,
        io_driver: &str,
        registry: Arc<Registry>,
    ) -> Option<Crowd> {
        let crowd = options(http, count, io_driver).and_then(|options| {
            let (leave, left) = channel::<()>();
            let (stop_waiting, stopped) = channel();
            let streams = Arc::clone(&registry);
            let viewers = spawn("crowd", move || {
                let _leave = leave;
                if is_measured(&streams, &stopped)
                    && let Err(why) = peer::run(options, |_| {})
                {
                    output::complain(&format!("error: the demo's viewers: {why}\n"));
                }
            });
            viewers?;
            let (stop_telling, stopped) = channel();
            let status = spawn("status", move || tell(&registry, &stopped))?;
            Ok(Crowd { left, stop: [stop_waiting, stop_telling], status })
        });
        crowd.map_err(|why| output::complain(&format!("error: no viewers: {why}\n"))).ok()
    }

    /// Waits until all have left, who heard the signal that ended the relay; not for ever, for
    /// something else may have ended it.
    pub(super) fn wait(self) {
        let Crowd { left, stop, status } = self;
        drop(stop);
        let _ = status.join();
        let _ = left.recv_timeout(LEAVE_MAX);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|why| why.to_string())
}

/// Waits until the stream's bitrate is known, of which those who share take their measure.
/// `false`: it was told to stop first.
fn is_measured(registry: &Registry, stopped: &Receiver<()>) -> bool {
    let measured = || {
        let streams = registry.directory();
        streams.iter().any(|stream| stream.health().bitrate_bps > 0)
    };
    while !measured() {
        if !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            return false;
        }
    }
    true
}

fn options(http: SocketAddr, count: usize, io_driver: &str) -> Result<Options, String> {
    let url = format!("http://{http}/live/demo").parse().map_err(|why| format!("{why}"))?;
    let flags = [
        ("--control", "127.0.0.1:0".to_owned()),
        ("--io-driver", io_driver.to_owned()),
        ("--memory", format!("{}MiB", MEMORY_MIB * count)),
    ];
    let flags: Vec<_> = flags.into_iter().map(|(flag, value)| Override { flag, value }).collect();
    // The relay's variables and file are none of the viewers'.
    let none: [(OsString, OsString); 0] = [];
    let loaded = config::load(None, none, &flags).map_err(|why| format!("{why}"))?;
    Ok(Options {
        url,
        name: "demo".parse().map_err(|why| format!("{why}"))?,
        config: loaded.config,
        any_port: true,
        count,
        headless: true,
        report: None,
        dump: None,
        pin: None,
        token: None,
        duration: None,
        playout: playout::Settings::default(),
        upload: Some(UPLOAD),
    })
}

/// Says how it goes until it is told to stop.
fn tell(registry: &Registry, stopped: &Receiver<()>) {
    let terminal = std::io::stdout().is_terminal();
    let mut beats = 0;
    while matches!(stopped.recv_timeout(STATUS), Err(RecvTimeoutError::Timeout)) {
        beats += 1;
        let directory = registry.directory();
        let Some(stream) = directory.iter().find(|stream| stream.name.as_str() == "demo") else {
            continue;
        };
        let line = line(&status::swarm(stream));
        if terminal {
            output::say(&format!("\r\x1b[K{line}"));
        } else if beats % STATUS_PLAIN == 0 {
            output::say(&format!("{line}\n"));
        }
    }
    if terminal {
        output::say("\n");
    }
}

fn line(swarm: &Swarm) -> String {
    let offload = match swarm.offload {
        Some(ratio) => format!("{:.0} %", ratio * 100.0),
        None => "not known yet".to_owned(),
    };
    format!(
        "  {} viewers share ({}), offload {offload}, {:.1} s behind live, {} stalls",
        swarm.peers,
        swarm.mode,
        swarm.delay_p50_ms as f64 / 1e3,
        swarm.stalls
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_it_goes() {
        let mut swarm = Swarm { mode: "direct", peers: 20, stalls: 1, ..Swarm::default() };
        swarm.delay_p50_ms = 1_512;
        let start =
            "  20 viewers share (direct), offload not known yet, 1.5 s behind live, 1 stalls";
        assert_eq!(line(&swarm), start);
        swarm.offload = Some(0.834);
        assert!(line(&swarm).contains("offload 83 %"), "{}", line(&swarm));
    }
}
