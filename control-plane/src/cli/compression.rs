//! The tables of how a model became small.

use super::output::{bytes, table};
use shared::job::{CompressionReport, SequenceReport, StepReport};

/// One row a step; behind them the sequences that were tried, where there were any.
pub(super) fn tables(report: &CompressionReport) -> String {
    let head =
        ["step", "size", "weights", "operations", "accuracy", "us ort", "us tract", "nodes on integers"];
    let mut text = format!("\n{}\n", table(&head, report.steps.iter().map(step)));
    if !report.tried.is_empty() {
        let head = ["sequence", "INT8 size", "operations", "us on board", "held back", "taken"];
        text.push_str(&format!("\n{}\n", table(&head, report.tried.iter().map(sequence))));
    }
    text
}

fn step(step: &StepReport) -> Vec<String> {
    let kernels = step.kernels;
    vec![
        step.step.clone(),
        bytes(step.bytes),
        step.parameters.to_string(),
        step.macs.to_string(),
        format!("{:.4}", step.accuracy),
        format!("{:.0}", step.us_ort),
        step.us_tract.map(|us| format!("{us:.0}")).unwrap_or_default(),
        format!("{} of {}", kernels.integer, kernels.integer + kernels.float),
    ]
}

fn sequence(tried: &SequenceReport) -> Vec<String> {
    let known = tried.bytes > 0;
    let figure = |text: String| if known { text } else { String::new() };
    vec![
        tried.sequence.clone(),
        figure(bytes(tried.bytes)),
        figure(tried.macs.to_string()),
        figure(tried.us.to_string()),
        figure(format!("{:.4}", tried.accuracy)),
        tried.refused.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::job::KernelReport;

    #[test]
    fn a_person_reads_what_each_step_is_and_why_a_sequence_was_not_taken() {
        let step = StepReport {
            step: "INT8, calibrated by mse".to_owned(),
            parameters: 1200,
            bytes: 4096,
            macs: 34_000,
            accuracy: 0.98765,
            us_ort: 41.7,
            us_tract: None,
            kernels: KernelReport { integer: 7, float: 1 },
        };
        let tried = SequenceReport {
            sequence: "low rank of 90 % energy".to_owned(),
            bytes: 0,
            macs: 0,
            us: 0,
            accuracy: 0.0,
            refused: Some("it changes nothing".to_owned()),
        };
        let mut report = CompressionReport { steps: vec![step], tried: Vec::new(), seconds: 1.0 };
        let text = tables(&report);
        for part in ["INT8, calibrated by mse", "4 KiB", "34000", "0.9877", "42", "7 of 8"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("sequence"), "{text}");
        report.tried.push(tried);
        assert!(tables(&report).contains("no: it changes nothing"), "{}", tables(&report));
    }
}
