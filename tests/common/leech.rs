//! A minimal peer over a plain socket: handshakes, subscribes or pulls, verifies everything,
//! acknowledges, loses datagrams on purpose and asks for them again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use headwater::base::limits::CHUNK;
use headwater::swarm::integrity::{self, Real, SwarmId, Verifier};
use headwater::wire::ppspp::build::{opening, reply};
use headwater::wire::ppspp::{
    self, Addressing, Bye, Handshake, Hash, Message, MessageSet, Messages, Options, Private, Span,
    Subscribe, Writer,
};

use super::Relay;

/// How a leech gets its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With our extensions: SUBSCRIBE, one ACK per train.
    Push,
    /// A plain peer, which asks for each subtree when it hears of it; one ACK per chunk.
    Pull,
}

/// What is published of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Swarm {
    /// Where.
    pub address: SocketAddr,
    /// Its name.
    pub id: SwarmId,
    /// How chunks are named.
    pub addressing: Addressing,
    /// Chunks of a subtree.
    pub size: u64,
}

impl Swarm {
    /// The swarm of a stream that is live, once it has a name.
    #[track_caller]
    pub fn of(relay: &Relay, stream: &str, addressing: Addressing, size: u64) -> Swarm {
        let address = relay.ready["swarm"].as_str().expect("a swarm").parse().expect("an address");
        let id = super::wait_for("the swarm's id", Duration::from_secs(15), || {
            let status = relay.status(stream)?;
            status["swarm"]["id"].as_str().map(|id| id.parse().expect("an id"))
        });
        Swarm { address, id, addressing, size }
    }

    /// The options of an opening.
    pub fn options(&self, mode: Mode) -> Options<'_> {
        let options = Options::opening(self.id.as_bytes(), self.addressing, 4_096, CHUNK as u32);
        let plain = MessageSet::from_bits(0xf9f0 << 48);
        let messages = if mode == Mode::Push { options.messages } else { Some(plain) };
        Options { messages, ..options }
    }
}

/// One peer.
pub struct Leech {
    /// Its socket, connected to the relay.
    pub socket: UdpSocket,
    swarm: Swarm,
    mode: Mode,
    mine: u32,
    theirs: u32,
    /// Of a hundred datagrams so many are lost.
    loss: u32,
    random: fastrand::Rng,
    verifier: Real,
    leaves: BTreeMap<u64, Vec<Hash>>,
    /// Chunks that are verified.
    pub chunks: BTreeMap<u64, Box<[u8; CHUNK]>>,
    early: BTreeMap<u64, Vec<u8>>,
    /// Where the push, or the pull, began.
    pub first: Option<u64>,
    /// When the subtrees that have begun should be complete.
    due: BTreeMap<u64, Instant>,
    subscribed: Instant,
    begin: Instant,
    /// The last sample.
    delay: i64,
    /// Why the relay closed.
    pub bye: Option<Bye>,
    /// Whether it did.
    pub closed: bool,
    /// Datagrams of DATA that came although the chunk was there.
    pub twice: usize,
    /// Datagrams that were asked for because they were missing.
    pub repaired: usize,
}

impl Leech {
    /// Opens and confirms.
    #[track_caller]
    pub fn join(swarm: Swarm, mode: Mode, loss: u32, seed: u64) -> Leech {
        let local: SocketAddr = match swarm.address {
            SocketAddr::V4(_) => "127.0.0.1:0".parse().expect("an address"),
            SocketAddr::V6(_) => "[::1]:0".parse().expect("an address"),
        };
        let socket = UdpSocket::bind(local).expect("a socket");
        socket.connect(swarm.address).expect("an address");
        let mut random = fastrand::Rng::with_seed(seed);
        let mine = random.u32(1..1 << 31);
        let theirs = open(&socket, &swarm, mode, mine);
        let now = Instant::now();
        let mut leech = Leech {
            socket,
            swarm,
            mode,
            mine,
            theirs,
            loss,
            random,
            verifier: Real::default(),
            leaves: BTreeMap::new(),
            chunks: BTreeMap::new(),
            early: BTreeMap::new(),
            first: None,
            due: BTreeMap::new(),
            subscribed: now,
            begin: now,
            delay: 0,
            bye: None,
            closed: false,
            twice: 0,
            repaired: 0,
        };
        leech.confirm();
        leech
    }

    fn confirm(&mut self) {
        self.subscribed = Instant::now();
        match self.mode {
            Mode::Push => self.send(&[Message::Private(Private::Subscribe(Subscribe {
                start: Subscribe::NEXT,
                stripes: Subscribe::ALL,
                window: 0,
            }))]),
            Mode::Pull => self.send(&[]),
        }
    }

    /// Sends one datagram.
    pub fn send(&self, messages: &[Message<'_>]) {
        let mut buf = [0; 1_400];
        let mut writer = Writer::new(&mut buf, self.theirs, self.swarm.addressing);
        messages.iter().for_each(|message| assert!(writer.push(*message), "{message:?}"));
        // The relay may have gone: that is seen when receiving.
        let _ = self.socket.send(writer.written());
    }

    /// Acknowledges every train whose last chunk has come, and looks at nothing else.
    pub fn skim(&mut self) {
        self.socket.set_nonblocking(true).expect("a mode");
        let mut buffer = [0; 2_048];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            let (_, messages) = ppspp::split(&buffer[..n]).expect("a channel");
            match Messages::new(messages, self.swarm.addressing, CHUNK).next() {
                Some(Ok(Message::Data { chunk, stamp, .. })) => {
                    let span = self.chunks_of(chunk / self.swarm.size);
                    let now = self.begin.elapsed().as_micros() as u64;
                    if span.last == chunk {
                        let delay = now.wrapping_sub(stamp) as i64;
                        self.send(&[Message::Ack { span, delay }]);
                    }
                }
                Some(Ok(Message::Private(Private::Bye(_)) | Message::Handshake(_))) => {
                    self.closed = true;
                }
                _ => {}
            }
        }
        if self.subscribed.elapsed() > Duration::from_secs(1) {
            self.confirm();
        }
    }

    /// Takes part until `until`, or the relay closes.
    pub fn run(&mut self, until: Instant) {
        let mut buffer = [0; 2_048];
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        while Instant::now() < until && !self.closed {
            match self.socket.recv(&mut buffer) {
                Ok(n) if self.random.u32(0..100) >= self.loss => {
                    let datagram = buffer[..n].to_vec();
                    self.take(&datagram);
                }
                Ok(_) => {}
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                    // The relay has gone; what it said last may still be there.
                    ErrorKind::ConnectionRefused => super::pass(Duration::from_millis(5)),
                    _ => panic!("{e}"),
                },
            }
            self.repair();
            if self.subscribed.elapsed() > Duration::from_millis(500) {
                self.confirm();
                self.acknowledge_newest();
            }
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        let (channel, messages) = ppspp::split(datagram).expect("a channel");
        assert_eq!(channel, self.mine, "our channel");
        let mut signed = None;
        let mut leaves = BTreeMap::new();
        let mut munro = None;
        let mut haves = Vec::new();
        for message in Messages::new(messages, self.swarm.addressing, CHUNK) {
            match message.expect("a datagram that can be read") {
                Message::Integrity { span, hash } if span.first == span.last => {
                    leaves.insert(span.first, *hash);
                }
                Message::Integrity { span, hash } => munro = Some((span, *hash)),
                Message::SignedIntegrity { span, ntp, signature } => {
                    signed = Some((span, ntp, *signature));
                }
                Message::Have(span) => haves.push(span),
                Message::Data { chunk, stamp, bytes } => self.data(chunk, stamp, bytes),
                Message::Private(Private::Bye(bye)) => self.bye = Some(bye),
                Message::Handshake(handshake) if handshake.channel == 0 => self.closed = true,
                // The answer to a repeated opening.
                Message::Handshake(_) => {}
                other => panic!("{other:?} from a source"),
            }
        }
        if let (Some((span, ntp, signature)), Some((of, munro))) = (signed, munro) {
            assert_eq!(span, of);
            self.hashes(span, ntp, &signature, &munro, leaves.into_values().collect());
        }
        haves.into_iter().for_each(|span| self.news(span));
    }

    fn hashes(
        &mut self,
        span: Span,
        ntp: u64,
        signature: &[u8; 64],
        munro: &Hash,
        leaves: Vec<Hash>,
    ) {
        assert_eq!((span.chunks(), span.first % self.swarm.size), (self.swarm.size, 0));
        assert_eq!(integrity::munro(&leaves), *munro, "the leaves make the munro");
        let text = integrity::plaintext(self.swarm.addressing, span, ntp, munro);
        assert!(self.verifier.verify(&self.swarm.id, text.as_ref(), signature), "signed");
        self.leaves.insert(span.first / self.swarm.size, leaves);
        if self.mode == Mode::Push {
            let newest = *self.first.get_or_insert(span.first) / self.swarm.size;
            // Whole trains may be lost as well.
            let newest = self.due.last_key_value().map_or(newest, |(n, _)| *n).max(newest);
            (newest..span.first / self.swarm.size).for_each(|number| {
                self.due.entry(number).or_insert_with(Instant::now);
            });
            self.hold(span.first / self.swarm.size, QUIET);
        }
        let early: Vec<_> = self.early.range(span.first..=span.last).map(|(n, _)| *n).collect();
        for chunk in early {
            let bytes = self.early.remove(&chunk).expect("it is there");
            self.keep(chunk, &bytes);
        }
    }

    fn data(&mut self, chunk: u64, stamp: u64, bytes: &[u8]) {
        assert!(stamp > 0, "the time of sending");
        if self.chunks.contains_key(&chunk) {
            self.twice += 1;
        } else if self.leaves.contains_key(&(chunk / self.swarm.size)) {
            self.keep(chunk, bytes);
        } else {
            self.early.insert(chunk, bytes.to_vec());
        }
        self.delay = (self.begin.elapsed().as_micros() as u64).wrapping_sub(stamp) as i64;
        let (delay, number) = (self.delay, chunk / self.swarm.size);
        let span = self.chunks_of(number);
        self.hold(number, QUIET);
        let whole = (span.first..=span.last).all(|chunk| self.chunks.contains_key(&chunk));
        match self.mode {
            Mode::Pull => self.send(&[Message::Ack { span: Span::one(chunk), delay }]),
            Mode::Push if whole => self.send(&[Message::Ack { span, delay }]),
            Mode::Push => {}
        }
    }

    fn keep(&mut self, chunk: u64, bytes: &[u8]) {
        let leaves = &self.leaves[&(chunk / self.swarm.size)];
        let leaf = leaves[(chunk % self.swarm.size) as usize];
        assert_eq!(self.verifier.leaf(bytes), leaf, "chunk {chunk}");
        self.chunks.insert(chunk, Box::new(bytes.try_into().expect("a whole chunk")));
    }

    /// A plain peer asks for what it hears of.
    fn news(&mut self, span: Span) {
        if self.mode == Mode::Push {
            return;
        }
        let first = span.first.max(self.first.unwrap_or(span.last + 1 - self.swarm.size));
        self.first.get_or_insert(first);
        for number in first / self.swarm.size..=span.last / self.swarm.size {
            self.due.entry(number).or_insert_with(Instant::now);
        }
    }

    /// Whoever waits for something of this subtree waits on.
    fn hold(&mut self, number: u64, patience: Duration) {
        self.due.insert(number, Instant::now() + patience);
    }

    /// Acknowledges what there is of subtrees that should be complete by now, and asks for what
    /// is missing; for one chunk if the hashes are.
    fn repair(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= now).map(|(n, _)| *n).collect();
        for number in due.into_iter().take(16) {
            let all = self.chunks_of(number);
            let mut runs = [Vec::new(), Vec::new()];
            for chunk in all.first..=all.last {
                let runs = &mut runs[usize::from(!self.chunks.contains_key(&chunk))];
                match runs.last_mut() {
                    Some(Span { last, .. }) if *last + 1 == chunk => *last = chunk,
                    _ => runs.push(Span::one(chunk)),
                }
            }
            let [there, mut holes] = runs;
            if holes.is_empty() {
                self.due.remove(&number);
                continue;
            }
            self.hold(number, Duration::from_millis(150));
            let begun = self.early.range(all.first..=all.last).next().is_some();
            if begun && !self.leaves.contains_key(&number) {
                holes = vec![Span::one(all.first)];
            } else if self.mode == Mode::Push {
                self.repaired += holes.iter().map(|run| run.chunks() as usize).sum::<usize>();
            }
            let delay = self.delay;
            let acks = there.into_iter().map(|span| Message::Ack { span, delay });
            let messages: Vec<_> = acks.chain(holes.into_iter().map(Message::Request)).collect();
            self.send(&messages);
        }
    }

    fn chunks_of(&self, number: u64) -> Span {
        let first = number * self.swarm.size;
        Span { first, last: first + self.swarm.size - 1 }
    }

    /// As a subscriber repeats itself.
    fn acknowledge_newest(&self) {
        if let Some((newest, _)) = self.chunks.last_key_value() {
            self.send(&[Message::Ack { span: Span::one(*newest), delay: self.delay }]);
        }
    }

    /// Closes.
    pub fn leave(&self) {
        self.send(&[Message::Private(Private::Bye(Bye::Leaving)), CLOSE]);
    }

    /// All chunks from the first one on, without a gap.
    #[track_caller]
    pub fn bytes(&self) -> Vec<u8> {
        let first = self.first.expect("it began");
        let run = (first..).map_while(|chunk| self.chunks.get(&chunk));
        run.flat_map(|chunk| chunk.iter().copied()).collect()
    }

    /// The newest chunk.
    pub fn newest(&self) -> u64 {
        self.chunks.last_key_value().map_or(0, |(newest, _)| *newest)
    }
}

/// How long after the last datagram of a train its holes are asked for.
const QUIET: Duration = Duration::from_millis(25);

const CLOSE: Message<'static> = Message::Handshake(Handshake::CLOSE);

/// Opens until there is an answer; checks it.
#[track_caller]
fn open(socket: &UdpSocket, swarm: &Swarm, mode: Mode, mine: u32) -> u32 {
    let mut buf = [0; 256];
    let length = opening(&mut buf, mine, swarm.options(mode)).expect("an opening");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    for _ in 0..30 {
        socket.send(&buf[..length]).expect("a datagram");
        let mut answer = [0; 2_048];
        let Ok(n) = socket.recv(&mut answer) else { continue };
        assert!(n <= length, "no reply is larger than its request: {n} of {length}");
        let (channel, messages) = ppspp::split(&answer[..n]).expect("a channel");
        assert_eq!(channel, mine);
        let first = Messages::new(messages, swarm.addressing, CHUNK).next();
        let Some(Ok(Message::Handshake(Handshake { channel, options }))) = first else {
            panic!("no handshake");
        };
        assert_eq!(options.judge_reply(swarm.addressing, CHUNK as u32), Ok(()));
        let same = reply(&mut [0; 256], mine, channel, options, None);
        assert!(same.is_some_and(|length| length <= n), "nothing but HAVE behind it");
        return channel;
    }
    panic!("no answer");
}
