//! TLS of many devices: what is the same for all of them is there once.

use anyhow::{Context, Result};
use edgewright_agent::identity::Identity;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::sync::Arc;

/// A device talks to one broker.
const SESSIONS: usize = 1;

/// The provider of cryptography and the check of the broker's certificate.
#[derive(Debug)]
pub struct Common {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    /// What is trusted, as PEM.
    ca_pem: String,
}

impl Common {
    /// For devices that trust these CAs.
    pub fn new(ca_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| anyhow::anyhow!("a CA: {error:?}"))?;
            roots.add(certificate).context("a CA")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Ok(Self { provider, verifier: verifier.context("the fleet's CAs")?, ca_pem: ca_pem.to_owned() })
    }

    /// Does the device trust the same CAs?
    pub fn serves(&self, identity: &Identity) -> bool {
        self.ca_pem == identity.ca_pem
    }

    /// With the device's own certificate and key.
    pub fn config(&self, identity: &Identity) -> Result<ClientConfig> {
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.reveal().as_bytes())
            .map_err(|error| anyhow::anyhow!("the key of {}: {error:?}", identity.device))?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow::anyhow!("the certificate of {}: {error:?}", identity.device))?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(Arc::clone(&self.verifier))
            .with_client_auth_cert(chain, key)
            .with_context(|| format!("the identity of {}", identity.device))?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }
}
