//! The networks that a search judged: accuracy against weights, and against latency.

use super::{Area, FONT, SIZE};
use plotters::prelude::*;
use shared::job::FrontEntry;

const FRONT: RGBColor = RGBColor(31, 119, 180);
const BEATEN: RGBColor = RGBColor(190, 190, 190);
const CHOSEN: RGBColor = RGBColor(214, 39, 40);
/// Left free beyond the outermost points, of what lies between them.
const MARGIN: f64 = 0.08;

/// Two charts beside each other; points of the front carry their index, what was trained has a ring.
///
/// # Errors
/// What the drawing library says.
pub fn pareto(points: &[FrontEntry]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let kib = |entry: &FrontEntry| entry.point.weight_bytes as f64 / 1024.0;
        let us = |entry: &FrontEntry| entry.point.latency_us as f64;
        let costs: [(&str, Cost<'_>); 2] = [("INT8 weights in KiB", &kib), ("estimated microseconds", &us)];
        for (area, (name, cost)) in root.split_evenly((1, 2)).iter().zip(costs) {
            chart(area, name, points, cost).map_err(|error| format!("drawing the front: {error}"))?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// What a point costs.
type Cost<'a> = &'a dyn Fn(&FrontEntry) -> f64;

fn chart(
    area: &Area<'_>,
    name: &str,
    points: &[FrontEntry],
    cost: Cost<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let accuracy = |entry: &FrontEntry| f64::from(entry.point.accuracy);
    let at = |entry: &FrontEntry| (cost(entry), accuracy(entry));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(around(points.iter().map(cost)), around(points.iter().map(accuracy)))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(5)
        .x_desc(name)
        .y_desc("accuracy, held back")
        .draw()?;
    // What was beaten lies below.
    for on_front in [false, true] {
        let colour = if on_front { FRONT } else { BEATEN };
        let some = || points.iter().filter(move |entry| entry.point.on_front == on_front);
        chart.draw_series(some().map(|entry| Circle::new(at(entry), 4, colour.filled())))?;
    }
    let chosen = points.iter().filter(|entry| entry.point.chosen);
    chart.draw_series(chosen.map(|entry| Circle::new(at(entry), 8, CHOSEN.stroke_width(2))))?;
    let named = points.iter().filter(|entry| entry.point.on_front);
    chart.draw_series(
        named.map(|entry| Text::new(format!("  {}", entry.point.index), at(entry), (FONT, 12))),
    )?;
    Ok(())
}

/// A little more than from the least to the greatest.
fn around(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * MARGIN).max(high.abs() * 1e-3).max(1e-6);
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::job::FrontPoint;

    fn entry(index: u32, accuracy: f32, on_front: bool, chosen: bool) -> FrontEntry {
        let point = FrontPoint {
            index,
            cell: "0->2 conv3".to_owned(),
            channels: 8,
            accuracy,
            weight_bytes: 1000 * u64::from(index + 1),
            latency_us: 90,
            on_front,
            chosen,
        };
        FrontEntry { point, architecture: serde_json::Value::Null }
    }

    #[test]
    fn every_point_is_drawn_in_both_charts_and_what_was_trained_has_a_ring() {
        let points = [entry(0, 0.9, true, false), entry(1, 0.8, true, true), entry(2, 0.7, false, false)];
        let svg = pareto(&points).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2 * (3 + 1));
        assert!(svg.contains("INT8 weights in KiB") && svg.contains("estimated microseconds"));
        assert!(pareto(&points[..1]).is_ok() && pareto(&[]).is_ok());
    }
}
