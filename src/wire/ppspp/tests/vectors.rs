//! The worked exchanges byte for byte: read to the values they were made of, and written from
//! them. Sizes and signatures as well.

use super::datagrams::*;
use super::*;
use crate::base::limits::CHUNK;

const A: u32 = 0xa1b2_c3d4;
const B: u32 = 0x1122_3344;
/// 2026-01-01T00:00:00Z as NTP time, and in microseconds since 1970.
const NTP: u64 = 0xed00_3780_0000_0000;
const STAMP: u64 = 0x0006_4748_4620_4000;

/// The key of private scalar 1: the base point of P-256.
fn swarm_id() -> Vec<u8> {
    hex(OPENING)[16..81].to_vec()
}

fn all_but_pex() -> MessageSet {
    MessageSet::from_bits(0xf9f0 << 48)
}

/// The set of the vectors for 64-bit ids: types 0x30 to 0x32 beside those of the RFC.
fn with_three_private() -> MessageSet {
    MessageSet::from_bits(0xfffc_0000_0000_e000)
}

/// What is signed: chunk specification, time, munro.
fn plaintext(addressing: Addressing, span: Span, munro: &Hash) -> Vec<u8> {
    let mut text = match addressing {
        Addressing::Chunks32 => [span.first as u32, span.last as u32]
            .iter()
            .flat_map(|id| id.to_be_bytes())
            .collect::<Vec<_>>(),
        Addressing::Chunks64 => [span.first.to_be_bytes(), span.last.to_be_bytes()].concat(),
    };
    text.extend(NTP.to_be_bytes());
    text.extend(munro);
    text
}

/// Reads and writes a datagram of 32-byte chunks whose messages are known.
fn same(vector: &str, channel: u32, addressing: Addressing, messages: &[Message<'_>]) {
    let bytes = hex(vector);
    assert_eq!(super::channel(&bytes), Some(channel));
    assert_eq!(read(&bytes, addressing, 32), messages);
    assert_eq!(write(channel, addressing, messages), bytes);
}

#[test]
fn openings() {
    let id = swarm_id();
    for (vector, addressing, size, messages) in [
        (OPENING, Addressing::Chunks32, 32, all_but_pex()),
        (OPENING_64, Addressing::Chunks64, CHUNK as u32, with_three_private()),
    ] {
        let bytes = hex(vector);
        let options =
            Options { messages: Some(messages), ..Options::opening(&id, addressing, 4096, size) };
        let read: Vec<_> = Messages::opening(split(&bytes).unwrap().1).collect();
        assert_eq!(read, [Ok(Message::Handshake(Handshake { channel: A, options }))]);
        assert_eq!(options.judge_opening(addressing, size), Ok(()));
        let mut buf = [0; 200];
        let length = build::opening(&mut buf, A, options).unwrap();
        assert_eq!(buf[..length], bytes);
        assert_eq!((super::channel(&bytes), length), (Some(0), bytes.len()));
    }
    assert_eq!((hex(OPENING).len(), hex(OPENING_64).len()), (104, 113));
}

#[test]
fn replies() {
    for (vector, addressing, from, size, messages, last) in [
        (REPLY, Addressing::Chunks32, B, 32, all_but_pex(), 3),
        (REPLY_64, Addressing::Chunks64, 0x9122_3344, CHUNK as u32, with_three_private(), 15),
    ] {
        let bytes = hex(vector);
        let options =
            Options { messages: Some(messages), ..Options::reply(addressing, 4096, size) };
        let have = Span::new(0, last).unwrap();
        let handshake = Handshake { channel: from, options };
        same(vector, A, addressing, &[Message::Handshake(handshake), Message::Have(have)]);
        assert_eq!(options.judge_reply(addressing, size), Ok(()));
        let mut buf = [0; 200];
        let length = build::reply(&mut buf, A, from, options, [have]).unwrap();
        assert_eq!(buf[..length], bytes);
    }
    assert_eq!((hex(REPLY).len(), hex(REPLY_64).len()), (43, 60));
    let ours = Options::reply(Addressing::Chunks64, 4096, CHUNK as u32);
    let opening = Options::opening(&[0; 65], Addressing::Chunks64, 4096, CHUNK as u32);
    let mut buf = [0; 200];
    let length = build::opening(&mut buf, A, opening).unwrap();
    assert_eq!(length, 113);
    let have: [_; 3] = std::array::from_fn(|n| Span::one(n as u64));
    assert!(build::reply(&mut buf, A, B, ours, have).unwrap() <= length, "no amplification");
}

#[test]
fn the_exchange_with_32_bit_ids() {
    let to = Addressing::Chunks32;
    let leaves = leaves(4, 32);
    let (munro, four) = (root(&leaves), Span::new(0, 3).unwrap());
    let right = root(&leaves[2..]);
    let signature = sign(&plaintext(to, four, &munro));
    same(REQUEST, B, to, &[Message::Request(four)]);
    let integrity = |first, last, hash| Message::Integrity { span: Span { first, last }, hash };
    let data: Vec<_> = (0..3).map(|k| [k; 32]).collect();
    let data = |chunk: u64| Message::Data { chunk, stamp: STAMP, bytes: &data[chunk as usize] };
    same(
        FIRST_DATA,
        A,
        to,
        &[
            integrity(0, 3, &munro),
            Message::SignedIntegrity { span: four, ntp: NTP, signature: &signature },
            integrity(2, 3, &right),
            integrity(1, 1, &leaves[1]),
            data(0),
        ],
    );
    same(SECOND_DATA, A, to, &[data(1)]);
    same(THIRD_DATA, A, to, &[integrity(3, 3, &leaves[3]), data(2)]);
    let two = Span::new(0, 1).unwrap();
    let ack = Message::Ack { span: two, delay: 25_000 };
    same(ACK_AND_HAVE, B, to, &[ack, Message::Have(two)]);
    same(KEEPALIVE, B, to, &[]);
    same(CLOSE, B, to, &[Message::Handshake(Handshake::CLOSE)]);
    assert_eq!(build::close(B), *hex(CLOSE));
    let mut buf = [0; 100];
    assert_eq!(build::request(&mut buf, B, to, [four]), Some(13));
    assert_eq!(buf[..13], hex(REQUEST));
    let sizes = [FIRST_DATA, SECOND_DATA, THIRD_DATA, ACK_AND_HAVE].map(|d| d.len() / 2);
    assert_eq!(sizes, [257, 53, 94, 30]);
}

#[test]
fn the_exchange_with_64_bit_ids() {
    let to = Addressing::Chunks64;
    let leaves = leaves(4, 32);
    let (munro, four) = (root(&leaves), Span::new(0, 3).unwrap());
    let signature = sign(&plaintext(to, four, &munro));
    let mut messages = vec![
        Message::Integrity { span: four, hash: &munro },
        Message::SignedIntegrity { span: four, ntp: NTP, signature: &signature },
    ];
    messages.extend(
        leaves.iter().zip(0..).map(|(hash, k)| Message::Integrity { span: Span::one(k), hash }),
    );
    messages.push(Message::Have(four));
    same(HASHES_64, A, to, &messages);
    same(DATA_64, A, to, &[Message::Data { chunk: 0, stamp: STAMP, bytes: &[0; 32] }]);
    let sixteen = Span::new(0, 15).unwrap();
    same(ACK_64, B, to, &[Message::Ack { span: sixteen, delay: 25_000 }]);
    assert_eq!([HASHES_64, DATA_64, ACK_64].map(|d| d.len() / 2), [355, 61, 29]);
    let subtree =
        SignedSubtree { first: 0, leaves: &leaves, munro: &munro, ntp: NTP, signature: &signature };
    let mut buf = [0; 400];
    let length = build::hash_datagram(&mut buf, A, to, &subtree, true, None).unwrap();
    assert_eq!(buf[..length], hex(HASHES_64));
    let length = build::acknowledge(&mut buf, B, to, ([sixteen], 25_000), []).unwrap();
    assert_eq!(buf[..length], hex(ACK_64));
}

#[test]
fn a_whole_train() {
    let to = Addressing::Chunks64;
    let leaves = leaves(16, CHUNK);
    let (munro, span) = (root(&leaves), Span::new(0, 15).unwrap());
    assert_eq!(
        munro.to_vec(),
        hex("53f22faac729da361bc2d7f21b2fd6d84693716bd713798aec39aca636cb8157")
    );
    let text = plaintext(to, span, &munro);
    let signature = sign(&text);
    assert_eq!(
        signature.to_vec(),
        hex("8882c778c74f0fb64a5c71ffec1416e41c06efcae518d3f232ceaa184c03add7\
             ff104c723fea8d8baf458e3e587b3a01c9921deb60ef6a6c03e62e4b71abfc5a")
    );
    assert!(verify(&swarm_id(), &text, &signature));
    let subtree =
        SignedSubtree { first: 0, leaves: &leaves, munro: &munro, ntp: NTP, signature: &signature };
    let mut train = [0; 22_865];
    let pad = build::train_head(to, 16, CHUNK);
    assert_eq!(pad, Some(1345));
    let length = build::hash_datagram(&mut train, A, to, &subtree, true, pad).unwrap();
    assert_eq!(length, 1345);
    assert_eq!(
        sha256(&train[..1345]).to_vec(),
        hex("1007d153c97ab2b9df6219aa6e30c8b5dc3a559af864999114216a7d929d94ec")
    );
    // As a sender does it: headers made at once, channel and stamp written when it sends.
    let mut headers = [0xaa; 16 * 29];
    assert_eq!(build::data_headers(&mut headers, to, 0, 16), Some(16 * 29));
    for (k, (to, header)) in train[1345..].chunks_mut(1345).zip(headers.chunks(29)).enumerate() {
        to[..29].copy_from_slice(header);
        to[..CHANNEL].copy_from_slice(&A.to_be_bytes());
        to[21..29].copy_from_slice(&STAMP.to_be_bytes());
        to[29..].fill(k as u8);
    }
    assert_eq!(
        sha256(&train).to_vec(),
        hex("5f1e7abb451006e549f2fb6c6f20fde530ecbed2d8d72f2e0d193b3e3df8f7b4")
    );
    for (n, datagram) in train.chunks(1345).enumerate() {
        let messages = read(datagram, to, CHUNK);
        if n == 0 {
            assert_eq!(messages.len(), 19, "the padding is no message");
        } else {
            let (chunk, bytes) = (n as u64 - 1, [n as u8 - 1; CHUNK]);
            assert_eq!(messages, [Message::Data { chunk, stamp: STAMP, bytes: &bytes }]);
        }
    }
}

#[test]
fn signatures_are_of_the_swarm_and_of_the_text() {
    let leaves = leaves(4, 32);
    let (munro, four) = (root(&leaves), Span::new(0, 3).unwrap());
    for (addressing, vector, signature_at) in
        [(Addressing::Chunks32, FIRST_DATA, 4 + 41 + 17), (Addressing::Chunks64, HASHES_64, 78)]
    {
        let text = plaintext(addressing, four, &munro);
        let signature: Signature = hex(vector)[signature_at..][..64].try_into().unwrap();
        assert_eq!(sign(&text), signature);
        assert!(verify(&swarm_id(), &text, &signature));
        let mut other = text.clone();
        other[7] ^= 1;
        assert!(!verify(&swarm_id(), &other, &signature));
        let mut broken = signature;
        broken[63] ^= 1;
        assert!(!verify(&swarm_id(), &text, &broken));
    }
    assert_eq!(
        plaintext(Addressing::Chunks64, four, &munro),
        hex("00000000000000000000000000000003ed00378000000000\
             4fc5f858a182a0445d5ec5bf71477fd9e076bf383f1ba8090e1809eeaacce894")
    );
}

#[test]
fn sizes_of_the_profile() {
    let span = Span::new(0, 15).unwrap();
    let (hash, signature) = ([7; 32], [8; 64]);
    for (to, sizes, data, bare, have) in [
        (Addressing::Chunks32, [41, 81, 17, 9, 9, 17], 1337, [208, 290, 454, 782], 9),
        (Addressing::Chunks64, [49, 89, 25, 17, 17, 25], 1345, [240, 338, 534, 926], 17),
    ] {
        let messages = [
            Message::Integrity { span, hash: &hash },
            Message::SignedIntegrity { span, ntp: NTP, signature: &signature },
            Message::Data { chunk: 1, stamp: 2, bytes: &[] },
            Message::Have(span),
            Message::Request(span),
            Message::Ack { span, delay: 0 },
        ];
        assert_eq!(messages.map(|message| write(A, to, &[message]).len() - CHANNEL), sizes);
        assert_eq!(to.data_header() + CHUNK, data);
        let leaves = [hash; 16];
        for (n, bare) in [2, 4, 8, 16].into_iter().zip(bare) {
            let subtree = SignedSubtree {
                first: 32,
                leaves: &leaves[..n],
                munro: &hash,
                ntp: NTP,
                signature: &signature,
            };
            let mut buf = [0; 1500];
            let mut build = |have| build::hash_datagram(&mut buf, A, to, &subtree, have, None);
            assert_eq!(build(false), Some(bare));
            assert_eq!(build(true), Some(bare + have));
            assert_eq!(build::hash_datagram_len(to, n, false), bare);
            assert_eq!(build::hash_datagram_len(to, n, true), bare + have);
            let pads = (to == Addressing::Chunks64 && n == 16).then_some(data);
            assert_eq!(build::train_head(to, n, CHUNK), pads);
        }
    }
    // Smaller chunks: padded where the pad is at most a third.
    for (chunk, pads) in [(1128, [Some(1149), Some(1157)]), (1024, [Some(1045), Some(1053)])] {
        let both = [Addressing::Chunks32, Addressing::Chunks64];
        assert_eq!(both.map(|to| build::train_head(to, 16, chunk)), pads);
    }
}
