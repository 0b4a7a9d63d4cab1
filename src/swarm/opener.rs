//! The initiator's half of the handshake (RFC 7574, 3.1.1): an opening, again and again, until
//! it is answered on the channel that it named.

use std::time::Duration;

use crate::base::limits::CHUNK;
use crate::base::time::Mono;
use crate::swarm::receiver::Profile;
use crate::wire::ppspp::{Message, Messages, Options, Span, build, kind};

/// When the opening is sent again, from the first one on.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1_500),
];

/// No answer for this long: there is no UDP here.
pub const NO_ANSWER: Duration = Duration::from_millis(700);

/// After this time an answer is not waited for any longer: the source has forgotten us.
const OVER: Duration = Duration::from_secs(3);

/// HAVEs of the answer that are looked at.
const HAVES: usize = 4;

/// The round trip of a link whose round trip nobody has measured.
const RTT_GUESS: Duration = Duration::from_millis(100);

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The source's channel.
    pub channel: u32,
    /// It speaks our private messages.
    pub private: bool,
    /// And those that came later than SUBSCRIBE: it wants to hear of links, and longer reports.
    pub extended: bool,
    /// It can be asked for other peers.
    pub names_peers: bool,
    /// It measures the line to it.
    pub measures: bool,
    /// Time from the opening to the answer.
    pub rtt: Duration,
    /// The chunks that it keeps behind its newest, if it said so.
    pub window: Option<u64>,
    have: [Option<Span>; HAVES],
}

impl Opened {
    /// A link that the other side opened, whose channel is `channel`: it has shown nothing yet.
    #[must_use]
    pub const fn by_other(channel: u32, private: bool) -> Opened {
        let (extended, names_peers, measures, rtt) = (false, false, false, RTT_GUESS);
        let (window, have) = (None, [None; HAVES]);
        Opened { channel, private, extended, names_peers, measures, rtt, window, have }
    }

    /// What the source has, in the order in which it said so.
    pub fn have(&self) -> impl Iterator<Item = Span> {
        self.have.into_iter().flatten()
    }
}

/// Whether whoever shook hands so speaks our private messages.
pub(super) fn is_private(options: &Options<'_>) -> bool {
    options.messages.is_some() && options.knows(kind::SUBSCRIBE)
}

/// An opening under way.
#[derive(Debug)]
pub struct Opener {
    profile: Profile,
    /// Ours: where the answer comes.
    channel: u32,
    begun: Mono,
    first: Mono,
    sent: usize,
}

impl Opener {
    /// Opens `channel`, a random number that nobody can guess.
    #[must_use]
    pub fn new(profile: Profile, channel: u32, now: Mono) -> Opener {
        Opener { profile, channel, begun: now, first: now, sent: 0 }
    }

    /// Our channel.
    #[must_use]
    pub fn channel(&self) -> u32 {
        self.channel
    }

    /// How often the opening was sent, if it is due once more.
    #[must_use]
    pub fn due(&self, now: Mono) -> Option<usize> {
        self.next_send().is_some_and(|at| at <= now).then_some(self.sent)
    }

    /// Writes the opening if it is due. `window`: chunks that we keep.
    pub fn poll_datagram(&mut self, now: Mono, window: u64, buf: &mut [u8]) -> Option<usize> {
        self.due(now)?;
        self.sent += 1;
        if self.sent == 1 {
            self.first = now;
        }
        let Profile { swarm_id, addressing, .. } = &self.profile;
        let chunk = CHUNK as u32;
        let options = Options::opening(swarm_id.as_bytes(), *addressing, window, chunk);
        build::opening(buf, self.channel, options)
    }

    /// Takes the messages of a datagram on our channel. `None`: no answer that fits.
    #[must_use]
    pub fn handle_datagram(&self, now: Mono, messages: &[u8]) -> Option<Opened> {
        let mut messages = Messages::new(messages, self.profile.addressing, CHUNK);
        let Some(Ok(Message::Handshake(answer))) = messages.next() else { return None };
        let options = answer.options;
        let fits = options.judge_reply(self.profile.addressing, CHUNK as u32).is_ok();
        let same = options.swarm_id.is_none_or(|id| id == self.profile.swarm_id.as_bytes());
        if answer.channel == 0 || !fits || !same {
            return None;
        }
        let mut have = [None; HAVES];
        let spans = messages.map_while(Result::ok).filter_map(|message| match message {
            Message::Have(span) => Some(span),
            _ => None,
        });
        have.iter_mut().zip(spans).for_each(|(to, span)| *to = Some(span));
        Some(Opened {
            channel: answer.channel,
            private: is_private(&options),
            extended: is_private(&options) && options.knows(kind::LINKS),
            names_peers: options.messages.is_some() && options.knows(kind::PEX_REQUEST),
            measures: is_private(&options) && options.knows(kind::PROBE),
            // Which opening was answered, nobody can tell. Too long costs a little time once; too
            // short, everything is asked for again while it is on its way.
            rtt: now.since(self.first),
            window: options.window,
            have,
        })
    }

    /// Whether there has been no answer for so long that there is no UDP here.
    #[must_use]
    pub fn is_silent(&self, now: Mono) -> bool {
        now.since(self.begun) >= NO_ANSWER
    }

    /// Whether an answer is not waited for any longer.
    #[must_use]
    pub fn is_over(&self, now: Mono) -> bool {
        now.since(self.begun) >= OVER
    }

    /// When something is to be done: a repetition, or one of the two limits.
    #[must_use]
    pub fn next_deadline(&self, now: Mono) -> Mono {
        let limits = [NO_ANSWER, OVER].map(|limit| self.begun + limit);
        let limits = limits.into_iter().filter(|at| *at > now);
        limits.chain(self.next_send()).min().unwrap_or(now)
    }

    fn next_send(&self) -> Option<Mono> {
        match self.sent.checked_sub(1) {
            None => Some(self.begun),
            Some(sent) => AGAIN.get(sent).map(|after| self.begun + *after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::records::SubtreeSize;
    use crate::swarm::integrity::{KeyPair, Signer};
    use crate::wire::ppspp::{Addressing, MessageSet, channel, split};

    fn ms(n: u64) -> Mono {
        Mono::from_millis(n)
    }

    fn opener(addressing: Addressing) -> Opener {
        let swarm_id = KeyPair::generate().unwrap().swarm_id();
        let size = SubtreeSize::new(16).unwrap();
        Opener::new(Profile { swarm_id, addressing, size }, 0x5eed, ms(50))
    }

    #[test]
    fn openings_are_sent_again_until_it_is_over() {
        let mut opener = opener(Addressing::Chunks64);
        let (mut buf, mut sent) = ([0; 200], Vec::new());
        let mut now = ms(50);
        while !opener.is_over(now) {
            if let Some(n) = opener.poll_datagram(now, 4_096, &mut buf) {
                assert_eq!((n, channel(&buf)), (113, Some(0)));
                sent.push(now);
                assert!(opener.poll_datagram(now, 4_096, &mut buf).is_none());
            }
            assert_eq!(opener.is_silent(now), now >= ms(750));
            now = opener.next_deadline(now);
        }
        assert_eq!(sent, [50, 150, 350, 750, 1_550].map(ms));
        assert_eq!(now, ms(3_050));
    }

    #[test]
    fn an_answer_counts_only_if_it_fits() {
        for addressing in [Addressing::Chunks32, Addressing::Chunks64] {
            let mut opener = opener(addressing);
            let mut buf = [0; 200];
            assert!(opener.poll_datagram(ms(50), 4_096, &mut buf).is_some());
            let ask = |options, channel, have: &[Span]| {
                let mut buf = [0; 200];
                let spans = have.iter().copied();
                let n = build::reply(&mut buf, 0x5eed, channel, options, spans).unwrap();
                opener.handle_datagram(ms(80), split(&buf[..n]).unwrap().1)
            };
            let options = Options::reply(addressing, 100, CHUNK as u32);
            let span = Span { first: 32, last: 47 };
            let opened = ask(options, 7, &[span]).unwrap();
            assert_eq!((opened.channel, opened.private), (7, true));
            assert!(opened.measures);
            let direct = MessageSet::OURS.without(kind::PROBE);
            let direct = Options { messages: Some(direct), ..options };
            assert!(!ask(direct, 7, &[]).unwrap().measures);
            assert_eq!(opened.have().collect::<Vec<_>>(), [span]);
            assert_eq!(opened.rtt, Duration::from_millis(30));
            let plain = Options { messages: None, ..options };
            assert!(!ask(plain, 7, &[]).unwrap().private);
            assert_eq!(ask(options, 0, &[]), None, "a close");
            assert_eq!(ask(Options { chunk_size: Some(1_024), ..options }, 7, &[]), None);
            assert_eq!(ask(Options { swarm_id: Some(b"other"), ..options }, 7, &[]), None);
            assert_eq!(opener.handle_datagram(ms(80), &[]), None);
            // A second opening does not make the round trip shorter.
            assert!(opener.poll_datagram(ms(150), 4_096, &mut buf).is_some());
            let n = build::reply(&mut buf, 0x5eed, 7, options, []).unwrap();
            let late = opener.handle_datagram(ms(160), split(&buf[..n]).unwrap().1).unwrap();
            assert_eq!(late.rtt, Duration::from_millis(110));
        }
    }
}
