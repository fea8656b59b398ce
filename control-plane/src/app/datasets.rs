//! Registering and finding data sets.

use super::{App, Error, Page, Result, now, unknown};
use control_core::entity::Dataset;
use serde::{Deserialize, Serialize};
use shared::{
    DatasetId,
    job::{DataFormat, Reading},
};
use std::path::PathBuf;

/// A data set to register.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDataset {
    pub id: DatasetId,
    /// On the machine of the control plane; a folder, for the pair formats also `FOLDER/NAME`.
    pub path: PathBuf,
    /// Found out where it is not given.
    #[serde(default)]
    pub format: Option<DataFormat>,
    /// What its files do not say.
    #[serde(default, skip_serializing_if = "Reading::is_default")]
    pub reading: Reading,
}

impl App {
    /// Has the forge read the data set and registers it.
    pub async fn add_dataset(&self, new: NewDataset) -> Result<Dataset> {
        if !new.path.is_absolute() {
            return Err(Error::Invalid(format!("path {} is not absolute", new.path.display())));
        }
        let schema = self.forge.inspect(&new.path, new.format, &new.reading).await?;
        let dataset = Dataset { id: new.id, path: new.path, schema, registered_at: now() };
        self.store.add_dataset(&dataset).await?;
        Ok(dataset)
    }

    /// One data set; the error names those that are near.
    pub async fn dataset(&self, id: &DatasetId) -> Result<Dataset> {
        match self.store.dataset(id).await? {
            Some(dataset) => Ok(dataset),
            None => {
                let known = self.store.datasets(&Page::default()).await?;
                let known = known.iter().map(|dataset| dataset.id.as_str());
                Err(Error::NotFound(unknown("data set", id.as_str(), known, "edgewright dataset list")))
            }
        }
    }

    /// Data sets by id.
    pub async fn datasets(&self, page: &Page) -> Result<Vec<Dataset>> {
        Ok(self.store.datasets(page).await?)
    }
}
