//! Latencies and the JSON that they are told in.

use std::fmt::{Display, Write};

use hdrhistogram::Histogram;
use quorate_engine::Failure;

use crate::ask::Answer;

/// Longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 600_000_000_000;

/// An empty histogram of nanoseconds, exact to three digits. Fails with `Internal`.
pub fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|error| Failure::internal(error.to_string()))
}

/// What is told of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Half were no longer.
    pub p50_us: f64,
    /// 99 of 100 were no longer.
    pub p99_us: f64,
    /// 999 of 1,000 were no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let us = |ns: u64| ns as f64 / 1_000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Latency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: us(histogram.max()) }
    }

    /// Puts it into an answer.
    pub fn tell(self, answer: Answer) -> Answer {
        answer.with("p50", self.p50_us).with("p99", self.p99_us).with("p999", self.p999_us).with("max", self.max_us)
    }

    /// Reads it back. Fails with `Invalid`.
    pub fn read(answer: &Answer) -> Result<Latency, Failure> {
        Ok(Latency {
            p50_us: answer.number("p50")?,
            p99_us: answer.number("p99")?,
            p999_us: answer.number("p999")?,
            max_us: answer.number("max")?,
        })
    }
}

impl Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs", self.p50_us, self.p99_us, self.max_us)
    }
}

/// A JSON object in the making.
#[derive(Default)]
pub struct Json(String);

impl Json {
    /// A number, or JSON that is there already.
    pub fn raw(mut self, name: &str, value: impl Display) -> Json {
        let comma = if self.0.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{comma}\"{name}\": {value}");
        self
    }

    /// A string of plain characters.
    pub fn text(self, name: &str, value: &str) -> Json {
        self.raw(name, format_args!("\"{value}\""))
    }

    /// The four figures of a latency.
    pub fn latency(self, latency: &Latency) -> Json {
        let Latency { p50_us, p99_us, p999_us, max_us } = latency;
        self.raw("p50_us", format_args!("{p50_us:.1}"))
            .raw("p99_us", format_args!("{p99_us:.1}"))
            .raw("p999_us", format_args!("{p999_us:.1}"))
            .raw("max_us", format_args!("{max_us:.1}"))
    }

    /// The object.
    pub fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = histogram().unwrap();
        (1..=100u64).for_each(|us| histogram.record(us * 1_000).unwrap());
        let latency = Latency::of(&histogram);
        let close = |found: f64, meant: f64| (found - meant).abs() < meant / 500.0;
        assert!(
            close(latency.p50_us, 50.0)
                && close(latency.p99_us, 99.0)
                && close(latency.p999_us, 100.0)
                && close(latency.max_us, 100.0),
            "{latency:?}"
        );
        assert_eq!(Latency::read(&latency.tell(Answer::default())).unwrap(), latency);
        let json = Json::default()
            .text("bench", "floor")
            .latency(&Latency { p50_us: 1.0, p99_us: 2.25, p999_us: 2.5, max_us: 3.0 })
            .end();
        assert_eq!(json, r#"{"bench": "floor", "p50_us": 1.0, "p99_us": 2.2, "p999_us": 2.5, "max_us": 3.0}"#);
    }
}
