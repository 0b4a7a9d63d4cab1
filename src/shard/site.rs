//! What the HTTP face asks the house: JSON of streams, and the counting of responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::ids::StreamName;
use crate::base::time::{Mono, Now};
use crate::face::http::connection::{Refusal, Site};
use crate::face::http::graph;
use crate::face::http::invitation::invitation;
use crate::face::http::settings::Settings;
use crate::face::http::status;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;
use crate::registry::streams::{Lookup, Registry};

/// How long a list of streams may be old: a crowd of open pages costs one list, not many.
const LIST_AGE: Duration = Duration::from_millis(250);

/// The shard's information desk.
pub(super) struct Desk {
    registry: Arc<Registry>,
    cells: Arc<Cells>,
    http: Arc<Settings>,
    list: Option<(Mono, Bytes)>,
}

impl Desk {
    pub(super) fn new(registry: Arc<Registry>, cells: Arc<Cells>, http: Arc<Settings>) -> Desk {
        Desk { registry, cells, http, list: None }
    }

    /// The desk as the HTTP face sees it, at this moment.
    pub(super) fn site(&mut self, now: Now) -> AtDesk<'_> {
        AtDesk { desk: self, now }
    }
}

/// The desk at one moment.
pub(super) struct AtDesk<'a> {
    desk: &'a mut Desk,
    now: Now,
}

impl Site for AtDesk<'_> {
    fn streams_json(&mut self, _now: Mono) -> Bytes {
        if let Some((at, list)) = &self.desk.list
            && self.now.mono.since(*at) < LIST_AGE
        {
            return list.clone();
        }
        let list = json(&status::streams(&self.desk.registry, self.now));
        self.desk.list = Some((self.now.mono, list.clone()));
        list
    }

    fn status_json(&mut self, name: &StreamName) -> Option<Bytes> {
        let directory = self.desk.registry.directory();
        let stream = directory.get(name)?;
        Some(json(&status::status(stream, &self.desk.registry.pulse.load(), self.now)))
    }

    fn graph_json(&mut self, name: &StreamName) -> Option<Bytes> {
        self.desk.registry.directory().get(name).map(|stream| graph::drawn(stream))
    }

    fn swarm_json(&mut self, name: &StreamName, host: Option<&str>) -> Result<Bytes, Refusal> {
        let stream = match self.desk.registry.lookup(name) {
            Lookup::Present(stream) => stream,
            Lookup::Known => {
                let text = "the stream is not live now; ask again";
                return Err(Refusal::new(503, text).retry_after(2));
            }
            Lookup::Unknown => {
                return Err(Refusal::new(404, "no such stream; see / for what is live"));
            }
        };
        let door = self.desk.http.swarm.as_ref();
        invitation(&stream, door, host, self.now).map(|document| json(&document))
    }

    fn count(&mut self, cell: Cell) {
        self.desk.cells.add(cell, 1);
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Structs of strings and numbers always serialise.
    serde_json::to_vec(value).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
}
