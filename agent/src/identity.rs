//! Who the device is: its own key, a certificate from the fleet's CA, and the keys it trusts.
//!
//! Keys never leave the device. A one-time token gets the first certificate, each certificate gets the next one over
//! a fresh key; a device that has an identity uses no token. Key, certificate and CAs are in one file, which is
//! replaced as a whole: a power cut at any point leaves a pair that belongs together.

mod est;

use crate::{blobs, data, data::DataDir};
use agent_core::renewal::Lifetime;
use est::Client;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use shared::{BoardId, DeviceId, Digest};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Largest file that is read here.
const BYTES_MAX: u64 = 256 * 1024;

/// Why the device has no identity, or no newer one. One line that says what to do.
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
    #[error("cannot reach {server} for a certificate: {reason}; check the address and that the server runs")]
    Unreachable { server: String, reason: String },
    /// The server said no.
    #[error("{server} refused this device: {detail}")]
    Refused { server: String, detail: String },
    /// The server's answer is not one.
    #[error("{server} sent an answer that is no certificate for this device: {reason}")]
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
    /// The fleet's CAs.
    pub ca_pem: String,
    /// Good for one device, once.
    pub token: Secret,
    /// The id that the token is bound to.
    pub device: Option<DeviceId>,
}

impl Enrolment {
    fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |reason: String| Error::EnrolFile { path: path.to_owned(), reason };
        let bytes = blobs::read_limited(path, BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
        let enrolment: Self =
            serde_json::from_slice(&Zeroizing::new(bytes)).map_err(|error| unreadable(error.to_string()))?;
        if enrolment.server.starts_with("https://") {
            Ok(enrolment)
        } else {
            Err(unreadable(format!("server is {:?}, it starts with https://", enrolment.server)))
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(self.token.reveal().as_bytes())
    }
}

/// A token or a private key. Its `Debug` does not show it, and it is wiped from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub device: DeviceId,
    /// Where the next certificate comes from, `https://host:port`.
    pub server: String,
    pub certificate_pem: String,
    pub key_pem: Secret,
    /// All CAs that are trusted.
    pub ca_pem: String,
    pub mqtt_host: String,
    pub mqtt_port: u16,
    /// The first root of the trust metadata, as it was given.
    pub root: Box<RawValue>,
    /// Of the token that was used; another one is an order to enrol again.
    pub token: Digest,
}

impl Identity {
    /// The stored identity; `None` before the first enrolment.
    pub fn load(data: &DataDir) -> Result<Option<Self>, Error> {
        let path = data.identity();
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        match blobs::read_limited(&path, BYTES_MAX).map(Zeroizing::new) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// The stored identity, or a new one by the enrolment file at `enrolment`. A file with another token for the same
    /// device than the one that was used enrols it again, as after its certificate has expired; where that fails the
    /// stored identity is tried.
    pub fn load_or_enrol(data: &DataDir, enrolment: Option<&Path>, board: &BoardId) -> Result<Self, Error> {
        let stored = Self::load(data)?;
        match (stored, enrolment) {
            (None, None) => Err(Error::NotEnrolled { data: data.root().to_owned() }),
            (None, Some(path)) => enrol(data, &Enrolment::read(path)?, board),
            (Some(stored), None) => Ok(stored),
            (Some(stored), Some(path)) => {
                // The file is used once and may be gone.
                let enrolment = Enrolment::read(path).ok().filter(|enrolment| {
                    enrolment.device.as_ref() == Some(&stored.device) && enrolment.digest() != stored.token
                });
                let Some(enrolment) = enrolment else { return Ok(stored) };
                enrol(data, &enrolment, board).or_else(|error| {
                    tracing::warn!(error = crate::chain(&error), "not enrolled again; going on as before");
                    Ok(stored)
                })
            }
        }
    }

    /// The same device with a new certificate over a fresh key and the CAs that the server trusts by now; on disk when
    /// this returns. Waits for the server, so not for an async task.
    pub fn renew(&self, data: &DataDir) -> Result<Self, Error> {
        let client = Client::new(&self.server, &self.ca_pem, Some(self))?;
        let ca_pem = client.authorities()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate_pem = client.renew(&request(&self.device, &key)?)?;
        let key_pem = Secret::new(key.serialize_pem());
        let renewed = Self { certificate_pem, key_pem, ca_pem, ..self.clone() };
        renewed.check().map_err(|reason| Error::Answer { server: self.server.clone(), reason })?;
        renewed.write(data)?;
        Ok(renewed)
    }

    /// From when to when the certificate is good.
    pub fn lifetime(&self, data: &DataDir) -> Result<Lifetime, Error> {
        let facts = self.facts().map_err(|reason| Error::Damaged { path: data.identity(), reason })?;
        Ok(Lifetime { not_before: facts.not_before, not_after: facts.not_after })
    }

    /// The TLS configuration with the device's own certificate.
    pub fn tls(&self, data: &DataDir) -> Result<ClientConfig, Error> {
        self.tls_config().map_err(|reason| Error::Damaged { path: data.identity(), reason })
    }

    fn facts(&self) -> Result<trust::est::Facts, String> {
        let certificates =
            trust::est::from_pem(&self.certificate_pem).map_err(|error| crate::chain(&error))?;
        let first = certificates.first().ok_or("no certificate")?;
        trust::est::facts(first).map_err(|error| crate::chain(&error))
    }

    /// Does everything belong together? The text says what does not.
    fn check(&self) -> Result<(), String> {
        let facts = self.facts()?;
        if facts.common_name.as_deref() != Some(self.device.as_str()) {
            return Err(format!("it names {:?}, this is {}", facts.common_name, self.device));
        }
        if facts.not_after <= facts.not_before {
            return Err("it is never good".to_owned());
        }
        self.tls_config().map(drop)
    }

    fn tls_config(&self) -> Result<ClientConfig, String> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.reveal().as_bytes())
            .map_err(|error| format!("key: {error:?}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("CA: {error:?}"))?;
            roots.add(certificate).map_err(|error| format!("CA: {error}"))?;
        }
        if roots.is_empty() {
            return Err("CA: none".to_owned());
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

    fn write(&self, data: &DataDir) -> Result<(), Error> {
        let path = data.identity();
        let failed = |source| Error::Write { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(self).map(Zeroizing::new);
        let text = text.map_err(|error| failed(io::Error::other(error)))?;
        data::write_atomically(&path, &text, 0o600).map_err(failed)
    }
}

/// Makes a key, has it certified, and writes the identity once it is of use. The key is on disk before the server
/// hears of it and stays until then: the server gives a certificate again for the token and the key that it has seen
/// together, so that one that was lost with its answer is only asked for once more.
fn enrol(data: &DataDir, enrolment: &Enrolment, board: &BoardId) -> Result<Identity, Error> {
    let server = enrolment.server.trim_end_matches('/');
    let first = Client::new(server, &enrolment.ca_pem, None)?;
    let key = load_or_make_key(data)?;
    let device = match &enrolment.device {
        Some(device) => device.clone(),
        None => id_of(&key)?,
    };
    let certificate_pem = first.enrol(&device, &enrolment.token, &request(&device, &key)?)?;
    let mut identity = Identity {
        device,
        server: server.to_owned(),
        certificate_pem,
        key_pem: Secret::new(key.serialize_pem()),
        ca_pem: enrolment.ca_pem.clone(),
        mqtt_host: String::new(),
        mqtt_port: 0,
        root: RawValue::NULL.to_owned(),
        token: enrolment.digest(),
    };
    identity.check().map_err(|reason| Error::Answer { server: server.to_owned(), reason })?;
    let told = Client::new(server, &identity.ca_pem, Some(&identity))?.register(board)?;
    (identity.mqtt_host, identity.mqtt_port, identity.root) = (told.mqtt_host, told.mqtt_port, told.root);
    // The identity last: without it the next start finds a device that is not enrolled.
    identity.write(data)?;
    // One that is left over is never read again.
    let _ = fs::remove_file(data.key());
    Ok(identity)
}

/// A certificate request, DER.
fn request(device: &DeviceId, key: &KeyPair) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, device.as_str());
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// The name of a device that was given none: the same for the same key.
fn id_of(key: &KeyPair) -> Result<DeviceId, Error> {
    let digest = Digest::of(key.der_bytes()).to_string();
    let text: String = digest.chars().take(12).collect();
    format!("device-{text}").parse().map_err(|_| Error::Key(rcgen::Error::CouldNotParseKeyPair))
}

/// The key of an enrolment that was begun, or a fresh one, on disk.
fn load_or_make_key(data: &DataDir) -> Result<KeyPair, Error> {
    let damaged = |reason: String| Error::Damaged { path: data.key(), reason };
    match blobs::read_limited(&data.key(), BYTES_MAX).map(Zeroizing::new) {
        Ok(pem) => {
            let pem = std::str::from_utf8(&pem).map_err(|error| damaged(error.to_string()))?;
            KeyPair::from_pem(pem).map_err(|error| damaged(error.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            data::write_atomically(&data.key(), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)
                .map_err(|source| Error::Write { path: data.key(), source })?;
            Ok(key)
        }
        Err(error) => Err(damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
