//! Plots as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use xbond_tests::figures::{Distribution, Timeline, quantile};

const WIDTH: u32 = 900;
const FONT: &str = "sans-serif";
/// Distinguishable by brightness alone.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x44, 0x44, 0x44),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x9f, 0x40),
    RGBColor(0x9a, 0xd0, 0xf5),
    RGBColor(0xb0, 0x30, 0x60),
];

/// A group of bars: a common label, and the name and value of each.
pub struct Bars {
    pub label: String,
    pub bars: Vec<(String, f64)>,
}

/// Draws bars in groups, one group below the other.
///
/// # Errors
/// The file cannot be written.
pub fn bars(path: &Path, title: &str, unit: &str, groups: &[Bars]) -> Result<()> {
    let most = groups.iter().flat_map(|group| &group.bars).map(|(_, value)| *value).fold(0.0, f64::max);
    let count: usize = groups.iter().map(|group| group.bars.len() + 1).sum();
    let height = 110 + 20 * count as u32;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(drawn)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(10)
        .build_cartesian_2d(0.0..most * 1.3, 0.0..count as f64)
        .map_err(drawn)?;
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc(unit).draw().map_err(drawn)?;
    let mut top = count as f64;
    for group in groups {
        let text = |words: String, at: (f64, f64), size: i32| Text::new(words, at, (FONT, size).into_font());
        chart.draw_series([text(group.label.clone(), (0.0, top - 0.15), 13)]).map_err(drawn)?;
        top -= 1.0;
        for (index, (name, value)) in group.bars.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let bar = Rectangle::new([(0.0, top - 0.1), (*value, top - 0.9)], colour.filled());
            chart.draw_series([bar]).map_err(drawn)?;
            let words = format!("{name}: {}", super::record::number(*value));
            chart.draw_series([text(words, (value + most * 0.01, top - 0.2), 12)]).map_err(drawn)?;
            top -= 1.0;
        }
    }
    area.present().map_err(drawn)
}

/// Draws the packets that arrived in each millisecond or so around a failover, a line for each failover.
///
/// # Errors
/// The file cannot be written.
pub fn timelines(path: &Path, title: &str, timelines: &[Timeline]) -> Result<()> {
    let from = timelines.iter().map(|line| line.from_ms).fold(f64::MAX, f64::min);
    let end = |line: &Timeline| line.from_ms + line.bucket_ms * line.packets.len() as f64;
    let to = timelines.iter().map(end).fold(f64::MIN, f64::max);
    let most = timelines.iter().flat_map(|line| &line.packets).max().copied().unwrap_or(0);
    let area = SVGBackend::new(path, (WIDTH, 380)).into_drawing_area();
    area.fill(&WHITE).map_err(drawn)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(from..to, 0.0..f64::from(most) * 1.1 + 1.0)
        .map_err(drawn)?;
    chart.configure_mesh().x_desc("ms after the event").y_desc("packets received").draw().map_err(drawn)?;
    for (index, line) in timelines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        // Draws steps: each bucket is a horizontal line of its width.
        let steps = line.packets.iter().enumerate().flat_map(|(bucket, &packets)| {
            let start = line.from_ms + bucket as f64 * line.bucket_ms;
            [(start, f64::from(packets)), (start + line.bucket_ms, f64::from(packets))]
        });
        let series = chart.draw_series(LineSeries::new(steps, colour.stroke_width(2))).map_err(drawn)?;
        series
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(drawn)?;
    area.present().map_err(drawn)
}

/// Draws every value of each distribution as a point of its row, with its median, on a logarithmic scale.
///
/// # Errors
/// The file cannot be written.
pub fn distributions(path: &Path, title: &str, unit: &str, rows: &[Distribution]) -> Result<()> {
    // Smaller values are drawn at the left edge.
    const LEAST: f64 = 0.01;
    let most = rows.iter().flat_map(|row| &row.values).copied().fold(LEAST * 10.0, f64::max);
    let area = SVGBackend::new(path, (WIDTH, 110 + 34 * rows.len() as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(drawn)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(10)
        .build_cartesian_2d((LEAST..most * 2.0).log_scale(), 0.0..rows.len() as f64)
        .map_err(drawn)?;
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_desc(unit).draw().map_err(drawn)?;
    for (index, row) in rows.iter().enumerate() {
        let middle = rows.len() as f64 - index as f64 - 0.7;
        let points = row
            .values
            .iter()
            .map(|value| Circle::new((value.max(LEAST), middle), 3, COLOURS[1].mix(0.35).filled()));
        chart.draw_series(points).map_err(drawn)?;
        let mut sorted = row.values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let mark = [(median.max(LEAST), middle - 0.2), (median.max(LEAST), middle + 0.2)];
        chart.draw_series([PathElement::new(mark, COLOURS[4].stroke_width(2))]).map_err(drawn)?;
        let words = format!("{}: median {} of {}", row.name, super::record::number(median), sorted.len());
        chart
            .draw_series([Text::new(words, (LEAST, middle + 0.6), (FONT, 12).into_font())])
            .map_err(drawn)?;
    }
    area.present().map_err(drawn)
}

/// Converts an error: plotters' errors borrow from the drawing.
fn drawn(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(draw: impl Fn(&Path) -> Result<()>) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plot.svg");
        draw(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_bar_is_drawn_for_each_value_and_as_long_as_it() {
        let groups = [Bars { label: "TCP".into(), bars: vec![("one".into(), 1.0), ("half".into(), 0.5)] }];
        let svg = drawing(|path| bars(path, "title", "ratio", &groups));
        let width = |colour: &str| {
            let bar = svg.split("<rect ").find(|rect| rect.contains(colour)).unwrap();
            bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
        };
        let ratio = width("#444444") / width("#1F77B4");
        assert!((ratio - 2.0).abs() < 0.05, "{ratio}");
        assert!(svg.contains("half: 0.500"), "{svg}");
    }

    #[test]
    fn every_timeline_and_distribution_is_there() {
        let line = |name: &str| Timeline {
            name: name.into(),
            from_ms: -2.0,
            bucket_ms: 1.0,
            packets: vec![5, 5, 0, 5],
        };
        let svg = drawing(|path| timelines(path, "title", &[line("none"), line("active")]));
        assert!(svg.matches("<polyline").count() >= 4, "two lines, two legends");
        assert!(svg.contains("active") && svg.contains("none"));
        let row = Distribution { name: "miimon=10".into(), unit: "ms".into(), values: vec![0.0, 3.0, 9.0] };
        let svg = drawing(|path| distributions(path, "title", "ms", std::slice::from_ref(&row)));
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("miimon=10: median 3 of 3"), "{svg}");
    }
}
