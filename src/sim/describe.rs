//! Datagrams in words, for a trace.

use std::fmt::Write;

use crate::base::limits::CHUNK;
use crate::sim::flight::Flight;
use crate::wire::ppspp::{self, Addressing, Message, Messages};

/// Messages of a datagram that are named; of the rest only their number is told.
const NAMED: usize = 6;

/// A flight, or a part of one.
#[must_use]
pub fn describe(flight: &Flight) -> String {
    let (sent, aboard) = (flight.begun(), flight.numbers().count());
    if sent > 1 {
        let chunks: Vec<u64> = flight.numbers().filter_map(|n| flight.chunk(n)).collect();
        let mut text = format!("train of {sent}, {} B", flight.bytes());
        if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
            let _ = write!(text, ", chunks {first}-{last}");
        }
        if aboard < sent {
            let gone = flight.missing().map(|n| n.to_string());
            let _ = write!(text, ", without {}", gone.collect::<Vec<_>>().join(" "));
        }
        return text;
    }
    let mut bytes = Vec::new();
    let first = flight.numbers().chain(flight.missing()).next().unwrap_or(0);
    flight.write(first, &mut bytes);
    let lost = if aboard == 0 { "LOST " } else { "" };
    format!("{lost}{}", datagram(&bytes))
}

fn datagram(bytes: &[u8]) -> String {
    let Some((channel, rest)) = ppspp::split(bytes) else {
        return format!("{} B without a channel", bytes.len());
    };
    let mut text = format!("{} B to {channel:08x}:", bytes.len());
    let mut more = 0;
    for (n, message) in Messages::new(rest, Addressing::Chunks64, CHUNK).enumerate() {
        if n >= NAMED {
            more += 1;
            continue;
        }
        let _ = match message {
            Ok(message) => write!(text, " {}", words(&message)),
            Err(why) => write!(text, " broken: {why:?}"),
        };
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

fn words(message: &Message<'_>) -> String {
    let span = |span: &ppspp::Span| format!("{}-{}", span.first, span.last);
    match message {
        Message::Handshake(handshake) if handshake.channel == 0 => "close".to_owned(),
        Message::Handshake(handshake) => format!("handshake {:08x}", handshake.channel),
        Message::Data { chunk, bytes, .. } => format!("data {chunk} ({} B)", bytes.len()),
        Message::Ack { span: at, delay } => format!("ack {} ({delay} us)", span(at)),
        Message::Have(at) => format!("have {}", span(at)),
        Message::Integrity { span: at, .. } => format!("hash {}", span(at)),
        Message::SignedIntegrity { span: at, .. } => format!("signed {}", span(at)),
        Message::Request(at) => format!("request {}", span(at)),
        Message::Cancel(at) => format!("cancel {}", span(at)),
        Message::Unchoke => "unchoke".to_owned(),
        other => format!("{other:?}").chars().take(80).collect(),
    }
}
