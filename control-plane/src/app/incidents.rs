//! Incidents: looking for them, and what operators say to them.

use super::{App, Error, Page, Result, chain, changes::ChangeKind, now};
use crate::store;
use control_core::incident::{self, Change, Disk, Facts, Incident, Kind, Outage, Presence};
use shared::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often it is looked.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Who is there is looked at once the broker has been reached for so long: devices come back one by one.
const LISTENED_MIN: Duration = Duration::from_secs(120);
/// The believed time is noted with every so manieth look.
const CLOCK_LOOKS: u64 = 12;

/// What is known from look to look.
struct Watch {
    /// Since when the broker has been reached.
    reached: Option<Instant>,
    /// Since when it is not, and why.
    broker_gone: Option<(Timestamp, String)>,
    /// Since when the database does not answer, and why.
    database_gone: Option<(Timestamp, String)>,
}

impl App {
    /// Incidents, the newest first: all, or those that are open or not.
    pub async fn incidents(&self, open: Option<bool>, page: &Page) -> Result<Vec<Incident>> {
        Ok(self.store.incidents(open, page).await?)
    }

    /// One incident.
    pub async fn incident(&self, id: Uuid) -> Result<Incident> {
        self.store.incident(id).await?.ok_or_else(|| not_known(id))
    }

    /// `by` looks at it. To say so twice, or of one that is over, changes nothing.
    pub async fn acknowledge_incident(&self, id: Uuid, by: &str) -> Result<Incident> {
        self.change_incident(id, "acknowledged", |incident| incident.acknowledged(by, now())).await
    }

    /// `by` closes it, whether or not its cause is gone. To close one that is closed changes nothing.
    pub async fn resolve_incident(&self, id: Uuid, by: &str) -> Result<Incident> {
        self.change_incident(id, "resolved", |incident| incident.resolved(by, now())).await
    }

    async fn change_incident(
        &self,
        id: Uuid,
        what: &str,
        change: impl FnOnce(&Incident) -> Option<Incident> + Send,
    ) -> Result<Incident> {
        let (incident, changed) =
            self.store.change_incident(id, change).await?.ok_or_else(|| not_known(id))?;
        if changed {
            self.tell_incident(&incident, what);
        }
        Ok(incident)
    }

    /// The one place where listeners are told of incidents.
    fn tell_incident(&self, incident: &Incident, what: &str) {
        self.tell(ChangeKind::Incident, incident.id, what);
    }

    /// Looks for incidents until the application stops.
    pub async fn run_incidents(self: Arc<Self>) {
        let mut watch = Watch { reached: None, broker_gone: None, database_gone: None };
        let mut looks = 0u64;
        while !self.is_stopping() {
            match self.look_for_incidents(&mut watch).await {
                Ok(()) => watch.database_gone = None,
                Err(error) => {
                    let why = chain(&error);
                    if watch.database_gone.is_none() {
                        tracing::error!("what is wrong with the fleet is not known: {why}");
                    }
                    watch.database_gone.get_or_insert((now(), why));
                }
            }
            if looks.is_multiple_of(CLOCK_LOOKS)
                && let Err(error) = self.numbers.note_clock(&self.store).await
            {
                tracing::warn!("the time is not noted: {}", chain(&error));
            }
            looks += 1;
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.stopped() => {}
            }
        }
    }

    async fn look_for_incidents(&self, watch: &mut Watch) -> store::Result<()> {
        self.see_broker(watch);
        self.numbers.seen.note(&self.numbers.intake.taken(), self.numbers.clock.passed_ms());
        self.decide_incidents(self.facts(watch).await?).await
    }

    /// Decides by facts, and carries that out.
    pub(super) async fn decide_incidents(&self, facts: Facts) -> store::Result<()> {
        let now = now();
        let known = self.store.known_incidents().await?;
        let changes = incident::decide(incident::findings(&facts, now), &known, now, Uuid::now_v7);
        if changes.is_empty() {
            return Ok(());
        }
        for change in self.store.change_incidents(changes).await? {
            match change {
                Change::Opened(incident) => {
                    tracing::warn!("incident {}: {}", incident.id, incident.title);
                    self.tell_incident(&incident, "opened");
                }
                Change::Updated(incident) => self.tell_incident(&incident, "updated"),
                Change::Resolved(incident) => {
                    tracing::info!("incident {} is over: {}", incident.id, incident.title);
                    self.tell_incident(&incident, "resolved");
                }
                Change::Unmuted(_) => {}
            }
        }
        Ok(())
    }

    fn see_broker(&self, watch: &mut Watch) {
        let standing = self.broker().map(|broker| broker.standing());
        match standing {
            Some(standing) if standing.connected => {
                watch.reached.get_or_insert_with(Instant::now);
                watch.broker_gone = None;
            }
            standing => {
                let why =
                    standing.and_then(|standing| standing.trouble).unwrap_or_else(|| "no answer".to_owned());
                watch.reached = None;
                watch.broker_gone.get_or_insert((now(), why));
            }
        }
    }

    async fn facts(&self, watch: &Watch) -> store::Result<Facts> {
        let (now, steady) = (now(), self.numbers.clock.now());
        let listened = watch.reached.is_some_and(|since| since.elapsed() >= LISTENED_MIN);
        Ok(Facts {
            stopped: Some(self.store.stopped_rollouts(now).await?),
            presence: if listened { Some(self.presence(now).await?) } else { None },
            rolled_back: Some(self.store.rolled_back(steady).await?),
            refused: Some(self.store.refused_lately(now).await?),
            failed_jobs: Some(self.store.failed_jobs(now).await?),
            disk: self.disk(),
            database: Some(Outage { since: watch.database_gone.clone() }),
            broker: Some(Outage { since: watch.broker_gone.clone() }),
        })
    }

    async fn presence(&self, now: Timestamp) -> store::Result<Presence> {
        let open_since = self.store.open_since(Kind::DevicesOffline).await?;
        self.store.presence(now, open_since).await
    }

    fn disk(&self) -> Option<Disk> {
        let stat = rustix::fs::statvfs(self.settings.data.as_path()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Disk { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
    }
}

fn not_known(id: Uuid) -> Error {
    Error::NotFound(format!("incident {id} is not known; see `edgewright incident list`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing;
    use control_core::incident::FailedJob;
    use shared::JobId;

    #[tokio::test]
    async fn an_incident_is_opened_acknowledged_and_closed_when_its_cause_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        let job = FailedJob {
            id: JobId(Uuid::from_u128(1)),
            model: "mnist".to_owned(),
            at: now(),
            error: "killed".to_owned(),
        };
        let facts = |jobs| Facts { failed_jobs: Some(jobs), ..Facts::default() };
        for _ in 0..2 {
            app.decide_incidents(facts(vec![job.clone()])).await.unwrap();
        }
        let open = app.incidents(Some(true), &Page::default()).await.unwrap();
        assert_eq!((open.len(), open[0].subject.as_str()), (1, job.id.to_string().as_str()));
        for _ in 0..2 {
            let seen = app.acknowledge_incident(open[0].id, "kim").await.unwrap();
            assert_eq!(seen.evidence.last().unwrap().text, "kim looks at it");
        }
        app.decide_incidents(facts(Vec::new())).await.unwrap();
        let closed = app.incident(open[0].id).await.unwrap();
        assert!(closed.resolved_at.is_some());
        assert!(app.incidents(Some(true), &Page::default()).await.unwrap().is_empty());
        assert!(matches!(app.incident(Uuid::from_u128(9)).await, Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn an_outage_of_the_database_is_on_record_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        let since = Timestamp(now().0 - 60_000);
        let gone = Outage { since: Some((since, "connection refused".to_owned())) };
        app.decide_incidents(Facts { database: Some(gone), ..Facts::default() }).await.unwrap();
        app.decide_incidents(Facts { database: Some(Outage::default()), ..Facts::default() }).await.unwrap();
        let incidents = app.incidents(Some(false), &Page::default()).await.unwrap();
        assert_eq!((incidents[0].kind, incidents[0].evidence[0].at), (Kind::DatabaseUnreachable, since));
    }
}
