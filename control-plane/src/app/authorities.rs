//! The fleet's CAs: adding one under a running fleet, and retiring those before it.
//!
//! A new CA issues to devices at once; the server's own certificate stays that of the oldest, which everybody trusts.
//! A device learns of the new CA with the certificate that it gets from it, at the latest after two thirds of a
//! certificate's life. When all have, the old ones can go.

use super::{App, Error, Result, chain, now};
use crate::{
    broker,
    signer::{self, AUTHORITIES_MAX, AuthorityInfo},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How soon what another server makes of the CAs is taken over.
const SHARED_PERIOD: Duration = Duration::from_secs(2);

/// A CA with those who depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuthorityStatus {
    #[serde(flatten)]
    pub info: AuthorityInfo,
    /// Devices that use a certificate of it.
    pub devices: u64,
}

/// Which CAs shall go.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// Also where devices would be shut out.
    #[serde(default)]
    pub force: bool,
}

impl App {
    /// The CAs, the oldest first.
    pub async fn authorities(&self) -> Result<Vec<AuthorityStatus>> {
        let mut all = Vec::with_capacity(AUTHORITIES_MAX);
        for info in self.signer.authority_infos() {
            let devices = self.store.count_devices_of_authority(&info.digest, now()).await?;
            all.push(AuthorityStatus { info, devices });
        }
        Ok(all)
    }

    /// Adds a CA, which issues to devices from now on.
    pub async fn rotate_authority(&self) -> Result<Vec<AuthorityStatus>> {
        let _one_at_a_time = self.rotation.lock().await;
        self.refuse_beside_leader().await?;
        self.signer.rotate_authority(now()).map_err(|error| match error {
            signer::Error::Authorities => Error::Conflict(error.to_string()),
            _ => Error::Internal(chain(&error)),
        })?;
        self.tls_changed().await?;
        self.authorities().await
    }

    /// Trusts the newest CA alone. Refused while devices have no certificate of it, unless that is forced.
    pub async fn retire_authorities(&self, retirement: Retirement) -> Result<Vec<AuthorityStatus>> {
        let _one_at_a_time = self.rotation.lock().await;
        self.refuse_beside_leader().await?;
        let infos = self.signer.authority_infos();
        let Some(newest) = infos.iter().find(|info| info.issues).filter(|_| infos.len() > 1) else {
            let text = "there is one CA; add another first with `edgewright ca rotate`";
            return Err(Error::Conflict(text.to_owned()));
        };
        let left = self.store.devices_without_authority(&newest.digest, now()).await?;
        if !left.is_empty() && !retirement.force {
            return Err(Error::Conflict(format!(
                "{} devices use certificates of the old CA; they renew them by themselves, or shut them out with --force",
                left.len()
            )));
        }
        self.signer.retire_authorities(now()).map_err(|error| Error::Internal(chain(&error)))?;
        self.tls_changed().await?;
        if let Some(broker) = self.broker() {
            // Those that are shut out would stay connected until they come again.
            for device in &left {
                broker.kick(device).await;
            }
        }
        self.authorities().await
    }

    /// Where other servers work on the folder too: takes over what they make of the CAs, until the application stops.
    pub async fn run_authorities(self: Arc<Self>) {
        if !self.store.is_shared() {
            return self.stopped().await;
        }
        loop {
            tokio::select! {
                () = self.stopped() => return,
                () = tokio::time::sleep(SHARED_PERIOD) => {}
            }
            let taken = match self.signer.reload_authorities() {
                Ok(true) => self.tls_changed().await,
                Ok(false) => Ok(()),
                Err(error) => Err(Error::Internal(chain(&error))),
            };
            if let Err(error) = taken {
                tracing::error!("the CAs of another server are not taken over: {}", chain(&error));
            }
        }
    }

    /// Tells of changes of the CAs or of the server's certificate.
    pub fn tls_changes(&self) -> watch::Receiver<u64> {
        self.tls_changes.subscribe()
    }

    /// What the broker listens with.
    pub(crate) fn broker_files(&self) -> broker::Files {
        broker::Files {
            certificate: self.signer.server_certificate_path(),
            key: self.signer.server_key_path(),
            ca: self.signer.ca_path(),
        }
    }

    async fn tls_changed(&self) -> Result<()> {
        self.tls_changes.send_modify(|count| *count += 1);
        self.revocations.notify_one();
        match self.broker() {
            Some(broker) => broker.reload().await.map_err(|error| Error::Internal(chain(&error))),
            None => Ok(()),
        }
    }
}
