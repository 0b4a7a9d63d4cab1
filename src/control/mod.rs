//! The control listener: metrics, health and the API. For operators, on loopback by default.
//!
//! It runs on a thread of its own and reads only snapshots and cells: a scrape never waits for
//! a shard, and a shard never for a scrape.
#![forbid(unsafe_code)]

pub mod exposition;
mod routes;
mod swarm;
mod viewers;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, info};

use crate::io::clock::Clock;
use crate::metrics::cells::Cells;
use crate::metrics::delay::DelayShelf;
use crate::peer::figures::Board;
use crate::registry::streams::Registry;

/// Connections served at one time; others wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control listener knows of the process.
pub struct House {
    /// All streams.
    pub registry: Arc<Registry>,
    /// One block of metrics per shard.
    pub cells: Vec<Arc<Cells>>,
    /// One shelf of delays per shard.
    pub shelves: Vec<Arc<DelayShelf>>,
    /// The figures of the viewers of this process, if it is a viewer's node.
    pub viewers: Option<Board>,
    /// `uring` or `epoll`.
    pub io_driver: &'static str,
    /// Why this driver runs.
    pub io_reason: String,
    /// Whether every shard runs.
    pub ready: AtomicBool,
    /// The clock of the process.
    pub clock: Clock,
}

/// Serves until `stop` is told or dropped. Blocks the calling thread.
///
/// The runtime is tokio-uring's where io_uring works (`uring`), else tokio's own: throughput is
/// not the point here, one code path is.
///
/// # Errors
/// If the runtime cannot be made or the listener not be used.
pub fn serve(
    listener: TcpListener,
    house: Arc<House>,
    uring: bool,
    stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let serving = accept(listener, house, stop);
    if uring {
        match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => return runtime.block_on(serving),
            Err(why) => info!(%why, "control runs on tokio's own runtime"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serving)
}

async fn accept(
    listener: TcpListener,
    house: Arc<House>,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return Ok(()),
            accepted = next(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let house = Arc::clone(&house);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let house = Arc::clone(&house);
                async move { routes::answer(&house, &request) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(why) = connection.await {
                debug!(%why, "control connection ended");
            }
            drop(place);
        });
    }
}

/// The next connection and its place; nothing if the accept failed, after a pause.
async fn next(
    listener: &tokio::net::TcpListener,
    places: &Rc<Semaphore>,
) -> Option<(tokio::net::TcpStream, OwnedPlace)> {
    let place = OwnedPlace::take(places).await?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(why) => {
            info!(%why, "control cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// One of the places, given back on drop.
struct OwnedPlace(Rc<Semaphore>);

impl OwnedPlace {
    async fn take(places: &Rc<Semaphore>) -> Option<OwnedPlace> {
        places.acquire().await.ok()?.forget();
        Some(OwnedPlace(Rc::clone(places)))
    }
}

impl Drop for OwnedPlace {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}
