//! The only data-path code that touches the operating system.
//!
//! [`machine`] is the contract. [`epoll`] and [`uring`] are two drivers of it with equal rights;
//! both are a `Backend` of the one loop in [`driver`], and `conformance` holds both to the same
//! behaviour.
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod ceiling;
pub mod clock;
#[cfg(test)]
mod conformance;
mod connect;
pub mod driver;
pub mod epoll;
pub mod heads;
mod hub;
pub mod machine;
pub mod mailbox;
mod outbound;
mod outgoing;
mod parcel;
pub mod probe;
mod recvmmsg;
pub mod socket;
mod table;
pub mod udp;
pub mod uring;
pub mod zerocopy;
