//! How old the newest recoverable state was, over a day: a histogram for each hour.

/// Seconds up to which a bin reaches: fine where it matters.
const BINS: [f64; 26] = [
    1.0,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    12.0,
    15.0,
    20.0,
    30.0,
    45.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    7200.0,
    14_400.0,
    28_800.0,
    86_400.0,
    604_800.0,
    f64::INFINITY,
];
const HOURS: usize = 24;
const HOUR_MS: u64 = 3_600_000;

/// Ages of the newest state, of the last 24 hours.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    hours: [(u64, [u32; BINS.len()]); HOURS],
}

impl Ages {
    /// At `now` (milliseconds since 1970) the newest state was that old.
    pub fn add(&mut self, now: u64, seconds: f64) {
        let number = now / HOUR_MS;
        let place = usize::try_from(number % HOURS as u64).unwrap_or(0);
        let (hour, counts) = &mut self.hours[place];
        if *hour != number {
            (*hour, *counts) = (number, Default::default());
        }
        let bin = BINS.iter().position(|until| seconds <= *until).unwrap_or(BINS.len() - 1);
        counts[bin] = counts[bin].saturating_add(1);
    }

    /// The age that was not exceeded in 95 % of the last day, to the bin; `None` where nothing is known.
    pub fn p95(&self, now: u64) -> Option<f64> {
        let first = (now / HOUR_MS).saturating_sub(HOURS as u64 - 1);
        let mut sums = [0u64; BINS.len()];
        for (_, counts) in self.hours.iter().filter(|(hour, _)| *hour >= first) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += u64::from(*count));
        }
        let all: u64 = sums.iter().sum();
        let mut seen = 0;
        for (count, until) in sums.iter().zip(BINS) {
            seen += count;
            if all > 0 && seen * 100 >= all * 95 {
                return Some(if until.is_finite() { until } else { BINS[BINS.len() - 2] });
            }
        }
        None
    }
}

/// An age for people: `4.2 s`, `12 min`, `26 h`. Below two minutes it is watched closely.
pub fn age(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 72.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_the_unit_that_one_thinks_in() {
        for (seconds, text) in
            [(4.21, "4.2 s"), (15.4, "15 s"), (600.0, "10 min"), (93_600.0, "26.0 h"), (864_000.0, "10 d")]
        {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_day_is_looked_back_at() {
        let mut ages = Ages::default();
        assert_eq!(ages.p95(0), None);
        for n in 0..1000 {
            ages.add(n * 5000, if n % 10 == 0 { 50.0 } else { 4.5 });
        }
        assert_eq!(ages.p95(5_000_000), Some(60.0));
        for n in 1000..9000 {
            ages.add(n * 5000, 4.5);
        }
        assert_eq!(ages.p95(45_000_000), Some(5.0));
        assert_eq!(ages.p95(45_000_000 + 25 * HOUR_MS), None);
    }
}
