//! The sample that the demo replays: one minute of a clock over colour bars, and a tone.
//!
//! The clock shows 00.0 in its first packet, so a replay that starts at the phase of the UTC
//! minute shows the true second, and the delay behind live can be read off the picture.
//!
//! This script made it:
#![doc = concat!("```sh\n", include_str!("sample/make.sh"), "```")]

/// 60 s of MPEG-TS: H.264 main, 480x270, 25/s, a key frame each second, no B-frames, and AAC at
/// 32 kHz. For [`Looper`](crate::media::looper::Looper).
pub static DEMO: &[u8] = include_bytes!("sample/demo.ts");
