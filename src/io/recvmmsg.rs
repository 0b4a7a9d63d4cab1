//! Datagrams for the epoll driver: several messages per system call.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::io::udp::{CONTROL, Control, DATA, sender};

/// Messages per call. Each may be a whole run of datagrams.
pub(super) const MESSAGES: usize = 16;

/// What the kernel writes beside the bytes; aligned as it wants control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Side {
    control: [u8; CONTROL],
    name: libc::sockaddr_storage,
}

/// Memory for one call, allocated once.
pub(super) struct Batch {
    data: Box<[u8]>,
    sides: Box<[Side]>,
    /// Length of the bytes, the name and the control messages, and the flags.
    lengths: [(usize, usize, usize, i32); MESSAGES],
}

/// One received message.
pub(super) struct Message<'a> {
    pub name: &'a [u8],
    pub control: &'a [u8],
    pub data: &'a [u8],
    pub flags: i32,
}

impl Message<'_> {
    /// Sender and control data; `None` if the kernel had to leave something out.
    pub fn read(&self) -> Option<(std::net::SocketAddr, Control)> {
        let whole = self.flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
        whole.then(|| Some((sender(self.name)?, Control::parse(self.control)))).flatten()
    }
}

impl Batch {
    /// Allocates: a megabyte.
    pub fn new() -> Batch {
        // SAFETY: sockaddr_storage is a plain C struct, for which all zeroes are a value.
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Batch {
            data: vec![0; MESSAGES * DATA].into(),
            sides: vec![Side { control: [0; CONTROL], name }; MESSAGES].into(),
            lengths: [(0, 0, 0, 0); MESSAGES],
        }
    }

    /// Receives without waiting. Returns the number of messages.
    ///
    /// # Errors
    /// Of recvmmsg(2): `EAGAIN` if there is nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        // SAFETY: both are plain C structs of integers and pointers; all zeroes are a value.
        let (mut headers, mut parts): ([libc::mmsghdr; MESSAGES], [libc::iovec; MESSAGES]) =
            unsafe { (zeroed(), zeroed()) };
        let memory = self.data.chunks_exact_mut(DATA).zip(self.sides.iter_mut());
        for ((header, part), (data, side)) in headers.iter_mut().zip(&mut parts).zip(memory) {
            part.iov_base = data.as_mut_ptr().cast();
            part.iov_len = data.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut side.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = side.control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // SAFETY: each header points to an iovec, a name and control memory of the length it
        // says, all in `self` or on this stack, borrowed by nobody else; the kernel writes to
        // them during the call only, and takes no time-out from the null pointer.
        let count = unsafe {
            let null = std::ptr::null_mut();
            let count = MESSAGES as libc::c_uint;
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                null,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let code = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return Err(Errno::from_raw_os_error(code));
        };
        for (lengths, header) in self.lengths.iter_mut().zip(&headers[..count]) {
            let message = &header.msg_hdr;
            #[allow(clippy::unnecessary_cast, reason = "32 bits with some C libraries")]
            let control = message.msg_controllen as usize;
            let (len, name) = (header.msg_len as usize, message.msg_namelen as usize);
            *lengths = (len.min(DATA), name, control.min(CONTROL), message.msg_flags);
        }
        Ok(count)
    }

    /// The message at `index` of the last call.
    pub fn message(&self, index: usize) -> Message<'_> {
        let (len, name, control, flags) = self.lengths[index];
        let side = &self.sides[index];
        let size = size_of::<libc::sockaddr_storage>();
        // SAFETY: the struct is as long as `size`, initialised as zeroes and then by the kernel,
        // without padding that anybody left uninitialised; it is borrowed with `self`.
        let whole =
            unsafe { std::slice::from_raw_parts((&raw const side.name).cast::<u8>(), size) };
        Message {
            name: &whole[..name.min(size)],
            control: &side.control[..control],
            data: &self.data[index * DATA..][..len],
            flags,
        }
    }
}
