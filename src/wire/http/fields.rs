//! The header lines of a head, request or response.

use httparse::Header;

/// A header that may be there once was there twice, or is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadField;

/// Header lines, borrowed from the buffer of the head.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    pub(super) const fn new(lines: &'a [Header<'a>]) -> Fields<'a> {
        Fields(lines)
    }

    /// Every value of the header `name`, in order.
    pub fn all(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> + '_ {
        let wanted = move |field: &&Header<'a>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(wanted).map(|field| field.value)
    }

    /// The value of a header that may be there at most once.
    ///
    /// # Errors
    /// If it is there more than once, or is not UTF-8.
    pub fn one(&self, name: &'static str) -> Result<Option<&'a str>, BadField> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                std::str::from_utf8(value).map(|v| Some(v.trim_ascii())).map_err(|_| BadField)
            }
            (Some(_), Some(_)) => Err(BadField),
        }
    }

    /// The members of a header that is a comma-separated list, over all its lines. Members that
    /// are not text are left out.
    pub fn list(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &'a str> + '_ {
        self.all(name)
            .flat_map(|value| value.split(|b| *b == b','))
            .filter_map(|member| std::str::from_utf8(member).ok())
            .map(str::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// Whether a header is there whose lower-case name `matches`.
    pub fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|field| matches(&field.name.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::head::{Head, lines};

    #[test]
    fn fields_are_found_whatever_their_case() {
        let mut room = lines();
        let text = b"GET / HTTP/1.1\r\nhOST: a \r\nVia: x\r\nVIA: y,, z\r\nB: \xff\r\n\r\n";
        let head = Head::parse(text, &mut room).unwrap();
        assert_eq!(head.one("Host"), Ok(Some("a")));
        assert_eq!(head.one("Via"), Err(BadField));
        assert_eq!(head.one("b"), Err(BadField));
        assert_eq!(head.one("c"), Ok(None));
        assert_eq!(head.list("via").collect::<Vec<_>>(), ["x", "y", "z"]);
        assert!(head.any(|name| name.starts_with("vi")));
    }
}
