//! The HANDSHAKE message (RFC 7574, 7 and 8.4): who speaks, and what a peer must agree about.

use crate::wire::ppspp::Addressing;
use crate::wire::ppspp::decode::{Cursor, Malformed};
use crate::wire::ppspp::encode::Writer;

/// Option 0 and 1: the only version there is.
pub const VERSION: u8 = 1;
/// Option 3: unified merkle tree.
pub const UNIFIED_MERKLE_TREE: u8 = 3;
/// Option 4: SHA-256.
pub const SHA256: u8 = 2;
/// Option 5: ECDSA with P-256 and SHA-256, by its DNSSEC number.
pub const ECDSA_P256: u8 = 13;
/// Option 7 of a peer that keeps everything.
pub const KEEPS_ALL: u64 = u64::MAX;

/// The longest bitmap of option 8: one bit for each of the 256 types.
const BITMAP_MAX: usize = 32;

/// Numbers of the options.
mod code {
    pub const VERSION: u8 = 0;
    pub const MIN_VERSION: u8 = 1;
    pub const SWARM_ID: u8 = 2;
    pub const INTEGRITY: u8 = 3;
    pub const HASH: u8 = 4;
    pub const SIGNATURE: u8 = 5;
    pub const ADDRESSING: u8 = 6;
    pub const WINDOW: u8 = 7;
    pub const MESSAGES: u8 = 8;
    pub const CHUNK_SIZE: u8 = 9;
    pub const END: u8 = 255;
}

/// A HANDSHAKE message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// The channel on which the sender wants to hear; 0 closes.
    pub channel: u32,
    /// What the sender says of itself.
    pub options: Options<'a>,
}

impl Handshake<'_> {
    /// A close: source channel 0, and no options (RFC 7574, 8.4). Others may send the version.
    pub const CLOSE: Handshake<'static> = Handshake { channel: 0, options: Options::NONE };
}

/// The options of a handshake: what is `None` was not there. Numbers are kept as they are on the
/// wire, also those that this profile refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// Option 0: the highest version.
    pub version: Option<u8>,
    /// Option 1: the lowest version.
    pub min_version: Option<u8>,
    /// Option 2.
    pub swarm_id: Option<&'a [u8]>,
    /// Option 3: content integrity protection method.
    pub integrity: Option<u8>,
    /// Option 4: merkle hash function.
    pub hash: Option<u8>,
    /// Option 5: live signature algorithm.
    pub signature: Option<u8>,
    /// Option 6: chunk addressing method, see [`Addressing::from_code`].
    pub addressing: Option<u8>,
    /// Option 7: the live discard window in chunks, [`KEEPS_ALL`] for everything.
    pub window: Option<u64>,
    /// Option 8; without it the peer knows every message of the RFC.
    pub messages: Option<MessageSet>,
    /// Option 9: bytes of a chunk; all ones: chunks of different sizes.
    pub chunk_size: Option<u32>,
}

/// The first thing in a handshake that does not fit this profile or the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// An option that must be there is not.
    Missing,
    /// Version 1 is not among those that the peer speaks.
    Version,
    /// Another integrity protection than a signed unified merkle tree.
    Integrity,
    /// Another hash function.
    Hash,
    /// Another signature algorithm.
    Signature,
    /// Another way to name chunks than the swarm's.
    Addressing,
    /// Another chunk size than the swarm's.
    ChunkSize,
}

impl<'a> Options<'a> {
    /// No option at all: a close.
    pub const NONE: Options<'static> = Options {
        version: None,
        min_version: None,
        swarm_id: None,
        integrity: None,
        hash: None,
        signature: None,
        addressing: None,
        window: None,
        messages: None,
        chunk_size: None,
    };

    /// What this profile answers to an opening.
    #[must_use]
    pub const fn reply(addressing: Addressing, window: u64, chunk_size: u32) -> Options<'static> {
        Options {
            version: Some(VERSION),
            min_version: None,
            swarm_id: None,
            integrity: Some(UNIFIED_MERKLE_TREE),
            hash: Some(SHA256),
            signature: Some(ECDSA_P256),
            addressing: Some(addressing.code()),
            window: Some(window),
            messages: Some(MessageSet::OURS),
            chunk_size: Some(chunk_size),
        }
    }

    /// What this profile opens with.
    #[must_use]
    pub const fn opening(
        swarm_id: &'a [u8],
        addressing: Addressing,
        window: u64,
        chunk_size: u32,
    ) -> Options<'a> {
        Options {
            min_version: Some(VERSION),
            swarm_id: Some(swarm_id),
            ..Options::reply(addressing, window, chunk_size)
        }
    }

    /// Whether the peer knows messages of type `kind`.
    #[must_use]
    pub fn knows(&self, kind: u8) -> bool {
        self.messages.unwrap_or(MessageSet::RFC_ALL).contains(kind)
    }

    /// Judges an opening; whose swarm it asks for is the caller's to see.
    ///
    /// # Errors
    /// [`Unfit`]: no answer is sent.
    pub fn judge_opening(&self, addressing: Addressing, chunk_size: u32) -> Result<(), Unfit> {
        match (self.min_version, self.swarm_id) {
            (Some(min), Some(_)) if min > VERSION => Err(Unfit::Version),
            (Some(_), Some(_)) => self.judge_reply(addressing, chunk_size),
            _ => Err(Unfit::Missing),
        }
    }

    /// Judges the answer to an opening. A swarm id may be in it; the caller compares it if it
    /// is.
    ///
    /// # Errors
    /// [`Unfit`]: the answer is dropped.
    pub fn judge_reply(&self, addressing: Addressing, chunk_size: u32) -> Result<(), Unfit> {
        let must = |there: bool| if there { Ok(()) } else { Err(Unfit::Missing) };
        must(self.version.is_some() && self.window.is_some())?;
        // Text and table of the RFC disagree on who sends option 4, so it may be left out.
        for (value, only, otherwise) in [
            (self.version.map(|version| u32::from(version.min(VERSION))), VERSION, Unfit::Version),
            (self.integrity.map(u32::from), UNIFIED_MERKLE_TREE, Unfit::Integrity),
            (Some(self.hash.map_or(u32::from(SHA256), u32::from)), SHA256, Unfit::Hash),
            (self.signature.map(u32::from), ECDSA_P256, Unfit::Signature),
            (self.addressing.map(u32::from), addressing.code(), Unfit::Addressing),
        ] {
            if value.ok_or(Unfit::Missing)? != u32::from(only) {
                return Err(otherwise);
            }
        }
        if self.chunk_size.ok_or(Unfit::Missing)? == chunk_size {
            Ok(())
        } else {
            Err(Unfit::ChunkSize)
        }
    }

    pub(super) fn read(at: &mut Cursor<'a>) -> Result<Options<'a>, Malformed> {
        let mut options = Options::NONE;
        let mut last = None;
        loop {
            let code = at.u8()?;
            // The list must be sorted (RFC 7574, 7): a second of a kind is out of order, too.
            if last.is_some_and(|last| last >= code) {
                return Err(Malformed::OptionOrder);
            }
            if code == code::END {
                return Ok(options);
            }
            options.read_one(code, at)?;
            last = Some(code);
        }
    }

    fn read_one(&mut self, code: u8, at: &mut Cursor<'a>) -> Result<(), Malformed> {
        match code {
            code::VERSION => self.version = Some(at.u8()?),
            code::MIN_VERSION => self.min_version = Some(at.u8()?),
            code::SWARM_ID => {
                let length = at.u16()?;
                self.swarm_id = Some(at.bytes(usize::from(length))?);
            }
            code::INTEGRITY => self.integrity = Some(at.u8()?),
            code::HASH => self.hash = Some(at.u8()?),
            code::SIGNATURE => self.signature = Some(at.u8()?),
            code::ADDRESSING => self.addressing = Some(at.u8()?),
            code::WINDOW => self.window = Some(self.read_window(at)?),
            code::MESSAGES => {
                let length = usize::from(at.u8()?);
                self.messages = Some(MessageSet::read(at.bytes(length)?)?);
            }
            code::CHUNK_SIZE => self.chunk_size = Some(at.u32()?),
            _ => return Err(Malformed::UnknownOption(code)),
        }
        Ok(())
    }

    /// Option 7 is as long as an id of option 6, of all methods: a foreign peer shall be
    /// refused for its method, not for what follows from it.
    fn read_window(&self, at: &mut Cursor<'a>) -> Result<u64, Malformed> {
        match self.addressing {
            Some(0 | 2) => match at.u32()? {
                u32::MAX => Ok(KEEPS_ALL),
                chunks => Ok(u64::from(chunks)),
            },
            Some(1 | 3 | 4) => at.u64(),
            _ => Err(Malformed::OptionLength),
        }
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        let byte = |to: &mut Writer<'_>, code: u8, value: Option<u8>| {
            value.into_iter().for_each(|value| to.bytes(&[code, value]));
        };
        byte(to, code::VERSION, self.version);
        byte(to, code::MIN_VERSION, self.min_version);
        if let Some(id) = self.swarm_id {
            to.u8(code::SWARM_ID);
            to.length(id.len());
            to.bytes(id);
        }
        byte(to, code::INTEGRITY, self.integrity);
        byte(to, code::HASH, self.hash);
        byte(to, code::SIGNATURE, self.signature);
        byte(to, code::ADDRESSING, self.addressing);
        if let Some(window) = self.window {
            to.u8(code::WINDOW);
            match self.addressing {
                Some(0 | 2) => to.u32(u32::try_from(window).unwrap_or(u32::MAX)),
                Some(1 | 3 | 4) => to.u64(window),
                _ => to.refuse(),
            }
        }
        if let Some(messages) = self.messages {
            to.u8(code::MESSAGES);
            messages.write(to);
        }
        if let Some(size) = self.chunk_size {
            to.u8(code::CHUNK_SIZE);
            to.u32(size);
        }
        to.u8(code::END);
    }
}

/// Which messages a peer knows: type X is bit X from the left. Types above 63 are not kept;
/// there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSet(u64);

impl MessageSet {
    /// Every message of the RFC.
    pub const RFC_ALL: MessageSet = MessageSet(0xfffc << 48);

    /// Every message of the RFC, and our private ones.
    pub const OURS: MessageSet = MessageSet(0xfffc_0000_0000_df00);

    /// The set of the types whose bits are 1, the first bit being type 0.
    #[must_use]
    pub const fn from_bits(bits: u64) -> MessageSet {
        MessageSet(bits)
    }

    /// The set without type `kind`.
    #[must_use]
    pub const fn without(self, kind: u8) -> MessageSet {
        MessageSet(if kind < 64 { self.0 & !(1 << (63 - kind)) } else { self.0 })
    }

    /// Whether type `kind` is known.
    #[must_use]
    pub const fn contains(self, kind: u8) -> bool {
        kind < 64 && self.0 << kind >> 63 == 1
    }

    /// Zero bytes at the end are to be cut, but those of a peer that does not are no harm.
    fn read(bitmap: &[u8]) -> Result<MessageSet, Malformed> {
        if bitmap.len() > BITMAP_MAX {
            return Err(Malformed::OptionLength);
        }
        let mut bits = [0; 8];
        bits.iter_mut().zip(bitmap).for_each(|(to, from)| *to = *from);
        Ok(MessageSet(u64::from_be_bytes(bits)))
    }

    fn write(self, to: &mut Writer<'_>) {
        let bytes = self.0.to_be_bytes();
        let length = 8 - self.0.trailing_zeros() as usize / 8;
        to.u8(length as u8);
        to.bytes(&bytes[..length]);
    }
}
