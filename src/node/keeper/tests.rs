//! What the keeper writes, what it reads, and what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::base::ids::ShardId;
use crate::media::health::Health;
use crate::registry::keys::KeyId;
use crate::registry::settings as registry_settings;
use crate::registry::streams::{Claim, Lease};
use crate::ring::arena::Arena;
use crate::swarm::settings::{Addressing, Join, Mode, Strategy};

const N16: Option<SubtreeSize> = SubtreeSize::new(16);

fn registry() -> Registry {
    let limits = registry_settings::Limits {
        viewers: 1,
        connections: 1,
        per_address: 1,
        exempt: Vec::new(),
        peers: 1,
        egress: None,
    };
    let settings = registry_settings::Settings {
        max_streams: 2,
        window: Duration::from_secs(60),
        window_bytes: 0,
        linger: Duration::ZERO,
        keys: Vec::new(),
        limits,
    };
    Registry::new(settings, Arena::create(16 << 20).unwrap(), 1)
}

fn swarm(size: Option<SubtreeSize>) -> Settings {
    Settings {
        listen: Some(([127, 0, 0, 1], 0).into()),
        advertise: Vec::new(),
        addressing: Addressing::Chunks64,
        size,
        join: Join::Open,
        peers: 1,
        egress: None,
        mode: Mode::Direct,
        strategy: Strategy::Trees,
    }
}

fn at(millis: u64) -> Now {
    let utc = Utc::from_unix_millis(1_767_225_600_000 + millis);
    Now { mono: Mono::from_millis(millis), utc }
}

/// One life of the process.
struct Life {
    registry: Registry,
    keeper: Keeper,
}

impl Life {
    fn begin(dir: Option<&Path>, size: Option<SubtreeSize>) -> Life {
        let registry = registry();
        let keeper = Keeper::open(dir, &swarm(size), &registry, at(0)).unwrap();
        Life { registry, keeper }
    }

    fn live(&self, name: &str) -> Lease {
        let name = name.parse().unwrap();
        match self.registry.claim(&name, KeyId::ingest(0), ShardId(0), at(0)) {
            Claim::Granted(lease) => lease,
            Claim::Refused(why) => panic!("{why}"),
            _ => panic!("not granted"),
        }
    }

    fn tick(&mut self, millis: u64) {
        self.keeper.tick(&self.registry, at(millis));
    }

    fn end(mut self, lease: Lease, millis: u64) {
        let mut writer = lease.writer;
        writer.pad(at(millis).mono);
        lease.stream.park(writer, at(millis).mono);
        self.keeper.close(&self.registry, at(millis));
    }
}

fn append(lease: &mut Lease, subtrees: usize, millis: u64) {
    for _ in 0..subtrees {
        lease.writer.append(at(millis).mono, &[0x47; SUBTREE]);
        lease.writer.publish(at(millis).mono);
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("streams").join(format!("{name}.json"))
}

fn json(dir: &Path, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(file(dir, name)).unwrap()).unwrap()
}

#[test]
fn a_stream_is_the_same_swarm_again_and_its_numbers_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(Some(dir.path()), N16);
    let mut lease = life.live("cam");
    assert!(lease.stream.identity().is_none());
    life.tick(250);
    let first = Arc::clone(lease.stream.identity().unwrap());
    assert_eq!((first.size, first.addressing), (N16.unwrap(), Addressing::Chunks64));
    let mode = fs::metadata(file(dir.path(), "cam")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    append(&mut lease, 3, 300);
    life.end(lease, 400);

    // An orderly end loses nothing.
    let life = Life::begin(Some(dir.path()), N16);
    let mut lease = life.live("cam");
    assert_eq!(lease.writer.next(), 3 * SUBTREE as u64);
    append(&mut lease, 1, 100);
    // A crash before the first tick ...
    drop((life.keeper, lease));
    let mut life = Life::begin(Some(dir.path()), N16);
    let mut lease = life.live("cam");
    let after = lease.writer.next();
    assert!(after >= 3 * SUBTREE as u64 + JUMP, "what was used without a file is jumped over");
    life.tick(250);
    let second = Arc::clone(lease.stream.identity().unwrap());
    assert_eq!(second.swarm_id, first.swarm_id);
    let mark = second.limit();
    assert!(mark >= after + AHEAD_MIN - SUBTREE as u64 && mark.is_multiple_of(SUBTREE as u64));
    assert_eq!(json(dir.path(), "cam")["next"], mark);
    // ... and one behind it.
    append(&mut lease, 1, 300);
    drop((life.keeper, lease));
    let life = Life::begin(Some(dir.path()), N16);
    assert!(life.live("cam").writer.next() >= mark);
}

#[test]
fn files_are_moved_ahead_before_they_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(Some(dir.path()), N16);
    let mut lease = life.live("cam");
    life.tick(250);
    let written = json(dir.path(), "cam");
    append(&mut lease, 5, 300);
    life.tick(9_000);
    assert_eq!(json(dir.path(), "cam"), written, "not every second");
    life.tick(10_250);
    let moved = json(dir.path(), "cam");
    assert!(moved["next"].as_u64() > written["next"].as_u64());
    assert!(moved["swarm"]["signed"].as_u64() > written["swarm"]["signed"].as_u64());
    assert_eq!(lease.stream.identity().unwrap().limit(), moved["next"].as_u64().unwrap());
    life.tick(30_000);
    assert_eq!(json(dir.path(), "cam"), moved, "nothing came");
    append(&mut lease, AHEAD_MIN as usize / 2 / SUBTREE + 1, 30_100);
    life.tick(30_200);
    assert_ne!(json(dir.path(), "cam"), moved, "half of it is used");
    // At a high bitrate it lies a minute ahead.
    lease.stream.set_health(Health { bitrate_bps: 80_000_000, ..Health::default() });
    life.tick(30_400);
    let ahead = lease.stream.identity().unwrap().limit() - lease.stream.window.head();
    assert!(ahead > 590_000_000 && ahead <= 600_000_000, "{ahead}");
}

#[test]
fn chunks_per_signature_follow_the_bitrate_of_the_first_two_seconds() {
    let size = |bitrate| size_for(bitrate).chunks();
    for (kbit, chunks) in
        [(20_000, 16), (1_123, 16), (1_122, 8), (562, 8), (561, 4), (281, 4), (280, 2), (30, 2)]
    {
        assert_eq!(size(kbit * 1_000), chunks, "{kbit} kbit/s");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(Some(dir.path()), None);
    let mut lease = life.live("cam");
    life.tick(250);
    append(&mut lease, 1, 300);
    lease.stream.set_health(Health { bitrate_bps: 600_000, ..Health::default() });
    life.tick(500);
    life.tick(2_400);
    assert!(lease.stream.identity().is_none(), "two seconds from the first bytes on");
    let id = json(dir.path(), "cam")["swarm"]["swarm_id"].clone();
    life.tick(2_500);
    assert_eq!(lease.stream.identity().unwrap().size.chunks(), 8);
    assert_eq!(json(dir.path(), "cam")["swarm"]["chunks_per_signature"], 8);
    life.end(lease, 3_000);
    // It stays so at another bitrate, but not against the operator's will.
    let mut life = Life::begin(Some(dir.path()), None);
    let lease = life.live("cam");
    life.tick(250);
    let identity = lease.stream.identity().unwrap();
    assert_eq!((identity.size.chunks(), identity.swarm_id.to_string().into()), (8, id));
    life.end(lease, 300);
    let mut life = Life::begin(Some(dir.path()), SubtreeSize::new(2));
    let lease = life.live("cam");
    life.tick(250);
    assert_eq!(lease.stream.identity().unwrap().size.chunks(), 2);
}

#[test]
fn without_a_directory_keys_live_as_long_as_the_process() {
    let mut life = Life::begin(None, N16);
    let lease = life.live("cam");
    life.tick(250);
    let first = Arc::clone(lease.stream.identity().unwrap());
    assert_eq!(first.limit(), u64::MAX);
    lease.stream.park(lease.writer, at(300).mono);
    assert!(life.registry.end(&lease.stream, lease.ticket, at(400).mono));
    let again = life.live("cam");
    life.tick(500);
    assert_eq!(again.stream.identity().unwrap().swarm_id, first.swarm_id);
    let off = Settings { listen: None, ..swarm(N16) };
    let registry = registry();
    let keeper = Keeper::open(None, &off, &registry, at(0)).unwrap();
    let mut life = Life { registry, keeper };
    let lease = life.live("cam");
    life.tick(5_000);
    assert!(lease.stream.identity().is_none(), "no swarm");
}

#[test]
fn a_file_that_cannot_be_understood_refuses_its_stream_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(Some(dir.path()), N16);
    let lease = life.live("cam");
    life.tick(250);
    life.end(lease, 300);
    let good = fs::read_to_string(file(dir.path(), "cam")).unwrap();
    let key = json(dir.path(), "cam")["swarm"]["key"].as_str().unwrap().to_owned();
    let id = json(dir.path(), "cam")["swarm"]["swarm_id"].as_str().unwrap().to_owned();
    let other = KeyPair::generate().unwrap().swarm_id().to_string();
    for (bad, word) in [
        (String::new(), "EOF"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        (good.replace("\"cam\"", "\"dog\""), "of the stream \"dog\""),
        (good.replace("\"version\":1", "\"version\":2"), "version 2"),
        (good.replace("1316", "1128"), "1128 bytes are not served"),
        (good.replace("addressing\":4", "addressing\":3"), "chunk_addressing 3"),
        (good.replace("signature\":16", "signature\":5"), "5 chunks"),
        (good.replace(&key, &key[2..]), "no P-256 key"),
        (good.replace(&key, &format!("x{}", &key[1..])), "hexadecimal"),
        (good.replace(&id, &other), "not that of the swarm_id"),
        (good.replace("\"next\"", "\"nexd\""), "nexd"),
    ] {
        fs::write(file(dir.path(), "cam"), &bad).unwrap();
        let life = Life::begin(Some(dir.path()), N16);
        let name = "cam".parse().unwrap();
        match life.registry.claim(&name, KeyId::ingest(0), ShardId(0), at(0)) {
            Claim::Refused(why) => {
                assert!(why.contains("streams/cam.json") && why.contains(word), "{word}: {why}");
                assert!(!why.contains(&key[40..]), "the key is a secret");
            }
            _ => panic!("{word}: not refused"),
        }
        life.live("other");
        assert_eq!(fs::read_to_string(file(dir.path(), "cam")).unwrap(), bad, "left alone");
        assert!(swarms(dir.path()).unwrap()[0].1.is_err());
    }
    fs::write(file(dir.path(), "cam"), &good).unwrap();
    let swarms = swarms(dir.path()).unwrap();
    assert_eq!(swarms.len(), 1);
    assert_eq!(swarms[0].1.as_ref().unwrap().to_string(), id);
    Life::begin(Some(dir.path()), N16).live("cam");
}

#[test]
fn the_process_counts_its_starts_and_misses_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let start = dir.path().join("start.json");
    let open = || Keeper::open(Some(dir.path()), &swarm(N16), &registry(), at(0));
    assert_eq!(open().unwrap().start, 1);
    assert_eq!(open().unwrap().start, 2, "the first one did not end in order");
    fs::write(&start, "{}").unwrap();
    let why = open().err().unwrap();
    assert!(why.contains("start.json"), "{why}");
    // Gone, or from a backup: the streams' files say how far it was.
    for before in [None, Some(r#"{"version":1,"start":1,"clean":true}"#)] {
        fs::remove_file(&start).unwrap();
        let page = r#"{"version":1,"stream":"cam","start":7,"next":42112,"segments":
                       {"next":1,"breaks":2,"target":3}}"#;
        fs::write(file(dir.path(), "cam"), page).unwrap();
        if let Some(before) = before {
            fs::write(&start, before).unwrap();
        }
        let life = Life::begin(Some(dir.path()), N16);
        assert_eq!(life.keeper.start, 8);
        assert!(life.live("cam").writer.next() >= 42_112 + JUMP);
    }
    fs::write(dir.path().join("streams.json"), "{}").unwrap();
    assert!(open().err().unwrap().contains("development version"));
}

#[test]
fn a_file_that_comes_later_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(Some(dir.path()), N16);
    fs::write(file(dir.path(), "cam"), "precious").unwrap();
    let lease = life.live("cam");
    life.tick(250);
    life.tick(60_000);
    assert!(lease.stream.identity().is_none());
    life.end(lease, 70_000);
    assert_eq!(fs::read_to_string(file(dir.path(), "cam")).unwrap(), "precious");
}
