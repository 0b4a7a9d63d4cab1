//! A whole world from one seed: relay, publisher and viewers, over a network that does not exist,
//! in a time that does not pass.
//!
//! The machines are those of production, and this is their third driver beside io_uring and
//! epoll. What happens follows from the seed alone, so whatever goes wrong goes wrong again.
//!
//! ```text
//! dice, queue, digest       chance, time, and one number for all that happened
//! link, nat, flight         lines, address translators, datagrams under way
//! world, udp, tcp           the driver
//! population, source        who watches, who publishes: assumptions, stated
//! notary                    integrity that thousands share
//! ```
#![forbid(unsafe_code)]

mod describe;
mod dice;
mod digest;
mod flight;
mod link;
mod losses;
mod nat;
mod notary;
mod population;
mod queue;
mod source;
mod tcp;
mod udp;
mod world;
