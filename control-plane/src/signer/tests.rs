use super::*;
use std::os::unix::fs::PermissionsExt;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn csr(name: &str) -> Vec<u8> {
    testing::csr(name, &testing::key())
}

fn device() -> DeviceId {
    "cam-01".parse().unwrap()
}

#[test]
fn a_second_start_finds_the_same_keys_in_files_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let first = Signer::open(&keys, &[], NOW).unwrap();
    first.rotate_authority(NOW).unwrap();
    let second = Signer::open(&keys, &["edge.example".to_owned()], NOW).unwrap();
    assert_eq!(first.keyring(), second.keyring());
    assert_eq!((first.ca_pem(), first.admin_token()), (second.ca_pem(), second.admin_token()));
    assert_eq!(first.authority_infos(), second.authority_infos());
    assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&keys).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
    assert!(!format!("{first:?}").contains(first.admin_token()));
}

#[test]
fn a_certificate_is_for_the_device_and_lives_as_long_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    let issued = signer.issue(&csr("cam-01"), &device(), 7, NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names: Vec<_> = certificate.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, ["cam-01"]);
    assert_eq!(certificate.serial.to_str_radix(16), issued.serial);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !certificate.is_ca());
    let facts = trust::est::facts(&pem.contents).unwrap();
    assert_eq!((facts.serial, facts.not_after), (issued.serial, issued.expires_at));
    assert_eq!(issued.expires_at, NOW.plus_ms(7 * 86_400_000));
}

#[test]
fn a_request_for_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    for name in ["somebody-else", "", "cam-01 "] {
        let error = signer.issue(&csr(name), &device(), 7, NOW).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{name:?}: {error}");
    }
}

#[test]
fn the_servers_certificate_is_good_for_every_host_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = ["192.168.1.5", "2001:db8::1", "edge.example"].map(str::to_owned);
    let signer = Signer::open(folder.path(), &hosts, NOW).unwrap();
    let pem = fs::read(signer.server_certificate_path()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
    for host in [
        "IPAddress(c0:a8:01:05)",
        "IPAddress(20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01)",
        "DNSName(edge.example)",
        "DNSName(localhost)",
    ] {
        assert!(shown.iter().any(|name| name == host), "{host} is not in {shown:?}");
    }
    assert_eq!(shown.len(), 6);
}

#[test]
fn refuses_what_is_no_request_or_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    let good = csr("cam-01");
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bad in [&b""[..], b"nonsense", &changed, &good[..good.len() / 2]] {
        let error = signer.issue(bad, &device(), 7, NOW).unwrap_err();
        assert!(matches!(error, Error::Request(_)), "{bad:?}: {error}");
    }
}

/// Which CA of `signer` a certificate names as its issuer.
fn issuer(pem: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    pem.parse_x509().unwrap().issuer().to_string()
}

#[test]
fn a_rotation_changes_who_issues_to_devices_and_a_retirement_who_issues_to_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    let server = |signer: &Signer| issuer(&fs::read_to_string(signer.server_certificate_path()).unwrap());
    let device = |signer: &Signer| issuer(&signer.issue(&csr("cam-01"), &device(), 7, NOW).unwrap().pem);
    let (first, served) = (device(&signer), server(&signer));
    signer.rotate_authority(NOW).unwrap();
    let second = device(&signer);
    assert_ne!(second, first);
    assert_eq!(server(&signer), served);
    assert_eq!(signer.ca_pem().matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(fs::read_to_string(signer.ca_path()).unwrap(), signer.ca_pem());

    // A restart in between changes nothing.
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    assert_eq!((device(&signer), server(&signer)), (second.clone(), served));
    assert_eq!(signer.retire_authorities(NOW).unwrap(), 1);
    assert_eq!((device(&signer), server(&signer)), (second.clone(), second.clone()));
    assert_eq!(signer.ca_pem().matches("BEGIN CERTIFICATE").count(), 1);
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    assert_eq!((device(&signer), signer.retire_authorities(NOW).unwrap()), (second.clone(), 0));
    signer.rotate_authority(NOW).unwrap();
    assert!(device(&signer) != second && device(&signer) != first);
}

#[test]
fn what_another_server_makes_of_the_cas_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let one = Signer::open(folder.path(), &[], NOW).unwrap();
    let two = Signer::open(folder.path(), &[], NOW).unwrap();
    assert!(!two.reload_authorities().unwrap(), "nothing has changed");
    one.rotate_authority(NOW).unwrap();
    assert!(two.reload_authorities().unwrap() && !two.reload_authorities().unwrap());
    assert_eq!(one.authority_infos(), two.authority_infos());
    one.retire_authorities(NOW).unwrap();
    let trusted = fs::read_to_string(one.ca_path()).unwrap();
    assert!(two.reload_authorities().unwrap());
    assert_eq!((two.ca_pem(), fs::read_to_string(one.ca_path()).unwrap()), (trusted.clone(), trusted));
}

#[test]
fn a_lost_file_of_a_ca_is_named_and_none_is_made_in_its_place() {
    for (lost, number) in [("ca.key.pem", 1), ("ca-2.key.pem", 2), ("ca.pem", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path(), &[], NOW).unwrap();
        if number == 2 {
            signer.rotate_authority(NOW).unwrap();
        }
        fs::remove_file(folder.path().join(lost)).unwrap();
        for _ in 0..2 {
            let error = Signer::open(folder.path(), &[], NOW).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Lost { .. }) && text.contains(lost), "{text}");
            assert!(text.contains("backup") && !text.contains('\n'), "{text}");
        }
        assert!(!folder.path().join(lost).exists());
    }
}

#[test]
fn a_ca_whose_files_are_all_gone_is_made_anew_once_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = Signer::open(folder.path(), &[], NOW).unwrap();
    fs::remove_file(folder.path().join("ca.key.pem")).unwrap();
    let Err(Error::Lost { remains, .. }) = Signer::open(folder.path(), &[], NOW) else {
        panic!("it is found")
    };
    remains.iter().for_each(|path| fs::remove_file(path).unwrap());
    let second = Signer::open(folder.path(), &[], NOW).unwrap();
    assert_ne!(first.ca_pem(), second.ca_pem());
}

#[test]
fn a_key_whose_certificate_was_not_written_yet_is_used() {
    let folder = tempfile::tempdir().unwrap();
    Signer::open(folder.path(), &[], NOW).unwrap();
    let key = fs::read(folder.path().join("ca.key.pem")).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    fs::write(fresh.path().join("ca.key.pem"), &key).unwrap();
    Signer::open(fresh.path(), &[], NOW).unwrap();
    assert_eq!(fs::read(fresh.path().join("ca.key.pem")).unwrap(), key);
}

#[test]
fn the_number_of_cas_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), &[], NOW).unwrap();
    for _ in 1..AUTHORITIES_MAX {
        signer.rotate_authority(NOW).unwrap();
    }
    assert!(matches!(signer.rotate_authority(NOW), Err(Error::Authorities)));
    assert_eq!(signer.authority_infos().len(), AUTHORITIES_MAX);
}

#[test]
fn a_file_in_the_folder_that_one_is_in_is_written_too() {
    // Tests share their process's folder: the name is one that nobody else uses.
    let name = format!("{}.bare-name.tmp", std::process::id());
    let written = write(Path::new(&name), b"secret");
    let read = fs::read(&name);
    fs::remove_file(&name).unwrap();
    written.unwrap();
    assert_eq!(read.unwrap(), b"secret");
}

#[test]
fn what_a_release_key_of_before_signed_is_still_read() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp(1_790_000_000_000);
    let before = Signer::open(folder.path(), &[], now).unwrap();
    retire_release_key(folder.path()).unwrap();
    retire_release_key(folder.path()).unwrap();
    fs::remove_file(folder.path().join("release.pk8")).unwrap();
    let after = Signer::open(folder.path(), &[], now).unwrap();
    assert_ne!(before.release_id(), after.release_id());
    let read: Vec<_> = after.keyring_to_read().keys().iter().map(|key| key.key.id()).collect();
    assert!(read.contains(&before.release_id()) && read.contains(&after.release_id()));
    // Nothing new is believed because of it.
    assert!(after.keyring().keys().iter().all(|key| key.key.id() != before.release_id()));
}
