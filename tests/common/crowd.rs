//! Many viewers on one thread, who throw away what comes: load without a thread each.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::http;

/// Viewers of one stream or several.
pub struct Crowd {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    bytes: Arc<[AtomicU64]>,
}

impl Crowd {
    /// Connects `count` viewers of `/live/NAME.ts` one after the other, then reads from all.
    #[track_caller]
    pub fn join(address: SocketAddr, name: &str, count: usize) -> Crowd {
        Crowd::join_each(address, &vec![name; count])
    }

    /// Connects one viewer for each of these streams.
    #[track_caller]
    pub fn join_each(address: SocketAddr, names: &[impl AsRef<str>]) -> Crowd {
        let open = |name: &_| {
            let target = format!("/live/{}.ts", AsRef::<str>::as_ref(name));
            let mut socket = TcpStream::connect(address).expect("a connection");
            socket.write_all(&http::head(address, "GET", &target, &[])).expect("a request");
            socket.set_nonblocking(true).expect("O_NONBLOCK");
            socket
        };
        let sockets: Vec<TcpStream> = names.iter().map(open).collect();
        let count = sockets.len();
        let stop = Arc::<AtomicBool>::default();
        let bytes: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&bytes));
        let thread = thread::spawn(move || read_all(&sockets, &counts, &stopped));
        Crowd { thread, stop, bytes }
    }

    /// The bytes of the viewer who got least, head included.
    pub fn least(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Relaxed)).min().unwrap_or(0)
    }

    /// The bytes of each, head included.
    pub fn counts(&self) -> Vec<u64> {
        self.bytes.iter().map(|bytes| bytes.load(Relaxed)).collect()
    }

    /// The bytes of all.
    pub fn total(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// Closes all connections.
    #[track_caller]
    pub fn leave(self) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("nobody was closed");
    }
}

fn read_all(sockets: &[TcpStream], counts: &[AtomicU64], stop: &AtomicBool) {
    let mut scratch = vec![0; 256 * 1024];
    let mut ready: Vec<PollFd<'_>> =
        sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Relaxed) {
        poll(&mut ready, Some(&patience)).expect("poll");
        let each = ready.iter().zip(sockets).zip(counts);
        for ((_, mut socket), count) in each.filter(|((fd, _), _)| !fd.revents().is_empty()) {
            match socket.read(&mut scratch) {
                Ok(0) => panic!("a viewer was closed"),
                Ok(n) => _ = count.fetch_add(n as u64, Relaxed),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}
