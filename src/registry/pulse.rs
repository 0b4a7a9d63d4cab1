//! How the process feels: figures that one thread computes once a second for everybody to read.

/// Computed by the household, read by pages and the API without waiting for any shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pulse {
    /// Median delay between ingest and the kernel's acceptance for a viewer, last 10 s, in ms.
    pub delay_p50_ms: f64,
    /// 99th percentile of the same.
    pub delay_p99_ms: f64,
    /// Whether the process is ending.
    pub draining: bool,
}
