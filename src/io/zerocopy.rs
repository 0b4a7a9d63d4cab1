//! Whether sending without a copy (`SEND_ZC`) works here, and whether it saves the copy.
//!
//! The relay does not send that way: over loopback and veth the kernel copies all the same, and
//! says so in a second completion (measured: 1.2 to 1.5 times the cost), and the bytes must stay
//! pinned until the network card has let them go. Where it may pay, on a card, this tells; the
//! place to switch is `Sends::take` of the uring driver, whose bytes then live until the
//! notification instead of the completion.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

/// What is sent. Static, so that the kernel may read it for as long as it likes.
static BYTES: [u8; 16 << 10] = [0x47; 16 << 10];

/// `IORING_SEND_ZC_REPORT_USAGE` of io_uring_enter(2): the notification shall say whether the
/// bytes were copied. Linux 6.2.
const REPORT_USAGE: u16 = 1 << 3;

/// `IORING_NOTIF_USAGE_ZC_COPIED`: they were.
const COPIED: i32 = i32::MIN;

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of bytes that were sent with `SEND_ZC` over loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// The kernel copied them: it costs more than an ordinary send.
    Copied,
    /// The receiver read them out of our memory.
    Avoided,
}

/// Sends once without a copy, over a connection of its own.
///
/// # Errors
/// What the kernel says: `SEND_ZC` needs Linux 6.0, the report 6.2.
pub fn probe() -> io::Result<ZeroCopy> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut reader = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    reader.set_read_timeout(Some(PATIENCE))?;
    let (writer, _) = listener.accept()?;
    let mut ring = IoUring::new(4)?;
    let len = BYTES.len() as u32;
    let send = opcode::SendZc::new(Fd(writer.as_raw_fd()), BYTES.as_ptr(), len)
        .flags(libc::MSG_NOSIGNAL)
        .zc_flags(REPORT_USAGE)
        .build();
    // SAFETY: the operation reads only `BYTES`, which is never written and never goes away; the
    // descriptor is open until this function returns, and the kernel holds the socket beyond that.
    unsafe { ring.submission().push(&send) }.map_err(io::Error::other)?;
    let sent = next(&mut ring)?;
    let count =
        usize::try_from(sent.result()).map_err(|_| io::Error::from_raw_os_error(-sent.result()))?;
    if !cqueue::more(sent.flags()) {
        return Err(io::Error::other("no notification is announced"));
    }
    let mut got = vec![0; count];
    reader.read_exact(&mut got)?;
    if got != BYTES[..count] {
        return Err(io::Error::other("other bytes came than were sent"));
    }
    let told = next(&mut ring)?;
    if !cqueue::notif(told.flags()) {
        return Err(io::Error::other("no notification came"));
    }
    Ok(if told.result() == COPIED { ZeroCopy::Copied } else { ZeroCopy::Avoided })
}

/// The next completion.
fn next(ring: &mut IoUring) -> io::Result<cqueue::Entry> {
    let patience = Timespec::from(PATIENCE);
    let wait = SubmitArgs::new().timespec(&patience);
    ring.submitter().submit_with_args(1, &wait)?;
    ring.completion().next().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_loopback_the_kernel_copies() {
        match (probe(), IoUring::new(4)) {
            (Ok(outcome), _) => assert_eq!(outcome, ZeroCopy::Copied, "design: it always copies"),
            (Err(why), Err(_)) => println!("SKIPPED: no io_uring: {why}"),
            // A kernel between 5.1 and 6.2.
            (Err(why), Ok(_)) => assert_eq!(why.raw_os_error(), Some(libc::EINVAL), "{why}"),
        }
    }
}
