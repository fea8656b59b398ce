//! Rollouts, their members, and the desired state that follows from them.

use super::{
    Error, Page, Reader, Result, Store, deltas::DeviceDeltas, devices, json, many, number, plain, time,
    versions, word,
};
use control_core::{
    entity::{Device, HistoryEntry, Rollout, RolloutSummary},
    rollout::{Action, Member, MemberCounts, Plan},
};
use shared::{
    DeviceId, Digest, ModelName, ModelVersionId, RolloutId, SlotName, Timestamp, VersionLabel, limits,
    manifest::FileEntry, wire::Assignment,
};
use sqlx::{Any, Transaction, any::AnyRow};
use std::collections::{BTreeSet, HashMap};

const SELECT: &str = "SELECT r.*, v.model, v.major, v.minor, v.bundle, v.board FROM rollouts r \
                      JOIN versions v ON v.id = r.version";

/// History entries that are shown with a rollout: the newest ones.
const HISTORY_MAX: i64 = 1000;

fn read(row: &AnyRow) -> Result<Rollout> {
    let row = Reader::new("rollouts", row);
    let model: ModelName = row.parse("model", "model name")?;
    let label = VersionLabel { major: row.small("major")?, minor: row.small("minor")? };
    Ok(Rollout {
        id: row.parse("id", "rollout id")?,
        version: format!("{model}@{label}"),
        version_id: row.parse("version", "version id")?,
        model,
        board: row.parse("board", "board id")?,
        slot: row.parse("slot", "slot name")?,
        bundle: row.parse("bundle", "digest")?,
        selector: row.json("selector", "selector")?,
        policy: row.json("policy", "policy")?,
        trial: row.json("trial", "trial policy")?,
        status: row.json("status", "status")?,
        devices: Vec::new(),
        gates: Vec::new(),
        history: Vec::new(),
        bytes_published: row.number("bytes_published")?,
        created_at: row.time("created_at")?,
        finished_at: row.time_option("finished_at")?,
        revision: row.number("revision")?,
    })
}

impl Store {
    /// Adds a rollout; its version is a canary from then on. A device that another open rollout has for the same
    /// slot is a conflict, and so is one that would have more than [`limits::SLOTS_MAX`] slots in use once all open
    /// rollouts have reached it.
    pub async fn add_rollout(&self, rollout: &Rollout) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO rollouts (id, version, slot, selector, policy, trial, state, status, bytes_published, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)",
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
        refuse_taken_slot(&mut tx, rollout).await?;
        refuse_too_many_slots(&mut tx, rollout).await?;
        versions::begin_rollout(&mut tx, rollout.version_id).await?;
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
        let Some(mut rollout) = self.rollout_to_plan(id).await? else { return Ok(None) };
        self.fill_history(&mut rollout).await?;
        Ok(Some(rollout))
    }

    /// One rollout with its members and without its history: what the planner reads.
    pub async fn rollout_to_plan(&self, id: RolloutId) -> Result<Option<Rollout>> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE r.id = $1")))
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(mut rollout) = row.as_ref().map(read).transpose()? else { return Ok(None) };
        self.fill_members(&mut rollout).await?;
        Ok(Some(rollout))
    }

    /// The members of a rollout as devices.
    pub async fn member_devices(&self, id: RolloutId) -> Result<Vec<Device>> {
        let rows = sqlx::query(
            "SELECT d.* FROM rollout_members m JOIN devices d ON d.id = m.device WHERE m.rollout = $1 \
             ORDER BY m.device",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(devices::read).collect()
    }

    /// Devices that cannot join a rollout to a slot: another open rollout has that slot of theirs, or they have as many
    /// slots in use or promised as they may.
    pub async fn devices_without_room(&self, id: RolloutId, slot: &SlotName) -> Result<BTreeSet<DeviceId>> {
        let rows = sqlx::query(
            "SELECT m.device AS device FROM rollouts r JOIN rollout_members m ON m.rollout = r.id \
             WHERE r.state IN ('running', 'paused') AND r.slot = $2 AND r.id <> $1 UNION \
             SELECT d.id FROM devices d WHERE (SELECT count(*) FROM ( \
             SELECT s.slot FROM device_slots s WHERE s.device = d.id UNION \
             SELECT r.slot FROM rollouts r JOIN rollout_members m ON m.rollout = r.id AND m.device = d.id \
             WHERE r.state IN ('running', 'paused') UNION SELECT $2) AS used) > $3",
        )
        .bind(id.to_string())
        .bind(slot.as_str())
        .bind(number(limits::SLOTS_MAX as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Reader::new("devices", row).parse("device", "device id")).collect()
    }

    /// The newest desired generation of every device that was told something and is not revoked.
    pub async fn desired_generations(&self) -> Result<Vec<(DeviceId, u64)>> {
        let rows = sqlx::query(
            "SELECT id, generation FROM devices WHERE generation > 0 AND revoked_at IS NULL ORDER BY id",
        )
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &AnyRow| {
            let row = Reader::new("devices", row);
            Ok((row.parse("id", "device id")?, row.number("generation")?))
        };
        rows.iter().map(read).collect()
    }

    /// Rollouts with their members in numbers, the newest first.
    pub async fn rollouts(&self, page: &Page) -> Result<Vec<RolloutSummary>> {
        let sql = format!("{SELECT} WHERE r.id < $1 ORDER BY r.id DESC LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(page.before())
            .bind(page.sql_limit())
            .fetch_all(&self.readers)
            .await?;
        let rollouts: Vec<Rollout> = rows.iter().map(read).collect::<Result<_>>()?;
        let ids: Vec<RolloutId> = rollouts.iter().map(|rollout| rollout.id).collect();
        let counts = self.count_members(&ids).await?;
        let summary = |rollout: Rollout| {
            let members = counts.get(&rollout.id).copied().unwrap_or_default();
            RolloutSummary::new(rollout, members)
        };
        Ok(rollouts.into_iter().map(summary).collect())
    }

    /// The members of some rollouts in numbers; a rollout without members is left out.
    async fn count_members(&self, rollouts: &[RolloutId]) -> Result<HashMap<RolloutId, MemberCounts>> {
        let sql = format!(
            "SELECT rollout, state, count(*) AS devices FROM rollout_members WHERE {} \
             GROUP BY rollout, state",
            many::among(self.dialect(), "rollout", 1)
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(many::list(rollouts)?)
            .fetch_all(&self.readers)
            .await?;
        let mut counts: HashMap<RolloutId, MemberCounts> = HashMap::new();
        for row in &rows {
            let row = Reader::new("rollout_members", row);
            let of = counts.entry(row.parse("rollout", "rollout id")?).or_default();
            of.add(row.word("state", "state of a member")?, row.number("devices")?);
        }
        Ok(counts)
    }

    /// Rollouts that are not through, the oldest first.
    pub async fn open_rollouts(&self) -> Result<Vec<RolloutId>> {
        let rows = sqlx::query("SELECT id FROM rollouts WHERE state IN ('running', 'paused') ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Reader::new("rollouts", row).parse("id", "rollout id")).collect()
    }

    /// Versions of rollouts that ended before they were complete.
    pub async fn versions_of_ended_rollouts(&self) -> Result<Vec<ModelVersionId>> {
        let rows = sqlx::query("SELECT DISTINCT version FROM rollouts WHERE state IN ('stopped', 'aborted')")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Reader::new("rollouts", row).parse("version", "version id")).collect()
    }

    /// The blobs of open rollouts: of each its bundle, the bundle's files, and deltas to them.
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
        let deltas = sqlx::query(
            "SELECT DISTINCT r.id, d.delta FROM rollouts r JOIN version_files f ON f.version = r.version \
             JOIN deltas d ON d.to_digest = f.digest WHERE r.state IN ('running', 'paused') AND d.delta IS NOT NULL",
        )
        .fetch_all(&self.readers)
        .await?;
        for row in &deltas {
            let row = Reader::new("deltas", row);
            blobs.push((row.parse("id", "rollout id")?, row.parse("delta", "digest")?));
        }
        Ok(blobs)
    }

    /// Of each open rollout the devices that have its assignment, are online, and have not finished.
    pub async fn fetching_devices(&self) -> Result<HashMap<RolloutId, BTreeSet<DeviceId>>> {
        let rows = sqlx::query(
            "SELECT m.rollout, m.device FROM rollouts r JOIN rollout_members m ON m.rollout = r.id \
             JOIN devices d ON d.id = m.device WHERE r.state IN ('running', 'paused') AND d.online = 1 \
             AND m.state = 'assigned'",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut fetching: HashMap<RolloutId, BTreeSet<DeviceId>> = HashMap::new();
        for row in &rows {
            let row = Reader::new("rollout_members", row);
            let rollout = row.parse("rollout", "rollout id")?;
            fetching.entry(rollout).or_default().insert(row.parse("device", "device id")?);
        }
        Ok(fetching)
    }

    async fn fill_members(&self, rollout: &mut Rollout) -> Result<()> {
        let rows = sqlx::query("SELECT member FROM rollout_members WHERE rollout = $1 ORDER BY device")
            .bind(rollout.id.to_string())
            .fetch_all(&self.readers)
            .await?;
        rollout.devices = rows
            .iter()
            .map(|row| Reader::new("rollout_members", row).json("member", "member"))
            .collect::<Result<_>>()?;
        Ok(())
    }

    async fn fill_history(&self, rollout: &mut Rollout) -> Result<()> {
        let rows = sqlx::query(
            "SELECT at, text FROM (SELECT id, at, text FROM rollout_history WHERE rollout = $1 \
             ORDER BY id DESC LIMIT $2) AS newest ORDER BY id",
        )
        .bind(rollout.id.to_string())
        .bind(HISTORY_MAX)
        .fetch_all(&self.readers)
        .await?;
        rollout.history = Reader::each("rollout_history", &rows, |row| {
            Ok(HistoryEntry { at: row.time("at")?, text: row.text("text")? })
        })?;
        Ok(())
    }

    /// Executes a plan that the loop of the acting server has made: status, members, history, the desired state of every
    /// device that it acts on, and what the end of the rollout makes of its version, all or nothing. A rollout that
    /// somebody else has changed since it was read is a conflict.
    pub async fn execute(
        &self,
        rollout: &Rollout,
        plan: &Plan,
        assignment: &Assignment,
        deltas: &DeviceDeltas,
        chunk_bytes: u32,
        now: Timestamp,
    ) -> Result<()> {
        let tx = self.begin_as_leader().await?;
        execute(tx, rollout, plan, assignment, deltas, chunk_bytes, now).await
    }

    /// The same for a plan that follows from an order: any server takes those.
    pub async fn execute_order(
        &self,
        rollout: &Rollout,
        plan: &Plan,
        assignment: &Assignment,
        deltas: &DeviceDeltas,
        chunk_bytes: u32,
        now: Timestamp,
    ) -> Result<()> {
        let tx = self.begin().await?;
        execute(tx, rollout, plan, assignment, deltas, chunk_bytes, now).await
    }

    /// Adds to what delivery has published for open rollouts of a bundle.
    pub async fn add_bytes_published(&self, counts: &[(RolloutId, u64)]) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        for (id, bytes) in counts {
            sqlx::query("UPDATE rollouts SET bytes_published = bytes_published + $1 WHERE id = $2")
                .bind(number(*bytes))
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn execute(
    mut tx: Transaction<'static, Any>,
    rollout: &Rollout,
    plan: &Plan,
    assignment: &Assignment,
    deltas: &DeviceDeltas,
    chunk_bytes: u32,
    now: Timestamp,
) -> Result<()> {
    let finished = plan.status.state.is_final();
    let done = sqlx::query(
        "UPDATE rollouts SET state = $1, status = $2, finished_at = $3, revision = revision + 1 \
             WHERE id = $4 AND revision = $5",
    )
    .bind(word(&plan.status.state)?)
    .bind(json(&plan.status)?)
    .bind(finished.then(|| time(now)))
    .bind(rollout.id.to_string())
    .bind(number(rollout.revision))
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Err(Error::Conflict(format!("rollout {} has changed meanwhile", rollout.id)));
    }
    let before: HashMap<&DeviceId, &Member> =
        rollout.devices.iter().map(|member| (&member.device, member)).collect();
    for member in plan.members.iter().filter(|member| before.get(&member.device) != Some(member)) {
        write_member(&mut tx, rollout.id, member).await?;
    }
    if plan.members.len() > before.len() {
        refuse_taken_slot(&mut tx, rollout).await?;
        refuse_too_many_slots(&mut tx, rollout).await?;
    }
    for note in &plan.notes {
        add_history(&mut tx, rollout.id, now, note).await?;
    }
    for action in &plan.actions {
        let (Action::Assign { device, .. } | Action::Restore { device, .. }) = action;
        let deltas = deltas.get(device).cloned().unwrap_or_default();
        let assignment = Assignment { deltas, ..assignment.clone() };
        act(&mut tx, rollout, action, assignment, chunk_bytes, now).await?;
    }
    if finished {
        versions::end_rollout(&mut tx, rollout.version_id, plan.status.state).await?;
    }
    Ok(tx.commit().await?)
}

async fn refuse_taken_slot(tx: &mut Transaction<'static, Any>, rollout: &Rollout) -> Result<()> {
    let other = sqlx::query(
        "SELECT r.id AS other, m.device AS device FROM rollouts r JOIN rollout_members m ON m.rollout = r.id \
         JOIN rollout_members mine ON mine.rollout = $1 AND mine.device = m.device \
         WHERE r.state IN ('running', 'paused') AND r.slot = $2 AND r.id <> $1 LIMIT 1",
    )
    .bind(rollout.id.to_string())
    .bind(rollout.slot.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = &other else { return Ok(()) };
    let row = Reader::new("rollouts", row);
    Err(Error::Conflict(format!(
        "rollout {} is under way in slot {} of {}; wait for it or abort it",
        row.text("other")?,
        rollout.slot,
        row.text("device")?
    )))
}

/// Counts what is assigned together with what open rollouts, this one among them, may still assign.
async fn refuse_too_many_slots(tx: &mut Transaction<'static, Any>, rollout: &Rollout) -> Result<()> {
    let full = sqlx::query(
        "SELECT d.id AS device FROM rollout_members mine JOIN devices d ON d.id = mine.device \
         WHERE mine.rollout = $1 AND (SELECT count(*) FROM ( \
         SELECT s.slot FROM device_slots s WHERE s.device = d.id UNION \
         SELECT r.slot FROM rollouts r JOIN rollout_members m ON m.rollout = r.id AND m.device = d.id \
         WHERE r.state IN ('running', 'paused')) AS used) > $2 LIMIT 1",
    )
    .bind(rollout.id.to_string())
    .bind(number(limits::SLOTS_MAX as u64))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = &full else { return Ok(()) };
    Err(Error::Conflict(format!(
        "device {} has {} slots in use or promised by open rollouts already, which is the most; use one of them",
        Reader::new("devices", row).text("device")?,
        limits::SLOTS_MAX
    )))
}

async fn act(
    tx: &mut Transaction<'static, Any>,
    rollout: &Rollout,
    action: &Action,
    assignment: Assignment,
    chunk_bytes: u32,
    now: Timestamp,
) -> Result<()> {
    let (device, generation) = match action {
        Action::Assign { device, generation } | Action::Restore { device, generation } => {
            (device, *generation)
        }
    };
    let row = sqlx::query("SELECT * FROM devices WHERE id = $1")
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
            sqlx::query("UPDATE rollout_members SET previous = $1 WHERE rollout = $2 AND device = $3")
                .bind(previous)
                .bind(rollout.id.to_string())
                .bind(device.as_str())
                .execute(&mut **tx)
                .await?;
            devices::write_slot(tx, device, slot, Some(assignment.version_id)).await?;
            place(&mut state, at, Some(assignment));
        }
        Action::Restore { .. } => {
            let previous = previous(tx, rollout.id, device).await?;
            devices::write_slot(tx, device, slot, previous.as_ref().map(|it| it.version_id)).await?;
            place(&mut state, at, previous);
        }
    }
    if state.assignments.len() > limits::SLOTS_MAX {
        return Err(Error::Conflict(format!(
            "device {device} has {} slots in use already",
            limits::SLOTS_MAX
        )));
    }
    sqlx::query(
        "UPDATE devices SET generation = $1, desired_at = $2, chunk_bytes = $3, assignments = $4 WHERE id = $5",
    )
    .bind(number(generation))
    .bind(time(now))
    .bind(i64::from(chunk_bytes))
    .bind(json(&state.assignments)?)
    .bind(device.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn previous(
    tx: &mut Transaction<'static, Any>,
    rollout: RolloutId,
    device: &DeviceId,
) -> Result<Option<Assignment>> {
    let row = sqlx::query("SELECT previous FROM rollout_members WHERE rollout = $1 AND device = $2")
        .bind(rollout.to_string())
        .bind(device.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    match &row {
        Some(row) => {
            let previous: Option<Assignment> =
                Reader::new("rollout_members", row).json_option("previous", "assignment")?;
            // They start from what the device had before that one.
            Ok(previous.map(|previous| Assignment { deltas: Vec::new(), ..previous }))
        }
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

async fn write_member(tx: &mut Transaction<'static, Any>, rollout: RolloutId, member: &Member) -> Result<()> {
    sqlx::query(
        "INSERT INTO rollout_members (rollout, device, member, state, wave, finished_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (rollout, device) DO UPDATE SET member = excluded.member, \
         state = excluded.state, wave = excluded.wave, finished_at = excluded.finished_at",
    )
    .bind(rollout.to_string())
    .bind(member.device.as_str())
    .bind(json(member)?)
    .bind(word(&member.state)?)
    .bind(i64::from(member.wave))
    .bind(member.finished_at.map(time))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn add_history(
    tx: &mut Transaction<'static, Any>,
    rollout: RolloutId,
    at: Timestamp,
    text: &str,
) -> Result<()> {
    sqlx::query("INSERT INTO rollout_history (rollout, at, text) VALUES ($1, $2, $3)")
        .bind(rollout.to_string())
        .bind(time(at))
        .bind(plain(text))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
