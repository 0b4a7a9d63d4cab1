//! Finds addresses of names on threads of its own, so that no machine waits for it.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::peer::settings::Names;

/// Names that are looked up in all: `swarm.json` lists a few. Others have no address.
const NAMES_MAX: usize = 16;

type Found = Arc<Mutex<HashMap<String, Option<Vec<IpAddr>>>>>;

/// Asks the system.
#[derive(Default)]
pub(super) struct Resolver(Found);

impl Names for Resolver {
    fn look_up(&mut self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = found.get(name) {
            return known.clone();
        }
        if found.len() >= NAMES_MAX {
            return Some(Vec::new());
        }
        found.insert(name.to_owned(), None);
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let body = move || {
            let addresses = (name.as_str(), 0).to_socket_addrs();
            let ips = addresses.map(|found| found.map(|at| at.ip()).collect()).unwrap_or_default();
            shared.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Some(ips));
        };
        let started = thread::Builder::new().name("names".to_owned()).spawn(body);
        started.is_err().then(Vec::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_waiting() {
        let mut resolver = Resolver::default();
        let mut found = resolver.look_up("localhost");
        assert_eq!(found, None, "asked for");
        for _ in 0..1_000 {
            if found.is_some() {
                break;
            }
            thread::park_timeout(std::time::Duration::from_millis(5));
            found = resolver.look_up("localhost");
        }
        assert!(found.unwrap().iter().all(IpAddr::is_loopback));
        for n in 0..NAMES_MAX {
            resolver.look_up(&format!("no-{n}.invalid"));
        }
        assert_eq!(resolver.look_up("one.too.many"), Some(Vec::new()));
    }
}
