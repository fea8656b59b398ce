//! ECDSA keys on P-256.

use super::Error;
use crate::est;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
    },
};
use shared::{Digest, limits};
use std::fmt;

/// What comes before the point in a SubjectPublicKeyInfo of P-256 (RFC 5480): `id-ecPublicKey`, `prime256v1`, and a
/// bit string of 65 bytes.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;
/// First byte of a point that is not compressed.
const UNCOMPRESSED: u8 = 4;
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// A private key. Its `Debug` shows the public half only.
pub struct ModelKey {
    pair: EcdsaKeyPair,
    public: ModelPublicKey,
}

impl ModelKey {
    /// A fresh key as PKCS#8 bytes, to be kept secret.
    pub fn generate_pkcs8() -> Result<Vec<u8>, Error> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| Error::Key("the system gives no random bytes"))
    }

    /// Reads PKCS#8 bytes.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, Error> {
        let none = Error::Key("not a private P-256 key in PKCS#8");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes, &SystemRandom::new());
        let Ok(pair) = pair else { return Err(none) };
        let Ok(point) = pair.public_key().as_ref().try_into() else { return Err(none) };
        Ok(Self { pair, public: ModelPublicKey(point) })
    }

    /// The public half.
    pub fn public(&self) -> &ModelPublicKey {
        &self.public
    }

    /// A signature in DER.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Error::Key("the system gives no random bytes"))
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelKey({:?})", self.public)
    }
}

/// A public key: a point of P-256, not compressed.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelPublicKey([u8; POINT_BYTES]);

impl ModelPublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM, as `openssl ec -pubout` writes it. Text around the key is left out.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        if text.len() > limits::PUBLIC_KEY_BYTES_MAX {
            return Err(Error::Key("the file is too large for a public key"));
        }
        let body = text
            .split_once(PEM_BEGIN)
            .and_then(|(_, rest)| rest.split_once(PEM_END))
            .map(|(body, _)| body)
            .ok_or(Error::Key("not a public key in PEM: `openssl ec -in KEY -pubout` writes one"))?;
        let der =
            est::decode(body.as_bytes()).map_err(|_| Error::Key("the public key's PEM is not base64"))?;
        let point: Option<[u8; POINT_BYTES]> =
            der.strip_prefix(&SPKI_HEAD).and_then(|point| point.try_into().ok());
        match point {
            Some(point @ [UNCOMPRESSED, ..]) => Ok(Self(point)),
            _ => Err(Error::Key("the public key is of another kind; P-256 (prime256v1) is needed")),
        }
    }

    /// The key in PEM, as every tool writes it.
    pub fn to_pem(&self) -> String {
        let body = est::encode(&[&SPKI_HEAD[..], &self.0].concat());
        format!("{PEM_BEGIN}\n{body}{PEM_END}\n")
    }

    /// By what a bundle names the key: the SHA-256 of its PEM.
    pub fn hint(&self) -> Digest {
        Digest::of(self.to_pem().as_bytes())
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .map_err(|_| Error::Untrusted)
    }
}

impl fmt::Debug for ModelPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p256:{}", self.hint().short())
    }
}
