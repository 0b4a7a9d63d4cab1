//! The publisher of the demo: its own sample over HTTP, as anybody would send it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::media::looper::Looper;
use crate::media::sample::DEMO;

/// How often the publisher sends what is due.
const STEP: Duration = Duration::from_millis(20);

/// How long the publisher waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// Publishes the sample until the process ends; a broken connection is made anew.
pub(super) fn publish_for_ever(http: SocketAddr) {
    loop {
        let outcome = publish(http);
        // Told after the wait: a relay that is stopping is gone by then.
        thread::sleep(RETRY);
        if let Err(why) = outcome {
            tracing::warn!(%why, "the demo's publisher starts again");
        }
    }
}

fn publish(http: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut looper = Looper::new(DEMO)?;
    let minute = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 60_000;
    looper.start_at(Duration::from_millis(u64::try_from(minute)?));
    let mut relay = TcpStream::connect(http)?;
    relay.set_nodelay(true)?;
    write!(relay, "PUT /live/demo HTTP/1.1\r\nHost: {http}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let started = Instant::now();
    let mut due = Vec::new();
    loop {
        due.clear();
        looper.next(started.elapsed(), &mut due);
        if !due.is_empty() {
            write!(relay, "{:x}\r\n", due.len())?;
            relay.write_all(&due)?;
            relay.write_all(b"\r\n")?;
        }
        // A response before the end of the body is a refusal: say what the relay said.
        relay.set_nonblocking(true)?;
        let mut answer = [0; 512];
        match relay.read(&mut answer) {
            Ok(0) => return Err("the relay closed the connection".into()),
            Ok(n) => return Err(String::from_utf8_lossy(&answer[..n]).into_owned().into()),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why.into()),
        }
        relay.set_nonblocking(false)?;
        thread::sleep(STEP);
    }
}
