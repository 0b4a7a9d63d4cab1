//! `headwater demo`: the whole product at work, with nothing else installed.
//!
//! It is the real relay with a built-in publisher, one minute of picture and tone that runs for
//! ever, and with a crowd of the real viewers that share. The clock in the picture is aligned to
//! the minute of UTC, so that the delay of any player can be read off the screen.

mod crowd;
mod publisher;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;

use crate::cli::demo::crowd::Crowd;
use crate::cli::demo::publisher::publish_for_ever;
use crate::cli::{output, relay};
use crate::config::sources::Override;
use crate::node::{Addresses, Relay, logging};
use crate::swarm::settings::Mode;

/// Flags of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Listen here for viewers and publishers.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    http: String,
    /// Listen here for metrics, health and the JSON API.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    control: String,
    /// So many viewers in this process that share the stream.
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(0..=200))]
    viewers: u16,
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
    let mut config = match relay::load(None, &flags) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    // The crowd's lines are known to carry their part.
    config.swarm.mode = Mode::Auto;
    match logging::init(&config.log).and_then(|()| run(args, Relay::load(config)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The relay, until a signal ends it; the crowd hears the same signal.
fn run(args: &Args, relay: Relay) -> Result<(), String> {
    let (registry, mut crowd) = (relay.registry(), None);
    let outcome = relay.run(|addresses| {
        output::say(&greeting(addresses, args.viewers));
        let http = reachable(addresses.http);
        let publisher = move || publish_for_ever(http);
        if let Err(why) = thread::Builder::new().name("demo".to_owned()).spawn(publisher) {
            output::complain(&format!("error: no thread for the demo's stream: {why}\n"));
        }
        if args.viewers > 0 {
            crowd = Crowd::start(http, usize::from(args.viewers), &args.io_driver, registry);
        }
    });
    if let Some(crowd) = crowd {
        crowd.wait();
    }
    outcome
}

fn greeting(addresses: &Addresses, viewers: u16) -> String {
    let (http, control) = (reachable(addresses.http), reachable(addresses.control));
    let swarm = match viewers {
        0 => String::new(),
        n => format!("  swarm    http://{http}/watch/live/demo#swarm   ({n} viewers that share)\n"),
    };
    format!(
        "headwater {} demo is running; Ctrl-C stops it\n\
         \x20 page     http://{http}/\n\
         {swarm}\
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_addresses_can_be_opened() {
        let [any4, any6, one] = ["0.0.0.0:1", "[::]:2", "192.0.2.1:3"].map(|a| a.parse().unwrap());
        let addresses = Addresses { http: any4, control: any6, swarm: None, ingest: Vec::new() };
        let text = greeting(&addresses, 20);
        assert!(text.contains("http://127.0.0.1:1/watch/live/demo#swarm   (20 viewers"), "{text}");
        assert!(!greeting(&addresses, 0).contains("swarm"));
        assert!(text.contains("http://127.0.0.1:1/live/demo.ts"), "{text}");
        assert!(text.contains("http://[::1]:2/metrics"), "{text}");
        assert_eq!(reachable(one), one);
    }
}
