//! Certificate requests, for tests.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

pub(crate) type Key = KeyPair;

/// A fresh key.
pub(crate) fn key() -> Key {
    KeyPair::generate().unwrap()
}

/// A certificate request (DER) of `key` for `device`.
pub(crate) fn csr(device: &str, key: &Key) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, device);
    params.serialize_request(key).unwrap().der().to_vec()
}
