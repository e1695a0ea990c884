//! SVG plots of a run. Pure, except for the files that it writes.

use std::path::Path;

use plotters::prelude::*;

use crate::support::error::{Context as _, Error, Result};
use crate::table::Run;

/// Writes the plots for which the run has lines. Returns their names.
pub fn write(run: &Run, stem: &str, directory: &Path) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for (line, title, unit) in PLOTS {
        let curves: Vec<Curve<'_>> = run
            .outcomes
            .iter()
            .filter_map(|(candidate, outcome)| {
                Some(Curve {
                    name: candidate,
                    colour: colour(candidate),
                    points: outcome.lines.get(line)?,
                })
            })
            .collect();
        let limit = run
            .outcomes
            .values()
            .find_map(|outcome| outcome.lines.get(&format!("{line}_limit")));
        if curves.iter().all(|curve| curve.points.len() < 2) {
            continue;
        }
        let file = format!("{stem}-{line}.svg");
        let title = format!("{}, N = {}: {title}", run.scenario, run.n);
        draw(&directory.join(&file), &title, unit, &curves, limit)
            .context(format!("the plot {file}"))?;
        written.push(file);
    }
    Ok(written)
}

/// Name of the line, title, and unit.
const PLOTS: [(&str, &str, &str); 3] = [
    ("ready", "edges Ready over time", "edges"),
    ("gone", "edges gone over time", "edges"),
    (
        "joins",
        "JoinSecurityGroup calls in each minute, answered or rejected",
        "calls in this minute so far",
    ),
];

struct Curve<'a> {
    name: &'a str,
    colour: RGBColor,
    points: &'a [(f64, f64)],
}

fn draw(
    file: &Path,
    title: &str,
    unit: &str,
    curves: &[Curve<'_>],
    limit: Option<&Vec<(f64, f64)>>,
) -> Result<()> {
    let all = || {
        curves
            .iter()
            .flat_map(|curve| curve.points)
            .chain(limit.into_iter().flatten())
    };
    let right = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = all().map(|(_, y)| *y).fold(1.0, f64::max) * 1.05;
    let failed = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let area = SVGBackend::new(file, (800, 400)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(unit)
        .max_light_lines(0)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()
        .map_err(|error| failed(&error))?;
    if let Some(limit) = limit {
        chart
            .draw_series(LineSeries::new(limit.iter().copied(), GREY.stroke_width(1)))
            .map_err(|error| failed(&error))?
            .label("limit")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], GREY));
    }
    for curve in curves {
        let colour = curve.colour;
        chart
            .draw_series(LineSeries::new(
                curve.points.iter().copied(),
                colour.stroke_width(2),
            ))
            .map_err(|error| failed(&error))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(GREY)
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// One graph of a picture with several.
pub struct Graph {
    pub title: String,
    /// `s`, `bytes` or `short`, which is a plain number.
    pub unit: String,
    /// Name and points (seconds, value) of each line.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Draws all graphs into one picture, three in a row, over this many seconds.
pub fn grid(file: &Path, seconds: f64, graphs: &[Graph]) -> Result<()> {
    let rows = graphs.len().div_ceil(COLUMNS);
    let height = u32::try_from(rows)? * HEIGHT;
    let failed = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    for (graph, cell) in graphs.iter().zip(area.split_evenly((rows, COLUMNS))) {
        let values = graph.curves.iter().flat_map(|(_, points)| points);
        let top = values.map(|(_, value)| *value).fold(0.0, f64::max);
        let top = if top > 0.0 { top * 1.1 } else { 1.0 };
        let unit = if graph.unit == "short" {
            String::new()
        } else {
            format!(", {}", graph.unit)
        };
        let mut chart = ChartBuilder::on(&cell)
            .caption(format!("{}{unit}", graph.title), ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..seconds, 0.0..top)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|value| format!("{value:.0} s"))
            .y_label_formatter(&|value| short(*value))
            .draw()
            .map_err(|error| failed(&error))?;
        for (number, (name, points)) in graph.curves.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    colour.stroke_width(2),
                ))
                .map_err(|error| failed(&error))?
                .label(name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2))
                });
        }
        if !graph.curves.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .label_font(("sans-serif", 10))
                .background_style(WHITE.mix(0.7))
                .draw()
                .map_err(|error| failed(&error))?;
        }
    }
    area.present().map_err(|error| failed(&error))
}

const COLUMNS: usize = 3;
const WIDTH: u32 = 1_380;
const HEIGHT: u32 = 240;

/// A number with a letter for thousands, millions and thousand millions.
fn short(value: f64) -> String {
    let (scaled, letter) = match value {
        _ if value >= 1e9 => (value / 1e9, "G"),
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if scaled >= 10.0 || scaled == 0.0 {
        0
    } else {
        2
    };
    format!("{scaled:.digits$}{letter}")
}

fn colour(candidate: &str) -> RGBColor {
    match candidate {
        "ours" => RGBColor(0, 90, 181),
        "textbook" => RGBColor(220, 50, 32),
        _ => RGBColor(120, 120, 120),
    }
}

const GREY: RGBColor = RGBColor(120, 120, 120);
