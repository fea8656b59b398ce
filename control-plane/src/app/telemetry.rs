//! Questions about what devices measured and what users did.

use super::{App, Error, Result, versions::VersionName};
use crate::store::{Asked, Found, READ_MAX};
use control_core::{
    retention::Retention,
    rollup::{
        self, Aggregation, Drawing, Line, Measure, Metric, Ratio, SERIES_MAX, Series, Span, Step, divided,
        drawn,
    },
};
use serde::{Deserialize, Serialize};
use shared::{DeviceId, ModelVersionId, SlotName, Timestamp};
use std::collections::{BTreeMap, HashMap, hash_map::Entry};

/// The setting that the retention is kept under.
const RETENTION: &str = "retention";
/// Where nothing says from when, so long ago.
const RANGE_MS: u64 = 60 * 60 * 1000;
/// CTR is asked for by the minute, conversion by five.
const WINDOW_MS: u64 = 60_000;
const CONVERSION_WINDOW_MS: u64 = 5 * 60_000;
/// Most devices of a question that tells them apart, or picks them by a label.
const DEVICES_MAX: usize = 10_000;
/// What stands for a label that a device does not have.
const NO_LABEL: &str = "";

/// What lines are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Version,
    Device,
    Label(String),
}

impl std::str::FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("label:")) {
            ("version", _) => Ok(Self::Version),
            ("device", _) => Ok(Self::Device),
            (_, Some(key)) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
            _ => Err(format!("group_by is {text:?}, allowed are version, device and label:KEY")),
        }
    }
}

/// Whose numbers, and when.
#[derive(Clone, Debug, Default)]
pub struct Where {
    pub device: Option<DeviceId>,
    pub version: Option<VersionName>,
    pub slot: Option<SlotName>,
    /// Devices with all these labels.
    pub labels: BTreeMap<String, String>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub step: Option<Step>,
}

/// Which share of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackWindow {
    /// Clicks of impressions.
    Ctr,
    /// Conversions of impressions.
    Conversion,
    /// Corrections of impressions.
    Correction,
    /// How long users stayed, on average.
    Dwell,
}

impl FeedbackWindow {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ctr => "ctr",
            Self::Conversion => "conversion",
            Self::Correction => "correction",
            Self::Dwell => "dwell",
        }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy)]
enum Draw {
    Measure(Measure, Aggregation),
    Ratio(Ratio),
}

impl Draw {
    fn measures(self) -> Vec<Measure> {
        match self {
            Self::Measure(measure, _) => vec![measure],
            Self::Ratio(ratio) => vec![ratio.hits, ratio.of],
        }
    }

    fn points(self, drawing: &Drawing) -> Vec<rollup::Point> {
        match self {
            Self::Measure(measure, aggregation) => drawn(drawing, measure, aggregation),
            Self::Ratio(ratio) => divided(drawing, ratio),
        }
    }
}

/// By whom lines are told apart, with the names that the answer gives them.
enum Names {
    One,
    Version,
    Device,
    /// The value of each device's label.
    Label(String, HashMap<String, String>),
}

impl App {
    /// What can be asked for.
    pub fn metrics(&self) -> Vec<Metric> {
        Measure::all()
    }

    /// The numbers of one metric over time.
    pub async fn query_telemetry(
        &self,
        metric: &str,
        aggregation: Option<Aggregation>,
        group_by: Option<GroupBy>,
        of: Where,
    ) -> Result<Series> {
        let measure = Measure::named(metric).map_err(Error::Invalid)?;
        let aggregation = aggregation.unwrap_or_else(|| Aggregation::usual(measure));
        aggregation.check(measure).map_err(Error::Invalid)?;
        let unit = match aggregation {
            Aggregation::Rate => format!("{}/s", measure.metric().unit),
            Aggregation::Count => "records".to_owned(),
            _ => measure.metric().unit,
        };
        let span = self.span(&of, Step::Auto).await?;
        let series = self.lines(&of, span, group_by, Draw::Measure(measure, aggregation)).await?;
        Ok(Series { metric: metric.to_owned(), unit, step_ms: span.step_ms, series })
    }

    /// What users did, in windows of time.
    pub async fn feedback_windows(&self, kind: FeedbackWindow, of: Where) -> Result<Series> {
        let share = |hits| Draw::Ratio(Ratio { hits, of: Measure::IMPRESSIONS });
        let (draw, unit, window_ms) = match kind {
            FeedbackWindow::Ctr => (share(Measure::CLICKS), "share", WINDOW_MS),
            FeedbackWindow::Conversion => (share(Measure::CONVERSIONS), "share", CONVERSION_WINDOW_MS),
            FeedbackWindow::Correction => (share(Measure::CORRECTIONS), "share", WINDOW_MS),
            FeedbackWindow::Dwell => (Draw::Measure(Measure::DWELL, Aggregation::Avg), "ms", WINDOW_MS),
        };
        let span = match self.span(&of, Step::Ms(window_ms)).await {
            // Nobody asked for that step.
            Err(Error::Invalid(_)) if of.step.is_none() => self.span(&of, Step::Auto).await?,
            span => span?,
        };
        let series = self.lines(&of, span, None, draw).await?;
        Ok(Series { metric: kind.as_str().to_owned(), unit: unit.to_owned(), step_ms: span.step_ms, series })
    }

    /// How long things are kept.
    pub async fn retention(&self) -> Result<Retention> {
        Ok(self.store.setting(RETENTION).await?.unwrap_or_default())
    }

    /// Changes how long things are kept; what is beyond it goes with the next look, an hour later at most.
    pub async fn replace_retention(&self, retention: Retention) -> Result<Retention> {
        retention.validate().map_err(Error::Invalid)?;
        self.store.set_setting(RETENTION, &retention).await?;
        self.retention().await
    }

    async fn span(&self, of: &Where, usual: Step) -> Result<Span> {
        let now = self.numbers.clock.now();
        let to = of.to.unwrap_or(now);
        let from = of.from.unwrap_or(Timestamp(to.0.saturating_sub(RANGE_MS)));
        let step = of.step.unwrap_or(usual);
        rollup::ask(from, to, step, &self.retention().await?, now).map_err(Error::Invalid)
    }

    async fn lines(
        &self,
        of: &Where,
        span: Span,
        group_by: Option<GroupBy>,
        draw: Draw,
    ) -> Result<Vec<Line>> {
        self.see_all().await;
        let version = match &of.version {
            Some(name) => Some(self.version(name).await.map_err(asked_of)?.id),
            None => None,
        };
        let (devices, names) = self.devices_of(of, group_by).await?;
        if devices.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let asked = Asked { devices, slot: of.slot.clone(), version };
        let found = self.store.rollups(&span, &asked).await?;
        if found.len() > READ_MAX {
            return Err(Error::Invalid(format!(
                "that reads more than {READ_MAX} roll-ups: take fewer devices, a shorter range or a longer step"
            )));
        }
        let measures = draw.measures();
        let mut drawings: HashMap<String, Drawing> = HashMap::new();
        for Found { at, device, version, stats } in found {
            if !measures.iter().any(|measure| stats.get(*measure).is_some()) {
                continue;
            }
            let name = names.of(device, version);
            let there = drawings.len();
            match drawings.entry(name) {
                Entry::Occupied(mut drawing) => drawing.get_mut().add(at, &stats, &measures),
                Entry::Vacant(_) if there >= SERIES_MAX => {
                    return Err(Error::Invalid(format!(
                        "that gives more than {SERIES_MAX} lines: narrow it by device, version or label"
                    )));
                }
                Entry::Vacant(place) => place.insert(Drawing::new(span)).add(at, &stats, &measures),
            }
        }
        let mut lines = BTreeMap::new();
        for (name, drawing) in drawings {
            let labels = self.labels_of(&names, &name).await?;
            lines.insert(name, Line { labels, points: draw.points(&drawing) });
        }
        Ok(lines.into_values().collect())
    }

    /// The devices of a question, where it is not about the fleet as a whole, and by whom lines are told apart. A question
    /// about labels that no device has is one about nobody, and is refused.
    async fn devices_of(
        &self,
        of: &Where,
        group_by: Option<GroupBy>,
    ) -> Result<(Option<Vec<DeviceId>>, Names)> {
        let apart = match &group_by {
            None | Some(GroupBy::Version) => false,
            Some(GroupBy::Device | GroupBy::Label(_)) => true,
        };
        if let Some(device) = &of.device {
            // Says which are near where it is not known.
            self.device(device).await.map_err(asked_of)?;
        }
        if of.labels.is_empty() && !apart {
            let names = if group_by.is_some() { Names::Version } else { Names::One };
            return Ok((of.device.clone().map(|device| vec![device]), names));
        }
        let mut devices = self.store.labelled_devices().await?;
        devices.retain(|(id, labels)| {
            of.device.as_ref().is_none_or(|device| device == id)
                && of.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        if devices.is_empty() && !of.labels.is_empty() {
            let labels: Vec<String> = of.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Err(Error::Invalid(format!("label: no device has {}", labels.join(" and "))));
        }
        if devices.len() > DEVICES_MAX {
            return Err(Error::Invalid(format!(
                "that is about {} devices, at most {DEVICES_MAX}: narrow it by labels",
                devices.len()
            )));
        }
        let names = match group_by {
            None => Names::One,
            Some(GroupBy::Version) => Names::Version,
            Some(GroupBy::Device) => Names::Device,
            Some(GroupBy::Label(key)) => {
                let value = |labels: &BTreeMap<String, String>| {
                    labels.get(&key).cloned().unwrap_or_else(|| NO_LABEL.to_owned())
                };
                let values = devices.iter().map(|(id, labels)| (id.to_string(), value(labels))).collect();
                Names::Label(key, values)
            }
        };
        Ok((Some(devices.into_iter().map(|(id, _)| id).collect()), names))
    }

    async fn labels_of(&self, names: &Names, name: &str) -> Result<BTreeMap<String, String>> {
        let pair = |key: &str, value: String| BTreeMap::from([(key.to_owned(), value)]);
        Ok(match names {
            Names::One => BTreeMap::new(),
            Names::Device => pair("device", name.to_owned()),
            Names::Label(key, _) => pair(key, name.to_owned()),
            Names::Version => {
                let known = match name.parse::<ModelVersionId>() {
                    Ok(id) => self.store.version(id).await?.map(|version| version.name),
                    Err(_) => None,
                };
                pair("version", known.unwrap_or_else(|| name.to_owned()))
            }
        })
    }
}

/// What a question names and nobody knows makes it a wrong one.
fn asked_of(error: Error) -> Error {
    match error {
        Error::NotFound(text) => Error::Invalid(text),
        error => error,
    }
}

impl Names {
    fn of(&self, device: String, version: String) -> String {
        match self {
            Self::One => String::new(),
            Self::Version => version,
            Self::Device => device,
            Self::Label(_, values) => values.get(&device).cloned().unwrap_or_else(|| NO_LABEL.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
