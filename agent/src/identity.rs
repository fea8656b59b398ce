//! Who the device is: its own key, a certificate from the fleet's CA, and the keys it trusts.
//!
//! The key never leaves the device. Enrolment sends a signing request with a one-time token over HTTPS and keeps
//! the answer; a device that has an identity uses no token.

use crate::{blobs, data, data::DataDir};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use shared::{BoardId, DeviceId, signing::Keyring};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Largest file or answer that is read here.
const BYTES_MAX: u64 = 256 * 1024;
/// Longest wait for the server's answer.
const ENROL_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the server enrols devices.
const ENROL_PATH: &str = "/api/v1/enroll";

/// Why the device has no identity. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was enrolled and nothing says how to.
    #[error(
        "this device has no identity in {data}; make a token with `edgewright device token create --out FILE` and give it with --enroll FILE"
    )]
    NotEnrolled { data: PathBuf },
    /// The enrolment file is missing or is none.
    #[error(
        "cannot read the enrolment file {path}: {reason}; make one with `edgewright device token create --out FILE`"
    )]
    EnrolFile { path: PathBuf, reason: String },
    /// The server was not reached.
    #[error(
        "cannot reach {server} to enrol: {reason}; check the address in the enrolment file and that the server runs"
    )]
    Unreachable { server: String, reason: String },
    /// The server said no.
    #[error("{server} refused to enrol this device: {detail}")]
    Refused { server: String, detail: String },
    /// The server's answer is not one.
    #[error("{server} sent an answer that is no enrolment: {reason}")]
    Answer { server: String, reason: String },
    /// A stored file is missing or damaged.
    #[error(
        "the identity in {path} is damaged: {reason}; remove the folder and enrol again with a new token"
    )]
    Damaged { path: PathBuf, reason: String },
    /// The file system failed.
    #[error("cannot write {path}; free disk space, or give another folder with --data")]
    Write { path: PathBuf, source: io::Error },
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
}

/// What `edgewright device token create --out FILE` writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    /// `https://host:port`.
    pub server: String,
    /// The fleet's CA.
    pub ca_pem: String,
    /// Good for one device, once.
    pub token: Token,
    /// The id that the token is bound to.
    pub device: Option<DeviceId>,
}

/// A one-time token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Debug, Serialize)]
struct EnrolRequest<'a> {
    token: &'a Token,
    csr_pem: &'a str,
    board: &'a BoardId,
    agent_version: &'a str,
}

/// What the server answers, and what is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub device: DeviceId,
    pub certificate_pem: String,
    pub ca_pem: String,
    pub mqtt_host: String,
    pub mqtt_port: u16,
    pub keyring: Keyring,
}

/// RFC 9457.
#[derive(Debug, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Identity {
    /// The stored identity; `None` before the first enrolment.
    pub fn load(data: &DataDir) -> Result<Option<Self>, Error> {
        let path = data.identity();
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        match blobs::read_limited(&path, BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// The stored identity, or a new one by the enrolment file at `enrolment`.
    pub fn load_or_enrol(data: &DataDir, enrolment: Option<&Path>, board: &BoardId) -> Result<Self, Error> {
        if let Some(identity) = Self::load(data)? {
            return Ok(identity);
        }
        let Some(path) = enrolment else {
            return Err(Error::NotEnrolled { data: data.root().to_owned() });
        };
        let unreadable = |reason: String| Error::EnrolFile { path: path.to_owned(), reason };
        let bytes = blobs::read_limited(path, BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
        let enrolment: Enrolment =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if !enrolment.server.starts_with("https://") {
            return Err(unreadable(format!("server is {:?}, it starts with https://", enrolment.server)));
        }
        enrol(data, &enrolment, board)
    }

    /// The TLS configuration with the device's own certificate.
    pub fn tls(&self, data: &DataDir) -> Result<ClientConfig, Error> {
        let damaged = |path: PathBuf, reason: String| Error::Damaged { path, reason };
        let key = blobs::read_limited(&data.key(), BYTES_MAX)
            .map_err(|error| damaged(data.key(), error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|error| damaged(data.key(), format!("{error:?}")))?;
        self.tls_with(key).map_err(|reason| damaged(data.identity(), reason))
    }

    /// The same with that key; the text says what is wrong with the identity.
    fn tls_with(&self, key: PrivateKeyDer<'static>) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("CA: {error:?}"))?;
            roots.add(certificate).map_err(|error| format!("CA: {error}"))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("certificate: {error:?}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| error.to_string())
    }
}

/// Makes a key, has it certified, and writes the identity once it is of use. The key is on disk before the server
/// hears of it and stays when something fails: the next try asks for the same key, and a certificate that the server
/// gave for it is not lost with the answer.
fn enrol(data: &DataDir, enrolment: &Enrolment, board: &BoardId) -> Result<Identity, Error> {
    let server = enrolment.server.trim_end_matches('/').to_owned();
    let client =
        https(&enrolment.ca_pem).map_err(|reason| Error::Unreachable { server: server.clone(), reason })?;
    let key = load_or_make_key(data)?;
    let mut params = CertificateParams::default();
    let common_name = enrolment.device.as_ref().map_or("unnamed", DeviceId::as_str);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let csr_pem = params.serialize_request(&key)?.pem()?;
    let request = EnrolRequest {
        token: &enrolment.token,
        csr_pem: &csr_pem,
        board,
        agent_version: env!("CARGO_PKG_VERSION"),
    };
    let identity = ask(&client, &server, enrolment, &request)?;
    let answer = |reason: String| Error::Answer { server: server.clone(), reason };
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| answer(error.to_owned()))?;
    identity.tls_with(der).map_err(answer)?;
    let text = serde_json::to_vec_pretty(&identity)
        .map_err(|error| Error::Answer { server: server.clone(), reason: error.to_string() })?;
    // The identity last: without it the next start finds a device that is not enrolled.
    data::write_atomically(&data.identity(), &text, 0o600)
        .map_err(|source| Error::Write { path: data.identity(), source })?;
    Ok(identity)
}

/// The key of an enrolment that was begun, or a fresh one, on disk.
fn load_or_make_key(data: &DataDir) -> Result<KeyPair, Error> {
    let damaged = |reason: String| Error::Damaged { path: data.key(), reason };
    match blobs::read_limited(&data.key(), BYTES_MAX) {
        Ok(pem) => {
            let pem = String::from_utf8(pem).map_err(|error| damaged(error.to_string()))?;
            KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            data::write_atomically(&data.key(), key.serialize_pem().as_bytes(), 0o600)
                .map_err(|source| Error::Write { path: data.key(), source })?;
            Ok(key)
        }
        Err(error) => Err(damaged(error.to_string())),
    }
}

fn ask(
    client: &ureq::Agent,
    server: &str,
    enrolment: &Enrolment,
    request: &EnrolRequest<'_>,
) -> Result<Identity, Error> {
    let unreachable = |reason: String| Error::Unreachable { server: server.to_owned(), reason };
    let answer_error = |reason: String| Error::Answer { server: server.to_owned(), reason };
    let body = serde_json::to_vec(request).map_err(|error| answer_error(error.to_string()))?;
    let mut response = client
        .post(format!("{server}{ENROL_PATH}"))
        .header("content-type", "application/json")
        .send(&body[..])
        .map_err(|error| unreachable(error.to_string()))?;
    let status = response.status();
    let bytes = response
        .body_mut()
        .with_config()
        .limit(BYTES_MAX)
        .read_to_vec()
        .map_err(|error| answer_error(error.to_string()))?;
    if !status.is_success() {
        let problem = serde_json::from_slice::<Problem>(&bytes).ok();
        let detail = problem.and_then(|problem| problem.detail.or(problem.title));
        let detail = detail.unwrap_or_else(|| format!("status {status}"));
        let server = server.to_owned();
        return Err(Error::Refused { server, detail: shared::wire::cut(&detail.replace('\n', " ")) });
    }
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| answer_error(error.to_string()))?;
    match &enrolment.device {
        Some(device) if *device != identity.device => {
            Err(answer_error(format!("it names device {}, the token is for {device}", identity.device)))
        }
        _ => Ok(identity),
    }
}

/// An HTTPS client that trusts `ca_pem` alone.
fn https(ca_pem: &str) -> Result<ureq::Agent, String> {
    let certificates: Vec<_> = ureq::tls::parse_pem(ca_pem.as_bytes())
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error.to_string())),
        })
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err("ca_pem holds no certificate".to_owned());
    }
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::from(certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(ENROL_TIMEOUT))
        .http_status_as_error(false)
        .build();
    Ok(config.into())
}

#[cfg(test)]
mod tests;
