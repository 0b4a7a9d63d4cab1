//! Everything that the other end of a link can do wrong, by name.
//!
//! A crime is only what an honest peer never does, however lossy, slow or reordering its path
//! is: chunks that come twice, munros that are old and acknowledgements that are late are none.

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crime {
    /// A message that cannot be decoded, or that is cut off.
    Malformed,
    /// A message of a type that nobody has defined, or that it did not announce.
    UnknownMessage,
    /// Another handshake on a channel that is open, with other options.
    SecondHandshake,
    /// A handshake that names another swarm.
    WrongSwarm,
    /// A handshake with another chunk addressing method, chunk size or kind of integrity.
    WrongProfile,
    /// A private message although the two sides have not agreed on it.
    PrivateUnasked,
    /// A token that is not one of ours, or none where one is needed.
    BadToken,
    /// Chunks for somebody who only sends.
    DataToSource,
    /// An acknowledgement of chunks that do not exist yet.
    AckOfNothing,
    /// Questions for more than the window holds.
    RequestFlood,
    /// A question although it was choked.
    RequestWhileChoked,
    /// A chunk that is longer or shorter than the stream's chunks.
    WrongLength,
    /// A chunk that its leaf hash does not match.
    BadChunk,
    /// Leaf hashes that do not lead to the munro.
    BadLeaves,
    /// A hash of a span that is no subtree of the stream.
    WrongSpan,
    /// A signature that does not verify.
    BadSignature,
    /// Two munros of the same subtree, both signed.
    TwoMunros,
    /// An announcement of chunks that the source has not signed.
    HaveOfNothing,
    /// Addresses of other peers from somebody who is not the relay.
    PexFromPeer,
}

/// What a crime costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// What was sent is thrown away, and counted.
    Ignore,
    /// The same; the third time within the link's life closes it.
    Strike,
    /// The link is closed at once.
    Close,
}

/// Strikes after which a link is closed.
pub const STRIKES_MAX: u8 = 3;

impl Crime {
    /// All of them.
    pub const ALL: [Crime; 19] = [
        Crime::Malformed,
        Crime::UnknownMessage,
        Crime::SecondHandshake,
        Crime::WrongSwarm,
        Crime::WrongProfile,
        Crime::PrivateUnasked,
        Crime::BadToken,
        Crime::DataToSource,
        Crime::AckOfNothing,
        Crime::RequestFlood,
        Crime::RequestWhileChoked,
        Crime::WrongLength,
        Crime::BadChunk,
        Crime::BadLeaves,
        Crime::WrongSpan,
        Crime::BadSignature,
        Crime::TwoMunros,
        Crime::HaveOfNothing,
        Crime::PexFromPeer,
    ];

    /// What it costs, and the word in labels and reports. The only place that decides it.
    #[must_use]
    pub const fn verdict(self) -> (Penalty, &'static str) {
        match self {
            Crime::Malformed => (Penalty::Strike, "malformed"),
            Crime::UnknownMessage => (Penalty::Strike, "unknown_message"),
            Crime::SecondHandshake => (Penalty::Ignore, "second_handshake"),
            Crime::WrongSwarm => (Penalty::Close, "wrong_swarm"),
            Crime::WrongProfile => (Penalty::Close, "wrong_profile"),
            Crime::PrivateUnasked => (Penalty::Strike, "private_unasked"),
            Crime::BadToken => (Penalty::Close, "bad_token"),
            Crime::DataToSource => (Penalty::Strike, "data_to_source"),
            // A relay that was started again may have lost what it sent before.
            Crime::AckOfNothing => (Penalty::Ignore, "ack_of_nothing"),
            Crime::RequestFlood => (Penalty::Ignore, "request_flood"),
            Crime::RequestWhileChoked => (Penalty::Ignore, "request_while_choked"),
            Crime::WrongLength => (Penalty::Strike, "wrong_length"),
            // One flipped bit on the way passes the UDP checksum once in 65,536.
            Crime::BadChunk => (Penalty::Close, "bad_chunk"),
            Crime::BadLeaves => (Penalty::Close, "bad_leaves"),
            Crime::WrongSpan => (Penalty::Close, "wrong_span"),
            Crime::BadSignature => (Penalty::Close, "bad_signature"),
            Crime::TwoMunros => (Penalty::Close, "two_munros"),
            Crime::HaveOfNothing => (Penalty::Ignore, "have_of_nothing"),
            Crime::PexFromPeer => (Penalty::Ignore, "pex_from_peer"),
        }
    }

    /// What it costs.
    #[must_use]
    pub const fn penalty(self) -> Penalty {
        self.verdict().0
    }

    /// The word in labels and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.verdict().1
    }
}

/// The strikes of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record(u8);

impl Record {
    /// Notes a crime. Returns whether the link is to be closed.
    pub fn note(&mut self, crime: Crime) -> bool {
        match crime.penalty() {
            Penalty::Ignore => false,
            Penalty::Strike => {
                self.0 = self.0.saturating_add(1);
                self.0 >= STRIKES_MAX
            }
            Penalty::Close => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crime_has_a_label_of_its_own() {
        let mut labels: Vec<_> = Crime::ALL.iter().map(|crime| crime.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Crime::ALL.len());
        let fits = |label: &&str| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(labels.iter().all(fits), "{labels:?}");
    }

    #[test]
    fn three_strikes_close_and_grave_crimes_at_once() {
        let mut record = Record::default();
        assert!(!record.note(Crime::AckOfNothing));
        assert!(!record.note(Crime::Malformed) && !record.note(Crime::UnknownMessage));
        assert!(!record.note(Crime::PexFromPeer), "is no strike");
        assert!(record.note(Crime::Malformed));
        assert!(Record::default().note(Crime::BadSignature));
    }
}
