use super::*;
use crate::{
    store::{certificates::Issued, tokens::TokenRefused},
    testing as fixtures,
};
use control_core::entity::{Token, Version};
use shared::{DeviceId, Digest};
use uuid::Uuid;

pub(super) const NOW: Timestamp = Timestamp(1_790_000_000_000);

pub(super) use super::testing::stores;

pub(super) fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

pub(super) async fn add_token(store: &Store, secret: &str, device: Option<&str>) {
    let token = Token {
        id: Uuid::now_v7(),
        device: device.map(id),
        created_at: NOW,
        expires_at: NOW.plus_ms(1000),
        used_at: None,
        used_by: None,
    };
    store.add_token(&token, &Digest::of(secret.as_bytes())).await.unwrap();
}

/// A certificate over a key that is named after its serial number.
pub(super) fn issued(device: &str, serial: &str) -> Issued {
    Issued {
        device: id(device),
        serial: serial.to_owned(),
        expires_at: NOW.plus_ms(10_000),
        authority: Digest::of(b"the first CA"),
        key: Digest::of(serial.as_bytes()),
    }
}

pub(super) async fn enrol(store: &Store, device: &str) {
    let secret = format!("secret of {device}");
    add_token(store, &secret, None).await;
    let serial = format!("5e{device}");
    store.enrol(&Digest::of(secret.as_bytes()), &issued(device, &serial), false, NOW).await.unwrap().unwrap();
    store.set_board(&id(device), &"x86-64".parse().unwrap(), "0.1.0").await.unwrap();
}

#[tokio::test]
async fn a_token_enrols_one_device_once() {
    for (_folder, store) in stores().await {
        add_token(&store, "a", None).await;
        let hash = Digest::of(b"a");
        assert!(store.usable_token(&hash, &Digest::of(b"another key"), NOW).await.unwrap().is_ok());
        assert_eq!(store.enrol(&hash, &issued("cam-01", "aa"), false, NOW).await.unwrap(), Ok(()));
        assert_eq!(
            store.usable_token(&hash, &Digest::of(b"another key"), NOW).await.unwrap().unwrap_err(),
            TokenRefused::Used
        );
        assert_eq!(
            store.enrol(&hash, &issued("cam-02", "bb"), false, NOW).await.unwrap(),
            Err(TokenRefused::Used)
        );
        assert!(store.device(&id("cam-02")).await.unwrap().is_none());
        assert_eq!(store.tokens(&Page::default()).await.unwrap()[0].used_by, Some(id("cam-01")));
    }
}

#[tokio::test]
async fn of_two_that_use_a_token_at_once_one_wins() {
    for (_folder, store) in stores().await {
        add_token(&store, "a", None).await;
        let hash = Digest::of(b"a");
        let (one, two) = (issued("cam-01", "aa"), issued("cam-02", "bb"));
        let (first, second) =
            tokio::join!(store.enrol(&hash, &one, false, NOW), store.enrol(&hash, &two, false, NOW));
        assert_eq!([first.unwrap(), second.unwrap()].iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(store.devices(&DeviceFilter::default(), &Page::default()).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn expired_and_unknown_tokens_are_refused() {
    for (_folder, store) in stores().await {
        add_token(&store, "a", None).await;
        let late = NOW.plus_ms(1000);
        assert_eq!(
            store.usable_token(&Digest::of(b"a"), &Digest::of(b"aa"), late).await.unwrap().unwrap_err(),
            TokenRefused::Expired
        );
        assert!(store.enrol(&Digest::of(b"a"), &issued("cam-01", "aa"), false, late).await.unwrap().is_err());
        assert_eq!(
            store.usable_token(&Digest::of(b"b"), &Digest::of(b"aa"), NOW).await.unwrap().unwrap_err(),
            TokenRefused::Unknown
        );
    }
}

#[tokio::test]
async fn only_issued_certificates_of_the_device_itself_are_good_until_revoked() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        enrol(&store, "cam-02").await;
        assert!(store.use_certificate(&id("cam-01"), "5ecam-01", NOW).await.unwrap());
        assert!(!store.use_certificate(&id("cam-02"), "5ecam-01", NOW).await.unwrap());
        assert!(!store.use_certificate(&id("cam-01"), "77", NOW).await.unwrap());
        store.revoke_device(&id("cam-01"), NOW).await.unwrap();
        assert!(!store.use_certificate(&id("cam-01"), "5ecam-01", NOW).await.unwrap());
        add_token(&store, "again", Some("cam-01")).await;
        let again = store.enrol(&Digest::of(b"again"), &issued("cam-01", "cc"), true, NOW).await.unwrap();
        assert_eq!(again, Err(TokenRefused::Revoked));
        assert!(
            store.usable_token(&Digest::of(b"again"), &Digest::of(b"cc"), NOW).await.unwrap().is_ok(),
            "a refusal uses nothing up"
        );
    }
}

#[tokio::test]
async fn a_token_made_for_a_device_replaces_its_certificate_and_the_one_before_is_good_no_more() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        add_token(&store, "again", Some("cam-01")).await;
        let again = store.enrol(&Digest::of(b"again"), &issued("cam-01", "cc"), true, NOW).await.unwrap();
        assert_eq!(again, Ok(()));
        assert!(store.use_certificate(&id("cam-01"), "cc", NOW).await.unwrap());
        assert!(!store.use_certificate(&id("cam-01"), "5ecam-01", NOW).await.unwrap());
    }
}

#[tokio::test]
async fn of_two_that_ask_for_one_name_at_once_one_gets_it() {
    for (_folder, store) in stores().await {
        add_token(&store, "a", None).await;
        add_token(&store, "b", None).await;
        let (one, two) = (issued("cam-01", "aa"), issued("cam-01", "bb"));
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (first, second) =
            tokio::join!(store.enrol(&a, &one, false, NOW), store.enrol(&b, &two, false, NOW));
        let results = [first.unwrap(), second.unwrap()];
        assert!(results.contains(&Ok(())) && results.contains(&Err(TokenRefused::Taken)), "{results:?}");
        let mut good = 0;
        for serial in ["aa", "bb"] {
            good += u32::from(store.use_certificate(&id("cam-01"), serial, NOW).await.unwrap());
        }
        assert_eq!(good, 1);
    }
}

#[tokio::test]
async fn pages_go_through_a_list_without_gap_or_overlap() {
    for (_folder, store) in stores().await {
        for number in 0..7 {
            enrol(&store, &format!("d{number}")).await;
        }
        let mut seen: Vec<String> = Vec::new();
        for turn in 0..3 {
            // What comes and goes before the page changes nothing behind it.
            enrol(&store, &format!("c{turn}")).await;
            let page = Page { limit: 3, after: seen.last().cloned().or(Some("d".to_owned())) };
            let page = store.devices(&DeviceFilter::default(), &page).await.unwrap();
            seen.extend(page.into_iter().take(3).map(|device| device.id.to_string()));
        }
        assert_eq!(seen, ["d0", "d1", "d2", "d3", "d4", "d5", "d6"]);
    }
}

pub(super) async fn version(store: &Store, label: &str, content: &str) -> Version {
    let version = fixtures::version(label, content, vec![fixtures::model_file(label)]);
    store.add_version(&version).await.unwrap();
    version
}

#[tokio::test]
async fn a_label_is_given_once() {
    for (_folder, store) in stores().await {
        let version = version(&store, "v1.0", "bundle").await;
        assert!(matches!(store.add_version(&version).await, Err(Error::Conflict(_))));
    }
}

#[tokio::test]
async fn what_the_store_does_not_understand_is_named() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        sqlx::query("UPDATE devices SET labels = 'no'").execute(&store.writer).await.unwrap();
        let error = store.device(&id("cam-01")).await.unwrap_err().to_string();
        assert!(error.starts_with("devices.labels holds what is no labels"), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_as_that_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    enrol(&store, "cam-01").await;
    let pages = async |most: &'static str| sqlx::query(most).fetch_all(&store.writer).await.unwrap();
    // As if the disk ended where the database does.
    pages("PRAGMA max_page_count = 1").await;
    let mut refused = None;
    for number in 0..1000 {
        let label = format!("v1.{number}");
        let version = fixtures::version(&label, &label, vec![fixtures::model_file(&label)]);
        if let Err(error) = store.add_version(&version).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::Full)), "{refused:?}");
    assert_eq!(store.device(&id("cam-01")).await.unwrap().unwrap().id, id("cam-01"));
    pages("PRAGMA max_page_count = 1000000").await;
    enrol(&store, "cam-02").await;
}

#[test]
fn a_database_that_does_not_answer_is_told_from_one_that_says_no() {
    assert!(matches!(Error::from(sqlx::Error::PoolTimedOut), Error::Unreachable(_)));
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    assert!(matches!(Error::from(sqlx::Error::Io(refused)), Error::Unreachable(_)));
    assert!(matches!(Error::from(sqlx::Error::RowNotFound), Error::Database(_)));
    for (code, unreachable) in
        [("57P01", true), ("08006", true), ("53300", true), ("23505", false), ("8", false)]
    {
        assert_eq!(CODES_UNREACHABLE.iter().any(|class| is_of(code, class)), unreachable, "{code}");
    }
}
