//! The small texts inside a head: escapes, query parameters, times.

use std::borrow::Cow;
use std::time::Duration;

/// A `%` that two hexadecimal digits do not follow, or bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEscape;

/// Undoes percent-encoding (RFC 3986 section 2.1). Borrows when there is nothing to undo. A `+`
/// stays a `+`: keys may hold one, and nothing here has blanks.
///
/// # Errors
/// [`BadEscape`].
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, BadEscape> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
        out.push(value.and_then(|v| u8::try_from(v).ok()).ok_or(BadEscape)?);
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| BadEscape)
}

/// Undoes percent-encoding of a path. An escaped `/` or control character is refused: whoever
/// forwarded the request may have read it as something else.
///
/// # Errors
/// [`BadEscape`].
pub fn decode_path(path: &str) -> Result<Cow<'_, str>, BadEscape> {
    let decoded = percent_decode(path)?;
    let slashes = |text: &str| text.bytes().filter(|b| *b == b'/').count();
    if slashes(&decoded) != slashes(path) || decoded.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(BadEscape);
    }
    Ok(decoded)
}

/// Why a query parameter cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadParameter {
    /// It is there more than once.
    Twice,
    /// Its value is not validly percent-encoded.
    Escape,
}

/// The value of the parameter `name` in a query (without `?`); a parameter without `=` is empty.
///
/// # Errors
/// [`BadParameter`].
pub fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, BadParameter> {
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    let first = values.next();
    if values.next().is_some() {
        return Err(BadParameter::Twice);
    }
    first.map(percent_decode).transpose().map_err(|_| BadParameter::Escape)
}

/// Reads `10s`, `1m`, `500ms`. None if it is not of that form or beyond 64 bits of milliseconds.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(percent_decode("a+b%20%c3%BC").unwrap(), "a+b ü");
        for bad in ["%", "%1", "%zz", "%+1", "%ff", "a%2"] {
            assert_eq!(percent_decode(bad), Err(BadEscape), "{bad}");
        }
        assert_eq!(decode_path("/live/%61").unwrap(), "/live/a");
        for bad in ["/live%2Fa", "/a%00", "/a%0d%0a", "/%7f"] {
            assert_eq!(decode_path(bad), Err(BadEscape), "{bad}");
        }
    }

    #[test]
    fn parameters() {
        assert_eq!(parameter("a=1&b=%41", "b").unwrap().as_deref(), Some("A"));
        assert_eq!(parameter("a&b", "a").unwrap().as_deref(), Some(""));
        assert_eq!(parameter("aa=1", "a"), Ok(None));
        assert_eq!(parameter("a=1&a=1", "a"), Err(BadParameter::Twice));
        assert_eq!(parameter("a=%", "a"), Err(BadParameter::Escape));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("1m"), Some(Duration::from_secs(60)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "s", "10", "1h", "-1s", "+1s", "1 s", "1.5s", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(duration(&format!("{}m", u64::MAX)), None);
    }
}
