//! Keys and certificates: the fleet's CA, the server's certificate, the director, release and model keys, the token of
//! the administrator. Made at the first start, kept in files that only their owner reads.

mod authority;
mod brokers;
mod files;

use authority::Authorities;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use shared::{
    DeviceId, Digest, Signed, Timestamp,
    manifest::Manifest,
    profile::ProfileRequest,
    signing::{self, Keyring, PublicKey, Role, SigningKey, TrustedKey},
    wire::Desired,
};
use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};
use trust::{
    author, lineage,
    oms::{self, ModelKey, Resource},
};
use zeroize::Zeroizing;

pub use authority::AUTHORITIES_MAX;
pub use brokers::{ClientCertificate, Revoked, key_and_request};
pub use files::{write, write_public};

/// Why a key or certificate was not made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the key folder.
    #[error("the file {} failed", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file that is there but holds no key or certificate.
    #[error("the key file {} is damaged; restore it from a backup", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of a CA that the fleet trusts is gone. None is made in its place: no device would know it.
    #[error(
        "{} is missing: restore it from a backup, or give that CA up: remove {}, start again, and enrol its devices \
         anew",
        path.display(),
        remains.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    Lost { path: PathBuf, remains: Vec<PathBuf> },
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[source] rcgen::Error),
    /// The request of a device is none, or its signature is wrong.
    #[error("the certificate request is not valid: {0}")]
    Request(rcgen::Error),
    /// The request is for another name.
    #[error("the certificate request has to name {device} as its common name (CN), and nothing else")]
    Name { device: DeviceId },
    /// A name that no certificate can hold.
    #[error("{0:?} is no host name and no address")]
    Host(String),
    /// As many CAs as there may be.
    #[error("there are {AUTHORITIES_MAX} CAs; retire the old ones first with `edgewright ca retire`")]
    Authorities,
    /// An envelope could not be signed.
    #[error("signing failed")]
    Sign(#[source] signing::Error),
    /// A model could not be signed.
    #[error("signing a model failed")]
    Model(#[source] oms::Error),
    /// A lineage could not be signed.
    #[error("signing a lineage failed")]
    Lineage(#[source] lineage::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

type Result<T> = std::result::Result<T, Error>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 397;
/// Public release keys of before.
const FORMER_RELEASE: &str = "release.former.json";
/// Life of a device's certificate where none is given.
pub const CERTIFICATE_DAYS_DEFAULT: u32 = 7;
/// Longest life of a device's certificate.
pub const CERTIFICATE_DAYS_MAX: u32 = 90;
/// Clocks that are a little behind still accept a fresh certificate.
const SKEW: Duration = Duration::from_secs(60 * 60);
/// Longest certificate request that is read, as DER.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// Holds the private keys and uses them.
pub struct Signer {
    folder: PathBuf,
    hosts: Vec<String>,
    authorities: RwLock<Authorities>,
    director: SigningKey,
    release: SigningKey,
    /// Public keys that signed manifests and lineages before.
    former_release: Vec<PublicKey>,
    snapshot: SigningKey,
    timestamp: SigningKey,
    /// For those who check models with others' tools; devices do not know it.
    model: ModelKey,
    admin_token: Zeroizing<String>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The keys that sign trust metadata without a person.
#[derive(Clone, Copy)]
pub struct Online<'a> {
    pub snapshot: &'a dyn author::Signer,
    pub timestamp: &'a dyn author::Signer,
}

impl fmt::Debug for Online<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Online({:?}, {:?})", self.snapshot.public(), self.timestamp.public())
    }
}

/// A certificate for a device.
#[derive(Clone, Debug)]
pub struct DeviceCertificate {
    pub pem: String,
    /// Hexadecimal, lower case, as the broker sees it.
    pub serial: String,
    pub expires_at: Timestamp,
    /// Which CA issued it.
    pub authority: Digest,
    /// Of the public key.
    pub key: Digest,
}

/// A CA, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuthorityInfo {
    /// Of its certificate.
    pub digest: Digest,
    pub not_after: Timestamp,
    /// Issues to devices.
    pub issues: bool,
    /// Issued the server's own certificate.
    pub serves: bool,
}

impl Signer {
    /// Reads the keys in `folder`, making what is missing, and issues the server's certificate for `hosts`.
    pub fn open(folder: &Path, hosts: &[String], now: Timestamp) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::File { path: folder.to_path_buf(), source })?;
        let signer = Self {
            folder: folder.to_path_buf(),
            hosts: hosts.to_vec(),
            authorities: RwLock::new(Authorities::open(folder, now)?),
            director: files::signing_key(&folder.join("director.pk8"))?,
            release: files::signing_key(&folder.join("release.pk8"))?,
            former_release: files::public_keys(&folder.join(FORMER_RELEASE))?,
            snapshot: files::signing_key(&folder.join("snapshot.pk8"))?,
            timestamp: files::signing_key(&folder.join("timestamp.pk8"))?,
            model: files::model_key(&folder.join("model.pk8"))?,
            admin_token: files::secret_text(&folder.join("admin.token"))?,
        };
        signer.issue_server_certificate(now)?;
        Ok(signer)
    }

    /// By the oldest CA, which everybody trusts.
    fn issue_server_certificate(&self, now: Timestamp) -> Result<()> {
        let key = files::key_pair(&self.server_key_path())?;
        let authorities = self.authorities();
        let certificate = server_params(&self.hosts, "Edgewright control plane", now)?
            .signed_by(&key, &authorities.oldest().issuer)
            .map_err(Error::Certificate)?;
        write(&self.server_certificate_path(), certificate.pem().as_bytes())
    }

    fn authorities(&self) -> RwLockReadGuard<'_, Authorities> {
        self.authorities.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All CAs that are trusted, as PEM, the oldest first.
    pub fn ca_pem(&self) -> String {
        self.authorities().pem()
    }

    /// File of all CAs that are trusted.
    pub fn ca_path(&self) -> PathBuf {
        self.authorities().trusted_path()
    }

    /// The CAs, the oldest first.
    pub fn authority_infos(&self) -> Vec<AuthorityInfo> {
        let authorities = self.authorities();
        let (newest, oldest) = (authorities.newest().digest, authorities.oldest().digest);
        let info = |authority: &authority::Authority| AuthorityInfo {
            digest: authority.digest,
            not_after: authority.not_after,
            issues: authority.digest == newest,
            serves: authority.digest == oldest,
        };
        authorities.iter().map(info).collect()
    }

    /// Adds a CA, which issues to devices from now on. The server's certificate stays that of the oldest.
    pub fn rotate_authority(&self, now: Timestamp) -> Result<()> {
        self.authorities.write().unwrap_or_else(PoisonError::into_inner).add(now)
    }

    /// Trusts the newest CA alone, which issues the server's certificate too; how many CAs went.
    pub fn retire_authorities(&self, now: Timestamp) -> Result<usize> {
        let gone = self.authorities.write().unwrap_or_else(PoisonError::into_inner).retire()?;
        self.issue_server_certificate(now)?;
        Ok(gone)
    }

    /// Takes the CAs as they are on the disk, where another server may have changed them; `true` if one has.
    pub fn reload_authorities(&self) -> Result<bool> {
        let Some(newest) = Authorities::read(&self.folder)? else { return Ok(false) };
        let mut authorities = self.authorities.write().unwrap_or_else(PoisonError::into_inner);
        let changed = !authorities.iter().map(|one| one.digest).eq(newest.iter().map(|one| one.digest));
        if changed {
            *authorities = newest;
        }
        Ok(changed)
    }

    /// File of the server's certificate.
    pub fn server_certificate_path(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// File of the server's key.
    pub fn server_key_path(&self) -> PathBuf {
        self.folder.join("server.key.pem")
    }

    /// What the administrator shows to the API.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The public keys that this server signs with, for devices to trust once the offline keys vouch for them.
    pub fn keyring(&self) -> Keyring {
        Keyring::new([
            TrustedKey { role: Role::Director, key: self.director.public().clone() },
            TrustedKey { role: Role::Release, key: self.release.public().clone() },
        ])
    }

    /// The same and the release keys before: what they signed is still read.
    pub fn keyring_to_read(&self) -> Keyring {
        let now = self.keyring();
        let former = self.former_release.iter();
        let former = former.map(|key| TrustedKey { role: Role::Release, key: key.clone() });
        Keyring::new(now.keys().iter().cloned().chain(former))
    }

    /// The keys that keep trust metadata fresh.
    pub fn online(&self) -> Online<'_> {
        Online { snapshot: &self.snapshot, timestamp: &self.timestamp }
    }

    /// Signs what a device shall run. The same state gives the same bytes.
    pub fn sign_desired(&self, desired: &Desired) -> Result<Vec<u8>> {
        Signed::sign(desired, &[&self.director]).map_err(Error::Sign)
    }

    /// Signs what a device shall measure. The same request gives the same bytes.
    pub fn sign_profile_request(&self, request: &ProfileRequest) -> Result<Vec<u8>> {
        Signed::sign(request, &[&self.director]).map_err(Error::Sign)
    }

    /// Signs a bundle's manifest.
    pub fn sign_manifest(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        Signed::sign(manifest, &[&self.release]).map_err(Error::Sign)
    }

    /// The id of the release key.
    pub fn release_id(&self) -> Digest {
        self.release.public().id()
    }

    /// Signs the steps by which a model came to be, if they are a chain.
    pub fn sign_lineage(&self, steps: Vec<lineage::Step>) -> Result<Vec<u8>> {
        lineage::seal(steps, &self.release).map_err(Error::Lineage)
    }

    /// Signs the files of the model `name` by OpenSSF Model Signing; what lies at `ignored` is left out by whoever
    /// checks.
    pub fn sign_model(&self, name: &str, files: &[Resource], ignored: &[&str]) -> Result<Vec<u8>> {
        oms::sign(name, files, ignored, &self.model).map_err(Error::Model)
    }

    /// The public key of models' signatures, in PEM.
    pub fn model_key_pem(&self) -> String {
        self.model.public().to_pem()
    }

    /// A client certificate for `device`, good for `days`, over the key of a certificate request (PKCS #10, DER). The
    /// request is signed with that key and names the device; of its content nothing but the key is taken.
    pub fn issue(
        &self,
        csr: &[u8],
        device: &DeviceId,
        days: u32,
        now: Timestamp,
    ) -> Result<DeviceCertificate> {
        let mut request = read_request(csr, device)?;
        let mut serial = [0u8; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
        // Positive and without a leading zero digit, so that every tool writes it alike.
        serial[0] = (serial[0] & 0x3f) | 0x40;
        request.params = client_params(device.as_str(), now, DAY * days);
        request.params.serial_number = Some(SerialNumber::from_slice(&serial));
        let authorities = self.authorities();
        let authority = authorities.newest();
        let key = Digest::of(request.public_key.der_bytes());
        let certificate = request.signed_by(&authority.issuer).map_err(Error::Request)?;
        Ok(DeviceCertificate {
            pem: certificate.pem(),
            serial: hex(&serial),
            expires_at: now.plus_ms(u64::from(days) * 86_400_000),
            authority: authority.digest,
            key,
        })
    }
}

/// Notes that the release key in `folder` gives way to another.
pub fn retire_release_key(folder: &Path) -> Result<()> {
    let release = files::signing_key(&folder.join("release.pk8"))?;
    let path = folder.join(FORMER_RELEASE);
    let mut former = files::public_keys(&path)?;
    if !former.contains(release.public()) {
        former.push(release.public().clone());
        files::write_public_keys(&path, &former)?;
    }
    Ok(())
}

/// Digest of the public key of a certificate request, which is checked as [`Signer::issue`] does.
pub fn request_key(csr: &[u8], device: &DeviceId) -> Result<Digest> {
    Ok(Digest::of(read_request(csr, device)?.public_key.der_bytes()))
}

fn read_request(csr: &[u8], device: &DeviceId) -> Result<CertificateSigningRequestParams> {
    if csr.len() > CSR_BYTES_MAX {
        return Err(Error::Request(rcgen::Error::CouldNotParseCertificationRequest));
    }
    let request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(Error::Request)?;
    let names: Vec<_> = request.params.distinguished_name.iter().take(2).collect();
    match names[..] {
        [(DnType::CommonName, name)] if text_of(name) == Some(device.as_str()) => Ok(request),
        _ => Err(Error::Name { device: device.clone() }),
    }
}

fn text_of(name: &DnValue) -> Option<&str> {
    match name {
        DnValue::Utf8String(text) => Some(text),
        DnValue::PrintableString(text) => Some(text.as_str()),
        DnValue::Ia5String(text) => Some(text.as_str()),
        _ => None,
    }
}

/// 256 random bits as hexadecimal text.
pub fn secret() -> Result<String> {
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(hex(&bytes))
}

fn ca_params(number: u32, now: Timestamp) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(Error::Certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, ca_name(number));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, DAY * CA_DAYS);
    Ok(params)
}

/// Each has a name of its own: verifiers look a certificate's issuer up by name.
fn ca_name(number: u32) -> String {
    if number == 1 { "Edgewright fleet CA".to_owned() } else { format!("Edgewright fleet CA {number}") }
}

fn server_params(hosts: &[String], name: &str, now: Timestamp) -> Result<CertificateParams> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(hosts.iter().filter(|host| !names.contains(host)).cloned().collect::<Vec<_>>());
    let mut params = CertificateParams::new(names).map_err(Error::Certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, DAY * SERVER_DAYS);
    Ok(params)
}

fn client_params(name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, life);
    params
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now.0);
    params.not_before = epoch + now - SKEW;
    params.not_after = epoch + now + life;
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
