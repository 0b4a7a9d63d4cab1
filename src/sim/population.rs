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

/// Upload of a poor population. Mean: 0.8 x (20 + 130) / 2 = 60.
pub const UPLOAD_POOR: Quantiles = &[(0, 0), (200, 0), (201, 20), (1_000, 130)];

/// Upload where half of the peers have none. Mean: 0.5 x (50 + 550) / 2 = 150, as usual.
pub const UPLOAD_HALF: Quantiles = &[(0, 0), (500, 0), (501, 50), (1_000, 550)];

/// Upload by radio. Mean: 0.8 x (20 + 180) / 2 = 80.
pub const UPLOAD_MOBILE: Quantiles = &[(0, 0), (200, 0), (201, 20), (1_000, 180)];

/// Download by radio: with [`NARROW`] of it one can still watch.
pub const DOWNLOAD_MOBILE: Quantiles = &[(0, 450), (500, 1_000), (1_000, 5_000)];

/// Of a hundred, what a line carries in its worst moments: it swings between this and all.
pub const NARROW: u64 = 30;

/// One-way delay in microseconds.
pub const DELAY: Quantiles =
    &[(0, 5_000), (250, 20_000), (500, 40_000), (900, 90_000), (990, 180_000), (1_000, 250_000)];

/// Jitter in microseconds.
pub const JITTER: Quantiles = &[(0, 200), (500, 2_000), (900, 8_000), (1_000, 20_000)];

/// Datagrams lost at random.
pub const LOSS: Ppm = 10_000;

/// Peers that leave in one second, and peers that come.
pub const CHURN: Ppm = 2_000;

/// Who watches: tables for everything in which their lines differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folk {
    upload: Quantiles,
    download: Quantiles,
    delay: Quantiles,
    jitter: Quantiles,
    /// Milliseconds of traffic that wait in front of a line.
    queue_ms: u64,
    /// Who sends waits for room in the queue of their own machine, instead of a router that
    /// drops.
    patient: bool,
    /// Of a hundred peers, those without address translation, and up to here with an ordinary
    /// one; the others are behind a symmetric one.
    open: u64,
    ordinary: u64,
    /// Peers in whose networks only packets of [`SMALL_MTU`] pass; others take 1,500.
    small_mtu: Ppm,
}

/// People at home.
pub const HOMES: Folk = Folk {
    upload: UPLOAD,
    download: DOWNLOAD,
    delay: DELAY,
    jitter: JITTER,
    queue_ms: 250,
    patient: false,
    open: 25,
    ordinary: 80,
    small_mtu: 10_000,
};

/// The same with poor uplinks.
pub const POOR: Folk = Folk { upload: UPLOAD_POOR, ..HOMES };

/// The same, of whom half cannot upload at all and the others twice as much.
pub const ASYMMETRIC: Folk = Folk { upload: UPLOAD_HALF, ..HOMES };

/// The same behind bad routers: 5 % open, 15 % ordinary, 80 % symmetric.
pub const STRICT: Folk = Folk { open: 5, ordinary: 20, ..HOMES };

/// People on the road: by radio, behind their carriers' translators.
pub const MOBILE: Folk = Folk {
    upload: UPLOAD_MOBILE,
    download: DOWNLOAD_MOBILE,
    jitter: &[(0, 2_000), (500, 8_000), (900, 20_000), (1_000, 40_000)],
    open: 10,
    ordinary: 60,
    ..HOMES
};

/// Network namespaces of one machine with shaped uplinks, as in tests/swarm_hybrid.rs.
pub const LAN: Folk = Folk {
    download: &[(0, 100_000), (1_000, 100_000)],
    delay: &[(0, 50), (1_000, 50)],
    jitter: &[(0, 0), (1_000, 100)],
    queue_ms: 400,
    patient: true,
    open: 100,
    small_mtu: 0,
    ..HOMES
};

/// The longest packets of some networks.
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

/// How often a viewer's computer lets its process run, at most: it does other things as well.
const TURN: Duration = Duration::from_millis(5);

/// The link of one peer of a stream of `bitrate`.
#[must_use]
pub fn peer(bitrate: u64, folk: &Folk, faults: Faults, dice: &mut Dice) -> Link {
    let up = draw(folk.upload, dice) * bitrate / 100;
    let down = draw(folk.download, dice) * bitrate / 100;
    let delay = Duration::from_micros(draw(folk.delay, dice));
    let jitter = Duration::from_micros(draw(folk.jitter, dice));
    let nat = match dice.below(100) {
        n if n < folk.open => NatKind::Open,
        n if n < folk.ordinary => NatKind::AddressDependent,
        _ => NatKind::Symmetric,
    };
    let mtu = if dice.happens(folk.small_mtu) { SMALL_MTU } else { 1_500 };
    // Who cannot upload still acknowledges.
    let up = up.max(bitrate / 10).max(100_000);
    let queue = |rate: u64, least| (rate * folk.queue_ms / 8_000).max(least);
    let (queue, queue_up) = (queue(down, 64_000), queue(up, 16_000));
    let patient = folk.patient;
    let udp_blocked = false;
    let turn = TURN;
    Link { up, down, queue, queue_up, patient, turn, delay, jitter, faults, mtu, nat, udp_blocked }
}

/// The relay's: in a data centre.
#[must_use]
pub fn relay(rate: u64) -> Link {
    Link {
        up: rate,
        down: rate,
        queue: 4 << 20,
        queue_up: 4 << 20,
        patient: true,
        turn: Duration::ZERO,
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
        let poor = all(UPLOAD_POOR).iter().sum::<u64>() / 40_000;
        assert!((57..63).contains(&poor), "{poor}");
        let half = all(UPLOAD_HALF);
        assert!((145..155).contains(&(half.iter().sum::<u64>() / 40_000)));
        assert!(half[19_000] == 0 && half[21_000] > 0);
        let mobile = all(UPLOAD_MOBILE).iter().sum::<u64>() / 40_000;
        assert!((77..83).contains(&mobile), "{mobile}");
        assert!(all(DOWNLOAD_MOBILE)[0] * NARROW / 100 >= 125, "enough to watch");
        let delay = all(DELAY);
        assert!((38_000..42_000).contains(&delay[20_000]), "{}", delay[20_000]);
        assert!(all(DOWNLOAD)[0] >= 250);
        let mut dice = Dice::new(2, "test", 0);
        let links: Vec<Link> =
            (0..1_000).map(|_| peer(2_000_000, &HOMES, Faults::default(), &mut dice)).collect();
        let strict = links.iter().filter(|link| link.nat == NatKind::Symmetric).count();
        assert!((150..250).contains(&strict), "{strict}");
        assert!(links.iter().all(|link| link.up >= 200_000 && link.down >= 5_000_000));
        let links = (0..1_000).map(|_| peer(2_000_000, &STRICT, Faults::default(), &mut dice));
        let strict = links.filter(|link| link.nat == NatKind::Symmetric).count();
        assert!((760..840).contains(&strict), "{strict}");
    }
}
