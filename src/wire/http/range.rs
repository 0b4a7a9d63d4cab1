//! Range requests (RFC 9110 section 14): one range of bytes; anything else is answered whole.

use std::ops::Range;

/// What a `Range` header asks for of a representation of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that may be ignored.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Nothing that there is.
    Unsatisfiable,
}

/// Reads the value of a `Range` header. Several ranges, other units and what does not follow the
/// grammar are ignored, as "a server MAY ignore the Range header field" (section 14.2).
#[must_use]
pub fn range(value: &str, length: u64) -> Wanted {
    let Some(spec) = value.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // Digits that do not fit are beyond any length.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => part(first, length, length),
        (Some(first), Some(last)) if first <= last => {
            part(first, last.saturating_add(1).min(length), length)
        }
        (None, Some(0)) if first.is_empty() => Wanted::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => {
            part(length.saturating_sub(suffix), length, length)
        }
        _ => Wanted::Whole,
    }
}

fn part(first: u64, end: u64, length: u64) -> Wanted {
    if first < length { Wanted::Part(first..end) } else { Wanted::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_and_their_neighbours() {
        let read = |value| range(value, 10_000);
        assert_eq!(read("bytes=0-499"), Wanted::Part(0..500));
        assert_eq!(read("bytes=500-999"), Wanted::Part(500..1000));
        assert_eq!(read("bytes=-500"), Wanted::Part(9500..10_000));
        assert_eq!(read("bytes=9500-"), Wanted::Part(9500..10_000));
        assert_eq!(read("bytes=9999-99999999999999999999"), Wanted::Part(9999..10_000));
        assert_eq!(read("bytes=-20000"), Wanted::Part(0..10_000));
        for nothing in ["bytes=10000-", "bytes=10000-10001", "bytes=-0"] {
            assert_eq!(read(nothing), Wanted::Unsatisfiable, "{nothing}");
        }
        for ignored in ["bytes=0-0,-1", "bytes=5-4", "bytes=-", "bytes=a-b", "items=0-1", "", "1-2"]
        {
            assert_eq!(read(ignored), Wanted::Whole, "{ignored}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Unsatisfiable);
    }
}
