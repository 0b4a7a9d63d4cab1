//! Publishers and viewers: over plain blocking sockets, each bounded in time.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::http::{self, Connection, LIMIT, Response};
use super::judge::{Judge, Reference, Verdict};
use super::pass;
use super::ts::{Broadcast, PACKET};

/// The most of a body that a viewer keeps.
const KEEP_MAX: usize = 64 << 20;

/// How the end of a published body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// `Content-Length: N`.
    Length(usize),
    /// By closing, as HTTP/1.0 clients do.
    Close,
}

/// A body on its way into the relay, sent by hand.
pub struct PutStream {
    connection: Connection,
    framing: Framing,
}

impl PutStream {
    /// Begins `PUT /live/NAME`, chunked.
    #[track_caller]
    pub fn begin(address: SocketAddr, name: &str) -> Self {
        Self::begin_with(address, &format!("/live/{name}"), Framing::Chunked, &[])
    }

    /// Begins a PUT with extra header lines.
    #[track_caller]
    pub fn begin_with(address: SocketAddr, target: &str, framing: Framing, extra: &[&str]) -> Self {
        let mut connection = http::connect(address);
        let version = if framing == Framing::Close { "1.0" } else { "1.1" };
        let mut head = format!("PUT {target} HTTP/{version}\r\nHost: {address}\r\n");
        match framing {
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Length(n) => head.push_str(&format!("Content-Length: {n}\r\n")),
            Framing::Close => {}
        }
        for line in extra {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        connection.send(head.as_bytes());
        PutStream { connection, framing }
    }

    /// Sends part of the body.
    #[track_caller]
    pub fn push(&mut self, bytes: &[u8]) {
        self.try_push(bytes).expect("the relay takes the body");
    }

    /// Sends part of the body, or says why not.
    pub fn try_push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.framing != Framing::Chunked {
            return self.connection.try_send(bytes);
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.connection.try_send(&chunk)
    }

    /// Ends the body and reads the response.
    #[track_caller]
    pub fn finish(mut self) -> Response {
        match self.framing {
            Framing::Chunked => self.connection.send(b"0\r\n\r\n"),
            Framing::Length(_) => {}
            Framing::Close => self.connection.finish(),
        }
        self.connection.response(false, LIMIT)
    }

    /// Reads a response that comes before the end of the body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.connection.response(false, LIMIT)
    }

    /// Dies as a killed process does when data is unread, or a machine that lost its state.
    pub fn reset(self) {
        self.connection.reset();
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// A broadcaster on a thread that sends a broadcast at its own pace.
pub struct Publisher {
    thread: JoinHandle<Result<PutStream, String>>,
    stop: Arc<AtomicBool>,
    frames: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<Instant>>>,
}

impl Publisher {
    /// Begins to publish to `/live/NAME` in real time.
    #[track_caller]
    pub fn start(address: SocketAddr, name: &str, broadcast: &Broadcast) -> Self {
        Self::drive(PutStream::begin(address, name), broadcast)
    }

    /// Goes on in real time with a connection that exists.
    pub fn drive(mut put: PutStream, broadcast: &Broadcast) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let frames = Arc::new(AtomicUsize::new(0));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (stopped, broadcast) = (stop.clone(), broadcast.clone());
        let (count, times) = (frames.clone(), sent.clone());
        let thread = thread::spawn(move || {
            let start = Instant::now();
            for frame in 0..broadcast.frames() {
                while let Some(left) = Broadcast::due(frame).checked_sub(start.elapsed()) {
                    if stopped.load(Relaxed) {
                        return Ok(put);
                    }
                    pass(left.min(Duration::from_millis(20)));
                }
                let bytes = broadcast.slice(frame, frame + 1);
                times.lock().expect("the times").push(Instant::now());
                put.try_push(bytes).map_err(|e| format!("frame {frame}: {e}"))?;
                count.store(frame + 1, Relaxed);
            }
            Ok(put)
        });
        Publisher { thread, stop, frames, sent }
    }

    /// When each frame was handed to the kernel.
    pub fn sent(&self) -> Vec<Instant> {
        self.sent.lock().expect("the times").clone()
    }

    /// Frames handed to the kernel so far.
    pub fn frames(&self) -> usize {
        self.frames.load(Relaxed)
    }

    /// Waits for the whole broadcast and ends the body.
    #[track_caller]
    pub fn finish(self) -> Response {
        self.join().finish()
    }

    /// Stops sending now; the connection stays open and silent.
    #[track_caller]
    pub fn silence(self) -> PutStream {
        self.stop.store(true, Relaxed);
        self.join()
    }

    #[track_caller]
    fn join(self) -> PutStream {
        match self.thread.join().expect("the publisher's thread") {
            Ok(put) => put,
            Err(why) => panic!("the publisher was cut off: {why}"),
        }
    }
}

/// A publisher that has nothing to say but is not silent: it sends null packets.
pub struct Idle(Publisher);

impl Idle {
    /// Keeps the connection of `put` busy until it is taken back.
    pub fn begin(mut put: PutStream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut null = [0xff; PACKET];
            null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
            while !stopped.load(Relaxed) {
                put.try_push(&null).map_err(|e| format!("a null packet: {e}"))?;
                pass(Duration::from_millis(100));
            }
            Ok(put)
        });
        Idle(Publisher { thread, stop, frames: Arc::default(), sent: Arc::default() })
    }

    /// Takes the connection back.
    #[track_caller]
    pub fn resume(self) -> PutStream {
        self.0.silence()
    }

    /// Ends the body.
    #[track_caller]
    pub fn finish(self) -> Response {
        self.resume().finish()
    }
}

/// What a viewer asks for and how it behaves.
#[derive(Clone)]
pub struct Watch {
    /// The request target.
    pub target: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// SO_RCVBUF, set before connecting.
    pub receive_buffer: Option<usize>,
    /// The most bytes a second that it reads.
    pub rate: Option<u64>,
    /// When it gives up.
    pub limit: Duration,
    /// Judges the bytes as they come, and does not keep them.
    pub reference: Option<Arc<Reference>>,
}

/// How a viewer's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The relay closed it.
    Closed,
    /// The relay reset it.
    Reset,
    /// The test stopped the viewer.
    Stopped,
    /// The time was over.
    TimeLimit,
}

/// What a viewer saw.
#[derive(Debug)]
pub struct Seen {
    /// Status and headers.
    pub head: Response,
    /// The body, unless it was judged at once.
    pub body: Vec<u8>,
    /// Its bytes.
    pub bytes: usize,
    /// From the request to the first byte of the body.
    pub first_byte: Option<Duration>,
    /// How it ended.
    pub end: End,
    /// The judgement, if a reference was given.
    pub verdict: Option<Result<Verdict, String>>,
    /// When it had read how many bytes of the body.
    pub reads: Vec<(Instant, usize)>,
}

/// A viewer on a thread.
pub struct Viewer {
    thread: JoinHandle<Seen>,
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicUsize>,
    body: Arc<Mutex<Vec<u8>>>,
}

impl Watch {
    /// An ordinary viewer of `/live/NAME.ts`.
    pub fn live(address: SocketAddr, name: &str) -> Self {
        Watch {
            target: format!("/live/{name}.ts"),
            address,
            receive_buffer: None,
            rate: None,
            limit: Duration::from_secs(60),
            reference: None,
        }
    }

    /// The same, judged as the bytes come.
    pub fn judged(mut self, reference: &Arc<Reference>) -> Self {
        self.reference = Some(Arc::clone(reference));
        self
    }

    /// Connects and sends the request in this thread, then reads in another.
    #[track_caller]
    pub fn start(self) -> Viewer {
        let (asked, connection) = self.ask();
        let stop = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicUsize::new(0));
        let body = Arc::new(Mutex::new(Vec::new()));
        let mut reader = Reader {
            watch: self,
            asked,
            stop: stop.clone(),
            bytes: bytes.clone(),
            body: body.clone(),
            first_byte: None,
            judge: None,
            wrong: None,
            reads: Vec::new(),
        };
        let thread = thread::Builder::new()
            .stack_size(512 * 1024)
            .spawn(move || reader.run(connection))
            .expect("a thread");
        Viewer { thread, stop, bytes, body }
    }

    /// The connection with the request on it; for tests that read by hand.
    #[track_caller]
    pub fn ask(&self) -> (Instant, Connection) {
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        if let Some(size) = self.receive_buffer {
            socket.set_recv_buffer_size(size).expect("SO_RCVBUF");
        }
        socket.connect_timeout(&self.address.into(), LIMIT).expect("a connection");
        let mut connection = Connection::new(TcpStream::from(socket));
        let asked = Instant::now();
        connection.send(&http::head(self.address, "GET", &self.target, &[]));
        (asked, connection)
    }
}

struct Reader {
    watch: Watch,
    asked: Instant,
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicUsize>,
    body: Arc<Mutex<Vec<u8>>>,
    first_byte: Option<Duration>,
    judge: Option<Judge>,
    wrong: Option<String>,
    reads: Vec<(Instant, usize)>,
}

impl Reader {
    fn run(&mut self, mut connection: Connection) -> Seen {
        let head = connection.response_head(self.watch.limit);
        self.judge = self.watch.reference.as_ref().map(Judge::new);
        let early = std::mem::take(connection.pending());
        self.take(&early);
        let end = self.read(connection.stream());
        let verdict = self.judge.take().map(|judge| match self.wrong.take() {
            Some(why) => Err(why),
            // Stopped by the test, the last packet may be cut anywhere.
            None if end == End::Closed => judge.verdict(),
            None => judge.so_far(),
        });
        let body = std::mem::take(&mut *self.body.lock().expect("the body"));
        let bytes = self.bytes.load(Relaxed);
        let reads = std::mem::take(&mut self.reads);
        Seen { head, body, bytes, first_byte: self.first_byte, end, verdict, reads }
    }

    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = Instant::now();
        self.first_byte.get_or_insert_with(|| now - self.asked);
        match &mut self.judge {
            Some(judge) if self.wrong.is_none() => self.wrong = judge.feed(bytes).err(),
            Some(_) => {}
            None => {
                let mut body = self.body.lock().expect("the body");
                assert!(body.len() + bytes.len() <= KEEP_MAX, "more than a test may keep");
                body.extend_from_slice(bytes);
            }
        }
        let before = self.bytes.fetch_add(bytes.len(), Relaxed);
        self.reads.push((now, before + bytes.len()));
    }

    fn read(&mut self, mut stream: &TcpStream) -> End {
        let mut buffer = vec![0_u8; 64 * 1024];
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a read timeout");
        let start = Instant::now();
        loop {
            if self.stop.load(Relaxed) {
                return End::Stopped;
            }
            if self.asked.elapsed() > self.watch.limit {
                return End::TimeLimit;
            }
            let mut most = buffer.len();
            if let Some(rate) = self.watch.rate {
                let allowed = (rate as f64 * start.elapsed().as_secs_f64()) as usize;
                most = allowed.saturating_sub(self.bytes.load(Relaxed)).min(most);
                if most == 0 {
                    pass(Duration::from_millis(5));
                    continue;
                }
            }
            match stream.read(&mut buffer[..most]) {
                Ok(0) => return End::Closed,
                Ok(n) => {
                    let bytes = std::mem::take(&mut buffer);
                    self.take(&bytes[..n]);
                    buffer = bytes;
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return End::Reset,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => panic!("a viewer's read: {e}"),
            }
        }
    }
}

impl Viewer {
    /// Bytes of the body so far.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// A copy of the body so far, if it is kept.
    pub fn body(&self) -> Vec<u8> {
        self.body.lock().expect("the body").clone()
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until at least `n` bytes of the body are there.
    #[track_caller]
    pub fn wait_bytes(&self, n: usize, limit: Duration) {
        super::wait_for("a viewer's bytes", limit, || (self.bytes() >= n).then_some(()));
    }

    /// Stops reading and closes.
    #[track_caller]
    pub fn stop(self) -> Seen {
        self.stop.store(true, Relaxed);
        self.end()
    }

    /// Waits for the end of the connection or the time limit.
    #[track_caller]
    pub fn end(self) -> Seen {
        self.thread.join().expect("the viewer's thread")
    }
}
