//! Users, sessions, tokens, the audit log and idempotency keys on both databases.

use super::*;
use crate::store::{AuditFilter, AuditWrite, Earlier, UserChange, testing::stores};
use control_core::access::{AuditEntry, User};

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

async fn add(store: &Store, user: &str, role: Role) {
    let user = User { name: name(user), role, created_at: NOW, disabled: false, last_login_at: None };
    store.add_user(&user, "$argon2id$x").await.unwrap();
}

#[tokio::test]
async fn a_session_is_its_users_until_it_ends_and_the_oldest_make_room() {
    for (_folder, store) in stores().await {
        add(&store, "ada", Role::Operator).await;
        let end = NOW.plus_ms(1000);
        for number in 0..4 {
            let at = NOW.plus_ms(number);
            store.add_session(&name("ada"), &hash(&number.to_string()), at, end, 3).await.unwrap();
        }
        let holder = async |secret: &str, at: Timestamp| store.holder(&hash(secret), at).await.unwrap();
        let holder_of_last = holder("3", NOW).await.unwrap();
        assert_eq!((holder_of_last.user, holder_of_last.role), (name("ada"), Role::Operator));
        assert_eq!((holder_of_last.expires_at, holder_of_last.token), (end, None));
        assert!(holder("0", NOW).await.is_none() && holder("1", NOW).await.is_some());
        assert!(holder("3", end).await.is_none());
        assert_eq!(store.user(&name("ada")).await.unwrap().unwrap().last_login_at, Some(NOW.plus_ms(3)));
        store.delete_session(&hash("1")).await.unwrap();
        assert!(holder("1", NOW).await.is_none());
        store.delete_expired_access(end.plus_ms(1)).await.unwrap();
        assert!(holder("3", NOW).await.is_none());
    }
}

#[tokio::test]
async fn users_come_in_pages_and_what_is_not_changed_stays() {
    for (_folder, store) in stores().await {
        for user in ["zoe", "ada", "bob"] {
            add(&store, user, Role::Viewer).await;
        }
        let first = store.users(&Page::first(2)).await.unwrap();
        let names: Vec<&str> = first.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["ada", "admin", "bob"]);
        let rest = Page { limit: 2, after: Some("admin".to_owned()) };
        assert_eq!(store.users(&rest).await.unwrap().len(), 2);
        let again = User {
            name: name("ada"),
            role: Role::Admin,
            created_at: NOW,
            disabled: false,
            last_login_at: None,
        };
        assert!(matches!(store.add_user(&again, "x").await, Err(Error::Conflict(_))));
        let change = UserChange { role: Some(Role::Operator), ..UserChange::default() };
        assert!(store.change_user(&name("ada"), change).await.unwrap());
        assert_eq!(store.password(&name("ada")).await.unwrap().as_deref(), Some("$argon2id$x"));
        let off = UserChange { disabled: Some(true), ..UserChange::default() };
        assert!(store.change_user(&name("ada"), off).await.unwrap());
        let user = store.user(&name("ada")).await.unwrap().unwrap();
        assert_eq!((user.role, user.disabled), (Role::Operator, true));
        assert_eq!(store.password(&name("ada")).await.unwrap(), None);
        assert!(
            store.delete_user(&name("ada")).await.unwrap() && !store.delete_user(&name("ada")).await.unwrap()
        );
        assert!(!store.change_user(&name("ada"), off).await.unwrap());
    }
}

#[tokio::test]
async fn a_token_is_no_more_than_its_user_and_goes_with_it() {
    for (_folder, store) in stores().await {
        add(&store, "ada", Role::Operator).await;
        let token = ApiToken {
            id: Uuid::now_v7(),
            name: "ci".to_owned(),
            user: name("ada"),
            role: Role::Admin,
            created_at: NOW,
            expires_at: NOW.plus_ms(10),
            used_at: None,
        };
        store.add_api_token(&token, &hash("t")).await.unwrap();
        let holder = store.holder(&hash("t"), NOW).await.unwrap().unwrap();
        assert_eq!((holder.role, holder.token), (Role::Operator, Some(token.id)));
        store.note_token_uses(&[(token.id, NOW.plus_ms(5)), (token.id, NOW)]).await.unwrap();
        let listed = store.api_tokens(&Page::default()).await.unwrap();
        assert_eq!(listed, [ApiToken { used_at: Some(NOW.plus_ms(5)), ..token.clone() }]);
        assert!(store.holder(&hash("t"), NOW.plus_ms(10)).await.unwrap().is_none());
        store.delete_user(&name("ada")).await.unwrap();
        assert!(!store.delete_api_token(token.id).await.unwrap());
    }
}

#[tokio::test]
async fn the_audit_log_is_read_by_who_what_and_when() {
    for (_folder, store) in stores().await {
        let entry = |user: &str, operation: &str, at: u64| AuditEntry {
            id: Uuid::now_v7(),
            at: Timestamp(at),
            user: user.to_owned(),
            role: Some(Role::Operator),
            operation: operation.to_owned(),
            target: String::new(),
            status: 0,
            from: "127.0.0.1".to_owned(),
            detail: "asked".to_owned(),
        };
        let entries =
            [entry("ada", "create_rollout", 1), entry("bob", "label_device", 2), entry("ada", "login", 3)];
        for entry in &entries {
            store.write_audit(&[AuditWrite::Begin(entry.clone())]).await.unwrap();
        }
        let (id, target, detail) = (entries[0].id, "r".to_owned(), "said".to_owned());
        store.write_audit(&[AuditWrite::End { id, status: 201, target, detail }]).await.unwrap();
        let read = async |filter: AuditFilter| -> Vec<u64> {
            let found = store.audit(&filter, &Page::default()).await.unwrap();
            found.iter().map(|entry| entry.at.0).collect()
        };
        assert_eq!(read(AuditFilter::default()).await, [3, 2, 1]);
        assert_eq!(
            read(AuditFilter { user: Some("ada".to_owned()), ..AuditFilter::default() }).await,
            [3, 1]
        );
        let labels = AuditFilter { operation: Some("label_device".to_owned()), ..AuditFilter::default() };
        assert_eq!(read(labels).await, [2]);
        let between =
            AuditFilter { since: Some(Timestamp(2)), until: Some(Timestamp(2)), ..AuditFilter::default() };
        assert_eq!(read(between).await, [2]);
        let after = Page { limit: 1, after: Some(entries[1].id.to_string()) };
        let first = store.audit(&AuditFilter::default(), &after).await.unwrap();
        assert_eq!((first[0].status, first[0].target.as_str(), first[0].detail.as_str()), (201, "r", "said"));
        assert_eq!(store.delete_audit(Timestamp(3)).await.unwrap(), 2);
        assert_eq!(read(AuditFilter::default()).await, [3]);
    }
}

#[tokio::test]
async fn of_two_requests_with_one_key_one_begins() {
    for (_folder, store) in stores().await {
        let (ada, one, other) = (name("ada"), hash("one"), hash("other"));
        let begin = async |user: &UserName, request: &Digest, at: Timestamp| {
            store.begin_idempotent(user, "k", request, at).await.unwrap()
        };
        let (first, second) = tokio::join!(begin(&ada, &one, NOW), begin(&ada, &one, NOW));
        assert!(
            [&first, &second].contains(&&Earlier::None) && [&first, &second].contains(&&Earlier::Running)
        );
        assert_eq!(begin(&ada, &other, NOW).await, Earlier::Other);
        assert_eq!(begin(&name("bob"), &other, NOW).await, Earlier::None);
        store.end_idempotent(&ada, "k", 201, Some("{}")).await.unwrap();
        let answered = Earlier::Answered { status: 201, answer: Some("{}".to_owned()) };
        assert_eq!(begin(&ada, &one, NOW).await, answered);
        store.forget_idempotent(&ada, "k").await.unwrap();
        assert_eq!(begin(&ada, &other, NOW).await, Earlier::None);
        // What was cut off and what is of another day can come again.
        let running = shared::limits::IDEMPOTENCY_RUNNING_MS;
        assert_eq!(begin(&ada, &one, NOW.plus_ms(running + 1)).await, Earlier::None);
        store.end_idempotent(&ada, "k", 201, None).await.unwrap();
        let day = shared::limits::IDEMPOTENCY_MS;
        assert_eq!(begin(&ada, &other, NOW.plus_ms(running + day + 2)).await, Earlier::None);
    }
}
