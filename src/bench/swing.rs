//! Whether a figure that should have found its place swings.

/// A figure has turned when it has gone back by more than this share of its last extreme.
pub const BAND: f64 = 0.2;

/// More turns than this are a wave.
const TURNS_MAX: usize = 2;

/// How a figure swung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swing {
    /// Changes of its direction, where each way was longer than [`BAND`].
    pub turns: usize,
}

impl Swing {
    /// Whether it is a wave, not one disturbance.
    #[must_use]
    pub fn oscillates(self) -> bool {
        self.turns > TURNS_MAX
    }
}

/// How the figure with these `values` swung. Ways shorter than [`BAND`] are noise.
#[must_use]
pub fn of(values: &[f64]) -> Swing {
    let Some(first) = values.first().copied() else { return Swing::default() };
    // The extremes since the last turn; before the first way there is no direction.
    let (mut low, mut high, mut rises, mut turns) = (first, first, None, 0);
    for value in values.iter().copied() {
        (low, high) = (low.min(value), high.max(value));
        let up = value > low * (1.0 + BAND);
        let down = value < high / (1.0 + BAND);
        let rising = match rises {
            Some(true) if down => false,
            Some(false) if up => true,
            None if up || down => up,
            _ => continue,
        };
        turns += usize::from(rises.is_some());
        rises = Some(rising);
        (low, high) = (value, value);
    }
    Swing { turns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_and_one_way_are_no_turns() {
        for values in [
            &[][..],
            &[5.0],
            &[10.0, 11.0, 9.5, 10.5, 9.5, 11.0],
            &[1.0, 2.0, 4.0, 8.0, 16.0, 15.0, 16.0],
            &[16.0, 8.0, 4.0, 4.4, 4.0],
        ] {
            assert_eq!(of(values).turns, 0, "{values:?}");
        }
    }

    #[test]
    fn a_disturbance_is_two_turns_at_most_and_a_wave_is_more() {
        assert_eq!(of(&[10.0, 20.0, 10.0]).turns, 1);
        let disturbed = of(&[10.0, 10.0, 15.0, 20.0, 15.0, 10.0, 10.0, 11.0]);
        assert!(disturbed.turns <= 2 && !disturbed.oscillates());
        let wave: Vec<f64> = (0..40).map(|n| 20.0 + 8.0 * f64::from(n).sin()).collect();
        assert!(of(&wave).oscillates(), "{:?}", of(&wave));
        let small: Vec<f64> = (0..40).map(|n| 20.0 + 1.5 * f64::from(n).sin()).collect();
        assert_eq!(of(&small).turns, 0);
    }

    #[test]
    fn a_slow_way_counts_from_its_last_extreme() {
        // Up in small steps, then down in small steps: one turn.
        let up = (0..20).map(|n| 10.0 + f64::from(n));
        let down = (0..20).map(|n| 30.0 - f64::from(n));
        assert_eq!(of(&up.chain(down).collect::<Vec<_>>()).turns, 1);
    }
}
