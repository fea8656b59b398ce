//! Signed envelopes as they come. No private key is at hand, so whatever verifies is what a golden file holds, word
//! for word.

#![no_main]

use edgewright_fuzz::keyring;
use libfuzzer_sys::fuzz_target;
use shared::{Signed, manifest::Manifest, signing::Payload, wire::Desired};
use std::{fmt::Debug, sync::LazyLock};

static DESIRED: LazyLock<[Desired; 2]> = LazyLock::new(|| {
    [
        golden(include_bytes!("../../shared/tests/golden/desired.envelope.json")),
        golden(include_bytes!("../../shared/tests/golden/desired-delta.envelope.json")),
    ]
});
static MANIFEST: LazyLock<[Manifest; 1]> =
    LazyLock::new(|| [golden(include_bytes!("../../shared/tests/golden/manifest.envelope.json"))]);

fn golden<T: Payload>(bytes: &[u8]) -> T {
    let verified = Signed::<T>::parse(bytes).and_then(|signed| signed.verify(keyring()));
    verified.expect("the golden file").into_inner()
}

fn is_golden_where_it_verifies<T: Payload + PartialEq + Debug>(bytes: &[u8], golden: &[T]) {
    if let Ok(value) = Signed::<T>::parse(bytes).and_then(|signed| signed.verify(keyring())) {
        assert!(golden.contains(&*value), "nobody signed this: {:?}", &*value);
    }
}

fuzz_target!(|bytes: &[u8]| {
    is_golden_where_it_verifies(bytes, &DESIRED[..]);
    is_golden_where_it_verifies(bytes, &MANIFEST[..]);
});
