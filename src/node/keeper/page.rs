//! The files of the state directory: one for each stream, and one for the process.
//!
//! ```text
//! DIR/start.json           which start of the process this is, and whether it ended in order
//! DIR/streams/NAME.json    numbers, key and signing of one stream; 0600, for it holds the key
//! ```

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::ids::StreamName;
use crate::base::limits::CHUNK;
use crate::base::time::Utc;
use crate::media::segmenter::Counts;
use crate::node::ready::{Access, replace};
use crate::registry::streams::Resume;
use crate::ring::records::SubtreeSize;
use crate::swarm::integrity::{KeyPair, Signer, SwarmId};
use crate::wire::ppspp::Addressing;

/// The form of the files.
const VERSION: u32 = 1;

/// The folder of the streams' files.
const FOLDER: &str = "streams";

/// What a stream's file is called, behind its name.
const ENDING: &str = ".json";

/// The file of the process.
const START: &str = "start.json";

/// What a development version wrote in place of all this.
const FORMER: &str = "streams.json";

/// Something of every stream or, in one line, why there is nothing.
pub type PerStream<T> = Vec<(StreamName, Result<T, String>)>;

/// What is kept of one stream.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Which start of the process wrote it.
    pub(super) start: u64,
    /// Where its numbers go on: nothing at or beyond was used when this was written.
    pub(super) resume: Resume,
    /// Only of a stream that was in the swarm.
    pub(super) secret: Option<Secret>,
}

/// What makes a stream the same swarm again.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) key: Arc<KeyPair>,
    pub(super) addressing: Addressing,
    /// `None`: not known yet, because the stream's bitrate is not.
    pub(super) size: Option<SubtreeSize>,
    /// The signer's clock when this was written.
    pub(super) signed: Utc,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u32,
    /// The stream's name: a file that was copied for another one must not pass.
    stream: String,
    start: u64,
    /// Stream offset.
    next: u64,
    segments: Segments,
    #[serde(skip_serializing_if = "Option::is_none")]
    swarm: Option<Swarm>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Segments {
    /// The next media sequence number.
    next: u64,
    /// The discontinuity sequence number of the last segment.
    breaks: u64,
    /// The longest segment that players were promised, in seconds.
    target: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Swarm {
    swarm_id: String,
    /// PKCS#8, in hexadecimal digits.
    key: String,
    chunk_size: usize,
    chunk_addressing: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_per_signature: Option<usize>,
    /// Milliseconds since 1970.
    signed: u64,
}

/// `DIR/start.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    version: u32,
    /// Counts starts of the process that did not follow an orderly end.
    pub(super) start: u64,
    /// Whether that process wrote the exact end of everything.
    pub(super) clean: bool,
}

/// The state directory.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// One line with the path.
    pub(super) fn open(dir: &Path) -> Result<Folder, String> {
        let former = dir.join(FORMER);
        if former.exists() {
            let why = "written by a development version, and not read any more";
            return Err(refusal(&former, &why));
        }
        fs::create_dir_all(dir.join(FOLDER))
            .map_err(|why| format!("state.dir {}: {why}", dir.display()))?;
        Ok(Folder(dir.to_owned()))
    }

    /// The file of a stream.
    pub(super) fn of(&self, name: &StreamName) -> PathBuf {
        self.0.join(FOLDER).join(format!("{name}{ENDING}"))
    }

    /// Every stream with a file, and what is in it or, in one line, why that cannot be used.
    ///
    /// # Errors
    /// One line if the folder cannot be read.
    pub(super) fn read(&self) -> Result<PerStream<Kept>, String> {
        let folder = self.0.join(FOLDER);
        let bad = |why| format!("state.dir {}: {why}", folder.display());
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder).map_err(bad)? {
            let name = entry.map_err(bad)?.file_name();
            // Others' files, and what a crash left half written.
            let stem = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            if let Some(Ok(name)) = stem.map(str::parse) {
                let kept = self.read_one(&name);
                all.push((name, kept));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    fn read_one(&self, name: &StreamName) -> Result<Kept, String> {
        let path = self.of(name);
        let text = fs::read(&path).map_err(|why| refusal(&path, &why))?;
        let page = serde_json::from_slice(&text).map_err(|why| refusal(&path, &why))?;
        understand(name, page).map_err(|why| refusal(&path, &why))
    }

    /// Puts a stream's file in place.
    ///
    /// # Errors
    /// One line with the path.
    pub(super) fn write(&self, name: &StreamName, kept: &Kept) -> Result<(), String> {
        let page = page(name, kept)?;
        self.put(&self.of(name), &page)
    }

    /// What the last process said of itself.
    ///
    /// # Errors
    /// One line with the path: without this file numbers might be used twice.
    pub(super) fn last_start(&self) -> Result<Option<Start>, String> {
        let path = self.0.join(START);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(refusal(&path, &why)),
        };
        let start: Start = serde_json::from_slice(&text).map_err(|why| refusal(&path, &why))?;
        match start.version {
            VERSION => Ok(Some(start)),
            other => Err(refusal(&path, &format!("version {other} is not known"))),
        }
    }

    /// Says of this process that it began, or ended in order.
    ///
    /// # Errors
    /// One line with the path.
    pub(super) fn write_start(&self, start: u64, clean: bool) -> Result<(), String> {
        self.put(&self.0.join(START), &Start { version: VERSION, start, clean })
    }

    fn put(&self, path: &Path, value: &impl Serialize) -> Result<(), String> {
        let bytes = serde_json::to_vec(value).map_err(std::io::Error::other);
        bytes
            .and_then(|bytes| replace(path, &bytes, Access::Owner))
            .map_err(|why| format!("{}: {why}", path.display()))
    }
}

/// The swarms of a state directory: each stream and its swarm's name, or why it has none. For
/// people; nothing is changed.
///
/// # Errors
/// One line if the directory cannot be read.
pub fn swarms(dir: &Path) -> Result<PerStream<SwarmId>, String> {
    let all = Folder(dir.to_owned()).read()?;
    let id = |kept: Kept| match kept.secret {
        Some(secret) => Ok(secret.key.swarm_id()),
        None => Err("no key: it was not live while there was a swarm".to_owned()),
    };
    Ok(all.into_iter().map(|(name, kept)| (name, kept.and_then(id))).collect())
}

fn refusal(path: &Path, why: &dyn Display) -> String {
    let what = match path.file_name() == Some(OsStr::new(START)) {
        true => "let numbers begin anew",
        false => "let the stream begin anew, with another key",
    };
    format!("{}: {why}; restore the file, or move it away to {what}", path.display())
}

fn understand(name: &StreamName, page: Page) -> Result<Kept, String> {
    if page.version != VERSION {
        return Err(format!("version {} is not known", page.version));
    }
    if page.stream != name.as_str() {
        return Err(format!("it is of the stream {:?}", page.stream));
    }
    let Segments { next, breaks, target } = page.segments;
    let resume = Resume { next: page.next, segments: Counts { next, breaks, target } };
    let secret = page.swarm.map(understand_swarm).transpose()?;
    Ok(Kept { start: page.start, resume, secret })
}

fn understand_swarm(swarm: Swarm) -> Result<Secret, String> {
    let Swarm { swarm_id, key, chunk_size, chunk_addressing, chunks_per_signature, signed } = swarm;
    if chunk_size != CHUNK {
        return Err(format!("chunks of {chunk_size} bytes are not served, only of {CHUNK}"));
    }
    let addressing = Addressing::from_code(chunk_addressing)
        .ok_or_else(|| format!("chunk_addressing {chunk_addressing} is not known"))?;
    let size = chunks_per_signature.map(|chunks| {
        SubtreeSize::new(chunks).ok_or_else(|| format!("{chunks} chunks per signature"))
    });
    let key = KeyPair::from_pkcs8(&from_hex(&key)?).map_err(|why| format!("key: {why}"))?;
    if key.swarm_id().to_string() != swarm_id {
        return Err("the key is not that of the swarm_id".to_owned());
    }
    let signed = Utc::from_unix_millis(signed);
    Ok(Secret { key: Arc::new(key), addressing, size: size.transpose()?, signed })
}

fn page(name: &StreamName, kept: &Kept) -> Result<Page, String> {
    let Counts { next, breaks, target } = kept.resume.segments;
    let swarm = |secret: &Secret| -> Result<Swarm, String> {
        Ok(Swarm {
            swarm_id: secret.key.swarm_id().to_string(),
            key: to_hex(&secret.key.pkcs8().map_err(|why| why.to_string())?),
            chunk_size: CHUNK,
            chunk_addressing: secret.addressing.code(),
            chunks_per_signature: secret.size.map(SubtreeSize::chunks),
            signed: secret.signed.as_unix_millis(),
        })
    };
    Ok(Page {
        version: VERSION,
        stream: name.to_string(),
        start: kept.start,
        next: kept.resume.next,
        segments: Segments { next, breaks, target },
        swarm: kept.secret.as_ref().map(swarm).transpose()?,
    })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or("key: not in hexadecimal digits")?;
    // Two digits are below 256.
    Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}
