//! Rollouts, their members, and the desired state that follows from them.

use super::{Error, Page, Reader, Result, Store, devices, json, number, time, word};
use control_core::{
    entity::{Device, HistoryEntry, Rollout},
    rollout::{Action, Member, Plan},
};
use shared::{
    DeviceId, Digest, ModelName, RolloutId, Timestamp, VersionLabel, manifest::FileEntry, wire::Assignment,
};
use sqlx::{Sqlite, Transaction, sqlite::SqliteRow};

const SELECT: &str = "SELECT r.*, v.model, v.major, v.minor, v.bundle FROM rollouts r \
                      JOIN versions v ON v.id = r.version";

/// History entries that are shown with a rollout.
const HISTORY_MAX: i64 = 1000;

fn read(row: &SqliteRow) -> Result<Rollout> {
    let row = Reader::new("rollouts", row);
    let model: ModelName = row.parse("model", "model name")?;
    let label = VersionLabel { major: row.small("major")?, minor: row.small("minor")? };
    Ok(Rollout {
        id: row.parse("id", "rollout id")?,
        version: format!("{model}@{label}"),
        version_id: row.parse("version", "version id")?,
        model,
        slot: row.parse("slot", "slot name")?,
        bundle: row.parse("bundle", "digest")?,
        selector: row.json("selector", "selector")?,
        policy: row.json("policy", "policy")?,
        trial: row.json("trial", "trial policy")?,
        status: row.json("status", "status")?,
        devices: Vec::new(),
        history: Vec::new(),
        bytes_published: row.number("bytes_published")?,
        created_at: row.time("created_at")?,
        finished_at: row.time_option("finished_at")?,
    })
}

impl Store {
    /// Adds a rollout. A device that another open rollout has for the same slot is a conflict.
    pub async fn add_rollout(&self, rollout: &Rollout) -> Result<()> {
        let mut tx = self.begin().await?;
        for member in &rollout.devices {
            let other = sqlx::query(
                "SELECT r.id FROM rollouts r JOIN rollout_members m ON m.rollout = r.id \
                 WHERE r.state IN ('running', 'paused') AND r.slot = ? AND m.device = ? LIMIT 1",
            )
            .bind(rollout.slot.as_str())
            .bind(member.device.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = other {
                let other = Reader::new("rollouts", &row).text("id")?;
                return Err(Error::Conflict(format!(
                    "rollout {other} is under way in slot {} of {}; wait for it or abort it",
                    rollout.slot, member.device
                )));
            }
        }
        sqlx::query(
            "INSERT INTO rollouts (id, version, slot, selector, policy, trial, state, status, bytes_published, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(rollout.id.to_string())
        .bind(rollout.version_id.to_string())
        .bind(rollout.slot.as_str())
        .bind(json(&rollout.selector)?)
        .bind(json(&rollout.policy)?)
        .bind(json(&rollout.trial)?)
        .bind(word(&rollout.status.state)?)
        .bind(json(&rollout.status)?)
        .bind(time(rollout.created_at))
        .execute(&mut *tx)
        .await?;
        for member in &rollout.devices {
            write_member(&mut tx, rollout.id, member).await?;
        }
        add_history(
            &mut tx,
            rollout.id,
            rollout.created_at,
            &format!("created for {} devices", rollout.devices.len()),
        )
        .await?;
        Ok(tx.commit().await?)
    }

    /// One rollout with its members and history.
    pub async fn rollout(&self, id: RolloutId) -> Result<Option<Rollout>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE r.id = ?")))
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(mut rollout) = row.as_ref().map(read).transpose()? else { return Ok(None) };
        self.fill(&mut rollout).await?;
        Ok(Some(rollout))
    }

    /// Rollouts with their members, the newest first.
    pub async fn rollouts(&self, page: Page) -> Result<Vec<Rollout>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY r.id DESC LIMIT ? OFFSET ?")))
            .bind(page.sql_limit())
            .bind(page.sql_offset())
            .fetch_all(&self.readers)
            .await?;
        let mut rollouts: Vec<Rollout> = rows.iter().map(read).collect::<Result<_>>()?;
        for rollout in &mut rollouts {
            self.fill(rollout).await?;
        }
        Ok(rollouts)
    }

    /// Rollouts that are not through, the oldest first.
    pub async fn open_rollouts(&self) -> Result<Vec<Rollout>> {
        let sql = format!("{SELECT} WHERE r.state IN ('running', 'paused') ORDER BY r.id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&self.readers).await?;
        let mut rollouts: Vec<Rollout> = rows.iter().map(read).collect::<Result<_>>()?;
        for rollout in &mut rollouts {
            self.fill(rollout).await?;
        }
        Ok(rollouts)
    }

    /// The blobs of open rollouts: of each its bundle and the bundle's files.
    pub async fn open_blobs(&self) -> Result<Vec<(RolloutId, Digest)>> {
        let rows = sqlx::query(
            "SELECT r.id, v.bundle, v.files FROM rollouts r JOIN versions v ON v.id = r.version \
             WHERE r.state IN ('running', 'paused')",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut blobs = Vec::new();
        for row in &rows {
            let row = Reader::new("rollouts", row);
            let id: RolloutId = row.parse("id", "rollout id")?;
            let files: Vec<FileEntry> = row.json("files", "list of files")?;
            blobs.push((id, row.parse("bundle", "digest")?));
            blobs.extend(files.into_iter().map(|file| (id, file.digest)));
        }
        Ok(blobs)
    }

    async fn fill(&self, rollout: &mut Rollout) -> Result<()> {
        let rows = sqlx::query("SELECT member FROM rollout_members WHERE rollout = ? ORDER BY device")
            .bind(rollout.id.to_string())
            .fetch_all(&self.readers)
            .await?;
        rollout.devices = rows
            .iter()
            .map(|row| Reader::new("rollout_members", row).json("member", "member"))
            .collect::<Result<_>>()?;
        let rows = sqlx::query("SELECT at, text FROM rollout_history WHERE rollout = ? ORDER BY id LIMIT ?")
            .bind(rollout.id.to_string())
            .bind(HISTORY_MAX)
            .fetch_all(&self.readers)
            .await?;
        rollout.history = rows
            .iter()
            .map(|row| {
                let row = Reader::new("rollout_history", row);
                Ok(HistoryEntry { at: row.time("at")?, text: row.text("text")? })
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Executes a plan: status, members, history and the desired state of every device that it acts on, all or
    /// nothing. Gives the devices whose desired state changed, as they are afterwards. An open rollout that
    /// somebody else has changed since it was read is a conflict.
    pub async fn execute(
        &self,
        rollout: &Rollout,
        plan: &Plan,
        assignment: &Assignment,
        chunk_bytes: u32,
        now: Timestamp,
    ) -> Result<Vec<Device>> {
        let mut tx = self.begin().await?;
        let finished = plan.status.state.is_final();
        let done = sqlx::query(
            "UPDATE rollouts SET state = ?, status = ?, finished_at = ? WHERE id = ? AND status = ?",
        )
        .bind(word(&plan.status.state)?)
        .bind(json(&plan.status)?)
        .bind(finished.then(|| time(now)))
        .bind(rollout.id.to_string())
        .bind(json(&rollout.status)?)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Conflict(format!("rollout {} has changed meanwhile", rollout.id)));
        }
        for (member, before) in plan.members.iter().zip(&rollout.devices) {
            if member != before {
                write_member(&mut tx, rollout.id, member).await?;
            }
        }
        for note in &plan.notes {
            add_history(&mut tx, rollout.id, now, note).await?;
        }
        let mut changed = Vec::with_capacity(plan.actions.len());
        for action in &plan.actions {
            changed.push(act(&mut tx, rollout, action, assignment, chunk_bytes, now).await?);
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// Adds to what delivery has published for open rollouts of a bundle.
    pub async fn add_bytes_published(&self, counts: &[(RolloutId, u64)]) -> Result<()> {
        let mut tx = self.begin().await?;
        for (id, bytes) in counts {
            sqlx::query("UPDATE rollouts SET bytes_published = bytes_published + ? WHERE id = ?")
                .bind(number(*bytes))
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn act(
    tx: &mut Transaction<'static, Sqlite>,
    rollout: &Rollout,
    action: &Action,
    assignment: &Assignment,
    chunk_bytes: u32,
    now: Timestamp,
) -> Result<Device> {
    let (device, generation) = match action {
        Action::Assign { device, generation } | Action::Restore { device, generation } => {
            (device, *generation)
        }
    };
    let row = sqlx::query("SELECT * FROM devices WHERE id = ?")
        .bind(device.as_str())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| Error::Conflict(format!("device {device} is gone")))?;
    let mut state = devices::read(&row)?;
    if state.generation.checked_add(1) != Some(generation) {
        return Err(Error::Conflict(format!("the desired state of {device} has changed meanwhile")));
    }
    let slot = &rollout.slot;
    let at = state.assignments.iter().position(|assignment| assignment.slot == *slot);
    match action {
        Action::Assign { .. } => {
            let previous = at.map(|at| json(&state.assignments[at])).transpose()?;
            sqlx::query("UPDATE rollout_members SET previous = ? WHERE rollout = ? AND device = ?")
                .bind(previous)
                .bind(rollout.id.to_string())
                .bind(device.as_str())
                .execute(&mut **tx)
                .await?;
            place(&mut state, at, Some(assignment.clone()));
        }
        Action::Restore { .. } => place(&mut state, at, previous(tx, rollout.id, device).await?),
    }
    (state.generation, state.desired_at, state.chunk_bytes) = (generation, now, chunk_bytes);
    sqlx::query(
        "UPDATE devices SET generation = ?, desired_at = ?, chunk_bytes = ?, assignments = ? WHERE id = ?",
    )
    .bind(number(generation))
    .bind(time(now))
    .bind(i64::from(chunk_bytes))
    .bind(json(&state.assignments)?)
    .bind(device.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(state)
}

async fn previous(
    tx: &mut Transaction<'static, Sqlite>,
    rollout: RolloutId,
    device: &DeviceId,
) -> Result<Option<Assignment>> {
    let row = sqlx::query("SELECT previous FROM rollout_members WHERE rollout = ? AND device = ?")
        .bind(rollout.to_string())
        .bind(device.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    match &row {
        Some(row) => Reader::new("rollout_members", row).json_option("previous", "assignment"),
        None => Ok(None),
    }
}

fn place(device: &mut Device, at: Option<usize>, assignment: Option<Assignment>) {
    match (at, assignment) {
        (Some(at), Some(assignment)) => device.assignments[at] = assignment,
        (Some(at), None) => {
            device.assignments.remove(at);
        }
        (None, Some(assignment)) => device.assignments.push(assignment),
        (None, None) => {}
    }
}

async fn write_member(
    tx: &mut Transaction<'static, Sqlite>,
    rollout: RolloutId,
    member: &Member,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO rollout_members (rollout, device, member) VALUES (?, ?, ?) \
         ON CONFLICT (rollout, device) DO UPDATE SET member = excluded.member",
    )
    .bind(rollout.to_string())
    .bind(member.device.as_str())
    .bind(json(member)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn add_history(
    tx: &mut Transaction<'static, Sqlite>,
    rollout: RolloutId,
    at: Timestamp,
    text: &str,
) -> Result<()> {
    sqlx::query("INSERT INTO rollout_history (rollout, at, text) VALUES (?, ?, ?)")
        .bind(rollout.to_string())
        .bind(time(at))
        .bind(text)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
