//! Signed envelopes: [`Signed<T>`] comes from outside, [`Verified<T>`] is what the rest of the system accepts,
//! and [`Signed::verify`] is the one way from the first to the second.
//!
//! The envelope is DSSE (Dead Simple Signing Envelope, v1.0): signatures are Ed25519 over the pre-authentication
//! encoding of payload type and payload bytes, so a payload of one type never passes as another.

use crate::{Digest, limits};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData, ops::Deref};

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "KeyRole"))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Online key: signs which device shall run what.
    Director,
    /// Release key: signs bundles' manifests.
    Release,
}

/// A payload that may travel in an envelope.
pub trait Payload: Serialize + DeserializeOwned {
    /// The DSSE payload type.
    const TYPE: &'static str;
    /// The role whose keys may sign it.
    const ROLE: Role;

    /// Checks what the types cannot say. The text names the field and what is allowed.
    fn validate(&self) -> Result<(), String>;
}

/// Why an envelope was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Over [`limits::ENVELOPE_BYTES_MAX`].
    #[error("envelope of {size_bytes} bytes is over the limit of {} bytes", limits::ENVELOPE_BYTES_MAX)]
    TooLarge { size_bytes: usize },
    /// Not an envelope.
    #[error("not a signed envelope")]
    Envelope(#[source] serde_json::Error),
    /// Base64 that is none.
    #[error("{field} of the envelope is not base64")]
    Base64 { field: &'static str },
    /// More signatures than [`limits::SIGNATURES_MAX`], or none.
    #[error("envelope carries {count} signatures; 1 to {} are allowed", limits::SIGNATURES_MAX)]
    SignatureCount { count: usize },
    /// Another type of payload.
    #[error("envelope holds a {got:?}, expected {expected:?}")]
    Type { expected: &'static str, got: String },
    /// No signature by a trusted key of the right role is good.
    #[error("no valid signature by a trusted {role:?} key")]
    Untrusted { role: Role },
    /// Signed, but not a payload of this type.
    #[error("signed payload is not a {expected:?}")]
    Payload {
        expected: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// Signed, but breaks a rule.
    #[error("signed {expected:?} is invalid: {reason}")]
    Invalid { expected: &'static str, reason: String },
    /// A key that is no key.
    #[error("not an Ed25519 {what} key")]
    Key { what: &'static str },
}

/// A public Ed25519 key, 32 bytes, written as base64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

#[cfg(feature = "schema")]
crate::text_schema!(PublicKey, "PublicKey", { "pattern": "^[A-Za-z0-9+/]{43}=$" });

impl PublicKey {
    /// The key's id: the SHA-256 of its 32 bytes.
    pub fn id(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The key of 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", self.id().short())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        let bytes = BASE64.decode(text).map_err(|_| Error::Key { what: "public" })?;
        bytes.try_into().map(Self).map_err(|_| Error::Key { what: "public" })
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        BASE64.encode(key.0)
    }
}

/// A private Ed25519 key. Its `Debug` shows the public half only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// A fresh key as PKCS#8 v2 bytes, to be kept secret.
    pub fn generate_pkcs8() -> Result<Vec<u8>, Error> {
        let random = ring::rand::SystemRandom::new();
        let document = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| Error::Key { what: "private" })?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads PKCS#8 bytes.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| Error::Key { what: "private" })?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| Error::Key { what: "private" })?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The Ed25519 signature of `message`, 64 bytes. An envelope is signed with [`Signed::sign`].
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public)
    }
}

/// The public keys that are trusted, each for one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Keyring {
    keys: Vec<TrustedKey>,
}

/// One trusted key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrustedKey {
    pub role: Role,
    pub key: PublicKey,
}

impl Keyring {
    /// A ring of the given keys.
    pub fn new(keys: impl IntoIterator<Item = TrustedKey>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// The keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    fn find(&self, role: Role, id: &Digest) -> Option<&PublicKey> {
        self.keys
            .iter()
            .filter(|trusted| trusted.role == role)
            .map(|trusted| &trusted.key)
            .find(|key| key.id() == *id)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: Digest,
    sig: String,
}

/// An envelope as it came from outside: its content is out of reach until [`Signed::verify`] has accepted it.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    payload: Vec<u8>,
    signatures: Vec<(Digest, Vec<u8>)>,
    content: PhantomData<fn() -> T>,
}

/// A payload that a trusted key of the right role has signed and that keeps its own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Verified<T> {
    /// The payload itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: Payload> Signed<T> {
    /// Signs `value` with every key in `keys` and gives the envelope's bytes.
    pub fn sign(value: &T, keys: &[&SigningKey]) -> Result<Vec<u8>, Error> {
        value.validate().map_err(|reason| Error::Invalid { expected: T::TYPE, reason })?;
        if keys.is_empty() || keys.len() > limits::SIGNATURES_MAX {
            return Err(Error::SignatureCount { count: keys.len() });
        }
        let payload =
            serde_json::to_vec(value).map_err(|source| Error::Payload { expected: T::TYPE, source })?;
        let message = pre_authentication_encoding(T::TYPE, &payload);
        let signatures = keys
            .iter()
            .map(|key| Signature {
                keyid: key.public.id(),
                sig: BASE64.encode(key.pair.sign(&message).as_ref()),
            })
            .collect();
        let envelope =
            Envelope { payload_type: T::TYPE.to_owned(), payload: BASE64.encode(&payload), signatures };
        let bytes = serde_json::to_vec(&envelope).map_err(Error::Envelope)?;
        if bytes.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(Error::TooLarge { size_bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads an envelope. Nothing of its content is looked at yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(Error::TooLarge { size_bytes: bytes.len() });
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(Error::Envelope)?;
        if envelope.payload_type != T::TYPE {
            let got = envelope.payload_type.chars().take(120).collect();
            return Err(Error::Type { expected: T::TYPE, got });
        }
        let count = envelope.signatures.len();
        if count == 0 || count > limits::SIGNATURES_MAX {
            return Err(Error::SignatureCount { count });
        }
        let payload = BASE64.decode(&envelope.payload).map_err(|_| Error::Base64 { field: "payload" })?;
        let signatures = envelope
            .signatures
            .into_iter()
            .map(|signature| {
                let bytes =
                    BASE64.decode(&signature.sig).map_err(|_| Error::Base64 { field: "signature" })?;
                Ok((signature.keyid, bytes))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { payload, signatures, content: PhantomData })
    }

    /// Accepts the payload if a key of `keyring` with the payload's role has signed it and it is valid.
    pub fn verify(&self, keyring: &Keyring) -> Result<Verified<T>, Error> {
        let message = pre_authentication_encoding(T::TYPE, &self.payload);
        let trusted = self.signatures.iter().any(|(key_id, signature)| {
            keyring.find(T::ROLE, key_id).is_some_and(|key| {
                UnparsedPublicKey::new(&ED25519, key.0).verify(&message, signature).is_ok()
            })
        });
        if !trusted {
            return Err(Error::Untrusted { role: T::ROLE });
        }
        let value: T = serde_json::from_slice(&self.payload)
            .map_err(|source| Error::Payload { expected: T::TYPE, source })?;
        value.validate().map_err(|reason| Error::Invalid { expected: T::TYPE, reason })?;
        Ok(Verified(value))
    }
}

/// DSSE v1.0, "PAE": the lengths make the split between type and payload unambiguous.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    let mut message = head.into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests;
