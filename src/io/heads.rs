//! Receives datagrams of which only the beginning is wanted: the kernel drops the rest uncopied.
//!
//! For load clients, which must cost a fraction of what they load: a whole train comes by one
//! call (UDP_GRO), and of its 22 kB only the first headers are copied.

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::io::udp::{Control, set_option};

/// Messages per call.
const MESSAGES: usize = 32;

/// Bytes copied of each message: the first datagram of a train and the header of the second.
const HEAD: usize = 1_408;

/// Bytes for the one control message that was asked for: the segment size.
const CONTROL: usize = 24;

/// The beginning of a message.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The first bytes of its first datagram, and of those after it if they are short.
    pub bytes: &'a [u8],
    /// The length of the whole message.
    pub len: usize,
    /// The length of each datagram but the last, which may be shorter.
    pub segment: usize,
}

/// Memory for one call, allocated once.
#[derive(Debug)]
pub struct Heads {
    data: Box<[u8]>,
    control: Box<[Side; MESSAGES]>,
    /// Length of the message, and of its control messages.
    lengths: [(usize, usize); MESSAGES],
}

/// What the kernel writes beside the bytes; aligned as it wants control messages.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Side([u8; CONTROL]);

/// Asks the kernel to put the datagrams of a train together on this socket.
///
/// # Errors
/// Of setsockopt(2): before Linux 5.0.
pub fn gather(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

impl Default for Heads {
    fn default() -> Heads {
        Heads::new()
    }
}

impl Heads {
    /// Allocates.
    #[must_use]
    pub fn new() -> Heads {
        Heads {
            data: vec![0; MESSAGES * HEAD].into(),
            control: Box::new([Side([0; CONTROL]); MESSAGES]),
            lengths: [(0, 0); MESSAGES],
        }
    }

    /// Receives without waiting. Returns the number of messages, and whether there may be more.
    ///
    /// # Errors
    /// Of recvmmsg(2): `EAGAIN` if there is nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<(usize, bool), Errno> {
        // SAFETY: both are plain C structs of integers and pointers; all zeroes are a value.
        let (mut headers, mut parts): ([libc::mmsghdr; MESSAGES], [libc::iovec; MESSAGES]) =
            unsafe { (zeroed(), zeroed()) };
        let memory = self.data.chunks_exact_mut(HEAD).zip(self.control.iter_mut());
        for ((header, part), (data, side)) in headers.iter_mut().zip(&mut parts).zip(memory) {
            part.iov_base = data.as_mut_ptr().cast();
            part.iov_len = data.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = side.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // SAFETY: each header points to an iovec and control memory of the length it says, all in
        // `self` or on this stack, borrowed by nobody else; the kernel writes to them during the
        // call only, and takes no time-out from the null pointer.
        let count = unsafe {
            let (null, flags) = (std::ptr::null_mut(), libc::MSG_DONTWAIT | libc::MSG_TRUNC);
            let most = MESSAGES as libc::c_uint;
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), most, flags as _, null)
        };
        let Ok(count) = usize::try_from(count) else {
            let code = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return Err(Errno::from_raw_os_error(code));
        };
        for (lengths, header) in self.lengths.iter_mut().zip(&headers[..count]) {
            #[allow(clippy::unnecessary_cast, reason = "32 bits with some C libraries")]
            let control = header.msg_hdr.msg_controllen as usize;
            *lengths = (header.msg_len as usize, control.min(CONTROL));
        }
        Ok((count, count == MESSAGES))
    }

    /// The message at `index` of the last call.
    #[must_use]
    pub fn head(&self, index: usize) -> Head<'_> {
        let (len, control) = self.lengths[index];
        let control = Control::parse(&self.control[index].0[..control]);
        let bytes = &self.data[index * HEAD..][..len.min(HEAD)];
        Head { bytes, len, segment: control.segment.unwrap_or(len).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        (near, far)
    }

    #[test]
    fn only_the_beginning_is_copied_and_the_length_is_known() {
        let (near, far) = pair();
        gather(&far).unwrap();
        let mut heads = Heads::new();
        assert_eq!(heads.receive(far.as_fd()).unwrap_err(), Errno::AGAIN);
        near.send(&[1; 10]).unwrap();
        near.send(&[2; 9_000]).unwrap();
        near.send(&[]).unwrap();
        assert_eq!(heads.receive(far.as_fd()), Ok((3, false)));
        let seen = [0, 1, 2].map(|index| {
            let head = heads.head(index);
            (head.bytes.to_vec(), head.len, head.segment)
        });
        assert_eq!(seen[0], (vec![1; 10], 10, 10));
        assert_eq!(seen[1], (vec![2; HEAD], 9_000, 9_000));
        assert_eq!(seen[2], (vec![], 0, 1));
    }

    #[test]
    fn a_train_is_one_message() {
        let (near, far) = pair();
        gather(&far).unwrap();
        set_option(&near, libc::SOL_UDP, libc::UDP_SEGMENT, 1_000).unwrap();
        near.send(&[3; 4_500]).unwrap();
        let mut heads = Heads::new();
        assert_eq!(heads.receive(far.as_fd()), Ok((1, false)));
        let head = heads.head(0);
        assert_eq!((head.bytes.len(), head.len, head.segment), (HEAD, 4_500, 1_000));
    }
}
