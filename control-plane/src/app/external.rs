//! What a broker needs that is not the control plane's own: certificates, the list of those that were revoked, and
//! everything told again whenever it was reached.

use super::{App, Error, Result, chain, now};
use crate::{
    broker::{CLIENT_NAME, Identities, Identity},
    signer::{self, ClientCertificate, Revoked},
};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, Digest, Timestamp};
use std::{path::Path, sync::Arc, time::Duration};
use trust::est;

/// A broker's certificate to make.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBrokerCertificate {
    /// The certificate request (PKCS #10, DER) as base64; nothing but its key is taken.
    pub csr: String,
    /// Names under which devices reach the broker, besides the one that they are told.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What a broker needs of the control plane.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BrokerCertificate {
    pub certificate_pem: String,
    pub names: Vec<String>,
    pub good_until: Timestamp,
    /// All CAs whose devices may connect.
    pub ca_pem: String,
    pub crl_pem: String,
    /// Where devices look for the broker.
    pub port: u16,
}

/// The lists of revoked certificates.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevocationLists {
    /// One list of each CA.
    pub crl_pem: String,
}

/// Names of one broker.
const NAMES_MAX: usize = 32;
/// Life of the control plane's own client certificate; each connection has another.
const OWN_LIFE: Duration = Duration::from_secs(24 * 3600);
const OWN_RENEWED_AFTER: Duration = Duration::from_secs(16 * 3600);
/// Life of a certificate for a takeover, which is used at once: as much as a broker's clock may be ahead.
const TAKEOVER_LIFE: Duration = Duration::from_secs(3600);
/// How often what the broker does not have yet is told again.
const TELL_PERIOD: Duration = Duration::from_secs(5);
/// How often is looked for revoked certificates that nobody told of.
const LIST_PERIOD: Duration = Duration::from_secs(60);
/// At least between two lists: their times are in seconds, and the later one counts.
const LIST_PERIOD_MIN: Duration = Duration::from_millis(1100);

impl Identities for App {
    fn own(&self) -> std::result::Result<Identity, String> {
        self.identity(CLIENT_NAME, OWN_LIFE, OWN_RENEWED_AFTER)
    }

    fn of_device(&self, device: &DeviceId) -> std::result::Result<Identity, String> {
        self.identity(device.as_str(), TAKEOVER_LIFE, TAKEOVER_LIFE)
    }
}

impl App {
    fn identity(
        &self,
        name: &str,
        life: Duration,
        renew_after: Duration,
    ) -> std::result::Result<Identity, String> {
        let made = self.signer.client_certificate(name, life, now()).map_err(|error| chain(&error))?;
        let ClientCertificate { certificate_pem, key_pem } = made;
        Ok(Identity { certificate_pem, key_pem, ca_pem: self.signer.ca_pem(), renew_after })
    }

    /// Is what devices say heard, and do they hear what is told?
    pub(super) fn hears_devices(&self) -> bool {
        match self.broker() {
            Some(broker) => broker.is_connected(),
            // Without a broker at all there is nothing to be away from; where another server acts, it hears them.
            None => self.store.leads(),
        }
    }

    /// Makes a broker's certificate, and gives what else it needs.
    pub async fn broker_certificate(&self, new: NewBrokerCertificate) -> Result<BrokerCertificate> {
        let csr = est::decode(new.csr.as_bytes()).map_err(|error| Error::Invalid(chain(&error)))?;
        let mut names = new.names;
        if names.len() > NAMES_MAX {
            return Err(Error::Invalid(format!("{} names, at most {NAMES_MAX}", names.len())));
        }
        names.push(self.settings.mqtt_host.clone());
        names.sort();
        names.dedup();
        let issued = self.signer.issue_broker(&csr, &names, now());
        let (certificate_pem, good_until) = issued.map_err(|error| match error {
            signer::Error::Request(_) | signer::Error::Host(_) => Error::Invalid(error.to_string()),
            _ => Error::Internal(chain(&error)),
        })?;
        Ok(BrokerCertificate {
            certificate_pem,
            names,
            good_until,
            ca_pem: self.signer.ca_pem(),
            crl_pem: self.revocation_lists().await?.crl_pem,
            port: self.settings.mqtt_port,
        })
    }

    /// The lists of revoked certificates as of now.
    pub async fn revocation_lists(&self) -> Result<RevocationLists> {
        self.sign_lists(&self.revoked().await?)
    }

    async fn revoked(&self) -> Result<Vec<Revoked>> {
        let rows = self.store.revoked_certificates(now()).await?;
        let revoked = rows.into_iter().map(|row| Revoked {
            serial: row.serial,
            authority: row.authority,
            at: row.revoked_at,
        });
        Ok(revoked.collect())
    }

    fn sign_lists(&self, revoked: &[Revoked]) -> Result<RevocationLists> {
        let signed = self.signer.revocation_lists(revoked, now());
        Ok(RevocationLists { crl_pem: signed.map_err(|error| Error::Internal(chain(&error)))? })
    }

    /// Tells the broker everything again whenever it was reached, until the application stops.
    pub async fn run_broker(self: Arc<Self>) {
        let Some(mut arrivals) = self.broker().and_then(|broker| broker.arrivals()) else {
            return self.stopped().await;
        };
        let (mut seen, mut all_told) = (0, true);
        loop {
            let arrived = *arrivals.borrow_and_update();
            if arrived != seen || !all_told {
                if arrived != seen {
                    self.forget_told_trust().await;
                    self.forget_told_desired().await;
                }
                seen = arrived;
                all_told = self.publish_trust().await;
                if let Err(error) = self.publish_desired().await {
                    tracing::error!("desired states do not reach the broker: {}", chain(&error));
                    all_told = false;
                }
            }
            tokio::select! {
                () = self.stopped() => return,
                Ok(()) = arrivals.changed() => {}
                () = tokio::time::sleep(TELL_PERIOD), if !all_told => {}
            }
        }
    }

    /// Keeps the file with the lists of revoked certificates as it should be, until the application stops.
    pub async fn run_revocation_lists(self: Arc<Self>) {
        let Some(path) = self.settings.broker_crl.clone() else { return self.stopped().await };
        let mut written = None;
        loop {
            if let Err(error) = self.write_lists(&path, &mut written).await {
                tracing::error!("the list of revoked certificates is not up to date: {}", chain(&error));
            }
            tokio::select! {
                () = self.stopped() => return,
                () = tokio::time::sleep(LIST_PERIOD_MIN) => {}
            }
            tokio::select! {
                () = self.stopped() => return,
                () = self.revocations.notified() => {}
                () = tokio::time::sleep(LIST_PERIOD) => {}
            }
        }
    }

    async fn write_lists(
        &self,
        path: &Path,
        written: &mut Option<(Vec<Revoked>, Vec<Digest>)>,
    ) -> Result<()> {
        let authorities: Vec<Digest> =
            self.signer.authority_infos().into_iter().map(|info| info.digest).collect();
        let next = (self.revoked().await?, authorities);
        if written.as_ref() == Some(&next) {
            return Ok(());
        }
        let lists = self.sign_lists(&next.0)?;
        signer::write_public(path, lists.crl_pem.as_bytes())
            .map_err(|error| Error::Internal(chain(&error)))?;
        tracing::info!(
            "{} names {} revoked certificates; have the broker read it again (mosquitto does on SIGHUP)",
            path.display(),
            next.0.len()
        );
        *written = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
