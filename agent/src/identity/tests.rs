use super::*;
use std::fs;

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

#[test]
fn an_answer_of_no_use_leaves_the_key_and_the_next_try_enrols_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(&folder.path().join("data")).unwrap();
    let server = server::Server::start();
    let file = folder.path().join("enrol.json");
    fs::write(&file, server.enrolment()).unwrap();
    let enrol = || Identity::load_or_enrol(&data, Some(&file), &board());

    let error = server.answer(server::Answer::CertificateOfAnotherKey, enrol).unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
    assert!(!data.identity().exists(), "an identity of no use was written");
    let key = fs::read(data.key()).unwrap();

    let identity = server.answer(server::Answer::Certificate, enrol).unwrap();
    assert_eq!(fs::read(data.key()).unwrap(), key, "another key was made");
    identity.tls(&data).unwrap();
    assert_eq!(enrol().unwrap().certificate_pem, identity.certificate_pem);
    let keys = server.keys();
    assert!(keys.len() == 2 && keys[0] == keys[1], "the two tries asked for different keys");
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
