//! How long each step of an operation took.

use std::time::Instant;

/// Seconds per step.
pub struct Clock {
    last: Instant,
    /// The steps so far, in order.
    pub laps: Vec<(String, f64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { last: Instant::now(), laps: Vec::new() }
    }
}

impl Clock {
    /// A step is done.
    pub fn lap(&mut self, step: &str) {
        let took = self.last.elapsed().as_secs_f64();
        self.laps.push((step.to_owned(), (took * 1000.0).round() / 1000.0));
        self.last = Instant::now();
    }
}
