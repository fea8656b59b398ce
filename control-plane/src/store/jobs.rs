//! Jobs of the forge.

use super::{Page, Reader, Result, Store, json, number, plain, time, word};
use control_core::entity::{Job, JobProgress, JobState};
use shared::{
    JobId, Timestamp,
    job::{JobReport, SearchMethod},
};
use sqlx::{Any, Transaction, any::AnyRow};

fn read(row: &AnyRow) -> Result<Job> {
    let row = Reader::new("jobs", row);
    Ok(Job {
        id: row.parse("id", "job id")?,
        task: row.word("task", "task")?,
        model: row.parse("model", "model name")?,
        dataset: row.parse("dataset", "data set id")?,
        board: row.parse("board", "board id")?,
        seed: row.number("seed")?,
        threads: row.small("threads")?,
        budget: row.json("budget", "budget")?,
        method: row.parse_option("method", "search method")?,
        space: row.json_option("space", "search space")?,
        point: row.parse_option("point", "judged network")?,
        latency: row.json_option("latency", "latency of a board")?,
        parent: row.parse_option("parent", "version id")?,
        state: row.word("state", "job state")?,
        progress: row.json("progress", "progress")?,
        error: row.text_option("error")?,
        version: row.text_option("version")?,
        report: row.json_option("report", "job report")?,
        cell: row.text_option("cell")?,
        pid: row.number_option("pid")?.and_then(|pid| u32::try_from(pid).ok()),
        created_at: row.time("created_at")?,
        started_at: row.time_option("started_at")?,
        finished_at: row.time_option("finished_at")?,
    })
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum JobEnd {
    Done { version: String, report: Box<JobReport>, cell: Option<String> },
    Failed { error: String },
    Cancelled,
}

impl Store {
    /// Adds a job.
    pub async fn add_job(&self, job: &Job) -> Result<()> {
        sqlx::query(
            "INSERT INTO jobs (id, task, model, dataset, board, seed, threads, budget, method, space, point, latency, \
             parent, state, progress, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        )
        .bind(job.id.to_string())
        .bind(word(&job.task)?)
        .bind(job.model.as_str())
        .bind(job.dataset.as_str())
        .bind(job.board.as_str())
        .bind(number(job.seed))
        .bind(i64::from(job.threads))
        .bind(json(&job.budget)?)
        .bind(job.method.map(SearchMethod::name))
        .bind(job.space.as_ref().map(json).transpose()?)
        .bind(job.point.map(|point| point.to_string()))
        .bind(job.latency.as_ref().map(json).transpose()?)
        .bind(job.parent.map(|id| id.to_string()))
        .bind(word(&job.state)?)
        .bind(json(&job.progress)?)
        .bind(time(job.created_at))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Jobs, the newest first.
    pub async fn jobs(&self, page: &Page) -> Result<Vec<Job>> {
        let rows = sqlx::query("SELECT * FROM jobs WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(page.before())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Jobs in a state, the oldest first.
    pub async fn jobs_in(&self, state: JobState) -> Result<Vec<Job>> {
        let rows = sqlx::query("SELECT * FROM jobs WHERE state = $1 ORDER BY id LIMIT 1000")
            .bind(word(&state)?)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Jobs that have not ended.
    pub async fn count_open_jobs(&self) -> Result<u64> {
        let row = sqlx::query("SELECT count(*) AS n FROM jobs WHERE state IN ('queued', 'running')")
            .fetch_one(&self.readers)
            .await?;
        Reader::new("jobs", &row).number("n")
    }

    /// Claims the job for a worker of this server, which acts for the fleet; `pid` of `None` is one that is being started.
    /// `false` if the job has ended: nothing may run for it then.
    pub async fn set_job_running(&self, id: JobId, pid: Option<u32>, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin_as_leader().await?;
        let claimed = sqlx::query(
            "UPDATE jobs SET state = 'running', pid = $1, started_at = coalesce(started_at, $2) \
             WHERE id = $3 AND state IN ('queued', 'running') RETURNING id",
        )
        .bind(pid.map(i64::from))
        .bind(time(now))
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(claimed.is_some())
    }

    /// The newest progress.
    pub async fn set_job_progress(&self, id: JobId, progress: &JobProgress) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        sqlx::query("UPDATE jobs SET progress = $1 WHERE id = $2")
            .bind(json(progress)?)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The job's end, told by the server that runs it; one that has ended already stays as it is and `false` comes back.
    pub async fn end_job(&self, id: JobId, end: &JobEnd, now: Timestamp) -> Result<bool> {
        let tx = self.begin_as_leader().await?;
        end_job(tx, id, end, now).await
    }

    /// The same, ordered by a person: any server may.
    pub async fn cancel_job(&self, id: JobId, now: Timestamp) -> Result<bool> {
        let tx = self.begin().await?;
        end_job(tx, id, &JobEnd::Cancelled, now).await
    }
}

async fn end_job(mut tx: Transaction<'static, Any>, id: JobId, end: &JobEnd, now: Timestamp) -> Result<bool> {
    let (state, error, version, report, cell) = match end {
        JobEnd::Done { version, report, cell } => {
            (JobState::Done, None, Some(version.as_str()), Some(json(report)?), cell.as_deref())
        }
        JobEnd::Failed { error } => (JobState::Failed, Some(error.as_str()), None, None, None),
        JobEnd::Cancelled => (JobState::Cancelled, None, None, None, None),
    };
    let done = sqlx::query(
            "UPDATE jobs SET state = $1, error = $2, version = $3, report = $4, cell = $5, pid = NULL, finished_at = $6 \
             WHERE id = $7 AND state IN ('queued', 'running')",
        )
        .bind(word(&state)?)
        .bind(error.map(plain))
        .bind(version)
        .bind(report)
        .bind(cell.map(plain))
        .bind(time(now))
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}
