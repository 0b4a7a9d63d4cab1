//! The project's own source as data: what `floors.rs` and `tidy.rs` read.

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub struct Source {
    /// Path from the root of the project, with `/`.
    pub path: String,
    /// The text as it is.
    pub text: String,
    /// The text with comments, strings and character literals blanked; lines stay where they are.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }
}

/// The root of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below the folders `names`, in order.
pub fn rust_files(names: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for name in names {
        below(&root().join(name), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
    paths.sort();
    assert!(!paths.is_empty(), "no sources found: is the test looking in the right place?");
    paths.iter().map(|path| Source::new(&name(path), &fs::read_to_string(path).unwrap())).collect()
}

/// A path from the root of the project, with `/`.
pub fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

/// All files below `folder`, without what git and cargo keep there.
pub fn below(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let last = path.file_name().unwrap();
        if last == "target" || last == ".git" || path.is_symlink() {
            continue;
        }
        if path.is_dir() { below(&path, into) } else { into.push(path) }
    }
}

/// Whether `c` may be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Places at which `word` stands in `text` with no part of a name on either side.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back().is_none_or(|c| !is_word(c));
        let after = text[at + word.len()..].chars().next().is_none_or(|c| !is_word(c));
        before && after
    })
}

/// The number of the line in which the byte `at` stands, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Blanks comments, strings and character literals.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end,
            None => {
                code.push(chars[at]);
                at += 1;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `None` if none begins there.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let get = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    match (get(0), get(1)) {
        ('/', '/') => Some(until(chars, at, |c| c == '\n')),
        ('/', '*') => Some(comment_end(chars, at)),
        ('"', _) => Some(string_end(chars, at + 1, '"')),
        // 'x' and '\n' are literals; 'a in generics is not.
        ('\'', '\\') => Some(string_end(chars, at + 1, '\'')),
        ('\'', _) if get(2) == '\'' => Some(at + 3),
        ('r', '"' | '#') => raw_end(chars, at),
        _ => None,
    }
}

fn until(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|at| stop(chars[*at])).unwrap_or(chars.len())
}

fn comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let mut before = chars[..at].iter().rev();
    let first = before.next().copied().unwrap_or(' ');
    let second = before.next().copied().unwrap_or(' ');
    let prefix = matches!(first, 'b' | 'c') && !is_word(second);
    if is_word(first) && !prefix {
        return None;
    }
    let open = until(chars, at + 1, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - at - 1;
    let closes = |end: &usize| {
        chars[*end] == '"'
            && chars[end + 1..].iter().take_while(|c| **c == '#').take(hashes).count() == hashes
    };
    let quote = (open + 1..chars.len()).find(closes);
    Some(quote.map_or(chars.len(), |quote| quote + 1 + hashes))
}
