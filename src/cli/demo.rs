//! `headwater demo`: the whole product at work, with nothing else installed.
//!
//! It is the real relay with a built-in publisher: one minute of picture and tone that runs
//! for ever. The clock in the picture is aligned to the minute of UTC, so that the delay of any
//! player can be read off the screen.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cli::{output, relay};
use crate::config::sources::Override;
use crate::media::looper::Looper;
use crate::media::sample::DEMO;
use crate::node::{Addresses, Relay, logging};

/// How often the publisher sends what is due.
const STEP: Duration = Duration::from_millis(20);

/// How long the publisher waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// Flags of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Listen here for viewers and publishers.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    http: String,
    /// Listen here for metrics, health and the JSON API.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    control: String,
    /// How the kernel is asked.
    #[arg(long, value_name = "auto|uring|epoll", default_value = "auto")]
    io_driver: String,
    /// What is worth a line in the log.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_level: String,
}

/// Runs the demo until it is stopped.
pub fn demo(args: &Args) -> ExitCode {
    let flags = [
        ("--http", &args.http),
        ("--control", &args.control),
        ("--io-driver", &args.io_driver),
        ("--log-level", &args.log_level),
    ];
    let given = |(flag, value): (_, &String)| Override { flag, value: value.clone() };
    let flags: Vec<_> = flags.into_iter().map(given).collect();
    let config = match relay::load(None, &flags) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let outcome = logging::init(&config.log).and_then(|()| Relay::load(config)).and_then(|relay| {
        relay.run(|addresses| {
            output::say(&greeting(addresses));
            let http = reachable(addresses.http);
            let publisher = move || publish_for_ever(http);
            let started = thread::Builder::new().name("demo".to_owned()).spawn(publisher);
            if let Err(why) = started {
                output::complain(&format!("error: no thread for the demo's stream: {why}\n"));
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn greeting(addresses: &Addresses) -> String {
    let (http, control) = (reachable(addresses.http), reachable(addresses.control));
    format!(
        "headwater {} demo is running; Ctrl-C stops it\n\
         \x20 page     http://{http}/\n\
         \x20 play     http://{http}/live/demo.ts\n\
         \x20 publish  ffmpeg -re -i in.mp4 -c copy -f mpegts -method PUT http://{http}/live/mine\n\
         \x20 metrics  http://{control}/metrics\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// An address to open on this machine: "any" is where one listens, not where one connects.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Publishes the sample until the process ends; a broken connection is made anew.
fn publish_for_ever(http: SocketAddr) {
    loop {
        let outcome = publish(http);
        // Told after the wait: a relay that is stopping is gone by then.
        thread::sleep(RETRY);
        if let Err(why) = outcome {
            tracing::warn!(%why, "the demo's publisher starts again");
        }
    }
}

fn publish(http: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut looper = Looper::new(DEMO)?;
    let minute = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 60_000;
    looper.start_at(Duration::from_millis(u64::try_from(minute)?));
    let mut relay = TcpStream::connect(http)?;
    relay.set_nodelay(true)?;
    write!(relay, "PUT /live/demo HTTP/1.1\r\nHost: {http}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let started = Instant::now();
    let mut due = Vec::new();
    loop {
        due.clear();
        looper.next(started.elapsed(), &mut due);
        if !due.is_empty() {
            write!(relay, "{:x}\r\n", due.len())?;
            relay.write_all(&due)?;
            relay.write_all(b"\r\n")?;
        }
        // A response before the end of the body is a refusal: say what the relay said.
        relay.set_nonblocking(true)?;
        let mut answer = [0; 512];
        match relay.read(&mut answer) {
            Ok(0) => return Err("the relay closed the connection".into()),
            Ok(n) => return Err(String::from_utf8_lossy(&answer[..n]).into_owned().into()),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why.into()),
        }
        relay.set_nonblocking(false)?;
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_addresses_can_be_opened() {
        let [any4, any6, one] = ["0.0.0.0:1", "[::]:2", "192.0.2.1:3"].map(|a| a.parse().unwrap());
        let text =
            greeting(&Addresses { http: any4, control: any6, swarm: None, ingest: Vec::new() });
        assert!(text.contains("http://127.0.0.1:1/live/demo.ts"), "{text}");
        assert!(text.contains("http://[::1]:2/metrics"), "{text}");
        assert_eq!(reachable(one), one);
    }
}
