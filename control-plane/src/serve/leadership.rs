//! When this server acts for the fleet. With SQLite it always does. With PostgreSQL the one of several does that has the
//! lease; [`control_core::leader`] says what to do about it, and here it is done (ADR 37).

use super::{Mqtt, acting::Acting};
use crate::{
    app::{App, chain},
    store,
};
use anyhow::{Result, anyhow, bail};
use control_core::leader::{ANSWER_MS_MAX, ASK_MS, Action, Answer, Candidate, End, LEASE_MS};
use shared::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LEASE: Duration = Duration::from_millis(LEASE_MS);
const ANSWER_LIMIT: Duration = Duration::from_millis(ANSWER_MS_MAX);
/// A server that was killed keeps its lease to its end; one that is still renewed after this is another's.
const OWN_LEASE_LIMIT: Duration = Duration::from_millis(LEASE_MS + LEASE_MS / 2);

/// Has the server act when it is its turn.
pub(super) struct Leadership {
    app: Arc<App>,
    mqtt: Mqtt,
    name: String,
    /// Where no other server can be: none.
    candidate: Option<Candidate>,
    acting: Option<Acting>,
    clock: Clock,
}

/// Time that does not jump.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Timestamp {
        Timestamp(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn until(self, at: Timestamp) -> Duration {
        Duration::from_millis(at.since_ms(self.now()))
    }
}

impl Leadership {
    /// Begins to act at once where the server is alone. One with a broker of its own on a shared database has to get the
    /// lease first.
    ///
    /// # Errors
    /// It cannot begin, or another server has the lease for good.
    pub(super) async fn start(app: Arc<App>, mqtt: Mqtt, name: String) -> Result<Self> {
        let clock = Clock(Instant::now());
        let mut this = Self { app, mqtt, name, candidate: None, acting: None, clock };
        if this.app.store().is_shared() {
            this.candidate = Some(match this.mqtt {
                Mqtt::Embedded(_) => this.take_for_good().await?,
                Mqtt::External { .. } => Candidate::new(false, clock.now()),
            });
        }
        if this.candidate.is_none() || this.keeps() {
            this.acting = Some(Acting::begin(&this.app, &this.mqtt).await?);
        }
        Ok(this)
    }

    /// Its broker is in this process: it cannot end and begin again.
    fn keeps(&self) -> bool {
        matches!(self.mqtt, Mqtt::Embedded(_))
    }

    async fn take_for_good(&self) -> Result<Candidate> {
        let begun = Instant::now();
        loop {
            let asked_at = self.clock.now();
            if let Some(epoch) = self.app.store().take_lead(&self.name, true, LEASE).await? {
                return Ok(Candidate::holding(true, epoch, asked_at));
            }
            if begun.elapsed() > OWN_LEASE_LIMIT {
                let holder = self.app.store().holder().await?;
                bail!(
                    "server {} acts on this database; a second one needs a broker that both reach: give both --broker",
                    holder.map_or_else(String::new, |holder| holder.name)
                );
            }
            tokio::time::sleep(Duration::from_millis(ASK_MS)).await;
        }
    }

    /// Runs until the application stops.
    ///
    /// # Errors
    /// A part has ended without which the server is none.
    pub(super) async fn run(mut self) -> Result<()> {
        let app = Arc::clone(&self.app);
        loop {
            if app.is_stopping() {
                return self.finish().await;
            }
            let action = match &mut self.candidate {
                Some(candidate) => candidate.poll_action(self.clock.now()),
                None => None,
            };
            if let Some(action) = action {
                self.act(action).await?;
                continue;
            }
            let wait = self.candidate.as_ref().map(|candidate| self.clock.until(candidate.poll_timeout()));
            tokio::select! {
                // Once it stops, loops that end are no failure.
                biased;
                () = app.stopped() => {}
                () = sleep(wait) => {}
                error = failed(&mut self.acting) => return Err(error),
            }
        }
    }

    async fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Take | Action::Renew { .. } => {
                let asked_at = self.clock.now();
                let answer = self.ask(action).await?;
                if let Some(candidate) = &mut self.candidate {
                    candidate.handle(answer, asked_at, self.clock.now());
                }
            }
            Action::Begin { epoch } => self.begin(epoch).await,
            Action::End(end) => {
                let reason = match end {
                    End::Silence => "the database has not answered for too long",
                    End::Deposed => "another server does",
                };
                if self.keeps() {
                    return Err(anyhow!(
                        "this server acts for the fleet no more: {reason}; it cannot go on with a broker of its own"
                    ));
                }
                tracing::warn!("this server acts for the fleet no more: {reason}");
                if let Some(acting) = self.acting.take() {
                    acting.break_off(&self.app).await;
                }
            }
        }
        Ok(())
    }

    async fn ask(&self, action: Action) -> Result<Answer> {
        let store = self.app.store();
        let asked = async {
            Ok::<_, store::Error>(match action {
                Action::Take => {
                    self.refuse_beside_embedded().await?;
                    Answer::Taken(store.take_lead(&self.name, self.keeps(), LEASE).await?)
                }
                Action::Renew { epoch } => Answer::Renewed(store.renew_lead(epoch, LEASE).await?),
                Action::Begin { .. } | Action::End(_) => Answer::None,
            })
        };
        match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(store::Error::Conflict(text))) => Err(anyhow!(text)),
            Ok(Err(error)) => {
                tracing::warn!("which server acts cannot be asked: {}", chain(&error));
                Ok(Answer::None)
            }
            Err(_) => {
                tracing::warn!("which server acts cannot be asked: the database does not answer");
                Ok(Answer::None)
            }
        }
    }

    /// A server beside one whose broker is in its own process would never hear the devices.
    async fn refuse_beside_embedded(&self) -> store::Result<()> {
        let holder = self.app.store().holder().await?;
        match holder.filter(|holder| holder.embedded && holder.holds && holder.name != self.name) {
            Some(holder) => Err(store::Error::Conflict(format!(
                "server {} acts on this database with a broker in its own process; two servers need a broker that both \
                 reach: give both --broker",
                holder.name
            ))),
            None => Ok(()),
        }
    }

    async fn begin(&mut self, epoch: u64) {
        match Acting::begin(&self.app, &self.mqtt).await {
            Ok(acting) => {
                tracing::info!("server {} acts for the fleet, epoch {epoch}", self.name);
                self.acting = Some(acting);
            }
            Err(error) => {
                tracing::error!("this server cannot act for the fleet: {error:#}");
                if let Some(candidate) = &mut self.candidate {
                    candidate.give_up(self.clock.now());
                }
                self.give_up(epoch).await;
            }
        }
    }

    /// The next server begins at once.
    async fn give_up(&self, epoch: u64) {
        let given = tokio::time::timeout(ANSWER_LIMIT, self.app.store().give_up_lead(epoch)).await;
        if let Ok(Err(error)) = given {
            tracing::warn!("the lease stays until it ends: {}", chain(&error));
        }
    }

    async fn finish(mut self) -> Result<()> {
        if let Some(acting) = self.acting.take() {
            acting.finish(&self.app).await;
        }
        if let Some(epoch) = self.candidate.as_ref().and_then(Candidate::epoch) {
            self.give_up(epoch).await;
        }
        Ok(())
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn failed(acting: &mut Option<Acting>) -> anyhow::Error {
    match acting {
        Some(acting) => acting.failed().await,
        None => std::future::pending().await,
    }
}
