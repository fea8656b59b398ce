//! What a rollout would do, for people.

use crate::cli::output::{facts, moment, table};
use control_core::rollout::{Preview, Severity};

/// Waves, gates, devices and problems.
pub(super) fn describe(preview: &Preview) -> String {
    let mut text = facts(&[
        ("devices", preview.waves.iter().map(|wave| wave.devices.len()).sum::<usize>().to_string()),
        (
            "in no wave",
            if preview.left_out.is_empty() { String::new() } else { preview.left_out.len().to_string() },
        ),
        ("ends", preview.ends_at.map_or_else(|| "cannot be told".to_owned(), moment)),
    ]);
    text.push('\n');
    let waves = preview.waves.iter().map(|wave| {
        vec![
            (wave.wave + 1).to_string(),
            wave.takes.clone(),
            wave.devices.len().to_string(),
            wave.starts_at.map_or_else(|| "not".to_owned(), moment),
            if wave.approval { "once approved".to_owned() } else { String::new() },
        ]
    });
    text.push_str(&table(&["wave", "takes", "devices", "starts at the earliest", ""], waves));
    text.push_str("\n\n");
    if !preview.gates.is_empty() {
        let gates = preview.gates.iter().map(|shown| {
            let gate = &shown.gate;
            let share = |limit: Option<f64>, word: &str| limit.map(|limit| format!("{word} {limit}"));
            let limit = share(gate.min, "at least")
                .or_else(|| share(gate.max, "at most"))
                .or_else(|| share(gate.worse_by_max, "worse by at most"));
            vec![
                gate.signal.to_string(),
                limit.unwrap_or_default(),
                format!("{} good ones", shown.needed),
                format!("{} / {}", gate.false_stop, gate.false_open),
                format!("{} s, then {}", gate.wait_ms / 1000, crate::cli::output::word(&gate.then)),
            ]
        });
        let head = ["gate", "limit", "opens after", "false stop / open", "waits"];
        text.push_str(&table(&head, gates));
        text.push_str(&format!(
            "\n\nA version within all limits is stopped by a gate with a probability of at most {}.\n\n",
            preview.false_stop
        ));
    }
    let devices = preview.waves.iter().flat_map(|wave| {
        wave.devices.iter().map(|device| {
            vec![
                device.device.to_string(),
                (wave.wave + 1).to_string(),
                if device.online { "online".to_owned() } else { "offline".to_owned() },
                device.starts_at.map_or_else(String::new, moment),
                device.waits_for.clone().unwrap_or_default(),
            ]
        })
    });
    text.push_str(&table(&["device", "wave", "", "asked at the earliest", "waits"], devices));
    text.push('\n');
    for problem in &preview.problems {
        let name = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        text.push_str(&facts(&[(name, problem.text.clone())]));
    }
    text
}
