//! Errors that show the place, the reason and the remedy, as rustc's do.

use std::fmt;
use std::ops::Range;

/// Why there is no configuration.
#[derive(Debug)]
pub enum Error {
    /// The file could not be read.
    Unreadable {
        /// The file.
        file: String,
        /// The system's reason.
        why: std::io::Error,
    },
    /// What was read makes no configuration. Never empty.
    Invalid(Vec<Problem>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreadable { file, why } => writeln!(f, "{file}: error: cannot be read: {why}"),
            Error::Invalid(problems) => problems.iter().try_for_each(|p| write!(f, "{p}")),
        }
    }
}

impl std::error::Error for Error {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in one line.
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File {
        /// The file's name as the user gave it.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The text of that line.
        text: String,
        /// Characters to underline, at least 1.
        width: usize,
    },
    /// In an environment variable of that name, or in the flag.
    Named(String),
    /// In a default: only together with other values.
    Default,
}

impl Place {
    /// The place of the bytes `span` in the `text` of `file`.
    #[must_use]
    pub fn in_file(file: &str, text: &str, span: Range<usize>) -> Place {
        let start = boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = boundary(text, span.end).clamp(start, line_end);
        Place::File {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: text[start..end].trim_end().chars().count().max(1),
        }
    }

    /// The same place without what was typed there: for values that may be secrets.
    #[must_use]
    pub fn masked(mut self) -> Place {
        if let Place::File { column, text, width, .. } = &mut self {
            let marked = *column - 1..*column - 1 + *width;
            let mask = |(at, c)| if marked.contains(&at) { '*' } else { c };
            *text = text.chars().enumerate().map(mask).collect();
        }
        self
    }
}

/// The last place in `text` at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gutter = 0;
        match &self.place {
            Place::File { file, line, column, text, width } => {
                writeln!(f, "{file}:{line}:{column}: error: {}", self.message)?;
                gutter = line.to_string().len();
                // Tabs stay tabs, so that the carets stand below the characters they mean.
                let indent = text.chars().take(column - 1);
                let indent: String = indent.map(|c| if c == '\t' { c } else { ' ' }).collect();
                writeln!(f, "{:gutter$} |", "")?;
                writeln!(f, "{line} | {text}")?;
                writeln!(f, "{:gutter$} | {indent}{}", "", "^".repeat(*width))?;
            }
            Place::Named(name) => writeln!(f, "{name}: error: {}", self.message)?,
            Place::Default => writeln!(f, "error: {}", self.message)?,
        }
        if !self.help.is_empty() {
            writeln!(f, "{:gutter$} = help: {}", "", self.help)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_carets_below_it() {
        let text = "[cores]\r\n\tpin = maybe\r\n";
        let problem = Problem {
            place: Place::in_file("a.toml", text, 16..21),
            message: "no".to_owned(),
            help: "yes".to_owned(),
        };
        let want =
            "a.toml:2:8: error: no\n  |\n2 | \tpin = maybe\n  | \t      ^^^^^\n  = help: yes\n";
        assert_eq!(problem.to_string(), want);
    }

    #[test]
    fn a_masked_place_does_not_show_what_was_typed() {
        let place = Place::in_file("f", "keys = [\"hush\"] # x", 8..14).masked();
        let Place::File { text, .. } = place else { panic!("{place:?}") };
        assert_eq!(text, "keys = [******] # x");
    }

    #[test]
    fn places_at_the_edges_of_a_text_do_not_panic() {
        for (start, end) in [(0, 0), (0, 99), (3, 4), (99, 100), (7, 2)] {
            let place = Place::in_file("f", "a\nüb\n", start..end);
            assert!(matches!(place, Place::File { width: 1.., .. }), "{start}..{end}");
        }
        let place = Place::in_file("f", "ü = 1\nx = 2", 10..11);
        assert!(matches!(place, Place::File { line: 2, column: 4, .. }), "{place:?}");
    }
}
