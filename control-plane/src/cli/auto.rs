//! `edgewright auto`: registers a data set, searches, trains and quantises within a time, and says what came out.

use super::{Failure, Outcome, client::Client, datasets::ReadingArgs, output::plain, searches};
use crate::app::{
    datasets::NewDataset,
    jobs::{Effort, NewSearch},
};
use clap::Args;
use control_core::entity::{Dataset, Job};
use shared::{
    BoardId, DatasetId, ModelName,
    job::{Compression, Reading, SearchMethod},
};
use std::path::{Path, PathBuf};

/// What is to be made of what.
#[derive(Debug, Args)]
pub struct AutoArgs {
    /// The data set on the server's machine: a folder, FOLDER/NAME for UCR and .ts files, or a .csv, .txt, .jsonl or
    /// .json file
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// The board whose limits the model keeps
    #[arg(long)]
    board: BoardId,
    /// The time that it may take, such as 30m
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = searches::seconds)]
    budget: u32,
    /// Name of the model; as the data set where not given
    #[arg(long)]
    model: Option<ModelName>,
    /// Train so many wider networks first, and learn from their answers too
    #[arg(long, value_name = "N")]
    teachers: Option<u32>,
    /// How the network is made small: int8 by calibration alone, prune, low-rank, adaptive-rounding, quantisation-aware,
    /// fp16, or auto for the best sequence of these
    #[arg(long, value_name = "WAY", default_value = "auto")]
    compress: Compression,
    /// How many of the right answers compression may cost, in percent; 1 where not given
    #[arg(long, value_name = "PERCENT", value_parser = searches::permille)]
    accuracy_loss: Option<u32>,
    /// The same seed gives the same model, as far as the time holds the same number of steps
    #[arg(long)]
    seed: Option<u64>,
}

pub(super) fn run(args: &AutoArgs, client: &Client) -> Outcome {
    let path = std::path::absolute(&args.data)
        .map_err(|error| Failure::Usage(format!("{} is no path: {error}", args.data.display())))?;
    let dataset = register(&path, &args.reading.reading(), client)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => dataset.id.as_str().parse().map_err(|error| {
            Failure::Usage(format!("no name for the model: {error}; give one with --model"))
        })?,
    };
    let schema = &dataset.schema;
    eprintln!(
        "{}: {} classes, samples {:?}, {} to train, {} to test",
        dataset.id,
        schema.labels.len(),
        schema.shape,
        schema.train_count,
        schema.test_count
    );
    schema.remarks.iter().for_each(|remark| eprintln!("  {}", plain(remark, false)));
    let effort = Effort {
        seed: args.seed,
        seconds: Some(args.budget),
        teachers: args.teachers,
        compress: Some(args.compress),
        accuracy_loss_permille: args.accuracy_loss,
        ..Effort::default()
    };
    let (board, method) = (args.board.clone(), SearchMethod::default());
    let new = NewSearch { dataset: dataset.id, board, model, method, space: None, effort };
    let job: Job = client.post("/searches", &new)?;
    let ended = searches::wait_for(client, job)?;
    let version = ended.version.clone();
    searches::finish(client, ended, false)?;
    if let Some(version) = version {
        eprintln!("next: edgewright rollout create --version {version} --wave 1 --wave 100%");
    }
    Ok(())
}

/// The data set at `path`, under the id that it has already, or else under one made of its name. One whose files have
/// changed since, or that are read in another way, is another data set.
fn register(path: &Path, reading: &Reading, client: &Client) -> Result<Dataset, Failure> {
    let post = |id| {
        let new = NewDataset { id, path: path.to_owned(), format: None, reading: reading.clone() };
        client.post("/datasets", &new)
    };
    let known: Vec<Dataset> = super::all(client, "/datasets", "")?;
    let same = known.iter().find(|dataset| dataset.path == path && dataset.schema.reading == *reading);
    match same.map(|dataset| post(dataset.id.clone())) {
        Some(Err(Failure::Usage(_))) | None => post(free_id(path, &known)?),
        Some(answer) => answer,
    }
}

/// The file name in the letters of an id; with a number behind it where another data set has it.
fn free_id(path: &Path, known: &[Dataset]) -> Result<DatasetId, Failure> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let name = name.trim_matches('-');
    let taken = |id: &str| known.iter().any(|dataset| dataset.id.as_str() == id);
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let id = std::iter::once(name.to_owned()).chain(numbered).find(|id| !taken(id)).unwrap_or_default();
    id.parse().map_err(|_| {
        Failure::Usage(format!(
            "{} gives no name for a data set: register it with `edgewright dataset add` first",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_from_the_last_part_of_the_path() {
        let id = |path: &str| free_id(Path::new(path), &[]).map(|id| id.to_string());
        assert_eq!(id("/data/mnist"), Ok("mnist".to_owned()));
        assert_eq!(id("/data/ucr/FordA"), Ok("forda".to_owned()));
        assert_eq!(id("/data/my photos"), Ok("my-photos".to_owned()));
        let known = |id: &str| -> Dataset {
            serde_json::from_value(serde_json::json!({
                "id": id,
                "path": "/elsewhere",
                "schema": {
                    "format": "idx",
                    "task": "image_classification",
                    "digest": "0".repeat(64),
                    "shape": [1, 8, 8],
                    "labels": ["a", "b"],
                    "train_count": 2,
                    "test_count": 2,
                },
                "registered_at": 0,
            }))
            .unwrap()
        };
        let taken = [known("mnist"), known("mnist-2")];
        assert_eq!(free_id(Path::new("/data/mnist"), &taken).unwrap().as_str(), "mnist-3");
        assert!(matches!(id("/"), Err(Failure::Usage(_))));
        assert!(matches!(id("/data/-"), Err(Failure::Usage(_))));
    }
}
