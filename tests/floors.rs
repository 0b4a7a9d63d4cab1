//! The floors of the house: who may import whom, and where `unsafe` may live.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[allow(dead_code, reason = "floors looks at code only, tidy at text as well")]
mod source;

use source::{Source, is_word, line_of, rust_files, words};

/// Each module with what it may import besides itself. `a::b` allows that path and what is below
/// it; `a::**::settings` allows the settings modules of `a`. A module that is not here may not
/// exist: whoever adds one says on which floor it stands.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("metrics", &["base"]),
    ("wire", &["base", "metrics"]),
    ("ring", &["base", "metrics"]),
    ("io", &["base", "metrics"]),
    ("media", &["base", "wire"]),
    ("swarm", &["base", "metrics", "wire", "ring"]),
    ("registry", &["base", "metrics", "wire", "ring", "media", "swarm"]),
    ("face", &["base", "metrics", "wire", "ring", "registry", "media", "swarm"]),
    ("ingest", &["base", "metrics", "wire", "ring", "registry", "media", "swarm"]),
    (
        "shard",
        &[
            "base",
            "metrics",
            "wire",
            "ring",
            "registry",
            "media",
            "swarm",
            "face",
            "ingest",
            "io::machine",
        ],
    ),
    (
        "peer",
        &[
            "base",
            "metrics",
            "wire",
            "ring",
            "registry",
            "media",
            "swarm",
            "face",
            "ingest",
            "io::machine",
        ],
    ),
    (
        "config",
        &[
            "base",
            "ring::**::settings",
            "io::**::settings",
            "registry::**::settings",
            "media::**::settings",
            "swarm::**::settings",
            "face::**::settings",
            "ingest::**::settings",
            "shard::**::settings",
        ],
    ),
    (
        "control",
        &[
            "base", "metrics", "wire", "ring", "io", "registry", "media", "swarm", "face",
            "ingest", "shard", "peer", "config",
        ],
    ),
    (
        "bench",
        &[
            "base", "metrics", "wire", "ring", "io", "registry", "media", "swarm", "face",
            "ingest", "shard", "peer", "config",
        ],
    ),
    (
        "sim",
        &[
            "base",
            "metrics",
            "wire",
            "ring",
            "registry",
            "media",
            "swarm",
            "face",
            "ingest",
            "shard",
            "peer",
            "config",
            "io::machine",
        ],
    ),
    (
        "node",
        &[
            "base", "metrics", "wire", "ring", "io", "registry", "media", "swarm", "face",
            "ingest", "shard", "peer", "config", "control",
        ],
    ),
    (
        "cli",
        &[
            "base", "metrics", "wire", "ring", "io", "registry", "media", "swarm", "face",
            "ingest", "shard", "peer", "config", "control", "bench", "sim", "node",
        ],
    ),
];

/// The modules in which `unsafe` may stand.
const UNSAFE: [&str; 2] = ["ring", "io"];

#[test]
fn the_house_stands() {
    let found: Vec<_> = rust_files(&["src"]).iter().flat_map(violations).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What is wrong with one file.
fn violations(file: &Source) -> Vec<String> {
    let inside = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let say =
        |at: usize, what: String| format!("{}:{}: {what}", file.path, line_of(&file.code, at));
    match module {
        "lib" => return Vec::new(),
        "main" => {
            let paths = paths(&file.code, "headwater");
            let wrong = paths.into_iter().filter(|(_, path)| path[0] != "cli");
            return wrong.map(|(at, path)| say(at, format!("main -> {}", path[0]))).collect();
        }
        _ => {}
    }
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
        return vec![say(0, format!("module {module} stands on no floor: add it to FLOORS"))];
    };
    let mut found = Vec::new();
    for (at, path) in paths(&file.code, "crate") {
        if path[0] != module && !allowed.iter().any(|rule| allows(rule, &path)) {
            found.push(say(at, format!("{module} -> {}", path.join("::"))));
        }
    }
    let depth = depth(inside);
    for (at, path) in paths(&file.code, "super") {
        let supers = 1 + path.iter().take_while(|name| *name == "super").count();
        let lands = path.get(supers - 1).map_or("", String::as_str);
        if supers >= depth && lands != module && FLOORS.iter().any(|(name, _)| *name == lands) {
            found.push(say(
                at,
                format!("{module} -> super::{}: use crate:: paths", path.join("::")),
            ));
        }
    }
    if !UNSAFE.contains(&module) {
        found.extend(words(&file.code, "unsafe").map(|at| say(at, "unsafe outside".to_owned())));
        let top = inside == format!("{module}/mod.rs") || inside == format!("{module}.rs");
        if top && !file.code.contains("#![forbid(unsafe_code)]") {
            found.push(say(0, "lacks #![forbid(unsafe_code)]".to_owned()));
        }
    }
    found
}

/// How many modules deep the module of a file lies below the crate.
fn depth(inside: &str) -> usize {
    inside.trim_end_matches("/mod.rs").split('/').count()
}

fn allows(rule: &str, path: &[String]) -> bool {
    match rule.split_once("::**::") {
        Some((module, last)) => path[0] == module && path.iter().any(|name| name == last),
        None => {
            rule.split("::").enumerate().all(|(n, name)| path.get(n).is_some_and(|p| p == name))
        }
    }
}

/// Every path that begins with `root::`, in `use` trees as anywhere else, without the root.
fn paths(code: &str, root: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        let before = code[..at].trim_end();
        if before.ends_with("::") || before.ends_with('$') {
            continue; // `super::super::` is one path; `$crate` is a macro's own.
        }
        if let Some(rest) = code[at + root.len()..].trim_start().strip_prefix("::") {
            let mut ends = Vec::new();
            tree(rest, &mut Vec::new(), &mut ends);
            found.extend(ends.into_iter().map(|path| (at, path)));
        }
    }
    found
}

/// Reads one use tree (`a::{b, c::*}`), adds its full paths and gives what follows it.
fn tree<'a>(text: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    let length = before.len();
    loop {
        if let Some(mut rest) = text.strip_prefix('{') {
            loop {
                rest = rest.trim_start();
                if let Some(after) = rest.strip_prefix('}') {
                    before.truncate(length);
                    return after;
                }
                let after = tree(rest, before, found).trim_start();
                // Past an alias (`as x`) to the next branch.
                let next = after.find([',', '}']).unwrap_or(after.len());
                rest = after[next..].trim_start_matches(',');
                if rest.is_empty() {
                    return rest;
                }
            }
        }
        let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            before.push("*".to_owned());
        } else if name != "self" {
            before.push(name.to_owned());
        }
        match rest.trim_start().strip_prefix("::") {
            Some(rest) if !rest.trim_start().starts_with('<') => text = rest.trim_start(),
            _ => {
                found.push(before.clone());
                before.truncate(length);
                return rest;
            }
        }
    }
}

fn planted(path: &str, text: &str) -> Vec<String> {
    violations(&Source::new(path, text))
}

#[test]
fn planted_imports_are_caught() {
    for (path, text) in [
        ("src/base/time.rs", "use crate::metrics::cells;"),
        ("src/wire/http.rs", "use crate::ring::Reader;"),
        ("src/ring/slab.rs", "fn f() { crate::io::machine::x() }"),
        ("src/shard/router.rs", "use crate::io::epoll::Driver;"),
        ("src/shard/router.rs", "use crate::io;"),
        ("src/shard/router.rs", "use crate::{base::time::Now, io::{self, machine}};"),
        ("src/face/http/page.rs", "use crate::ingest::tcp;"),
        (
            "src/media/ts.rs",
            "pub use crate::{\n  wire::{ts as t, *},\n  registry::{settings as s},\n base};",
        ),
        ("src/config/raw.rs", "use crate::registry::streams::Table;"),
        ("src/control/mod.rs", "#![forbid(unsafe_code)]\nuse crate::node::run;"),
        ("src/face/mod.rs", "#![forbid(unsafe_code)]\nuse super::io::machine;"),
        ("src/face/http/page.rs", "use super::super::super::shard::x;"),
        ("src/main.rs", "fn main() { headwater::node::run() }"),
        ("src/newcomer/mod.rs", "#![forbid(unsafe_code)]"),
        ("src/newcomer.rs", ""),
        ("src/face/mod.rs", "//! No fence."),
        ("src/face/http/page.rs", "fn f() { unsafe { g() } }"),
    ] {
        assert_eq!(planted(path, text).len(), 1, "{path}: {text}: {:?}", planted(path, text));
    }
}

#[test]
fn what_is_allowed_is_not_caught() {
    for (path, text) in [
        ("src/shard/router.rs", "use crate::io::machine::{Machine, Outbox as Out};"),
        ("src/shard/router.rs", "use crate::{base::time::Now, io::machine::{self, Input}};"),
        ("src/config/raw.rs", "use crate::face::http::settings::Settings as Http;"),
        ("src/face/http/page.rs", "use crate::face::http::connection::X; use super::metrics;"),
        ("src/control/http.rs", "use super::metrics::page;"),
        ("src/base/time.rs", "// crate::io\n/* use crate::io; */ const X: &str = \"crate::io\";"),
        ("src/base/time.rs", "macro_rules! m { () => { $crate::io::x() } }"),
        ("src/ring/slab.rs", "unsafe { x() }"),
        ("src/face/http/page.rs", "// unsafe\n#[allow(unsafe_code)] fn f() {}"),
        ("src/main.rs", "fn main() { headwater::cli::run() }"),
        ("src/node/mod.rs", "#![forbid(unsafe_code)]\nuse crate::{config::Config, control};"),
    ] {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
