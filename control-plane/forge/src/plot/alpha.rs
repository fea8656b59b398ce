//! Architecture weights over the steps of a search.

use super::{Area, FONT};
use crate::history::Shares;
use plotters::prelude::*;

/// Charts beside each other.
const COLUMNS: usize = 3;
/// Width and height of one chart, and the height of the legend.
const SIZE: (u32, u32) = (300, 170);
const LEGEND: u32 = 48;
/// Room for a name in the legend.
const NAME_WIDTH: i32 = 88;
/// Colours of operations, in the order of the columns; with more operations than colours they begin again, paler.
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
];

fn colour(column: usize) -> RGBAColor {
    COLOURS[column % COLOURS.len()].mix(if column < COLOURS.len() { 1.0 } else { 0.5 })
}

/// For each edge the shares of its operations, one above the other.
///
/// # Errors
/// What the drawing library says.
pub fn alpha(shares: &Shares) -> Result<String, String> {
    let rows = shares.edges.len().div_ceil(COLUMNS).max(1);
    let width = SIZE.0 * COLUMNS as u32;
    let height = LEGEND + SIZE.1 * u32::try_from(rows).unwrap_or(1);
    let failed = |error: &dyn std::fmt::Display| format!("drawing the architecture weights: {error}");
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let (head, body) = root.split_vertically(LEGEND);
        legend(&head, &shares.operations, width).map_err(|error| failed(&error))?;
        for (index, area) in body.split_evenly((rows, COLUMNS)).iter().enumerate().take(shares.edges.len()) {
            chart(area, shares, index).map_err(|error| failed(&error))?;
        }
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

fn legend(area: &Area<'_>, operations: &[String], width: u32) -> Result<(), Box<dyn std::error::Error>> {
    let each_row = (width as i32 / NAME_WIDTH).max(1) as usize;
    for (column, name) in operations.iter().enumerate() {
        let (x, y) = (10 + (column % each_row) as i32 * NAME_WIDTH, 6 + (column / each_row) as i32 * 18);
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour(column).filled()))?;
        area.draw(&Text::new(name.clone(), (x + 16, y), (FONT, 13)))?;
    }
    Ok(())
}

fn chart(area: &Area<'_>, shares: &Shares, edge: usize) -> Result<(), Box<dyn std::error::Error>> {
    let columns = shares.operations.len();
    let (from, to) = shares.edges[edge];
    let first = shares.points.first().map_or(0, |(step, _)| *step);
    let last = shares.points.last().map_or(1, |(step, _)| *step).max(first + 1);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{from} to {to}"), (FONT, 13))
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(28)
        .build_cartesian_2d(first..last, 0f32..1f32)?;
    chart.configure_mesh().disable_mesh().x_labels(4).y_labels(3).draw()?;
    let value = |values: &[f32], column: usize| values.get(edge * columns + column).copied().unwrap_or(0.0);
    for column in 0..columns {
        // The sum of the columns below, and with this one.
        let level = |values: &[f32], upto: usize| (0..upto).map(|one| value(values, one)).sum::<f32>();
        let upper = shares.points.iter().map(|(step, values)| (*step, level(values, column + 1)));
        let lower = shares.points.iter().rev().map(|(step, values)| (*step, level(values, column)));
        let outline: Vec<(u64, f32)> = upper.chain(lower).collect();
        chart.draw_series(std::iter::once(Polygon::new(outline, colour(column).filled())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_gets_a_chart_and_every_operation_a_name() {
        let operations = ["conv3", "sep5", "skip"].map(str::to_owned).to_vec();
        let mut shares = Shares::new(vec![(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], operations);
        assert!(alpha(&shares).unwrap().starts_with("<svg"));
        for step in 1..=20u64 {
            let skip = step as f32 / 20.0;
            shares.push(step, [1.0 - skip, 0.0, skip].repeat(5));
        }
        let svg = alpha(&shares).unwrap();
        for name in ["conv3", "sep5", "skip", "0 to 2", "2 to 3"] {
            assert!(svg.contains(name), "{name} is missing");
        }
        assert_eq!(svg.matches("<polygon").count(), 15);
    }
}
