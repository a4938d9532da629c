//! The plots of the report, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::chart::SeriesLabelPosition::{LowerRight, UpperLeft};
use plotters::coord::Shift;
use plotters::prelude::*;
use quorate_engine::Failure;
use serde_json::Value;

use super::stats::{Group, Spread, groups};
use super::tables::{Picture, label, number, parts};
use crate::row::Row;

/// Okabe and Ito's colours, which most people can tell apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 60),
];
const WIDE: (u32, u32) = (960, 560);
const DOUBLE: (u32, u32) = (1360, 560);
/// The file of a plot.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What becomes of drawing.
type Drawn = Result<(), Box<dyn Error>>;

/// A line: its name, and for each x the spread of y.
struct Line {
    name: String,
    points: Vec<(f64, Spread)>,
}

/// Writes every plot that the rows give into `directory`. Fails with `Io`.
pub fn write(rows: &[Row], directory: &Path) -> Result<Vec<Picture>, Failure> {
    let mut pictures = Vec::new();
    for part in parts(rows) {
        let groups = groups(rows, part);
        let mut add = |name: &str, title: String, size, draw: &dyn Fn(&Canvas) -> Drawn| {
            let file = format!("{part}-{name}.svg");
            picture(&directory.join(&file), size, draw)?;
            pictures.push(Picture { part: part.into(), file, title });
            Ok::<(), Failure>(())
        };
        let rates = lines(&groups, |row| row.ops_per_s);
        if comparable(&rates) {
            let title = format!("{part}: operations a second by operations in flight");
            add("throughput", title.clone(), WIDE, &|area| by_n(area, &title, "operations/s", &rates, true))?;
        }
        let latencies = [lines(&groups, |row| row.p50_us), lines(&groups, |row| row.p99_us)];
        if latencies.iter().all(|lines| comparable(lines)) {
            let title = format!("{part}: latency by operations in flight");
            add("latency", title, DOUBLE, &|area| {
                let halves = area.split_evenly((1, 2));
                by_n(&halves[0], &format!("{part}: median latency"), "µs", &latencies[0], false)?;
                by_n(&halves[1], &format!("{part}: 99th percentile"), "µs", &latencies[1], false)
            })?;
        }
        let timed = rows.iter().filter(|row| row.part == part).filter_map(|row| Some((row, row.more.get("timeline")?)));
        for (at, (row, timeline)) in timed.enumerate() {
            let title = format!("{part}: {} over time", row.variant);
            let (unit, series) = over_time(timeline);
            add(&format!("timeline-{}", at + 1), title.clone(), WIDE, &|area| {
                timeline_plot(area, &title, &unit, &series)
            })?;
        }
    }
    Ok(pictures)
}

fn picture(path: &Path, size: (u32, u32), draw: &dyn Fn(&Canvas) -> Drawn) -> Result<(), Failure> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area)).and_then(|()| Ok(area.present()?));
    drawn.map_err(|error| Failure::io(path.display(), &std::io::Error::other(error.to_string())))
}

/// The lines of all groups of a part that have an N and the figure.
fn lines(groups: &[Group], of: impl Fn(&Row) -> Option<f64>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for group in groups {
        let (Some(n), Some(spread)) = (group.head().n, group.spread(&of)) else { continue };
        // Neither axis has a place for zero.
        if n == 0 || spread.least <= 0.0 {
            continue;
        }
        let name = label(group.head());
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((n as f64, spread)),
            None => lines.push(Line { name, points: vec![(n as f64, spread)] }),
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|one, other| one.0.total_cmp(&other.0)));
    lines
}

/// Whether there is a line to draw: one point says nothing.
fn comparable(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.points.len() > 1)
}

/// Least and most of `values`.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
}

/// Lines over N, both axes logarithmic, with the spread of the rounds at each point.
fn by_n(area: &Canvas, title: &str, unit: &str, lines: &[Line], low: bool) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) = bounds(points().flat_map(|(_, spread)| [spread.least, spread.most]));
    let (first, last) = bounds(points().map(|(n, _)| n.log2()));
    // Room for the legend, which takes a corner.
    let (bottom, top) = if low { (least / 3.0, most * 1.6) } else { (least / 1.6, most * 30.0) };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(86)
        .build_cartesian_2d(first - 0.3..last + 0.3, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("operations in flight")
        .y_desc(unit)
        .x_labels((last - first) as usize / 2 + 1)
        .x_label_formatter(&|x| number(x.exp2().round()))
        .y_label_formatter(&|y| number(*y))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let style = colour.stroke_width(2);
        let medians = line.points.iter().map(|(n, spread)| (n.log2(), spread.median));
        let drawn = chart.draw_series(LineSeries::new(medians.clone(), style))?.label(line.name.clone());
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(medians.map(|point| Circle::new(point, 3, colour.filled())))?;
        chart.draw_series(line.points.iter().map(|(n, spread)| {
            ErrorBar::new_vertical(n.log2(), spread.least, spread.median, spread.most, colour.filled(), 8)
        }))?;
    }
    let place = if low { LowerRight } else { UpperLeft };
    chart
        .configure_series_labels()
        .position(place)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// A timeline's unit and its lines: `{"label": unit, "series": {name: [[seconds, value], ...]}}`. What is not so is left out.
fn over_time(timeline: &Value) -> (String, Vec<Line>) {
    let unit = timeline["label"].as_str().unwrap_or_default().to_string();
    let point = |pair: &Value| {
        let value = pair[1].as_f64()?;
        Some((pair[0].as_f64()?, Spread { median: value, least: value, most: value }))
    };
    let series = timeline["series"].as_object().into_iter().flatten();
    let line = |(name, points): (&String, &Value)| {
        let points = points.as_array().into_iter().flatten().filter_map(point).collect();
        Line { name: name.clone(), points }
    };
    (unit, series.map(line).collect())
}

/// Lines over seconds, both axes linear.
fn timeline_plot(area: &Canvas, title: &str, unit: &str, lines: &[Line]) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (_, most) = bounds(points().map(|(_, spread)| spread.most));
    let (_, last) = bounds(points().map(|(at, _)| *at));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(86)
        .build_cartesian_2d(0.0..last.max(1.0), 0.0..most.max(1.0) * 1.35)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(unit)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (at, line) in lines.iter().enumerate() {
        let style = COLOURS[at % COLOURS.len()].stroke_width(2);
        let points = line.points.iter().map(|(at, spread)| (*at, spread.median));
        let drawn = chart.draw_series(LineSeries::new(points, style))?.label(line.name.clone());
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
