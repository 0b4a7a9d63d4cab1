//! Where a reader must be strict, where it must not, and where a writer must say no.

use super::*;
use crate::base::limits::CHUNK;

const TO: Addressing = Addressing::Chunks32;

/// The messages of what follows the channel.
fn results(bytes: &[u8]) -> Vec<Result<Message<'_>, Malformed>> {
    Messages::new(bytes, TO, 32).collect()
}

/// The handshake of an opening with these options, or what is wrong with it.
fn options(text: &str) -> Result<Options<'static>, Malformed> {
    let bytes = hex(&format!("00a1b2c3d4{text}")).leak();
    match Messages::opening(bytes).next().unwrap()? {
        Message::Handshake(handshake) => Ok(handshake.options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_before_a_fault_counts() {
    let have = Ok(Message::Have(Span::new(1, 2).unwrap()));
    for (broken, fault) in [
        ("0e", Malformed::UnknownMessage(0x0e)),
        ("2f", Malformed::UnknownMessage(0x2f)),
        ("40", Malformed::UnknownMessage(0x40)),
        ("ff", Malformed::UnknownMessage(0xff)),
        ("03000000020000", Malformed::Truncated),
        ("030000000200000001", Malformed::Range),
        ("0100000001000000020000000000000000", Malformed::Range),
        ("01000000010000000100000000000000", Malformed::Truncated),
        ("31", Malformed::Truncated),
        ("310012aabb", Malformed::Truncated),
        ("3500020000", Malformed::PrivateLength(0x35)),
        ("350000", Malformed::PrivateLength(0x35)),
        ("30000c000000000000000000000000", Malformed::PrivateLength(0x30)),
        ("0d0002aa", Malformed::Truncated),
        ("0011223344", Malformed::Truncated),
        ("00112233440a", Malformed::UnknownOption(10)),
    ] {
        let text = format!("030000000100000002{broken}");
        // A fault hides what comes after it, although that may look well.
        for more in ["", "0a", "030000000300000004"] {
            if more.is_empty() || fault != Malformed::Truncated {
                let bytes = hex(&format!("{text}{more}"));
                assert_eq!(results(&bytes), [have, Err(fault)], "{broken}");
            }
        }
    }
}

#[test]
fn unknown_private_messages_are_skipped() {
    let bytes = hex("320003aabbcc3f00000a");
    let unknown = |kind, body| Ok(Message::Private(Private::Unknown { kind, body }));
    let body: &[u8] = &[0xaa, 0xbb, 0xcc];
    assert_eq!(results(&bytes), [unknown(0x32, body), unknown(0x3f, &[]), Ok(Message::Choke)]);
}

#[test]
fn private_messages_have_our_layout() {
    let subscribe = Subscribe { start: Subscribe::NEXT, stripes: Subscribe::ALL, window: 48 };
    let state = State { upload_kbit: 1, room_kbit: 2, play_chunk: 3, buffer_ms: 4 };
    let report = Report {
        relay_bytes: 1,
        peer_bytes: 2,
        sent_bytes: 3,
        delay_p50_ms: 4,
        delay_p99_ms: 5,
        stalls: 6,
        stall_ms: 7,
        rescues: 8,
        bad: 9,
        arrival_p50_ms: 10,
        arrival_p99_ms: 11,
        duplicates: 12,
    };
    let link = |address: &str, stripes_in| Link { address: address.parse().unwrap(), stripes_in };
    let links = [link("192.0.2.1:7", 0x81), link("[2001:db8::1]:9", 0x7e)];
    let mut buf = [0; Links::MAX * Link::BYTES];
    for (private, text) in [
        (Private::Subscribe(subscribe), "30000dffffffffffffffffff00000030"),
        (Private::State(state), "310012000000010000000200000000000000030004"),
        (Private::Token(b"abc"), "330003616263"),
        (
            Private::Report(report),
            "340030000000000000000100000000000000020000000000000003\
             00040005000600000007000000080009000a000b0000000c",
        ),
        (Private::Bye(Bye::Draining), "35000107"),
        (Private::Bye(Bye::Other(8)), "35000108"),
        (Private::Links(Links::default()), "36000100"),
        (
            Private::Links(Links::fill(links.into_iter(), &mut buf)),
            "3600270200000000000000000000ffffc0000201000781\
             20010db800000000000000000000000100097e",
        ),
        (Private::Probe(Probe { run: 1, index: 2, of: 3, padding: &[4; 3] }), "370006010203040404"),
        (Private::Probed { run: 1, kbit: 100_000 }, "37000501000186a0"),
    ] {
        // Ids take eight bytes under both methods.
        for to in [Addressing::Chunks32, Addressing::Chunks64] {
            assert_eq!(write(0, to, &[Message::Private(private)])[CHANNEL..], hex(text));
        }
        assert_eq!(results(&hex(text)), [Ok(Message::Private(private))]);
    }
    for code in 0..=255 {
        assert_eq!(Bye::from_code(code).code(), code);
    }
}

#[test]
fn more_links_than_allowed_are_none_and_no_more_are_written() {
    let link = Link { address: ([10, 0, 0, 1], 4).into(), stripes_in: 3 };
    let mut buf = [0; Links::MAX * Link::BYTES];
    let links = Links::fill(std::iter::repeat_n(link, 99), &mut buf);
    assert_eq!((links.len(), links.iter().filter(|l| *l == link).count()), (16, 16));
    for body in [vec![17; 1 + 17 * Link::BYTES], vec![2; 1 + Link::BYTES], vec![0, 0], vec![]] {
        let mut bytes = vec![kind::LINKS, 0, 0];
        bytes[1..3].copy_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend(&body);
        assert_eq!(results(&bytes), [Err(Malformed::PrivateLength(kind::LINKS))]);
    }
}

#[test]
fn a_probe_is_longer_than_its_answer_and_fills_its_datagram() {
    let short = Message::Private(Private::Probe(Probe { run: 1, index: 2, of: 3, padding: &[4] }));
    assert!(!Writer::new(&mut [0; 99], 7, TO).push(short));
    for body in ["", "01", "0102", "010203", "01020304"] {
        let text = format!("3700{:02x}{body}", body.len() / 2);
        assert_eq!(results(&hex(&text)), [Err(Malformed::PrivateLength(kind::PROBE))]);
    }
    for (bytes, length) in [(0, 13), (13, 13), (400, 400), (1_200, 1_200), (9_999, 1_200)] {
        let probe = Message::Private(Private::Probe(Probe::filling(bytes, 1, 2, 48)));
        assert_eq!(write(7, TO, &[probe]).len(), length);
    }
}

#[test]
fn a_report_without_its_last_three_figures_is_understood() {
    let figures = "000000000000000100000000000000020000000000000003\
                   00040005000600000007000000080009";
    let Ok(Message::Private(Private::Report(report))) =
        results(&hex(&format!("340028{figures}")))[0]
    else {
        panic!("no report");
    };
    assert_eq!((report.relay_bytes, report.bad), (1, 9));
    assert_eq!((report.arrival_p50_ms, report.arrival_p99_ms, report.duplicates), (0, 0, 0));
    for (length, more) in [("29", "00"), ("2a", "0000"), ("31", "000a000b0000000c00")] {
        let text = format!("3400{length}{figures}{more}");
        assert_eq!(results(&hex(&text)), [Err(Malformed::PrivateLength(kind::REPORT))], "{text}");
    }
}

#[test]
fn a_data_takes_a_chunk_or_what_is_left() {
    let head = "01000000010000000100000000000000ff";
    let data = |bytes| Ok(Message::Data { chunk: 1, stamp: 255, bytes });
    assert_eq!(results(&hex(head)), [data(&[])], "deployed peers send that");
    assert_eq!(results(&hex(&format!("{head}0a"))), [data(&[0x0a])]);
    let two = hex(&format!("{head}{}{head}77", "55".repeat(32)));
    assert_eq!(results(&two), [data(&[0x55; 32]), data(&[0x77])]);
    let variable = Messages::new(&two, TO, usize::MAX).collect::<Vec<_>>();
    assert_eq!(variable, [data(&two[17..])], "exactly one, and it is last");
}

#[test]
fn unchokes_beside_a_signature_are_padding() {
    let span = Span::new(0, 3).unwrap();
    let signed = Message::SignedIntegrity { span, ntp: 1, signature: &[2; 64] };
    let have = Message::Have(span);
    let (un, choke) = (Message::Unchoke, Message::Choke);
    for (written, read) in [
        (&[un, have][..], &[un, have][..]),
        (&[un, un, un, have, un, un], &[un, have, un]),
        (&[un, choke, un], &[un, choke, un]),
        (&[signed, have, un, un], &[signed, have]),
        (&[un, have, un, signed, un], &[have, signed]),
        (&[un, un], &[un]),
    ] {
        let bytes = write(9, TO, written);
        assert_eq!(super::read(&bytes, TO, 32), read);
    }
    // A signature behind a fault is none.
    let mut bytes = write(9, TO, &[un, have]);
    bytes.push(0x0e);
    bytes.extend_from_slice(&write(9, TO, &[signed])[CHANNEL..]);
    let read = results(&bytes[CHANNEL..]);
    assert_eq!(read, [Ok(un), Ok(have), Err(Malformed::UnknownMessage(0x0e))]);
    // Of no use to an attacker: one look ahead for a datagram, whatever it holds.
    let many = hex(&"0b0a".repeat(32_000));
    assert_eq!(results(&many).len(), 64_000);
}

#[test]
fn options_are_sorted_once_each_and_ended() {
    assert_eq!(options("ff"), Ok(Options::NONE));
    let version = Options { version: Some(1), ..Options::NONE };
    assert_eq!(options("0001ff"), Ok(version));
    for (text, fault) in [
        ("", Malformed::Truncated),
        ("0001", Malformed::Truncated),
        ("00010001ff", Malformed::OptionOrder),
        ("01010001ff", Malformed::OptionOrder),
        ("0602060207ff", Malformed::OptionOrder),
        ("0001fe", Malformed::UnknownOption(0xfe)),
        ("0700001000ff", Malformed::OptionLength),
        ("06090700001000ff", Malformed::OptionLength),
        ("020041aabb", Malformed::Truncated),
        ("0821", Malformed::Truncated),
        ("0902", Malformed::Truncated),
    ] {
        assert_eq!(options(text), Err(fault), "{text}");
    }
    assert_eq!(options(&format!("0821{}ff", "00".repeat(33))), Err(Malformed::OptionLength));
}

#[test]
fn windows_are_as_wide_as_ids() {
    for (text, window) in [
        ("06020700001000ff", 4096),
        ("060207ffffffffff", handshake::KEEPS_ALL),
        ("06000700001000ff", 4096),
        ("0601070000000000001000ff", 4096),
        ("0604070000000000001000ff", 4096),
        ("060407ffffffffffffffffff", handshake::KEEPS_ALL),
        ("06040700000000ffffffffff", 0xffff_ffff),
    ] {
        assert_eq!(options(text).unwrap().window, Some(window), "{text}");
    }
}

#[test]
fn a_bitmap_may_end_in_zeroes() {
    for text in ["0802f9f0ff", "0803f9f000ff", "0808f9f0000000000000ff"] {
        assert_eq!(options(text).unwrap().messages, Some(MessageSet::from_bits(0xf9f0 << 48)));
    }
    let long = format!("0820f9f0{}01ff", "00".repeat(29));
    let known = options(&long).unwrap();
    assert_eq!(known.messages, Some(MessageSet::from_bits(0xf9f0 << 48)), "no type above 63");
    assert_eq!(options("0800ff").unwrap().messages, Some(MessageSet::from_bits(0)));
    // Types 5, 6, 12 and 13 are those of PEX.
    let missing: Vec<u8> = (0..14).filter(|kind| !known.knows(*kind)).collect();
    assert_eq!(missing, [kind::PEX_V4, kind::PEX_REQUEST, kind::PEX_V6, kind::PEX_CERT]);
    assert!(Options::NONE.knows(13) && !Options::NONE.knows(14), "without option 8: the RFC's");
    let ours: Vec<u8> = (14..=255).filter(|kind| MessageSet::OURS.contains(*kind)).collect();
    assert_eq!(
        ours,
        [
            kind::SUBSCRIBE,
            kind::STATE,
            kind::TOKEN,
            kind::REPORT,
            kind::BYE,
            kind::LINKS,
            kind::PROBE
        ],
        "and nothing that is not ours"
    );
    let mut buf = [0; 40];
    let opening = Options { messages: Some(MessageSet::OURS), ..Options::NONE };
    let length = build::opening(&mut buf, 1, opening).unwrap();
    assert_eq!(buf[9..length], hex("0807fffc00000000dfff"));
    let direct = MessageSet::OURS.without(kind::PROBE).without(200);
    let opening = Options { messages: Some(direct), ..Options::NONE };
    assert_eq!(build::opening(&mut buf, 1, opening), Some(length));
    assert_eq!(buf[9..length], hex("0807fffc00000000deff"));
}

#[test]
fn whoever_does_not_fit_is_told_apart() {
    let id = [1; 65];
    let size = CHUNK as u32;
    let good = Options::opening(&id, TO, 64, size);
    let judge = |options: Options<'_>| options.judge_opening(TO, size);
    assert_eq!(judge(good), Ok(()));
    assert_eq!(judge(Options { version: Some(9), ..good }), Ok(()), "1 is in [1, 9]");
    assert_eq!(judge(Options { min_version: Some(0), ..good }), Ok(()), "and in [0, 1]");
    assert_eq!(judge(Options { hash: None, messages: None, ..good }), Ok(()));
    for (options, why) in [
        (Options { version: None, ..good }, Unfit::Missing),
        (Options { min_version: None, ..good }, Unfit::Missing),
        (Options { swarm_id: None, ..good }, Unfit::Missing),
        (Options { integrity: None, ..good }, Unfit::Missing),
        (Options { signature: None, ..good }, Unfit::Missing),
        (Options { addressing: None, window: None, ..good }, Unfit::Missing),
        (Options { window: None, ..good }, Unfit::Missing),
        (Options { chunk_size: None, ..good }, Unfit::Missing),
        (Options { version: Some(0), ..good }, Unfit::Version),
        (Options { min_version: Some(2), version: Some(3), ..good }, Unfit::Version),
        (Options { integrity: Some(1), ..good }, Unfit::Integrity),
        (Options { hash: Some(0), ..good }, Unfit::Hash),
        (Options { signature: Some(14), ..good }, Unfit::Signature),
        (Options { addressing: Some(4), ..good }, Unfit::Addressing),
        (Options { chunk_size: Some(1024), ..good }, Unfit::ChunkSize),
        (Options { chunk_size: Some(u32::MAX), ..good }, Unfit::ChunkSize),
    ] {
        assert_eq!(judge(options), Err(why), "{options:?}");
    }
    let reply = Options::reply(TO, 64, size);
    assert_eq!(reply.judge_reply(TO, size), Ok(()), "needs neither lowest version nor swarm");
    assert_eq!(judge(reply), Err(Unfit::Missing));
}

#[test]
fn an_opening_is_read_as_its_own_options_say() {
    let id = [1; 65];
    let span = Span::new(1, 2).unwrap();
    for to in [Addressing::Chunks32, Addressing::Chunks64] {
        let options = Options::opening(&id, to, 64, 32);
        let handshake = Message::Handshake(Handshake { channel: 5, options });
        let data = Message::Data { chunk: 3, stamp: 4, bytes: &[6; 32] };
        let messages = [handshake, Message::Have(span), data, Message::Have(span)];
        let bytes = write(0, to, &messages);
        let read: Vec<_> = Messages::opening(split(&bytes).unwrap().1).collect();
        assert_eq!(read, messages.map(Ok));
    }
    let read = |text: &str| Messages::opening(hex(text).leak()).collect::<Vec<_>>();
    assert_eq!(read("0a00a1b2c3d4ff"), [Err(Malformed::NoHandshake)]);
    assert_eq!(read(""), []);
    for unsaid in ["00a1b2c3d4ff03", "00a1b2c3d40603ff03"] {
        assert_eq!(read(unsaid)[1..], [Err(Malformed::NoAddressing)]);
    }
}

#[test]
fn short_datagrams_have_no_channel() {
    assert_eq!((channel(&[1, 2, 3]), split(&[])), (None, None));
    assert_eq!(split(&[0, 0, 1, 2]), Some((258, &[][..])));
}

#[test]
fn a_writer_refuses_what_it_cannot_say() {
    let mut buf = [0xaa; 30];
    let mut writer = Writer::new(&mut buf, 7, TO);
    assert!(writer.is_empty());
    let have = Message::Have(Span::new(1, 2).unwrap());
    assert!(writer.push(have) && writer.push(have));
    assert!(!writer.push(have), "22 of 30 bytes are taken");
    assert!(!writer.push(Message::Have(Span::one(1 << 32))));
    assert!(writer.push(Message::Private(Private::Token(b"12345"))));
    assert!(!writer.push(Message::Choke));
    assert!(!writer.pad_to(29) && !writer.pad_to(31) && writer.pad_to(30));
    assert_eq!((writer.len(), writer.is_empty()), (30, false));
    let mut buf = [0xaa; 70_000];
    let mut writer = Writer::new(&mut buf, 7, TO);
    let long = vec![0; 65_536];
    let window = Options { window: Some(1), ..Options::NONE };
    for refused in [
        Message::PexCert(&long),
        Message::Private(Private::Token(&long)),
        Message::Private(Private::Unknown { kind: 0x2f, body: &[] }),
        Message::Handshake(Handshake { channel: 1, options: window }),
        Message::Data { chunk: 1 << 32, stamp: 0, bytes: &[] },
    ] {
        assert!(!writer.push(refused));
        assert_eq!(writer.written(), [0, 0, 0, 7]);
    }
    assert!(writer.push(Message::PexCert(&long[1..])));
    let mut writer = Writer::new(&mut buf[..3], 7, TO);
    assert!(!writer.push(Message::Choke) && writer.written().is_empty());
}

#[test]
fn builders_refuse_what_does_not_fit() {
    let hashes = [[1; 32]; 4];
    let mut subtree =
        SignedSubtree { first: 4, leaves: &hashes, munro: &hashes[0], ntp: 5, signature: &[2; 64] };
    let mut buf = [0; 299];
    let all = build::hash_datagram(&mut buf, 1, TO, &subtree, true, None);
    assert_eq!(all, Some(299));
    assert_eq!(build::hash_datagram(&mut buf[..298], 1, TO, &subtree, true, None), None);
    assert_eq!(build::hash_datagram(&mut buf, 1, TO, &subtree, true, Some(300)), None);
    assert_eq!(build::hash_datagram(&mut buf, 1, TO, &subtree, true, Some(298)), None);
    subtree.first = u64::from(u32::MAX) - 2;
    assert_eq!(build::hash_datagram(&mut buf, 1, TO, &subtree, true, None), None);
    subtree.first = u64::MAX - 2;
    assert_eq!(subtree.span(), None);
    subtree.leaves = &[];
    assert_eq!(subtree.span(), None);
    assert_eq!(build::data_headers(&mut buf, TO, 0, 15), None);
    assert_eq!(build::data_headers(&mut buf, TO, 0, 14), Some(294));
    assert_eq!(build::data_headers(&mut buf, TO, u64::from(u32::MAX), 2), None);
    assert_eq!(build::data_headers(&mut buf, Addressing::Chunks64, u64::MAX, 2), None);
    assert_eq!(build::reply(&mut buf, 1, 2, Options::NONE, []), None);
}
