//! What goes over the wire in EST (RFC 7030): certificate requests, certs-only messages (RFC 5652 in base64), HTTP
//! Basic credentials, and the few fields of a certificate that both sides look at.
//!
//! Nothing here decides whether a certificate is good: chains are verified by TLS.

use base64::{Engine, engine::general_purpose::STANDARD};
use cms::{cert::CertificateChoices, content_info::ContentInfo, signed_data::SignedData};
use der::{Decode, Encode, asn1::ObjectIdentifier, pem::LineEnding};
use shared::Timestamp;
use x509_cert::{Certificate, ext::pkix::BasicConstraints};

/// Under which all resources of EST are.
pub const PATH: &str = "/.well-known/est";
/// Type of a certificate request.
pub const REQUEST_TYPE: &str = "application/pkcs10";
/// Type of a message that holds certificates alone.
pub const CERTIFICATES_TYPE: &str = "application/pkcs7-mime; smime-type=certs-only";
/// Largest message of either side in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most certificates in one message.
pub const CERTIFICATES_MAX: usize = 16;
/// Longest user name with password, in bytes.
const CREDENTIALS_BYTES_MAX: usize = 512;
/// Length of a line of base64, as every tool takes it.
const LINE_BYTES: usize = 64;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`MESSAGE_BYTES_MAX`].
    #[error("the message is over {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// Another encoding.
    #[error("the message is not base64 of DER; send it without the lines that begin with -----")]
    Base64,
    /// Base64 of something else.
    #[error("the message is not a certs-only message")]
    Message(#[source] der::Error),
    /// Other content, none, or too many.
    #[error("the message holds {0} certificates, allowed are 1 to {CERTIFICATES_MAX}")]
    Count(usize),
    /// A certificate that is none.
    #[error("a certificate is damaged")]
    Certificate(#[source] der::Error),
}

/// What both sides look at in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The one common name of the subject; none where there are several or none.
    pub common_name: Option<String>,
    /// Hexadecimal, lower case, without leading zeros.
    pub serial: String,
    pub not_before: Timestamp,
    /// The last moment at which it is good.
    pub not_after: Timestamp,
    /// May it sign others?
    pub is_ca: bool,
    /// The public key with its algorithm, DER.
    pub public_key: Vec<u8>,
}

/// Looks into a certificate.
pub fn facts(der: &[u8]) -> Result<Facts, Error> {
    let certificate = Certificate::from_der(der).map_err(Error::Certificate)?.tbs_certificate;
    let subject = certificate.subject.0.iter().flat_map(|names| names.0.iter());
    let mut names = subject.filter(|name| name.oid == COMMON_NAME);
    let common_name = match (names.next(), names.next()) {
        (Some(name), None) => std::str::from_utf8(name.value.value()).ok().map(str::to_owned),
        _ => None,
    };
    let constraints = certificate.get::<BasicConstraints>().map_err(Error::Certificate)?;
    let serial = hex::encode(certificate.serial_number.as_bytes());
    let time = |time: x509_cert::time::Time| {
        Timestamp(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
    };
    Ok(Facts {
        common_name,
        serial: serial.trim_start_matches('0').to_owned(),
        not_before: time(certificate.validity.not_before),
        not_after: time(certificate.validity.not_after),
        is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
        public_key: certificate.subject_public_key_info.to_der().map_err(Error::Certificate)?,
    })
}

/// The certificates of a PEM text, as DER; at least one.
pub fn from_pem(pem: &str) -> Result<Vec<Vec<u8>>, Error> {
    if pem.len() > MESSAGE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    counted(load(pem)?)?.iter().map(|certificate| certificate.to_der().map_err(Error::Certificate)).collect()
}

/// One certificate as PEM.
pub fn to_pem(der: &[u8]) -> Result<String, Error> {
    Certificate::from_der(der).map_err(Error::Certificate)?;
    der::pem::encode_string("CERTIFICATE", LineEnding::LF, der)
        .map_err(|error| Error::Certificate(error.into()))
}

/// A certs-only message of the certificates in a PEM text.
pub fn write_certificates(pem: &str) -> Result<String, Error> {
    let certificates = counted(load(pem)?)?;
    let message = ContentInfo::try_from(certificates).and_then(|content| content.to_der());
    Ok(encode(&message.map_err(Error::Message)?))
}

/// The certificates of a certs-only message, as DER; at least one.
pub fn read_certificates(message: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let content = ContentInfo::from_der(&decode(message)?).map_err(Error::Message)?;
    content.content_type.eq(&SIGNED_DATA).then_some(()).ok_or(Error::Count(0))?;
    let signed = content.content.decode_as::<SignedData>().map_err(Error::Message)?;
    let set = signed.certificates.map(|set| set.0.into_vec()).unwrap_or_default();
    let certificates = counted(set)?.into_iter().filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate),
        CertificateChoices::Other(_) => None,
    });
    counted(certificates.collect())?
        .iter()
        .map(|certificate| certificate.to_der().map_err(Error::Certificate))
        .collect()
}

/// Every block of a PEM text that is a certificate; what stands between them is passed over.
fn load(pem: &str) -> Result<Vec<Certificate>, Error> {
    let mut certificates = Vec::new();
    let mut rest = pem;
    while let Some(start) = rest.find(PEM_BEGIN) {
        let block = &rest[start..];
        let end = block.find(PEM_END).map_or(block.len(), |end| end + PEM_END.len());
        // Decoded whole before it is read: reading certificates out of PEM piece by piece, `der` 0.7 does not end on some that
        // are cut short.
        let (_, bytes) = der::pem::decode_vec(&block.as_bytes()[..end])
            .map_err(|error| Error::Certificate(error.into()))?;
        certificates.push(Certificate::from_der(&bytes).map_err(Error::Certificate)?);
        if certificates.len() > CERTIFICATES_MAX {
            return Err(Error::Count(certificates.len()));
        }
        rest = &block[end..];
    }
    Ok(certificates)
}

fn counted<T>(items: Vec<T>) -> Result<Vec<T>, Error> {
    if (1..=CERTIFICATES_MAX).contains(&items.len()) { Ok(items) } else { Err(Error::Count(items.len())) }
}

/// Base64 in lines.
pub fn encode(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(LINE_BYTES).map(String::from_utf8_lossy);
    lines.fold(String::with_capacity(text.len() + text.len() / LINE_BYTES + 1), |mut all, line| {
        all.push_str(&line);
        all.push('\n');
        all
    })
}

/// Base64 with any white space.
pub fn decode(message: &[u8]) -> Result<Vec<u8>, Error> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    let text: Vec<u8> = message.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|_| Error::Base64)
}

/// The value of `Authorization` for a user and a password (RFC 7617).
pub fn write_basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// User and password of an `Authorization`.
pub fn read_basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > CREDENTIALS_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests;
