//! The networks that a search judged, of which one was trained.

use crate::{JobId, wire::one_line};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A network that a search judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FrontPoint {
    /// Its place in [`super::FRONT_FILE`], from 0.
    pub index: u32,
    /// Its cell in one line.
    pub cell: String,
    /// Channels of its first stage.
    pub channels: u32,
    /// Share of right answers of the narrower network that was judged, on samples that it did not learn from, 0 to 1.
    pub accuracy: f32,
    /// Of the INT8 model, before it is made.
    pub weight_bytes: u64,
    /// Of one inference on the board, estimated.
    pub latency_us: u64,
    /// No other one is at least as good in all three and better in one.
    pub on_front: bool,
    /// It was trained.
    pub chosen: bool,
}

/// One network that a search judged, written `SEARCH:INDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FrontRef {
    pub search: JobId,
    /// As [`FrontPoint::index`].
    pub index: u32,
}

#[cfg(feature = "schema")]
crate::text_schema!(FrontRef, "FrontRef", { "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:(0|[1-9][0-9]{0,8})$" });

/// This names no judged network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no judged network, which is written SEARCH:INDEX, as `edgewright search show` lists them"
)]
pub struct NoFrontRef {
    text: String,
}

impl fmt::Display for FrontRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.search, self.index)
    }
}

impl FromStr for FrontRef {
    type Err = NoFrontRef;

    fn from_str(text: &str) -> Result<Self, NoFrontRef> {
        let parts = text.rsplit_once(':').and_then(|(search, index)| {
            Some(Self { search: search.parse().ok()?, index: index.parse().ok()? })
        });
        parts.ok_or_else(|| NoFrontRef { text: one_line(text) })
    }
}

impl TryFrom<String> for FrontRef {
    type Error = NoFrontRef;

    fn try_from(text: String) -> Result<Self, NoFrontRef> {
        text.parse()
    }
}

impl From<FrontRef> for String {
    fn from(point: FrontRef) -> Self {
        point.to_string()
    }
}

/// [`super::FRONT_FILE`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrontFile {
    pub points: Vec<FrontEntry>,
}

/// A judged network with what is needed to train it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontEntry {
    #[serde(flatten)]
    pub point: FrontPoint,
    /// As in [`super::ARCH_FILE`].
    pub architecture: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judged_network_is_named_by_its_search_and_its_place() {
        let text = "0198c0de-0000-7000-8000-000000000001:3";
        let point: FrontRef = text.parse().unwrap();
        assert_eq!((point.index, point.to_string().as_str()), (3, text));
        assert_eq!(serde_json::from_value::<FrontRef>(serde_json::to_value(point).unwrap()).unwrap(), point);
        for bad in
            ["3", "x:3", "0198c0de-0000-7000-8000-000000000001:", "0198c0de-0000-7000-8000-000000000001:-1"]
        {
            assert!(bad.parse::<FrontRef>().is_err(), "{bad}");
        }
    }
}
