//! Who may what through the router: roles, sessions, keys that are used twice, the audit log, the stream.

use super::*;
use crate::{
    api::operation::{Content, Operation},
    app::access::{NewApiToken, NewUser, Principal, Secret},
};
use control_core::access::{Need, Role};
use futures::StreamExt;
use shared::limits;
use std::time::Duration;

impl World {
    /// A token of `role`.
    async fn token_of(&self, role: Role) -> String {
        let name = format!("a-{role}");
        let new = NewUser {
            name: name.parse().unwrap(),
            role: Role::Admin,
            password: Secret::new("correct horse"),
        };
        let user = self.app.create_user(&new).await.unwrap();
        let by = Principal { user: user.name, role: Role::Admin, expires_at: None };
        let new = NewApiToken { name, role, days: 1 };
        self.app.create_api_token(&by, &new).await.unwrap().secret.reveal().to_owned()
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response<Body> {
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn login(&self, user: &str, password: &str) -> Response<Body> {
        self.call_with("POST", "/login", &[], &json!({ "user": user, "password": password })).await
    }

    async fn audit(&self) -> Vec<Value> {
        let (status, list) = self.call("GET", "/audit", None).await;
        assert_eq!(status, StatusCode::OK);
        list["items"].as_array().unwrap().clone()
    }
}

/// A path of the operation that names what is not there.
fn path_of(operation: &Operation) -> String {
    let part = |part: &str| match part {
        "{device}" => "cam-99".to_owned(),
        "{board}" => "x86-64".to_owned(),
        "{dataset}" | "{model}" | "{user}" | "{group}" | "{file}" => "unknown".to_owned(),
        "{version}" => "m@v9.9".to_owned(),
        "{order}" => "pause".to_owned(),
        other if other.starts_with('{') => "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        other => other.to_owned(),
    };
    operation.full_path().split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_role_may_what_the_document_says_and_nothing_else() {
    let world = World::new().await;
    let routes = super::super::routes();
    let mut shown = vec![(None, None), (None, Some("wrong".to_owned()))];
    for role in Role::ALL {
        shown.push((Some(role), Some(world.token_of(role).await)));
    }
    for operation in routes.operations() {
        for (role, token) in &shown {
            let request = Request::builder()
                .method(operation.verb.as_str().to_uppercase().as_str())
                .uri(path_of(operation));
            let request = match token {
                Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
                None => request,
            };
            let (kind, body) = match operation.takes {
                Content::Json(_) => ("application/json", "{}"),
                Content::Other(kind) => (kind, ""),
                Content::Nothing => ("text/plain", ""),
            };
            let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
            let response = world.send(request).await;
            let (id, status) = (operation.id, response.status());
            let said = format!("{id} as {role:?} gave {status}");
            assert!(operation.statuses().contains(&status), "{said}, which the document does not name");
            if !status.is_success() && !operation.plain_errors {
                assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{said}");
            }
            match (operation.need(), role) {
                (Need::Role(_), None) => assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}"),
                (Need::Role(needed), Some(role)) if *role < needed => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
                }
                (Need::Role(_), Some(_)) => {
                    let refused =
                        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED];
                    assert!(!refused.contains(&status) && status.as_u16() < 500, "{said}");
                }
                (Need::Nothing | Need::Device, _) => assert!(status.as_u16() < 500, "{said}"),
            }
        }
    }
}

#[tokio::test]
async fn what_the_document_does_not_name_is_not_there() {
    let world = World::new().await;
    let routes = super::super::routes();
    for operation in routes.operations() {
        let path = path_of(operation);
        let same = |other: &&Operation| other.full_path() == operation.full_path();
        let verbs: Vec<&str> = routes.operations().filter(same).map(|other| other.verb.as_str()).collect();
        for verb in ["get", "post", "put", "patch", "delete"] {
            if verbs.contains(&verb) || path.contains("/rollouts/plan") {
                continue;
            }
            let request = Request::builder().method(verb.to_uppercase().as_str()).uri(&path);
            let response = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{verb} {path}");
            assert!(response.headers().contains_key(header::ALLOW), "{verb} {path}");
            read(response).await;
        }
    }
}

#[tokio::test]
async fn a_person_logs_in_looks_changes_something_and_logs_out() {
    let world = World::new().await;
    let new = json!({ "name": "ada", "role": "operator", "password": "correct horse" });
    assert_eq!(world.call("POST", "/users", Some(new)).await.0, StatusCode::CREATED);
    assert_eq!(world.login("ada", "correct hors").await.status(), StatusCode::UNAUTHORIZED);
    let entered = world.login("ada", "correct horse").await;
    let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let (_, session) = read(entered).await;
    assert_eq!((&session["user"], &session["role"]), (&json!("ada"), &json!("operator")));
    let pair = cookie.split(';').next().unwrap();
    let (status, me) = read(world.call_with("GET", "/me", &[("cookie", pair)], &json!(null)).await).await;
    assert_eq!(
        (status, &me["user"], &me["expires_at"]),
        (StatusCode::OK, &json!("ada"), &session["expires_at"])
    );
    let none = world.call_with("POST", "/uploads", &[("cookie", pair)], &json!(null)).await;
    assert_eq!(none.status(), StatusCode::FORBIDDEN);
    let guarded = [("cookie", pair), ("x-edgewright", "1")];
    let made = world.call_with("POST", "/uploads", &guarded, &json!(null)).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let users = world.call_with("GET", "/users", &guarded, &json!(null)).await;
    assert_eq!(users.status(), StatusCode::FORBIDDEN);
    let out = world.call_with("POST", "/logout", &guarded, &json!(null)).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    let gone = world.call_with("GET", "/me", &[("cookie", pair)], &json!(null)).await;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_that_comes_twice_under_one_key_is_done_once() {
    let world = World::new().await;
    let token = format!("Bearer {}", world.app.signer().admin_token());
    let with = async |path: &str, key: &str, body: Value| {
        world
            .call_with("POST", path, &[("authorization", token.as_str()), ("idempotency-key", key)], &body)
            .await
    };
    let new = json!({ "id": "tiny", "path": world.folder.path() });
    let first = with("/datasets", "one", new.clone()).await;
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let (status, first) = read(first).await;
    assert_eq!(status, StatusCode::CREATED);
    let second = with("/datasets", "one", new.clone()).await;
    assert_eq!(second.headers()["idempotency-replayed"], "true");
    assert_eq!(read(second).await, (StatusCode::CREATED, first));
    let other = with("/datasets", "one", json!({ "id": "other", "path": world.folder.path() })).await;
    assert_eq!(read(other).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let elsewhere = with("/uploads", "one", json!(null)).await;
    assert_eq!(elsewhere.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let (_, upload) = read(with("/uploads", "two", json!(null)).await).await;
    let (_, again) = read(with("/uploads", "two", json!(null)).await).await;
    assert_eq!(upload, again);
    assert_ne!(read(with("/uploads", "three", json!(null)).await).await.1, upload);
    for key in ["", "a b", &"x".repeat(limits::IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        assert_eq!(with("/uploads", key, json!(null)).await.status(), StatusCode::BAD_REQUEST, "{key:?}");
    }
    // A secret is given once.
    let secret = with("/enrolment-tokens", "four", json!({})).await;
    assert_eq!(secret.status(), StatusCode::CREATED);
    let (status, problem) = read(with("/enrolment-tokens", "four", json!({})).await).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("secret"), "{problem}");
    // Another user's key is another key.
    let theirs = format!("Bearer {}", world.token_of(Role::Operator).await);
    let headers = [("authorization", theirs.as_str()), ("idempotency-key", "two")];
    let (_, theirs) = read(world.call_with("POST", "/uploads", &headers, &json!(null)).await).await;
    assert_ne!(theirs, upload);
}

#[tokio::test]
async fn every_change_is_on_record_and_so_is_who_was_refused_but_no_secret() {
    let world = World::new().await;
    world.add_dataset().await;
    let new = json!({ "name": "ada", "role": "viewer", "password": "correct horse" });
    assert_eq!(world.call("POST", "/users", Some(new)).await.0, StatusCode::CREATED);
    assert_eq!(world.login("ada", "correct horse").await.status(), StatusCode::OK);
    let viewer = format!("Bearer {}", world.token_of(Role::Viewer).await);
    let refused = world
        .call_with("POST", "/devices/cam-01/revoke", &[("authorization", viewer.as_str())], &json!(null))
        .await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        world.call("PUT", "/devices/cam-01/labels", Some(json!({ "a": "b" }))).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(world.call("GET", "/devices", None).await.0, StatusCode::OK);
    let audit = world.audit().await;
    let seen: Vec<_> = audit
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            (text("operation"), text("user"), text("target"), entry["status"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("label_device", "admin", "cam-01", 404),
        ("revoke_device", "a-viewer", "cam-01", 403),
        ("login", "ada", "ada", 200),
        ("create_user", "admin", "ada", 201),
        ("add_dataset", "admin", "tiny", 201),
    ];
    assert_eq!(seen, expected);
    assert!(audit[0]["detail"].as_str().unwrap().contains("is not known"), "{audit:?}");
    assert!(!json!(audit).to_string().contains("correct horse"));
    let (_, mine) = world.call("GET", "/audit?user=ada&limit=1", None).await;
    assert_eq!((mine["items"].as_array().unwrap().len(), &mine["next_cursor"]), (1, &Value::Null));
    let (_, users) = world.call("GET", "/audit?operation=create_user", None).await;
    assert_eq!(users["items"][0]["target"], "ada");
    let (_, later) = world.call("GET", "/audit?since=99999999999999", None).await;
    assert_eq!(later["items"], json!([]));
}

#[tokio::test]
async fn whoever_guesses_passwords_is_told_to_wait() {
    let world = World::new().await;
    let waits = loop {
        let response = world.login("admin", "a wrong password").await;
        match response.status() {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::TOO_MANY_REQUESTS => break response,
            other => panic!("{other}"),
        }
    };
    let seconds: u64 = waits.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=limits::FAILED_LOGIN_S).contains(&seconds));
    let (_, problem) = read(waits).await;
    assert_eq!(problem["type"], "urn:edgewright:problem:too-many-requests");
    assert_eq!(problem["instance"], "/api/v1/login");
}

#[tokio::test]
async fn answers_tell_browsers_to_be_careful() {
    let world = World::new().await;
    for path in ["/api/v1/status", "/api/openapi.json", "/", "/nowhere"] {
        let response = world.send(Request::get(path).body(Body::empty()).unwrap()).await;
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers["strict-transport-security"].to_str().unwrap().starts_with("max-age="), "{path}");
        assert!(headers.contains_key("content-security-policy"), "{path}");
        if path.starts_with("/api") {
            assert_eq!(headers["cache-control"], "no-store", "{path}");
        }
    }
}

/// Reads events until `count` have come, comments left out.
async fn events_of(response: Response<Body>, count: usize) -> Vec<String> {
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    let whole = |text: &str| -> Vec<String> {
        text.split("\n\n").filter(|part| part.contains("event:")).map(str::to_owned).collect()
    };
    let reading = async {
        while whole(&text).len() < count || !text.ends_with("\n\n") {
            let chunk = chunks.next().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        whole(&text)
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("events come")
}

#[tokio::test]
async fn whoever_listens_hears_of_changes_and_after_a_break_of_those_missed() {
    let world = World::new().await;
    let token = format!("Bearer {}", world.app.signer().admin_token());
    let listen = async |path: &str, last: Option<&str>| {
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(last.map(|last| ("last-event-id", last)));
        world.call_with("GET", path, &headers, &json!(null)).await
    };
    let stream = listen("/stream?kinds=device", None).await;
    assert_eq!(stream.headers()[header::CONTENT_TYPE], "text/event-stream");
    // Other kinds are left out.
    world.add_dataset().await;
    testing::enrol(&world.app, "cam-01", "x86-64").await;
    let events = events_of(stream, 1).await;
    assert!(events[0].contains("event: device") && events[0].contains("\"id\":\"cam-01\""), "{events:?}");
    let id = events[0].lines().find_map(|line| line.strip_prefix("id:")).unwrap().trim().to_owned();
    testing::enrol(&world.app, "cam-02", "x86-64").await;
    let missed = events_of(listen("/stream", Some(&id)).await, 1).await;
    assert!(missed[0].contains("cam-02"), "{missed:?}");
    for strange in ["1", "x"] {
        let events = events_of(listen("/stream", Some(strange)).await, 1).await;
        assert!(events[0].contains("event: reset"), "{events:?}");
    }
    assert_eq!(listen("/stream?kinds=weather", None).await.status(), StatusCode::BAD_REQUEST);
}
