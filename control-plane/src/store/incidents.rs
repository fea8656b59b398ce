//! Incidents.

use super::{Page, Reader, Result, Store, json, time, word};
use control_core::incident::{Change, Incident, Kind, Severity};
use shared::Timestamp;
use sqlx::{Any, Transaction, any::AnyRow};
use uuid::Uuid;

fn read(row: &AnyRow) -> Result<Incident> {
    Reader::new("incidents", row).json("incident", "incident")
}

async fn write(tx: &mut Transaction<'static, Any>, incident: &Incident, muted: bool) -> Result<()> {
    sqlx::query(
        "INSERT INTO incidents (id, kind, subject, severity, opened_at, resolved_at, muted, incident) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, \
         resolved_at = excluded.resolved_at, muted = excluded.muted, incident = excluded.incident",
    )
    .bind(incident.id.to_string())
    .bind(word(&incident.kind)?)
    .bind(&incident.subject)
    .bind(word(&incident.severity)?)
    .bind(time(incident.opened_at))
    .bind(incident.resolved_at.map(time))
    .bind(i64::from(muted))
    .bind(json(incident)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// Incidents, the newest first: all, or those that are open or not.
    pub async fn incidents(&self, open: Option<bool>, page: &Page) -> Result<Vec<Incident>> {
        let rows = sqlx::query(
            "SELECT incident FROM incidents WHERE id < $1 AND ($2 = 0 OR ($2 = 1 AND resolved_at IS NULL) \
             OR ($2 = 2 AND resolved_at IS NOT NULL)) ORDER BY id DESC LIMIT $3",
        )
        .bind(page.before())
        .bind(match open {
            None => 0i64,
            Some(true) => 1,
            Some(false) => 2,
        })
        .bind(page.sql_limit())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read).collect()
    }

    /// One incident.
    pub async fn incident(&self, id: Uuid) -> Result<Option<Incident>> {
        let row = sqlx::query("SELECT incident FROM incidents WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Those that are open, and those that an operator closed while their cause was there.
    pub async fn known_incidents(&self) -> Result<Vec<Incident>> {
        let rows =
            sqlx::query("SELECT incident FROM incidents WHERE resolved_at IS NULL OR muted = 1 ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(read).collect()
    }

    /// How many are open, and how many of those are critical.
    pub async fn count_incidents(&self) -> Result<(u64, u64)> {
        let rows = sqlx::query(
            "SELECT severity, count(*) AS number FROM incidents WHERE resolved_at IS NULL GROUP BY severity",
        )
        .fetch_all(&self.readers)
        .await?;
        let (mut open, mut critical) = (0, 0);
        for row in &rows {
            let row = Reader::new("incidents", row);
            let number = row.number("number")?;
            open += number;
            match row.word("severity", "severity")? {
                Severity::Critical => critical += number,
                Severity::Warning => {}
            }
        }
        Ok((open, critical))
    }

    /// Carries out what was decided, all or nothing; gives those that were carried out. One that an operator has closed
    /// meanwhile stays closed, and stays as the operator left it.
    pub async fn change_incidents(&self, changes: Vec<Change>) -> Result<Vec<Change>> {
        let mut tx = self.begin_as_leader().await?;
        let mut done = Vec::new();
        for change in changes {
            let carried_out = match &change {
                Change::Opened(incident) => {
                    write(&mut tx, incident, false).await?;
                    true
                }
                Change::Updated(incident) | Change::Resolved(incident) => {
                    let seen = as_it_is(&mut tx, incident.id).await?;
                    // What an operator did meanwhile is newer than what was decided; the next look decides by it.
                    let same = seen.is_some_and(|seen| {
                        seen.resolved_at.is_none() && seen.acknowledged_at == incident.acknowledged_at
                    });
                    if same {
                        write(&mut tx, incident, false).await?;
                    }
                    same
                }
                Change::Unmuted(id) => {
                    sqlx::query("UPDATE incidents SET muted = 0 WHERE id = $1")
                        .bind(id.to_string())
                        .execute(&mut *tx)
                        .await?;
                    true
                }
            };
            if carried_out {
                done.push(change);
            }
        }
        tx.commit().await?;
        Ok(done)
    }

    /// Has `change` say what becomes of an incident; `None` if there is none. Gives the incident, and whether it has changed.
    pub async fn change_incident(
        &self,
        id: Uuid,
        change: impl FnOnce(&Incident) -> Option<Incident> + Send,
    ) -> Result<Option<(Incident, bool)>> {
        let mut tx = self.begin().await?;
        let Some(incident) = as_it_is(&mut tx, id).await? else { return Ok(None) };
        let Some(changed) = change(&incident) else { return Ok(Some((incident, false))) };
        write(&mut tx, &changed, changed.resolved_at.is_some()).await?;
        tx.commit().await?;
        Ok(Some((changed, true)))
    }

    /// Removes incidents that were closed before a time.
    pub async fn retire_incidents(&self, before: Timestamp) -> Result<()> {
        let mut tx = self.begin_as_leader().await?;
        sqlx::query("DELETE FROM incidents WHERE resolved_at < $1 AND muted = 0")
            .bind(time(before))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// When the open incident of a kind began, whatever its subject.
    pub async fn open_since(&self, kind: Kind) -> Result<Option<Timestamp>> {
        let row =
            sqlx::query("SELECT opened_at FROM incidents WHERE kind = $1 AND resolved_at IS NULL LIMIT 1")
                .bind(word(&kind)?)
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(|row| Reader::new("incidents", row).time("opened_at")).transpose()
    }
}

async fn as_it_is(tx: &mut Transaction<'static, Any>, id: Uuid) -> Result<Option<Incident>> {
    let row = sqlx::query("SELECT incident FROM incidents WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    row.as_ref().map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::stores;
    use control_core::incident::Evidence;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn incident(number: u128) -> Incident {
        Incident {
            id: Uuid::from_u128(number),
            kind: Kind::JobFailed,
            severity: Severity::Critical,
            title: "a job for mnist failed".to_owned(),
            subject: number.to_string(),
            opened_at: NOW,
            updated_at: NOW,
            acknowledged_at: None,
            resolved_at: None,
            count: 1,
            evidence: vec![Evidence { at: NOW, text: "killed".to_owned(), link: None }],
        }
    }

    #[tokio::test]
    async fn incidents_are_listed_by_whether_they_are_open_and_counted() {
        for (_folder, store) in stores().await {
            let opened = [1, 2, 3].map(|number| Change::Opened(incident(number)));
            store.change_incidents(opened.to_vec()).await.unwrap();
            let (closed, changed) = store
                .change_incident(Uuid::from_u128(2), |incident| incident.resolved("kim", NOW))
                .await
                .unwrap()
                .unwrap();
            assert!(changed && closed.resolved_at.is_some());
            let ids = |incidents: Vec<Incident>| incidents.iter().map(|i| i.id.as_u128()).collect::<Vec<_>>();
            let page = Page::default();
            assert_eq!(ids(store.incidents(None, &page).await.unwrap()), [3, 2, 1]);
            assert_eq!(ids(store.incidents(Some(true), &page).await.unwrap()), [3, 1]);
            assert_eq!(ids(store.incidents(Some(false), &page).await.unwrap()), [2]);
            assert_eq!(ids(store.known_incidents().await.unwrap()), [1, 2, 3]);
            store.change_incidents(vec![Change::Unmuted(Uuid::from_u128(2))]).await.unwrap();
            assert_eq!(ids(store.known_incidents().await.unwrap()), [1, 3]);
            assert_eq!(store.count_incidents().await.unwrap(), (2, 2));
            assert_eq!(store.open_since(Kind::JobFailed).await.unwrap(), Some(NOW));
            assert_eq!(store.open_since(Kind::Refusals).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_an_operator_did_meanwhile_is_not_written_over() {
        for (_folder, store) in stores().await {
            store.change_incidents(vec![Change::Opened(incident(1))]).await.unwrap();
            let acknowledged = |incident: &Incident| incident.acknowledged("kim", NOW);
            store.change_incident(Uuid::from_u128(1), acknowledged).await.unwrap();
            let stale = Incident { count: 9, ..incident(1) };
            assert_eq!(store.change_incidents(vec![Change::Updated(stale)]).await.unwrap(), []);
            let kept = store.incident(Uuid::from_u128(1)).await.unwrap().unwrap();
            assert_eq!((kept.count, kept.acknowledged_at), (1, Some(NOW)));
            assert!(store.change_incident(Uuid::from_u128(5), acknowledged).await.unwrap().is_none());
        }
    }
}
