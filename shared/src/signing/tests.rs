use super::*;
use crate::wire::Desired;
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
}

fn ring_of(role: Role, keys: &[&SigningKey]) -> Keyring {
    Keyring::new(keys.iter().map(|key| TrustedKey { role, key: key.public().clone() }))
}

fn desired() -> Desired {
    Desired {
        device: "cam-01".parse().unwrap(),
        generation: 7,
        issued_at: crate::Timestamp(1),
        chunk_bytes: 65_536,
        assignments: Vec::new(),
    }
}

#[test]
fn what_was_signed_is_verified() {
    let key = key();
    let bytes = Signed::sign(&desired(), &[&key]).unwrap();
    let verified =
        Signed::<Desired>::parse(&bytes).unwrap().verify(&ring_of(Role::Director, &[&key])).unwrap();
    assert_eq!(verified.into_inner(), desired());
}

#[test]
fn one_trusted_signature_among_strangers_is_enough() {
    let (stranger, trusted) = (key(), key());
    let bytes = Signed::sign(&desired(), &[&stranger, &trusted]).unwrap();
    let signed = Signed::<Desired>::parse(&bytes).unwrap();
    assert!(signed.verify(&ring_of(Role::Director, &[&trusted])).is_ok());
    assert!(matches!(signed.verify(&Keyring::default()), Err(Error::Untrusted { role: Role::Director })));
}

#[test]
fn a_key_of_another_role_is_not_enough() {
    let key = key();
    let bytes = Signed::sign(&desired(), &[&key]).unwrap();
    let signed = Signed::<Desired>::parse(&bytes).unwrap();
    assert!(matches!(signed.verify(&ring_of(Role::Release, &[&key])), Err(Error::Untrusted { .. })));
}

#[test]
fn a_private_key_does_not_show_in_debug() {
    let pkcs8 = SigningKey::generate_pkcs8().unwrap();
    let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
    let text = format!("{key:?}");
    assert!(text.starts_with("SigningKey(ed25519:"));
    assert!(text.len() < 60);
}

/// An envelope with a good signature over `payload`, whatever that is.
fn sign_bytes(payload: &[u8], key: &SigningKey) -> Vec<u8> {
    let message = pre_authentication_encoding(Desired::TYPE, payload);
    let signature =
        Signature { keyid: key.public.id(), sig: BASE64.encode(key.pair.sign(&message).as_ref()) };
    let envelope = Envelope {
        payload_type: Desired::TYPE.to_owned(),
        payload: BASE64.encode(payload),
        signatures: vec![signature],
    };
    serde_json::to_vec(&envelope).unwrap()
}

#[test]
fn an_invalid_payload_is_neither_signed_nor_accepted() {
    let key = key();
    let ring = ring_of(Role::Director, &[&key]);
    let accept = |payload: &[u8]| Signed::<Desired>::parse(&sign_bytes(payload, &key)).unwrap().verify(&ring);
    let bad = Desired { chunk_bytes: 1, ..desired() };
    assert!(matches!(Signed::sign(&bad, &[&key]), Err(Error::Invalid { .. })));

    assert_eq!(accept(&serde_json::to_vec(&desired()).unwrap()).unwrap().into_inner(), desired());
    let error = accept(&serde_json::to_vec(&bad).unwrap()).unwrap_err();
    assert!(matches!(&error, Error::Invalid { reason, .. } if reason.contains("chunk_bytes")), "{error:?}");
    for payload in [&b"{}"[..], b"", b"\xff", b"[]"] {
        assert!(matches!(accept(payload), Err(Error::Payload { .. })), "{payload:?}");
    }
}

#[test]
fn no_key_and_too_many_keys_are_refused() {
    let key = key();
    assert!(matches!(Signed::sign(&desired(), &[]), Err(Error::SignatureCount { count: 0 })));
    assert!(matches!(Signed::sign(&desired(), &[&key; 9]), Err(Error::SignatureCount { count: 9 })));
}

proptest! {
    #[test]
    fn bytes_from_outside_never_panic(bytes: Vec<u8>) {
        let _ = Signed::<Desired>::parse(&bytes);
    }

    #[test]
    fn one_changed_byte_is_never_accepted_as_something_else(at: prop::sample::Index, to: u8) {
        let key = key();
        let mut bytes = Signed::sign(&desired(), &[&key]).unwrap();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok(signed) = Signed::<Desired>::parse(&bytes)
            && let Ok(verified) = signed.verify(&ring_of(Role::Director, &[&key]))
        {
            // White space or an equal spelling of the same bytes; never another content.
            prop_assert_eq!(verified.into_inner(), desired());
        }
    }
}
