use super::*;
use crate::store::tests::{NOW, add_token, enrol, id, issued, stores};

fn of(authority: &str, device: &str, serial: &str) -> Issued {
    Issued { authority: Digest::of(authority.as_bytes()), ..issued(device, serial) }
}

async fn good(store: &Store, serial: &str) -> bool {
    store.use_certificate(&id("cam-01"), serial, NOW).await.unwrap()
}

#[tokio::test]
async fn the_key_that_used_a_token_gets_another_certificate_for_it_and_no_other_key_does() {
    for (_folder, store) in stores().await {
        add_token(&store, "a", None).await;
        let hash = Digest::of(b"a");
        store.enrol(&hash, &issued("cam-01", "aa"), false, NOW).await.unwrap().unwrap();
        let again = Issued { serial: "ab".to_owned(), ..issued("cam-01", "aa") };
        assert!(store.usable_token(&hash, &again.key, NOW).await.unwrap().is_ok());
        store.enrol(&hash, &again, true, NOW).await.unwrap().unwrap();
        assert!(good(&store, "ab").await && !good(&store, "aa").await, "the lost one is good no more");
        let renamed = Issued { device: id("cam-02"), serial: "ac".to_owned(), ..again };
        assert!(store.enrol(&hash, &renamed, true, NOW).await.unwrap().is_err(), "for another device");
        assert!(
            store.enrol(&hash, &issued("cam-01", "ad"), true, NOW).await.unwrap().is_err(),
            "another key"
        );
    }
}

#[tokio::test]
async fn a_renewal_leaves_the_certificate_that_was_shown() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        assert!(store.renew("5ecam-01", &issued("cam-01", "aa"), NOW).await.unwrap());
        assert!(good(&store, "aa").await && good(&store, "5ecam-01").await);
        assert!(!store.renew("77", &issued("cam-01", "bb"), NOW).await.unwrap(), "an unknown one");
        enrol(&store, "cam-02").await;
        assert!(!store.renew("5ecam-02", &issued("cam-01", "bb"), NOW).await.unwrap(), "another device's");
    }
}

#[tokio::test]
async fn a_revoked_device_renews_nothing_and_what_it_renewed_before_is_revoked_with_it() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        assert!(store.renew("5ecam-01", &issued("cam-01", "aa"), NOW).await.unwrap());
        store.revoke_device(&id("cam-01"), NOW).await.unwrap();
        assert!(!good(&store, "aa").await && !good(&store, "5ecam-01").await);
        assert!(!store.renew("aa", &issued("cam-01", "bb"), NOW).await.unwrap());
    }
}

#[tokio::test]
async fn renewals_without_end_leave_a_bounded_number_and_the_one_that_is_shown() {
    for (_folder, store) in stores().await {
        enrol(&store, "cam-01").await;
        for number in 0..30 {
            let next = issued("cam-01", &format!("a{number}"));
            assert!(store.renew("5ecam-01", &next, NOW.plus_ms(number)).await.unwrap());
        }
        let mut alive = u32::from(good(&store, "5ecam-01").await);
        assert_eq!(alive, 1);
        for number in 0..30 {
            alive += u32::from(good(&store, &format!("a{number}")).await);
        }
        assert_eq!(alive, CERTIFICATES_PER_DEVICE_MAX);
        assert!(good(&store, "a29").await);
    }
}

#[tokio::test]
async fn a_device_counts_for_a_ca_once_it_shows_a_certificate_of_it() {
    for (_folder, store) in stores().await {
        for device in ["cam-01", "cam-02", "cam-03"] {
            enrol(&store, device).await;
        }
        let second = Digest::of(b"the second CA");
        let count = async |at: Timestamp| {
            let of = store.count_devices_of_authority(&second, at).await.unwrap();
            (of, store.devices_without_authority(&second, at).await.unwrap().len())
        };
        assert_eq!(count(NOW).await, (0, 3));
        assert!(store.renew("5ecam-01", &of("the second CA", "cam-01", "aa"), NOW).await.unwrap());
        assert_eq!(count(NOW).await, (0, 3));
        assert!(good(&store, "aa").await);
        assert_eq!(count(NOW).await, (1, 2));
        store.revoke_device(&id("cam-02"), NOW).await.unwrap();
        assert_eq!(count(NOW).await, (1, 1));
        assert_eq!(store.devices_without_authority(&second, NOW).await.unwrap(), [id("cam-03")]);
        assert_eq!(count(NOW.plus_ms(20_000)).await, (0, 0));
    }
}
