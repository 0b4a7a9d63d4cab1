//! Who watches: synthetic tables, stated here and nowhere else.
//!
//! ASSUMPTIONS, not measurements: uploads of 1.5 times the bitrate on average, of which a fifth
//! of the peers have none; one-way delays of 40 ms in the median; 1 % of datagrams lost; 0.2 %
//! of the peers leave each second and as many come; a quarter without address translation, a
//! fifth behind a symmetric one.

use std::time::Duration;

use crate::sim::dice::{Dice, Ppm};
use crate::sim::link::{Faults, Link};
use crate::sim::nat::NatKind;

/// A distribution: points of its quantile function, in thousandths of the peers and a value,
/// between which it is straight.
pub type Quantiles = &'static [(u64, u64)];

/// Upload in hundredths of the bitrate. Mean: 0.8 x (50 + 325) / 2 = 150.
pub const UPLOAD: Quantiles = &[(0, 0), (200, 0), (201, 50), (1_000, 325)];

/// Download in hundredths of the bitrate: nobody who could not watch alone, most far beyond.
pub const DOWNLOAD: Quantiles = &[(0, 250), (250, 800), (500, 2_000), (1_000, 10_000)];

/// One-way delay in microseconds.
pub const DELAY: Quantiles =
    &[(0, 5_000), (250, 20_000), (500, 40_000), (900, 90_000), (990, 180_000), (1_000, 250_000)];

/// Jitter in microseconds.
pub const JITTER: Quantiles = &[(0, 200), (500, 2_000), (900, 8_000), (1_000, 20_000)];

/// Datagrams lost at random.
pub const LOSS: Ppm = 10_000;

/// Peers that leave in one second, and peers that come.
pub const CHURN: Ppm = 2_000;

/// Milliseconds of traffic that wait in front of a home's line.
const QUEUE_MS: u64 = 250;

/// Peers without address translation, and up to here with an ordinary one.
const OPEN: u64 = 25;
const ORDINARY: u64 = 80;

/// The longest packets that the networks of a hundredth of the peers take; others take 1,500.
const SMALL_MTU: usize = 1_420;

/// A value of the distribution.
#[must_use]
pub fn draw(quantiles: Quantiles, dice: &mut Dice) -> u64 {
    let part = dice.below(1_000_000);
    let mut points = quantiles.iter().map(|(thousandth, value)| (thousandth * 1_000, *value));
    let mut left = points.next().unwrap_or((0, 0));
    for right in points {
        if part < right.0 {
            let (run, rise) = (right.0 - left.0, right.1.saturating_sub(left.1));
            return left.1 + rise * (part - left.0) / run.max(1);
        }
        left = right;
    }
    left.1
}

/// The link of one peer of a stream of `bitrate`.
#[must_use]
pub fn peer(bitrate: u64, faults: Faults, dice: &mut Dice) -> Link {
    let up = draw(UPLOAD, dice) * bitrate / 100;
    let down = draw(DOWNLOAD, dice) * bitrate / 100;
    let delay = Duration::from_micros(draw(DELAY, dice));
    let jitter = Duration::from_micros(draw(JITTER, dice));
    let nat = match dice.below(100) {
        0..OPEN => NatKind::Open,
        OPEN..ORDINARY => NatKind::AddressDependent,
        _ => NatKind::Symmetric,
    };
    let mtu = if dice.happens(10_000) { SMALL_MTU } else { 1_500 };
    // Who cannot upload still acknowledges.
    let up = up.max(bitrate / 10).max(100_000);
    let queue = (down * QUEUE_MS / 8_000).max(64_000);
    Link { up, down, queue, patient: false, delay, jitter, faults, mtu, nat, udp_blocked: false }
}

/// The relay's: in a data centre.
#[must_use]
pub fn relay(rate: u64) -> Link {
    Link {
        up: rate,
        down: rate,
        queue: 4 << 20,
        patient: true,
        delay: Duration::from_micros(200),
        jitter: Duration::from_micros(50),
        faults: Faults::default(),
        mtu: 1_500,
        nat: NatKind::Open,
        udp_blocked: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_what_they_say() {
        let mut dice = Dice::new(1, "test", 0);
        let mut all = |table| -> Vec<u64> {
            let mut values: Vec<u64> = (0..40_000).map(|_| draw(table, &mut dice)).collect();
            values.sort_unstable();
            values
        };
        let upload = all(UPLOAD);
        assert!((146..154).contains(&(upload.iter().sum::<u64>() / 40_000)));
        let none = upload.iter().filter(|upload| **upload == 0).count();
        assert!((7_600..8_400).contains(&none), "{none}");
        let delay = all(DELAY);
        assert!((38_000..42_000).contains(&delay[20_000]), "{}", delay[20_000]);
        assert!(all(DOWNLOAD)[0] >= 250);
        let mut dice = Dice::new(2, "test", 0);
        let links: Vec<Link> =
            (0..1_000).map(|_| peer(2_000_000, Faults::default(), &mut dice)).collect();
        let strict = links.iter().filter(|link| link.nat == NatKind::Symmetric).count();
        assert!((150..250).contains(&strict), "{strict}");
        assert!(links.iter().all(|link| link.up >= 200_000 && link.down >= 5_000_000));
    }
}
