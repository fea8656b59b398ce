//! A [`Graph`] on libtorch with its weights and biases as parameters: the same values as the exported file, and
//! gradients.

use super::fake::Fake;
use crate::{
    device,
    graph::{Graph, Node, Op, Shape, ValueId, Window},
    params::{Builder, Init, ParamId, Params, channels_last, to_vec},
    seeds::{self, Purpose},
};
use tch::{Kind, Tensor};

/// Weight and bias of a node.
type Weights = Option<(ParamId, ParamId)>;

/// See the module.
#[derive(Debug)]
pub struct Trainable {
    graph: Graph,
    weights: Vec<Weights>,
    /// Weights and biases of the nodes; behind them what a [`Fake`] learns.
    pub params: Params,
    fake: Option<Fake>,
}

/// What one pass looks at.
pub struct Forward<'a> {
    /// Gets the index of every value and what it is, `[N, C, H, W]` or `[N, C]`, the input first; as its readers see it.
    pub see: &'a mut dyn FnMut(usize, &Tensor),
    /// The last value that is computed.
    pub until: ValueId,
}

impl std::fmt::Debug for Forward<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Trainable {
    /// The graph as it is.
    pub fn new(graph: &Graph) -> Self {
        Self::build(graph, |_| None)
    }

    /// The graph with activations and weights rounded as its INT8 form rounds them, from ranges that are learned too.
    pub fn rounded(graph: &Graph, fake: Fake) -> Self {
        Self::build(graph, |builder| Some(fake.with_params(builder)))
    }

    fn build(graph: &Graph, make: impl FnOnce(&mut Builder) -> Option<Fake>) -> Self {
        let mut builder = Builder::default();
        let mut weights = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let shapes = node.op().weights().map(|(weight, bias)| weight_shapes(node, weight, bias));
            weights.push(shapes.map(|(weight, bias)| {
                let mut add = |kind: &str, shape: &[i64], decay| {
                    builder.add(format!("{index}.{kind}"), shape, Init::Constant(0.0), decay)
                };
                (add("weight", &weight, true), add("bias", &bias, false))
            }));
        }
        let fake = make(&mut builder);
        // Nothing is drawn: every number is set below.
        let mut params = builder.build(&mut seeds::stream(0, Purpose::NetworkWeights, 0), true);
        let parts: Vec<Tensor> = graph
            .nodes()
            .iter()
            .zip(&weights)
            .filter_map(|(node, ids)| Some((node.op().weights()?, (*ids)?)))
            .flat_map(|((weight, bias), (weight_id, bias_id))| {
                [(weight, weight_id), (bias, bias_id)]
                    .map(|(values, id)| Tensor::from_slice(values).reshape(params[id].size()))
            })
            .chain(fake.iter().flat_map(Fake::first_values))
            .collect();
        let flat = params.flatten(&parts);
        params.set_flat(&flat);
        Self { graph: graph.clone(), weights, params, fake }
    }

    /// The same on the processor, whose f32 is that of the exported file; not to be trained on.
    pub fn on_cpu(self) -> Self {
        Self { params: self.params.on_cpu(), ..self }
    }

    /// The graph that it was made of.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What it rounds by.
    pub fn fake(&self) -> Option<&Fake> {
        self.fake.as_ref()
    }

    /// Number of its weights and biases: the front part of the parameters.
    pub fn weight_count(&self) -> usize {
        self.graph.parameters()
    }

    /// The graph with the numbers of the parameters.
    ///
    /// # Errors
    /// They are not finite.
    pub fn to_graph(&self) -> Result<Graph, crate::graph::Error> {
        let mut graph = Graph::new(self.graph.input_shape().clone())?;
        for (node, ids) in self.graph.nodes().iter().zip(&self.weights) {
            let mut op = node.op().clone();
            if let (Some((weight, bias)), Some((weight_id, bias_id))) = (op.weights_mut(), ids) {
                *weight = to_vec(&self.params[*weight_id]);
                *bias = to_vec(&self.params[*bias_id]);
            }
            graph.push(op, node.inputs())?;
        }
        Ok(graph)
    }

    /// The parameters of a node.
    pub(super) fn weights(&self, node: usize) -> Weights {
        self.weights.get(node).copied().flatten()
    }

    /// Logits `[N, classes]` of `x`, `[N, C, H, W]` with a height of 1 for a series: what the softmax reads.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        let last = self.graph.nodes().last().and_then(|node| node.inputs().first());
        let until = last.copied().unwrap_or(ValueId::INPUT);
        self.forward(x, Forward { see: &mut |_, _| (), until })
    }

    /// Probabilities `[N, classes]`, without gradients.
    pub fn probabilities(&self, x: &Tensor) -> Tensor {
        tch::no_grad(|| self.logits(x).softmax(1, Kind::Float))
    }

    /// The value `until`; on the way everything before it is seen.
    pub fn forward(&self, x: &Tensor, Forward { see, until }: Forward<'_>) -> Tensor {
        let fake = self.fake.as_ref().map(|fake| (fake, fake.affines(&self.params)));
        let place = |value: usize, x: Tensor| match &fake {
            Some((fake, affines)) => fake.activation(&self.params, affines, value, &x),
            None => x,
        };
        let mut all = Vec::with_capacity(until.index() + 1);
        let x = if self.graph.input_shape().spatial.is_empty() {
            x.reshape([-1, self.graph.input_shape().channels as i64])
        } else {
            x.shallow_clone()
        };
        all.push(place(0, x));
        see(0, &all[0]);
        for (index, node) in self.graph.nodes().iter().enumerate().take(until.index()) {
            let inputs: Vec<&Tensor> = node.inputs().iter().filter_map(|id| all.get(id.index())).collect();
            let weights = self.weights(index).map(|(weight, bias)| {
                let (weight, bias) = (&self.params[weight], &self.params[bias]);
                match &fake {
                    Some((fake, affines)) => fake.weights(&self.graph, affines, index, weight, bias),
                    None => (weight.shallow_clone(), bias.shallow_clone()),
                }
            });
            let value = place(index + 1, compute(node, &inputs, weights));
            see(index + 1, &value);
            all.push(value);
        }
        all.pop().unwrap_or_else(Tensor::new)
    }
}

/// Shapes of weight and bias on four axes for a convolution, on two for a linear layer.
pub(super) fn weight_shapes(node: &Node, weight: &[f32], bias: &[f32]) -> (Vec<i64>, Vec<i64>) {
    let out = bias.len();
    let shape = match node.op() {
        Op::Conv(conv) => {
            let [h, w] = two(&conv.window.kernel, 1);
            vec![out as i64, (weight.len() / out.max(1) / conv.window.taps().max(1)) as i64, h, w]
        }
        _ => vec![out as i64, (weight.len() / out.max(1)) as i64],
    };
    (shape, vec![out as i64])
}

/// One number for each of two axes; a series has `fill` along the first.
fn two(list: &[usize], fill: i64) -> [i64; 2] {
    match *list {
        [h, w] => [h as i64, w as i64],
        [w] => [fill, w as i64],
        _ => [fill, fill],
    }
}

/// One node. Nodes without weights get `None`.
pub(super) fn compute(node: &Node, inputs: &[&Tensor], weights: Option<(Tensor, Tensor)>) -> Tensor {
    let [x, ..] = inputs else { return Tensor::new() };
    match (node.op(), weights) {
        (Op::Conv(conv), Some((weight, bias))) => {
            let (x, padding) = padded(x, &conv.window);
            let y = x.conv2d(
                &weight,
                Some(&bias),
                two(&conv.window.stride, 1),
                padding,
                two(&conv.window.dilation, 1),
                i64::try_from(conv.groups).unwrap_or(1),
            );
            rectified(y, conv.relu)
        }
        (Op::Linear(linear), Some((weight, bias))) => {
            let flat = x.reshape([x.size()[0], -1]);
            rectified(flat.linear(&weight, Some(&bias)), linear.relu)
        }
        (Op::MaxPool(window), _) => {
            let (x, padding) = padded(x, window);
            x.max_pool2d(
                two(&window.kernel, 1),
                two(&window.stride, 1),
                padding,
                two(&window.dilation, 1),
                false,
            )
        }
        (Op::AvgPool { window, count_include_pad }, _) => {
            let (x, padding) = padded(x, window);
            x.avg_pool2d(
                two(&window.kernel, 1),
                two(&window.stride, 1),
                padding,
                false,
                *count_include_pad,
                None,
            )
        }
        (Op::Add { relu }, _) => match inputs {
            [a, b, ..] => rectified(*a + *b, *relu),
            _ => x.shallow_clone(),
        },
        (Op::Mul { relu }, _) => match inputs {
            [a, b, ..] => rectified(*a * gate_of(a, b), *relu),
            _ => x.shallow_clone(),
        },
        (Op::Concat, _) => Tensor::cat(inputs, 1),
        (Op::Relu, _) => x.relu(),
        (Op::Sigmoid, _) => x.sigmoid(),
        (Op::GlobalAvgPool, _) => x.mean_dim([2i64, 3].as_slice(), false, Kind::Float),
        (Op::Last, _) => x.select(3, -1).flatten(1, -1),
        (Op::Flatten, _) => x.flatten(1, -1),
        (Op::Softmax, _) => x.softmax(1, Kind::Float),
        (Op::Conv(_) | Op::Linear(_), None) => x.shallow_clone(),
    }
}

/// `x` and the padding that is left to a window over it. A window that is padded on one side more than on the other gets its
/// padding here, as zeros: what goes into pools is never negative, so that a maximum is the same.
fn padded(x: &Tensor, window: &Window) -> (Tensor, [i64; 2]) {
    let (before, after) = (two(&window.padding, 0), two(&window.padding_after, 0));
    if before == after {
        return (x.shallow_clone(), before);
    }
    (x.constant_pad_nd([before[1], after[1], before[0], after[0]]), [0, 0])
}

/// A gate with as many axes as what it gates: one value a channel stands for all positions.
fn gate_of(x: &Tensor, gate: &Tensor) -> Tensor {
    match (x.size().as_slice(), gate.size().as_slice()) {
        ([_, _, _, _], [n, c]) => gate.reshape([*n, *c, 1, 1]),
        _ => gate.shallow_clone(),
    }
}

fn rectified(x: Tensor, relu: bool) -> Tensor {
    if relu { x.relu() } else { x }
}

/// Samples, one after another, as the input of a [`Trainable`], on the device.
pub(super) fn input(shape: &Shape, samples: &[f32]) -> Tensor {
    let [h, w] = two(&shape.spatial, 1);
    let samples = Tensor::from_slice(samples).reshape([-1, shape.channels as i64, h, w]);
    device::put(&channels_last(&samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{
        self,
        tests::{distance, ort, random_graph, run, values},
    };
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::{LoadOptions, Runtime};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn it_computes_what_onnx_runtime_does_and_gives_its_graph_back(seed in any::<u64>()) {
            let Some(ort) = ort() else { return Ok(()) };
            let graph = random_graph(seed);
            let each = graph.input_shape().elements();
            let samples = values(&mut ChaCha8Rng::seed_from_u64(seed ^ 3), each * 3, 1.0);
            let model = ort.load(&onnx::write_f32(&graph).unwrap(), &LoadOptions::default()).unwrap();
            let expected = run(model.as_ref(), &samples, 3);
            let trainable = Trainable::new(&graph);
            let found = to_vec(&trainable.probabilities(&input(graph.input_shape(), &samples)));
            let off = distance(&found, &expected);
            prop_assert!(off < 1e-4, "off by {off}");
            prop_assert_eq!(trainable.to_graph().unwrap(), graph);
        }
    }
}
