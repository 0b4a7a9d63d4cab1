//! The four sources, laid over each other: defaults, file, environment, flags.
//!
//! Each source is one or more small TOML documents that the same `Raw` reads. For every key it
//! is kept where its value came from and what was typed there, for errors and for the manual.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::error::{Error, Place, Problem};
use crate::config::raw::{Ingest, Raw};
use crate::config::table::{
    self, INGEST_FIELDS, KEY_FIELDS, KEYS, Key, Kind, SECTIONS, VARIABLE_PREFIX,
};

/// The most bytes of a configuration file. Real ones have a few thousand.
const FILE_MAX: u64 = 1 << 20;

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Override {
    /// The flag with its dashes, as in [`Key::flag`].
    pub flag: &'static str,
    /// What followed it.
    pub value: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table of keys.
    Default,
    /// The file.
    File,
    /// The environment variable of that name.
    Variable(String),
    /// The flag.
    Flag(&'static str),
}

/// One key's value and its source.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where the value came from.
    pub source: Source,
    /// The value as a TOML literal, as it was typed.
    pub literal: String,
    /// Its place in the file, if that is the source.
    pub span: Range<usize>,
}

/// A file that was read.
#[derive(Debug)]
pub struct File {
    /// Its name as the user gave it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// All sources, laid over each other.
#[derive(Debug)]
pub struct Layers {
    raw: Raw,
    origins: BTreeMap<&'static str, Origin>,
    file: Option<File>,
}

impl Layers {
    /// Reads all sources. Blocks on reading `file`.
    ///
    /// # Errors
    /// As [`crate::config::load`]: unknown keys and wrong types are found here, wrong values later.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Override],
    ) -> Result<Layers, Error> {
        let file = file.map(read_file).transpose()?;
        let mut layers = Layers { raw: Raw::default(), origins: BTreeMap::new(), file };
        let mut problems = Vec::new();
        for key in KEYS {
            layers.add(key, Source::Default, key.default.to_owned(), &mut problems);
        }
        layers.add_file(&mut problems);
        layers.add_environment(environment, &mut problems);
        for flag in flags {
            // The table knows every flag that sets a key: a test of the command line holds them.
            if let Some(key) = KEYS.iter().find(|key| key.flag == flag.flag) {
                let literal = literal(key.kind, &flag.value);
                layers.add(key, Source::Flag(flag.flag), literal, &mut problems);
            }
        }
        if problems.is_empty() { Ok(layers) } else { Err(Error::Invalid(problems)) }
    }

    /// What was typed, all layers in one.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// The file, if there was one.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Where the value of `key` came from. Every key of the table has one.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path)
    }

    /// The place of bytes of the file that belong to no key: of an `[[ingest]]`.
    #[must_use]
    pub fn place_in_file(&self, span: Range<usize>) -> Place {
        let place = |file: &File| Place::in_file(&file.name, &file.text, span);
        self.file.as_ref().map_or(Place::Default, place)
    }

    /// Every `[[ingest]]`: its line in the file, and its lines as TOML.
    #[must_use]
    pub fn ingests(&self) -> Vec<(usize, String)> {
        let text = self.file.as_ref().map_or("", |file| &file.text);
        let write = |entry: &toml::Spanned<Ingest>| {
            let before = text.get(..entry.span().start).unwrap_or_default();
            (before.matches('\n').count() + 1, entry.get_ref().to_string())
        };
        self.raw.ingest.iter().flatten().map(write).collect()
    }

    /// The place of a value of `key`, or of the part of it at `span` of its document.
    #[must_use]
    pub fn place(&self, path: &str, span: Option<Range<usize>>) -> Place {
        let Some(origin) = self.origins.get(path) else { return Place::Default };
        match (&origin.source, &self.file) {
            (Source::Default, _) | (Source::File, None) => Place::Default,
            (Source::File, Some(file)) => {
                Place::in_file(&file.name, &file.text, span.unwrap_or(origin.span.clone()))
            }
            (source, _) => Place::Named(name_of(source)),
        }
    }

    /// Lays one value over what is there.
    fn add(&mut self, key: &Key, source: Source, literal: String, problems: &mut Vec<Problem>) {
        let document = format!("[{}]\n{} = {literal}\n", key.section(), key.name());
        match toml::from_str::<Raw>(&document) {
            Ok(raw) => {
                self.raw.cover(raw);
                let path = table::find(key.path).map_or("", |key| key.path);
                self.origins.insert(path, Origin { source, literal, span: 0..0 });
            }
            Err(error) => problems.push(Problem {
                place: Place::Named(name_of(&source)),
                message: format!("[{}] {}: {}", key.section(), key.name(), one_line(&error)),
                help: allowed(key),
            }),
        }
    }

    /// Lays the file over what is there.
    fn add_file(&mut self, problems: &mut Vec<Problem>) {
        let Some(file) = &self.file else { return };
        let root = match DeTable::parse(&file.text) {
            Ok(root) => root.into_inner(),
            Err(error) => return problems.push(syntax(file, &error)),
        };
        let found = Walk { file, problems }.root(&root);
        if !problems.is_empty() {
            return;
        }
        match toml::from_str::<Raw>(&file.text) {
            Ok(raw) => self.raw.cover(raw),
            Err(error) => return problems.push(wrong_type(file, &found, &error)),
        }
        for (key, span) in found {
            let literal = file.text.get(span.clone()).unwrap_or_default().to_owned();
            self.origins.insert(key.path, Origin { source: Source::File, literal, span });
        }
    }

    /// Lays the environment over what is there.
    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) {
        let ours = environment.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(VARIABLE_PREFIX).then_some((name, value))
        });
        for (name, value) in ours {
            let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
                problems.extend(unknown_variable(&name));
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    let literal = literal(key.kind, &value);
                    self.add(key, Source::Variable(name), literal, problems);
                }
                Err(_) => problems.push(Problem {
                    place: Place::Named(name_of(&Source::Variable(name))),
                    message: "is not UTF-8".to_owned(),
                    help: allowed(key),
                }),
            }
        }
    }
}

/// The help line that the table has for a key.
pub fn allowed(key: &Key) -> String {
    format!("allowed: {}", key.allowed)
}

/// How a source is called in an error.
fn name_of(source: &Source) -> String {
    match source {
        Source::Default => "default".to_owned(),
        Source::File => "file".to_owned(),
        Source::Variable(name) => format!("environment variable {name}"),
        Source::Flag(flag) => format!("flag {flag}"),
    }
}

/// A value from outside TOML as a TOML literal: numbers and booleans as they are, lists either
/// as TOML arrays or as words with commas between, everything else as a string.
fn literal(kind: Kind, value: &str) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let plain = match kind {
        Kind::Integer => value.trim().parse::<i64>().is_ok(),
        Kind::Bool => matches!(value.trim(), "true" | "false"),
        // Only a whole array is taken over: anything after it would become another key.
        Kind::List | Kind::Keys => value.parse::<toml::Value>().is_ok_and(|v| v.is_array()),
        Kind::Text | Kind::Mixed => false,
    };
    match kind {
        _ if plain => value.trim().to_owned(),
        Kind::List | Kind::Keys => {
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            format!("[{}]", words.map(quote).collect::<Vec<_>>().join(", "))
        }
        _ => quote(value),
    }
}

/// Whether a variable with our prefix is a typing error. Only one that names a section of ours
/// is: container platforms invent others (`HEADWATER_SERVICE_HOST`, `HEADWATER_PORT`).
fn unknown_variable(name: &str) -> Option<Problem> {
    let rest = name.strip_prefix(VARIABLE_PREFIX)?.to_lowercase();
    let (section, key) = rest.split_once('_')?;
    table::of_section(section).next()?;
    let help = match table::suggest(section, key) {
        Some(key) => format!("did you mean {}?", key.variable()),
        None => {
            let names: Vec<_> = table::of_section(section).map(Key::variable).collect();
            format!("allowed: {}", names.join(", "))
        }
    };
    let place = Place::Named(name_of(&Source::Variable(name.to_owned())));
    Some(Problem { place, message: format!("unknown key {key:?} in [{section}]"), help })
}

/// Reads the file, up to [`FILE_MAX`].
fn read_file(path: &Path) -> Result<File, Error> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|why| Error::Unreadable { file: name.clone(), why })?;
    if bytes.len() as u64 > FILE_MAX {
        let message = format!("{name} is longer than 1 MiB: this is no configuration");
        let problem = Problem { place: Place::Default, message, help: String::new() };
        return Err(Error::Invalid(vec![problem]));
    }
    String::from_utf8(bytes).map(|text| File { name: name.clone(), text }).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let place = Place::in_file(&name, &text, at..at + 1);
        let message = "the file is not UTF-8".to_owned();
        Error::Invalid(vec![Problem { place, message, help: String::new() }])
    })
}

/// A parser's message on one line, without names of Rust types.
fn one_line(error: &toml::de::Error) -> String {
    let line = error.message().lines().collect::<Vec<_>>().join(", ");
    line.replace("expected i64", "expected an integer")
}

/// The file is no TOML.
fn syntax(file: &File, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let place = Place::in_file(&file.name, &file.text, span);
    Problem { place, message: one_line(error), help: String::new() }
}

/// A value of the file has the wrong type.
fn wrong_type(
    file: &File,
    found: &[(&'static Key, Range<usize>)],
    error: &toml::de::Error,
) -> Problem {
    let mut problem = syntax(file, error);
    let at = error.span().unwrap_or(0..0).start;
    if let Some((key, _)) = found.iter().find(|(_, span)| span.contains(&at)) {
        problem.message = format!("[{}] {}: {}", key.section(), key.name(), problem.message);
        problem.help = allowed(key);
    }
    problem
}

/// Looks through a file's table for names that the table of keys does not have.
struct Walk<'a> {
    file: &'a File,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    /// Every known key with the place of its value.
    fn root(&mut self, root: &DeTable<'_>) -> Vec<(&'static Key, Range<usize>)> {
        let mut found = Vec::new();
        for (name, value) in root {
            let section: &str = name.get_ref();
            if section == "ingest" {
                self.ingests(name.span(), value.get_ref());
                continue;
            }
            let Some((section, _)) = SECTIONS.iter().find(|(known, _)| *known == section) else {
                self.unknown_section(section, name.span());
                continue;
            };
            let DeValue::Table(entries) = value.get_ref() else {
                let message = format!("{section:?} is a section, not a value");
                self.report(
                    name.span(),
                    message,
                    format!("write [{section}] on a line of its own"),
                );
                continue;
            };
            for (name, value) in entries {
                match table::of_section(section).find(|key| *key.name() == **name.get_ref()) {
                    Some(key) => {
                        found.push((key, value.span()));
                        self.publish_keys(key, value.get_ref());
                    }
                    None => self.unknown_key(section, name.get_ref(), name.span()),
                }
            }
        }
        found
    }

    /// The names inside the table form of a publish key.
    fn publish_keys(&mut self, key: &Key, value: &DeValue<'_>) {
        let (Kind::Keys, DeValue::Array(items)) = (key.kind, value) else { return };
        let tables = items.iter().filter_map(|item| item.get_ref().as_table());
        for name in tables.flat_map(|table| table.keys()) {
            let typed: &str = name.get_ref();
            if !KEY_FIELDS.contains(&typed) {
                let help = match table::nearest(typed, KEY_FIELDS) {
                    Some(field) => format!("did you mean {field:?}?"),
                    None => format!("allowed: {}", KEY_FIELDS.join(", ")),
                };
                self.report(name.span(), format!("unknown name {typed:?} in a publish key"), help);
            }
        }
    }

    /// The names inside each `[[ingest]]`.
    fn ingests(&mut self, span: Range<usize>, value: &DeValue<'_>) {
        let DeValue::Array(items) = value else {
            let message = "\"ingest\" is a list of sections".to_owned();
            return self.report(span, message, "write [[ingest]], once for each stream".to_owned());
        };
        let tables = items.iter().filter_map(|item| item.get_ref().as_table());
        for name in tables.flat_map(|table| table.keys()) {
            let typed: &str = name.get_ref();
            let names = || INGEST_FIELDS.iter().map(|field| field.name);
            if names().all(|known| known != typed) {
                let help = match table::nearest(typed, names()) {
                    Some(field) => format!("did you mean {field:?}?"),
                    None => format!("allowed: {}", names().collect::<Vec<_>>().join(", ")),
                };
                self.report(name.span(), format!("unknown key {typed:?} in [[ingest]]"), help);
            }
        }
    }

    fn unknown_section(&mut self, typed: &str, span: Range<usize>) {
        let names = SECTIONS.iter().map(|(name, _)| *name);
        if table::nearest(typed, names.clone().chain(["ingest"])) == Some("ingest") {
            let help = "did you mean [[ingest]]?".to_owned();
            return self.report(span, format!("unknown section [{typed}]"), help);
        }
        let help = match (table::nearest(typed, names.clone()), table::suggest("", typed)) {
            (Some(section), _) => format!("did you mean [{section}]?"),
            (None, Some(key)) => format!("did you mean {:?} in [{}]?", key.name(), key.section()),
            (None, None) => format!("allowed: {}", names.collect::<Vec<_>>().join(", ")),
        };
        self.report(span, format!("unknown section [{typed}]"), help);
    }

    fn unknown_key(&mut self, section: &str, typed: &str, span: Range<usize>) {
        let help = match table::suggest(section, typed) {
            Some(key) if key.section() == section => format!("did you mean {:?}?", key.name()),
            Some(key) => format!("did you mean {:?} in [{}]?", key.name(), key.section()),
            None => {
                let names: Vec<_> = table::of_section(section).map(Key::name).collect();
                format!("allowed: {}", names.join(", "))
            }
        };
        self.report(span, format!("unknown key {typed:?} in [{section}]"), help);
    }

    fn report(&mut self, span: Range<usize>, message: String, help: String) {
        let place = Place::in_file(&self.file.name, &self.file.text, span);
        self.problems.push(Problem { place, message, help });
    }
}
