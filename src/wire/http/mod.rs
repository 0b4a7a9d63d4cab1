//! HTTP/1 as bytes (RFC 9112): heads of requests and responses, bodies, escapes.
//!
//! Everything here is strict where two readers of the same bytes could disagree about where a
//! message ends: such a disagreement between a proxy and this relay is request smuggling.

pub mod answer;
pub mod body;
pub mod chunked;
pub mod fields;
pub mod head;
pub mod range;
pub mod response;
pub mod text;
