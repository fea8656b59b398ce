//! How long one inference takes on a board, reckoned from what its devices measured.
//!
//! A prediction is a sum: each [`Feature`] of a network (its nodes, its multiply-accumulates by kind, the elements that
//! it moves) times what one of it costs on a runtime in a form. What a feature costs was fitted where the profile was
//! taken in; how far off the predictions were on what the fit had not seen stands beside it.

use crate::{Timestamp, board::RuntimeName, profile::Form};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fewest measurements that a fit has to rest on.
pub const POINTS_MIN: u32 = 24;
/// Fewest measurements that a fit has to be held against, of single operations and of networks each.
pub const HELD_OUT_MIN: u32 = 3;
/// Largest median error, in thousandths, with which predictions are used.
pub const ERROR_PERMILLE_MAX: u32 = 350;

/// What is counted of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// One.
    Inference,
    /// Elements of its input and output.
    BoundaryElement,
    Node,
    /// Elements that nodes read and write.
    MovedElement,
    /// Elements of the patches that dense convolutions with windows gather.
    PatchElement,
    /// Multiply-accumulates of dense convolutions with windows.
    DenseMac,
    PointwiseMac,
    DepthwiseMac,
    /// Channels of depthwise convolutions, each a small convolution of its own.
    DepthwiseChannel,
    LinearMac,
    /// Values that maximum pools compare.
    MaxPoolTap,
    /// Values that average pools add.
    AveragePoolTap,
    /// Elements that convolutions and pools of few channels move: kernels work on blocks of channels.
    NarrowElement,
}

/// Fewer channels than this are few.
const NARROW_BELOW: u64 = 16;

impl Feature {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Inference,
        Self::BoundaryElement,
        Self::Node,
        Self::MovedElement,
        Self::PatchElement,
        Self::DenseMac,
        Self::PointwiseMac,
        Self::DepthwiseMac,
        Self::DepthwiseChannel,
        Self::LinearMac,
        Self::MaxPoolTap,
        Self::AveragePoolTap,
        Self::NarrowElement,
    ];
}

/// How many of each feature a network, or a part of one, has; in the order of [`Feature::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features([u64; Feature::ALL.len()]);

/// What one node does, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    kind: Feature,
    count: u64,
    patches: u64,
    moved: u64,
    depthwise_channels: u64,
    is_narrow: bool,
}

impl Work {
    /// A convolution of `[input, output]` channels: taps of its kernel, groups, elements that it reads, places of its
    /// window.
    pub fn conv(channels: [u64; 2], taps: u64, groups: u64, input_elements: u64, places: u64) -> Self {
        let [input, output] = channels;
        let depthwise = groups > 1 && groups == input;
        let kind = match taps {
            _ if depthwise => Feature::DepthwiseMac,
            1 => Feature::PointwiseMac,
            _ => Feature::DenseMac,
        };
        Self {
            kind,
            count: output * (input / groups.max(1)) * taps * places,
            patches: if kind == Feature::DenseMac { input * taps * places } else { 0 },
            depthwise_channels: if depthwise { output } else { 0 },
            is_narrow: input.min(output) < NARROW_BELOW,
            ..Self::other(input_elements, output * places)
        }
    }

    /// A fully connected layer.
    pub fn linear(input_elements: u64, output_elements: u64) -> Self {
        let count = input_elements * output_elements;
        Self { kind: Feature::LinearMac, count, ..Self::other(input_elements, output_elements) }
    }

    /// A maximum over `taps` values for each value of the output.
    pub fn max_pool(channels: u64, taps: u64, input_elements: u64, output_elements: u64) -> Self {
        Self {
            kind: Feature::MaxPoolTap,
            count: taps * output_elements,
            is_narrow: channels < NARROW_BELOW,
            ..Self::other(input_elements, output_elements)
        }
    }

    /// A mean over `taps` values for each value of the output.
    pub fn average_pool(channels: u64, taps: u64, input_elements: u64, output_elements: u64) -> Self {
        let pool = Self::max_pool(channels, taps, input_elements, output_elements);
        Self { kind: Feature::AveragePoolTap, ..pool }
    }

    /// What reads and writes and counts as nothing else.
    pub fn other(input_elements: u64, output_elements: u64) -> Self {
        Self {
            kind: Feature::Node,
            count: 0,
            patches: 0,
            moved: input_elements + output_elements,
            depthwise_channels: 0,
            is_narrow: false,
        }
    }
}

impl Features {
    /// Of a whole network with so many elements of input and output.
    pub fn of(boundary_elements: u64, works: impl IntoIterator<Item = Work>) -> Self {
        let mut features = Self::of_part(works);
        features.add(Feature::Inference, 1);
        features.add(Feature::BoundaryElement, boundary_elements);
        features
    }

    /// Of some nodes within a network.
    pub fn of_part(works: impl IntoIterator<Item = Work>) -> Self {
        let mut features = Self::default();
        for work in works {
            features.add(Feature::Node, 1);
            features.add(work.kind, work.count);
            features.add(Feature::PatchElement, work.patches);
            features.add(Feature::MovedElement, work.moved);
            features.add(Feature::DepthwiseChannel, work.depthwise_channels);
            features.add(Feature::NarrowElement, if work.is_narrow { work.moved } else { 0 });
        }
        features
    }

    fn add(&mut self, feature: Feature, count: u64) {
        let slot = &mut self.0[feature as usize];
        *slot = slot.saturating_add(count);
    }

    /// The counts, in the order of [`Feature::ALL`].
    pub fn counts(&self) -> [u64; Feature::ALL.len()] {
        self.0
    }
}

/// How far predictions were off, relative to what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PredictionError {
    /// Measurements that the fit had not seen.
    pub points: u32,
    pub median_permille: u32,
    pub worst_permille: u32,
}

/// What predicts latencies on one runtime in one form, of networks over series or over images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LatencyModel {
    pub runtime: RuntimeName,
    pub form: Form,
    /// Spatial axes of the networks: 1 or 2. Runtimes have other kernels for one than for two.
    pub spatial_axes: u8,
    /// Femtoseconds of one of each feature; what is not there costs nothing.
    pub cost_fs: BTreeMap<Feature, u64>,
    /// Measurements that it was fitted on.
    pub points: u32,
    /// On single operations.
    pub operations: PredictionError,
    /// On whole networks, none of which the fit had seen.
    pub networks: PredictionError,
}

impl LatencyModel {
    /// May its predictions be used?
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn check(&self) -> Result<(), String> {
        let Self { points, operations, networks, .. } = self;
        let name = format!("{} {} over {}", self.runtime, self.form, self.subject());
        if *points < POINTS_MIN {
            return Err(format!("{name}: fitted on {points} measurements, at least {POINTS_MIN}"));
        }
        for (what, error) in [("operations", operations), ("networks", networks)] {
            if error.points < HELD_OUT_MIN {
                return Err(format!("{name}: held against {} {what}, at least {HELD_OUT_MIN}", error.points));
            }
            if error.median_permille > ERROR_PERMILLE_MAX {
                return Err(format!(
                    "{name}: its median error on {what} is {} %, at most {} %",
                    percent(error.median_permille),
                    percent(ERROR_PERMILLE_MAX)
                ));
            }
        }
        Ok(())
    }

    /// What its networks slide over, for people.
    pub fn subject(&self) -> &'static str {
        if self.spatial_axes == 1 { "series" } else { "images" }
    }

    /// Microseconds of what has these features.
    pub fn predict_us(&self, features: &Features) -> f64 {
        let costs = Feature::ALL.into_iter().zip(features.counts());
        let fs: f64 = costs.map(|(feature, count)| self.cost(feature) * count as f64).sum();
        fs / FS_PER_US
    }

    fn cost(&self, feature: Feature) -> f64 {
        self.cost_fs.get(&feature).map_or(0.0, |fs| *fs as f64)
    }
}

const FS_PER_US: f64 = 1e9;

/// Thousandths as percent for people.
pub fn percent(permille: u32) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// What devices of a board measured, as predictions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardLatency {
    /// Devices whose measurements it rests on.
    pub devices: u32,
    /// When the newest of them came.
    pub measured_at: Timestamp,
    pub models: Vec<LatencyModel>,
}

impl BoardLatency {
    /// Of the runtimes in `allowed`, the one on which a network over so many axes is fastest as INT8, with its
    /// microseconds.
    ///
    /// # Errors
    /// Why none of them can be asked.
    pub fn fastest_int8(
        &self,
        allowed: &[RuntimeName],
        spatial_axes: usize,
        features: &Features,
    ) -> Result<(f64, &LatencyModel), String> {
        let mut reasons = Vec::new();
        let mut best: Option<(f64, &LatencyModel)> = None;
        let fits = |model: &&LatencyModel| {
            model.form == Form::Int8
                && usize::from(model.spatial_axes) == spatial_axes
                && allowed.contains(&model.runtime)
        };
        for model in self.models.iter().filter(fits) {
            match model.check() {
                Ok(()) => {
                    let us = model.predict_us(features);
                    if best.is_none_or(|(least, _)| us < least) {
                        best = Some((us, model));
                    }
                }
                Err(reason) => reasons.push(reason),
            }
        }
        best.ok_or_else(|| {
            if reasons.is_empty() {
                "nothing was measured on the runtimes that the board allows".to_owned()
            } else {
                reasons.join("; ")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(runtime: RuntimeName, node_fs: u64) -> LatencyModel {
        let error = PredictionError { points: 5, median_permille: 100, worst_permille: 300 };
        LatencyModel {
            runtime,
            form: Form::Int8,
            spatial_axes: 2,
            cost_fs: [(Feature::Node, node_fs), (Feature::DenseMac, 20_000)].into(),
            points: 40,
            operations: error,
            networks: error,
        }
    }

    fn latency(models: Vec<LatencyModel>) -> BoardLatency {
        BoardLatency { devices: 1, measured_at: Timestamp(0), models }
    }

    const BOTH: [RuntimeName; 2] = [RuntimeName::Tract, RuntimeName::OnnxRuntime];

    #[test]
    fn a_prediction_is_the_sum_of_what_its_features_cost() {
        let conv = Work::conv([8, 16], 9, 1, 8 * 196, 196);
        let features = Features::of(100, [conv, Work::other(4, 4)]);
        let expected = (2.0 * 1e9 + 20_000.0 * (8 * 16 * 9 * 196) as f64) / 1e9;
        let us = model(RuntimeName::Tract, 1_000_000_000).predict_us(&features);
        assert!((us - expected).abs() < 1e-9, "{us} is not {expected}");
        let counts = |work| Features::of_part([work]).counts();
        assert_eq!(counts(conv)[Feature::PatchElement as usize], 8 * 9 * 196);
        let depthwise = counts(Work::conv([8, 8], 25, 8, 8 * 196, 196));
        assert_eq!(depthwise[Feature::DepthwiseMac as usize], 8 * 25 * 196);
        assert_eq!(depthwise[Feature::DepthwiseChannel as usize], 8);
        assert_eq!(depthwise[Feature::PatchElement as usize], 0);
        let narrow = |channels| counts(Work::max_pool(channels, 9, 40, 40))[Feature::NarrowElement as usize];
        assert_eq!((narrow(15), narrow(16)), (80, 0));
        assert_eq!(counts(Work::conv([8, 8], 1, 1, 8, 1))[Feature::PointwiseMac as usize], 64);
    }

    #[test]
    fn the_fastest_runtime_that_the_board_allows_is_asked() {
        let both = latency(vec![model(RuntimeName::Tract, 5_000), model(RuntimeName::OnnxRuntime, 4_000)]);
        let features = Features::of_part([Work::other(1, 1)]);
        let asked =
            |allowed: &[RuntimeName]| both.fastest_int8(allowed, 2, &features).map(|(_, m)| m.runtime);
        assert_eq!(asked(&BOTH), Ok(RuntimeName::OnnxRuntime));
        assert_eq!(asked(&BOTH[..1]), Ok(RuntimeName::Tract));
        assert!(both.fastest_int8(&BOTH, 1, &features).is_err(), "series were not measured");
    }

    #[test]
    fn predictions_that_rest_on_too_little_or_are_too_far_off_are_not_used_and_say_so() {
        let good = model(RuntimeName::Tract, 1);
        let far = PredictionError { median_permille: 351, ..good.networks };
        let few = PredictionError { points: 2, ..good.operations };
        for (bad, said) in [
            (LatencyModel { points: 23, ..good.clone() }, "fitted on 23 measurements, at least 24"),
            (LatencyModel { networks: far, ..good.clone() }, "error on networks is 35.1 %, at most 35.0 %"),
            (LatencyModel { operations: few, ..good.clone() }, "held against 2 operations"),
        ] {
            let reason = latency(vec![bad]).fastest_int8(&BOTH, 2, &Features::default()).unwrap_err();
            assert!(reason.contains(said), "{reason:?} does not say {said:?}");
        }
        let fp32 = LatencyModel { form: Form::Fp32, ..good };
        let reason = latency(vec![fp32]).fastest_int8(&BOTH, 2, &Features::default()).unwrap_err();
        assert!(reason.contains("nothing was measured"), "{reason}");
    }
}
