//! A relay and a crowd of peers on shaped lines, as processes on hosts of their own. What came of
//! it is in [`super::outcome`].

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Framing;
use super::netns::{Host, World};
use super::outcome::{Mark, Outcome, Span};
use super::peer::{Peer, judge, judge_killed};
use super::scale::keep_dir;
use super::ts::{Broadcast, Shape};
use super::{Driver, Publisher, PutStream, Relay, Setup, key_hash, millis, pass, secs, wait_for};

/// Bits per second of the stream, and frames from key frame to key frame: two seconds.
pub const BITRATE: u64 = 2_000_000;
const GOP: u64 = 50;

/// Between two starts: all at once would wait for two cores, not for the network.
const APART: Duration = millis(100);

/// The longest until everybody plays.
const START: Duration = secs(30);

/// What is played.
#[derive(Clone, Copy)]
pub struct Plan {
    pub driver: Driver,
    pub peers: usize,
    /// What the line of a peer carries upwards, in bits per second.
    pub uplink: fn(usize) -> u64,
    /// Of every peer's input.
    pub loss_permille: u32,
    /// Flags of every peer.
    pub more: &'static [&'static str],
    /// How long it is watched.
    pub seconds: u64,
}

/// A world in which a relay and its peers run.
pub struct Swarm {
    pub plan: Plan,
    pub peers: Vec<Option<Peer>>,
    pub relay: Relay,
    pub broadcast: Broadcast,
    publisher: Option<Publisher>,
    /// Host 0 is the relay's and the publisher's, host k + 1 that of peer k.
    pub world: World,
    began: (Instant, Mark),
    /// Bytes that those had played who are gone.
    pub(super) gone: u64,
}

/// What a line carries upwards: a fifth of the peers next to nothing, the others 1 to 6.5 Mbit/s,
/// in the mean 1.5 times the stream; `headwater sim` assumes the same.
pub fn uplink(peer: usize) -> u64 {
    let golden = (peer as f64 * 0.618_034).fract();
    if peer % 5 == 2 { 200_000 } else { 1_000_000 + (golden * 5_500_000.0) as u64 }
}

/// A relay on a host, which takes publishers that have the key.
pub fn relay(host: &Host, driver: Driver) -> Setup {
    let keys = toml::Value::Array(vec![key_hash("key").into()]);
    let setup = Setup::new(driver).host(host.v4().into()).within(host.words());
    setup.set("publish.keys", keys)
}

/// A publisher on the relay's host, and the swarm that peers can join.
pub fn publish(host: &Host, relay: &Relay, broadcast: &Broadcast) -> Publisher {
    host.enter(|| {
        let key = ["Authorization: Bearer key"];
        let put = PutStream::begin_with(relay.http, "/live/cam", Framing::Chunked, &key);
        let publisher = Publisher::drive(put, broadcast);
        relay.wait_live("cam");
        wait_for("swarm.json", secs(10), || {
            (relay.get("/live/cam/swarm.json").status == 200).then_some(())
        });
        publisher
    })
}

/// `seconds` of the stream.
pub fn broadcast(seed: u64, seconds: u64) -> Broadcast {
    Broadcast::new(seed, Shape { gop: GOP, ..Shape::new(BITRATE) }, seconds as f64)
}

impl Swarm {
    /// Starts everything in a world of at least `plan.peers + 1` hosts.
    pub fn start(world: World, plan: Plan, setup: impl FnOnce(Setup) -> Setup) -> Swarm {
        let home = world.host(0);
        let setup = setup(relay(home, plan.driver));
        let relay = home.enter(|| setup.start());
        // Longer than the longest that it may take: beside the time that is watched the start, and
        // what a test does between.
        let broadcast = broadcast(4, plan.seconds + 90);
        let publisher = Some(publish(home, &relay, &broadcast));
        for number in 0..plan.peers {
            let host = world.host(number + 1);
            host.lose_udp_to(plan.loss_permille);
            host.shape((plan.uplink)(number));
        }
        let mut swarm = Swarm {
            plan,
            peers: Vec::new(),
            relay,
            broadcast,
            publisher,
            world,
            began: (Instant::now(), Mark::default()),
            gone: 0,
        };
        swarm.began = (Instant::now(), Mark::new(&swarm));
        for number in 0..plan.peers {
            swarm.begin(number);
            pass(APART);
        }
        swarm.wait_playing();
        swarm
    }

    /// The stream's address.
    pub fn url(&self) -> String {
        format!("http://{}/live/cam", self.relay.http)
    }

    fn begin(&mut self, number: usize) {
        let name = format!("peer-{number}");
        let more: Vec<String> = self.plan.more.iter().map(|flag| (*flag).to_owned()).collect();
        let (url, host) = (self.url(), self.world.host(number + 1));
        let files = (self.relay.dir.path(), name.as_str());
        let peer = Peer::start_with(files, (&url, Some(host)), (self.plan.driver, 1), &more);
        self.peers.push(Some(peer));
    }

    /// The host of peer `number`.
    pub fn host(&self, number: usize) -> &Host {
        self.world.host(number + 1)
    }

    /// Those of `numbers` who are there.
    pub fn some(&self, numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = &Peer> {
        numbers.into_iter().filter_map(|number| self.peers[number].as_ref())
    }

    /// Waits until every peer there has played something.
    fn wait_playing(&self) {
        wait_for("everybody to play", START, || {
            self.some(0..self.peers.len()).all(|peer| peer.written() > 0).then_some(())
        });
    }

    /// Waits until so much time has passed since the first peer was started.
    pub fn wait_since_start(&self, time: Duration) {
        pass(time.saturating_sub(self.began.0.elapsed()));
    }

    /// Lets time pass, and tells how the offload goes meanwhile.
    pub fn watch(&self, seconds: u64) {
        const STEP: u64 = 5;
        let (mut before, mut told) = (Mark::new(self), String::new());
        for _ in 0..seconds / STEP {
            pass(secs(STEP));
            let now = Mark::new(self);
            told += &format!(" {:.0}", Span(&before, &now).offload() * 100.0);
            before = now;
            self.keep_series();
        }
        pass(secs(seconds % STEP));
        println!("offload in % of every {STEP} s:{told}");
        println!("{}", self.status());
    }

    /// What the relay says of the swarm.
    pub fn status(&self) -> Value {
        let status = self.world.host(0).enter(|| self.relay.status("cam"));
        status.map_or(Value::Null, |status| status["swarm"].clone())
    }

    /// Keeps what the relay tells operators of the swarm now, if that is wanted.
    fn keep_series(&self) {
        let Some(dir) = keep_dir() else { return };
        let home = self.world.host(0);
        let text = home.enter(|| self.relay.control("/metrics")).text();
        let swarm = |line: &&str| line.contains("swarm") && !line.ends_with(" 0");
        let lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#')).filter(swarm).collect();
        let path = dir.join(format!("series-{:?}.txt", self.plan.driver));
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + &lines.join("\n") + "\n\n").expect("the directory is there");
    }

    /// Kills some peers at once. What they had played was published.
    pub fn kill(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let killed: Vec<Peer> =
            numbers.into_iter().filter_map(|number| self.peers[number].take()).collect();
        killed.iter().for_each(|peer| peer.signal(rustix::process::Signal::KILL));
        for dump in killed.into_iter().map(Peer::kill) {
            self.gone += dump.len() as u64;
            judge_killed(&self.broadcast.bytes, &dump);
        }
    }

    /// Takes the publisher, to be stopped.
    pub fn publisher(&mut self) -> Publisher {
        self.publisher.take().expect("once")
    }

    /// Replaces the relay, whose directory stays, and its publisher.
    #[must_use = "peers write to the directory of the first"]
    pub fn set_relay(&mut self, relay: Relay, publisher: Publisher) -> Relay {
        self.publisher = Some(publisher);
        std::mem::replace(&mut self.relay, relay)
    }

    /// Watches for the time that was planned, stops everybody who is there and sums up. Each
    /// one's bytes are held against `published`, else against the broadcast. Those who hang
    /// are killed: what they would say is not asked for.
    pub fn conclude(mut self, published: Option<&[u8]>, hung: &[usize]) -> Outcome {
        let from = Mark::new(&self);
        self.watch(self.plan.seconds);
        let to = Mark::new(&self);
        self.kill(hung.iter().copied());
        let there = self.peers.iter_mut().enumerate();
        let there: Vec<(usize, Peer)> =
            there.filter_map(|(number, peer)| Some((number, peer.take()?))).collect();
        there.iter().for_each(|(_, peer)| peer.signal(rustix::process::Signal::TERM));
        let mut outcome = Outcome::new(self.plan, [self.began.1, from, to]);
        for (number, peer) in there {
            let played = peer.end();
            let published = published.unwrap_or(&self.broadcast.bytes);
            judge(published, &played.dumps[0], &played.report["viewers"][0]);
            outcome.add(number, played);
        }
        outcome
    }
}
