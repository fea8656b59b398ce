//! What goes over the wire in EST: certs-only messages, certificates, PEM, credentials. What is read comes back the
//! same when it is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trust::est::{
    CERTIFICATES_MAX, decode, encode, facts, from_pem, read_basic, read_certificates, to_pem, write_basic,
    write_certificates,
};

/// A set has no order.
fn sorted(mut certificates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    certificates.sort();
    certificates.dedup();
    certificates
}

fn check(certificates: Vec<Vec<u8>>) {
    assert!((1..=CERTIFICATES_MAX).contains(&certificates.len()));
    let mut pem = String::new();
    for certificate in &certificates {
        let _ = facts(certificate);
        pem.push_str(&to_pem(certificate).expect("a certificate that was read is written"));
    }
    let certificates = sorted(certificates);
    assert_eq!(sorted(from_pem(&pem).expect("what was written is read")), certificates);
    // A set holds each but once.
    if let Ok(message) = write_certificates(&pem) {
        let read = read_certificates(message.as_bytes()).expect("what was written is read");
        assert_eq!(sorted(read), certificates);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = facts(bytes);
    assert_eq!(decode(encode(bytes).as_bytes()).ok().as_deref(), Some(bytes));
    // As it comes, and as its base64 would have come.
    for read in [read_certificates(bytes), read_certificates(encode(bytes).as_bytes())] {
        if let Ok(certificates) = read {
            check(certificates);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(certificates) = from_pem(text) {
        check(certificates);
    }
    if let Some((user, password)) = read_basic(text) {
        assert_eq!(read_basic(&write_basic(&user, &password)), Some((user, password)));
    }
});
