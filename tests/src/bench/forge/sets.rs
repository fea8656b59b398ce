//! The data sets of the bench, each with the budget that it is given and the goal that it is held to.

use crate::harness;
use anyhow::{Context, Result, ensure};
use shared::{
    job::{Budget, DataFormat, DatasetRef, Reading},
    manifest::Task,
    space::SearchSpace,
};
use std::path::PathBuf;

/// One data set.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: &'static str,
    /// In the cache's `data` folder; a folder, or FOLDER/NAME.
    pub place: &'static str,
    pub format: DataFormat,
    /// The label of what is normal, where the others are to be found.
    pub normal: Option<&'static str>,
    pub budget: Budget,
    /// Name of the space that is searched; the usual one where not given.
    pub space: Option<&'static str>,
    /// Share of right answers of the INT8 model on the test split, 0 to 1; where anomalies are to be found the AUROC; 0 where
    /// references say what is aimed for.
    pub goal: f64,
    /// Size of the INT8 model.
    pub bytes_goal: Option<u64>,
    pub against: Against,
}

/// What the results are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The goal alone.
    Goal,
    /// xz and zstd on the text that is held out: a model shall need fewer bits for each character than xz.
    Compressors,
    /// A linear model of n-grams on the same split, in accuracy and slot F1.
    Linear,
}

impl Set {
    /// Where it lies.
    pub fn path(&self) -> Result<PathBuf> {
        Ok(harness::cache()?.join("data").join(self.place))
    }

    /// The same for a job.
    pub fn reference(&self) -> Result<DatasetRef> {
        let reading = Reading { normal: self.normal.map(str::to_owned), label_column: None };
        Ok(DatasetRef { path: self.path()?, format: self.format, digest: None, reading })
    }

    /// What is searched, for a job.
    pub fn space(&self) -> Result<Option<SearchSpace>> {
        let Some(name) = self.space else { return Ok(None) };
        let text = SearchSpace::built_in_text(name).with_context(|| format!("{name} is no space"))?;
        Ok(Some(SearchSpace::from_toml(text, name)?))
    }
}

/// Every data set, or those that are named.
///
/// # Errors
/// A name that is none.
pub fn chosen(names: &[String]) -> Result<Vec<Set>> {
    let all = all();
    for name in names {
        let known: Vec<&str> = all.iter().map(|set| set.name).collect();
        ensure!(known.contains(&name.as_str()), "--set {name} is none of {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|set| names.is_empty() || names.iter().any(|name| name == set.name)).collect())
}

fn all() -> Vec<Set> {
    let budget = |search_batch, search_steps, train_epochs, channels| Budget {
        search_steps,
        search_batch,
        train_epochs,
        channels,
        cells: 3,
        nodes: 2,
        ..Budget::quick(Task::ImageClassification)
    };
    let image = |train_epochs, channels| budget(64, 200, train_epochs, channels);
    let series = |search_steps, train_epochs, channels| budget(32, search_steps, train_epochs, channels);
    let text = |search_steps, train_epochs, channels| budget(32, search_steps, train_epochs, channels);
    let ucr = DataFormat::UcrTsv;
    let against = Against::Goal;
    let set = |name, place, format, budget, goal| Set {
        name,
        place,
        format,
        normal: None,
        budget,
        space: None,
        goal,
        bytes_goal: None,
        against,
    };
    vec![
        set(
            "italy-power-demand",
            "aeon/ItalyPowerDemand/ItalyPowerDemand",
            DataFormat::Ts,
            series(200, 300, 16),
            0.965,
        ),
        set("freezer-regular-train", "ucr/FreezerRegularTrain", ucr, series(200, 200, 16), 0.995),
        set("cricket-x", "ucr/CricketX", ucr, series(300, 300, 24), 0.82),
        set("ford-a", "ucr/FordA", ucr, series(300, 60, 16), 0.955),
        set("mnist", "mnist", DataFormat::Idx, image(8, 8), 0.993),
        Set {
            bytes_goal: Some(150_000),
            space: Some("image-fine"),
            ..set("fashion-mnist", "fashion-mnist", DataFormat::Idx, image(30, 8), 0.94)
        },
        Set {
            normal: Some("0"),
            ..set("shuttle", "shuttle/shuttle.csv.gz", DataFormat::Csv, budget(64, 200, 20, 8), 0.99)
        },
        Set {
            against: Against::Linear,
            ..set("home-assistant", "home-assistant/en", DataFormat::IntentJson, text(400, 40, 32), 0.0)
        },
        Set {
            against: Against::Compressors,
            bytes_goal: Some(1_000_000),
            ..set("shakespeare", "shakespeare", DataFormat::Text, text(600, 4, 40), 0.0)
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_is_valid_and_an_unknown_name_is_refused_with_the_known_ones() {
        for set in chosen(&[]).unwrap() {
            set.budget.validate().unwrap();
            set.space().unwrap();
        }
        assert_eq!(chosen(&["mnist".to_owned()]).unwrap().len(), 1);
        let error = chosen(&["moon".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("--set moon is none of italy-power-demand, "), "{error}");
    }
}
