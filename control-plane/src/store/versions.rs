//! Versions of models.

use super::{Error, Page, Reader, Result, Store, json, number, time, word};
use control_core::{
    entity::{Version, VersionState},
    rollout,
};
use shared::{JobId, ModelName, ModelVersionId, VersionLabel};
use sqlx::{Any, Transaction, any::AnyRow};

fn read(row: &AnyRow) -> Result<Version> {
    let row = Reader::new("versions", row);
    let model: ModelName = row.parse("model", "model name")?;
    let version = VersionLabel { major: row.small("major")?, minor: row.small("minor")? };
    Ok(Version {
        id: row.parse("id", "version id")?,
        name: format!("{model}@{version}"),
        model,
        version,
        board: row.parse("board", "board id")?,
        dataset: row.parse_option("dataset", "data set id")?,
        state: row.word("state", "version state")?,
        bundle: row.parse("bundle", "digest")?,
        bundle_bytes: row.number("bundle_bytes")?,
        size_bytes: row.number("size_bytes")?,
        job: row.parse_option("job", "job id")?,
        parent: row.parse_option("parent", "version id")?,
        check_skipped: row.flag("check_skipped")?,
        report: row.json_option("report", "job report")?,
        files: row.json("files", "list of files")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Adds a version; a label or job that is taken is a conflict.
    pub async fn add_version(&self, version: &Version) -> Result<()> {
        let mut tx = self.begin().await?;
        let added = sqlx::query(
            "INSERT INTO versions (id, model, major, minor, board, dataset, state, bundle, bundle_bytes, size_bytes, \
             job, parent, check_skipped, report, files, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING",
        )
        .bind(version.id.to_string())
        .bind(version.model.as_str())
        .bind(i64::from(version.version.major))
        .bind(i64::from(version.version.minor))
        .bind(version.board.as_str())
        .bind(version.dataset.as_ref().map(shared::DatasetId::as_str))
        .bind(word(&version.state)?)
        .bind(version.bundle.to_string())
        .bind(number(version.bundle_bytes))
        .bind(number(version.size_bytes))
        .bind(version.job.map(|id| id.to_string()))
        .bind(version.parent.map(|id| id.to_string()))
        .bind(i64::from(version.check_skipped))
        .bind(version.report.as_ref().map(json).transpose()?)
        .bind(json(&version.files)?)
        .bind(time(version.created_at))
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Err(Error::Conflict(format!("{} is there already", version.name)));
        }
        for file in &version.files {
            sqlx::query("INSERT INTO version_files (version, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(version.id.to_string())
                .bind(file.digest.to_string())
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// One version by its id.
    pub async fn version(&self, id: ModelVersionId) -> Result<Option<Version>> {
        let row = sqlx::query("SELECT * FROM versions WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// One version by its model and label.
    pub async fn version_labelled(&self, model: &ModelName, label: VersionLabel) -> Result<Option<Version>> {
        let row = sqlx::query("SELECT * FROM versions WHERE model = $1 AND major = $2 AND minor = $3")
            .bind(model.as_str())
            .bind(i64::from(label.major))
            .bind(i64::from(label.minor))
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The version that came out of a job.
    pub async fn version_of_job(&self, job: JobId) -> Result<Option<Version>> {
        let row = sqlx::query("SELECT * FROM versions WHERE job = $1")
            .bind(job.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Versions by model, the newest first; all models or one.
    pub async fn versions(&self, model: Option<&ModelName>, page: &Page) -> Result<Vec<Version>> {
        let (after, major, minor) = last_seen(page)?;
        let rows = sqlx::query(
            "SELECT * FROM versions WHERE (CAST($1 AS TEXT) IS NULL OR model = $1) AND (model > $2 OR (model = $2 \
             AND (major < $3 OR (major = $3 AND minor < $4)))) ORDER BY model, major DESC, minor DESC LIMIT $5",
        )
        .bind(model.map(ModelName::as_str))
        .bind(after)
        .bind(major)
        .bind(minor)
        .bind(page.sql_limit())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The newest label of a model, of one major number where it is given.
    pub async fn newest_label(&self, model: &ModelName, major: Option<u32>) -> Result<Option<VersionLabel>> {
        let row = sqlx::query(
            "SELECT major, minor FROM versions WHERE model = $1 AND (CAST($2 AS BIGINT) IS NULL OR major = $2) \
             ORDER BY major DESC, minor DESC LIMIT 1",
        )
        .bind(model.as_str())
        .bind(major.map(i64::from))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = &row else { return Ok(None) };
        let row = Reader::new("versions", row);
        Ok(Some(VersionLabel { major: row.small("major")?, minor: row.small("minor")? }))
    }
}

/// The model and label of the version that was seen last, as its name says them.
fn last_seen(page: &Page) -> Result<(&str, i64, i64)> {
    let Some(name) = page.after.as_deref() else { return Ok(("", i64::MAX, i64::MAX)) };
    let label = |label: &str| label.parse::<VersionLabel>().ok();
    name.split_once('@')
        .and_then(|(model, text)| label(text).map(|label| (model, label.major.into(), label.minor.into())))
        .ok_or_else(|| Error::Cursor(name.to_owned()))
}

/// A rollout of the version is created, in this transaction.
pub(super) async fn begin_rollout(tx: &mut Transaction<'static, Any>, id: ModelVersionId) -> Result<()> {
    let states = states(tx, id).await?;
    let next = states.now.at_rollout();
    if next != states.now {
        write_states(tx, id, next, states.now).await?;
    }
    Ok(())
}

/// A rollout of the version has ended, and the transaction shows how. A version that becomes live retires those of
/// its model and board that were, and the canaries that no rollout brings on.
pub(super) async fn end_rollout(
    tx: &mut Transaction<'static, Any>,
    id: ModelVersionId,
    ended: rollout::State,
) -> Result<()> {
    let row = sqlx::query(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM rollouts WHERE version = $1 AND state IN ('running', 'paused')) \
         THEN 1 ELSE 0 END AS open, CASE WHEN EXISTS (SELECT 1 FROM device_slots s JOIN devices d ON d.id = s.device \
         WHERE d.revoked_at IS NULL AND s.version = $1) THEN 1 ELSE 0 END AS held",
    )
    .bind(id.to_string())
    .fetch_one(&mut **tx)
    .await?;
    let row = Reader::new("versions", &row);
    let (open, held) = (row.flag("open")?, row.flag("held")?);
    let states = states(tx, id).await?;
    let next = states.now.after_rollout(ended, states.before_canary, open, held);
    if ended == rollout::State::Completed {
        sqlx::query(
            "UPDATE versions SET state = 'retired' WHERE id <> $1 \
             AND (model, board) = (SELECT model, board FROM versions WHERE id = $1) \
             AND (state = 'live' OR (state = 'canary' AND NOT EXISTS (SELECT 1 FROM rollouts \
             WHERE rollouts.version = versions.id AND rollouts.state IN ('running', 'paused'))))",
        )
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    }
    write_states(tx, id, next, states.before_canary).await
}

struct States {
    now: VersionState,
    before_canary: VersionState,
}

async fn states(tx: &mut Transaction<'static, Any>, id: ModelVersionId) -> Result<States> {
    let row = sqlx::query("SELECT state, before_canary FROM versions WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| Error::Conflict(format!("version {id} is gone")))?;
    let row = Reader::new("versions", &row);
    let state = |column| row.word(column, "version state");
    Ok(States { now: state("state")?, before_canary: state("before_canary")? })
}

async fn write_states(
    tx: &mut Transaction<'static, Any>,
    id: ModelVersionId,
    state: VersionState,
    before_canary: VersionState,
) -> Result<()> {
    sqlx::query("UPDATE versions SET state = $1, before_canary = $2 WHERE id = $3")
        .bind(word(&state)?)
        .bind(word(&before_canary)?)
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
