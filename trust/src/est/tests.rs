use super::*;
use proptest::prelude::*;
use rcgen::{BasicConstraints as Constraints, CertificateParams, DnType, IsCa, KeyPair, SerialNumber};

fn certificate(name: &str, ca: bool) -> rcgen::Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xbc]));
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 1, 8);
    if ca {
        params.is_ca = IsCa::Ca(Constraints::Constrained(0));
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn certificates_come_back_as_they_were() {
    let (one, two) = (certificate("one", true), certificate("two", true));
    let message = write_certificates(&format!("{}{}", one.pem(), two.pem())).unwrap();
    assert!(message.lines().all(|line| line.len() <= LINE_BYTES));
    let mut back = read_certificates(message.as_bytes()).unwrap();
    let mut sent = vec![one.der().to_vec(), two.der().to_vec()];
    back.sort();
    sent.sort();
    assert_eq!(back, sent);
    let pem = to_pem(one.der()).unwrap();
    assert_eq!(from_pem(&pem).unwrap(), [one.der().to_vec()]);
}

#[test]
fn tells_name_serial_life_and_kind() {
    let facts_of = |ca| facts(certificate("cam-01", ca).der()).unwrap();
    let leaf = facts_of(false);
    assert_eq!((leaf.common_name.as_deref(), leaf.serial.as_str()), (Some("cam-01"), "abc"));
    assert_eq!(leaf.not_after.0 - leaf.not_before.0, 7 * 86_400_000);
    assert!(!leaf.is_ca && facts_of(true).is_ca);
}

#[test]
fn a_certificate_without_a_name_has_none() {
    let mut none = CertificateParams::default();
    none.distinguished_name = rcgen::DistinguishedName::new();
    let der = none.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    assert_eq!(facts(&der).unwrap().common_name, None);
}

#[test]
fn what_is_no_message_is_refused() {
    let good = write_certificates(&certificate("one", true).pem()).unwrap();
    assert!(matches!(read_certificates(b"-----BEGIN"), Err(Error::Base64)));
    assert!(matches!(read_certificates(b"AAAA"), Err(Error::Message(_))));
    assert!(matches!(read_certificates(&vec![b'A'; MESSAGE_BYTES_MAX + 1]), Err(Error::TooLarge)));
    assert!(read_certificates(&good.as_bytes()[..good.len() / 2]).is_err());
    assert!(write_certificates("").is_err());
    assert!(from_pem("-----BEGIN CERTIFICATE-----").is_err());
    let pem = certificate("one", true).pem();
    assert!(from_pem(&pem[..pem.len() / 2]).is_err());
    assert_eq!(from_pem(&format!("words\n{pem}words\r\n{pem}")).unwrap().len(), 2);
    let many = certificate("one", true).pem().repeat(CERTIFICATES_MAX + 1);
    assert!(matches!(from_pem(&many), Err(Error::Count(_) | Error::TooLarge)));
}

#[test]
fn a_certificate_that_is_cut_short_inside_whole_pem_is_an_error_and_no_endless_loop() {
    let der = certificate("one", true).der().to_vec();
    for length in [0, 1, 2, 3, 47, 48, 49, der.len() - 1] {
        let pem = der::pem::encode_string("CERTIFICATE", LineEnding::LF, &der[..length]).unwrap();
        assert!(matches!(from_pem(&pem), Err(Error::Certificate(_))), "{length}");
    }
}

#[test]
fn credentials_go_there_and_back_and_a_password_may_hold_a_colon() {
    let header = write_basic("cam-01", "a:b");
    assert_eq!(read_basic(&header), Some(("cam-01".to_owned(), "a:b".to_owned())));
    for bad in ["", "Basic", "Basic !!", "Bearer Y2FtOmE=", "Basic Y2Ft"] {
        assert_eq!(read_basic(bad), None, "{bad}");
    }
    assert_eq!(read_basic(&write_basic("a", &"x".repeat(CREDENTIALS_BYTES_MAX))), None);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = facts(&bytes);
        let _ = read_certificates(&bytes);
        let _ = from_pem(&String::from_utf8_lossy(&bytes));
        let _ = read_certificates(encode(&bytes).as_bytes());
        prop_assert_eq!(decode(encode(&bytes).as_bytes()).unwrap(), bytes);
    }

    #[test]
    fn a_message_that_was_changed_or_cut_never_panics(at in 0usize..2000, byte: u8, cut in 0usize..2000) {
        let good = decode(write_certificates(&certificate("one", true).pem()).unwrap().as_bytes()).unwrap();
        let mut bad = good.clone();
        let length = bad.len();
        bad[at % length] = byte;
        bad.truncate(length - cut % length);
        if let Ok(found) = read_certificates(encode(&bad).as_bytes()) {
            prop_assert!(!found.is_empty());
            for der in found {
                let _ = facts(&der);
            }
        }
    }
}
