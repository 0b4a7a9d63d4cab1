//! The real clock, with one origin for the whole process.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::time::{Mono, Now, Utc};

/// The origin of [`Mono`]: the first time that anybody asked.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Reads the clocks. All clocks of a process agree, whichever thread started them.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock; the first one of the process sets the origin.
    #[must_use]
    pub fn start() -> Clock {
        Clock { origin: *ORIGIN.get_or_init(Instant::now) }
    }

    /// Both clocks. Wall-clock time before 1970 reads as 1970.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.mono(), utc: Utc::from_unix_millis(millis) }
    }

    /// The monotonic half alone.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::ZERO + self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_one_process_agree_and_never_go_back() {
        let first = Clock::start();
        let a = first.now().mono;
        let b = std::thread::spawn(|| Clock::start().now()).join().unwrap().mono;
        let c = first.now();
        assert!(a <= b && b <= c.mono);
        assert!(c.utc.as_unix_millis() > 1_600_000_000_000);
    }
}
