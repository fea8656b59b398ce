//! What only the server does that acts for the fleet: the broker, and the loops that change things by themselves.

use super::{Mqtt, named};
use crate::{
    app::{App, delivery},
    broker::{self, Broker, Identities, Ingest},
};
use anyhow::{Context, Result, anyhow};
use std::sync::Arc;
use tokio::task::JoinSet;

/// The parts of a server that acts.
pub(super) struct Acting {
    broker: Broker,
    /// Each gives its name when it ends.
    loops: JoinSet<&'static str>,
}

impl Acting {
    /// Begins. Where it fails nothing is left of it.
    pub(super) async fn begin(app: &Arc<App>, mqtt: &Mqtt) -> Result<Self> {
        app.take_up().await.context("the fleet cannot be taken up")?;
        let broker = start_broker(app, mqtt).await?;
        app.attach(broker.clone());
        app.publish_trust().await;
        if let Err(error) = app.publish_desired().await {
            broker.close().await;
            app.lay_down().await;
            return Err(error).context("the fleet cannot be taken up");
        }
        let mut loops = JoinSet::new();
        loops.spawn(named("delivery", delivery::run(Arc::clone(app))));
        loops.spawn(named("the planner", Arc::clone(app).run_planner()));
        loops.spawn(named("the job runner", Arc::clone(app).run_jobs()));
        loops.spawn(named("the asker of profiles", Arc::clone(app).run_profiles()));
        loops.spawn(named("the keeper of trust", Arc::clone(app).run_trust()));
        loops.spawn(named("the broker's prompter", Arc::clone(app).run_broker()));
        loops.spawn(named("the list of revoked certificates", Arc::clone(app).run_revocation_lists()));
        loops.spawn(named("the watch for incidents", Arc::clone(app).run_incidents()));
        loops.spawn(named("the keeper of what is not too old", Arc::clone(app).run_retention()));
        Ok(Self { broker, loops })
    }

    /// Resolves with an error when a part has ended without which nothing acts.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            () = self.broker.ended() => anyhow!("the broker has ended"),
            Some(ended) = self.loops.join_next() => match ended {
                Ok(name) => anyhow!("{name} has ended"),
                Err(error) => anyhow!("a part of the server broke off: {error}"),
            },
        }
    }

    /// Breaks everything off: another server acts from here on. What was under way is as after a kill, and whoever acts
    /// next goes on from the store.
    pub(super) async fn break_off(mut self, app: &App) {
        self.broker.close().await;
        self.loops.shutdown().await;
        app.lay_down().await;
    }

    /// Ends when the application was told to stop: workers stop where their checkpoints are, everything else is in the
    /// store already.
    pub(super) async fn finish(mut self, app: &App) {
        while self.loops.join_next().await.is_some() {}
        self.broker.close().await;
        app.settle().await;
    }
}

async fn start_broker(app: &Arc<App>, mqtt: &Mqtt) -> Result<Broker, broker::Error> {
    let ingest = Arc::clone(app) as Arc<dyn Ingest>;
    match mqtt {
        Mqtt::Embedded(address) => {
            let config = broker::Config {
                address: *address,
                files: app.broker_files(),
                session_life: broker::SESSION_LIFE,
            };
            Broker::embedded(config, ingest).await
        }
        Mqtt::External { address, .. } => {
            let identities = Arc::clone(app) as Arc<dyn Identities>;
            Ok(Broker::external(address.clone(), identities, ingest))
        }
    }
}
