//! One HLS player: loads the playlist, each new segment once, plays at the stream's pace.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::Socket;

use crate::bench::Outcome;
use crate::bench::hls::list::List;
use crate::bench::hls::load::Mark;

/// The most bytes dropped by one call.
const TAKE: usize = 256 * 1024;

/// The most bytes of a response head, and of one read while it is not over.
const HEAD_MAX: usize = 2048;

/// The most bytes of a playlist.
const LIST_MAX: usize = 64 * 1024;

/// The most header lines of a response.
const LINES_MAX: usize = 32;

/// Lateness that nobody sees.
const UNSEEN: Duration = Duration::from_millis(40);

/// What all players of a process share.
#[derive(Debug)]
pub struct Ears {
    sink: Vec<u8>,
    host: String,
    folder: String,
    /// The last playlist and what it says: most players get the same one.
    known: (Vec<u8>, Rc<List>),
    /// Load times of segments in microseconds.
    pub times: Histogram<u64>,
}

impl Ears {
    /// For players of `folder` at `to`.
    ///
    /// # Errors
    /// Never for the bounds that are used here.
    pub fn new(to: SocketAddr, folder: &str) -> Outcome<Ears> {
        Ok(Ears {
            sink: vec![0; TAKE],
            host: to.to_string(),
            folder: folder.to_owned(),
            known: (Vec::new(), Rc::default()),
            times: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        })
    }

    fn read(&mut self, text: &[u8]) -> io::Result<Rc<List>> {
        if self.known.0 != text {
            let list = std::str::from_utf8(text).ok().and_then(List::parse);
            let list = list.ok_or_else(|| io::Error::other("a playlist that is none"))?;
            self.known = (text.to_owned(), Rc::new(list));
        }
        Ok(Rc::clone(&self.known.1))
    }
}

/// What a player waits for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes.
    Wait,
    /// Bytes too: the connection is there.
    Connected,
    /// This moment, at which it loads the playlist again.
    Alarm(Instant),
}

#[derive(Debug)]
enum State {
    Connecting,
    /// Nothing is under way.
    Rest,
    /// The response head, of which this much is there.
    Head(Vec<u8>),
    /// The body, of which this much is missing; its text if it is a playlist.
    Body(u64, Vec<u8>),
    Gone,
}

/// One player.
#[derive(Debug)]
pub struct Viewer {
    socket: Option<Socket>,
    state: State,
    /// The segment that is under way or comes next, in `list`; at its end: the playlist.
    at: usize,
    list: Rc<List>,
    /// Whether a segment is under way, not the playlist.
    segment: bool,
    /// Whether what is under way is what was asked for.
    good: bool,
    /// The number of the next segment that it wants, once it plays.
    next: Option<u64>,
    /// When the request under way was made, and that of the playlist before.
    began: Instant,
    loaded: Instant,
    /// When it has played everything that it has.
    end: Option<Instant>,
}

impl Viewer {
    /// A player whose connection is on its way.
    #[must_use]
    pub fn new(socket: Socket) -> Viewer {
        Viewer { socket: Some(socket), state: State::Connecting, ..Viewer::gone() }
    }

    /// One that has failed.
    #[must_use]
    pub fn gone() -> Viewer {
        let now = Instant::now();
        Viewer {
            socket: None,
            state: State::Gone,
            at: 0,
            list: Rc::default(),
            segment: false,
            good: true,
            next: None,
            began: now,
            loaded: now,
            end: None,
        }
    }

    /// Its connection.
    #[must_use]
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Whether it has loaded a segment and goes on.
    #[must_use]
    pub fn plays(&self) -> bool {
        self.end.is_some() && self.socket.is_some()
    }

    /// Asks for the playlist.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn load_list(&mut self, ears: &Ears) -> io::Result<()> {
        if !matches!(self.state, State::Rest) {
            return Ok(());
        }
        self.segment = false;
        self.ask(ears)?;
        self.loaded = self.began;
        Ok(())
    }

    fn ask(&mut self, ears: &Ears) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let name = match self.list.entries.get(self.at) {
            Some(entry) if self.segment => &entry.uri,
            _ => "index.m3u8",
        };
        let Ears { host, folder, .. } = ears;
        let request = format!("GET {folder}{name} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.began = Instant::now();
        self.state = State::Head(Vec::new());
        // Nothing else is under way: there is room for a request.
        rustix::net::send(socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Something happened on its connection.
    ///
    /// # Errors
    /// If the connection broke, or what came is no response.
    pub fn ready(&mut self, ears: &mut Ears, mark: &mut Mark) -> io::Result<Next> {
        let Some(socket) = &self.socket else { return Ok(Next::Wait) };
        let (most, flags) = match &self.state {
            State::Connecting => {
                if let Some(why) = socket.take_error()? {
                    return Err(why);
                }
                self.state = State::Rest;
                self.load_list(ears)?;
                return Ok(Next::Connected);
            }
            State::Head(head) => (HEAD_MAX.saturating_sub(head.len()), RecvFlags::empty()),
            // Takes the bytes off the socket without copying them (tcp(7)).
            State::Body(left, _) if self.segment => (*left as usize, RecvFlags::TRUNC),
            State::Body(left, _) => (*left as usize, RecvFlags::empty()),
            State::Rest | State::Gone => (1, RecvFlags::empty()),
        };
        let n = match rustix::net::recv(socket, &mut ears.sink[..most.clamp(1, TAKE)], flags) {
            Ok((_, 0)) => return Err(io::Error::other("the server closed the connection")),
            Ok((_, n)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Next::Wait),
            Err(errno) => return Err(errno.into()),
        };
        self.take(n, ears, mark)
    }

    /// Takes `n` bytes, which are in the sink unless they are a segment's.
    fn take(&mut self, n: usize, ears: &mut Ears, mark: &mut Mark) -> io::Result<Next> {
        match &mut self.state {
            State::Head(head) => {
                head.extend_from_slice(&ears.sink[..n]);
                let Some((status, length, end)) = response(head)? else { return Ok(Next::Wait) };
                self.good = status == 200;
                if !self.good {
                    mark.refused += 1;
                    let what = if self.segment { "a segment" } else { "the playlist" };
                    let why = || format!("the answer to a request of {what} was {status}");
                    mark.why.get_or_insert_with(why);
                }
                let body = head.split_off(end);
                let left = length.checked_sub(body.len() as u64);
                let left = left.ok_or_else(|| io::Error::other("more than was asked for"))?;
                if !self.segment && length > LIST_MAX as u64 {
                    return Err(io::Error::other("an endless playlist"));
                }
                mark.bytes += body.len() as u64;
                let text = if self.segment { Vec::new() } else { body };
                self.state = State::Body(left, text);
                if left > 0 {
                    return Ok(Next::Wait);
                }
                self.whole(ears, mark)
            }
            State::Body(left, text) => {
                mark.bytes += n as u64;
                *left = left.saturating_sub(n as u64);
                if !self.segment {
                    text.extend_from_slice(&ears.sink[..n]);
                }
                if *left > 0 { Ok(Next::Wait) } else { self.whole(ears, mark) }
            }
            _ => Err(io::Error::other("bytes that nobody asked for")),
        }
    }

    /// A response is there as a whole.
    fn whole(&mut self, ears: &mut Ears, mark: &mut Mark) -> io::Result<Next> {
        let now = Instant::now();
        let State::Body(_, text) = std::mem::replace(&mut self.state, State::Rest) else {
            return Ok(Next::Wait);
        };
        let mut new = true;
        if self.segment {
            if self.good {
                let time = now.saturating_duration_since(self.began).as_micros();
                ears.times.saturating_record(u64::try_from(time).unwrap_or(u64::MAX));
                mark.segments += 1;
                mark.late += u64::from(self.play(now));
            }
            self.at += 1;
        } else if self.good
            && let Ok(list) = ears.read(&text)
        {
            mark.playlists += 1;
            let (at, missed) = list.place(self.next);
            new = at < list.entries.len();
            mark.missed += missed;
            (self.at, self.list) = (at, list);
        } else {
            // Not there, or cut off: a player asks again.
            new = false;
        }
        match self.list.entries.get(self.at) {
            Some(entry) => {
                self.next = Some(entry.sequence + 1);
                self.segment = true;
                self.ask(ears)?;
                Ok(Next::Wait)
            }
            None => Ok(Next::Alarm(self.loaded + self.list.again(new))),
        }
    }

    /// A segment is there: whether it came after its moment. Play-out begins with the first; a
    /// late one is played when it comes, and all after it that much later.
    fn play(&mut self, now: Instant) -> bool {
        let length = self.list.entries.get(self.at).map_or(Duration::ZERO, |entry| entry.length);
        let due = self.end.unwrap_or(now);
        let late = now > due + UNSEEN;
        self.end = Some(if late { now } else { due } + length);
        late
    }
}

/// Status, length of the body and of the head, when the head is there as a whole.
fn response(bytes: &[u8]) -> io::Result<Option<(u16, u64, usize)>> {
    let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let end = match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(end) => end,
        httparse::Status::Partial if bytes.len() < HEAD_MAX => return Ok(None),
        httparse::Status::Partial => return Err(io::Error::other("an endless response head")),
    };
    let length =
        response.headers.iter().find(|line| line.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|line| std::str::from_utf8(line.value).ok()?.parse().ok());
    let length = length.ok_or_else(|| io::Error::other("a response without a length"))?;
    Ok(Some((response.code.unwrap_or(0), length, end)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use socket2::{Domain, Type};

    use super::*;

    const LIST: &[u8] = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:4\n\
        #EXTINF:2,\na.ts\n#EXTINF:2,\nb.ts\n#EXTINF:2,\nc.ts\n#EXTINF:2,\nd.ts\n";

    struct Scene {
        viewer: Viewer,
        server: Socket,
        ears: Ears,
        mark: Mark,
    }

    impl Scene {
        fn new() -> Scene {
            let (near, server) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            near.set_nonblocking(true).unwrap();
            let ears = Ears::new("127.0.0.1:80".parse().unwrap(), "/live/x/").unwrap();
            let viewer = Viewer::new(near);
            let mut scene = Scene { viewer, server, ears, mark: Mark::default() };
            assert_eq!(scene.go(), Next::Connected);
            scene
        }

        fn go(&mut self) -> Next {
            self.viewer.ready(&mut self.ears, &mut self.mark).unwrap()
        }

        fn asked(&self) -> String {
            let mut bytes = [0; 512];
            let n = (&self.server).read(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            text.split(' ').nth(1).unwrap().to_owned()
        }

        /// Answers in two pieces; what the viewer wants then.
        fn answer(&mut self, status: u16, body: &[u8]) -> Next {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-LENGTH: {}\r\n\r\n", body.len());
            let bytes = [head.as_bytes(), body].concat();
            self.server.send(&bytes[..20]).unwrap();
            assert_eq!(self.go(), Next::Wait);
            self.server.send(&bytes[20..]).unwrap();
            let mut next = self.go();
            while matches!(self.viewer.state, State::Body(..)) {
                next = self.go();
            }
            next
        }
    }

    #[test]
    fn a_player_loads_each_new_segment_once() {
        let mut scene = Scene::new();
        assert_eq!(scene.asked(), "/live/x/index.m3u8");
        assert_eq!(scene.answer(200, LIST), Next::Wait);
        for name in ["b", "c", "d"] {
            assert_eq!(scene.asked(), format!("/live/x/{name}.ts"));
            let next = scene.answer(200, &[7; 10_000]);
            assert_eq!(next == Next::Wait, name != "d");
        }
        let Mark { segments, late, playlists, bytes, .. } = scene.mark;
        assert_eq!((segments, late, playlists, bytes), (3, 0, 1, 30_000 + LIST.len() as u64));
        assert!(scene.viewer.plays());
        // The same list again: nothing is loaded, and the wait is half as long.
        let ears = &scene.ears;
        scene.viewer.load_list(ears).unwrap();
        assert_eq!(scene.asked(), "/live/x/index.m3u8");
        let soon = scene.viewer.loaded + Duration::from_secs(1);
        assert_eq!(scene.answer(200, LIST), Next::Alarm(soon));
    }

    #[test]
    fn refusals_late_and_missed_segments_are_counted() {
        let mut scene = Scene::new();
        scene.asked();
        scene.answer(200, LIST);
        scene.asked();
        scene.answer(404, b"gone");
        assert_eq!((scene.mark.refused, scene.mark.segments), (1, 0));
        scene.asked();
        scene.answer(200, b"c");
        // It has played for an hour when the next one comes.
        scene.viewer.end = Instant::now().checked_sub(Duration::from_secs(1));
        scene.asked();
        scene.answer(200, b"d");
        assert_eq!((scene.mark.segments, scene.mark.late), (2, 1));
        scene.viewer.load_list(&scene.ears).unwrap();
        scene.asked();
        let later = String::from_utf8_lossy(LIST).replace("SEQUENCE:4", "SEQUENCE:10");
        scene.answer(200, later.as_bytes());
        assert_eq!(scene.mark.missed, 2, "8 and 9");
        assert_eq!(scene.asked(), "/live/x/a.ts");
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for text in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(response(text.as_bytes()).is_err(), "{text}");
        }
        assert!(response(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
        assert!(response(&[b"HTTP/1.1 200 OK\r\nA: ", &[b'x'; HEAD_MAX][..]].concat()).is_err());
    }
}
