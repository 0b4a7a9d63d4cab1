//! HTTP: one connection machine for everything that speaks it.
//!
//! [`connection::Connection`] is the machine. A request goes through `request` (what was asked,
//! strictly), `route` (what it means here) and `respond` (the bytes of the answer); only
//! requests that need a stream leave it as an [`exchange::Event`].

pub mod connection;
mod download;
pub mod exchange;
pub mod graph;
mod input;
pub mod invitation;
mod output;
mod pages;
pub mod progressive;
mod request;
mod respond;
mod route;
pub mod settings;
pub mod status;
#[cfg(test)]
mod tests;
