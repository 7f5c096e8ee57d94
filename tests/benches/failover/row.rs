//! A row of a table: figures of one subject, in columns.

use std::{
    fmt,
    time::{Duration, Instant},
};

use xbond_tests::{
    figures::{Distribution, Figure, Measured, Target, Timeline, quantile},
    flow::FlowReport,
};

/// One row, while it is filled.
pub struct Row {
    pub group: String,
    pub name: String,
    pub measured: Measured,
}

impl Row {
    pub fn new(group: &str, name: &str) -> Self {
        Self { group: format!("failover: {group}"), name: name.to_owned(), measured: Measured::default() }
    }

    /// Adds a column with one value.
    pub fn number(&mut self, column: &str, value: f64) {
        self.measured.figures.push(Figure::exact(&self.group, &self.name, column, value));
    }

    /// Adds a column with one value that should not exceed a limit.
    pub fn at_most(&mut self, column: &str, value: f64, most: f64) {
        let figure = Figure::exact(&self.group, &self.name, column, value);
        self.measured.figures.push(figure.with_target(Target::AtMost(most)));
    }

    /// Adds columns for a value of each repetition: least, median, p99 and most, in `unit`.
    pub fn spread(&mut self, what: &str, unit: &str, values: &[f64], most: Option<f64>) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        for (name, part) in [("min", 0.0), ("median", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let column = format!("{what} {name}, {unit}");
            match most.filter(|_| name == "max") {
                Some(most) => self.at_most(&column, quantile(&sorted, part), most),
                None => self.number(&column, quantile(&sorted, part)),
            }
        }
    }

    /// Stores every value, for a plot.
    pub fn distribution(&mut self, unit: &str, values: &[f64]) {
        let name = format!("{}, {}", self.group.trim_start_matches("failover: "), self.name);
        self.measured.distributions.push(Distribution {
            name,
            unit: unit.to_owned(),
            values: values.to_vec(),
        });
    }

    pub fn timeline(&mut self, from_ms: f64, bucket_ms: f64, packets: Vec<u32>) {
        let name = self.name.clone();
        self.measured.timelines.push(Timeline { name, from_ms, bucket_ms, packets });
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}:", self.group, self.name)?;
        for Figure { unit, value, .. } in &self.measured.figures {
            write!(f, " {unit} {};", (value * 1000.0).round() / 1000.0)?;
        }
        Ok(())
    }
}

/// Returns the longest time without an arrival after each event, up to the next one; milliseconds.
pub fn gaps(report: &FlowReport, events: &[Instant]) -> Vec<f64> {
    let starts = || events.iter().map(|&event| report.since_start(event));
    let ends = starts().skip(1).chain([Duration::MAX]);
    starts().zip(ends).map(|(from, to)| ms(report.outage_within(from..to))).collect()
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
