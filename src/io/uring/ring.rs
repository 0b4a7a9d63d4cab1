//! The ring itself: set up with as much as the kernel grants, filled, entered, emptied.

use std::io;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, opcode, squeue};

use crate::io::uring::completion::{Completion, Op, tag};
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// Entries of the submission queue: two batches of sends.
const ENTRIES: u32 = 256;

/// Entries of the completion queue. Beyond it the kernel keeps completions in a list of its own
/// (IORING_FEAT_NODROP), which is slower but loses nothing.
pub(super) const COMPLETIONS: u32 = 4096;

/// Attempts to make room in the submission queue before the ring counts as broken.
const SUBMIT_TRIES: usize = 100;

/// Waits of 50 ms in a row that bring back no cancelled operation at the end.
const REAP_TRIES: usize = 40;

/// An io_uring and the number of operations that the kernel holds.
pub(super) struct Ring {
    io: IoUring,
    /// Submitted or queued, and the last completion not seen. While it is not 0, memory that
    /// operations refer to must stay.
    inflight: usize,
    /// The kernel takes no more entries: reported by the next wait.
    broken: Option<io::Error>,
}

/// The wishes in the order in which kernels learned them, the newest first. Each line gives up
/// something of the line before.
fn wishes(level: usize) -> Option<Builder> {
    let mut builder: Builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS).setup_clamp();
    match level {
        // 6.1: completions are worked out only when this thread asks for them.
        0 => builder
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag(),
        // 6.0
        1 => builder
            .setup_submit_all()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag(),
        // 5.19
        2 => builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag(),
        3 => &mut builder,
        _ => return None,
    };
    Some(builder)
}

impl Ring {
    /// A ring that only the calling thread may use.
    ///
    /// # Errors
    /// Of io_uring_setup(2): `EPERM`, `ENOSYS`, `ENOMEM`.
    pub fn new() -> io::Result<Ring> {
        let mut level = 0;
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        while let Some(builder) = wishes(level) {
            match builder.build(ENTRIES) {
                Ok(io) => return Ok(Ring { io, inflight: 0, broken: None }),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                Err(error) => return Err(error),
            }
            level += 1;
        }
        Err(refused)
    }

    /// The ring, to register memory with.
    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.io.submitter()
    }

    /// Queues an operation under the name (`op`, `index`).
    ///
    /// # Safety
    /// Memory that the entry points to must stay valid and, where the kernel reads it, unchanged
    /// until the last completion of this name was popped, or for ever if that never happens.
    pub unsafe fn push(&mut self, cells: &Cells, op: Op, index: u32, entry: squeue::Entry) {
        let entry = entry.user_data(tag(op, index));
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: the caller promises it for this entry.
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                self.inflight += 1;
                return;
            }
            self.submit(cells);
        }
        let text = "the kernel takes no more io_uring entries";
        self.broken.get_or_insert_with(|| io::Error::other(text));
    }

    /// Queues the cancellation of (`op`, `index`).
    pub fn cancel(&mut self, cells: &Cells, op: Op, index: u32) {
        let entry = opcode::AsyncCancel::new(tag(op, index)).build();
        // SAFETY: the entry holds a number and points to nothing.
        unsafe { self.push(cells, Op::Cancel, index, entry) };
    }

    /// Hands queued operations to the kernel without waiting. Those that need no waiting are
    /// complete when it returns.
    pub fn submit(&mut self, cells: &Cells) {
        let queue = self.io.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return;
        }
        drop(queue);
        let result = self.io.submit();
        self.entered(cells, result);
    }

    /// Hands queued operations to the kernel and waits for a completion, at most `timeout`.
    ///
    /// # Errors
    /// If the ring can no longer be used.
    pub fn wait(&mut self, cells: &Cells, timeout: Duration) -> io::Result<()> {
        if timeout.is_zero() {
            self.submit(cells);
        } else {
            let timespec = Timespec::from(timeout);
            let args = SubmitArgs::new().timespec(&timespec);
            let result = self.io.submitter().submit_with_args(1, &args);
            self.entered(cells, result);
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    fn entered(&mut self, cells: &Cells, result: io::Result<usize>) {
        cells.add(Cell::IoEnters, 1);
        match result {
            Ok(n) => cells.add(Cell::UringSubmissions, n as u64),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal; completions must be taken first; no memory just
                // now. Nothing was consumed: the next call tries again.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {}
                _ => {
                    self.broken.get_or_insert(error);
                }
            },
        }
    }

    /// Completions that can be popped.
    pub fn ready(&mut self) -> usize {
        self.io.completion().len()
    }

    /// Whether the kernel keeps completions for which the queue had no room.
    pub fn overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// The next completion.
    pub fn pop(&mut self) -> Option<Completion> {
        let entry = self.io.completion().next()?;
        let completion = Completion::new(&entry);
        self.inflight -= usize::from(!completion.more);
        Some(completion)
    }

    /// Cancels everything and takes the completions. Whether the kernel holds nothing any more.
    pub fn cancel_all(&mut self) -> bool {
        let cells = Cells::default();
        let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: the entry points to nothing.
        unsafe { self.push(&cells, Op::Cancel, 0, all) };
        let (mut tries, mut left) = (0, self.inflight);
        while tries < REAP_TRIES {
            while let Some(completion) = self.pop() {
                // A connection that came in last is closed by its drop.
                drop(completion.accepted());
            }
            if self.inflight == 0 {
                return true;
            }
            // Each call brings back a few at most (20 since Linux 6.13), however many there are.
            tries = if self.inflight < left { 0 } else { tries + 1 };
            left = self.inflight;
            if self.wait(&cells, Duration::from_millis(50)).is_err() {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_beyond_the_queue_are_not_lost() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let (mut ring, cells) = (Ring::new().unwrap(), Cells::default());
        let count = COMPLETIONS * 2;
        for index in 0..count {
            // SAFETY: a no-op points to nothing.
            unsafe { ring.push(&cells, Op::Cancel, index, opcode::Nop::new().build()) };
        }
        ring.submit(&cells);
        assert!(ring.overflowed());
        let mut seen = vec![false; count as usize];
        for _ in 0..100 {
            while let Some(completion) = ring.pop() {
                assert!(!std::mem::replace(&mut seen[completion.index as usize], true));
            }
            let timeout = Duration::from_millis(u64::from(!ring.overflowed()));
            ring.wait(&cells, timeout).unwrap();
        }
        assert!(seen.iter().all(|&seen| seen) && ring.inflight == 0 && !ring.overflowed());
        assert_eq!(cells.get(Cell::UringSubmissions), u64::from(count));
    }

    #[test]
    fn every_level_of_wishes_gives_a_ring_that_works() {
        if let Err(why) = crate::io::probe::uring() {
            println!("SKIPPED: {why}");
            return;
        }
        let mut level = 0;
        while let Some(builder) = wishes(level) {
            let io = builder.build(ENTRIES).unwrap();
            let (mut ring, cells) = (Ring { io, inflight: 0, broken: None }, Cells::default());
            let bell = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            let fd = io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(&bell));
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            // SAFETY: polling points to no memory.
            unsafe { ring.push(&cells, Op::Bell, 0, entry) };
            ring.wait(&cells, Duration::from_secs(5)).unwrap();
            let rung = ring.pop().unwrap();
            assert_eq!((rung.op, rung.more), (Op::Bell, true), "level {level}");
            assert!(ring.cancel_all(), "level {level}");
            level += 1;
        }
        assert_eq!(level, 4);
    }
}
