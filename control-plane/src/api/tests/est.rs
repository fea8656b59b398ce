//! EST and what a device does with its certificate, through the router: TLS is stood in for by the extension that its
//! acceptor sets.

use super::*;
use crate::{
    api::peer,
    signer::testing::{csr, key},
};
use ::trust::est as codec;

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn certificates(&self) -> Vec<Vec<u8>> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], codec::CERTIFICATES_TYPE);
        codec::read_certificates(self.body.as_bytes()).unwrap()
    }
}

impl World {
    async fn est(
        &self,
        method: &str,
        resource: &str,
        change: impl FnOnce(Builder) -> Builder,
        body: String,
    ) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}/{resource}", codec::PATH));
        let request = change(request.header(header::CONTENT_TYPE, codec::REQUEST_TYPE));
        let response = self.send(request.body(Body::from(body)).unwrap()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = String::from_utf8(bytes.to_vec()).unwrap();
        if !status.is_success() {
            assert!(!body.trim().is_empty() && body.trim().lines().count() == 1, "{status}: {body}");
            assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), status == StatusCode::UNAUTHORIZED);
        }
        Answer { status, headers, body }
    }

    async fn enrol(&self, device: &str, token: &str, csr: &[u8]) -> Answer {
        let basic = codec::write_basic(device, token);
        let with = |request: Builder| request.header(header::AUTHORIZATION, basic);
        self.est("POST", "simpleenroll", with, codec::encode(csr)).await
    }

    async fn renew(&self, certificate: &[u8], csr: &[u8]) -> Answer {
        self.est("POST", "simplereenroll", shows(certificate), codec::encode(csr)).await
    }

    async fn register(&self, certificate: &[u8], board: &str) -> (StatusCode, Value) {
        let request = Request::put("/api/v1/self").header(header::CONTENT_TYPE, "application/json");
        let body = json!({ "board": board, "agent_version": "0.1.0" }).to_string();
        read(self.send(shows(certificate)(request).body(Body::from(body)).unwrap()).await).await
    }

    /// A device with a certificate (DER).
    async fn device(&self, name: &str) -> Vec<u8> {
        let token = self.token(json!({ "device": name })).await;
        self.enrol(name, &token, &csr(name, &key())).await.certificates().swap_remove(0)
    }
}

type Builder = axum::http::request::Builder;

fn shows(certificate: &[u8]) -> impl FnOnce(Builder) -> Builder {
    let certificate = peer::Certificate(Some(certificate.into()));
    |request| request.extension(certificate)
}

#[tokio::test]
async fn the_cas_are_there_for_everybody() {
    let world = World::new().await;
    let answer = world.est("GET", "cacerts", |request| request, String::new()).await;
    assert_eq!(answer.certificates(), codec::from_pem(&world.app.signer().ca_pem()).unwrap());
    assert_eq!(answer.headers["content-transfer-encoding"], "base64");
    world.app.rotate_authority().await.unwrap();
    assert_eq!(world.est("GET", "cacerts", |request| request, String::new()).await.certificates().len(), 2);
}

#[tokio::test]
async fn a_token_enrols_once_and_every_refusal_says_why() {
    let world = World::new().await;
    let token = world.token(json!({ "device": "cam-01" })).await;
    let (own, other) = (key(), key());
    let refused = async |device: &str, token: &str, csr: &[u8], status: u16, says: &str| {
        let answer = world.enrol(device, token, csr).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.body.contains(says), "{}", answer.body);
    };
    refused("cam-02", &token, &csr("cam-02", &own), 401, "the token is for cam-01").await;
    refused("cam-01", &token, &csr("cam-02", &own), 400, "has to name cam-01").await;
    refused("Cam 1", &token, &csr("Cam 1", &own), 400, "device id").await;
    refused("cam-01", "nonsense", &csr("cam-01", &own), 401, "is not known").await;
    refused("cam-01", &token, b"nonsense", 400, "certificate request").await;
    let certificates = world.enrol("cam-01", &token, &csr("cam-01", &own)).await.certificates();
    assert_eq!(certificates.len(), 1);
    let facts = codec::facts(&certificates[0]).unwrap();
    assert_eq!(facts.common_name.as_deref(), Some("cam-01"));
    refused("cam-01", &token, &csr("cam-01", &other), 409, "was used already").await;
    // The same key again: its answer was lost.
    assert_eq!(world.enrol("cam-01", &token, &csr("cam-01", &own)).await.certificates().len(), 1);
    let (_, refused) = world.call("GET", "/security-events", None).await;
    let counts = refused["items"].as_array().unwrap().iter().map(|event| event["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 6);
}

#[tokio::test]
async fn a_request_that_its_key_did_not_sign_is_refused_and_the_token_stays_good() {
    let world = World::new().await;
    let token = world.token(json!({ "device": "cam-01" })).await;
    let good = csr("cam-01", &key());
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(world.enrol("cam-01", &token, &bad).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.enrol("cam-01", &token, &good).await.certificates().len(), 1);
}

#[tokio::test]
async fn what_is_no_enrolment_is_refused_in_one_line() {
    let world = World::new().await;
    let plain = |request: Builder| request;
    let answer = world.est("POST", "simpleenroll", plain, "AAAA".to_owned()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic realm=\""));
    let answer = world.est("POST", "simplereenroll", plain, "AAAA".to_owned()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let basic = |request: Builder| request.header(header::AUTHORIZATION, codec::write_basic("cam-01", "x"));
    let answer = world.est("POST", "simpleenroll", basic, "-----BEGIN".to_owned()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let large = world.est("POST", "simpleenroll", basic, "A".repeat(1 << 20)).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let request =
        Request::post(format!("{}/simpleenroll", codec::PATH)).header(header::CONTENT_TYPE, "text/plain");
    let response = world.send(basic(request).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_flood_of_bad_enrolments_is_answered_with_429_and_costs_few_rows() {
    let world = World::new().await;
    let request = csr("cam-01", &key());
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(world.enrol("cam-01", "nonsense", &request).await.status);
    }
    assert_eq!(answers[0], StatusCode::UNAUTHORIZED);
    assert!(answers.contains(&StatusCode::TOO_MANY_REQUESTS));
    let (_, status) = world.call("GET", "/status", None).await;
    assert_eq!(status["ingest"]["refused"], 200);
    let (_, refused) = world.call("GET", "/security-events", None).await;
    assert_eq!(refused["items"].as_array().unwrap().len(), 2, "{refused}");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let world = World::new().await;
    let token = world.token(json!({ "ttl_s": 1 })).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = world.enrol("cam-01", &token, &csr("cam-01", &key())).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.body.contains("has expired"));
}

#[tokio::test]
async fn a_device_renews_with_its_certificate_for_its_own_name_alone() {
    let world = World::new().await;
    let first = world.device("cam-01").await;
    let other = csr("cam-02", &key());
    assert_eq!(world.renew(&first, &other).await.status, StatusCode::BAD_REQUEST);
    let own = csr("cam-01", &key());
    let second = world.renew(&first, &own).await.certificates().swap_remove(0);
    assert_ne!(codec::facts(&first).unwrap().serial, codec::facts(&second).unwrap().serial);
    for good in [&first, &second] {
        assert_eq!(world.renew(good, &own).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_revoked_device_renews_nothing_and_is_told_nothing() {
    let world = World::new().await;
    let first = world.device("cam-01").await;
    let own = csr("cam-01", &key());
    let second = world.renew(&first, &own).await.certificates().swap_remove(0);
    assert_eq!(world.call("POST", "/devices/cam-01/revoke", None).await.0, StatusCode::OK);
    for revoked in [&first, &second] {
        let answer = world.renew(revoked, &own).await;
        assert_eq!((answer.status, answer.body.contains("revoked")), (StatusCode::FORBIDDEN, true));
        assert_eq!(world.register(revoked, "x86-64").await.0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_device_says_what_it_is_and_is_told_where_the_broker_is() {
    let world = World::new().await;
    let certificate = world.device("cam-01").await;
    let (_, device) = world.call("GET", "/devices/cam-01", None).await;
    assert_eq!(device["board"], "unknown");
    let (status, problem) = world.register(&certificate, "x86_64").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("did you mean \"x86-64\""), "{problem}");
    let (status, told) = world.register(&certificate, "x86-64").await;
    assert_eq!(
        (status, &told["device"], &told["mqtt_port"]),
        (StatusCode::OK, &json!("cam-01"), &json!(8883))
    );
    let (_, device) = world.call("GET", "/devices/cam-01", None).await;
    assert_eq!((&device["board"], &device["agent_version"]), (&json!("x86-64"), &json!("0.1.0")));
    let request = Request::put("/api/v1/self").header(header::CONTENT_TYPE, "application/json");
    let response =
        world.send(request.body(Body::from("{\"board\":\"x\",\"agent_version\":\"\"}")).unwrap()).await;
    assert_eq!(read(response).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_old_ca_is_retired_once_no_device_depends_on_it() {
    let world = World::new().await;
    let first = world.device("cam-01").await;
    assert_eq!(world.register(&first, "x86-64").await.0, StatusCode::OK);
    let retire =
        async |force: bool| world.call("POST", "/authorities/retire", Some(json!({ "force": force }))).await;
    assert_eq!(retire(false).await.0, StatusCode::CONFLICT, "the only one");
    let (status, list) = world.call("POST", "/authorities", None).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::CREATED, 2));
    assert_eq!((&list["items"][0]["devices"], &list["items"][1]["devices"]), (&json!(1), &json!(0)));
    let (status, problem) = retire(false).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().starts_with("1 devices use"), "{problem}");
    let second = world.renew(&first, &csr("cam-01", &key())).await.certificates();
    assert_eq!(retire(false).await.0, StatusCode::CONFLICT, "the answer may have been lost");
    assert_eq!(world.register(&second[0], "x86-64").await.0, StatusCode::OK);
    let (status, list) = retire(false).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1), "{list}");
    assert_eq!(list["items"][0]["devices"], 1);
    assert_eq!((&list["items"][0]["issues"], &list["items"][0]["serves"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_forced_retirement_does_not_wait_for_the_devices() {
    let world = World::new().await;
    world.device("cam-01").await;
    world.call("POST", "/authorities", None).await;
    let (status, list) = world.call("POST", "/authorities/retire", Some(json!({ "force": true }))).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
}
