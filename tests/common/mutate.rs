//! Changes from a seed, of the kinds that transmission, faults and hostile hands make.

use fastrand::Rng;

use super::ts::PACKET;

/// One change somewhere in `bytes`, of a kind that transmission or a hostile hand makes.
pub fn ts(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let packet = rng.usize(..bytes.len() / PACKET) * PACKET;
    let at = rng.usize(..bytes.len() - PACKET);
    match rng.u8(..12) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[packet] = rng.u8(..),
        2 => drop(bytes.drain(at..at + rng.usize(1..PACKET))),
        3 => drop(bytes.splice(at..at, (0..rng.usize(1..400)).map(|_| rng.u8(..)))),
        4 => bytes[packet + 1] = rng.u8(..),
        5 => bytes[packet + 2] = rng.u8(..),
        // Scrambling, adaptation control, counter; then the adaptation length and flags.
        6 => bytes[packet + 3] = rng.u8(..),
        7 => bytes[packet + 4] = rng.u8(..),
        8 => bytes[packet + 5] = rng.u8(..),
        // Headers of sections and PES, their lengths, time stamps, descriptors.
        9 => bytes[packet + rng.usize(5..30)] = [0, 1, 0x7f, 0x80, 0xff, 0x47][rng.usize(..6)],
        10 => {
            let other = rng.usize(..bytes.len() / PACKET - 1) * PACKET;
            bytes.copy_within(other..other + PACKET, packet);
        }
        _ => {
            // A table of another program, another size, another version.
            let (pid, len) = ([0, 0x1000][rng.usize(..2)], rng.u16(..1200));
            let head = [0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10, rng.u8(..3)];
            bytes[packet..packet + 5].copy_from_slice(&head);
            bytes[packet + 6] = 0xb0 | (len >> 8) as u8;
            bytes[packet + 7] = len as u8;
        }
    }
}

/// Requests that make sense.
const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /live/target.ts HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\n\r\n",
    "GET /live/target.ts?start=-10s&wait=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /live/target/status.json HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "HEAD /streams.json HTTP/1.0\r\n\r\n",
    "OPTIONS /live/x.ts HTTP/1.1\r\nHost: a\r\nOrigin: b\r\n\r\n",
    "PUT /live/p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGabcd\r\n0\r\n\r\n",
    "PUT /live/p?key=x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGabcdefgh",
    "POST /live/p HTTP/1.1\r\nAuthorization: Bearer x\r\nExpect: 100-continue\r\n\r\n",
    "PUT /live/p HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4, ::1\r\nVia: 1.1 x\r\n\r\n",
];

/// What may be put in anywhere.
const PIECES: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "\0",
    " ",
    ":",
    "%",
    "%2e%2e/",
    "%00",
    "?",
    "&key=",
    "..",
    "/",
    "//",
    "HTTP/1.1",
    "HTTP/1.0",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 0\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "ffffffffffffffff\r\n",
    "10000000000000000\r\n",
    "0\r\n\r\n",
    "5;ext=\"\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\n",
    "\u{fe0f}",
    "Host: \r\n",
    "X: \x7f\x01\r\n",
    " folded\r\n",
    "?start=-99999999999999999999s",
    "?wait=99999999999",
    "Expect: 100-continue\r\n",
    "G",
];

/// Some changes of one or several good requests in a row.
pub fn http(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..4) {
        bytes.extend_from_slice(GOOD[rng.usize(..GOOD.len())].as_bytes());
    }
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.usize(..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let count = 1 << rng.u8(..9);
                let piece = PIECES[rng.usize(..PIECES.len())].repeat(count);
                bytes.splice(at..at, piece.bytes().take(20_000));
            }
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}
