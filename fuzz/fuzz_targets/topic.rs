//! Topics and filters. A topic is spelled in one way, and no filter that a device may use reaches another device.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use shared::{
    DeviceId, Digest,
    topic::{Topic, device_may_subscribe},
};
use std::sync::LazyLock;

static OWN: LazyLock<DeviceId> = LazyLock::new(|| "a".parse().expect("a device id"));
/// All that is for another device or from it.
static FOREIGN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let other: DeviceId = "ab".parse().expect("a device id");
    let topics = [
        Topic::Desired(other.clone()),
        Topic::Reported(other.clone()),
        Topic::Presence(other.clone()),
        Topic::Telemetry(other.clone()),
        Topic::Feedback(other.clone()),
        Topic::Event(other.clone()),
        Topic::BlobWant(other.clone()),
        Topic::ProfileAsk(other.clone()),
        Topic::ProfileReport(other.clone()),
        Topic::BlobChunk { device: other, digest: Digest::of(b"x"), index: 1 },
    ];
    topics.iter().map(ToString::to_string).collect()
});

/// MQTT 5.0, section 4.7.
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(topic) = text.parse::<Topic>() {
        assert_eq!(topic.to_string(), text);
        assert!(!topic.device_may_publish(&OWN) || topic.device() == Some(&*OWN));
    }
    if device_may_subscribe(&OWN, text) {
        let shared = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let filter = shared.map_or(text, |(_, filter)| filter);
        for topic in FOREIGN.iter() {
            assert!(!matches(filter, topic), "{text:?} reaches {topic}");
        }
    }
});
