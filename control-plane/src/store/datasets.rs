//! Registered data sets.

use super::{Error, Page, Reader, Result, Store, json, time};
use control_core::entity::Dataset;
use shared::DatasetId;
use sqlx::any::AnyRow;

fn read(row: &AnyRow) -> Result<Dataset> {
    let row = Reader::new("datasets", row);
    Ok(Dataset {
        id: row.parse("id", "data set id")?,
        path: row.text("path")?.into(),
        schema: row.json("schema", "schema")?,
        registered_at: row.time("registered_at")?,
    })
}

impl Store {
    /// Adds a data set. The same files under the same id again change where they lie and what is said of them; other files are
    /// a conflict.
    pub async fn add_dataset(&self, dataset: &Dataset) -> Result<()> {
        let path = dataset
            .path
            .to_str()
            .ok_or_else(|| Error::Conflict(format!("the path {} is not UTF-8", dataset.path.display())))?;
        let mut tx = self.begin().await?;
        let old = sqlx::query("SELECT * FROM datasets WHERE id = $1")
            .bind(dataset.id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(old) = old.as_ref().map(read).transpose()? {
            if old.schema.digest != dataset.schema.digest {
                return Err(Error::Conflict(format!(
                    "data set {} is registered with other files ({}); choose another id",
                    old.id,
                    old.path.display()
                )));
            }
            sqlx::query("UPDATE datasets SET path = $1, schema = $2 WHERE id = $3")
                .bind(path)
                .bind(json(&dataset.schema)?)
                .bind(dataset.id.as_str())
                .execute(&mut *tx)
                .await?;
        } else {
            sqlx::query("INSERT INTO datasets (id, path, schema, registered_at) VALUES ($1, $2, $3, $4)")
                .bind(dataset.id.as_str())
                .bind(path)
                .bind(json(&dataset.schema)?)
                .bind(time(dataset.registered_at))
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// One data set.
    pub async fn dataset(&self, id: &DatasetId) -> Result<Option<Dataset>> {
        let row = sqlx::query("SELECT * FROM datasets WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Data sets by id.
    pub async fn datasets(&self, page: &Page) -> Result<Vec<Dataset>> {
        let rows = sqlx::query("SELECT * FROM datasets WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(page.after())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }
}
