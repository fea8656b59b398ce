//! The API through its router, without a socket: who gets in, what bad input is answered, pages, uploads.

use super::*;
use crate::app::testing;
use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use serde_json::{Value, json};
use tower::ServiceExt;

struct World {
    folder: tempfile::TempDir,
    app: Arc<App>,
    router: Router,
}

/// A stand-in for the worker. `inspect` describes a small image set, `check` agrees unless a file says not.
const WORKER: &str = r#"
case "$1" in
inspect) test -d "$3" || { echo "$3: no such folder" >&2; exit 2; }
  cat "$(dirname "$0")/schema.json" ;;
import) echo "$@" > "$(dirname "$0")/asked"
  for argument; do case "$before" in --out) out="$argument" ;; --calibrate) samples="$argument" ;; esac; before="$argument"; done
  test -d "$samples" || { echo "error: $samples: no data set found" >&2; exit 2; }
  mkdir "$out"; echo model > "$out/model.onnx"; echo golden > "$out/golden.safetensors"
  cp "$(dirname "$0")/imported.json" "$out/report.json" ;;
check) if grep -q wrong "$2/golden.safetensors"; then echo 'golden output 0 is 0.4 off' >&2; exit 1; fi ;;
esac
"#;

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("schema.json"), testing::schema().to_string()).unwrap();
        std::fs::write(folder.path().join("imported.json"), testing::imported(None).to_string()).unwrap();
        let app = testing::app(folder.path(), WORKER).await;
        let router = router(Arc::clone(&app));
        Self { folder, app, router }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let token = self.app.signer().admin_token().to_owned();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        read(self.send(request).await).await
    }

    async fn token(&self, body: Value) -> String {
        let (status, created) = self.call("POST", "/enrolment-tokens", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED);
        created["secret"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, files: &[(&str, &str)]) -> Value {
        let (_, begun) = self.call("POST", "/uploads", None).await;
        let upload = begun["upload"].as_str().unwrap();
        for (name, content) in files {
            let token = self.app.signer().admin_token().to_owned();
            let request = Request::put(format!("/api/v1/uploads/{upload}/{name}"))
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .body(Body::from((*content).to_owned()))
                .unwrap();
            assert_eq!(self.send(request).await.status(), StatusCode::NO_CONTENT);
        }
        begun["upload"].clone()
    }

    async fn add_dataset(&self) {
        let new = json!({ "id": "tiny", "path": self.folder.path() });
        assert_eq!(self.call("POST", "/datasets", Some(new)).await.0, StatusCode::CREATED);
    }
}

async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if !status.is_success() {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status}: {value}");
        assert_eq!(value["status"], status.as_u16());
        assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty() && !detail.contains('\n')));
        assert!(value["title"].is_string());
    }
    (status, value)
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let world = World::new().await;
    for path in ["/api/v1/status", "/api/v1/devices", "/api/v1/enrolment-tokens", "/metrics"] {
        for token in [None, Some("Bearer wrong"), Some("Basic x")] {
            let mut request = Request::get(path);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, token);
            }
            let response = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(read(response).await.0, StatusCode::UNAUTHORIZED, "{path} with {token:?}");
        }
    }
    assert_eq!(world.call("GET", "/status", None).await.0, StatusCode::OK);
    let response = world.send(Request::get("/healthz").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_change_by_cookie_needs_a_header_that_no_other_site_can_send() {
    let world = World::new().await;
    let token = world.app.signer().admin_token().to_owned();
    let form = Request::post("/status/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("token={token}")))
        .unwrap();
    let entered = world.send(form).await;
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    assert_eq!(entered.headers()[header::LOCATION], "/status");
    let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Strict"));
    let pair = cookie.split(';').next().unwrap().to_owned();
    let with = |request: axum::http::request::Builder| request.header(header::COOKIE, pair.clone());
    let look = with(Request::get("/api/v1/status")).body(Body::empty()).unwrap();
    assert_eq!(world.send(look).await.status(), StatusCode::OK);
    for (guard, status) in
        [(None, StatusCode::FORBIDDEN), (Some("0"), StatusCode::FORBIDDEN), (Some("1"), StatusCode::CREATED)]
    {
        let change =
            with(Request::post("/api/v1/enrolment-tokens")).header(header::CONTENT_TYPE, "application/json");
        let change = guard.into_iter().fold(change, |change, guard| change.header("X-Edgewright", guard));
        let response = world.send(change.body(Body::from("{}")).unwrap()).await;
        assert_eq!(response.status(), status, "{guard:?}");
    }
    let page = world.send(with(Request::get("/status")).body(Body::empty()).unwrap()).await;
    let html = String::from_utf8(to_bytes(page.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    assert!(html.contains("Devices online") && !html.contains(&token));
    // In an address the token is good for nothing: those stay in histories.
    for path in ["/status".to_owned(), format!("/status?token={token}")] {
        let stranger = world.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert!(stranger.headers().get(header::SET_COOKIE).is_none());
        let html = to_bytes(stranger.into_body(), 1 << 20).await.unwrap();
        let html = String::from_utf8(html.to_vec()).unwrap();
        assert!(html.contains("type=\"password\"") && !html.contains("Devices online"));
    }
}

#[tokio::test]
async fn the_dashboard_is_there_for_browsers_and_hides_nothing_of_the_api() {
    let world = World::new().await;
    let send = |method: &str, path: &str| {
        world.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap())
    };
    for view in
        ["/", "/devices", "/models/mnist@v1.0", "/rollouts/0198c0de-0000-7000-8000-000000000001?device=a"]
    {
        let response = send("GET", view).await;
        assert_eq!(response.status(), StatusCode::OK, "{view}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8", "{view}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache", "{view}");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
        let tag = response.headers()[header::ETAG].clone();
        let again = Request::get(view).header(header::IF_NONE_MATCH, tag).body(Body::empty()).unwrap();
        let known = world.send(again).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED, "{view}");
        assert_eq!(known.headers()[header::CONTENT_SECURITY_POLICY], policy, "{view}");
    }
    for (method, path) in [
        ("GET", "/api/v1/nothing"),
        ("GET", "/api"),
        ("GET", "/assets/nothing.js"),
        ("GET", "/.well-known/nothing"),
        ("POST", "/devices"),
    ] {
        let response = send(method, path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_to_be_known_of_a_data_set_is_kept_and_shown() {
    let world = World::new().await;
    let mut schema = testing::schema();
    schema["remarks"] = json!(["3 of 4 test samples are training samples too", "<b>unbalanced</b>"]);
    std::fs::write(world.folder.path().join("schema.json"), schema.to_string()).unwrap();
    world.add_dataset().await;
    let (_, shown) = world.call("GET", "/datasets/tiny", None).await;
    assert_eq!(shown["schema"]["remarks"], schema["remarks"]);
    let token = world.app.signer().admin_token().to_owned();
    let request = Request::get("/status").header(header::AUTHORIZATION, format!("Bearer {token}"));
    let page = world.send(request.body(Body::empty()).unwrap()).await;
    let html = String::from_utf8(to_bytes(page.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    assert!(html.contains("3 of 4 test samples are training samples too"), "{html}");
    assert!(html.contains("&lt;b&gt;unbalanced&lt;/b&gt;") && !html.contains("<b>unbalanced"));
    // Looked at again, the same files may have something else said of them.
    schema["remarks"] = json!(["newer"]);
    std::fs::write(world.folder.path().join("schema.json"), schema.to_string()).unwrap();
    world.add_dataset().await;
    let (_, shown) = world.call("GET", "/datasets/tiny", None).await;
    assert_eq!(shown["schema"]["remarks"], json!(["newer"]));
}

#[tokio::test]
async fn bad_input_is_answered_with_what_is_allowed() {
    let world = World::new().await;
    world.add_dataset().await;
    let search = |change: Value| {
        let mut body = json!({ "dataset": "tiny", "board": "x86-64", "model": "m" });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ("POST", "/searches", body)
    };
    let odd = json!({ "search_steps": 1, "search_batch": 2, "train_epochs": 1, "channels": 7, "cells": 1, "nodes": 1 });
    let rollout = |policy: Value| ("POST", "/rollouts", json!({ "version": "m@v1.0", "policy": policy }));
    let policy = |waves: Value, pause: u64| json!({ "waves": waves, "pause_ms": pause, "failed_permille_max": 0, "device_timeout_ms": 40_000, "rollback_committed": false });
    let mut late = rollout(policy(json!([{ "count": 1 }]), 0));
    late.2["policy"]["device_timeout_ms"] = json!(39_999);
    let cases = [
        (search(json!({ "dataset": "tinny" })), 404, "did you mean \"tiny\""),
        (search(json!({ "board": "x86-46" })), 404, "did you mean \"x86-64\""),
        (search(json!({ "model": "../m" })), 400, "model name"),
        (search(json!({ "threads": 0 })), 400, "threads is 0, allowed are 1 to 256"),
        (search(json!({ "search_steps": 0 })), 400, "budget.search_steps is 0"),
        (search(json!({ "method": "dart" })), 400, "unknown variant `dart`, expected one of `darts`"),
        (search(json!({ "method": "partial-channels", "budget": odd })), 400, "budget.channels is 7"),
        (search(json!({ "seed": -1 })), 400, "invalid value"),
        (("POST", "/datasets", json!({ "id": "d", "path": "relative" })), 400, "is not absolute"),
        (("POST", "/datasets", json!({ "id": "d", "path": "/nowhere" })), 400, "/nowhere: no such folder"),
        (("POST", "/datasets", json!({ "id": "d", "path": "/", "extra": 1 })), 400, "unknown field"),
        (("POST", "/enrolment-tokens", json!({ "ttl_s": 0 })), 400, "ttl_s is 0, allowed are 1 to"),
        (("PUT", "/devices/cam-01/labels", json!({})), 404, "device \"cam-01\" is not known"),
        (rollout(policy(json!([{ "count": 0 }]), 0)), 400, "a wave of 0 devices"),
        (rollout(policy(json!([]), 0)), 400, "has 0 waves"),
        (rollout(policy(json!([{ "percent": 101 }]), 0)), 400, "a wave of 101 %"),
        (rollout(policy(json!([{ "count": 1 }]), u64::MAX)), 400, "policy.pause_ms"),
        (
            rollout(json!({ "rate": { "constant": { "devices": 0, "period_ms": 1000 } } })),
            400,
            "policy.rate has devices = 0",
        ),
        (
            rollout(json!({ "gates": [{ "signal": "ctr", "max": 0.1 }] })),
            400,
            "policy.gates[0], ctr: takes one limit, `min`",
        ),
        (rollout(json!({ "gates": [{ "signal": "clicks" }] })), 400, "unknown variant `clicks`"),
        (rollout(json!({ "windows": [{ "from": "1:00", "to": "02:00" }] })), 400, "is no time of day"),
        (
            ("POST", "/rollouts/plan", json!({ "version": "m@v1.0", "policy": { "wave": 1 } })),
            400,
            "unknown field `wave`",
        ),
        (("POST", "/rollouts/plan", json!({ "version": "m@v1.0" })), 404, "version \"m@v1.0\" is not known"),
        (("POST", "/rollouts/01890a5d-ac96-774b-bcce-b302099a8057/approve", json!({})), 404, "is not known"),
        (
            ("POST", "/rollouts/01890a5d-ac96-774b-bcce-b302099a8057/waive", json!({ "wave": -1 })),
            400,
            "invalid value",
        ),
        (("POST", "/rollouts/01890a5d-ac96-774b-bcce-b302099a8057/dance", json!({})), 400, "dance"),
        (late, 400, "policy.device_timeout_ms is 39999, with a trial of 30000 ms at least 40000"),
        (rollout(policy(json!([{ "count": 1 }]), 0)), 404, "version \"m@v1.0\" is not known"),
    ];
    for ((method, path, body), status, says) in cases {
        let (got, problem) = world.call(method, path, Some(body.clone())).await;
        assert_eq!(got.as_u16(), status, "{path} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path} {body}: {problem}");
    }
    for path in [
        "/devices?limit=0",
        "/devices?limit=501",
        "/devices?cursor=!",
        "/devices?limit=x",
        "/devices?online=maybe",
        "/devices?limit=1&limit=2",
        "/devices?state=gone",
        "/devices?label=ring",
        "/devices?version=m@v9.9",
        "/devices?board=../x",
        "/security-events?cursor=Y2Ft",
        "/jobs/12",
        "/nowhere",
    ] {
        assert!(world.call("GET", path, None).await.0.is_client_error(), "{path}");
    }
    assert_eq!(world.call("DELETE", "/devices", None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let token = world.app.signer().admin_token().to_owned();
    let large = Request::post("/api/v1/enrolment-tokens")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(vec![b' '; BODY_BYTES_MAX + 1]))
        .unwrap();
    assert_eq!(read(world.send(large).await).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_rollout_is_planned_explained_and_approved_through_the_api() {
    let world = World::new().await;
    world.add_dataset().await;
    let upload = world.upload(&[("model.onnx", "a model"), ("golden.safetensors", "golden")]).await;
    let new = json!({ "upload": upload, "board": "x86-64", "dataset": "tiny" });
    assert_eq!(world.call("POST", "/models/m/versions", Some(new)).await.0, StatusCode::CREATED);
    testing::enrol(&world.app, "cam-01", "x86-64").await;
    let asked = json!({ "version": "m@v1.0", "policy": { "waves": [{ "percent": 100, "approval": true }] } });
    let (status, preview) = world.call("POST", "/rollouts/plan", Some(asked.clone())).await;
    assert_eq!((status, &preview["waves"][0]["devices"][0]["online"]), (StatusCode::OK, &json!(false)));
    assert!(preview["problems"].to_string().contains("are offline"), "{preview}");
    let (status, rollout) = world.call("POST", "/rollouts", Some(asked)).await;
    assert_eq!(status, StatusCode::CREATED, "{rollout}");
    let path = format!("/rollouts/{}", rollout["id"].as_str().unwrap());
    let (status, why) = world.call("GET", &format!("{path}/why/cam-01"), None).await;
    assert_eq!((status, why["waits_for"].as_array().unwrap().len()), (StatusCode::OK, 2), "{why}");
    let (status, approved) = world.call("POST", &format!("{path}/approve"), Some(json!({}))).await;
    assert_eq!((status, &approved["approved"]), (StatusCode::OK, &json!([0])));
    let (status, _) = world.call("POST", &format!("{path}/approve"), Some(json!({ "wave": 0 }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = world.call("GET", &format!("{path}/why/cam-02"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_list_of_rollouts_counts_the_devices_that_one_rollout_names() {
    let world = World::new().await;
    world.add_dataset().await;
    let upload = world.upload(&[("model.onnx", "a model"), ("golden.safetensors", "golden")]).await;
    let new = json!({ "upload": upload, "board": "x86-64", "dataset": "tiny" });
    assert_eq!(world.call("POST", "/models/m/versions", Some(new)).await.0, StatusCode::CREATED);
    for device in ["cam-01", "cam-02"] {
        testing::enrol(&world.app, device, "x86-64").await;
    }
    let (status, one) = world.call("POST", "/rollouts", Some(json!({ "version": "m@v1.0" }))).await;
    assert_eq!(status, StatusCode::CREATED, "{one}");
    let (status, list) = world.call("GET", "/rollouts", None).await;
    let listed = &list["items"][0];
    assert_eq!((status, &listed["id"]), (StatusCode::OK, &one["id"]), "{list}");
    let counts = json!({
        "total": 2, "pending": 2, "assigned": 0, "committed": 0, "failed": 0, "reverted": 0, "skipped": 0,
    });
    assert_eq!(listed["members"], counts);
    assert_eq!(listed["reason"], "wave 1: 0 devices under way, 2 not asked yet");
    for part in ["devices", "history", "gates", "trial"] {
        assert!(listed.get(part).is_none(), "{part}: {listed}");
        assert!(one.get(part).is_some(), "{part}: {one}");
    }
    assert!(!list.to_string().contains("cam-0"), "{list}");
    let (status, shown) =
        world.call("GET", &format!("/rollouts/{}", one["id"].as_str().unwrap()), None).await;
    assert_eq!(status, StatusCode::OK);
    let named: Vec<&Value> =
        shown["devices"].as_array().unwrap().iter().map(|member| &member["device"]).collect();
    assert_eq!(named, ["cam-01", "cam-02"]);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for _ in 0..5 {
        world.token(json!({})).await;
    }
    let (_, first) = world.call("GET", "/enrolment-tokens?limit=3", None).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = world.call("GET", &format!("/enrolment-tokens?limit=3&cursor={cursor}"), None).await;
    assert_eq!(second["next_cursor"], json!(null));
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].to_string()).collect()
    };
    let (mut all, rest) = (ids(&first), ids(&second));
    assert_eq!((all.len(), rest.len()), (3, 2));
    all.extend(rest);
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "{all:?}");
    assert!(first["items"][0].get("secret").is_none() && !first.to_string().contains("hash"));
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_a_503_that_says_so() {
    let world = World::new().await;
    world.app.store().close().await;
    for (method, path, body) in [("GET", "/devices", None), ("POST", "/tokens", Some(json!({})))] {
        let (status, problem) = world.call(method, path, body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("cannot be reached"), "{problem}");
    }
}

#[tokio::test]
async fn devices_are_found_by_what_is_asked_of_them() {
    let world = World::new().await;
    for device in ["cam-01", "cam-02", "door-01"] {
        testing::enrol(&world.app, device, "x86-64").await;
    }
    let labels = Some(json!({ "ring": "1", "site": "Berlin" }));
    assert_eq!(world.call("PUT", "/devices/cam-02/labels", labels).await.0, StatusCode::OK);
    let cases = [
        ("/devices?search=CAM", "cam-01 cam-02"),
        ("/devices?search=", "cam-01 cam-02 door-01"),
        ("/devices?search=berl", "cam-02"),
        ("/devices?label=ring%3D1&label=site%3DBerlin", "cam-02"),
        ("/devices?label=ring%3D1&label=site%3DParis", ""),
        ("/devices?online=true", ""),
        ("/devices?state=current&limit=2", "cam-01 cam-02"),
        ("/devices?board=jetson", ""),
    ];
    for (path, expected) in cases {
        let (status, list) = world.call("GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {list}");
        let ids = list["items"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>().join(" "), expected, "{path}");
    }
}

#[tokio::test]
async fn a_published_version_is_a_signed_bundle_of_its_files() {
    let world = World::new().await;
    world.add_dataset().await;
    let files = [("model.onnx", "a model"), ("golden.safetensors", "golden")];
    for expected in ["m@v1.0", "m@v1.1"] {
        let upload = world.upload(&files).await;
        let new = json!({ "upload": upload, "board": "x86-64", "dataset": "tiny" });
        let (status, version) = world.call("POST", "/models/m/versions", Some(new)).await;
        assert_eq!((status, version["name"].as_str()), (StatusCode::CREATED, Some(expected)), "{version}");
        assert_eq!(version["check_skipped"], false);
        let blobs = world.folder.path().join("blobs");
        let envelope = std::fs::read(blobs.join(version["bundle"].as_str().unwrap())).unwrap();
        let manifest = shared::Signed::<shared::manifest::Manifest>::parse(&envelope)
            .unwrap()
            .verify(&world.app.signer().keyring())
            .unwrap();
        assert_eq!(manifest.labels, ["a", "b"]);
        assert_eq!(manifest.file("model.onnx").unwrap().digest, shared::Digest::of(b"a model"));
        for file in &manifest.files {
            assert_eq!(
                shared::Digest::of(&std::fs::read(blobs.join(file.digest.to_string())).unwrap()),
                file.digest
            );
        }
    }
    assert!(std::fs::read_dir(world.folder.path().join("uploads")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_versions_signature_covers_all_its_other_files_and_its_lineage_says_it_was_brought() {
    let world = World::new().await;
    world.add_dataset().await;
    let upload = world.upload(&[("model.onnx", "a model"), ("golden.safetensors", "golden")]).await;
    let new = json!({ "upload": upload, "board": "x86-64", "dataset": "tiny" });
    let (_, version) = world.call("POST", "/models/m/versions", Some(new)).await;
    let version: control_core::entity::Version = serde_json::from_value(version).unwrap();
    let (_, keys) = world.call("GET", "/keys", None).await;
    let keys: Keys = serde_json::from_value(keys).unwrap();
    let signature = version.files.iter().find(|file| file.name == "model.sig").unwrap().digest.to_string();
    let signature = std::fs::read(world.folder.path().join("blobs").join(signature)).unwrap();
    let key = ::trust::oms::ModelPublicKey::from_pem(&keys.model_key_pem).unwrap();
    let signed = ::trust::oms::Signature::parse(&signature).unwrap().verify(&key).unwrap();
    assert_eq!(signed.name(), "m@v1.0");
    let covered: Vec<&str> = signed.resources().iter().map(|file| file.name.as_str()).collect();
    assert_eq!(covered, ["golden.safetensors", "lineage.jsonl", "model.onnx"]);
    let found: Vec<::trust::oms::Resource> = version
        .files
        .iter()
        .map(|file| ::trust::oms::Resource { name: file.name.clone(), digest: file.digest })
        .collect();
    signed.check(&found).unwrap();
    let (status, lineage) = world.call("GET", "/versions/m@v1.0/lineage", None).await;
    assert_eq!((status, lineage.as_array().unwrap().len()), (StatusCode::OK, 1));
    let steps: Vec<&str> =
        lineage[0]["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["import", "signing"]);
    let (status, _) = world.call("GET", "/versions/m@v9.9/lineage", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_imported_model_is_a_version_whose_lineage_begins_with_its_file() {
    let world = World::new().await;
    let import = |upload: Value, calibrate: &str| json!({ "upload": upload, "board": "x86-64", "calibrate": calibrate, "output": "-y", "freeze": ["h=0.5"], "sqnr_min_db": 25.0 });
    let upload = world.upload(&[("source.onnx", "as it came"), ("labels.txt", "a")]).await;
    let samples = world.folder.path().to_str().unwrap().to_owned();
    let (status, version) = world.call("POST", "/models/m/imports", Some(import(upload, &samples))).await;
    assert_eq!((status, version["name"].as_str()), (StatusCode::CREATED, Some("m@v1.0")), "{version}");
    let asked = std::fs::read_to_string(world.folder.path().join("asked")).unwrap();
    assert!(
        asked.contains("--labels ") && asked.contains(" --output=-y --freeze=h=0.5 --sqnr-min=25 "),
        "{asked}"
    );
    let (_, lineage) = world.call("GET", "/versions/m@v1.0/lineage", None).await;
    let steps = lineage[0]["steps"].as_array().unwrap();
    let words: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(words, ["import", "compression", "signing"]);
    assert!(steps[0].to_string().contains(&shared::Digest::of(b"source").to_string()), "{lineage}");
    assert!(std::fs::read_dir(world.folder.path().join("uploads")).unwrap().next().is_none());

    let upload = world.upload(&[("source.onnx", "as it came")]).await;
    let (status, problem) = world.call("POST", "/models/m/imports", Some(import(upload, "/nowhere"))).await;
    assert_eq!(
        (status, problem["detail"].as_str()),
        (StatusCode::BAD_REQUEST, Some("/nowhere: no data set found"))
    );
    let upload = world.upload(&[]).await;
    let (status, problem) = world.call("POST", "/models/m/imports", Some(import(upload, &samples))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("lacks source.onnx"), "{problem}");
    let reason = "devices do not run it: it gives 99999 values";
    let report = testing::imported(Some(reason)).to_string();
    std::fs::write(world.folder.path().join("imported.json"), &report).unwrap();
    let upload = world.upload(&[("source.onnx", "as it came")]).await;
    let (status, problem) = world.call("POST", "/models/m/imports", Some(import(upload, &samples))).await;
    assert_eq!((status, problem["detail"].as_str()), (StatusCode::BAD_REQUEST, Some(reason)));
    let files = [("model.onnx", "m"), ("golden.safetensors", "g"), ("report.json", report.as_str())];
    let upload = world.upload(&files).await;
    let new = json!({ "upload": upload, "board": "x86-64" });
    let (status, problem) = world.call("POST", "/models/m/versions", Some(new)).await;
    assert_eq!((status, problem["detail"].as_str()), (StatusCode::BAD_REQUEST, Some(reason)));
}

#[tokio::test]
async fn wrong_golden_outputs_are_signed_only_when_that_is_spelled_out() {
    let world = World::new().await;
    world.add_dataset().await;
    let files = [("model.onnx", "a model"), ("golden.safetensors", "wrong")];
    let new = |upload: Value, skip: bool| json!({ "upload": upload, "board": "x86-64", "dataset": "tiny", "unsafe_skip_check": skip });
    let upload = world.upload(&files).await;
    let (status, problem) = world.call("POST", "/models/m/versions", Some(new(upload, false))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("golden output 0 is 0.4 off"), "{problem}");
    let upload = world.upload(&files).await;
    let (status, version) = world.call("POST", "/models/m/versions", Some(new(upload, true))).await;
    assert_eq!((status, &version["check_skipped"]), (StatusCode::CREATED, &json!(true)));
    let upload = world.upload(&files[..1]).await;
    let (status, problem) = world.call("POST", "/models/m/versions", Some(new(upload, true))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("golden.safetensors"));
}

#[tokio::test]
async fn uploads_take_known_names_only() {
    let world = World::new().await;
    let (_, begun) = world.call("POST", "/uploads", None).await;
    let upload = begun["upload"].as_str().unwrap();
    for name in ["job.json", "..%2Fx", "model.onnx.sh"] {
        let (status, _) = world.call("PUT", &format!("/uploads/{upload}/{name}"), Some(json!(1))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
    }
    let other = uuid::Uuid::now_v7();
    let (status, _) = world.call("PUT", &format!("/uploads/{other}/model.onnx"), Some(json!(1))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

mod access;
mod est;
mod fleet;

#[tokio::test]
async fn a_board_is_profiled_by_devices_of_its_own_and_shows_what_they_said() {
    let world = World::new().await;
    testing::enrol(&world.app, "cam-01", "x86-64").await;
    let ask = async |board: &str, body: Value| {
        world.call("POST", &format!("/boards/{board}/profile"), Some(body)).await
    };
    for (board, body, status, said) in [
        ("x86-65", json!({}), StatusCode::NOT_FOUND, "did you mean \"x86-64\"?"),
        ("x86-64", json!({}), StatusCode::CONFLICT, "no device of board x86-64 is online"),
        ("x86-64", json!({ "devices": ["cam-02"] }), StatusCode::NOT_FOUND, "did you mean \"cam-01\"?"),
        ("x86-64", json!({ "device": ["cam-01"] }), StatusCode::BAD_REQUEST, "unknown field"),
    ] {
        let (got, answer) = ask(board, body).await;
        assert!(got == status && answer["detail"].as_str().unwrap().contains(said), "{got}: {answer}");
    }
    let (status, asked) = ask("x86-64", json!({ "devices": ["cam-01"] })).await;
    assert_eq!((status, &asked["devices"][0]["complete"]), (StatusCode::ACCEPTED, &json!(false)));
    let (status, shown) = world.call("GET", "/boards/x86-64/profile", None).await;
    assert_eq!((status, &shown["latency"], &shown["rows"]), (StatusCode::OK, &Value::Null, &json!([])));
}
