//! Batches of sends through a ring, as the io_uring driver sends.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

use crate::io::ceiling::{Outcome, Rounds};
use crate::io::driver::BATCH;

/// A ring with the best flags that the kernel grants, as the driver's.
pub(super) struct Ring(IoUring);

impl Ring {
    /// # Errors
    /// Of io_uring_setup(2).
    pub fn new() -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun();
        builder.setup_taskrun_flag();
        let best = builder.build(2 * BATCH as u32);
        // Linux before 6.1: without the flags.
        best.or_else(|_| IoUring::new(2 * BATCH as u32)).map(Ring)
    }
}

impl Rounds for Ring {
    fn round(
        &mut self,
        connections: &[TcpStream],
        bytes: &'static [u8],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        // The size was checked to be at most SIZE_MAX.
        let len = bytes.len() as u32;
        for batch in connections.chunks(BATCH) {
            for connection in batch {
                let fd = types::Fd(connection.as_raw_fd());
                let entry = opcode::Send::new(fd, bytes.as_ptr(), len)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    .build();
                // SAFETY: the bytes are constant and live for ever. The descriptor is open until
                // the entry is submitted, which is below: `connections` is borrowed meanwhile.
                unsafe { self.push(&entry)? };
            }
            self.settle(batch.len(), outcome, |result, outcome| {
                match result {
                    n if n >= 0 => {
                        outcome.bytes += u64::from(n.unsigned_abs());
                        outcome.sends += 1;
                    }
                    n if n == -libc::EAGAIN || n == -libc::EINTR => outcome.blocked += 1,
                    n => return Err(io::Error::from_raw_os_error(-n)),
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Ring {
    /// Queues an operation.
    ///
    /// # Safety
    /// What it points to must stay as it is until it is complete, or for ever.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.0.submission().push(entry) }.map_err(io::Error::other)
    }

    /// Submits what is queued and takes all `owed` completions, each of which `add` is given.
    pub fn settle(
        &mut self,
        mut owed: usize,
        outcome: &mut Outcome,
        mut add: impl FnMut(i32, &mut Outcome) -> io::Result<()>,
    ) -> io::Result<()> {
        // Sends that do not wait are complete when the call that submits them returns.
        self.0.submit()?;
        outcome.calls += 1;
        loop {
            for completion in self.0.completion() {
                owed -= 1;
                add(completion.result(), outcome)?;
            }
            if owed == 0 {
                return Ok(());
            }
            self.0.submit_and_wait(owed)?;
            outcome.calls += 1;
        }
    }
}
