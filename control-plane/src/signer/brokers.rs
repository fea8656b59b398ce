//! Certificates around a broker that is not the control plane's own: the broker's, the control plane's as a client of it,
//! and the list of those that were revoked.

use super::{
    CA_DAYS, CSR_BYTES_MAX, DAY, Error, Result, SKEW, Signer, authority::Authority, client_params,
    server_params,
};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams, DistinguishedName,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use shared::{Digest, Timestamp};
use std::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// A certificate that the control plane shows as a client, with its key. Neither is in a file.
#[derive(Debug)]
pub struct ClientCertificate {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
}

/// A certificate of a device that is good no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// Hexadecimal.
    pub serial: String,
    /// Which CA issued it; none where that is not on record.
    pub authority: Option<Digest>,
    pub at: Timestamp,
}

/// Longest name of a host (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

impl Signer {
    /// A certificate by which the control plane is `name` for a while. By the oldest CA, as the server's own: a broker may
    /// not have heard of a newer one yet.
    pub fn client_certificate(
        &self,
        name: &str,
        life: Duration,
        now: Timestamp,
    ) -> Result<ClientCertificate> {
        let key = KeyPair::generate().map_err(Error::Certificate)?;
        let certificate = client_params(name, now, life)
            .signed_by(&key, &self.authorities().oldest().issuer)
            .map_err(Error::Certificate)?;
        Ok(ClientCertificate {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// A broker's certificate (PEM) for `hosts` over the key of a certificate request (PKCS #10, DER), and until when it is
    /// good. By the oldest CA, which everybody trusts.
    pub fn issue_broker(&self, csr: &[u8], hosts: &[String], now: Timestamp) -> Result<(String, Timestamp)> {
        if csr.len() > CSR_BYTES_MAX {
            return Err(Error::Request(rcgen::Error::CouldNotParseCertificationRequest));
        }
        if let Some(host) = hosts.iter().find(|host| !is_host(host)) {
            return Err(Error::Host(host.clone()));
        }
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(Error::Request)?;
        request.params = server_params(hosts, "Edgewright broker", now)?;
        let good_until = request.params.not_after.unix_timestamp();
        let certificate =
            request.signed_by(&self.authorities().oldest().issuer).map_err(Error::Certificate)?;
        let good_until = Timestamp(u64::try_from(good_until).unwrap_or(0).saturating_mul(1000));
        Ok((certificate.pem(), good_until))
    }

    /// The lists of revoked certificates (RFC 5280), one of each CA, in one PEM text.
    pub fn revocation_lists(&self, revoked: &[Revoked], now: Timestamp) -> Result<String> {
        let authorities = self.authorities();
        let mut text = String::new();
        for authority in authorities.iter() {
            text.push_str(&revocation_list(authority, revoked, now)?);
        }
        Ok(text)
    }
}

/// One that has ended shuts everybody out, and nobody may be there to write the next: it is good as long as a CA is.
fn revocation_list(authority: &Authority, revoked: &[Revoked], now: Timestamp) -> Result<String> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_millis(now.0);
    let of_this = revoked
        .iter()
        .filter(|revoked| revoked.authority.is_none_or(|digest| digest == authority.digest))
        .filter_map(|revoked| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from(bytes_of(&revoked.serial)?),
                revocation_time: epoch + Duration::from_millis(revoked.at.0),
                reason_code: None,
                invalidity_date: None,
            })
        });
    CertificateRevocationListParams {
        this_update: epoch + since_epoch - SKEW,
        next_update: epoch + since_epoch + DAY * CA_DAYS,
        crl_number: SerialNumber::from(now.0 / 1000),
        issuing_distribution_point: None,
        revoked_certs: of_this.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(&authority.issuer)
    .and_then(|list| list.pem())
    .map_err(Error::Certificate)
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let even =
        if hexadecimal.len().is_multiple_of(2) { hexadecimal.to_owned() } else { format!("0{hexadecimal}") };
    let digits = even.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn is_host(host: &str) -> bool {
    let name = |host: &str| {
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        plain && !host.is_empty() && host.len() <= HOST_BYTES_MAX
    };
    host.parse::<IpAddr>().is_ok() || name(host)
}

/// A fresh key (PEM) and a certificate request (DER) over it that names nobody.
pub fn key_and_request() -> Result<(Zeroizing<String>, Vec<u8>)> {
    let key = KeyPair::generate().map_err(Error::Certificate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(Error::Certificate)?;
    Ok((Zeroizing::new(key.serialize_pem()), request.der().to_vec()))
}

#[cfg(test)]
mod tests;
