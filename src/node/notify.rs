//! What systemd is told. Without systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Every socket is bound and every shard runs.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The process ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Every shard made progress.
pub(super) fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear from the watchdog, if at all.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(state) {
        warn!(%why, "cannot notify systemd");
    }
}
