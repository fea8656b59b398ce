//! One-time tokens, how a device gets its certificates (EST, RFC 7030), and what it is told once it has one.

use super::{App, Error, Page, Result, chain, changes::ChangeKind, now, unknown};
use crate::{
    signer::{self, DeviceCertificate},
    store::{certificates::Issued, tokens::TokenRefused},
};
use control_core::entity::Token;
use serde::{Deserialize, Serialize};
use shared::{BoardId, DeviceId, Digest, limits::AGENT_VERSION_BYTES_MAX};
use std::{net::IpAddr, sync::PoisonError};
use trust::est::{self, Facts};
use uuid::Uuid;

/// A token's life where none is given: an hour.
pub const TTL_S_DEFAULT: u64 = 3600;
/// Longest life of a token: thirty days.
pub const TTL_S_MAX: u64 = 30 * 24 * 3600;

/// A token to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The one device that may use it.
    #[serde(default)]
    pub device: Option<DeviceId>,
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// A token as it is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    pub secret: String,
    /// Where the device shall enrol.
    pub server: String,
    /// Whom it shall trust there.
    pub ca_pem: String,
}

/// Who asks for a first certificate: the device, with a token as its password.
#[derive(Clone)]
pub struct Credentials {
    pub device: String,
    pub token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("device", &self.device).finish_non_exhaustive()
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Registration {
    pub board: BoardId,
    pub agent_version: String,
}

/// What a device is told.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Registered {
    pub device: DeviceId,
    pub mqtt_host: String,
    pub mqtt_port: u16,
    /// The first root of the trust metadata; all that a device believes goes back to it.
    pub root: serde_json::Value,
}

/// A certificate that a TLS client has shown and that is one of ours.
struct Shown {
    device: DeviceId,
    serial: String,
}

impl App {
    /// Makes a token. Its secret is in the answer and nowhere else.
    pub async fn create_token(&self, new: NewToken) -> Result<CreatedToken> {
        let ttl_s = new.ttl_s.unwrap_or(TTL_S_DEFAULT);
        if !(1..=TTL_S_MAX).contains(&ttl_s) {
            return Err(Error::Invalid(format!("ttl_s is {ttl_s}, allowed are 1 to {TTL_S_MAX}")));
        }
        if let Some(device) = &new.device
            && self.store.device(device).await?.is_some_and(|device| device.revoked_at.is_some())
        {
            return Err(Error::Conflict(format!("device {device} was revoked; give it another id")));
        }
        let secret = signer::secret().map_err(|error| Error::Internal(chain(&error)))?;
        let created_at = now();
        let token = Token {
            id: Uuid::now_v7(),
            device: new.device,
            created_at,
            expires_at: created_at.plus_ms(ttl_s * 1000),
            used_at: None,
            used_by: None,
        };
        self.store.add_token(&token, &Digest::of(secret.as_bytes())).await?;
        let (server, ca_pem) = (self.settings.public_api.clone(), self.signer.ca_pem());
        Ok(CreatedToken { token, secret, server, ca_pem })
    }

    /// Tokens, the newest first.
    pub async fn tokens(&self, page: &Page) -> Result<Vec<Token>> {
        Ok(self.store.tokens(page).await?)
    }

    /// The first certificate of a device (PEM): checks the token, signs, and uses the token up, all or nothing. `csr`
    /// is a certificate request as DER. A `peer` that was refused too often is not listened to for a while.
    pub async fn enrol(&self, credentials: &Credentials, csr: &[u8], peer: IpAddr) -> Result<String> {
        let work = self.try_enrol(credentials, csr);
        self.admitted(peer, &credentials.device, "enrolment_refused", work).await
    }

    /// Another certificate for a device that has shown `certificate` (DER) over TLS.
    pub async fn renew(&self, certificate: &[u8], csr: &[u8], peer: IpAddr) -> Result<String> {
        let (subject, facts) = facts_of(certificate);
        self.admitted(peer, &subject, "renewal_refused", self.try_renew(facts, csr)).await
    }

    /// Takes in what a device says of itself, and tells it where the broker is and whose signatures to trust.
    pub async fn register(
        &self,
        certificate: &[u8],
        registration: &Registration,
        peer: IpAddr,
    ) -> Result<Registered> {
        let (subject, facts) = facts_of(certificate);
        let work = self.try_register(facts, registration);
        self.admitted(peer, &subject, "registration_refused", work).await
    }

    async fn admitted<T>(
        &self,
        peer: IpAddr,
        subject: &str,
        kind: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.admission.lock().unwrap_or_else(PoisonError::into_inner).begin(peer, now()) {
            let text = "too many requests from this address were refused; try again in some seconds";
            self.note_refusal(&peer.to_string(), "enrolment_flood", text);
            return Err(Error::Busy(text.to_owned()));
        }
        let result = work.await;
        match &result {
            Ok(_) | Err(Error::Internal(_) | Error::Full | Error::Unavailable(_)) => {
                self.admission.lock().unwrap_or_else(PoisonError::into_inner).succeeded(peer);
            }
            Err(error) => self.note_refusal(subject, kind, &error.to_string()),
        }
        result
    }

    async fn try_enrol(&self, credentials: &Credentials, csr: &[u8]) -> Result<String> {
        let invalid = |error: shared::id::Error| Error::Invalid(error.to_string());
        let device: DeviceId = credentials.device.parse().map_err(invalid)?;
        let now = now();
        let key = signer::request_key(csr, &device).map_err(not_issued)?;
        let hash = Digest::of(credentials.token.as_bytes());
        let token = self.store.usable_token(&hash, &key, now).await?.map_err(token_refused)?;
        if let Some(bound) = token.device.as_ref().filter(|bound| **bound != device) {
            return Err(Error::Unauthorized(format!("the token is for {bound}, not for {device}")));
        }
        // Only a token made for a device replaces its key, and one that this very key has used.
        let may_replace = token.device.is_some() || token.used_by.as_ref() == Some(&device);
        let (pem, issued) = self.issue(csr, &device)?;
        self.store.enrol(&hash, &issued, may_replace, now).await?.map_err(token_refused)?;
        self.revocations.notify_one();
        if may_replace && let Some(broker) = self.broker() {
            // A session under the certificate that was good before, if there is one.
            broker.kick(&device).await;
        }
        Ok(pem)
    }

    async fn try_renew(&self, facts: Result<Facts>, csr: &[u8]) -> Result<String> {
        let shown = self.shown(facts?).await?;
        let (pem, issued) = self.issue(csr, &shown.device)?;
        if !self.store.renew(&shown.serial, &issued, now()).await? {
            return Err(not_good(&shown.device));
        }
        Ok(pem)
    }

    async fn try_register(&self, facts: Result<Facts>, registration: &Registration) -> Result<Registered> {
        let Shown { device, .. } = self.shown(facts?).await?;
        if registration.agent_version.len() > AGENT_VERSION_BYTES_MAX {
            return Err(Error::Invalid(format!("agent_version is over {AGENT_VERSION_BYTES_MAX} bytes")));
        }
        let board = &registration.board;
        if !self.boards.contains_key(board) {
            let known = self.boards.keys().map(BoardId::as_str);
            return Err(Error::Invalid(unknown("board", board.as_str(), known, "edgewright board list")));
        }
        self.store.set_board(&device, board, &registration.agent_version).await?;
        self.tell(ChangeKind::Device, &device, "registered");
        self.planner_wake.notify_one();
        let root = serde_json::from_slice(&self.root_metadata().await);
        let root = root.map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Registered {
            device,
            mqtt_host: self.settings.mqtt_host.clone(),
            mqtt_port: self.settings.mqtt_port,
            root,
        })
    }

    /// Whose certificate it is. TLS has verified its chain and its time; here it must not be revoked.
    async fn shown(&self, facts: Facts) -> Result<Shown> {
        let name = facts.common_name.unwrap_or_default();
        let device: DeviceId = name
            .parse()
            .map_err(|_| Error::Forbidden("the client certificate names no device".to_owned()))?;
        if !self.store.use_certificate(&device, &facts.serial, now()).await? {
            return Err(not_good(&device));
        }
        Ok(Shown { device, serial: facts.serial })
    }

    /// A certificate (PEM), and what is kept of it.
    fn issue(&self, csr: &[u8], device: &DeviceId) -> Result<(String, Issued)> {
        let issued = self.signer.issue(csr, device, self.settings.certificate_days, now());
        let DeviceCertificate { pem, serial, expires_at, authority, key } = issued.map_err(not_issued)?;
        Ok((pem, Issued { device: device.clone(), serial, expires_at, authority, key }))
    }
}

/// Whom a certificate (DER) names, for the record, and what it says.
fn facts_of(certificate: &[u8]) -> (String, Result<Facts>) {
    let facts = est::facts(certificate).map_err(|error| Error::Invalid(chain(&error)));
    let name = facts.as_ref().ok().and_then(|facts| facts.common_name.clone());
    (name.unwrap_or_default(), facts)
}

fn not_issued(error: signer::Error) -> Error {
    match error {
        signer::Error::Request(_) | signer::Error::Name { .. } => Error::Invalid(error.to_string()),
        _ => Error::Internal(chain(&error)),
    }
}

fn not_good(device: &DeviceId) -> Error {
    Error::Forbidden(format!("the client certificate of {device} is unknown or revoked"))
}

fn token_refused(refused: TokenRefused) -> Error {
    let again = "make another with `edgewright device token create`";
    match refused {
        TokenRefused::Unknown => Error::Unauthorized(format!("the enrolment token is not known; {again}")),
        TokenRefused::Used => Error::Conflict(format!("the enrolment token was used already; {again}")),
        TokenRefused::Expired => Error::Unauthorized(format!("the enrolment token has expired; {again}")),
        TokenRefused::Revoked => Error::Conflict("the device was revoked; give it another id".to_owned()),
        TokenRefused::Taken => Error::Conflict(
            "a device of that name is enrolled; only a token made for it replaces its key".to_owned(),
        ),
    }
}
