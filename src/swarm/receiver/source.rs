//! A source for tests of whoever receives: it signs random bytes, pushes and answers.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::swarm::integrity::{Hash, KeyPair, Signature, Signer, leaf, munro, ntp, plaintext};
use crate::wire::ppspp::{SignedSubtree, Writer, build, split};

/// What its clock shows at the origin of ours, in milliseconds since 1970.
pub(crate) const START: u64 = 1_767_225_600_000;
pub(crate) const US: u32 = 0x5eed;
pub(crate) const THEM: u32 = 0x8000_0001;

pub(crate) struct Signed16 {
    leaves: Vec<Hash>,
    munro: Hash,
    ntp: u64,
    signature: Signature,
}

/// A source that signs a subtree of random bytes every `period`.
pub(crate) struct Source {
    pub(crate) key: KeyPair,
    pub(crate) profile: Profile,
    pub(crate) signed: Vec<Signed16>,
    pub(crate) first: u64,
    /// The other end's channel.
    pub(crate) us: u32,
    /// Sends proofs from munro to chunk instead of all leaves.
    pub(crate) uncles: bool,
    pub(crate) private: bool,
    pub(crate) pushes: bool,
    pub(crate) asked: BTreeSet<u64>,
    pub(crate) shown: BTreeSet<u64>,
    /// What came: kinds of messages, per datagram.
    pub(crate) heard: Vec<Vec<u8>>,
    pub(crate) acked: BTreeMap<u64, u32>,
    pub(crate) delays: Vec<i64>,
}

pub(crate) fn chunk(id: u64) -> [u8; CHUNK] {
    let mut bytes = [0; CHUNK];
    fastrand::Rng::with_seed(id).fill(&mut bytes);
    bytes
}

impl Source {
    pub(crate) fn new(size: usize, addressing: Addressing, first: u64) -> Source {
        let key = KeyPair::generate().unwrap();
        let size = SubtreeSize::new(size).unwrap();
        let profile = Profile { swarm_id: key.swarm_id(), addressing, size };
        Source {
            key,
            profile,
            signed: Vec::new(),
            first,
            us: US,
            uncles: false,
            private: true,
            pushes: false,
            asked: BTreeSet::new(),
            shown: BTreeSet::new(),
            heard: Vec::new(),
            acked: BTreeMap::new(),
            delays: Vec::new(),
        }
    }

    pub(crate) fn n(&self) -> u64 {
        self.profile.size.chunks() as u64
    }

    pub(crate) fn end(&self) -> u64 {
        self.first + self.signed.len() as u64 * self.n()
    }

    pub(crate) fn have(&self) -> Option<Span> {
        Span::new(self.first, self.end().checked_sub(1)?)
    }

    /// Signs the next subtree; what it pushes.
    pub(crate) fn sign(&mut self, now: Mono) -> Vec<Vec<u8>> {
        let first = self.end();
        let leaves: Vec<Hash> = (first..first + self.n()).map(|id| leaf(&chunk(id))).collect();
        let (munro, ntp) =
            (munro(&leaves), ntp::from_unix_millis(START + now.as_nanos() / 1_000_000));
        let span = Span::new(first, first + self.n() - 1).unwrap();
        let text = plaintext(self.profile.addressing, span, ntp, &munro);
        let signature = self.key.sign(text.as_ref()).unwrap();
        self.signed.push(Signed16 { leaves, munro, ntp, signature });
        if !self.pushes && self.private {
            return Vec::new();
        }
        if !self.pushes {
            let mut buf = [0; 40];
            let mut writer = Writer::new(&mut buf, self.us, self.profile.addressing);
            assert!(writer.push(Message::Have(span)));
            return vec![writer.written().to_vec()];
        }
        let data = (span.first..=span.last).map(|id| self.data(id, now, None));
        let mut train = vec![self.hashes(first)];
        train.extend(data.collect::<Vec<_>>());
        train
    }

    fn subtree(&self, id: u64) -> (&Signed16, u64) {
        let number = (id - self.first) / self.n();
        (&self.signed[number as usize], self.first + number * self.n())
    }

    pub(crate) fn hashes(&self, id: u64) -> Vec<u8> {
        let (signed, first) = self.subtree(id);
        let Signed16 { leaves, munro, ntp, signature } = signed;
        let subtree = SignedSubtree { first, leaves, munro, ntp: *ntp, signature };
        let mut buf = [0; 1_400];
        let addressing = self.profile.addressing;
        let pad = build::train_head(addressing, leaves.len(), CHUNK);
        let n = build::hash_datagram(&mut buf, self.us, addressing, &subtree, true, pad).unwrap();
        buf[..n].to_vec()
    }

    fn data(&self, id: u64, now: Mono, uncles: Option<u64>) -> Vec<u8> {
        let mut buf = [0; 2_000];
        let mut writer = Writer::new(&mut buf, self.us, self.profile.addressing);
        if let Some(id) = uncles {
            let (signed, first) = self.subtree(id);
            let (mut width, place) = (1, (id - first) as usize);
            while width < self.n() as usize {
                let start = ((place / width) ^ 1) * width;
                let hash = munro(&signed.leaves[start..start + width]);
                let start = first + start as u64;
                let span = Span::new(start, start + width as u64 - 1).unwrap();
                assert!(writer.push(Message::Integrity { span, hash: &hash }));
                width *= 2;
            }
        }
        let stamp = now.as_nanos() / 1_000 + 77_000_000;
        assert!(writer.push(Message::Data { chunk: id, stamp, bytes: &chunk(id) }));
        writer.written().to_vec()
    }

    fn munro(&self, id: u64) -> Vec<u8> {
        let (signed, first) = self.subtree(id);
        let span = Span::new(first, first + self.n() - 1).unwrap();
        let mut buf = [0; 300];
        let mut writer = Writer::new(&mut buf, self.us, self.profile.addressing);
        let Signed16 { munro, ntp, signature, .. } = signed;
        assert!(writer.push(Message::Integrity { span, hash: munro }));
        assert!(writer.push(Message::SignedIntegrity { span, ntp: *ntp, signature }));
        writer.written().to_vec()
    }

    /// Takes a datagram; what it answers.
    pub(crate) fn take(&mut self, now: Mono, datagram: &[u8]) -> Vec<Vec<u8>> {
        let (channel, messages) = split(datagram).unwrap();
        assert_eq!(channel, THEM, "to our channel");
        let mut answers = Vec::new();
        let mut kinds = Vec::new();
        for message in Messages::new(messages, self.profile.addressing, CHUNK) {
            let message = message.unwrap();
            kinds.push(message.kind());
            match message {
                Message::Ack { span, delay } => {
                    (span.first..=span.last).for_each(|id| *self.acked.entry(id).or_default() += 1);
                    self.delays.push(delay);
                }
                Message::Request(span) => {
                    let mut last = None;
                    for id in span.first..=span.last {
                        assert!(id < self.end(), "asked for {id}, which does not exist");
                        assert!(id >= self.first, "asked for {id}, which never existed");
                        let (again, number) = (!self.asked.insert(id), id / self.n());
                        let show = self.shown.insert(number) || again;
                        if show && last != Some(number) {
                            answers.push(match self.uncles {
                                true => self.munro(id),
                                false => self.hashes(id),
                            });
                            last = Some(number);
                        }
                        answers.push(self.data(id, now, self.uncles.then_some(id)));
                    }
                }
                Message::Private(Private::Subscribe(_)) => self.pushes = true,
                _ => {}
            }
        }
        self.heard.push(kinds);
        answers
    }
}
