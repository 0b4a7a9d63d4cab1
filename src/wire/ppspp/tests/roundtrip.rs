//! Every message, written and read, is itself; and no bytes make the reader panic.

use proptest::prelude::*;

use super::*;

/// What a message borrows.
#[derive(Clone, Debug)]
struct Owned {
    kind: u8,
    numbers: [u64; 4],
    bytes: Vec<u8>,
    options: u16,
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = prop::collection::vec(any::<u8>(), 64..200);
    (0..22u8, any::<[u64; 4]>(), bytes, any::<u16>())
        .prop_map(|(kind, numbers, bytes, options)| Owned { kind, numbers, bytes, options })
}

impl Owned {
    fn span(&self, to: Addressing) -> Span {
        let [a, b] = [self.numbers[0], self.numbers[1]].map(|id| id & to.id_max());
        Span { first: a.min(b), last: a.max(b) }
    }

    fn options(&self, to: Addressing) -> Options<'_> {
        let some = |bit: u16| self.options >> bit & 1 == 1;
        let [a, b, c, ..] = self.bytes[..] else { unreachable!() };
        let window = self.numbers[2] & to.id_max();
        let wide = if window == to.id_max() { handshake::KEEPS_ALL } else { window };
        Options {
            version: some(0).then_some(a),
            min_version: some(1).then_some(b),
            swarm_id: some(2).then_some(&self.bytes),
            integrity: some(3).then_some(c),
            hash: some(4).then_some(a),
            signature: some(5).then_some(b),
            addressing: some(6).then_some(to.code()),
            window: (some(6) && some(7)).then_some(wide),
            messages: some(8).then_some(MessageSet::from_bits(self.numbers[3])),
            chunk_size: some(9).then_some(self.numbers[1] as u32),
        }
    }

    fn private(&self) -> Private<'_> {
        let [a, b, c, d] = self.numbers;
        match self.kind {
            14 => Private::Subscribe(Subscribe { start: a, stripes: b as u8, window: c as u32 }),
            15 => Private::State(State {
                upload_kbit: a as u32,
                room_kbit: b as u32,
                play_chunk: c,
                buffer_ms: d as u16,
            }),
            16 => Private::Token(&self.bytes),
            17 => Private::Report(Report {
                relay_bytes: a,
                peer_bytes: b,
                sent_bytes: c,
                delay_p50_ms: d as u16,
                delay_p99_ms: (d >> 16) as u16,
                stalls: (d >> 32) as u16,
                stall_ms: (a >> 32) as u32,
                rescues: (b >> 32) as u32,
                bad: (d >> 48) as u16,
                arrival_p50_ms: a as u16,
                arrival_p99_ms: b as u16,
                duplicates: c as u32,
            }),
            18 => Private::Bye(Bye::from_code(a as u8)),
            19 => {
                let [run, index, of] = [a as u8, b as u8, c as u8];
                Private::Probe(Probe { run, index, of, padding: &self.bytes })
            }
            20 => Private::Probed { run: a as u8, kbit: b as u32 },
            _ => Private::Unknown { kind: 0x38 + (a % 8) as u8, body: &self.bytes },
        }
    }

    fn message(&self, to: Addressing) -> Message<'_> {
        let [a, b, ..] = self.numbers;
        let span = self.span(to);
        let port = self.numbers[2] as u16;
        match self.kind {
            0 => Message::Handshake(Handshake { channel: a as u32, options: self.options(to) }),
            1 => Message::Data { chunk: span.first, stamp: b, bytes: &self.bytes[..64] },
            2 => Message::Ack { span, delay: b.cast_signed() },
            3 => Message::Have(span),
            4 => Message::Integrity { span, hash: self.bytes.first_chunk().unwrap() },
            5 => {
                let signature = self.bytes.first_chunk().unwrap();
                Message::SignedIntegrity { span, ntp: b, signature }
            }
            6 => Message::PexRequest,
            7 => Message::PexV4(std::net::SocketAddrV4::new((a as u32).into(), port)),
            8 => {
                let ip = (u128::from(a) << 64 | u128::from(b)).into();
                Message::PexV6(std::net::SocketAddrV6::new(ip, port, 0, 0))
            }
            9 => Message::PexCert(&self.bytes),
            10 => Message::Request(span),
            11 => Message::Cancel(span),
            12 => Message::Choke,
            13 => Message::Unchoke,
            _ => Message::Private(self.private()),
        }
    }
}

/// What a reader makes of messages: runs of UNCHOKEs are one, and none beside a signature.
fn as_read<'a>(written: &[Message<'a>]) -> Vec<Message<'a>> {
    let signed = written.iter().any(|m| matches!(m, Message::SignedIntegrity { .. }));
    let mut expected = written.to_vec();
    expected.retain(|m| !signed || *m != Message::Unchoke);
    expected.dedup_by(|a, b| *a == Message::Unchoke && *b == Message::Unchoke);
    expected
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_global_rejects: 65_536,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn messages_survive(many in prop::collection::vec(owned(), 0..12), wide in any::<bool>()) {
        let to = if wide { Addressing::Chunks64 } else { Addressing::Chunks32 };
        let written: Vec<_> = many.iter().map(|owned| owned.message(to)).collect();
        let bytes = write(0x0102_0304, to, &written);
        let read = read(&bytes, to, 64);
        prop_assert_eq!(&read, &as_read(&written));
        // Reading what was read and written again changes nothing.
        let again = write(0x0102_0304, to, &read);
        prop_assert_eq!(&super::read(&again, to, 64), &read);
        if read == written {
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_cut_datagram_gives_the_messages_before_the_cut(
        many in prop::collection::vec(owned(), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let to = Addressing::Chunks64;
        // The last chunk's bytes may be fewer: DATA has no length. So none of it here.
        let written: Vec<_> = many.iter().map(|owned| owned.message(to)).collect();
        prop_assume!(!written.iter().any(|m| matches!(m, Message::Data { .. } | Message::Unchoke)));
        let bytes = write(1, to, &written);
        let cut = CHANNEL + cut.index(bytes.len() - CHANNEL);
        let read: Vec<_> = Messages::new(&bytes[CHANNEL..cut], to, 64).collect();
        let good = read.iter().take_while(|read| read.is_ok()).count();
        let kept = write(1, to, &written[..good]);
        prop_assert!(kept.len() <= cut);
        let fault = if kept.len() < cut { &[Err(Malformed::Truncated)][..] } else { &[] };
        prop_assert_eq!(&read[good..], fault);
        let read: Vec<_> = read.into_iter().flatten().collect();
        prop_assert_eq!(read, &written[..good]);
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), size in 0..2000usize,
    ) {
        for to in [Addressing::Chunks32, Addressing::Chunks64] {
            prop_assert!(Messages::new(&bytes, to, size).count() <= bytes.len());
        }
        prop_assert!(Messages::opening(&bytes).count() <= bytes.len());
    }
}
