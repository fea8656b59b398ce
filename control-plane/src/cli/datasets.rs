//! `edgewright dataset`.

use super::{
    Failure, Outcome, PageArgs,
    client::Client,
    output::{ago, facts, show, table, word},
};
use crate::{api::List, app::datasets::NewDataset};
use clap::{Args, Subcommand, ValueEnum};
use control_core::entity::Dataset;
use shared::{
    DatasetId,
    job::{DataFormat, DatasetSchema, Reading},
};
use std::path::PathBuf;

/// Data sets.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Register a data set that lies on the server's machine
    Add {
        id: DatasetId,
        /// A folder; for UCR and .ts files also FOLDER/NAME; a .csv, .txt, .jsonl or .json file
        #[arg(long)]
        path: PathBuf,
        /// Found out where it is not given
        #[arg(long)]
        format: Option<Format>,
        #[command(flatten)]
        reading: ReadingArgs,
    },
    /// List them
    List(#[command(flatten)] PageArgs),
    /// Show one
    Show { id: DatasetId },
}

/// What the files of a data set do not say.
#[derive(Clone, Debug, Args)]
pub struct ReadingArgs {
    /// The label of what is normal: the model learns from samples with it alone, and finds all others
    #[arg(long, value_name = "LABEL")]
    normal: Option<String>,
    /// The column of a .csv table with the labels, by name or by number from 1; the last where not given
    #[arg(long, value_name = "COLUMN")]
    label_column: Option<String>,
}

impl ReadingArgs {
    pub(super) fn reading(&self) -> Reading {
        Reading { normal: self.normal.clone(), label_column: self.label_column.clone() }
    }
}

/// Formats as they are written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Idx,
    #[value(name = "image_folder", alias = "images")]
    ImageFolder,
    #[value(name = "ucr_tsv", alias = "tsv")]
    UcrTsv,
    Ts,
    /// .txt files
    Text,
    /// Sentences with intent and slots, one a line
    #[value(name = "intent_jsonl", alias = "intent-jsonl")]
    IntentJsonl,
    /// Templates of sentences, as Home Assistant writes them
    #[value(name = "intent_json", alias = "intent-json")]
    IntentJson,
    /// A table of numbers with a column of labels
    Csv,
}

impl From<Format> for DataFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Idx => Self::Idx,
            Format::ImageFolder => Self::ImageFolder,
            Format::UcrTsv => Self::UcrTsv,
            Format::Ts => Self::Ts,
            Format::Text => Self::Text,
            Format::IntentJsonl => Self::IntentJsonl,
            Format::IntentJson => Self::IntentJson,
            Format::Csv => Self::Csv,
        }
    }
}

pub(super) fn run(command: &DatasetCommand, client: &Client) -> Outcome {
    match command {
        DatasetCommand::Add { id, path, format, reading } => {
            let path = std::path::absolute(path)
                .map_err(|error| Failure::Usage(format!("{} is no path: {error}", path.display())))?;
            let format = format.map(Into::into);
            let new = NewDataset { id: id.clone(), path, format, reading: reading.reading() };
            let dataset: Dataset = client.post("/datasets", &new)?;
            show(client.json, &dataset, describe)
        }
        DatasetCommand::List(page) => {
            let list: List<Dataset> = page.list(client, "/datasets", "")?;
            show(client.json, &list, |list| {
                let rows = list.items.iter().map(|dataset| {
                    let schema = &dataset.schema;
                    vec![
                        dataset.id.to_string(),
                        word(&schema.task),
                        format!("{:?}", schema.shape),
                        schema.labels.len().to_string(),
                        format!("{} + {}", schema.train_count, schema.test_count),
                        dataset.path.display().to_string(),
                    ]
                });
                table(&["data set", "task", "shape", "classes", "samples", "path"], rows)
            })
        }
        DatasetCommand::Show { id } => {
            let dataset: Dataset = client.get(&format!("/datasets/{id}"))?;
            show(client.json, &dataset, describe)
        }
    }
}

fn describe(dataset: &Dataset) -> String {
    let schema = &dataset.schema;
    let mut rows = vec![
        ("data set", dataset.id.to_string()),
        ("path", dataset.path.display().to_string()),
        ("format", word(&schema.format)),
        ("task", word(&schema.task)),
        ("shape", format!("{:?}", schema.shape)),
        ("classes", schema.labels.iter().map(|label| printable(label)).collect::<Vec<_>>().join(", ")),
        ("normal", schema.reading.normal.as_deref().map(printable).unwrap_or_default()),
        ("columns", columns(schema)),
        ("samples", format!("{} to train, {} to test", schema.train_count, schema.test_count)),
        ("digest", schema.digest.to_string()),
        ("registered", ago(dataset.registered_at)),
    ];
    rows.extend(schema.remarks.iter().map(|remark| ("remark", remark.clone())));
    facts(&rows)
}

/// Columns that are shown of a table.
const COLUMNS_SHOWN: usize = 20;

fn columns(schema: &DatasetSchema) -> String {
    let shown = schema.columns.iter().take(COLUMNS_SHOWN).map(|column| printable(&column.name));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if schema.columns.len() > COLUMNS_SHOWN {
        text.push_str(&format!(", … {} in all", schema.columns.len()));
    }
    text
}

/// A label that may be any character.
fn printable(label: &str) -> String {
    label.chars().flat_map(char::escape_debug).collect()
}
