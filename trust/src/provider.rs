//! The cryptography behind the metadata reader, on `ring`: it hashes and verifies, and makes no keys.

use ring::{digest, signature};
use sigstore_crypto::{CryptoProvider, Error, HashContext, SigningScheme, install_default_provider};
use sigstore_types::HashAlgorithm;
use std::sync::Once;

/// Makes `ring` the provider of this process. Every public entry of the crate that verifies calls it first.
pub(crate) fn ensure() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // One that somebody installed before verifies as well.
        let _earlier = install_default_provider(&Ring);
    });
}

#[derive(Debug)]
struct Ring;

struct Hashing(digest::Context);

impl HashContext for Hashing {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

impl CryptoProvider for Ring {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>, Error> {
        let algorithm = match algorithm {
            HashAlgorithm::Sha2256 => &digest::SHA256,
            HashAlgorithm::Sha2384 => &digest::SHA384,
            HashAlgorithm::Sha2512 => &digest::SHA512,
            other => return Err(Error::UnsupportedAlgorithm(format!("{other} digests"))),
        };
        Ok(Box::new(Hashing(digest::Context::new(algorithm))))
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let invalid = |_| Error::Verification(format!("{} signature invalid", scheme.name()));
        signature::UnparsedPublicKey::new(algorithm(scheme)?, key).verify(data, signature).map_err(invalid)
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _key: &[u8],
        _digest: &[u8],
        _signature: &[u8],
    ) -> Result<(), Error> {
        Err(Error::UnsupportedAlgorithm(format!("{} over a digest; give the message", scheme.name())))
    }
}

fn algorithm(scheme: SigningScheme) -> Result<&'static dyn signature::VerificationAlgorithm, Error> {
    Ok(match scheme {
        SigningScheme::Ed25519 => &signature::ED25519,
        SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP256Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
        SigningScheme::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        SigningScheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        SigningScheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        SigningScheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        other => return Err(Error::UnsupportedAlgorithm(other.name().to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    #[test]
    fn agrees_with_the_published_vectors() {
        // FIPS 180-2, appendices B.1 and C.1; FIPS 180-4 for SHA-384.
        let starts = [
            (HashAlgorithm::Sha2256, "ba7816bf8f01cfea"),
            (HashAlgorithm::Sha2384, "cb00753f45a35e8b"),
            (HashAlgorithm::Sha2512, "ddaf35a193617aba"),
        ];
        for (algorithm, start) in starts {
            let mut hashing = Ring.hash(algorithm).unwrap();
            hashing.update(b"a");
            hashing.update(b"bc");
            assert!(hex::encode(hashing.finalize()).starts_with(start), "{algorithm}");
        }
    }

    #[test]
    fn an_ecdsa_signature_is_good_for_its_own_message_and_scheme_alone() {
        let random = ring::rand::SystemRandom::new();
        let curves = [
            (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, SigningScheme::EcdsaP256Sha256),
            (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, SigningScheme::EcdsaP384Sha384),
        ];
        for (curve, scheme) in curves {
            let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
            let pair = signature::EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &random).unwrap();
            let (key, signed) = (pair.public_key().as_ref(), pair.sign(&random, b"root").unwrap());
            assert!(Ring.verify_raw(scheme, key, b"root", signed.as_ref()).is_ok());
            assert!(Ring.verify_raw(scheme, key, b"toor", signed.as_ref()).is_err());
            assert!(Ring.verify_raw(SigningScheme::Ed25519, key, b"root", signed.as_ref()).is_err());
        }
    }

    #[test]
    fn a_scheme_that_ring_does_not_know_is_refused() {
        assert!(Ring.verify_raw(SigningScheme::MlDsa44, &[0; 1312], b"", &[]).is_err());
    }

    proptest! {
        #[test]
        fn a_signature_with_any_bit_flipped_is_refused(bit in 0usize..512, message: Vec<u8>) {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
            let mut signed = pair.sign(&message).as_ref().to_vec();
            let key = pair.public_key().as_ref();
            prop_assert!(Ring.verify_raw(SigningScheme::Ed25519, key, &message, &signed).is_ok());
            signed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Ring.verify_raw(SigningScheme::Ed25519, key, &message, &signed).is_err());
        }
    }
}
