//! What goes out through a datagram socket by one system call, and what the kernel reads for it:
//! a message of pieces, of which only the few bytes that differ between peers are our own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use rustix::io::Errno;

use crate::base::payload::Payload;
use crate::io::machine::{HEADER_MAX, TRAIN_MAX, Train};

/// Bytes of the headers of the longest train.
const HEADERS: usize = TRAIN_MAX * HEADER_MAX;

/// Pieces of the longest train: channel and rest of its head, header and chunk of the others.
const PARTS: usize = 2 + 2 * TRAIN_MAX;

/// Bytes of the control messages: the segment size (24) and a source address (40).
const CONTROL: usize = 64;

/// Bytes of the longest address.
const NAME: usize = size_of::<libc::sockaddr_in6>();

/// Bytes of a channel id.
const CHANNEL: usize = 4;

/// Bytes of a time stamp.
const STAMP: usize = 8;

/// The flags of every send: it never waits.
pub(super) const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// The bytes of a parcel.
#[derive(Debug)]
pub(super) enum Content {
    One {
        to: SocketAddr,
        from: Option<IpAddr>,
        data: Payload,
    },
    /// Datagrams of `segment` bytes, one behind the other, the last perhaps shorter; nothing in
    /// them is changed.
    Run {
        to: SocketAddr,
        data: Payload,
        segment: u16,
    },
    Train(Train),
}

/// One datagram or a train, of which some may have been sent already.
#[derive(Debug)]
pub(super) struct Parcel {
    content: Content,
    /// Datagrams in it.
    count: usize,
    /// The first one that is still to be sent.
    next: usize,
    /// The kernel cannot cut it: its datagrams are sent one by one.
    pub cut: bool,
}

impl Parcel {
    /// `None` if it breaks the rules of [`Train`] or is empty: a bug of the machine.
    pub fn new(content: Content) -> Option<Parcel> {
        let count = match &content {
            Content::One { data, .. } => usize::from(!data.is_empty()),
            Content::Run { data, segment, .. } => data.len().div_ceil(usize::from(*segment).max(1)),
            Content::Train(train) => count(train)?,
        };
        (count > 0).then_some(Parcel { content, count, next: 0, cut: false })
    }

    /// What is still to be sent.
    pub fn rest(&self) -> Range<usize> {
        self.next..self.count
    }

    /// Notes that `n` more datagrams were sent, or given up.
    pub fn advance(&mut self, n: usize) {
        self.next = (self.next + n).min(self.count);
    }

    /// Datagrams in it, sent or not.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// The datagrams of a train; `None` if its parts do not fit together.
fn count(train: &Train) -> Option<usize> {
    let (header, chunk) = (usize::from(train.header), usize::from(train.chunk));
    let (head, body) = (train.head.len(), train.body.len());
    let others = body.checked_div(chunk).unwrap_or(0);
    if header + chunk > usize::from(u16::MAX) {
        return None;
    }
    let whole = body == others * chunk && train.headers.len() == others * header;
    let fits = others == 0
        || (others <= TRAIN_MAX
            && (CHANNEL + STAMP..=HEADER_MAX).contains(&header)
            && (head == 0 || head == header + chunk));
    let headed = head == 0 || head >= CHANNEL;
    (whole && fits && headed).then_some(others + usize::from(head > 0))
}

/// What the kernel reads while a parcel is submitted. Reused, so that nothing is allocated.
///
/// The message points to the other fields and into the parcel's bytes.
pub(super) struct Frame {
    message: libc::msghdr,
    parts: [libc::iovec; PARTS],
    control: Control,
    name: [u8; NAME],
    channel: [u8; CHANNEL],
    headers: [u8; HEADERS],
}

impl Frame {
    pub fn new() -> Frame {
        // SAFETY: msghdr is a plain C struct of integers and pointers; all zeroes are a value.
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        Frame {
            message,
            parts: [libc::iovec { iov_base: null_mut(), iov_len: 0 }; PARTS],
            control: Control { bytes: [0; CONTROL], len: 0 },
            name: [0; NAME],
            channel: [0; CHANNEL],
            headers: [0; HEADERS],
        }
    }

    /// Makes a message of the datagrams `range` of the parcel, at least one, cut by the kernel if
    /// they are several. `v6` says of which family the socket is, `stamp` what time it is in
    /// microseconds. The message lies in the frame.
    ///
    /// # Safety
    /// `this` must be valid, and nobody else may look at it during the call. The message points
    /// into `this` and into the bytes of `parcel`: it may be used only while neither is dropped
    /// and `this` is not moved, borrowed or filled again.
    pub unsafe fn fill(
        this: *mut Frame,
        parcel: &Parcel,
        range: Range<usize>,
        v6: bool,
        stamp: u64,
    ) -> *const libc::msghdr {
        // SAFETY: valid and nobody else's, as the caller says. The borrow ends before the first
        // of the pointers below is made.
        let name = unsafe { (*this).write(parcel, &range, v6, stamp) };
        let mut count = 0;
        let mut add = |base: *const u8, len: usize| {
            let part = libc::iovec { iov_base: base.cast_mut().cast(), iov_len: len };
            // SAFETY: `this` is valid; no reference to it exists.
            unsafe { (&raw mut (*this).parts[count]).write(part) };
            count += 1;
        };
        match &parcel.content {
            Content::One { data, .. } => add(data.as_slice().as_ptr(), data.len()),
            Content::Run { data, segment, .. } => {
                let segment = usize::from(*segment);
                let end = data.len().min(range.end * segment);
                let bytes = &data.as_slice()[range.start * segment..end];
                add(bytes.as_ptr(), bytes.len());
            }
            Content::Train(train) => {
                let (header, chunk) = (usize::from(train.header), usize::from(train.chunk));
                let first = usize::from(!train.head.is_empty());
                for index in range {
                    let Some(number) = index.checked_sub(first) else {
                        // SAFETY: `this` is valid; only an address is taken.
                        add(unsafe { (&raw const (*this).channel).cast() }, CHANNEL);
                        let rest = &train.head.as_slice()[CHANNEL..];
                        add(rest.as_ptr(), rest.len());
                        continue;
                    };
                    // SAFETY: `this` is valid, and `number` headers of `header` bytes fit before
                    // the end of the array, for `Parcel::new` saw to it.
                    let front =
                        unsafe { (&raw const (*this).headers).cast::<u8>().add(number * header) };
                    add(front, header);
                    add(train.body.as_slice()[number * chunk..][..chunk].as_ptr(), chunk);
                }
            }
        }
        // SAFETY: `this` is valid and nobody else's; only fields are written and addresses taken.
        unsafe {
            let message = &raw mut (*this).message;
            (*message).msg_name = (&raw mut (*this).name).cast();
            (*message).msg_namelen = name as libc::socklen_t;
            (*message).msg_iov = (&raw mut (*this).parts).cast();
            (*message).msg_iovlen = count as _;
            (*message).msg_control = (&raw mut (*this).control.bytes).cast();
            (*message).msg_controllen = (*this).control.len as _;
            message.cast_const()
        }
    }

    /// Writes everything but the pointers. The length of the name.
    fn write(&mut self, parcel: &Parcel, range: &Range<usize>, v6: bool, stamp: u64) -> usize {
        let (to, from, segment) = match &parcel.content {
            Content::One { to, from, .. } => (*to, *from, 0),
            Content::Run { to, segment, .. } => (*to, None, *segment),
            // A head alone is not cut.
            Content::Train(train) => (train.to, train.from, train.header + train.chunk),
        };
        self.control.len = 0;
        self.control.source(to, from);
        if range.len() > 1 {
            self.control.add(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if let Content::Train(train) = &parcel.content {
            let header = usize::from(train.header);
            self.channel = train.channel.to_be_bytes();
            let given = train.headers.as_slice();
            self.headers[..given.len()].copy_from_slice(given);
            if header > 0 {
                for bytes in self.headers[..given.len()].chunks_exact_mut(header) {
                    bytes[..CHANNEL].copy_from_slice(&self.channel);
                    bytes[header - STAMP..].copy_from_slice(&stamp.to_be_bytes());
                }
            }
        }
        address(&mut self.name, to, v6)
    }

    /// Sends the datagrams `range` of the parcel without waiting. Bytes that the kernel took.
    ///
    /// # Errors
    /// Of sendmsg(2).
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        parcel: &Parcel,
        range: Range<usize>,
        v6: bool,
        stamp: u64,
    ) -> Result<usize, Errno> {
        let this: *mut Frame = self;
        // SAFETY: `this` is borrowed for us alone, and neither it nor the parcel is touched
        // before sendmsg(2) returns, which keeps nothing.
        let sent = unsafe {
            let message = Frame::fill(this, parcel, range, v6, stamp);
            libc::sendmsg(socket.as_raw_fd(), message, FLAGS)
        };
        usize::try_from(sent).map_err(|_| {
            let code = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            Errno::from_raw_os_error(code)
        })
    }
}

/// Control messages as they are written (cmsg(3)).
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL],
    len: usize,
}

impl Control {
    fn add(&mut self, level: i32, kind: i32, data: &[u8]) {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let len = HEAD + data.len();
        let whole = len.next_multiple_of(size_of::<usize>());
        let Some(place) = self.bytes.get_mut(self.len..self.len + whole) else {
            debug_assert!(false, "more control messages than planned");
            return;
        };
        place.fill(0);
        place[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        place[HEAD - 8..HEAD - 4].copy_from_slice(&level.to_ne_bytes());
        place[HEAD - 4..HEAD].copy_from_slice(&kind.to_ne_bytes());
        place[HEAD..len].copy_from_slice(data);
        self.len += whole;
    }

    /// The address to send from, if it is of the other end's family. The kernel takes the one of
    /// IPv4 for an IPv4 address also from a socket of IPv6 (ip(7)).
    fn source(&mut self, to: SocketAddr, from: Option<IpAddr>) {
        match (to.ip().to_canonical(), from.map(|ip| ip.to_canonical())) {
            (IpAddr::V4(_), Some(IpAddr::V4(from))) => {
                // in_pktinfo: index, the address to send from, an address that is not read.
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&from.octets());
                self.add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (IpAddr::V6(_), Some(IpAddr::V6(from))) => {
                // in6_pktinfo: the address, and the index, which a scope of `to` gives already.
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&from.octets());
                self.add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
    }
}

/// Writes an address as the kernel reads it (ip(7), ipv6(7)) through a socket of IPv6 or IPv4:
/// its length.
fn address(name: &mut [u8; NAME], to: SocketAddr, v6: bool) -> usize {
    let family = |name: &mut [u8; NAME], family: i32| {
        *name = [0; NAME];
        name[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        name[2..4].copy_from_slice(&to.port().to_be_bytes());
    };
    let (ip, scope) = match to {
        SocketAddr::V4(v4) if !v6 => {
            family(name, libc::AF_INET);
            name[4..8].copy_from_slice(&v4.ip().octets());
            return size_of::<libc::sockaddr_in>();
        }
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    family(name, libc::AF_INET6);
    name[8..24].copy_from_slice(&ip.octets());
    name[24..28].copy_from_slice(&scope.to_ne_bytes());
    NAME
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::base::ids::SocketId;

    fn payload(bytes: &[u8]) -> Payload {
        Bytes::copy_from_slice(bytes).into()
    }

    /// A train whose bytes say where they belong.
    fn train(to: SocketAddr, head: bool, others: usize, header: usize, chunk: usize) -> Train {
        let fill = |first: u8, len: usize| -> Vec<u8> {
            (0..others).flat_map(|n| vec![first + n as u8; len]).collect()
        };
        Train {
            socket: SocketId::SWARM,
            to,
            from: None,
            channel: 0x8102_0304,
            head: if head { payload(&vec![9; header + chunk]) } else { Payload::Empty },
            headers: payload(&fill(100, header)),
            header: header as u16,
            body: payload(&fill(200, chunk)),
            chunk: chunk as u16,
        }
    }

    fn parcel(train: Train) -> Option<Parcel> {
        Parcel::new(Content::Train(train))
    }

    #[test]
    fn a_train_whose_parts_do_not_fit_is_refused() {
        let to = "127.0.0.1:9".parse().unwrap();
        let good = || train(to, true, 16, 29, 1316);
        assert_eq!(parcel(good()).unwrap().rest(), 0..17);
        assert_eq!(parcel(train(to, false, 1, 21, 1316)).unwrap().rest(), 0..1);
        let alone = Train { header: 0, chunk: 0, ..train(to, true, 0, 29, 1316) };
        assert_eq!(parcel(alone).unwrap().rest(), 0..1, "a head alone");
        let short = Train { head: payload(&[1; 30]), ..good() };
        let cut = Train { body: payload(&[1; 1315]), ..train(to, false, 1, 29, 1316) };
        let few = Train { headers: payload(&[1; 29]), ..good() };
        let runt = Train { head: payload(&[1; 3]), ..train(to, false, 0, 29, 1316) };
        let nothing = train(to, false, 0, 29, 1316);
        let shapes = [train(to, false, 17, 29, 100), train(to, false, 2, 30, 100)];
        let shapes = shapes.into_iter().chain([train(to, false, 2, 11, 100)]);
        for bad in shapes.chain([short, cut, few, runt, nothing]) {
            assert!(parcel(bad.clone()).is_none(), "{bad:?}");
        }
        let empty = Content::One { to, from: None, data: Payload::Empty };
        assert!(Parcel::new(empty).is_none());
        let run = |len| Parcel::new(Content::Run { to, data: payload(&vec![1; len]), segment: 10 });
        assert_eq!(run(31).unwrap().rest(), 0..4);
        assert!(run(0).is_none());
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        use crate::io::udp::sender;
        let mut name = [1; NAME];
        for (to, v6, len) in [
            ("192.0.2.7:4711", false, 16),
            ("192.0.2.7:4711", true, 28),
            ("[2001:db8::9]:80", true, 28),
            ("[fe80::1%3]:80", true, 28),
        ] {
            let to: SocketAddr = to.parse().unwrap();
            assert_eq!(address(&mut name, to, v6), len);
            assert_eq!(sender(&name[..len]), Some(to), "{v6}");
        }
    }

    /// Every datagram arrives with its channel and stamp and nothing else changed, whether the
    /// kernel cuts the train or each is sent by itself.
    #[test]
    fn what_arrives_is_what_was_meant() {
        let receiver = UdpSocket::bind("[::1]:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let stamp = 0x0102_0304_0506_0708u64;
        let mut frame = Frame::new();
        for (head, others, header) in
            [(true, 16, 29), (false, 7, 21), (true, 0, 29), (false, 1, 29)]
        {
            let whole = train(to, head, others, header, 1316);
            let want = |index: usize| {
                let mut want = match index.checked_sub(usize::from(head)) {
                    None => vec![9; header + 1316],
                    Some(n) => {
                        let mut front = vec![100 + n as u8; header];
                        front[header - 8..].copy_from_slice(&stamp.to_be_bytes());
                        [front, vec![200 + n as u8; 1316]].concat()
                    }
                };
                want[..4].copy_from_slice(&[0x81, 2, 3, 4]);
                want
            };
            let parcel = parcel(whole).unwrap();
            let all = parcel.rest();
            let mut ranges: Vec<_> = all.clone().map(|n| n..n + 1).collect();
            ranges.extend([all.clone(), all.end - 1..all.end]);
            for range in ranges {
                let sent = frame.send(socket.as_fd(), &parcel, range.clone(), true, stamp);
                assert_eq!(sent, Ok(range.len() * (header + 1316)));
                for index in range {
                    let mut got = [0; 2000];
                    let n = receiver.recv(&mut got).unwrap();
                    assert!(got[..n] == want(index), "datagram {index}");
                }
            }
        }
    }
}
