//! `edgewright board`.

use super::{
    Failure, Outcome,
    client::Client,
    output::{ago, bytes, facts, plain, show, table},
};
use crate::{api::List, app::profiles::NewProfile};
use clap::Subcommand;
use control_core::profile::{BoardProfile, DeviceStanding, Row};
use indicatif::{ProgressBar, ProgressStyle};
use shared::{
    BoardId, DeviceId,
    board::{Board, RuntimeName},
    latency::{LatencyModel, percent},
    profile::{Form, Workload},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Boards.
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// List them
    List,
    /// Show what is known of a board: its limits, and what it runs
    Describe { board: BoardId },
    /// Show what devices of a board measured, and how far off predictions from it are
    Show { board: BoardId },
    /// Have devices of a board measure operations and small networks; searches for it then reckon with that
    #[command(after_help = "\
Example:
  edgewright board profile raspberry-pi-4 --device cam-01 --wait")]
    Profile {
        board: BoardId,
        /// A device of the board, also one that is away; up to 8 of those that are online where none is named
        #[arg(long = "device", value_name = "ID")]
        devices: Vec<DeviceId>,
        /// Wait until all of them have answered
        #[arg(long)]
        wait: bool,
    },
}

pub(super) fn run(command: &BoardCommand, client: &Client) -> Outcome {
    match command {
        BoardCommand::List => {
            let boards: List<Board> = client.get("/boards")?;
            show(client.json, &boards, |boards| {
                let rows = boards.items.iter().map(|board| {
                    vec![
                        board.id.to_string(),
                        board.name.clone(),
                        board.target.clone(),
                        bytes(board.limits.weight_bytes_max),
                        format!("{} us", board.limits.latency_us_max),
                    ]
                });
                table(&["board", "name", "target", "weights", "latency"], rows)
            })
        }
        BoardCommand::Describe { board } => {
            let board: Board = client.get(&format!("/boards/{board}"))?;
            show(client.json, &board, known)
        }
        BoardCommand::Show { board } => {
            let profile: BoardProfile = client.get(&format!("/boards/{board}/profile"))?;
            show(client.json, &profile, describe)
        }
        BoardCommand::Profile { board, devices, wait } => {
            let new = NewProfile { devices: devices.clone() };
            let asked: BoardProfile = client.create(&format!("/boards/{board}/profile"), &new)?;
            let profile = if *wait { wait_for(client, board, devices, asked)? } else { asked };
            show(client.json, &profile, describe)
        }
    }
}

fn known(board: &Board) -> String {
    let Board { cpu, memory, limits, runtime, .. } = board;
    let runtimes = runtime.allowed.iter().map(ToString::to_string).collect::<Vec<_>>();
    let dot = if cpu.int8_dot { ", 8-bit dot product" } else { "" };
    facts(&[
        ("board", board.id.to_string()),
        ("name", board.name.clone()),
        ("target", board.target.clone()),
        (
            "processor",
            format!("{} x {} MHz, vectors of {} bits{dot}", cpu.cores, cpu.clock_mhz, cpu.vector_bits),
        ),
        ("memory", format!("{}, flash {}", bytes(memory.ram_bytes), bytes(memory.flash_bytes))),
        ("runtimes", format!("{}, threads {}", runtimes.join(" and "), runtime.threads)),
        ("weights", format!("at most {}", bytes(limits.weight_bytes_max))),
        ("activations", format!("at most {}", bytes(limits.activation_bytes_max))),
        ("operations", format!("at most {}", limits.macs_max)),
        ("latency", format!("at most {} us", limits.latency_us_max)),
    ])
}

const POLL: Duration = Duration::from_millis(500);
/// Between two lines, where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A server that is being restarted is asked again this often.
const LOST_MAX: u32 = 60;

/// Waits until those that were just asked have answered in full.
fn wait_for(
    client: &Client,
    board: &BoardId,
    named: &[DeviceId],
    mut profile: BoardProfile,
) -> Result<BoardProfile, Failure> {
    // Those that one call asks are asked at one time.
    let asked_at = profile.devices.iter().map(|device| device.asked_at).max();
    let is_asked = |device: &&DeviceStanding| {
        if named.is_empty() { Some(device.asked_at) == asked_at } else { named.contains(&device.device) }
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix:10} {bar:36} {pos:>5}/{len:<5} {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_prefix("measuring");
    let (mut lost, mut said) = (0, Instant::now());
    loop {
        let asked: Vec<_> = profile.devices.iter().filter(is_asked).collect();
        let open: Vec<&str> =
            asked.iter().filter(|device| !device.complete).map(|device| device.device.as_str()).collect();
        if open.is_empty() {
            break;
        }
        let total: u64 = asked.iter().map(|device| u64::from(device.asked)).sum();
        let done: u64 = asked.iter().map(|device| u64::from(device.measured)).sum();
        let waits = plain(&format!("waits for {}", open.join(", ")), false);
        bar.set_length(total);
        bar.set_position(done);
        if bar.is_hidden() && said.elapsed() >= LINE_EVERY {
            said = Instant::now();
            eprintln!("  {done} of {total} measured, {waits}");
        }
        bar.set_message(waits);
        std::thread::sleep(POLL);
        match client.get(&format!("/boards/{board}/profile")) {
            Ok(newer) => (profile, lost) = (newer, 0),
            Err(Failure::Failed(_)) if lost < LOST_MAX => lost += 1,
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    Ok(profile)
}

fn describe(profile: &BoardProfile) -> String {
    let devices = profile.devices.iter().map(|device| {
        let load = device.load_permille.map(|load| format!("{:.1}", f64::from(load) / 1000.0));
        vec![
            device.device.to_string(),
            format!("{} of {}", device.measured, device.asked),
            standing(device),
            device.processor.clone().unwrap_or_default(),
            load.unwrap_or_default(),
            device.received_at.map(ago).unwrap_or_default(),
        ]
    });
    let mut text = table(&["device", "measured", "", "processor", "load", "newest"], devices);
    let Some(latency) = &profile.latency else {
        return format!(
            "{text}\n\nnothing is measured for board {}; `edgewright board profile {0}` has its devices do it\n",
            profile.board
        );
    };
    text.push_str("\n\nMedian microseconds of one inference, and what is predicted:\n");
    text.push_str(&table(
        &["workload", "tract FP32", "tract INT8", "onnxruntime FP32", "onnxruntime INT8", ""],
        times(&profile.rows),
    ));
    text.push_str("\n\nPredictions, by what they were not fitted on:\n");
    let rows = latency.models.iter().map(error_row);
    text.push_str(&table(
        &[
            "runtime",
            "form",
            "over",
            "fitted on",
            "operations: median",
            "worst",
            "networks: median",
            "worst",
            "",
        ],
        rows,
    ));
    text.push_str("\n\n");
    text.push_str(&facts(&[(
        "searches",
        match &profile.refused {
            None => "reckon with this profile".to_owned(),
            Some(reason) => format!("reckon with it only as far as it goes: {reason}"),
        },
    )]));
    text
}

fn standing(device: &DeviceStanding) -> String {
    match (&device.cut_short, device.complete) {
        (Some(reason), true) => format!("ended: {reason}"),
        (None, true) => "done".to_owned(),
        (_, false) => format!("asked {}", ago(device.asked_at)),
    }
}

/// One line a workload: each column's median with the prediction behind it; `*` marks what the fit did not see.
fn times(rows: &[Row]) -> impl Iterator<Item = Vec<String>> {
    let mut lines: BTreeMap<&Workload, BTreeMap<(RuntimeName, Form), &Row>> = BTreeMap::new();
    for row in rows {
        lines.entry(&row.workload).or_default().insert((row.runtime, row.form), row);
    }
    lines.into_iter().map(|(workload, columns)| {
        let mut line = vec![workload.to_string()];
        for runtime in [RuntimeName::Tract, RuntimeName::OnnxRuntime] {
            for form in [Form::Fp32, Form::Int8] {
                line.push(columns.get(&(runtime, form)).map(|row| cell(row)).unwrap_or_default());
            }
        }
        let held_out = columns.values().any(|row| row.held_out);
        line.push(if held_out { "*" } else { "" }.to_owned());
        line
    })
}

fn cell(row: &Row) -> String {
    match (row.us, row.predicted_us) {
        (Some(us), Some(predicted)) => format!("{us:.1} ({predicted:.1})"),
        (Some(us), None) => format!("{us:.1}"),
        (None, _) => row.failed.clone().unwrap_or_else(|| "-".to_owned()),
    }
}

fn error_row(model: &LatencyModel) -> Vec<String> {
    let share = |permille: u32| format!("{} %", percent(permille));
    vec![
        model.runtime.to_string(),
        model.form.to_string(),
        model.subject().to_owned(),
        model.points.to_string(),
        share(model.operations.median_permille),
        share(model.operations.worst_permille),
        share(model.networks.median_permille),
        share(model.networks.worst_permille),
        model.check().err().map(|_| "too far off, or too little").unwrap_or_default().to_owned(),
    ]
}
