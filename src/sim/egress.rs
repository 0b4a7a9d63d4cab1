//! What the relay sends, by what it is for: each byte of a datagram that leaves its host is of
//! one class, see [`Class::about`].
//!
//! Nobody tells: it is seen from outside, by what is in each datagram, whom it is for, what was
//! sent to that viewer before, what became of it, and what the viewer asked for. For each viewer
//! that is four bits for each of the chunks of some seconds.

use std::fmt::Write;
use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::sim::flight::Kind;
use crate::sim::world::RELAY;
use crate::wire::ppspp::{Addressing, Message, Messages, split};

/// How long after the relay first wrote to a viewer what it sends belongs to the viewer's coming:
/// it is left to the relay for two seconds and three round trips, and then looks for its parents.
const COMING: Duration = Duration::from_secs(3);

/// Chunks that are remembered: those of so much time, as few as make whole words at least.
const REMEMBERED: Duration = Duration::from_secs(16);

/// What something is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// See [`Class::about`].
    Seeding,
    /// See [`Class::about`].
    Joining,
    /// See [`Class::about`].
    Rescue,
    /// See [`Class::about`].
    Retransmission,
    /// See [`Class::about`].
    Duplicate,
    /// See [`Class::about`].
    Control,
    /// See [`Class::about`].
    Integrity,
}

/// Bytes of each class, in the order of [`Class::ALL`].
pub type Sent = [u64; Class::ALL.len()];

impl Class {
    /// All of them.
    pub const ALL: [Class; 7] = [
        Class::Seeding,
        Class::Joining,
        Class::Rescue,
        Class::Retransmission,
        Class::Duplicate,
        Class::Control,
        Class::Integrity,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Seeding => "seeding",
            Class::Joining => "join bursts",
            Class::Rescue => "rescue",
            Class::Retransmission => "retransmission",
            Class::Duplicate => "duplicates",
            Class::Control => "control",
            Class::Integrity => "integrity",
        }
    }

    /// Its name in the names of columns.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Class::Joining => "joining",
            other => other.name(),
        }
    }

    /// What belongs to it. Of the classes of chunks the last one that fits counts.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Class::Seeding => "chunks that the relay pushed, for the first time to this viewer",
            Class::Rescue => "chunks that the viewer had asked the relay for",
            Class::Joining => {
                "chunks within 3 s after the first datagram from the relay to this viewer, asked \
                 for or not"
            }
            Class::Retransmission => {
                "chunks that the relay had sent to this viewer before, and the network had lost"
            }
            Class::Duplicate => {
                "chunks that the viewer had by then, from whomever, or that were on their way to \
                 it from the relay"
            }
            Class::Control => "datagrams with neither chunks nor hashes",
            Class::Integrity => "datagrams with hashes and signatures",
        }
    }
}

/// Bytes of each class in copies of the stream, of which `copy` bytes are one, in words.
#[must_use]
pub fn in_words(sent: Sent, copy: f64) -> String {
    let all = sent.iter().sum::<u64>() as f64 / copy.max(1.0);
    let mut text = format!("{all:.2} copies:");
    for (class, bytes) in Class::ALL.into_iter().zip(sent) {
        let _ = write!(text, " {} {:.2},", class.name(), bytes as f64 / copy.max(1.0));
    }
    text.pop();
    text
}

/// What is known about the chunks of a viewer: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    /// The relay has sent it, and it was not lost.
    sent: u64,
    /// The relay had sent it, and it was lost.
    lost: u64,
    /// It has come to the viewer, from whomever.
    came: u64,
    /// The viewer has asked the relay for it.
    asked: u64,
}

/// The chunks of one viewer.
#[derive(Debug)]
struct Ledger {
    /// When the relay first sent it anything.
    since: Mono,
    words: Box<[Word]>,
    /// The first word that is not kept yet.
    end: u64,
}

impl Ledger {
    fn new(now: Mono, words: usize) -> Ledger {
        Ledger { since: now, words: vec![Word::default(); words].into(), end: 0 }
    }

    /// The word of a chunk, and its bit. `None` if that is too long ago.
    fn word(&mut self, chunk: u64) -> Option<(&mut Word, u64)> {
        let (at, kept) = (chunk / 64, self.words.len() as u64);
        if at >= self.end {
            for new in self.end.max((at + 1).saturating_sub(kept))..=at {
                self.words[(new % kept) as usize] = Word::default();
            }
            self.end = at + 1;
        }
        let known = at + kept >= self.end;
        known.then(|| (&mut self.words[(at % kept) as usize], 1 << (chunk % 64)))
    }

    fn classify(&mut self, now: Mono, chunk: u64) -> Class {
        let coming = now.since(self.since) < COMING;
        let Some((word, bit)) = self.word(chunk) else { return Class::Seeding };
        let class = if (word.came | word.sent) & bit != 0 {
            Class::Duplicate
        } else if word.lost & bit != 0 {
            Class::Retransmission
        } else if coming {
            Class::Joining
        } else if word.asked & bit != 0 {
            Class::Rescue
        } else {
            Class::Seeding
        };
        word.sent |= bit;
        word.asked &= !bit;
        class
    }
}

/// All that the relay's host sent.
#[derive(Debug)]
pub struct Egress {
    words: usize,
    /// By host.
    ledgers: Vec<Option<Ledger>>,
    /// The newest chunk that was sent to anybody: nobody can have a newer one.
    newest: u64,
    /// Bytes by class.
    pub sent: Sent,
}

impl Egress {
    /// Of a relay whose stream has this bitrate.
    #[must_use]
    pub fn new(bitrate: u64) -> Egress {
        let chunks = bitrate / (8 * CHUNK as u64) * REMEMBERED.as_secs();
        let words = usize::try_from(chunks / 64).unwrap_or(usize::MAX).clamp(4, 1 << 16);
        Egress { words, ledgers: Vec::new(), newest: 0, sent: Sent::default() }
    }

    /// A host sends a datagram to another; nobody knows to which if there is none with this
    /// address. What others than the relay send is nothing here.
    pub fn send(&mut self, now: Mono, ends: [Option<usize>; 2], kind: Kind, bytes: usize) {
        let [Some(RELAY), to] = ends else { return };
        let ledger = to.map(|host| {
            if self.ledgers.len() <= host {
                self.ledgers.resize_with(host + 1, || None);
            }
            self.ledgers[host].get_or_insert_with(|| Ledger::new(now, self.words))
        });
        let class = match kind {
            Kind::Integrity => Class::Integrity,
            Kind::Control => Class::Control,
            Kind::Chunk(chunk) => {
                self.newest = self.newest.max(chunk);
                ledger.map_or(Class::Seeding, |ledger| ledger.classify(now, chunk))
            }
        };
        self.sent[class as usize] += bytes as u64;
    }

    /// What the relay sent to a host was lost.
    pub fn lose(&mut self, host: usize, chunk: u64) {
        if let Some((word, bit)) = self.known(host, chunk) {
            word.sent &= !bit;
            word.lost |= bit;
        }
    }

    /// A chunk has come to a host, from whomever.
    pub fn come(&mut self, host: usize, chunk: u64) {
        if let Some((word, bit)) = self.known(host, chunk) {
            word.came |= bit;
        }
    }

    /// A datagram has come to the relay from a host: it may ask for something.
    pub fn hear(&mut self, host: usize, datagram: &[u8]) {
        let Some((channel, messages)) = split(datagram) else { return };
        if channel == 0 {
            return;
        }
        let oldest = self.newest.saturating_sub(64 * self.words as u64);
        for message in Messages::new(messages, Addressing::Chunks64, CHUNK).map_while(Result::ok) {
            let Message::Request(span) = message else { continue };
            for chunk in span.first.max(oldest)..=span.last.min(self.newest) {
                if let Some((word, bit)) = self.known(host, chunk) {
                    word.asked |= bit;
                }
            }
        }
    }

    /// The word of a chunk that the relay has sent to somebody, for a host to which it has
    /// written.
    fn known(&mut self, host: usize, chunk: u64) -> Option<(&mut Word, u64)> {
        let ledger = self.ledgers.get_mut(host)?.as_mut();
        ledger.filter(|_| chunk <= self.newest)?.word(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ppspp::{Span, Writer};

    fn at(millis: u64) -> Mono {
        Mono::from_millis(50_000 + millis)
    }

    fn send(egress: &mut Egress, millis: u64, host: usize, chunk: u64) -> Class {
        let before = egress.sent;
        egress.send(at(millis), [Some(RELAY), Some(host)], Kind::Chunk(chunk), 7);
        let grown = egress.sent.iter().zip(before).position(|(now, then)| *now == then + 7);
        Class::ALL[grown.unwrap()]
    }

    #[test]
    fn each_datagram_is_of_the_class_that_its_viewer_sees() {
        let mut egress = Egress::new(2_000_000);
        assert_eq!(send(&mut egress, 0, 3, 100), Class::Joining);
        assert_eq!(send(&mut egress, 2_999, 3, 101), Class::Joining);
        assert_eq!(send(&mut egress, 3_000, 3, 102), Class::Seeding);
        assert_eq!(send(&mut egress, 3_000, 4, 102), Class::Joining, "another one comes");
        assert_eq!(send(&mut egress, 3_010, 3, 102), Class::Duplicate, "it is on its way");
        egress.lose(3, 102);
        assert_eq!(send(&mut egress, 3_300, 3, 102), Class::Retransmission);
        egress.come(3, 99);
        assert_eq!(send(&mut egress, 3_400, 3, 99), Class::Duplicate, "a neighbour was sooner");
        egress.send(at(4_000), [Some(RELAY), Some(3)], Kind::Integrity, 200);
        egress.send(at(4_000), [Some(RELAY), None], Kind::Control, 20);
        egress.send(at(4_000), [Some(3), Some(4)], Kind::Chunk(103), 50);
        assert_eq!(egress.sent, [7, 21, 0, 7, 14, 20, 200]);
    }

    #[test]
    fn what_was_asked_for_is_a_rescue_and_only_once() {
        let mut egress = Egress::new(2_000_000);
        send(&mut egress, 0, 3, 205);
        let mut buf = [0; 64];
        let mut writer = Writer::new(&mut buf, 9, Addressing::Chunks64);
        assert!(writer.push(Message::Have(Span::new(1, 2).unwrap())));
        assert!(writer.push(Message::Request(Span::new(200, u64::MAX).unwrap())));
        egress.hear(3, writer.written());
        egress.hear(8, writer.written());
        assert_eq!(send(&mut egress, 5_000, 3, 199), Class::Seeding);
        assert_eq!(send(&mut egress, 5_000, 3, 200), Class::Rescue);
        assert_eq!(send(&mut egress, 5_000, 3, 204), Class::Rescue);
        assert_eq!(send(&mut egress, 5_000, 3, 206), Class::Seeding, "nobody had sent it yet");
        egress.lose(3, 200);
        assert_eq!(send(&mut egress, 5_500, 3, 200), Class::Retransmission);
    }

    #[test]
    fn chunks_of_long_ago_are_forgotten_and_not_taken_for_others() {
        let mut egress = Egress::new(2_000_000);
        let kept = 64 * egress.words as u64;
        for chunk in [0, 1, 64] {
            send(&mut egress, 0, 3, chunk);
        }
        // In the place of the first word.
        assert_eq!(send(&mut egress, 9_000, 3, kept), Class::Seeding);
        assert_eq!(send(&mut egress, 9_000, 3, kept + 1), Class::Seeding);
        assert_eq!(send(&mut egress, 9_000, 3, 64), Class::Duplicate);
        assert_eq!(send(&mut egress, 9_000, 3, 1), Class::Seeding, "nobody remembers");
        // As after a restart, and what nobody can have.
        assert_eq!(send(&mut egress, 9_000, 3, 1 << 40), Class::Seeding);
        egress.come(3, 1 << 50);
        assert_eq!(send(&mut egress, 9_000, 3, (1 << 40) + 1), Class::Seeding);
        assert_eq!(send(&mut egress, 9_000, 3, 1 << 40), Class::Duplicate);
    }

    #[test]
    fn classes_are_counted_in_copies_of_the_stream() {
        let text = in_words([100, 50, 0, 0, 0, 0, 25], 100.0);
        assert!(text.starts_with("1.75 copies: seeding 1.00, join bursts 0.50, rescue"), "{text}");
        assert!(text.ends_with("control 0.00, integrity 0.25"), "{text}");
        assert!(Class::ALL.iter().enumerate().all(|(at, class)| *class as usize == at));
    }
}
