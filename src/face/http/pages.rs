//! The pages and what they are made of: one table, compiled in.

use std::sync::LazyLock;

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// The path that serves it.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($( $path:literal $file:literal $content_type:ident; )*) => {
        static ASSETS: &[Asset] = &[ $( Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("assets/", $file)),
        } ),* ];
    };
}

assets! {
    "/" "index.html" HTML;
    "/watch/live/" "watch.html" HTML;
    "/assets/style.css" "style.css" CSS;
    "/assets/app.js" "app.js" SCRIPT;
    "/assets/dom.js" "dom.js" SCRIPT;
    "/assets/swarm.js" "swarm.js" SCRIPT;
    "/assets/graph.js" "graph.js" SCRIPT;
    "/assets/plot.js" "plot.js" SCRIPT;
    "/assets/player.js" "player.js" SCRIPT;
    "/assets/native.js" "native.js" SCRIPT;
    "/assets/ts.js" "ts.js" SCRIPT;
    "/assets/mp4.js" "mp4.js" SCRIPT;
    "/assets/codecs.js" "codecs.js" SCRIPT;
    "/assets/remux.js" "remux.js" SCRIPT;
    "/assets/sink.js" "sink.js" SCRIPT;
    "/assets/icon.svg" "icon.svg" SVG;
}

/// The entity tags, in the order of the table. Hashed once, when the first page is asked for.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| ASSETS.iter().map(|asset| tag(asset.bytes)).collect());

/// The page that shows one stream, whatever its name: its script reads the name.
pub const WATCH: &str = "/watch/live/";

/// A file and its strong entity tag, by the path that serves it.
#[must_use]
pub fn find(path: &str) -> Option<(&'static Asset, &'static str)> {
    let index = ASSETS.iter().position(|asset| asset.path == path)?;
    Some((&ASSETS[index], &TAGS[index]))
}

impl Asset {
    /// Whether it is a page, which says what may be loaded into it.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.content_type == HTML
    }
}

/// FNV-1a and the length: the tag must tell builds of this program apart, and nobody gains by
/// finding two files with one tag.
pub fn tag(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{hash:016x}-{:x}\"", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_strong_and_tell_contents_apart() {
        assert_ne!(tag(b"a"), tag(b"b"));
        assert_ne!(tag(b""), tag(b"\0"));
        for asset in ASSETS {
            let (found, tag) = find(asset.path).unwrap();
            assert!(std::ptr::eq(found.bytes, asset.bytes), "{} is there twice", asset.path);
            assert!(tag.starts_with('"') && tag.ends_with('"'));
            assert!(!asset.bytes.is_empty(), "{}", asset.path);
        }
    }

    #[test]
    fn every_file_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/face/http/assets");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let served: Vec<&[u8]> = ASSETS.iter().map(|asset| asset.bytes).collect();
        let mut count = 0;
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(served.contains(&&bytes[..]), "{} is not in the table", file.display());
            count += 1;
        }
        assert_eq!(count, ASSETS.len());
    }
}
