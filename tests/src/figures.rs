//! Results of benchmarks, in the form in which they are stored.

use serde::{Deserialize, Serialize};

/// Stands before the JSON of a [`Measured`], on a line of its own.
pub const RESULT: &str = "RESULT ";

/// The results of one benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub figures: Vec<Figure>,
    /// The timelines of failovers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timelines: Vec<Timeline>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distributions: Vec<Distribution>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Figures of one group are compared with each other, in a table of their own.
    pub group: String,
    pub name: String,
    pub unit: String,
    /// The median of all rounds.
    pub value: f64,
    /// Half of the rounds lie between these two.
    pub low: f64,
    pub high: f64,
    pub rounds: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// The target of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// Packets that arrived around an event, in buckets of equal length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    pub name: String,
    /// Start of the first bucket, counted from the event; negative before it.
    pub from_ms: f64,
    pub bucket_ms: f64,
    pub packets: Vec<u32>,
}

/// Repeated measurements of one quantity, for example gaps of failovers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub name: String,
    pub unit: String,
    pub values: Vec<f64>,
}

impl Figure {
    /// Returns the figure of one value for each round.
    pub fn of(group: &str, name: &str, unit: &str, rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let [low, value, high] = [0.25, 0.5, 0.75].map(|part| quantile(&sorted, part));
        let [group, name, unit] = [group, name, unit].map(str::to_owned);
        Self { group, name, unit, value, low, high, rounds: rounds.len(), target: None }
    }

    /// Returns the figure of a quantity that is counted and does not vary.
    pub fn exact(group: &str, name: &str, unit: &str, value: f64) -> Self {
        Self::of(group, name, unit, &[value])
    }

    #[must_use]
    pub fn with_target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Returns whether the target was reached; `None` without a target.
    pub fn is_reached(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtMost(most) => self.value <= most,
            Target::AtLeast(least) => self.value >= least,
        })
    }
}

impl Measured {
    /// Prints the result for the process that started this program.
    pub fn print(&self) {
        match serde_json::to_string(self) {
            Ok(json) => println!("{RESULT}{json}"),
            Err(error) => eprintln!("a result that is no JSON: {error}"),
        }
    }

    /// Parses a line that a program printed; `None` if the line is no result.
    pub fn parse(line: &str) -> Option<serde_json::Result<Self>> {
        line.strip_prefix(RESULT).map(serde_json::from_str)
    }

    pub fn add(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.timelines.extend(other.timelines);
        self.distributions.extend(other.distributions);
    }
}

/// Returns a quantile of sorted values, interpolated linearly; 0 if there are none.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len().saturating_sub(1)) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(low), Some(high)) => low + (high - low) * place.fract(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_and_the_middle_half() {
        let figure = Figure::of("g", "n", "ns", &[9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!((figure.low, figure.value, figure.high, figure.rounds), (3.0, 5.0, 7.0, 5));
        let even = Figure::of("g", "n", "ns", &[4.0, 1.0]);
        assert_eq!((even.low, even.value, even.high), (1.75, 2.5, 3.25));
        assert_eq!(Figure::of("g", "n", "ns", &[]).value, 0.0);
    }

    #[test]
    fn targets_are_reached_or_not() {
        let figure = Figure::exact("g", "n", "ns", 8.0);
        let reached = |target| figure.clone().with_target(target).is_reached();
        assert_eq!(figure.is_reached(), None);
        assert_eq!(reached(Target::AtMost(8.0)), Some(true));
        assert_eq!(reached(Target::AtMost(7.9)), Some(false));
        assert_eq!(reached(Target::AtLeast(8.1)), Some(false));
    }

    #[test]
    fn a_result_comes_back_from_its_line() {
        let figure = Figure::exact("g", "n", "ns", 8.0).with_target(Target::AtMost(9.0));
        let timeline = Timeline { name: "t".into(), from_ms: -5.0, bucket_ms: 1.0, packets: vec![3, 0] };
        let measured = Measured { figures: vec![figure], timelines: vec![timeline], distributions: vec![] };
        let line = format!("{RESULT}{}", serde_json::to_string(&measured).unwrap());
        assert_eq!(Measured::parse(&line).unwrap().unwrap(), measured);
        assert!(Measured::parse("something else").is_none());
        assert!(Measured::parse("RESULT {").unwrap().is_err());
    }
}
