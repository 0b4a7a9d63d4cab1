//! Honest peers: they verify every signature and every chunk, and look at the time markers in
//! what is proven.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::base::limits::{CHUNK, SUBTREE_CHUNKS_MAX, TS_PACKET};
use crate::bench::marker::{self, Marker};
use crate::bench::playout::PlayOut;
use crate::bench::probe::{Probes, Window};
use crate::bench::swarm::facts::Facts;
use crate::bench::{Outcome, machine};
use crate::swarm::integrity::{Hash, Real, SwarmId, Verifier, plaintext};
use crate::wire::ppspp::{
    Addressing, Handshake, Message, Messages, Options, Private, Span, Subscribe, Writer, build,
    split,
};

/// How long a read may wait before the probe looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// An opening that was not answered is repeated after this time.
const REPEAT: Duration = Duration::from_millis(400);

/// How long it may take to join, and how long nothing may come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A subscription is repeated with the first ACK after this time.
const RENEW: Duration = Duration::from_secs(1);

/// Our channel: a probe has a socket of its own.
const OURS: u32 = 1;

/// Chunks that a probe says it keeps.
const WINDOW: u64 = 4_096;

/// Starts `count` probes on `cores` that play `behind` live. What comes is not counted yet.
///
/// # Errors
/// If a thread cannot be started.
pub fn start(count: usize, facts: &Facts, behind: Duration, cores: &[usize]) -> Outcome<Probes> {
    Probes::of(count, |index| {
        let (facts, cores) = (facts.clone(), cores.to_vec());
        move |window: &Window| {
            machine::pin(&cores)?;
            let socket = socket(facts.udp, index)?;
            Probe::new(&facts, behind)?.watch(&socket, window)
        }
    })
}

fn socket(to: SocketAddr, index: usize) -> Outcome<UdpSocket> {
    let any = if to.is_ipv4() { "127.0.2.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).map_err(|why| format!("probe {index}: {why}"))?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.connect(to)?;
    Ok(socket)
}

/// The subtree that is on its way.
struct Subtree {
    span: Span,
    leaves: [Option<Hash>; SUBTREE_CHUNKS_MAX],
    /// Chunks that came and were whole.
    came: u32,
}

struct Probe {
    id: SwarmId,
    addressing: Addressing,
    verifier: Real,
    subtree: Option<Subtree>,
    play: PlayOut,
    theirs: Option<u32>,
    subscribed: Instant,
}

impl Probe {
    fn new(facts: &Facts, behind: Duration) -> Outcome<Probe> {
        Ok(Probe {
            id: facts.id()?,
            addressing: facts.method()?,
            verifier: Real::default(),
            subtree: None,
            play: PlayOut::new(behind)?,
            theirs: None,
            subscribed: Instant::now(),
        })
    }

    fn watch(mut self, socket: &UdpSocket, window: &Window) -> Outcome<PlayOut> {
        let (mut buffer, mut answer) = ([0; 2_048], [0; 128]);
        let (mut heard, mut opened) = (Instant::now(), None);
        while !window.is_over(marker::now()) {
            if self.theirs.is_none() && opened.is_none_or(|at: Instant| at.elapsed() >= REPEAT) {
                opened = Some(Instant::now());
                let id = self.id;
                let chunk = CHUNK as u32;
                let options = Options::opening(id.as_bytes(), self.addressing, WINDOW, chunk);
                let len = build::opening(&mut answer, OURS, options).ok_or("an opening")?;
                socket.send(&answer[..len])?;
            }
            match socket.recv(&mut buffer) {
                Ok(n) => {
                    heard = Instant::now();
                    if let Some(len) = self.handle(&buffer[..n], window, &mut answer)? {
                        socket.send(&answer[..len])?;
                    }
                }
                Err(why)
                    if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    if heard.elapsed() > PATIENCE {
                        return Err("a probe of the swarm hears nothing".into());
                    }
                }
                Err(why) => return Err(why.into()),
            }
        }
        if let Some(theirs) = self.theirs {
            socket.send(&build::close(theirs))?;
        }
        Ok(self.play)
    }

    /// A datagram came; the length of the answer.
    fn handle(&mut self, bytes: &[u8], window: &Window, out: &mut [u8]) -> Outcome<Option<usize>> {
        let now = marker::now();
        let Some((OURS, messages)) = split(bytes) else { return Ok(None) };
        let (mut munro, mut stamped, mut new) = (None, None, false);
        for message in Messages::new(messages, self.addressing, CHUNK) {
            match message.map_err(|why| format!("a probe was sent nonsense: {why:?}"))? {
                Message::Handshake(Handshake { channel: 0, .. }) => {
                    return Err("the relay closed a probe".into());
                }
                Message::Handshake(handshake) => {
                    new |= self.theirs.replace(handshake.channel).is_none();
                }
                Message::Integrity { span, hash } if span.chunks() > 1 => {
                    munro = Some((span, *hash));
                }
                Message::SignedIntegrity { span, ntp, signature } => {
                    let (of, hash) = munro.ok_or("a signature without its munro")?;
                    let text = plaintext(self.addressing, span, ntp, &hash);
                    let good = self.verifier.verify(&self.id, text.as_ref(), signature);
                    if of != span || !good {
                        return Err(format!("the signature of {span:?} is wrong").into());
                    }
                    self.subtree = Some(Subtree { span, leaves: [None; 16], came: 0 });
                }
                Message::Integrity { span, hash } => self.leaf(span.first, *hash),
                Message::Data { chunk, stamp, bytes } if self.proven(chunk, bytes)? => {
                    stamped = Some(stamp);
                    self.look(now, bytes, window);
                }
                Message::Private(Private::Bye(reason)) => {
                    return Err(format!("the relay said goodbye to a probe: {reason:?}").into());
                }
                _ => {}
            }
        }
        if let Some((span, hash)) = munro {
            self.whole(span, &hash)?;
        }
        Ok(self.answer(now, stamped, new, out))
    }

    fn leaf(&mut self, chunk: u64, hash: Hash) {
        let Some(subtree) = &mut self.subtree else { return };
        let at = chunk.wrapping_sub(subtree.span.first) as usize;
        if let Some(leaf) = subtree.leaves.get_mut(at) {
            *leaf = Some(hash);
        }
    }

    /// The leaves of a hash datagram must make its munro.
    fn whole(&mut self, span: Span, munro: &Hash) -> Outcome<()> {
        let Some(subtree) = self.subtree.as_ref().filter(|subtree| subtree.span == span) else {
            return Ok(());
        };
        let leaves: Vec<Hash> = subtree.leaves.iter().copied().flatten().collect();
        if leaves.len() as u64 != span.chunks() || self.verifier.munro(&leaves) != *munro {
            return Err(format!("the leaves of {span:?} do not make what was signed").into());
        }
        Ok(())
    }

    /// Whether the chunk is one of the subtree that is on its way, and whole.
    fn proven(&mut self, chunk: u64, bytes: &[u8]) -> Outcome<bool> {
        let Some(subtree) = self.subtree.as_mut().filter(|s| s.span.contains(chunk)) else {
            // Its hash datagram was lost.
            return Ok(false);
        };
        let at = (chunk - subtree.span.first) as usize;
        if subtree.leaves.get(at).copied().flatten() != Some(self.verifier.leaf(bytes)) {
            return Err(format!("chunk {chunk} is not what was signed").into());
        }
        subtree.came += 1;
        Ok(true)
    }

    fn look(&mut self, now: u64, chunk: &[u8], window: &Window) {
        if !window.has(now) {
            return;
        }
        for packet in chunk.as_chunks::<TS_PACKET>().0 {
            if let Some(marker) = Marker::read(packet) {
                self.play.handle(now, marker);
                window.tell(now.saturating_sub(marker.sent) / 1_000);
            }
        }
    }

    /// One ACK when a subtree's last chunk has come, and the subscription now and then.
    fn answer(&mut self, now: u64, stamp: Option<u64>, new: bool, out: &mut [u8]) -> Option<usize> {
        let theirs = self.theirs?;
        let done = self.subtree.as_ref().filter(|s| u64::from(s.came) == s.span.chunks());
        let span = done.map(|subtree| subtree.span);
        if !new && span.is_none() {
            return None;
        }
        let mut writer = Writer::new(out, theirs, self.addressing);
        let mut whole = true;
        if let Some((span, stamp)) = span.zip(stamp) {
            let delay = (now / 1_000).wrapping_sub(stamp).cast_signed();
            whole &= writer.push(Message::Ack { span, delay });
            self.subtree = None;
        }
        if new || self.subscribed.elapsed() >= RENEW {
            self.subscribed = Instant::now();
            let all = Subscribe { start: Subscribe::NEXT, stripes: Subscribe::ALL, window: 0 };
            whole &= writer.push(Message::Private(Private::Subscribe(all)));
        }
        whole.then_some(writer.len())
    }
}
