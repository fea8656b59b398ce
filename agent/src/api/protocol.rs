//! The JSON of the Open Inference Protocol v2 with its binary tensor data extension, read from and written for
//! strangers.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use shared::limits;
use std::{borrow::Cow, fmt};

/// Header that gives the length of the JSON before binary tensors.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";
/// Most inputs or outputs of one request; a model has one of each.
const TENSORS_MAX: usize = 16;
/// Longest request id.
pub(super) const ID_BYTES_MAX: usize = 256;

/// An inference request's JSON.
#[derive(Debug, Deserialize)]
pub(super) struct InferRequest<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: RequestParameters,
    #[serde(borrow)]
    pub(super) inputs: Vec<InputTensor<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) outputs: Vec<RequestedOutput<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RequestParameters {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) binary_data_output: bool,
    /// Has a model that writes text go on for so many characters at most.
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) seed: Option<u64>,
    pub(super) stop: Option<Stop>,
}

/// Where writing ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
pub(super) struct InputTensor<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) shape: Vec<u64>,
    #[serde(borrow)]
    pub(super) datatype: Cow<'a, str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: InputParameters,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct InputParameters {
    pub(super) binary_data_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RequestedOutput<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) parameters: OutputParameters,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct OutputParameters {
    pub(super) binary_data: Option<bool>,
    /// The number of best classes to give instead of the tensor.
    pub(super) classification: Option<u64>,
}

/// Some clients write `null` where they mean nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl<'a> InferRequest<'a> {
    /// Reads a request; the error says what is wrong with it.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, String> {
        let request: Self =
            serde_json::from_slice(json).map_err(|error| format!("not an inference request: {error}"))?;
        if request.inputs.len() > TENSORS_MAX || request.outputs.len() > TENSORS_MAX {
            return Err(format!("at most {TENSORS_MAX} inputs and outputs are allowed"));
        }
        if request.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return Err(format!("id has at most {ID_BYTES_MAX} bytes"));
        }
        Ok(request)
    }
}

/// Numbers out of JSON arrays nested in any depth, in their order.
pub(super) struct Numbers(pub(super) Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::new();
        deserializer.deserialize_seq(Collect(&mut values))?;
        Ok(Self(values))
    }
}

struct Collect<'v>(&'v mut Vec<f32>);

impl Collect<'_> {
    fn push<E: serde::de::Error>(self, value: f32) -> Result<(), E> {
        if self.0.len() >= limits::TENSOR_ELEMENTS_MAX {
            return Err(E::custom(format!("more than {} values", limits::TENSOR_ELEMENTS_MAX)));
        }
        self.0.push(value);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or an array of numbers")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.push(value as f32)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.push(value as f32)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.push(value as f32)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Element(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct Element<'v>(&'v mut Vec<f32>);

impl<'de> serde::de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // serde_json bounds the depth.
        deserializer.deserialize_any(Collect(self.0)).map_err(D::Error::custom)
    }
}

/// An answer's JSON.
#[derive(Debug, Serialize)]
pub(super) struct InferResponse<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    pub(super) outputs: Vec<OutputTensor<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct OutputTensor<'a> {
    pub(super) name: &'a str,
    pub(super) datatype: &'static str,
    pub(super) shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<OutputData<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct BinarySize {
    pub(super) binary_data_size: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum OutputData<'a> {
    Floats(&'a [f32]),
    Texts(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_and_flat_arrays_are_the_same_numbers() {
        let read = |text: &str| {
            serde_json::from_str::<Numbers>(text).map(|numbers| numbers.0).map_err(|e| e.to_string())
        };
        assert_eq!(read("[[1, 2.5], [-3, 4e1]]").unwrap(), [1.0, 2.5, -3.0, 40.0]);
        assert_eq!(read("[1, 2.5, -3, 40]").unwrap(), [1.0, 2.5, -3.0, 40.0]);
        assert_eq!(read("[]").unwrap(), [0f32; 0]);
        for bad in ["[true]", "[\"1\"]", "{}", "3", "[null]", "[{}]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes: Vec<u8>, text in "\\{\"inputs\":\\[.{0,60}") {
            let _ = InferRequest::parse(&bytes);
            let _ = InferRequest::parse(text.as_bytes());
        }
    }
}
