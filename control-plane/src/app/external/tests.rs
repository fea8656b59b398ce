use super::*;
use crate::{
    app::{authorities::Retirement, testing},
    broker::Ingest,
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

async fn app() -> (tempfile::TempDir, Arc<App>) {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "exit 1").await;
    (folder, app)
}

async fn is_good(app: &App, device: &str) -> bool {
    !app.with_good_certificates(&[device.parse().unwrap()]).await.unwrap().is_empty()
}

fn revoked_in(lists: &RevocationLists) -> usize {
    let (_, pem) = x509_parser::pem::parse_x509_pem(lists.crl_pem.as_bytes()).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
    list.iter_revoked_certificates().count()
}

#[tokio::test]
async fn a_device_is_heard_until_it_is_revoked_and_then_its_certificate_is_on_the_list() {
    let (_folder, app) = app().await;
    testing::enrol(&app, "cam-01", "x86-64").await;
    testing::enrol(&app, "cam-02", "x86-64").await;
    assert!(is_good(&app, "cam-01").await && !is_good(&app, "stranger").await);
    assert_eq!(revoked_in(&app.revocation_lists().await.unwrap()), 0);
    app.revoke_device(&"cam-01".parse().unwrap()).await.unwrap();
    assert!(!is_good(&app, "cam-01").await && is_good(&app, "cam-02").await);
    assert_eq!(revoked_in(&app.revocation_lists().await.unwrap()), 1);
}

#[tokio::test]
async fn what_a_broker_had_kept_does_not_say_when_a_device_was_seen() {
    let (_folder, app) = app().await;
    let device = testing::enrol(&app, "cam-01", "x86-64").await.device;
    let presence = shared::topic::Topic::Presence(device.clone());
    app.recall(&device, &presence, "{\"online\":true}".into()).await.unwrap();
    let kept = app.device(&device).await.unwrap();
    assert_eq!((kept.online, kept.seen_at), (true, None));
    app.receive(&device, &presence, "{\"online\":true}".into()).await.unwrap();
    assert!(app.device(&device).await.unwrap().seen_at.is_some());
}

#[tokio::test]
async fn a_device_that_is_left_behind_by_a_new_ca_is_heard_no_more() {
    let (_folder, app) = app().await;
    testing::enrol(&app, "left", "x86-64").await;
    app.rotate_authority().await.unwrap();
    testing::enrol(&app, "moved", "x86-64").await;
    assert!(is_good(&app, "left").await);
    app.retire_authorities(Retirement { force: true }).await.unwrap();
    assert!(!is_good(&app, "left").await && is_good(&app, "moved").await);
}

#[tokio::test]
async fn a_broker_gets_a_certificate_for_the_host_that_devices_are_told_and_for_those_that_are_given() {
    let (_folder, app) = app().await;
    let (_, csr) = signer::key_and_request().unwrap();
    let new = |names: &[&str]| NewBrokerCertificate {
        csr: est::encode(&csr),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let made = app.broker_certificate(new(&["edge.example"])).await.unwrap();
    assert_eq!(made.names, ["127.0.0.1", "edge.example"]);
    assert_eq!((made.port, made.ca_pem), (8883, app.signer().ca_pem()));
    for wrong in [new(&["no host"]), NewBrokerCertificate { csr: "none".to_owned(), names: Vec::new() }] {
        assert!(matches!(app.broker_certificate(wrong).await, Err(Error::Invalid(_))));
    }
    let many = vec!["edge.example"; NAMES_MAX + 1];
    assert!(matches!(app.broker_certificate(new(&many)).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn the_file_of_revoked_certificates_is_written_when_one_more_is() {
    let (folder, app) = app().await;
    testing::enrol(&app, "cam-01", "x86-64").await;
    let (path, mut written) = (folder.path().join("crl.pem"), None);
    let read = || RevocationLists { crl_pem: std::fs::read_to_string(&path).unwrap_or_default() };
    app.write_lists(&path, &mut written).await.unwrap();
    assert_eq!(revoked_in(&read()), 0);
    std::fs::remove_file(&path).unwrap();
    app.write_lists(&path, &mut written).await.unwrap();
    assert!(!path.exists(), "nothing was revoked");
    app.revoke_device(&"cam-01".parse().unwrap()).await.unwrap();
    app.write_lists(&path, &mut written).await.unwrap();
    assert_eq!(revoked_in(&read()), 1);
}
