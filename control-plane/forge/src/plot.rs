//! Charts of a job, as SVG.

mod alpha;
mod pareto;

pub use alpha::alpha;
pub use pareto::pareto;

use crate::history::{Curve, History};
use plotters::{coord::Shift, prelude::*};

/// Width and height of one chart.
const SIZE: (u32, u32) = (860, 300);
const LOSS: RGBColor = RGBColor(31, 119, 180);
const ACCURACY: RGBColor = RGBColor(44, 160, 44);
const FONT: &str = "sans-serif";

/// Loss and accuracy over the steps of every stage, one chart below the other.
///
/// # Errors
/// What the drawing library says.
pub fn loss(history: &History) -> Result<String, String> {
    let teachers = history.teachers.iter().enumerate();
    let mut charts = vec![("search".to_owned(), &history.search)];
    charts.extend(teachers.map(|(index, curve)| (format!("teacher {}", index + 1), curve)));
    charts.push(("pretext".to_owned(), &history.pretext));
    charts.push(("training".to_owned(), &history.training));
    charts.retain(|(_, curve)| curve.loss.len() > 1);
    let mut svg = String::new();
    {
        let rows = charts.len().max(1);
        let height = SIZE.1 * u32::try_from(rows).unwrap_or(1);
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        for (area, (name, curve)) in root.split_evenly((rows, 1)).iter().zip(&charts) {
            chart(area, name, curve).map_err(|error| format!("drawing the loss of the {name}: {error}"))?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn chart(area: &Area<'_>, name: &str, curve: &Curve) -> Result<(), Box<dyn std::error::Error>> {
    let last = curve.loss.last().map_or(1, |(step, _)| *step).max(1);
    let high = curve.loss.iter().fold(0f32, |most, (_, loss)| most.max(*loss));
    // What a few first steps lose would flatten all that follows.
    let low = curve.loss.iter().fold(high, |least, (_, loss)| least.min(*loss));
    let margin = ((high - low) * 0.05).max(1e-6);
    let mut chart = ChartBuilder::on(area)
        .caption(name, (FONT, 16))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .right_y_label_area_size(56)
        .build_cartesian_2d(0..last, (low - margin)..(high + margin))?
        .set_secondary_coord(0..last, 0f32..1f32);
    chart.configure_mesh().light_line_style(WHITE).x_desc("step").y_desc("loss").draw()?;
    chart
        .draw_series(LineSeries::new(curve.loss.iter().copied(), &LOSS))?
        .label("loss")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], LOSS));
    if !curve.accuracy.is_empty() {
        chart.configure_secondary_axes().y_desc("accuracy").draw()?;
        chart
            .draw_secondary_series(LineSeries::new(curve.accuracy.iter().copied(), &ACCURACY))?
            .label("accuracy, held back")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], ACCURACY));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let mut curve = Curve::default();
        for step in 1..=50u32 {
            let accuracy = (step % 10 == 0).then(|| 1.0 - 1.0 / f64::from(step));
            curve.push(u64::from(step), 2.0 / f64::from(step), accuracy);
        }
        curve
    }

    #[test]
    fn every_stage_that_has_steps_gets_a_chart() {
        let history = History {
            search: curve(),
            teachers: vec![curve()],
            pretext: curve(),
            training: curve(),
            alpha: None,
        };
        let svg = loss(&history).unwrap();
        for name in ["search", "teacher 1", "pretext", "training", "accuracy, held back"] {
            assert!(svg.contains(name), "{name} is missing");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let trained = loss(&History { training: curve(), ..History::default() }).unwrap();
        assert!(!trained.contains("search") && trained.contains("training"));
    }

    #[test]
    fn nothing_and_a_loss_that_never_changes_are_drawn_too() {
        assert!(loss(&History::default()).unwrap().starts_with("<svg"));
        let mut flat = Curve::default();
        flat.push(1, 1.0, None);
        flat.push(2, 1.0, None);
        loss(&History { training: flat, ..History::default() }).unwrap();
    }
}
