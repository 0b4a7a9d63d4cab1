//! The std|loom switch: what the lock-free parts of the ring are made of.

#[cfg(not(headwater_loom))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(headwater_loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
