//! One send(2) per connection, as the epoll driver sends.

use std::io;
use std::net::TcpStream;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::io::ceiling::{Outcome, Rounds};

/// Needs no state: a connection that takes nothing has its next turn in the next round.
pub(super) struct Plain;

impl Rounds for Plain {
    fn round(
        &mut self,
        connections: &[TcpStream],
        bytes: &'static [u8],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        for connection in connections {
            outcome.calls += 1;
            match rustix::net::send(connection, bytes, flags) {
                Ok(n) => {
                    outcome.bytes += n as u64;
                    outcome.sends += 1;
                }
                Err(Errno::AGAIN | Errno::INTR) => outcome.blocked += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
