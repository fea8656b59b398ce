use super::*;
use crate::signer::{AuthorityInfo, testing};
use x509_parser::{pem::Pem, prelude::FromDer, revocation_list::CertificateRevocationList};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn signer() -> (tempfile::TempDir, Signer) {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    (folder, signer)
}

/// Issuers with the serials that their lists name.
fn lists(pem: &str) -> Vec<(String, Vec<String>)> {
    let read = |pem: Pem| {
        let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
        let serials =
            list.iter_revoked_certificates().map(|it| it.user_certificate.to_str_radix(16)).collect();
        (list.issuer().to_string(), serials)
    };
    Pem::iter_from_buffer(pem.as_bytes()).map(|pem| read(pem.unwrap())).collect()
}

#[test]
fn each_ca_lists_its_own_revoked_certificates_and_those_of_which_nobody_knows_the_ca() {
    let (_folder, signer) = signer();
    let issue = |signer: &Signer, device: &str| {
        let csr = testing::csr(device, &testing::key());
        signer.issue(&csr, &device.parse().unwrap(), 7, NOW).unwrap()
    };
    let old = issue(&signer, "cam-01");
    signer.rotate_authority(NOW).unwrap();
    let new = issue(&signer, "cam-02");
    let revoked = |serial: &str, authority| Revoked { serial: serial.to_owned(), authority, at: NOW };
    let all = [
        revoked(&old.serial, Some(old.authority)),
        revoked(&new.serial, Some(new.authority)),
        revoked("abc", None),
    ];
    let text = signer.revocation_lists(&all, NOW).unwrap();
    assert_eq!(
        lists(&text),
        [
            ("CN=Edgewright fleet CA".to_owned(), vec![old.serial, "abc".to_owned()]),
            ("CN=Edgewright fleet CA 2".to_owned(), vec![new.serial, "abc".to_owned()]),
        ]
    );
    assert_eq!(
        lists(&signer.revocation_lists(&[], NOW).unwrap()).len(),
        2,
        "a CA without a list shuts all out"
    );
}

#[test]
fn a_list_is_signed_by_its_ca_and_good_at_once_and_for_years() {
    let (_folder, signer) = signer();
    let pem = signer.revocation_lists(&[], NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
    let ca = signer.ca_pem();
    let (_, ca) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).unwrap();
    list.verify_signature(ca.parse_x509().unwrap().public_key()).unwrap();
    let now = i64::try_from(NOW.0 / 1000).unwrap();
    assert!(list.last_update().timestamp() < now);
    assert!(list.next_update().unwrap().timestamp() > now + 9 * 365 * 86_400);
}

#[test]
fn the_control_plane_shows_a_certificate_of_the_oldest_ca_that_soon_ends() {
    let (_folder, signer) = signer();
    signer.rotate_authority(NOW).unwrap();
    let made = signer.client_certificate("edgewright:control-plane", HOUR, NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(made.certificate_pem.as_bytes()).unwrap();
    let facts = trust::est::facts(&pem.contents).unwrap();
    assert_eq!(facts.common_name.as_deref(), Some("edgewright:control-plane"));
    assert_eq!(facts.not_after, NOW.plus_ms(3_600_000));
    assert_eq!(pem.parse_x509().unwrap().issuer().to_string(), "CN=Edgewright fleet CA");
    KeyPair::from_pem(&made.key_pem).unwrap();
}

#[test]
fn a_broker_is_certified_for_its_names_by_the_ca_that_serves() {
    let (_folder, signer) = signer();
    let (_, csr) = key_and_request().unwrap();
    let hosts = ["edge.example", "192.168.1.5"].map(str::to_owned);
    let (pem, good_until) = signer.issue_broker(&csr, &hosts, NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
    for host in ["DNSName(edge.example)", "IPAddress(c0:a8:01:05)"] {
        assert!(shown.contains(&host.to_owned()), "{shown:?}");
    }
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !certificate.is_ca());
    assert_eq!(trust::est::facts(&pem.contents).unwrap().not_after, good_until);
    let serves = |info: &AuthorityInfo| info.serves;
    assert_eq!(signer.authority_infos().iter().filter(|info| serves(info)).count(), 1);
    for host in ["", "a b", "https://edge.example", "*"] {
        assert!(
            matches!(signer.issue_broker(&csr, &[host.to_owned()], NOW), Err(Error::Host(_))),
            "{host:?}"
        );
    }
    assert!(matches!(signer.issue_broker(b"none", &[], NOW), Err(Error::Request(_))));
}
