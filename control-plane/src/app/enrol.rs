//! One-time tokens, and how a device gets its certificate for one.

use super::{App, Error, Page, Result, chain, now, unknown};
use crate::{
    signer::{self, CSR_BYTES_MAX},
    store::tokens::{Issued, TokenRefused},
};
use control_core::entity::Token;
use serde::{Deserialize, Serialize};
use shared::{BoardId, DeviceId, Digest, limits::AGENT_VERSION_BYTES_MAX, signing::Keyring};
use std::{net::IpAddr, sync::PoisonError};
use uuid::Uuid;

/// A token's life where none is given: an hour.
pub const TTL_S_DEFAULT: u64 = 3600;
/// Longest life of a token: thirty days.
pub const TTL_S_MAX: u64 = 30 * 24 * 3600;

/// A token to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The one device that may use it.
    #[serde(default)]
    pub device: Option<DeviceId>,
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// A token as it is shown once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    pub secret: String,
    /// Where the device shall enrol.
    pub server: String,
}

/// What a device sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub token: String,
    pub csr_pem: String,
    pub board: BoardId,
    pub agent_version: String,
    /// The name that it wants, where the token leaves that open.
    #[serde(default)]
    pub device: Option<DeviceId>,
}

/// What a device gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    pub device: DeviceId,
    pub certificate_pem: String,
    pub ca_pem: String,
    pub mqtt_host: String,
    pub mqtt_port: u16,
    pub keyring: Keyring,
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
        Ok(CreatedToken { token, secret, server: self.settings.public_api.clone() })
    }

    /// Tokens, the newest first.
    pub async fn tokens(&self, page: Page) -> Result<Vec<Token>> {
        Ok(self.store.tokens(page).await?)
    }

    /// Enrols a device: checks the token, signs its certificate, and uses the token up, all or nothing. A `peer` that
    /// was refused too often is not listened to for a while.
    pub async fn enrol(&self, request: EnrolRequest, peer: IpAddr) -> Result<Enrolled> {
        if !self.admission.lock().unwrap_or_else(PoisonError::into_inner).begin(peer, now()) {
            let text = "too many enrolments from this address were refused; try again in some seconds";
            self.note_refusal(&peer.to_string(), "enrolment_flood", text);
            return Err(Error::Busy(text.to_owned()));
        }
        let result = self.try_enrol(&request).await;
        match &result {
            Ok(_) | Err(Error::Internal(_) | Error::Full) => {
                self.admission.lock().unwrap_or_else(PoisonError::into_inner).succeeded(peer);
            }
            Err(error) => {
                let subject = request.device.as_ref().map_or("a device", DeviceId::as_str);
                self.note_refusal(subject, "enrolment_refused", &error.to_string());
            }
        }
        result
    }

    async fn try_enrol(&self, request: &EnrolRequest) -> Result<Enrolled> {
        if request.csr_pem.len() > CSR_BYTES_MAX {
            return Err(Error::Invalid(format!("csr_pem is over {CSR_BYTES_MAX} bytes")));
        }
        if request.agent_version.len() > AGENT_VERSION_BYTES_MAX {
            return Err(Error::Invalid(format!("agent_version is over {AGENT_VERSION_BYTES_MAX} bytes")));
        }
        let now = now();
        let hash = Digest::of(request.token.as_bytes());
        let token = self.store.usable_token(&hash, now).await?.map_err(token_refused)?;
        if !self.boards.contains_key(&request.board) {
            let known = self.boards.keys().map(BoardId::as_str);
            let text = unknown("board", request.board.as_str(), known, "edgewright board list");
            return Err(Error::Invalid(text));
        }
        // Only a token made for a device replaces its key.
        let may_replace = token.device.is_some();
        let device = match (token.device, &request.device) {
            (Some(bound), Some(wanted)) if bound != *wanted => {
                return Err(Error::Unauthorized(format!("the token is for {bound}, not for {wanted}")));
            }
            (Some(bound), _) => bound,
            (None, Some(wanted)) => wanted.clone(),
            (None, None) => fresh_id()?,
        };
        let certificate = self.signer.issue(&request.csr_pem, &device, now).map_err(|error| match error {
            signer::Error::Request(_) => Error::Invalid(error.to_string()),
            _ => Error::Internal(chain(&error)),
        })?;
        let issued = Issued {
            device: device.clone(),
            board: request.board.clone(),
            agent_version: request.agent_version.clone(),
            serial: certificate.serial,
            expires_at: certificate.expires_at,
        };
        self.store.enrol(&hash, &issued, may_replace, now).await?.map_err(token_refused)?;
        if may_replace && let Some(broker) = self.broker.get() {
            // A session under the certificate that was good before, if there is one.
            broker.kick(&device).await;
        }
        Ok(Enrolled {
            device,
            certificate_pem: certificate.pem,
            ca_pem: self.signer.ca_pem().to_owned(),
            mqtt_host: self.settings.mqtt_host.clone(),
            mqtt_port: self.settings.mqtt_port,
            keyring: self.signer.keyring(),
        })
    }
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

fn fresh_id() -> Result<DeviceId> {
    let text = Uuid::now_v7().simple().to_string();
    // The last digits are the random ones.
    format!("device-{}", &text[text.len() - 12..])
        .parse()
        .map_err(|error| Error::Internal(format!("{error}")))
}
