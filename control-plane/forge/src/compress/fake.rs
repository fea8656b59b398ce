//! Fake quantisation: a network that is still f32 but rounds where its INT8 form rounds, so that training can adapt to it
//! (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
//! section 3). Gradients pass the rounding as if it were not there (Bengio, Léonard and Courville 2013). The ends of every
//! range are learned: they get the gradient of what is clipped to them, made smaller by the number of values that share
//! it (Esser et al. 2020, "Learned Step Size Quantization", section 2.2).

use crate::{
    graph::{Graph, ValueId},
    onnx,
    params::{Builder, Init, ParamId, Params, to_vec},
    quantise::{Affine, Encoding, range_of},
};
use quantiser::weight_scale;
use tch::{Tensor, no_grad};

/// Steps of an activation.
const STEPS: f64 = 255.0;

/// Where a network is rounded, and by which ranges it begins to.
#[derive(Clone, Debug)]
pub struct Fake {
    /// For each value the value whose range it has; `None` where it stays f32.
    owners: Vec<Option<usize>>,
    /// Of each value at the beginning.
    ranges: Vec<(f32, f32)>,
    /// Nodes whose weights are rounded.
    nodes: Vec<bool>,
    weight_max: f32,
    reduce_range: bool,
    ends: Option<(ParamId, ParamId)>,
}

/// The encodings of one pass.
pub(super) type Affines = Vec<Option<Affine>>;

impl Fake {
    /// Rounds what [`onnx::write_qdq`] rounds with these ranges, one a value (the input first).
    ///
    /// # Errors
    /// A count or a range that does not fit the graph.
    pub fn new(graph: &Graph, ranges: &[(f32, f32)], reduce_range: bool) -> Result<Self, onnx::Error> {
        let encoding = Encoding::from_ranges(graph, ranges, reduce_range)?;
        let mut owners: Vec<Option<usize>> = Vec::with_capacity(ranges.len());
        for index in 0..ranges.len() {
            let tied =
                range_of(graph, index).and_then(|source| owners.get(source.index()).copied().flatten());
            let own = encoding.value(value(index)).map(|_| tied.unwrap_or(index));
            owners.push(own);
        }
        let nodes = (0..graph.nodes().len()).map(|node| encoding.weight(node).is_some()).collect();
        let ranges = ranges.iter().map(|(low, high)| (low.min(0.0), high.max(0.0))).collect();
        let weight_max = encoding.weight_max();
        Ok(Self { owners, ranges, nodes, weight_max, reduce_range, ends: None })
    }

    /// The same for a network whose weights are whole numbers of their scales already.
    pub fn for_activations(mut self) -> Self {
        self.nodes.fill(false);
        self
    }

    pub(super) fn with_params(mut self, builder: &mut Builder) -> Self {
        let len = [self.ranges.len() as i64];
        let mut end = |name: &str| builder.add(name, &len, Init::Constant(0.0), false);
        self.ends = Some((end("low"), end("high")));
        self
    }

    /// What the parameters begin with, in the order in which they were added.
    pub(super) fn first_values(&self) -> [Tensor; 2] {
        let lows: Vec<f32> = self.ranges.iter().map(|(low, _)| *low).collect();
        let highs: Vec<f32> = self.ranges.iter().map(|(_, high)| *high).collect();
        [Tensor::from_slice(&lows), Tensor::from_slice(&highs)]
    }

    /// The learned range of each value.
    pub fn ranges(&self, params: &Params) -> Vec<(f32, f32)> {
        let Some((low, high)) = self.ends else { return self.ranges.clone() };
        let (lows, highs) = (to_vec(&params[low]), to_vec(&params[high]));
        let ends = lows.into_iter().zip(highs).zip(&self.ranges);
        // What was never negative stays so: a lower end would only take steps away from the rest.
        ends.map(|((low, high), first)| (if first.0 < 0.0 { low.min(0.0) } else { 0.0 }, high.max(0.0)))
            .collect()
    }

    /// The encoding that these parameters and weights are written with.
    ///
    /// # Errors
    /// A range that is none: the training diverged.
    pub fn encoding(&self, graph: &Graph, params: &Params) -> Result<Encoding, onnx::Error> {
        Encoding::from_ranges(graph, &self.ranges(params), self.reduce_range)
    }

    /// The encodings by the parameters as they are.
    pub(super) fn affines(&self, params: &Params) -> Affines {
        let ranges = self.ranges(params);
        let affine = |owner: &Option<usize>| {
            let (low, high) = ranges.get((*owner)?)?;
            Affine::from_range(*low, *high).ok()
        };
        self.owners.iter().map(affine).collect()
    }

    /// The value at `index` as its readers see it.
    pub(super) fn activation(&self, params: &Params, affines: &Affines, index: usize, x: &Tensor) -> Tensor {
        let found = affines.get(index).copied().flatten().zip(self.owners.get(index).copied().flatten());
        let (Some((affine, owner)), Some((low, high))) = (found, self.ends) else { return x.shallow_clone() };
        let (scale, zero) = (f64::from(affine.scale), f64::from(affine.zero_point));
        let rounded = no_grad(|| (((x / scale).round() + zero).clamp(0.0, STEPS) - zero) * scale);
        let share = 1.0 / (x.numel() as f64 * STEPS).sqrt();
        let end = |id: ParamId| {
            let end = params[id].select(0, owner as i64);
            &end * share + (&end * (1.0 - share)).detach()
        };
        let inside = x.minimum(&end(high).clamp_min(0.0));
        let inside = match self.ranges.get(owner) {
            Some((first, _)) if *first < 0.0 => inside.maximum(&end(low).clamp_max(0.0)),
            _ => inside.clamp_min(0.0),
        };
        &inside + (rounded - &inside).detach()
    }

    /// Weights and bias of a node as its integers stand for them.
    pub(super) fn weights(
        &self,
        graph: &Graph,
        affines: &Affines,
        node: usize,
        weight: &Tensor,
        bias: &Tensor,
    ) -> (Tensor, Tensor) {
        let source = graph.nodes().get(node).and_then(|node| node.inputs().first());
        let source = source.and_then(|id| affines.get(id.index()).copied().flatten());
        let (Some(source), Some(true)) = (source, self.nodes.get(node)) else {
            return (weight.shallow_clone(), bias.shallow_clone());
        };
        let (scales, bias_scales) = no_grad(|| {
            let axes: Vec<i64> = (1..weight.dim() as i64).collect();
            let largest = to_vec(&weight.abs().amax(axes, false));
            let pairs = largest.iter().zip(to_vec(&bias.abs()));
            let scales: Vec<f32> =
                pairs.map(|(weight, bias)| weight_scale(*weight, bias, source, self.weight_max)).collect();
            let bias_scales: Vec<f32> = scales.iter().map(|scale| scale * source.scale).collect();
            let mut shape = vec![1i64; weight.dim()];
            if let Some(first) = shape.first_mut() {
                *first = scales.len() as i64;
            }
            let here = |tensor: Tensor| tensor.to_device(weight.device());
            (here(Tensor::from_slice(&scales).reshape(shape)), here(Tensor::from_slice(&bias_scales)))
        });
        let most = f64::from(self.weight_max);
        let straight = |x: &Tensor, rounded: Tensor| x + (rounded - x).detach();
        let rounded = no_grad(|| (weight / &scales).round().clamp(-most, most) * &scales);
        let rounded_bias = no_grad(|| (bias / &bias_scales).round() * &bias_scales);
        (straight(weight, rounded), straight(bias, rounded_bias))
    }
}

fn value(index: usize) -> ValueId {
    match index.checked_sub(1) {
        None => ValueId::INPUT,
        Some(node) => ValueId::of_node(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::{Trainable, interpreter::input},
        onnx::tests::{distance, ort, random_graph, run, values},
        quantise::{Calibrator, look},
    };
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::{LoadOptions, Runtime};
    use tch::Kind;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn the_written_model_answers_as_the_rounded_network_did(seed in any::<u64>(), reduce_range in any::<bool>()) {
            let Some(ort) = ort() else { return Ok(()) };
            let graph = random_graph(seed);
            let each = graph.input_shape().elements();
            let samples = values(&mut ChaCha8Rng::seed_from_u64(seed ^ 4), each * 16, 1.0);
            let seen = look(&graph, &samples, &ort).unwrap();
            let fake = Fake::new(&graph, &seen.ranges(Calibrator::MinMax), reduce_range).unwrap();
            let net = Trainable::rounded(&graph, fake);
            let found = to_vec(&net.probabilities(&input(graph.input_shape(), &samples)));
            let encoding = net.fake().unwrap().encoding(&graph, &net.params).unwrap();
            let written = onnx::write_qdq(&graph, &encoding).unwrap();
            let model = ort.load(&written, &LoadOptions::default()).unwrap();
            let off = distance(&found, &run(model.as_ref(), &samples, 16));
            // A value on the edge between two integers may fall to either side.
            prop_assert!(off < 0.02, "off by {off}");
        }
    }

    #[test]
    fn weights_and_ranges_get_gradients_through_the_rounding() {
        let Some(ort) = ort() else { return };
        let graph = random_graph(5);
        let each = graph.input_shape().elements();
        let samples = values(&mut ChaCha8Rng::seed_from_u64(6), each * 8, 1.0);
        let seen = look(&graph, &samples, &ort).unwrap();
        // Half of the range clips a good part of the values.
        let ranges: Vec<(f32, f32)> =
            seen.ranges(Calibrator::MinMax).iter().map(|(low, high)| (low * 0.5, high * 0.5)).collect();
        let net = Trainable::rounded(&graph, Fake::new(&graph, &ranges, false).unwrap());
        let x = input(graph.input_shape(), &samples);
        let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 0, 1, 2]);
        let loss = net.logits(&x).cross_entropy_for_logits(&labels);
        let gradient = to_vec(&net.params.gradients(&loss));
        let (weights, ends) = gradient.split_at(net.weight_count());
        assert!(weights.iter().filter(|value| **value != 0.0).count() > weights.len() / 4);
        let highs = &ends[ends.len() / 2..];
        assert!(highs.iter().any(|value| *value != 0.0), "{highs:?}");
        assert!(gradient.iter().all(|value| value.is_finite()));
        assert!(loss.sum(Kind::Float).double_value(&[]).is_finite());
    }
}
