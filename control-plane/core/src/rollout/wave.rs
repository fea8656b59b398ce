//! Waves: whom each takes, and who is in which.

use super::{Labels, Member, MemberState};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value},
};
use shared::DeviceId;
use std::{collections::BTreeMap, fmt};

/// Most waves of one rollout.
const WAVES_MAX: usize = 32;
/// Longest key or value of a label in bytes; devices have none longer.
const LABEL_BYTES_MAX: usize = 128;

/// Whom a wave takes of those that no wave before it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveSize {
    Count(u32),
    /// Of all eligible devices, rounded up, at least one.
    Percent(u32),
    /// All that have this label.
    Label(Label),
}

/// A label of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl Label {
    fn is_of(&self, labels: &Labels) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

/// One step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "Written", into = "Written")]
pub struct Wave {
    pub size: WaveSize,
    /// Begins only when an operator has approved it.
    pub approval: bool,
}

impl From<WaveSize> for Wave {
    fn from(size: WaveSize) -> Self {
        Self { size, approval: false }
    }
}

/// A wave as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Label>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    approval: bool,
}

impl TryFrom<Written> for Wave {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let size = match (written.count, written.percent, written.label) {
            (Some(count), None, None) => WaveSize::Count(count),
            (None, Some(percent), None) => WaveSize::Percent(percent),
            (None, None, Some(label)) => WaveSize::Label(label),
            _ => return Err("a wave has one of `count`, `percent` and `label`".to_owned()),
        };
        Ok(Self { size, approval: written.approval })
    }
}

impl From<Wave> for Written {
    fn from(wave: Wave) -> Self {
        let none = Self { count: None, percent: None, label: None, approval: wave.approval };
        match wave.size {
            WaveSize::Count(count) => Self { count: Some(count), ..none },
            WaveSize::Percent(percent) => Self { percent: Some(percent), ..none },
            WaveSize::Label(label) => Self { label: Some(label), ..none },
        }
    }
}

impl fmt::Display for WaveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent} %"),
            Self::Label(Label { key, value }) => write!(f, "{key}={value}"),
        }
    }
}

/// Rings: the values of one label, in their order.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Rings {
    label: String,
    order: Vec<String>,
    /// Values whose ring needs an approval.
    #[serde(default)]
    approval: Vec<String>,
}

/// Reads waves as a list, or as rings.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Wave>, D::Error> {
    struct Waves;

    impl<'de> Visitor<'de> for Waves {
        type Value = Vec<Wave>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of waves, or rings as { label, order }")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(value::SeqAccessDeserializer::new(list))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            let Rings { label, order, approval } =
                Deserialize::deserialize(value::MapAccessDeserializer::new(map))?;
            if let Some(strange) = approval.iter().find(|value| !order.contains(value)) {
                let text = format!("policy.waves.approval names {strange:?}, which `order` does not");
                return Err(serde::de::Error::custom(text));
            }
            let wave = |value: String| Wave {
                approval: approval.contains(&value),
                size: WaveSize::Label(Label { key: label.clone(), value }),
            };
            Ok(order.into_iter().map(wave).collect())
        }
    }

    deserializer.deserialize_any(Waves)
}

/// Waves are shown as a list, and may be written as rings too.
#[cfg(feature = "schema")]
pub(super) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let list = generator.subschema_for::<Vec<Wave>>();
    if generator.contract().is_serialize() {
        return list;
    }
    let rings = generator.subschema_for::<Rings>();
    schemars::json_schema!({ "anyOf": [list, rings] })
}

pub(super) fn validate(waves: &[Wave]) -> Result<(), String> {
    if waves.is_empty() || waves.len() > WAVES_MAX {
        return Err(format!("policy.waves has {} waves, allowed are 1 to {WAVES_MAX}", waves.len()));
    }
    for (at, wave) in waves.iter().enumerate() {
        match &wave.size {
            WaveSize::Count(0) => {
                return Err("policy.waves has a wave of 0 devices, at least 1".to_owned());
            }
            WaveSize::Percent(percent) if !(1..=100).contains(percent) => {
                return Err(format!("policy.waves has a wave of {percent} %, allowed are 1 to 100"));
            }
            WaveSize::Label(label) => {
                for text in [&label.key, &label.value] {
                    if text.is_empty() || text.len() > LABEL_BYTES_MAX {
                        return Err(format!(
                            "policy.waves[{at}].label has {text:?}, allowed are 1 to {LABEL_BYTES_MAX} bytes"
                        ));
                    }
                }
                if waves.iter().take(at).any(|before| before.size == wave.size) {
                    return Err(format!("policy.waves has the label {} twice", wave.size));
                }
            }
            WaveSize::Count(_) | WaveSize::Percent(_) => {}
        }
    }
    Ok(())
}

/// A device that may become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub device: DeviceId,
    pub labels: Labels,
}

impl From<DeviceId> for Candidate {
    fn from(device: DeviceId) -> Self {
        Self { device, labels: BTreeMap::new() }
    }
}

/// Puts devices, in the order of their ids, into waves. The last wave takes all the rest, unless it is one of a label:
/// then those that no wave takes are no members.
pub fn divide<C: Into<Candidate>>(waves: &[Wave], devices: impl IntoIterator<Item = C>) -> Vec<Member> {
    let devices: BTreeMap<DeviceId, Labels> =
        devices.into_iter().map(Into::into).map(|Candidate { device, labels }| (device, labels)).collect();
    let total = devices.len();
    let mut members = Vec::with_capacity(total);
    let mut rest: Vec<(DeviceId, Labels)> = devices.into_iter().collect();
    for (at, wave) in waves.iter().enumerate() {
        let last = at + 1 == waves.len();
        let (taken, left) = match &wave.size {
            WaveSize::Label(label) => rest.into_iter().partition(|(_, labels)| label.is_of(labels)),
            WaveSize::Count(_) | WaveSize::Percent(_) if last => (rest, Vec::new()),
            WaveSize::Count(count) => split(rest, *count as usize),
            WaveSize::Percent(percent) => split(rest, (total * *percent as usize).div_ceil(100).max(1)),
        };
        let wave = u32::try_from(at).unwrap_or(u32::MAX);
        members.extend(taken.into_iter().map(|(device, _)| Member::new(device, wave)));
        rest = left;
    }
    members
}

fn split<T>(mut rest: Vec<T>, count: usize) -> (Vec<T>, Vec<T>) {
    let left = rest.split_off(count.min(rest.len()));
    (rest, left)
}

/// The wave for a device that comes later, or whose labels have changed: the first whose label it has, else the last
/// where that takes the rest.
pub(super) fn wave_of(waves: &[Wave], labels: &Labels) -> Option<u32> {
    let own = waves.iter().position(|wave| match &wave.size {
        WaveSize::Label(label) => label.is_of(labels),
        WaveSize::Count(_) | WaveSize::Percent(_) => false,
    });
    let last = waves.len().checked_sub(1)?;
    let takes_rest = waves.last().is_some_and(|wave| !matches!(wave.size, WaveSize::Label(_)));
    own.or(takes_rest.then_some(last)).and_then(|at| u32::try_from(at).ok())
}

/// Does the wave take devices by a label?
pub(super) fn is_of_label(waves: &[Wave], wave: u32) -> bool {
    let wave = usize::try_from(wave).ok().and_then(|at| waves.get(at));
    wave.is_some_and(|wave| matches!(wave.size, WaveSize::Label(_)))
}

impl Member {
    /// One that has not been asked.
    pub(super) fn new(device: DeviceId, wave: u32) -> Self {
        Self {
            device,
            wave,
            state: MemberState::Pending,
            reason: "waits for its wave".to_owned(),
            generation: None,
            assigned_at: None,
            waited_until: None,
            finished_at: None,
            trial: None,
            healthy: None,
        }
    }
}
