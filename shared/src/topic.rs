//! Every MQTT topic, built and parsed in one place.
//!
//! ```
//! use shared::topic::Topic;
//! let text = "ew/v1/device/cam-01/desired";
//! let topic: Topic = text.parse().unwrap();
//! assert_eq!(topic, Topic::Desired("cam-01".parse().unwrap()));
//! assert_eq!(topic.to_string(), text);
//! ```

use crate::{DeviceId, Digest, TeamName};
use std::{fmt, str::FromStr};

/// The prefix of every topic of this wire version.
pub const PREFIX: &str = "ew/v1";

/// A topic of wire version 1. `Display` builds it, `FromStr` parses it, and each text has one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Down, retained, signed JSON: what the device shall run.
    Desired(DeviceId),
    /// Up, retained, JSON: what the device runs.
    Reported(DeviceId),
    /// Up, retained, JSON; the last will.
    Presence(DeviceId),
    /// Up, CBOR batches.
    Telemetry(DeviceId),
    /// Up, CBOR batches.
    Feedback(DeviceId),
    /// Up, CBOR batches.
    Event(DeviceId),
    /// Up, JSON: which chunks are missing.
    BlobWant(DeviceId),
    /// Down, retained, signed JSON: what the device shall measure.
    ProfileAsk(DeviceId),
    /// Up, retained, JSON: what it measured.
    ProfileReport(DeviceId),
    /// Down, raw bytes: one chunk for one device.
    BlobChunk { device: DeviceId, digest: Digest, index: u32 },
    /// Down, raw bytes: the same chunk for everybody in a wave.
    BlobBroadcast { digest: Digest, index: u32 },
    /// Down, retained: the newest metadata of one role; of the root every version.
    Trust(TrustFile),
}

/// Metadata of the model repository (TUF specification, section 2), in the order in which it is told: whoever hears the
/// timestamp can have the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustFile {
    /// A device that was away goes from the root that it has to the newest, one by one.
    Root {
        version: u32,
    },
    /// What a team signs that the targets delegate to.
    Delegated(TeamName),
    Targets,
    Snapshot,
    Timestamp,
}

impl fmt::Display for TrustFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { version } => write!(f, "root/{version}"),
            Self::Targets => f.write_str("targets"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Delegated(team) => write!(f, "team/{team}"),
        }
    }
}

impl TrustFile {
    /// What a metadata file is by the name that TUF gives it, as in `3.targets.json`: whichever version it is but for
    /// the root's.
    pub fn of_file(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".json")?;
        match stem.split_once('.') {
            None => (stem == "timestamp").then_some(Self::Timestamp),
            Some((version, "root")) => Some(Self::Root { version: version.parse().ok()? }),
            Some((_, "targets")) => Some(Self::Targets),
            Some((_, "snapshot")) => Some(Self::Snapshot),
            Some((_, team)) => Some(Self::Delegated(team.parse().ok()?)),
        }
    }

    fn parse(parts: &[&str]) -> Result<Self, NotATopic> {
        Ok(match parts {
            ["root", version] => Self::Root { version: parse_index(version)? },
            ["targets"] => Self::Targets,
            ["snapshot"] => Self::Snapshot,
            ["timestamp"] => Self::Timestamp,
            ["team", team] => Self::Delegated(team.parse().map_err(|_| NotATopic)?),
            _ => return Err(NotATopic),
        })
    }
}

/// The text is no topic of this wire version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a topic of wire version 1")]
pub struct NotATopic;

impl Topic {
    /// The device that the topic belongs to; `None` for what goes to everybody.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Desired(id)
            | Self::Reported(id)
            | Self::Presence(id)
            | Self::Telemetry(id)
            | Self::Feedback(id)
            | Self::Event(id)
            | Self::BlobWant(id)
            | Self::ProfileAsk(id)
            | Self::ProfileReport(id)
            | Self::BlobChunk { device: id, .. } => Some(id),
            Self::BlobBroadcast { .. } | Self::Trust(_) => None,
        }
    }

    /// May the device `id` publish to this topic?
    pub fn device_may_publish(&self, id: &DeviceId) -> bool {
        match self {
            Self::Reported(own)
            | Self::Presence(own)
            | Self::Telemetry(own)
            | Self::Feedback(own)
            | Self::Event(own)
            | Self::BlobWant(own)
            | Self::ProfileReport(own) => own == id,
            Self::Desired(_)
            | Self::ProfileAsk(_)
            | Self::BlobChunk { .. }
            | Self::BlobBroadcast { .. }
            | Self::Trust(_) => false,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Desired(id) => write!(f, "{PREFIX}/device/{id}/desired"),
            Self::Reported(id) => write!(f, "{PREFIX}/device/{id}/reported"),
            Self::Presence(id) => write!(f, "{PREFIX}/device/{id}/presence"),
            Self::Telemetry(id) => write!(f, "{PREFIX}/device/{id}/telemetry"),
            Self::Feedback(id) => write!(f, "{PREFIX}/device/{id}/feedback"),
            Self::Event(id) => write!(f, "{PREFIX}/device/{id}/event"),
            Self::BlobWant(id) => write!(f, "{PREFIX}/device/{id}/blob/want"),
            Self::ProfileAsk(id) => write!(f, "{PREFIX}/device/{id}/profile/ask"),
            Self::ProfileReport(id) => write!(f, "{PREFIX}/device/{id}/profile/report"),
            Self::BlobChunk { device, digest, index } => {
                write!(f, "{PREFIX}/device/{device}/blob/{digest}/{index}")
            }
            Self::BlobBroadcast { digest, index } => write!(f, "{PREFIX}/blob/{digest}/{index}"),
            Self::Trust(file) => write!(f, "{PREFIX}/trust/{file}"),
        }
    }
}

impl FromStr for Topic {
    type Err = NotATopic;
    fn from_str(text: &str) -> Result<Self, NotATopic> {
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or(NotATopic)?;
        let parts: Vec<&str> = rest.splitn(6, '/').collect();
        let id = |text: &str| text.parse::<DeviceId>().map_err(|_| NotATopic);
        Ok(match parts.as_slice() {
            ["device", device, "desired"] => Self::Desired(id(device)?),
            ["device", device, "reported"] => Self::Reported(id(device)?),
            ["device", device, "presence"] => Self::Presence(id(device)?),
            ["device", device, "telemetry"] => Self::Telemetry(id(device)?),
            ["device", device, "feedback"] => Self::Feedback(id(device)?),
            ["device", device, "event"] => Self::Event(id(device)?),
            ["device", device, "blob", "want"] => Self::BlobWant(id(device)?),
            ["device", device, "profile", "ask"] => Self::ProfileAsk(id(device)?),
            ["device", device, "profile", "report"] => Self::ProfileReport(id(device)?),
            ["device", device, "blob", digest, index] => Self::BlobChunk {
                device: id(device)?,
                digest: parse_digest(digest)?,
                index: parse_index(index)?,
            },
            ["blob", digest, index] => {
                Self::BlobBroadcast { digest: parse_digest(digest)?, index: parse_index(index)? }
            }
            ["trust", file @ ..] => Self::Trust(TrustFile::parse(file)?),
            _ => return Err(NotATopic),
        })
    }
}

fn parse_digest(text: &str) -> Result<Digest, NotATopic> {
    text.parse().map_err(|_| NotATopic)
}

/// Decimal without sign or leading zero, so that an index has one spelling.
fn parse_index(text: &str) -> Result<u32, NotATopic> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_| NotATopic) } else { Err(NotATopic) }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The device's own desired state.
    Desired(DeviceId),
    /// What the device shall measure.
    ProfileAsk(DeviceId),
    /// The chunks for this device alone, of whatever blob.
    BlobChunks(DeviceId),
    /// The chunks of one blob for everybody.
    BlobBroadcast(Digest),
    /// All trust metadata.
    Trust,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Desired(id) => write!(f, "{PREFIX}/device/{id}/desired"),
            Self::ProfileAsk(id) => write!(f, "{PREFIX}/device/{id}/profile/ask"),
            Self::BlobChunks(id) => write!(f, "{PREFIX}/device/{id}/blob/+/+"),
            Self::BlobBroadcast(digest) => write!(f, "{PREFIX}/blob/{digest}/+"),
            Self::Trust => write!(f, "{PREFIX}/trust/#"),
        }
    }
}

/// May the device `id` subscribe to the filter `text`? Exactly the [`Filter`]s above, any digest, and topics
/// under its own prefix; nothing shared, nothing with a wildcard that reaches others.
pub fn device_may_subscribe(id: &DeviceId, text: &str) -> bool {
    let own = format!("{PREFIX}/device/{id}/");
    if text.strip_prefix(&own).is_some_and(|rest| !rest.is_empty()) {
        return true;
    }
    if text == Filter::Trust.to_string() {
        return true;
    }
    match text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("/blob/")) {
        Some(rest) => match rest.split_once('/') {
            Some((digest, index)) => {
                parse_digest(digest).is_ok() && (index == "+" || parse_index(index).is_ok())
            }
            None => false,
        },
        None => matches!(text.parse(), Ok(Topic::Trust(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_is_no_topic() {
        let digest = Digest::of(b"x");
        for text in [
            "".to_owned(),
            "ew/v2/device/a/desired".to_owned(),
            "ew/v1/device/a".to_owned(),
            "ew/v1/device//desired".to_owned(),
            "ew/v1/device/a/desired/".to_owned(),
            "ew/v1/device/+/desired".to_owned(),
            "/ew/v1/device/a/desired".to_owned(),
            format!("ew/v1/blob/{digest}/01"),
            format!("ew/v1/blob/{digest}/+1"),
            format!("ew/v1/blob/{digest}/4294967296"),
            format!("ew/v1/device/a/blob/{digest}/1/2"),
            "ew/v1/device/a/profile".to_owned(),
            "ew/v1/device/a/profile/ask/1".to_owned(),
            "ew/v1/trust/mirrors".to_owned(),
            "ew/v1/trust/root".to_owned(),
            "ew/v1/trust/root/01".to_owned(),
            "ew/v1/trust/team/../root".to_owned(),
        ] {
            assert_eq!(text.parse::<Topic>(), Err(NotATopic), "{text}");
        }
    }

    #[test]
    fn a_device_reaches_its_own_topics_only() {
        let (own, other) = (id("a"), id("ab"));
        for topic in [
            Topic::Reported(own.clone()),
            Topic::Event(own.clone()),
            Topic::BlobWant(own.clone()),
            Topic::ProfileReport(own.clone()),
        ] {
            assert!(topic.device_may_publish(&own));
            assert!(!topic.device_may_publish(&other));
        }
        assert!(!Topic::Desired(own.clone()).device_may_publish(&own));
        assert!(!Topic::ProfileAsk(own.clone()).device_may_publish(&own));
        for filter in [
            "#",
            "+/#",
            "ew/v1/device/#",
            "ew/v1/device/+/desired",
            "ew/v1/device/ab/desired",
            "ew/v1/blob/+/+",
            "ew/v1/device/a",
            "ew/v1/device/a/",
            "$share/g/ew/v1/device/a/desired",
            "$SYS/#",
            "ew/v1/#",
        ] {
            assert!(!device_may_subscribe(&own, filter), "{filter}");
        }
        for filter in [
            Filter::Desired(own.clone()),
            Filter::ProfileAsk(own.clone()),
            Filter::BlobChunks(own.clone()),
            Filter::BlobBroadcast(Digest::of(b"x")),
            Filter::Trust,
        ] {
            assert!(device_may_subscribe(&own, &filter.to_string()), "{filter}");
        }
    }

    #[test]
    fn file_names_become_topics() {
        for (name, topic) in [
            ("3.root.json", Some("ew/v1/trust/root/3")),
            ("timestamp.json", Some("ew/v1/trust/timestamp")),
            ("12.targets.json", Some("ew/v1/trust/targets")),
            ("1.vision.json", Some("ew/v1/trust/team/vision")),
            ("targets.json", None),
            ("1.Vision.json", None),
            ("notes.txt", None),
        ] {
            let got = TrustFile::of_file(name).map(|file| Topic::Trust(file).to_string());
            assert_eq!(got.as_deref(), topic, "{name}");
        }
    }

    fn topics() -> impl Strategy<Value = Topic> {
        let device = "[a-z0-9][a-z0-9._-]{0,20}".prop_map(|text| id(&text));
        (device, any::<[u8; 32]>(), any::<u32>(), 0usize..16).prop_map(|(device, bytes, index, kind)| {
            let digest = Digest::from(bytes);
            match kind {
                0 => Topic::Desired(device),
                1 => Topic::Reported(device),
                2 => Topic::Presence(device),
                3 => Topic::Telemetry(device),
                4 => Topic::Feedback(device),
                5 => Topic::Event(device),
                6 => Topic::BlobWant(device),
                7 => Topic::BlobChunk { device, digest, index },
                8 => Topic::BlobBroadcast { digest, index },
                9 => Topic::Trust(TrustFile::Root { version: index }),
                10 => Topic::Trust(TrustFile::Targets),
                11 => Topic::Trust(TrustFile::Snapshot),
                12 => Topic::Trust(TrustFile::Timestamp),
                13 => Topic::ProfileAsk(device),
                14 => Topic::ProfileReport(device),
                _ => Topic::Trust(TrustFile::Delegated(device.as_str().parse().unwrap())),
            }
        })
    }

    proptest! {
        #[test]
        fn every_topic_round_trips(topic in topics()) {
            prop_assert_eq!(topic.to_string().parse::<Topic>().unwrap(), topic);
        }

        #[test]
        fn what_parses_is_spelled_the_same(text in "ew/v1/(device/)?[a-z0-9/+#]{0,40}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }
}
