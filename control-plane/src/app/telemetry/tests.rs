use super::*;
use crate::{
    app::{now, testing},
    broker::Ingest,
};
use shared::{
    topic::Topic,
    wire::{Batch, Feedback, FeedbackKind, Telemetry},
};
use std::sync::Arc;
use uuid::Uuid;

const VERSION: ModelVersionId = ModelVersionId(Uuid::from_u128(7));

struct World {
    _folder: tempfile::TempDir,
    app: Arc<App>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = testing::app(folder.path(), "exit 1").await;
        for (device, site) in [("cam-01", "ulm"), ("cam-02", "ulm"), ("cam-03", "bonn")] {
            testing::enrol(&app, device, "x86-64").await;
            let labels = [("site".to_owned(), site.to_owned())].into();
            app.label_device(&device.parse().unwrap(), labels).await.unwrap();
        }
        Self { _folder: folder, app }
    }

    async fn window(&self, device: &str, at: Timestamp, requests: u64, p99_us: u64) {
        let device: DeviceId = device.parse().unwrap();
        let record = Telemetry {
            id: Uuid::now_v7(),
            at,
            duration_ms: 10_000,
            slot: "default".parse().unwrap(),
            version_id: VERSION,
            requests,
            failed: 0,
            latency_p50_us: Some(p99_us / 2),
            latency_p99_us: Some(p99_us),
            rss_bytes: None,
        };
        let payload = Batch { device: device.clone(), records: vec![record] }.encode().unwrap();
        self.app.receive(&device, &Topic::Telemetry(device.clone()), payload.into()).await.unwrap();
    }

    async fn feedback(&self, device: &str, kinds: &[FeedbackKind]) {
        let device: DeviceId = device.parse().unwrap();
        let record = |kind: &FeedbackKind| Feedback {
            id: Uuid::now_v7(),
            at: now(),
            slot: "default".parse().unwrap(),
            version_id: VERSION,
            request_id: None,
            kind: *kind,
            value: Some(500.0),
            label: None,
        };
        let records = kinds.iter().map(record).collect();
        let payload = Batch { device: device.clone(), records }.encode().unwrap();
        self.app.receive(&device, &Topic::Feedback(device.clone()), payload.into()).await.unwrap();
    }

    /// The sum of all points of each line, by the value of its one label.
    async fn sums(&self, group_by: Option<GroupBy>, of: Where) -> BTreeMap<String, f64> {
        let series =
            self.app.query_telemetry("requests", Some(Aggregation::Sum), group_by, of).await.unwrap();
        let sum = |line: &Line| line.points.iter().filter_map(|(_, value)| *value).sum::<f64>();
        let name = |line: &Line| line.labels.values().next().cloned().unwrap_or_default();
        series.series.iter().map(|line| (name(line), sum(line))).collect()
    }
}

fn sums<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect()
}

#[tokio::test]
async fn what_devices_said_is_told_of_the_fleet_of_one_and_by_labels() {
    let world = World::new().await;
    let at = Timestamp(now().0 - 60_000);
    for (device, requests) in [("cam-01", 5), ("cam-02", 7), ("cam-03", 11)] {
        world.window(device, at, requests, 900).await;
    }
    assert_eq!(world.sums(None, Where::default()).await, sums([("", 23.0)]));
    let one = Where { device: Some("cam-02".parse().unwrap()), ..Where::default() };
    assert_eq!(world.sums(None, one).await, sums([("", 7.0)]));
    let ulm = || Where { labels: [("site".to_owned(), "ulm".to_owned())].into(), ..Where::default() };
    assert_eq!(world.sums(None, ulm()).await, sums([("", 12.0)]));
    assert_eq!(world.sums(Some(GroupBy::Device), ulm()).await, sums([("cam-01", 5.0), ("cam-02", 7.0)]));
    let by_site = Some(GroupBy::Label("site".to_owned()));
    assert_eq!(world.sums(by_site, Where::default()).await, sums([("bonn", 11.0), ("ulm", 12.0)]));
    let by_version = world.sums(Some(GroupBy::Version), Where::default()).await;
    assert_eq!(by_version, sums([(VERSION.to_string().as_str(), 23.0)]));
    let long_ago = Where { to: Some(Timestamp(at.0 - 7_200_000)), ..Where::default() };
    assert_eq!(world.sums(None, long_ago).await, sums([]));
}

#[tokio::test]
async fn percentiles_of_the_fleet_are_those_of_all_windows() {
    let world = World::new().await;
    let at = Timestamp(now().0 - 3_600_000);
    for (device, p99_us) in [("cam-01", 100), ("cam-02", 100), ("cam-03", 9000)] {
        world.window(device, at, 1, p99_us).await;
    }
    let of = Where {
        from: Some(Timestamp(at.0 - 3_600_000)),
        step: Some(Step::Ms(86_400_000)),
        ..Where::default()
    };
    for (aggregation, expected) in
        [(Aggregation::P50, 100.0), (Aggregation::P99, 9000.0), (Aggregation::Max, 9000.0)]
    {
        let series =
            world.app.query_telemetry("latency_p99_us", Some(aggregation), None, of.clone()).await.unwrap();
        let found = series.series[0].points.iter().find_map(|(_, value)| *value).unwrap();
        assert!((found - expected).abs() <= expected * 0.05, "{aggregation:?}: {found}");
    }
}

#[tokio::test]
async fn ctr_is_of_each_minute_and_conversion_of_each_five() {
    use FeedbackKind::{Click, Conversion, Dwell, Impression};
    let world = World::new().await;
    world.feedback("cam-01", &[Impression, Impression, Click, Dwell]).await;
    world.feedback("cam-02", &[Impression, Impression, Conversion]).await;
    for (kind, step_ms, expected) in [
        (FeedbackWindow::Ctr, 60_000, 0.25),
        (FeedbackWindow::Conversion, 300_000, 0.25),
        (FeedbackWindow::Dwell, 60_000, 500.0),
    ] {
        let series = world.app.feedback_windows(kind, Where::default()).await.unwrap();
        assert_eq!(series.step_ms, step_ms);
        let points: Vec<f64> = series.series[0].points.iter().filter_map(|(_, value)| *value).collect();
        // What was said as a minute ended may lie in two.
        assert!(points.iter().any(|point| *point >= expected), "{points:?}");
    }
    let year = Where { from: Some(Timestamp(now().0 - 365 * 86_400_000)), ..Where::default() };
    let series = world.app.feedback_windows(FeedbackWindow::Ctr, year).await.unwrap();
    assert!(series.step_ms >= 86_400_000);
}

#[tokio::test]
async fn what_nobody_can_answer_is_refused_with_what_can_be_asked() {
    let world = World::new().await;
    let ask = async |metric: &str, aggregation, group_by, of| {
        world.app.query_telemetry(metric, aggregation, group_by, of).await.unwrap_err().to_string()
    };
    let said = ask("latency", None, None, Where::default()).await;
    assert!(said.contains("known are requests"), "{said}");
    let said = ask("requests", Some(Aggregation::P95), None, Where::default()).await;
    assert!(said.contains("take sum"), "{said}");
    let nobody = Where { labels: [("site".to_owned(), "rom".to_owned())].into(), ..Where::default() };
    assert_eq!(ask("requests", None, None, nobody).await, "label: no device has site=rom");
    let nobody = Where { device: Some("cam-04".parse().unwrap()), ..Where::default() };
    assert!(ask("requests", None, None, nobody).await.contains("did you mean"));
    let backwards = Where { from: Some(Timestamp(9)), to: Some(Timestamp(3)), ..Where::default() };
    assert!(ask("requests", None, None, backwards).await.contains("from has to be before to"));
    let wrong = Retention { raw_days: 0, ..Retention::default() };
    assert!(matches!(world.app.replace_retention(wrong).await, Err(Error::Invalid(_))));
    let shorter = Retention { minute_days: 1, ..Retention::default() };
    assert_eq!(world.app.replace_retention(shorter).await.unwrap(), shorter);
    let old = Where {
        from: Some(Timestamp(now().0 - 3 * 86_400_000)),
        to: Some(Timestamp(now().0 - 3 * 86_400_000 + 3_600_000)),
        step: Some(Step::Ms(60_000)),
        ..Where::default()
    };
    assert!(ask("requests", None, None, old).await.contains("kept for 1 days"));
}
