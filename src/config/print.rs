//! The configuration as a commented file: the manual of every key, and what is in force.

use crate::config::sources::{File, Layers, Origin, Source};
use crate::config::table::{self, INGEST_ABOUT, INGEST_FIELDS, SECTIONS};

const HEADER: &str = "\
# The configuration of headwater, every key with its default.
# Later sources win: defaults, this file, environment variables, flags.
# `headwater check FILE` tells whether a file is good; `headwater relay --print-config` prints
# what is in force and where each value came from.
";

/// The configuration in force, each value with its source in a trailing comment.
#[must_use]
pub fn in_force(layers: &Layers) -> String {
    let mut text = write(|path| {
        let origin = layers.origin(path)?;
        Some((origin.literal.clone(), format!("  # {}", describe(origin, layers.file()))))
    });
    for (line, entry) in layers.ingests() {
        let file = layers.file().map_or("", |file| &file.name).escape_debug();
        text += &format!("\n[[ingest]]  # {file}:{line}\n{entry}");
    }
    text
}

/// The defaults, without sources: the file that is shipped.
#[must_use]
pub fn defaults() -> String {
    write(|path| table::find(path).map(|key| (key.default.to_owned(), String::new())))
}

/// Writes the file; `value` gives a key's literal and what follows it.
fn write(value: impl Fn(&str) -> Option<(String, String)>) -> String {
    let mut text = HEADER.to_owned();
    for (section, about) in SECTIONS {
        text += &format!("\n# {about}\n[{section}]\n");
        for key in table::of_section(section) {
            text += "\n";
            let (literal, comment) = value(key.path).unwrap_or_default();
            for line in key.doc {
                text += &format!("# {line}\n");
            }
            text += &format!("# Allowed: {}.\n", key.allowed);
            let flag = if key.flag.is_empty() { String::new() } else { format!(", {}", key.flag) };
            let (variable, reload) = (key.variable(), key.reload.as_str());
            text +=
                &format!("# Default: {}. Or {variable}{flag}. Reload: {reload}.\n", key.default);
            text += &format!("{} = {literal}{comment}\n", key.name());
        }
    }
    text.push('\n');
    for line in INGEST_ABOUT {
        text += &format!("# {line}\n");
    }
    text += "#\n# [[ingest]]\n";
    for field in INGEST_FIELDS {
        text += "#\n";
        for line in field.doc {
            text += &format!("# # {line}\n");
        }
        text += &format!("# # Allowed: {}.\n", field.allowed);
        text += &format!("# {} = {}\n", field.name, field.example);
    }
    text
}

/// A source in words.
fn describe(origin: &Origin, file: Option<&File>) -> String {
    match (&origin.source, file) {
        (Source::File, Some(file)) => {
            let before = file.text.get(..origin.span.start).unwrap_or_default();
            // Whatever a file is called, a comment stays one line.
            let name = file.name.escape_debug();
            format!("{name}:{}", before.matches('\n').count() + 1)
        }
        (Source::Default | Source::File, _) => "default".to_owned(),
        (Source::Variable(name), _) => format!("environment: {name}"),
        (Source::Flag(flag), _) => format!("flag: {flag}"),
    }
}
