//! Keys and certificates: the fleet's CA, the server's certificate, the director and release keys, the token of
//! the administrator. Made at the first start, kept in files that only their owner reads.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use shared::{
    DeviceId, Signed, Timestamp,
    manifest::Manifest,
    signing::{self, Keyring, Role, SigningKey, TrustedKey},
    wire::Desired,
};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Why a key or certificate was not made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the key folder.
    #[error("the key file {} failed", path.display())]
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
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[source] rcgen::Error),
    /// The request of a device is none, or its signature is wrong.
    #[error("the certificate request is not valid: {0}")]
    Request(rcgen::Error),
    /// An envelope could not be signed.
    #[error("signing failed")]
    Sign(#[source] signing::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

type Result<T> = std::result::Result<T, Error>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 397;
/// Life of a device's certificate. Nothing renews it: a device enrols again with a token that was made for it.
const DEVICE_DAYS: u32 = 30;
/// Clocks that are a little behind still accept a fresh certificate.
const SKEW: Duration = Duration::from_secs(60 * 60);
/// Longest certificate request that is read.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// Holds the private keys and uses them.
pub struct Signer {
    folder: PathBuf,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    director: SigningKey,
    release: SigningKey,
    admin_token: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A certificate for a device.
#[derive(Clone, Debug)]
pub struct DeviceCertificate {
    pub pem: String,
    /// Hexadecimal, lower case, as the broker sees it.
    pub serial: String,
    pub expires_at: Timestamp,
}

impl Signer {
    /// Reads the keys in `folder`, making what is missing, and issues the server's certificate for `hosts`.
    pub fn open(folder: &Path, hosts: &[String], now: Timestamp) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::File { path: folder.to_path_buf(), source })?;
        let ca_key = key_pair(&folder.join("ca.key.pem"))?;
        let ca_path = folder.join("ca.pem");
        let ca_pem = match read(&ca_path)? {
            Some(bytes) => text(&ca_path, bytes)?,
            None => {
                let pem = ca_params(now)?.self_signed(&ca_key).map_err(Error::Certificate)?.pem();
                write(&ca_path, pem.as_bytes())?;
                pem
            }
        };
        let ca = Issuer::from_ca_cert_pem(&ca_pem, ca_key)
            .map_err(|source| Error::Damaged { path: ca_path, source: Box::new(source) })?;
        let server_key = key_pair(&folder.join("server.key.pem"))?;
        let certificate =
            server_params(hosts, now)?.signed_by(&server_key, &ca).map_err(Error::Certificate)?;
        write(&folder.join("server.pem"), certificate.pem().as_bytes())?;
        let token_path = folder.join("admin.token");
        let admin_token = match read(&token_path)? {
            Some(bytes) => text(&token_path, bytes)?,
            None => {
                let token = secret()?;
                write(&token_path, token.as_bytes())?;
                token
            }
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            ca,
            ca_pem,
            director: signing_key(&folder.join("director.pk8"))?,
            release: signing_key(&folder.join("release.pk8"))?,
            admin_token,
        })
    }

    /// The fleet's CA.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// File of the CA's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.folder.join("ca.pem")
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

    /// The public keys that devices trust.
    pub fn keyring(&self) -> Keyring {
        Keyring::new([
            TrustedKey { role: Role::Director, key: self.director.public().clone() },
            TrustedKey { role: Role::Release, key: self.release.public().clone() },
        ])
    }

    /// Signs what a device shall run. The same state gives the same bytes.
    pub fn sign_desired(&self, desired: &Desired) -> Result<Vec<u8>> {
        Signed::sign(desired, &[&self.director]).map_err(Error::Sign)
    }

    /// Signs a bundle's manifest.
    pub fn sign_manifest(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        Signed::sign(manifest, &[&self.release]).map_err(Error::Sign)
    }

    /// A client certificate for `device` over the key of a certificate request. The request's own signature is
    /// checked; of its content nothing but the key is taken.
    pub fn issue(&self, csr_pem: &str, device: &DeviceId, now: Timestamp) -> Result<DeviceCertificate> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(Error::Request)?;
        let mut serial = [0u8; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
        // Positive and without a leading zero digit, so that every tool writes it alike.
        serial[0] = (serial[0] & 0x3f) | 0x40;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, DEVICE_DAYS);
        request.params = params;
        let certificate = request.signed_by(&self.ca).map_err(Error::Request)?;
        Ok(DeviceCertificate {
            pem: certificate.pem(),
            serial: hex(&serial),
            expires_at: now.plus_ms(u64::from(DEVICE_DAYS) * 86_400_000),
        })
    }
}

/// 256 random bits as hexadecimal text.
pub fn secret() -> Result<String> {
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(hex(&bytes))
}

/// Writes a file whole or not at all, readable by its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |source| Error::File { path: path.to_path_buf(), source };
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)?;
    match path.parent() {
        Some(folder) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_path_buf(), source }),
    }
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

fn key_pair(path: &Path) -> Result<KeyPair> {
    match read(path)? {
        Some(bytes) => KeyPair::from_pem(&text(path, bytes)?)
            .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) }),
        None => {
            let pair = KeyPair::generate().map_err(Error::Certificate)?;
            write(path, pair.serialize_pem().as_bytes())?;
            Ok(pair)
        }
    }
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let bytes = match read(path)? {
        Some(bytes) => bytes,
        None => {
            let bytes = SigningKey::generate_pkcs8().map_err(Error::Sign)?;
            write(path, &bytes)?;
            bytes
        }
    };
    SigningKey::from_pkcs8(&bytes)
        .map_err(|source| Error::Damaged { path: path.to_path_buf(), source: Box::new(source) })
}

fn ca_params(now: Timestamp) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(Error::Certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Edgewright fleet CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, CA_DAYS);
    Ok(params)
}

fn server_params(hosts: &[String], now: Timestamp) -> Result<CertificateParams> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(hosts.iter().filter(|host| !names.contains(host)).cloned().collect::<Vec<_>>());
    let mut params = CertificateParams::new(names).map_err(Error::Certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Edgewright control plane");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, SERVER_DAYS);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = now - SKEW;
    params.not_after = now + DAY * days;
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn csr(name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_second_start_finds_the_same_keys_in_files_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let now = Timestamp(1_790_000_000_000);
        let first = Signer::open(&keys, &[], now).unwrap();
        let second = Signer::open(&keys, &["edge.example".to_owned()], now).unwrap();
        assert_eq!(first.keyring(), second.keyring());
        assert_eq!((first.ca_pem(), first.admin_token()), (second.ca_pem(), second.admin_token()));
        for entry in fs::read_dir(&keys).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
    }

    #[test]
    fn a_certificate_carries_the_name_that_the_server_gives() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp(1_790_000_000_000);
        let signer = Signer::open(folder.path(), &[], now).unwrap();
        let issued = signer.issue(&csr("somebody-else"), &"cam-01".parse().unwrap(), now).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names: Vec<_> =
            certificate.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names, ["cam-01"]);
        assert_eq!(certificate.serial.to_str_radix(16), issued.serial);
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !certificate.is_ca());
    }

    #[test]
    fn the_servers_certificate_is_good_for_every_host_that_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["192.168.1.5", "2001:db8::1", "edge.example"].map(str::to_owned);
        let signer = Signer::open(folder.path(), &hosts, Timestamp(1_790_000_000_000)).unwrap();
        let pem = fs::read(signer.server_certificate_path()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
        for host in [
            "IPAddress(c0:a8:01:05)",
            "IPAddress(20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01)",
            "DNSName(edge.example)",
            "DNSName(localhost)",
        ] {
            assert!(shown.iter().any(|name| name == host), "{host} is not in {shown:?}");
        }
        assert_eq!(shown.len(), 6);
    }

    #[test]
    fn refuses_what_is_no_request_or_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path(), &[], Timestamp(1_790_000_000_000)).unwrap();
        let device: DeviceId = "cam-01".parse().unwrap();
        let good = csr("x");
        let (_, pem) = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap();
        let mut der = pem.contents.clone();
        let last = der.len() - 1;
        der[last] ^= 1;
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(&der);
        let changed =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        for bad in ["", "nonsense", &changed] {
            assert!(matches!(signer.issue(bad, &device, Timestamp(0)), Err(Error::Request(_))), "{bad:?}");
        }
    }
}
