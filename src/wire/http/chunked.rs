//! The chunked coding (RFC 9112 section 7.1), decoded as it arrives and never buffered.

/// The most bytes of one chunk's extension, blanks included. We understand none.
const EXTENSION_MAX: u16 = 256;

/// The most bytes of the trailer section. We understand none.
const TRAILER_MAX: u16 = 4096;

/// The most digits of a chunk size: what fits 64 bits.
const DIGITS_MAX: u8 = 16;

/// Bytes that do not follow the chunked coding: where the body ends is unknown from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

/// Decodes one chunked body.
#[derive(Clone, Copy, Debug)]
pub struct Chunked {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk size.
    Size { size: u64, digits: u8 },
    /// In blanks after the size: only `;` or the line's end may follow.
    Blank { size: u64, seen: u16 },
    /// In an extension.
    Extension { size: u64, seen: u16 },
    /// After the CR of the size line.
    SizeEnd { size: u64 },
    /// In a chunk's bytes.
    Data { left: u64 },
    /// After a chunk's last byte.
    DataCr,
    /// After the CR that follows a chunk.
    DataLf,
    /// In the trailer section; `line` counts the bytes of the present line.
    Trailer { seen: u16, line: u16 },
    /// After a CR in the trailer section.
    TrailerLf { seen: u16, empty: bool },
    /// After the last byte.
    Done,
}

impl Default for Chunked {
    fn default() -> Chunked {
        Chunked { state: State::Size { size: 0, digits: 0 } }
    }
}

impl Chunked {
    /// Decodes `data`, hands the body's bytes to `sink` as slices of it, and returns how many
    /// bytes it used: fewer than all only when the body is complete.
    ///
    /// # Errors
    /// [`BadChunk`]; whatever came before the fault has been handed over.
    pub fn decode(&mut self, data: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < data.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let rest = data.len() - at;
                let n = usize::try_from(left).map_or(rest, |left| left.min(rest));
                sink(&data[at..at + n]);
                at += n;
                let left = left - n as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
            } else {
                self.state = self.state.after(data[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

impl State {
    /// The state after a byte that is not a chunk's data.
    fn after(self, byte: u8) -> Result<State, BadChunk> {
        match (self, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == DIGITS_MAX {
                    return Err(BadChunk);
                }
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BadChunk),
            (State::Size { size, .. } | State::Blank { size, .. }, b'\r')
            | (State::Extension { size, .. }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, .. }, b' ' | b'\t') => Ok(State::Blank { size, seen: 1 }),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size, seen: 1 }),
            (State::Blank { size, seen }, b' ' | b'\t') if seen < EXTENSION_MAX => {
                Ok(State::Blank { size, seen: seen + 1 })
            }
            (State::Blank { size, seen }, b';') => Ok(State::Extension { size, seen }),
            (State::Extension { size, seen }, _) if seen < EXTENSION_MAX && is_text(byte) => {
                Ok(State::Extension { size, seen: seen + 1 })
            }
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer { seen: 0, line: 0 }),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::Trailer { seen, line }, b'\r') if seen < TRAILER_MAX => {
                Ok(State::TrailerLf { seen: seen + 1, empty: line == 0 })
            }
            (State::Trailer { seen, line }, _) if seen < TRAILER_MAX && is_text(byte) => {
                Ok(State::Trailer { seen: seen + 1, line: line + 1 })
            }
            (State::TrailerLf { empty: true, .. }, b'\n') => Ok(State::Done),
            (State::TrailerLf { seen, .. }, b'\n') => Ok(State::Trailer { seen, line: 0 }),
            _ => Err(BadChunk),
        }
    }
}

/// Whether a byte may stand in an extension or a trailer line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body and the bytes used, decoded in pieces that end at `cuts`; None: refused.
    fn decode(data: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, usize, bool)> {
        let mut decoder = Chunked::default();
        let (mut body, mut used) = (Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (data.len() + 1)).collect();
        ends.push(data.len());
        ends.sort_unstable();
        for end in ends {
            if used < end && !decoder.is_done() {
                let piece = &data[used..end];
                used += decoder.decode(piece, &mut |b| body.extend_from_slice(b)).ok()?;
            }
        }
        Some((body, used, decoder.is_done()))
    }

    /// A decoder of another make: whole input, line by line, complete bodies only.
    fn oracle(mut data: &[u8]) -> Option<(Vec<u8>, usize)> {
        let all = data.len();
        let line = |data: &mut &[u8], max: usize| -> Option<String> {
            let end = data.windows(2).position(|w| w == b"\r\n")?;
            let text = &data[..end];
            *data = &data[end + 2..];
            let clean = text.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
            (clean && end <= max).then(|| text.iter().map(|b| char::from(*b)).collect())
        };
        let mut body = Vec::new();
        loop {
            let head = line(&mut data, usize::MAX)?;
            let (size, extension) = head.split_once(';').unwrap_or((&head, ""));
            let digits = size.trim_end_matches([' ', '\t']);
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            if !plain || head.len() - digits.len() > 256 || extension.len() > 255 {
                return None;
            }
            let digits = (digits.len() <= 16).then_some(digits)?;
            let size = usize::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(data.get(..size)?);
            data = data.get(size..)?.strip_prefix(b"\r\n")?;
        }
        while !line(&mut data, 4095)?.is_empty() {}
        Some((body, all - data.len()))
    }

    fn encoded() -> impl Strategy<Value = Vec<u8>> {
        let chunk = (proptest::collection::vec(any::<u8>(), 1..40), 0..5usize);
        let trailers = 0..3usize;
        (proptest::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
            let mut out = Vec::new();
            for (data, style) in chunks {
                let n = data.len();
                let size = match style {
                    0 => format!("{n:x}"),
                    1 => format!("{n:X};a=b"),
                    2 => format!("000{n:x}"),
                    3 => format!("{n:x} \t;q=\"x\""),
                    _ => format!("{n:x} "),
                };
                out.extend_from_slice(size.as_bytes());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(&data);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n");
            (0..trailers).for_each(|_| out.extend_from_slice(b"X-Sum: 1\r\n"));
            out.extend_from_slice(b"\r\nGET / HTTP/1.1\r\n");
            out
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_oracle_however_it_is_cut(
            data in encoded(),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
            change in proptest::option::of((any::<usize>(), any::<u8>())),
        ) {
            let mut data = data;
            if let Some((at, byte)) = change {
                let n = data.len();
                data[at % n] = byte;
            }
            let cut = decode(&data, &cuts);
            prop_assert_eq!(&cut, &decode(&data, &[]));
            let whole = cut.filter(|c| c.2).map(|(body, used, _)| (body, used));
            prop_assert_eq!(whole, oracle(&data));
        }
    }

    #[test]
    fn sizes_that_readers_disagree_about_are_refused() {
        let long_extension = format!("1;{}\r\na\r\n", "x".repeat(300));
        let long_trailer = format!("0\r\nA: {}\r\n", "x".repeat(5000));
        for bad in [
            "\r\n",
            "g\r\n",
            "0x5\r\nhello",
            "-1\r\n",
            "+5\r\nhello",
            " 5\r\nhello",
            "5\nhello",
            "5\rhello",
            "5 5\r\nhello",
            "5;a\nb\r\nhello",
            "00000000000000005\r\nhello",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: \0\r\n",
            &long_extension,
            &long_trailer,
        ] {
            assert_eq!(decode(bad.as_bytes(), &[]), None, "{bad:?}");
        }
    }

    #[test]
    fn the_largest_size_is_no_overflow() {
        let (body, ..) = decode(b"ffffffffffffffff\r\nabc", &[]).unwrap();
        assert_eq!(body, b"abc");
    }
}
