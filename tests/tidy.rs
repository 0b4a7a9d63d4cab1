//! The style of the house, kept by a test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{Source, below, is_word, line_of, name, root, rust_files, words};

const LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files that may be wider, because they are tables with one row per line.
const WIDE: [&str; 1] = ["src/metrics/table.rs"];

/// Words that may not stand in code, what to do instead, and the paths where they may.
const BANNED: &[(&str, &str, &[&str])] = &[
    ("todo!", "finish it, or leave it out", &[]),
    ("unimplemented!", "finish it, or leave it out", &[]),
    ("dbg!", "use tracing, or a test", &[]),
    ("println!", "use cli::output: println! panics when the reader of a pipe is gone", TESTS),
    ("print!", "use cli::output: print! panics when the reader of a pipe is gone", TESTS),
    ("eprintln!", "use cli::output or tracing: eprintln! may panic", TESTS),
    ("thread::sleep", "wait for the event, or take the time as an argument", PACED),
    ("SystemTime::now", "take `Now` as an argument: only drivers read clocks", CLOCKS),
    ("Instant::now", "take `Now` as an argument: only drivers read clocks", CLOCKS),
];

/// Words that may stand nowhere, comments included.
const LEFTOVERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Tests, and the drivers' own tests, which say when the kernel lets them do nothing.
const TESTS: &[&str] = &["tests/", "benches/", "src/io/"];

/// Programs that send at a pace of their own, as an encoder does.
const PACED: &[&str] = &["src/bench/", "src/cli/demo/publisher.rs"];

const CLOCKS: &[&str] =
    &["src/io/", "src/node/", "src/control/", "src/cli/", "src/bench/", "tests/", "benches/"];

/// Beginnings of paths that exist on one machine only.
const MACHINES: [&str; 5] = [
    concat!("/wo", "rk"),
    concat!("/tmp/", "w/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("../sh", "ared/"),
];

#[test]
fn sources_are_tidy() {
    let files = rust_files(&["src", "tests", "benches"]);
    let mut found: Vec<_> = files.iter().flat_map(complaints).collect();
    found.extend(orphans(&files));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let mut paths = Vec::new();
    below(&root(), &mut paths);
    assert!(paths.len() > 20, "the walk finds the project");
    let texts = paths.iter().filter_map(|path| Some((path, std::fs::read_to_string(path).ok()?)));
    let found: Vec<_> = texts.flat_map(|(path, text)| machine_paths(&name(path), &text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What is untidy in one Rust file.
fn complaints(file: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |line: usize, what: String| found.push(format!("{}:{line}: {what}", file.path));
    if !file.text.starts_with("//! ") {
        say(1, "begin with `//! ` and the one idea of the file".to_owned());
    }
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        say(lines, format!("{lines} lines: split by idea, {LINES_MAX} at most"));
    }
    if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
        say(lines, "end with one line end".to_owned());
    }
    for (number, line) in file.text.lines().enumerate() {
        let columns = line.chars().count();
        // A URL cannot be broken.
        let free = line.contains("https://") || WIDE.contains(&file.path.as_str());
        if columns > COLUMNS_MAX && !free {
            say(number + 1, format!("{columns} columns, {COLUMNS_MAX} at most"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            say(number + 1, "white space at the end".to_owned());
        }
    }
    for word in LEFTOVERS {
        for at in words(&file.text, word) {
            say(line_of(&file.text, at), format!("{word}: do it, or open an issue"));
        }
    }
    for (word, instead, allowed) in BANNED {
        if !allowed.iter().any(|path| file.path.starts_with(path)) {
            for at in words_from(&file.code, word) {
                say(line_of(&file.code, at), format!("{word}: {instead}"));
            }
        }
    }
    for (line, length) in long_functions(&file.code) {
        say(line, format!("a function of {length} lines, {FUNCTION_LINES_MAX} at most"));
    }
    found
}

/// As [`words`], for words that end in a sign of their own.
fn words_from<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| text[..*at].chars().next_back().is_none_or(|c| !is_word(c)))
}

/// First line and length of each function that is too long.
fn long_functions(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        // A name must follow: `fn(u8)` is a type.
        if !code[at + 2..].trim_start().starts_with(is_word) {
            continue;
        }
        let Some(open) = body(code, at) else { continue };
        let mut depth = 0;
        let end = code[open..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0
        });
        let end = end.map_or(code.len(), |(length, _)| open + length);
        let first = line_of(code, at);
        let length = line_of(code, end) - first + 1;
        if length > FUNCTION_LINES_MAX {
            found.push((first, length));
        }
    }
    found
}

/// Where the body of the function at `at` opens; `None` for one without a body.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Files that no `mod` reaches, so that no compiler and no test ever sees them.
fn orphans(files: &[Source]) -> Vec<String> {
    let is_root = |path: &str| {
        let in_tests = path.starts_with("tests/") || path.starts_with("benches/");
        matches!(path, "src/lib.rs" | "src/main.rs")
            || in_tests && (path.matches('/').count() == 1 || path.ends_with("/main.rs"))
    };
    let mut open: Vec<&Source> = files.iter().filter(|file| is_root(&file.path)).collect();
    let mut reached: BTreeSet<&str> = open.iter().map(|file| file.path.as_str()).collect();
    while let Some(file) = open.pop() {
        let path = Path::new(&file.path);
        let owns_folder = is_root(&file.path) || file.path.ends_with("/mod.rs");
        let folder =
            if owns_folder { path.parent().unwrap().into() } else { path.with_extension("") };
        for child in children(&file.code) {
            let names = [format!("{child}.rs"), format!("{child}/mod.rs")];
            let names = names.map(|name| folder.join(name).to_str().unwrap().to_owned());
            let new = files.iter().filter(|file| names.contains(&file.path));
            open.extend(new.filter(|file| reached.insert(&file.path)));
        }
    }
    let lost = files.iter().filter(|file| !reached.contains(file.path.as_str()));
    lost.map(|file| format!("{}: no `mod` reaches this file", file.path)).collect()
}

/// The names in `mod name;`.
fn children(code: &str) -> Vec<&str> {
    let rest = words(code, "mod").map(|at| code[at + 3..].trim_start());
    rest.filter_map(|rest| {
        let end = rest.find(|c| !is_word(c))?;
        rest[end..].trim_start().starts_with(';').then_some(&rest[..end])
    })
    .collect()
}

fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in MACHINES {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            let inner = before.is_some_and(|c| is_word(c) || matches!(c, '/' | '.' | '}' | '-'));
            let after = text[at + start.len()..].chars().next();
            let longer = !start.ends_with('/') && after.is_some_and(|c| is_word(c) || c == '-');
            if !inner && !longer {
                found.push(format!("{path}:{}: names {start}", line_of(text, at)));
            }
        }
    }
    found
}

fn planted(path: &str, text: &str) -> Vec<String> {
    complaints(&Source::new(path, text))
}

#[test]
fn planted_untidiness_is_caught() {
    let long_line = format!("//! {}\n", "x".repeat(COLUMNS_MAX));
    let long_file = "//! a\n".repeat(LINES_MAX + 1);
    let body = "    x();\n".repeat(FUNCTION_LINES_MAX - 1);
    let long_function = format!("//! a\nfn f(a: [u8; 3]) -> u8\nwhere\n{{\n{body}}}\n");
    let leftover = format!("//! a\n// {}: later\n", LEFTOVERS[0]);
    for text in [
        "fn f() {}\n",
        "//! a\nfn f() {} \n",
        "//! a\nfn f() {}",
        "//! a\nfn f() { todo!() }\n",
        "//! a\nfn f() { dbg!(1); }\n",
        "//! a\nfn f() { println!(\"{}\", 1) }\n",
        "//! a\nfn f() { std::thread::sleep(d) }\n",
        "//! a\nfn f() { let t = Instant::now(); }\n",
        "//! a\nfn f() { let t = std::time::SystemTime::now(); }\n",
        &long_line,
        &long_file,
        &long_function,
        &leftover,
    ] {
        assert_eq!(planted("src/media/x.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn what_is_tidy_is_not_caught() {
    let body = "    x(); // }\n".repeat(FUNCTION_LINES_MAX - 2);
    let function = format!("//! a\nfn f() {{\n{body}}}\n");
    for (path, text) in [
        ("src/media/x.rs", function.as_str()),
        (
            "src/media/x.rs",
            "//! a\n// not a todo!() nor Instant::now()\nconst X: &str = \"dbg!\";\n",
        ),
        ("src/media/x.rs", "//! a\nconst A: char = '\"'; fn f<'a>(x: &'a str) { my_dbg!() }\n"),
        ("src/media/x.rs", "//! a\nconst A: &str = r#\"say \"dbg!()\" \"#;\n"),
        ("src/io/clock.rs", "//! a\nfn f() { Instant::now(); }\n"),
        ("tests/x.rs", "//! a\nfn f() { println!() }\n"),
    ] {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_planted_orphan_is_found() {
    let files = [
        ("src/lib.rs", "pub mod a; // mod lost;\nmod inline { fn f() {} }\n"),
        ("src/a/mod.rs", "mod b;"),
        ("src/a/b.rs", "#[cfg(test)]\nmod tests;"),
        ("src/a/b/tests.rs", ""),
        ("src/a/lost.rs", ""),
        ("tests/one.rs", "mod help;"),
        ("tests/help/mod.rs", ""),
        ("tests/help/lost.rs", ""),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let lost = orphans(&files);
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost.iter().all(|line| line.contains("lost.rs")), "{lost:?}");
}

#[test]
fn a_planted_path_of_one_machine_is_found() {
    for start in MACHINES {
        let text = format!("see\n`{start}/x`");
        assert_eq!(machine_paths("README.md", &text), [format!("README.md:2: names {start}")]);
        assert!(machine_paths("README.md", &format!("https://a.example{start}")).is_empty());
    }
    assert!(machine_paths("a", concat!("/wo", "rkers")).is_empty());
}
