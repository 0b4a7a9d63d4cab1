//! A blocking HTTP/1.1 client that is as small as the tests allow, and shows what it got.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The time limit of an exchange that is not about time.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The most bytes that a response with a length may have here.
const BODY_MAX: usize = 16 << 20;

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body; empty for HEAD.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless the status is `status` and the body is one line of text.
    #[track_caller]
    pub fn assert_line(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        let text = self.text();
        assert_eq!(text.lines().count(), 1, "{status}: not one line: {text:?}");
        assert!(text.ends_with('\n'), "{status}: no newline: {text:?}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{status}: Content-Type {kind:?}");
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// Connects within [`LIMIT`].
#[track_caller]
pub fn connect(address: SocketAddr) -> Connection {
    match TcpStream::connect_timeout(&address, LIMIT) {
        Ok(stream) => Connection::new(stream),
        Err(e) => panic!("connect to {address}: {e}"),
    }
}

/// One GET on its own connection.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, &[])
}

/// One request without a body on its own connection.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, target: &str, extra: &[&str]) -> Response {
    let mut connection = connect(address);
    connection.send(&head(address, method, target, extra));
    connection.response(method == "HEAD", LIMIT)
}

/// The bytes of a request head that asks to close afterwards.
pub fn head(address: SocketAddr, method: &str, target: &str, extra: &[&str]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
    if !extra.iter().any(|line| line.to_ascii_lowercase().starts_with("connection:")) {
        text.push_str("Connection: close\r\n");
    }
    for line in extra {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

impl Connection {
    /// Wraps a connected socket.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(LIMIT)).expect("a write timeout");
        Connection { stream, pending: Vec::new() }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes all of it.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the relay takes our bytes");
    }

    /// Writes all of it, or says why not.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends our half.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset, as a killed machine's peer sees it.
    pub fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Reads more into the buffer; `false` at the end of the connection.
    pub fn fill(&mut self, limit: Duration) -> std::io::Result<bool> {
        let mut buffer = [0_u8; 64 * 1024];
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(n) => {
                    self.pending.extend_from_slice(&buffer[..n]);
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What has been read and not used.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// A head: status and headers. Interim (1xx) responses count as responses here.
    #[track_caller]
    pub fn response_head(&mut self, limit: Duration) -> Response {
        let start = Instant::now();
        loop {
            if let Some(end) = find(&self.pending, b"\r\n\r\n") {
                let head = self.pending.drain(..end + 4).collect::<Vec<u8>>();
                return parse_head(&head);
            }
            let left = limit.checked_sub(start.elapsed()).unwrap_or_default();
            match self.fill(left) {
                Ok(true) => {}
                Ok(false) => panic!("closed before a response: {:?}", self.shown()),
                Err(e) => panic!("no response within {limit:?}: {e}; got {:?}", self.shown()),
            }
        }
    }

    /// A whole response: by its length, else until the connection closes.
    #[track_caller]
    pub fn response(&mut self, no_body: bool, limit: Duration) -> Response {
        let start = Instant::now();
        let mut response = self.response_head(limit);
        if no_body || matches!(response.status, 100..=199 | 204 | 304) {
            return response;
        }
        let length = response.header("content-length").map(|n| n.parse().expect("a length"));
        assert!(response.header("transfer-encoding").is_none(), "chunked is not expected here");
        let wanted: usize = length.unwrap_or(usize::MAX);
        while self.pending.len() < wanted && self.pending.len() < BODY_MAX {
            let left = limit.checked_sub(start.elapsed()).unwrap_or_default();
            match self.fill(left) {
                Ok(true) => {}
                Ok(false) if length.is_none() => break,
                Ok(false) => panic!("closed inside a body: {response:?}"),
                // A reset after a refusal that left our bytes unread ends the body as well.
                Err(e) if length.is_none() && e.kind() == ErrorKind::ConnectionReset => break,
                Err(e) => panic!("body not complete within {limit:?}: {e}; {response:?}"),
            }
        }
        let n = self.pending.len().min(wanted);
        response.body = self.pending.drain(..n).collect();
        response
    }

    /// Waits for the other side to close; what came before that is thrown away.
    #[track_caller]
    pub fn assert_closes(&mut self, limit: Duration) {
        let start = Instant::now();
        loop {
            let left = limit.checked_sub(start.elapsed()).unwrap_or_default();
            match self.fill(left) {
                Ok(true) => self.pending.clear(),
                Ok(false) => return,
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return,
                Err(e) => panic!("still open after {limit:?}: {e}"),
            }
            assert!(start.elapsed() < limit, "still open, and sending, after {limit:?}");
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.pending[..self.pending.len().min(500)]).into_owned()
    }
}

#[track_caller]
fn parse_head(head: &[u8]) -> Response {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("HTTP/1."), "no status line: {first:?}");
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a header line has a colon");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    Response { status: status.expect("a status code"), headers, body: Vec::new() }
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
