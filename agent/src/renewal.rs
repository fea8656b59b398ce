//! Keeps the device's certificate alive: asks for the next one in time, puts it in place, and has the link connect
//! with it. A server that does not answer is asked again, also after the certificate has expired: by whose clock it has
//! is the server's to say.

use crate::{
    clock::{Clock, wall},
    data::DataDir,
    identity::{Error, Identity},
    link::mqtt::Mqtt,
    store::Store,
    updater::{self, of_the_agent},
};
use agent_core::renewal::{Lifetime, Now, Renewal, Standing};
use arc_swap::ArcSwap;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use shared::{Timestamp, wire::EventKind};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the certificate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub not_after: Timestamp,
    /// By the clock on the wall.
    pub expired: bool,
    /// Renewals since the start of the process.
    pub renewals: u64,
    /// Why the last try to renew it failed; none where it did not.
    pub trouble: Option<String>,
}

/// For people.
pub fn describe(status: &CertificateStatus) -> String {
    let hours = status.not_after.since_ms(wall()) / 3_600_000;
    let life = if status.expired { "expired".to_owned() } else { format!("good for {hours} h") };
    match &status.trouble {
        Some(trouble) => format!("{life}, not renewed: {trouble}"),
        None => life,
    }
}

/// What the task works with.
pub struct Renewer {
    pub identity: Identity,
    pub data: Arc<DataDir>,
    pub tls: Arc<ArcSwap<ClientConfig>>,
    pub link: Mqtt,
    pub store: Arc<Store>,
    pub shared: Arc<updater::Shared>,
    pub seed: u64,
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewer({})", self.identity.device)
    }
}

impl Renewer {
    /// Makes the task. SIGUSR1 has it renew at once. To be called within a runtime.
    pub fn start(self) -> Result<impl Future<Output = ()> + Send + use<>, StartError> {
        let lifetime = self.identity.lifetime(&self.data)?;
        let asked = signal(SignalKind::user_defined1())?;
        Ok(self.run(lifetime, asked))
    }

    async fn run(mut self, mut lifetime: Lifetime, mut asked: Signal) {
        let clock = Clock::start();
        let now = || Now { wall: wall(), monotonic: clock.monotonic() };
        let mut renewal = Renewal::new(lifetime, self.seed);
        let (mut renewals, mut said_expired) = (0, false);
        let mut trouble: Option<String> = None;
        loop {
            let expired = renewal.standing(now()) == Standing::Expired;
            self.shared.set_certificate(CertificateStatus {
                not_after: lifetime.not_after,
                expired,
                renewals,
                trouble: trouble.clone(),
            });
            if expired && !std::mem::replace(&mut said_expired, true) {
                let why = trouble.as_deref().unwrap_or("the device was away");
                self.note(
                    EventKind::CertificateExpired,
                    format!("the certificate was not renewed in time: {why}"),
                );
            }
            let wait_ms = renewal.wait_ms(now());
            if wait_ms > 0 {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(wait_ms)) => continue,
                    Some(()) = asked.recv() => {}
                }
            }
            match self.renew().await {
                Ok(fresh) => {
                    lifetime = fresh;
                    renewal.renewed(lifetime, now());
                    (trouble, said_expired) = (None, false);
                    renewals += 1;
                    tracing::info!("the certificate was renewed");
                    self.note(EventKind::CertificateRenewed, String::new());
                }
                Err(reason) => {
                    renewal.failed(now());
                    if trouble.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "the certificate was not renewed; trying again until it is");
                    }
                    trouble = Some(reason);
                }
            }
        }
    }

    /// One try; the life of the new certificate, or what kept it.
    async fn renew(&mut self) -> Result<Lifetime, String> {
        let (identity, data) = (self.identity.clone(), self.data.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let renewed = identity.renew(&data)?;
            let (tls, lifetime) = (renewed.tls(&data)?, renewed.lifetime(&data)?);
            Ok((renewed, tls, lifetime))
        });
        let (renewed, tls, lifetime) =
            asking.await.map_err(|error| error.to_string())?.map_err(|error: Error| crate::chain(&error))?;
        self.identity = renewed;
        self.tls.store(Arc::new(tls));
        self.link.reconnect();
        Ok(lifetime)
    }

    fn note(&self, kind: EventKind, detail: String) {
        match self.store.put(&[of_the_agent(kind, detail)]) {
            Ok(_) => self.shared.outbox.notify_one(),
            Err(error) => tracing::warn!(error = crate::chain(&error), "an event was lost"),
        }
    }
}

/// Why the task cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] Error),
    #[error("the system refused a signal")]
    Signal(#[from] io::Error),
}
