use super::*;
use server::Answer;
use std::{fs, os::unix::fs::PermissionsExt};

mod server;

fn board() -> BoardId {
    "x86-64".parse().unwrap()
}

fn enrol_with(text: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(&folder.path().join("data")).unwrap();
    let file = folder.path().join("enrol.json");
    if let Some(text) = text {
        fs::write(&file, text).unwrap();
    }
    let message = Identity::load_or_enrol(&data, Some(&file), &board()).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!data.key().exists() && !data.identity().exists(), "something was written");
    message
}

#[test]
fn what_is_wrong_with_an_enrolment_file_is_said_in_one_line() {
    assert!(enrol_with(None).contains("enrol.json"));
    assert!(enrol_with(Some("{}")).contains("missing field"));
    let http = r#"{"server": "http://x", "ca_pem": "", "token": "t"}"#;
    assert!(enrol_with(Some(http)).contains("https://"));
    let no_ca = r#"{"server": "https://127.0.0.1:1", "ca_pem": "", "token": "t"}"#;
    assert!(enrol_with(Some(no_ca)).contains("ca_pem holds no certificate"));
}

#[test]
fn a_token_does_not_show_in_debug_and_is_written_as_it_is() {
    let text = r#"{"server":"https://x","ca_pem":"","token":"secret","device":null}"#;
    let enrolment: Enrolment = serde_json::from_str(text).unwrap();
    assert!(!format!("{enrolment:?}").contains("secret"));
    assert_eq!(serde_json::to_string(&enrolment).unwrap(), text);
}

struct Device {
    data: DataDir,
    server: server::Server,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let server = server::Server::start();
        let file = folder.path().join("enrol.json");
        fs::write(&file, server.enrolment()).unwrap();
        Self { data, server, file, _folder: folder }
    }

    fn enrol(&self, answer: Answer, requests: usize) -> Result<Identity, Error> {
        let enrol = || Identity::load_or_enrol(&self.data, Some(&self.file), &board());
        self.server.answer(answer, requests, enrol)
    }

    fn stored(&self) -> Vec<u8> {
        fs::read(self.data.identity()).unwrap()
    }
}

#[test]
fn an_answer_of_no_use_leaves_the_key_and_the_next_try_enrols_it() {
    let device = Device::new();
    for (answer, requests) in [
        (Answer::CertificateOfAnotherKey, 1),
        (Answer::CertificateOfAnotherName, 1),
        (Answer::Nonsense, 1),
        (Answer::Refusal, 1),
        (Answer::RefusedBoard, 2),
    ] {
        let message = device.enrol(answer, requests).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!device.data.identity().exists(), "an identity of no use was written: {message}");
    }
    let identity = device.enrol(Answer::Certificate, 2).unwrap();
    assert!(!device.data.key().exists(), "the key lies there twice");
    identity.tls(&device.data).unwrap();
    assert_eq!((identity.device.as_str(), identity.mqtt_port), ("cam-01", 8883));
    let again = Identity::load_or_enrol(&device.data, Some(&device.file), &board()).unwrap();
    assert_eq!(again.certificate_pem, identity.certificate_pem);
    let keys = device.server.keys();
    assert!(keys.len() == 6 && keys.iter().all(|key| *key == keys[0]), "the tries asked for different keys");
}

#[test]
fn what_the_server_says_is_passed_on() {
    let message = Device::new().enrol(Answer::Refusal, 1).unwrap_err().to_string();
    assert!(message.ends_with("refused this device: the token has expired"), "{message}");
    let message = Device::new().enrol(Answer::RefusedBoard, 2).unwrap_err().to_string();
    assert!(message.contains("board \"x\" is not known"), "{message}");
}

#[test]
fn a_renewal_has_a_fresh_key_and_the_cas_of_the_server_and_is_on_disk_for_its_owner_alone() {
    let device = Device::new();
    let first = device.enrol(Answer::Certificate, 2).unwrap();
    let second = device.server.answer(Answer::CertificateAndNewCa, 2, || first.renew(&device.data)).unwrap();
    let keys = device.server.keys();
    assert_ne!(keys[0], keys[1]);
    assert!(first.key_pem != second.key_pem && first.certificate_pem != second.certificate_pem);
    assert_eq!(second.ca_pem.matches("BEGIN CERTIFICATE").count(), 2);
    let loaded = Identity::load(&device.data).unwrap().unwrap();
    assert_eq!((loaded.certificate_pem, loaded.ca_pem), (second.certificate_pem, second.ca_pem));
    assert_eq!(fs::metadata(device.data.identity()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_renewal_that_fails_leaves_the_pair_that_was_there() {
    let device = Device::new();
    let first = device.enrol(Answer::Certificate, 2).unwrap();
    let before = device.stored();
    for answer in
        [Answer::Refusal, Answer::Nonsense, Answer::CertificateOfAnotherKey, Answer::CertificateOfAnotherName]
    {
        let error = device.server.answer(answer, 2, || first.renew(&device.data)).unwrap_err();
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert_eq!(device.stored(), before);
    }
    // Cut off while the file is written: a part of the new one lies beside the old one.
    fs::write(device.data.identity().with_file_name(".identity.json.new"), &before[..40]).unwrap();
    let loaded = Identity::load(&device.data).unwrap().unwrap();
    loaded.tls(&device.data).unwrap();
    device.server.answer(Answer::Certificate, 2, || loaded.renew(&device.data)).unwrap();
}

#[test]
fn another_token_for_the_device_enrols_it_again_and_one_that_does_not_work_changes_nothing() {
    let device = Device::new();
    let first = device.enrol(Answer::Certificate, 2).unwrap();
    let other = device.server.enrolment().replace("\"once\"", "\"another\"");
    fs::write(&device.file, &other).unwrap();
    let before = device.stored();
    let kept = device.enrol(Answer::Refusal, 1).unwrap();
    assert_eq!((kept.certificate_pem, device.stored()), (first.certificate_pem.clone(), before));
    let again = device.enrol(Answer::Certificate, 2).unwrap();
    assert_ne!(again.certificate_pem, first.certificate_pem);
    // For another device, or gone: nothing is asked.
    fs::write(&device.file, other.replace("another", "third").replace("cam-01", "cam-02")).unwrap();
    assert_eq!(device.enrol(Answer::Certificate, 0).unwrap().certificate_pem, again.certificate_pem);
    fs::remove_file(&device.file).unwrap();
    assert_eq!(device.enrol(Answer::Certificate, 0).unwrap().certificate_pem, again.certificate_pem);
}

#[test]
fn a_server_that_is_gone_is_named() {
    let device = Device::new();
    let first = device.enrol(Answer::Certificate, 2).unwrap();
    let Device { data, server, _folder, .. } = device;
    drop(server);
    let message = first.renew(&data).unwrap_err().to_string();
    assert!(message.contains("cannot reach https://127.0.0.1"), "{message}");
}

#[test]
fn a_device_without_a_name_takes_one_from_its_key() {
    let key = KeyPair::generate().unwrap();
    let id = id_of(&key).unwrap();
    assert_eq!(id, id_of(&key).unwrap());
    assert!(id.as_str().starts_with("device-") && id != id_of(&KeyPair::generate().unwrap()).unwrap());
}

#[test]
fn no_secret_shows_in_debug() {
    let device = Device::new();
    let identity = device.enrol(Answer::Certificate, 2).unwrap();
    let text = format!("{identity:?}");
    assert!(!text.contains("PRIVATE KEY") && text.contains("Secret(…)"), "{text}");
}

#[test]
fn without_a_file_it_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let message = Identity::load_or_enrol(&data, None, &board()).unwrap_err().to_string();
    assert!(message.contains("--enroll FILE"), "{message}");
}

#[test]
fn a_damaged_identity_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    fs::write(data.identity(), "{").unwrap();
    let message = Identity::load_or_enrol(&data, None, &board()).unwrap_err().to_string();
    assert!(message.contains("identity.json") && message.contains("enrol again"), "{message}");
}
