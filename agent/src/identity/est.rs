//! The device's side of EST (RFC 7030), and of what it tells the server once it has a certificate.

use super::{BYTES_MAX, Error, Identity, Secret};
use rustls::crypto::ring;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{BoardId, DeviceId};
use std::{sync::Arc, time::Duration};
use trust::est;
use ureq::{
    Body,
    http::Response,
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server, and who asks it.
pub(super) struct Client {
    agent: ureq::Agent,
    server: String,
}

/// What a device says of itself.
#[derive(Serialize)]
struct Registration<'a> {
    board: &'a BoardId,
    agent_version: &'a str,
}

/// What it is told.
#[derive(Deserialize)]
pub(super) struct Registered {
    pub(super) mqtt_host: String,
    pub(super) mqtt_port: u16,
    pub(super) root: Box<RawValue>,
}

/// RFC 9457.
#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Client {
    /// Trusts the CAs in `ca_pem` alone, and shows the certificate of `identity` if there is one.
    pub(super) fn new(server: &str, ca_pem: &str, identity: Option<&Identity>) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable { server: server.to_owned(), reason };
        let certificates = |pem: &str| {
            let all = est::from_pem(pem).map_err(|error| crate::chain(&error))?;
            Ok::<Vec<_>, String>(all.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
        };
        let roots = certificates(ca_pem)
            .map_err(|reason| unreachable(format!("ca_pem holds no certificate: {reason}")))?;
        let own = match identity {
            Some(identity) => {
                let chain = certificates(&identity.certificate_pem).map_err(unreachable)?;
                let key = PrivateKey::from_pem(identity.key_pem.reveal().as_bytes())
                    .map_err(|error| unreachable(error.to_string()))?;
                Some(ClientCert::new_with_certs(&chain, key))
            }
            None => None,
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .client_cert(own)
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Ok(Self { agent: config.into(), server: server.to_owned() })
    }

    /// The CAs that the server trusts, as PEM.
    pub(super) fn authorities(&self) -> Result<String, Error> {
        let answer = self.read(self.agent.get(self.est("cacerts")).call())?;
        let pem = self.certificates(&answer, |facts| facts.is_ca)?;
        if pem.is_empty() { Err(self.answer("none of the certificates is a CA".to_owned())) } else { Ok(pem) }
    }

    /// The first certificate (PEM) for a request (DER).
    pub(super) fn enrol(&self, device: &DeviceId, token: &Secret, request: &[u8]) -> Result<String, Error> {
        let basic = est::write_basic(device.as_str(), token.reveal());
        let post = self.agent.post(self.est("simpleenroll")).header("authorization", basic);
        let answer = post.header("content-type", est::REQUEST_TYPE).send(est::encode(request));
        self.leaf(&self.read(answer)?)
    }

    /// Another certificate (PEM) for a request (DER), by the one that is shown.
    pub(super) fn renew(&self, request: &[u8]) -> Result<String, Error> {
        let post = self.agent.post(self.est("simplereenroll"));
        let answer = post.header("content-type", est::REQUEST_TYPE).send(est::encode(request));
        self.leaf(&self.read(answer)?)
    }

    /// Says what the device is.
    pub(super) fn register(&self, board: &BoardId) -> Result<Registered, Error> {
        let registration = Registration { board, agent_version: env!("CARGO_PKG_VERSION") };
        let put = self.agent.put(format!("{}/api/v1/self", self.server));
        let answer = self.read(put.send_json(&registration))?;
        serde_json::from_slice(&answer).map_err(|error| self.answer(error.to_string()))
    }

    fn est(&self, resource: &str) -> String {
        format!("{}{}/{resource}", self.server, est::PATH)
    }

    fn leaf(&self, message: &[u8]) -> Result<String, Error> {
        let pem = self.certificates(message, |facts| !facts.is_ca)?;
        if pem.is_empty() { Err(self.answer("all certificates are CAs".to_owned())) } else { Ok(pem) }
    }

    /// Those certificates of a message that are wanted, as PEM.
    fn certificates(&self, message: &[u8], wanted: impl Fn(&est::Facts) -> bool) -> Result<String, Error> {
        let failed = |error: est::Error| self.answer(crate::chain(&error));
        let mut pem = String::new();
        for der in est::read_certificates(message).map_err(failed)? {
            if wanted(&est::facts(&der).map_err(failed)?) {
                pem.push_str(&est::to_pem(&der).map_err(failed)?);
            }
        }
        Ok(pem)
    }

    /// The body of an answer that is a success; otherwise what the server says.
    fn read(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, Error> {
        let mut answer = answer
            .map_err(|error| Error::Unreachable { server: self.server.clone(), reason: error.to_string() })?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.answer(error.to_string()))?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.detail.or(problem.title).unwrap_or_default(),
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        let detail = if detail.is_empty() { format!("status {status}") } else { shared::wire::cut(&detail) };
        Err(Error::Refused { server: self.server.clone(), detail })
    }

    fn answer(&self, reason: String) -> Error {
        Error::Answer { server: self.server.clone(), reason }
    }
}
