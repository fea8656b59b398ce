//! The Sigstore bundle around a statement.

use super::{
    Error, ModelKey, ModelPublicKey, PAYLOAD_TYPE, Resource,
    statement::{self, SignedModel},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use shared::{limits, signing::pre_authentication_encoding};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    public_key: Option<PublicKeyHint>,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PublicKeyHint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EnvelopeSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

/// Signs the model `name` of these files and gives the bundle's JSON. Whoever verifies leaves out what lies at or below
/// `ignore_paths`; no file may.
pub fn sign(
    name: &str,
    resources: &[Resource],
    ignore_paths: &[&str],
    key: &ModelKey,
) -> Result<Vec<u8>, Error> {
    let payload = statement::write(name, resources, ignore_paths)?;
    let sig = key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload))?;
    let bundle = Bundle {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: Material {
            public_key: Some(PublicKeyHint { hint: Some(key.public().hint().to_string()) }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: BASE64.encode(&payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![EnvelopeSignature { sig: BASE64.encode(sig), keyid: String::new() }],
        },
    };
    let bytes = serde_json::to_vec(&bundle).map_err(Error::Bundle)?;
    if bytes.len() > limits::MODEL_SIGNATURE_BYTES_MAX {
        return Err(Error::TooLarge { size_bytes: bytes.len() });
    }
    Ok(bytes)
}

/// A signature as it came from outside: what it says is out of reach until [`Signature::verify`] has accepted it.
#[derive(Clone, Debug)]
pub struct Signature {
    payload: Vec<u8>,
    signature: Vec<u8>,
    hint: Option<String>,
}

impl Signature {
    /// Reads a bundle's JSON. Nothing that is signed is looked at yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > limits::MODEL_SIGNATURE_BYTES_MAX {
            return Err(Error::TooLarge { size_bytes: bytes.len() });
        }
        let bundle: Bundle = serde_json::from_slice(bytes).map_err(Error::Bundle)?;
        expect("bundle", MEDIA_TYPE, &bundle.media_type)?;
        let Some(key) = bundle.verification_material.public_key else {
            return Err(Error::Unsupported(
                "the model is signed with a certificate or an identity; only signatures by a key are read"
                    .to_owned(),
            ));
        };
        let envelope = bundle.dsse_envelope;
        expect("payload", PAYLOAD_TYPE, &envelope.payload_type)?;
        let [signature] = envelope.signatures.as_slice() else {
            let count = envelope.signatures.len();
            return Err(Error::Invalid(format!("the envelope carries {count} signatures, not 1")));
        };
        Ok(Self {
            payload: BASE64.decode(&envelope.payload).map_err(|_| Error::Base64 { field: "payload" })?,
            signature: BASE64.decode(&signature.sig).map_err(|_| Error::Base64 { field: "sig" })?,
            hint: key.hint.filter(|hint| !hint.is_empty()),
        })
    }

    /// Gives what was signed if it was signed with `key`, and keeps the rules of a statement about a model.
    pub fn verify(&self, key: &ModelPublicKey) -> Result<SignedModel, Error> {
        let given = key.hint().to_string();
        if let Some(named) = self.hint.as_ref().filter(|named| **named != given) {
            let named = named.chars().take(given.len()).collect();
            return Err(Error::OtherKey { named, given });
        }
        key.verify(&pre_authentication_encoding(PAYLOAD_TYPE, &self.payload), &self.signature)?;
        statement::read(&self.payload)
    }
}

/// Refuses another type than the one that is read.
pub(super) fn expect(what: &str, expected: &str, got: &str) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let got: String = got.chars().take(120).collect();
    Err(Error::Unsupported(format!("the {what} is {got:?}; {expected:?} is read")))
}
