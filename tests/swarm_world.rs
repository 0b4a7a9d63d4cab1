//! The relay and its peers on hosts of their own, and what networks do to them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Framing;
use common::netns::{Host, World};
use common::ts::{Broadcast, Shape};
use common::{
    Driver, Publisher, PutStream, Relay, Setup, both_drivers, key_hash, pass, secs, wait_for,
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

both_drivers!(a_flood_of_forged_handshakes_is_no_amplifier);

/// A relay on a host, which takes publishers that have the key.
fn relay(host: &Host, driver: Driver) -> Relay {
    let keys = toml::Value::Array(vec![key_hash("key").into()]);
    let setup = Setup::new(driver).host(host.v4().into()).within(host.words());
    host.enter(|| setup.set("publish.keys", keys).start())
}

/// A publisher on the relay's host.
fn publish(host: &Host, relay: &Relay, broadcast: &Broadcast) -> Publisher {
    host.enter(|| {
        let key = ["Authorization: Bearer key"];
        let put = PutStream::begin_with(relay.http, "/live/cam", Framing::Chunked, &key);
        let publisher = Publisher::drive(put, broadcast);
        relay.wait_live("cam");
        publisher
    })
}

/// What the relay says of the swarm, once it knows.
fn swarm_json(host: &Host, relay: &Relay) -> serde_json::Value {
    host.enter(|| {
        wait_for("swarm.json", secs(10), || {
            let answer = relay.get("/live/cam/swarm.json");
            (answer.status == 200).then(|| serde_json::from_slice(&answer.body).unwrap())
        })
    })
}

/// An opening handshake from a channel, as RFC 7574 wants it: protocol version 1, unified Merkle
/// tree, SHA-256, P-256, chunks of 1,316 bytes.
fn opening(swarm: &serde_json::Value, channel: u32) -> Vec<u8> {
    let mut datagram = vec![0; 5];
    datagram.extend(channel.to_be_bytes());
    datagram.extend([0, 1, 1, 1, 2, 0, 65]);
    let id = swarm["swarm_id"].as_str().unwrap();
    let digits = |at| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
    datagram.extend((0..id.len()).step_by(2).map(digits));
    datagram.extend([3, 3, 4, 2, 5, 13, 6, 4, 7, 0, 0, 0, 0, 0, 0, 16, 0, 8, 2, 0xf9, 0xf0, 9]);
    datagram.extend(1316_u32.to_be_bytes());
    datagram.push(255);
    datagram
}

/// Sends openings to `to` from addresses that are not ours, about `per_second`, until told to
/// stop. Returns how many.
fn flood(to: SocketAddrV4, swarm: &serde_json::Value, per_second: u64, stop: &AtomicBool) -> u64 {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let (began, mut sent, mut rng) = (Instant::now(), 0, fastrand::Rng::with_seed(1));
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_millis() as u64 * per_second / 1000;
        while sent < due {
            let from = Ipv4Addr::new(10, 99, rng.u8(..), rng.u8(1..));
            let payload = opening(swarm, rng.u32(1..));
            let packet = forged(from, rng.u16(1024..), to, &payload);
            sendto(&raw, &packet, SendFlags::empty(), &SocketAddr::V4(to)).unwrap();
            sent += 1;
        }
        pass(Duration::from_millis(1));
    }
    sent
}

/// An IPv4 packet of a UDP datagram, without checksums: the kernel adds that of the header.
fn forged(from: Ipv4Addr, port: u16, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = |headers: usize| ((headers + payload.len()) as u16).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.ip().octets());
    packet.extend(port.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(length(8));
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

fn a_flood_of_forged_handshakes_is_no_amplifier(driver: Driver) {
    let Some(world) = World::new(3) else { return };
    let [home, crowd, enemy] = [0, 1, 2].map(|index| world.host(index));
    // Answers to the forged go where nobody wants them, instead of waiting for an address.
    home.route_the_rest_to(enemy);
    let relay = relay(home, driver);
    let broadcast = Broadcast::new(3, Shape::new(500_000), 40.0);
    let _publisher = publish(home, &relay, &broadcast);
    let swarm = swarm_json(home, &relay);
    let SocketAddr::V4(to) = swarm["udp"][0].as_str().unwrap().parse().unwrap() else { panic!() };
    let (stop, before) = (AtomicBool::new(false), relay.rss());
    let (sent, seconds) = thread::scope(|scope| {
        let flood = || enemy.enter(|| flood(to, &swarm, 10_000, &stop));
        let flooding = scope.spawn(flood);
        let began = Instant::now();
        pass(secs(5));
        stop.store(true, Ordering::Relaxed);
        (flooding.join().unwrap(), began.elapsed())
    });
    let (asked, answered) = (enemy.traffic().sent, home.traffic().sent);
    let peers = crowd.traffic().received;
    let after = relay.rss();
    println!("{sent} forged in {seconds:?}: {asked:?} {answered:?} {peers:?} {before} {after}");
    assert!(asked.packets >= sent);
    assert!(answered.bytes - peers.bytes <= asked.bytes, "more bytes than were asked for");
    assert!(after < before + (8 << 20), "memory grew from {before} to {after}");
}
