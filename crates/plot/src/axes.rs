//! Axes with round ticks: multiples of 1, 2 or 5 times a power of ten, or on a logarithmic scale the same numbers.

/// From values to a stretch of pixels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Where `low` and `high` stand.
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis over the values from `low` to `high`; what has no extent gets some.
    pub fn new(low: f64, high: f64, logarithmic: bool, from: f64, to: f64) -> Axis {
        let (mut low, mut high) = if low <= high { (low, high) } else { (high, low) };
        if !(low.is_finite() && high.is_finite()) {
            (low, high) = (0.0, 1.0);
        }
        let logarithmic = logarithmic && low > 0.0;
        if high - low <= low.abs().max(1e-300) * 1e-9 {
            let around = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - if logarithmic { low * 0.5 } else { around }, high + around);
        }
        Axis { low, high, logarithmic, from, to }
    }

    /// The same axis made a little longer, so that its ends are ticks.
    pub fn rounded(mut self, about: usize) -> Axis {
        if self.logarithmic {
            return self;
        }
        let step = step(self.high - self.low, about);
        self.low = (self.low / step + 1e-9).floor() * step;
        self.high = (self.high / step - 1e-9).ceil() * step;
        self
    }

    /// Where a value stands.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low * 1e-3) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(-0.02, 1.02) * (self.to - self.from)
    }

    /// About so many round values, with their words.
    pub fn ticks(&self, about: usize) -> Vec<(f64, String)> {
        if self.logarithmic {
            return self.logarithmic_ticks(about);
        }
        let step = step(self.high - self.low, about);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|tick| (tick as f64 * step, words(tick as f64 * step, step))).collect()
    }

    fn logarithmic_ticks(&self, about: usize) -> Vec<(f64, String)> {
        let decades = (self.high / self.low).log10();
        if decades < 0.7 {
            // Less than a factor of five: even steps read better.
            return Axis { logarithmic: false, ..self.clone() }.ticks(about + about / 2);
        }
        let factors: &[f64] = match decades {
            d if d < 1.5 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            d if d < 3.5 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = (decades / about.max(1) as f64).ceil().max(1.0) as i32;
        let exponents = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        exponents
            .filter(|exponent| exponent.rem_euclid(every) == 0)
            .flat_map(|exponent| factors.iter().map(move |factor| factor * 10f64.powi(exponent)))
            .filter(|value| (self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9)).contains(value))
            .map(|value| (value, words(value, value / 2.0)))
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that about so many steps make the length.
fn step(length: f64, about: usize) -> f64 {
    let raw = length / about.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A tick's value with as many digits as ticks that far apart need: `0.004`, `1.5`, `20k`, `3M`.
fn words(value: f64, step: f64) -> String {
    if value == 0.0 || value.abs() < step * 1e-6 {
        return "0".into();
    }
    let size = value.abs();
    for (unit, letter) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if size >= unit * 10.0 || (size >= unit && (unit > 1e3 || step >= 500.0)) {
            return format!("{}{letter}", plain(value / unit, step / unit));
        }
    }
    if size < 9.9e-4 {
        let exponent = size.log10().floor();
        return format!("{}e{exponent}", plain(value / 10f64.powf(exponent), step / 10f64.powf(exponent)));
    }
    plain(value, step)
}

fn plain(value: f64, step: f64) -> String {
    let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, logarithmic: bool, about: usize) -> Vec<String> {
        let axis = Axis::new(low, high, logarithmic, 0.0, 100.0);
        axis.ticks(about).into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 700.0, false, 7), ["0", "100", "200", "300", "400", "500", "600", "700"]);
        assert_eq!(labels(0.0, 4e-3, false, 4), ["0", "0.001", "0.002", "0.003", "0.004"]);
        assert_eq!(labels(0.0, 4e-4, false, 4), ["0", "1e-4", "2e-4", "3e-4", "4e-4"]);
        assert_eq!(labels(1.4, 3.2, false, 4), ["1.5", "2", "2.5", "3"]);
        assert_eq!(labels(0.0, 60_000.0, false, 3), ["0", "20k", "40k", "60k"]);
        assert_eq!(labels(-1.0, 1.0, false, 2), ["-1", "0", "1"]);
        assert_eq!(labels(0.01, 200.0, true, 8), ["0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(0.4, 9.0, true, 8), ["0.4", "0.5", "0.7", "1", "1.5", "2", "3", "4", "5", "7"]);
    }

    #[test]
    fn places_run_from_end_to_end() {
        let axis = Axis::new(1.0, 100.0, true, 200.0, 0.0);
        assert!((axis.place(10.0) - 100.0).abs() < 1e-9);
        let axis = Axis::new(1.3, 4.7, false, 0.0, 10.0).rounded(4);
        assert_eq!((axis.place(1.0), axis.place(5.0)), (0.0, 10.0));
        // Without extent, without numbers: still an axis.
        for (low, high) in [(2.0, 2.0), (0.0, 0.0), (f64::NAN, 1.0), (f64::INFINITY, 0.0)] {
            for logarithmic in [false, true] {
                let axis = Axis::new(low, high, logarithmic, 0.0, 10.0);
                assert!(axis.place(0.5).is_finite() && axis.ticks(4).len() < 30, "{low} {high}");
            }
        }
    }
}
