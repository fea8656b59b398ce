//! Who the control plane is to the broker, and what a failed handshake means.

use rumqttc::v5::ConnectionError;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use shared::{DeviceId, causes};
use std::{fmt, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// Name of the control plane in its certificate, and in a broker's ACL. It is no device's: theirs hold no colon.
pub const CLIENT_NAME: &str = "edgewright:control-plane";

/// What is shown to the broker, and what the broker shall show.
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
    /// The CAs that the broker's certificate may be of.
    pub ca_pem: String,
    /// After this long another is needed.
    pub renew_after: Duration,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("renew_after", &self.renew_after).finish_non_exhaustive()
    }
}

/// Where identities come from; each is a fresh one.
pub trait Identities: Send + Sync + 'static {
    /// That of [`CLIENT_NAME`].
    ///
    /// # Errors
    /// In one line, why there is none.
    fn own(&self) -> Result<Identity, String>;

    /// That of a device whose session shall be taken over.
    ///
    /// # Errors
    /// In one line, why there is none.
    fn of_device(&self, device: &DeviceId) -> Result<Identity, String>;
}

impl Identity {
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("a CA: {error:?}"))?;
            roots.add(certificate).map_err(|error| format!("a CA: {error}"))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate: {error:?}"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| format!("the key: {error:?}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key));
        config.map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Why a connection failed, on one line, with what to do about it.
pub(super) fn why(error: &ConnectionError) -> String {
    explained(&causes(error))
}

/// What a failure means for whoever reads it.
pub(super) fn explained(text: &str) -> String {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["invalid peer certificate"]) {
        return format!(
            "the broker's certificate is refused; make another for its name with `edgewright broker files` ({text})"
        );
    }
    if has(&["fatal alert"]) && has(&["certificate", "unknownca", "decrypterror"]) {
        return format!(
            "the broker refuses the control plane's certificate; give it the CAs that `edgewright broker files` writes ({text})"
        );
    }
    if has(&["notauthorized", "badusernamepassword", "banned"]) {
        return format!("the broker does not let {CLIENT_NAME} in ({text})");
    }
    if has(&["sessiontakenover"]) {
        return format!("another control plane connects to the broker as {CLIENT_NAME} ({text})");
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_named_with_the_side_that_refused_it() {
        for (text, word) in [
            ("TLS: I/O: invalid peer certificate: UnknownIssuer", "the broker's certificate is refused"),
            ("I/O: received fatal alert: UnknownCA", "refuses the control plane's certificate"),
            ("I/O: received fatal alert: CertificateRevoked", "refuses the control plane's certificate"),
            ("Connection refused, return code: `NotAuthorized`", "does not let edgewright:control-plane in"),
        ] {
            let said = explained(text);
            assert!(said.contains(word) && said.contains(text), "{said}");
        }
        assert_eq!(
            explained("I/O: Connection refused (os error 111)"),
            "I/O: Connection refused (os error 111)"
        );
    }
}
