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
    io,
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
    #[error("cannot write {path}: {source}; free disk space, or give another folder with --data")]
    Write { path: PathBuf, source: io::Error },
    /// No key could be made.
    #[error("cannot make a key: {0}")]
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
    pub token: String,
    /// The id that the token is bound to.
    pub device: Option<DeviceId>,
}

#[derive(Debug, Serialize)]
struct EnrolRequest<'a> {
    token: &'a str,
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
        let identity = |reason: String| damaged(data.identity(), reason);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| identity(format!("CA: {error:?}")))?;
            roots.add(certificate).map_err(|error| identity(format!("CA: {error}")))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| identity(format!("certificate: {error:?}")))?;
        let key = blobs::read_limited(&data.key(), BYTES_MAX)
            .map_err(|error| damaged(data.key(), error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|error| damaged(data.key(), format!("{error:?}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| identity(error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| identity(error.to_string()))
    }
}

fn enrol(data: &DataDir, enrolment: &Enrolment, board: &BoardId) -> Result<Identity, Error> {
    let write = |path: PathBuf| move |source| Error::Write { path, source };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
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
    let identity = ask(enrolment, &request)?;
    let text = serde_json::to_vec_pretty(&identity)
        .map_err(|error| Error::Answer { server: enrolment.server.clone(), reason: error.to_string() })?;
    // The identity last: without it the next start finds a device that is not enrolled.
    let key_pem = key.serialize_pem();
    data::write_atomically(&data.key(), key_pem.as_bytes(), 0o600).map_err(write(data.key()))?;
    data::write_atomically(&data.identity(), &text, 0o600).map_err(write(data.identity()))?;
    // Read it back as the next start will, so that an answer that is no use shows now.
    identity.tls(data)?;
    Ok(identity)
}

fn ask(enrolment: &Enrolment, request: &EnrolRequest<'_>) -> Result<Identity, Error> {
    let server = enrolment.server.trim_end_matches('/').to_owned();
    let unreachable = |reason: String| Error::Unreachable { server: server.clone(), reason };
    let answer_error = |reason: String| Error::Answer { server: server.clone(), reason };
    let body = serde_json::to_vec(request).map_err(|error| answer_error(error.to_string()))?;
    let agent = https(&enrolment.ca_pem).map_err(&unreachable)?;
    let mut response = agent
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
mod tests {
    use super::*;
    use std::fs;

    fn board() -> BoardId {
        "x86-64".parse().unwrap()
    }

    fn enrol_with(text: Option<&str>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let file = folder.path().join("enrol.json");
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let message = Identity::load_or_enrol(&data, Some(&file), &board()).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!data.key().exists() && !data.identity().exists(), "something was written");
        message
    }

    #[test]
    fn what_is_wrong_with_an_enrolment_file_is_said_in_one_line() {
        assert!(enrol_with(None).contains("enrol.json"));
        assert!(enrol_with(Some("{}")).contains("missing field"));
        let http = r#"{"server": "http://x", "ca_pem": "", "token": "t"}"#;
        assert!(enrol_with(Some(http)).contains("https://"));
        let no_ca = r#"{"server": "https://127.0.0.1:1", "ca_pem": "", "token": "t"}"#;
        assert!(enrol_with(Some(no_ca)).contains("ca_pem holds no certificate"));
    }

    #[test]
    fn without_a_file_it_says_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let message = Identity::load_or_enrol(&data, None, &board()).unwrap_err().to_string();
        assert!(message.contains("--enroll FILE"), "{message}");
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        fs::write(data.identity(), "{").unwrap();
        let message = Identity::load_or_enrol(&data, None, &board()).unwrap_err().to_string();
        assert!(message.contains("identity.json") && message.contains("enrol again"), "{message}");
    }
}
