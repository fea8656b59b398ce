//! Static INT8 quantisation of ONNX graphs, after training: reads and checks a foreign file, brings it into the form that
//! devices run, looks at the values inside it over calibration samples, and writes QuantizeLinear and DequantizeLinear
//! pairs that ONNX Runtime fuses to integer kernels.
//!
//! Activations are u8 asymmetric, weights s8 symmetric per output channel, biases i32. What is not known here is kept as
//! it came. See Nagel et al., "A White Paper on Neural Network Quantization" (2021).

mod affine;
mod bias;
mod calibrate;
mod census;
mod closeness;
mod cost;
mod equalise;
pub mod file;
pub mod form;
pub mod import;
mod net;
mod observe;
mod operators;
mod prepare;
pub mod proto;
mod quantise;
mod scheme;
#[cfg(test)]
mod testing;
mod weights;
mod write;

pub use affine::Affine;
pub use bias::correction as bias_correction;
pub use calibrate::{Samples, answers};
pub use closeness::{Closeness, compare, decibels};
pub use cost::Cost;
pub use equalise::{Layer, balance};
pub use net::Net;
pub use observe::{Calibrator, Observer};
pub use quantise::{Error, Kept, Options, Quantised, Tried, Way, quantise};
/// Bytes of all constants of a model that was written here.
pub fn constant_bytes(model: &[u8]) -> u64 {
    use prost::Message;
    let Ok(model) = proto::ModelProto::decode(model) else { return 0 };
    model.graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.data_bytes() as u64).sum()
}

pub use weights::{WEIGHT_MAX, WEIGHT_MAX_REDUCED, integer as weight_integer, scale as weight_scale};
