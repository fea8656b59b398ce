//! Groups, telemetry, feedback, incidents, retention and the overview, through the router.

use super::*;
use crate::app::testing::enrol;

#[tokio::test]
async fn a_group_is_made_found_in_the_list_of_devices_and_removed() {
    let world = World::new().await;
    for device in ["cam-01", "cam-02"] {
        enrol(&world.app, device, "x86-64").await;
    }
    let labels = Some(json!({ "site": "ulm" }));
    assert_eq!(world.call("PUT", "/devices/cam-01/labels", labels).await.0, StatusCode::OK);
    let new = json!({ "name": "ulm", "selector": { "labels": { "site": "ulm" } } });
    let (status, made) = world.call("POST", "/groups", Some(new.clone())).await;
    assert_eq!((status, made["devices"].as_u64()), (StatusCode::CREATED, Some(1)), "{made}");
    assert_eq!(world.call("POST", "/groups", Some(new)).await.0, StatusCode::CONFLICT);
    let (_, listed) = world.call("GET", "/devices?group=ulm", None).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["id"], "cam-01");
    assert_eq!(world.call("GET", "/devices?group=bonn", None).await.0, StatusCode::BAD_REQUEST);
    let all = Some(json!({ "selector": {} }));
    let (_, replaced) = world.call("PUT", "/groups/ulm", all).await;
    assert_eq!(replaced["devices"], 2);
    let (_, groups) = world.call("GET", "/groups?limit=1", None).await;
    assert_eq!((groups["items"][0]["name"].as_str(), &groups["next_cursor"]), (Some("ulm"), &Value::Null));
    assert_eq!(world.call("DELETE", "/groups/ulm", None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.call("DELETE", "/groups/ulm", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_told_what_can() {
    let world = World::new().await;
    for (path, says) in [
        ("/telemetry/query", "metric: it is missing"),
        ("/telemetry/query?metric=speed", "known are requests"),
        ("/telemetry/query?metric=requests&aggregation=p95", "take sum"),
        ("/telemetry/query?metric=requests&aggregation=most", "aggregation: unknown variant"),
        ("/telemetry/query?metric=requests&group_by=label", "allowed are version, device and label:KEY"),
        ("/telemetry/query?metric=requests&from=9&to=3", "from has to be before to"),
        ("/telemetry/query?metric=requests&from=0&to=99999999999999", "before the year 2100"),
        ("/telemetry/query?metric=requests&step=61s", "whole minutes"),
        ("/telemetry/query?metric=requests&step=60s&from=0&to=4000000000000", "at most 2000"),
        ("/telemetry/query?metric=requests&label=site%3Drom", "no device has site=rom"),
        ("/telemetry/query?metric=requests&device=cam-01", "is not known"),
        ("/telemetry/query?metric=requests&version=m%40v1.0", "is not known"),
        ("/telemetry/query?metric=requests&colour=red", "colour: it is no parameter"),
        ("/feedback/windows", "kind: it is missing"),
        ("/feedback/windows?kind=likes", "kind: unknown variant"),
        ("/incidents?open=maybe", ""),
        ("/incidents?limit=0", "limit is 0"),
        ("/incidents/12", ""),
    ] {
        let (status, problem) = world.call("GET", path, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{path}: {problem}");
    }
    let zero = "/incidents/00000000-0000-0000-0000-000000000000";
    assert_eq!(world.call("GET", zero, None).await.0, StatusCode::NOT_FOUND);
    for order in ["acknowledge", "resolve"] {
        let (status, _) = world.call("POST", &format!("{zero}/{order}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_nobody_has_said_yet_is_an_answer_without_lines() {
    let world = World::new().await;
    let (status, series) =
        world.call("GET", "/telemetry/query?metric=latency_p99_us&aggregation=p99", None).await;
    assert_eq!((status, &series["unit"], &series["series"]), (StatusCode::OK, &json!("us"), &json!([])));
    let (_, windows) = world.call("GET", "/feedback/windows?kind=conversion", None).await;
    assert_eq!((&windows["metric"], &windows["step_ms"]), (&json!("conversion"), &json!(300_000)));
    let (_, metrics) = world.call("GET", "/telemetry/metrics", None).await;
    assert!(metrics["items"].as_array().unwrap().contains(&json!({
        "name": "requests", "unit": "requests", "kind": "counter"
    })));
    let (status, overview) = world.call("GET", "/overview", None).await;
    assert_eq!((status, &overview["devices"]["total"]), (StatusCode::OK, &json!(0)));
}

#[tokio::test]
async fn retention_is_what_it_was_set_to() {
    let world = World::new().await;
    let (_, before) = world.call("GET", "/retention", None).await;
    let mut shorter = before.clone();
    shorter["raw_days"] = json!(2);
    assert_eq!(
        world.call("PUT", "/retention", Some(shorter.clone())).await,
        (StatusCode::OK, shorter.clone())
    );
    assert_eq!(world.call("GET", "/retention", None).await.1, shorter);
    for (field, value) in
        [("raw_days", json!(0)), ("day_days", json!(4000)), ("weeks", json!(1)), ("raw_days", json!(-1))]
    {
        let mut wrong = before.clone();
        wrong[field] = value;
        let (status, problem) = world.call("PUT", "/retention", Some(wrong)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field}: {problem}");
    }
}

#[tokio::test]
async fn prometheus_is_told_of_queues_requests_and_incidents() {
    let world = World::new().await;
    assert_eq!(world.call("GET", "/status", None).await.0, StatusCode::OK);
    let token = world.app.signer().admin_token().to_owned();
    let request = Request::get("/metrics").header(header::AUTHORIZATION, format!("Bearer {token}"));
    let response = world.send(request.body(Body::empty()).unwrap()).await;
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for line in [
        "edgewright_intake_records_waiting 0",
        "edgewright_intake_records_total{kind=\"telemetry\"} 0",
        "edgewright_incidents_open 0",
        "edgewright_http_request_duration_seconds_count{method=\"GET\"} 1",
        "edgewright_http_requests_total{method=\"GET\",class=\"2xx\"} 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
}
