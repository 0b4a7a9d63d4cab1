//! What this shard counts for the controllers of its streams, and how their orders are carried
//! out.
//!
//! The controller of a stream runs in the face of the shard that coordinates it, which need not
//! have peers of the stream itself. Shards write each other [`Note`]s.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::ids::{ShardId, StreamSlot};
use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::face::swarm::notes::Note;
use crate::face::swarm::shoal::Shoal;
use crate::face::swarm::told::Told;
use crate::face::swarm::{Swarm, introductions, prices};
use crate::registry::budget::Budget;
use crate::registry::graph::{self, Graph, GraphPeer};
use crate::registry::stream::Stream;
use crate::swarm::controller::{
    Census, Controller, INTERVAL, MEMBERS_MAX, Member, Orders, PROVEN, Situation,
};

/// How often the graph is drawn.
const GRAPH: Duration = Duration::from_secs(1);

/// The bitrate that is taken for that of a stream before it was measured.
pub(super) const BITRATE: u64 = 2_000_000;

/// What this shard coordinates: one stream.
#[derive(Debug)]
pub(super) struct Helm {
    stream: Arc<Stream>,
    controller: Controller,
    /// What each shard last drew.
    graphs: Vec<(ShardId, u64, Vec<GraphPeer>)>,
    drawn: Mono,
}

/// The shard that coordinates a stream.
fn coordinator(slot: StreamSlot, shards: usize) -> ShardId {
    ShardId((slot.0 as usize % shards.max(1)) as u16)
}

/// A stream's bits per second.
pub(super) fn bitrate(stream: &Stream) -> u64 {
    match stream.health().bitrate_bps {
        0 => BITRATE,
        rate => rate,
    }
}

fn chunks(bitrate: u64) -> f64 {
    bitrate as f64 / (8 * CHUNK) as f64
}

impl Swarm {
    /// Several times a second: counts, and carries orders out.
    pub(super) fn count(&mut self, now: Mono) {
        for index in 0..self.shoals.len() {
            let Some(shoal) = &mut self.shoals[index] else { continue };
            let span = now.since(shoal.counted);
            if span < INTERVAL * 4 / 5 {
                continue;
            }
            shoal.counted = now;
            if shoal.members.is_empty() {
                // Orders that come no more must not bind whoever comes next.
                shoal.orders = Arc::new(Orders::direct(now));
                shoal.stream.share(self.shard).seeds.store(0, Relaxed);
                continue;
            }
            let census = self.census(now, index, span);
            let Some(shoal) = &mut self.shoals[index] else { continue };
            let drawn = now.since(shoal.drawn) >= GRAPH;
            let (slot, stream) = (shoal.stream.slot, Arc::clone(&shoal.stream));
            let graph = if drawn { self.draw(now, index) } else { None };
            let to = coordinator(slot, self.registry.shards());
            let note = Note::Census { stream, shard: self.shard, census: Box::new(census), graph };
            self.write(now, to, note);
        }
    }

    /// Looks at every peer of a stream, and counts it.
    fn census(&mut self, now: Mono, index: usize, span: Duration) -> Census {
        let mut census = Census { span, ..Census::default() };
        let Some(Some(shoal)) = self.shoals.get_mut(index) else { return census };
        census.rescued = std::mem::take(&mut shoal.rescued);
        let (mut seeds, whole) = (0, prices::whole(shoal.bitrate()));
        for place in &shoal.members {
            let Some(session) = self.sessions.get(*place) else { continue };
            let shares = session.extras.shares();
            // The bitrate may be another one than at the last count.
            session.permit.reprice(prices::price(session, shoal.orders.hybrid, whole));
            census.promised += session.permit.bits();
            let Some(told) = session.told.as_deref_mut().filter(|_| shares) else {
                census.plain += 1;
                continue;
            };
            told.tick();
            let Some(since) = told.since else { continue };
            census.peers += 1;
            let row = shoal.orders.plan.get(session.ours);
            let fed = row.is_some_and(|row| !row.parents.contains(&0));
            seeds += u32::from(shoal.orders.hybrid && !fed);
            let upload_kbit = told.state.map_or(0, |state| state.upload_kbit);
            let age = now.since(since);
            if age >= PROVEN {
                census.proven += 1;
                census.upload_kbit += u64::from(upload_kbit);
            }
            if census.members.len() < MEMBERS_MAX {
                census.members.push(Member {
                    channel: session.ours,
                    address: introductions::plain(session.to),
                    upload_kbit,
                    rtt: session.sender.rtt().unwrap_or_default(),
                    relayed: session.sender.pushed_stripes(),
                    age,
                });
            }
        }
        shoal.stream.share(self.shard).seeds.store(seeds, Relaxed);
        census
    }

    /// A sample of who feeds whom here: always the same peers, as far as they are there.
    fn draw(&mut self, now: Mono, index: usize) -> Option<Vec<GraphPeer>> {
        let shoal = self.shoals.get_mut(index)?.as_mut()?;
        shoal.drawn = now;
        let mut sample = std::mem::take(&mut self.ranked);
        sample.clear();
        for place in &shoal.members {
            let told = self.sessions.get(*place).and_then(|session| session.told.as_deref());
            sample.extend(told.map(|told| (u64::from(told.id), *place)));
        }
        if sample.len() > graph::PEERS_MAX {
            sample.select_nth_unstable(graph::PEERS_MAX);
            sample.truncate(graph::PEERS_MAX);
        }
        let mut peer = |place: u32| {
            let session = self.sessions.get(place)?;
            let relay_stripes = session.sender.pushed_stripes();
            let told = session.told.as_deref()?;
            Some(GraphPeer {
                id: told.id,
                relay_stripes,
                links: told.neighbours.iter().collect(),
                upload_kbit: told.state.map_or(0, |state| state.upload_kbit),
                delay_ms: told.report.map_or(0, |report| report.delay_p50_ms),
            })
        };
        let mut drawn = Vec::with_capacity(sample.len());
        drawn.extend(sample.iter().filter_map(|(_, place)| peer(*place)));
        self.ranked = sample;
        Some(drawn)
    }

    /// A note of another shard, or of this one.
    pub fn handle_note(&mut self, now: Mono, note: Note) {
        match note {
            Note::Census { stream, shard, census, graph } => {
                self.decide(now, stream, shard, *census, graph);
            }
            Note::Orders { stream, orders } => self.obey(now, &stream, orders),
            Note::Introduce { channel, address } => self.named(now, channel, address),
        }
    }

    /// This shard coordinates the stream: one of all shards has counted.
    fn decide(
        &mut self,
        now: Mono,
        stream: Arc<Stream>,
        shard: ShardId,
        census: Census,
        graph: Option<Vec<GraphPeer>>,
    ) {
        let index = stream.slot.0 as usize;
        if stream.ended() {
            return;
        }
        if self.helms.len() <= index {
            self.helms.resize_with(index + 1, || None);
        }
        let (mode, strategy) = (self.settings.mode, self.settings.strategy);
        let helm = match &mut self.helms[index] {
            Some(helm) if Arc::ptr_eq(&helm.stream, &stream) => helm,
            place => place.insert(Helm {
                stream: Arc::clone(&stream),
                controller: Controller::new(now, mode).with_strategy(strategy),
                graphs: Vec::new(),
                drawn: now,
            }),
        };
        if let Some(graph) = graph {
            helm.graphs.retain(|(from, ..)| *from != shard);
            helm.graphs.push((shard, u64::from(census.peers + census.plain), graph));
        }
        helm.controller.handle_census(now, shard, census);
        if !helm.controller.is_due(now) {
            return;
        }
        let situation = situation(&stream, self.registry.admission.egress());
        let orders = Arc::new(helm.controller.step(now, &situation));
        helm.note(now, &orders);
        let shards: Vec<ShardId> = helm.controller.shards().collect();
        for shard in shards {
            let (stream, orders) = (Arc::clone(&stream), Arc::clone(&orders));
            self.write(now, shard, Note::Orders { stream, orders });
        }
    }

    /// Takes orders, and begins to tell them.
    fn obey(&mut self, now: Mono, stream: &Arc<Stream>, orders: Arc<Orders>) {
        let Some(shoal) = self.shoals.get_mut(stream.slot.0 as usize) else { return };
        let same = |shoal: &&mut Shoal| Arc::ptr_eq(&shoal.stream, stream);
        let Some(shoal) = shoal.as_mut().filter(same) else { return };
        let turned = shoal.orders.hybrid != orders.hybrid;
        shoal.orders = orders;
        if turned {
            // Before the next count: whoever comes meanwhile must find the price of today.
            self.reprice_all(stream.slot.0 as usize);
        }
        self.begin_round(now, stream.slot.0 as usize);
    }

    /// A peer has asked for the stream for the first time.
    pub(super) fn enrol(&mut self, now: Mono, place: u32) {
        let Some(session) = self.sessions.get(place) else { return };
        let channels = &self.channels;
        let told = session.told.get_or_insert_with(|| Told::new(session.to, channels));
        told.since = Some(now);
    }

    /// Forgets streams that are over.
    pub(super) fn leave_helms(&mut self) {
        let over = |helm: &Helm| helm.stream.ended();
        for helm in self.helms.iter_mut().filter(|helm| helm.as_ref().is_some_and(over)) {
            *helm = None;
        }
    }
}

/// What is known of a stream at the moment.
fn situation(stream: &Stream, budget: &Budget) -> Situation {
    let bitrate = bitrate(stream);
    let (mut sent, mut played) = (0, 0);
    for share in stream.shares() {
        sent += share.swarm_bytes.load(Relaxed);
        played += share.told.relay_bytes.load(Relaxed) + share.told.peer_bytes.load(Relaxed);
    }
    Situation {
        bitrate,
        chunks: chunks(bitrate),
        sent,
        played,
        whole: prices::whole(bitrate),
        promised: budget.promised(),
        budget: budget.most(),
    }
}

impl Helm {
    /// Lets everybody see what was decided.
    fn note(&mut self, now: Mono, orders: &Orders) {
        let swarm = &self.stream.swarm;
        swarm.hybrid.store(orders.hybrid, Relaxed);
        swarm.copies.store(self.controller.copies(), Relaxed);
        swarm.switches.store(self.controller.switches(), Relaxed);
        swarm.forgotten.store(self.controller.forgotten(), Relaxed);
        if now.since(self.drawn) < GRAPH {
            return;
        }
        self.drawn = now;
        let shards: Vec<ShardId> = self.controller.shards().collect();
        self.graphs.retain(|(shard, ..)| shards.contains(shard));
        let all = self.graphs.iter().map(|(_, all, _)| all).sum();
        let drawn = self.graphs.iter().map(|(.., peers)| peers.len()).sum();
        let mut peers: Vec<GraphPeer> = Vec::with_capacity(drawn);
        peers.extend(self.graphs.iter().flat_map(|(.., peers)| peers.iter().cloned()));
        peers.sort_unstable_by_key(|peer| peer.id);
        peers.truncate(graph::PEERS_MAX);
        let graph = Graph { drawn: Some(now), hybrid: orders.hybrid, all, peers };
        self.stream.graph.store(Arc::new(graph));
    }
}
