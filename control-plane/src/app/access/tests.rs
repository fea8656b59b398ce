//! Users, sessions and tokens on a store of their own.

use super::*;
use crate::app::testing;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn login(user: &str, password: &str) -> Login {
    Login { user: user.parse().unwrap(), password: Secret::new(password) }
}

fn new_user(name: &str, role: Role) -> NewUser {
    NewUser { name: name.parse().unwrap(), role, password: Secret::new("correct horse") }
}

#[tokio::test]
async fn a_session_is_good_until_it_ends_and_its_secret_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "").await;
    app.create_user(&new_user("ada", Role::Operator)).await.unwrap();
    let session = app.login(&login("ada", "correct horse"), HERE).await.unwrap();
    let token = session.token.reveal().to_owned();
    let who = app.principal(&token).await.unwrap().unwrap();
    assert_eq!(
        (who.user.as_str(), who.role, who.expires_at),
        ("ada", Role::Operator, Some(session.expires_at))
    );
    assert!(app.user(&who.user).await.unwrap().last_login_at.is_some());
    assert!(!format!("{session:?}").contains(&token));
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [token.as_bytes(), b"correct horse"] {
                assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{}", path.display());
            }
        }
    }
    app.logout(&token).await.unwrap();
    assert_eq!(app.principal(&token).await.unwrap(), None);
    assert_eq!(app.principal("").await.unwrap(), None);
}

#[tokio::test]
async fn another_password_being_disabled_and_being_removed_end_sessions_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "").await;
    let user = app.create_user(&new_user("ada", Role::Operator)).await.unwrap();
    let principal = Principal { user: user.name.clone(), role: user.role, expires_at: None };
    let new = NewApiToken { name: "ci".to_owned(), role: Role::Operator, days: 1 };
    let given = app.create_api_token(&principal, &new).await.unwrap();
    let secret = given.secret.reveal();
    let role = async |secret: &str| app.principal(secret).await.unwrap().map(|who| who.role);
    assert_eq!(role(secret).await, Some(Role::Operator));
    assert!(app.api_tokens(&Page::default()).await.unwrap()[0].used_at.is_some());

    let session = app.login(&login("ada", "correct horse"), HERE).await.unwrap();
    let other = ChangeUser { password: Some(Secret::new("battery staple")), ..ChangeUser::default() };
    app.change_user(&user.name, &other).await.unwrap();
    assert_eq!(role(session.token.reveal()).await, None);
    assert!(app.login(&login("ada", "correct horse"), HERE).await.is_err());
    app.login(&login("ada", "battery staple"), HERE).await.unwrap();

    // A token is never more than its user.
    let less = ChangeUser { role: Some(Role::Viewer), ..ChangeUser::default() };
    app.change_user(&user.name, &less).await.unwrap();
    assert_eq!(role(secret).await, Some(Role::Viewer));
    let off = ChangeUser { disabled: Some(true), ..ChangeUser::default() };
    app.change_user(&user.name, &off).await.unwrap();
    assert_eq!(role(secret).await, None);
    assert!(app.login(&login("ada", "battery staple"), HERE).await.is_err());
    app.delete_user(&user.name).await.unwrap();
    assert!(matches!(app.delete_user(&user.name).await, Err(Error::NotFound(_))));
    assert!(app.api_tokens(&Page::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_administrator_is_always_there() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "").await;
    let token = app.signer().admin_token().to_owned();
    let session = app.login(&login("admin", &token), HERE).await.unwrap();
    assert_eq!((session.user.as_str(), session.role), ("admin", Role::Admin));
    let admin = UserName::administrator();
    for change in [
        ChangeUser { role: Some(Role::Viewer), ..ChangeUser::default() },
        ChangeUser { disabled: Some(true), ..ChangeUser::default() },
    ] {
        assert!(matches!(app.change_user(&admin, &change).await, Err(Error::Conflict(_))));
    }
    assert!(matches!(app.delete_user(&admin).await, Err(Error::Conflict(_))));
    assert!(matches!(app.create_user(&new_user("admin", Role::Admin)).await, Err(Error::Conflict(_))));
    assert!(app.principal(&token).await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_guesses_passwords_waits_and_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let app = testing::app(folder.path(), "").await;
    let mut refused = 0;
    loop {
        match app.login(&login("nobody", "wrong password"), HERE).await {
            Err(Error::Unauthorized(text)) => assert_eq!(text, "user or password is wrong"),
            Err(Error::Throttled { wait_ms }) => break assert!(wait_ms <= limits::FAILED_LOGIN_S * 1000),
            other => panic!("{other:?}"),
        }
        refused += 1;
        assert!(refused < 1000);
    }
    assert!(refused >= limits::FAILED_LOGINS_BURST);
    let events = app.security_events(&Page::default()).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert!(kinds.contains(&"login_refused") && kinds.contains(&"login_flood"), "{kinds:?}");
}
