//! Adaptive rounding: for every weight, whether it is rounded up or down is learned so that the layer's answer to real
//! inputs changes least (Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", section 4).
//! Layer by layer in the order of the network; each sees the inputs that the rounded layers before it give, and is asked
//! for the outputs of the network that rounds nothing.

use super::{
    Error, Forward, Trainable,
    correct::with_weights,
    fake::Fake,
    interpreter::{compute, input, weight_shapes},
};
use crate::{
    device,
    graph::{Graph, Node, ValueId},
    optim::Adam,
    params::to_vec,
    quantise::Encoding,
    seeds::{self, Purpose},
};
use rand::RngExt;
use tch::{Kind, Tensor, no_grad};

/// Steps a layer.
const STEPS: u64 = 300;
/// Samples of one step.
const BATCH: usize = 32;
/// Rate of the variables.
const RATE: f64 = 0.03;
/// Stretch of the sigmoid, so that zero and one are reached (there: zeta and gamma).
const STRETCH: (f64, f64) = (1.1, -0.1);
/// Weight of the mean of the term that drives every variable to one side; the error of nearest rounding is the unit of the
/// other term, so that one weight fits layers of any size.
const SIDES_WEIGHT: f64 = 0.3;
/// Its exponent goes from the first to the second (there: beta).
const SHARPNESS: (f64, f64) = (20.0, 2.0);
/// Share of the steps in which that term rests.
const WARM_SHARE: f64 = 0.2;

/// A network whose layers are being rounded.
#[derive(Debug)]
pub struct Rounding {
    /// Rounds nothing.
    plain: Trainable,
    /// Its weights are integers times their scale in the layers that are done.
    graph: Graph,
    encoding: Encoding,
    fake: Fake,
    samples: Tensor,
    count: usize,
    next: usize,
    seed: u64,
}

impl Rounding {
    /// Of `graph` with these ranges, one a value, over calibration samples of its input shape, one after another.
    ///
    /// # Errors
    /// Ranges that do not fit the graph.
    pub fn new(
        graph: &Graph,
        ranges: &[(f32, f32)],
        reduce_range: bool,
        calibration: &[f32],
        seed: u64,
    ) -> Result<Self, Error> {
        let samples = input(graph.input_shape(), calibration);
        Ok(Self {
            plain: Trainable::new(graph),
            encoding: Encoding::from_ranges(graph, ranges, reduce_range)?,
            fake: Fake::new(graph, ranges, reduce_range)?.for_activations(),
            graph: graph.clone(),
            count: calibration.len() / graph.input_shape().elements().max(1),
            samples,
            next: 0,
            seed,
        })
    }

    /// Nodes that are done and nodes in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.next, self.graph.nodes().len())
    }

    /// The graph with the layers rounded so far; with [`Self::progress`] all that a checkpoint needs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, graph: Graph, next: usize) {
        (self.graph, self.next) = (graph, next);
    }

    /// The rounded graph and the encoding in which its weights are whole numbers.
    pub fn finish(self) -> (Graph, Encoding) {
        (self.graph, self.encoding)
    }

    /// Rounds the next node; one without rounded weights takes no time.
    ///
    /// # Errors
    /// A layer without finite answers.
    pub fn step(&mut self) -> Result<(), Error> {
        let at = self.next;
        self.next += 1;
        let Some(node) = self.graph.nodes().get(at).cloned() else { return Ok(()) };
        let (Some((weight, bias)), Some(scales)) = (node.op().weights(), self.encoding.weight(at)) else {
            return Ok(());
        };
        let (shape, _) = weight_shapes(&node, weight, bias);
        let layer = Layer {
            node: &node,
            weight: device::put(&Tensor::from_slice(weight).reshape(&shape)),
            bias: device::put(&Tensor::from_slice(bias)),
            scales: device::put(&Tensor::from_slice(&scales.scales).reshape(one_a_row(&shape))),
            most: f64::from(self.encoding.weight_max()),
            x: no_grad(|| self.seen_by(&node)),
            wanted: no_grad(|| self.wanted(at)),
        };
        let integers = layer.learn(self.count, seeds::derived(self.seed, u32::try_from(at).unwrap_or(0)));
        let rounded = to_vec(&(integers * &layer.scales));
        self.graph = with_weights(&self.graph, |index, weight, _| {
            if index == at {
                weight.clone_from(&rounded);
            }
        })?;
        Ok(())
    }

    /// What the node reads once everything before it is rounded.
    fn seen_by(&self, node: &Node) -> Tensor {
        let source = node.inputs().first().copied().unwrap_or(ValueId::INPUT);
        let net = Trainable::rounded(&self.graph, self.fake.clone());
        net.forward(&self.samples, Forward { see: &mut |_, _| (), until: source })
    }

    /// What the node gives where nothing is rounded.
    fn wanted(&self, at: usize) -> Tensor {
        self.plain.forward(&self.samples, Forward { see: &mut |_, _| (), until: ValueId::of_node(at) })
    }
}

/// One layer with its inputs and the outputs that are asked for.
struct Layer<'n> {
    node: &'n Node,
    weight: Tensor,
    bias: Tensor,
    scales: Tensor,
    most: f64,
    x: Tensor,
    wanted: Tensor,
}

impl Layer<'_> {
    /// The integers of the weights: the learned ones, or the nearest where those do no worse.
    fn learn(&self, count: usize, seed: u64) -> Tensor {
        let (down, nearest) = no_grad(|| {
            let parts = &self.weight / &self.scales;
            (parts.floor(), parts.round().clamp(-self.most, self.most))
        });
        // The share of a step that each weight is above its lower integer is where its variable begins.
        let start = no_grad(|| {
            let share = (&self.weight / &self.scales - &down).clamp(1e-4, 1.0 - 1e-4);
            let inside = (share - STRETCH.1) / (STRETCH.0 - STRETCH.1);
            (&inside / (1.0f64 - &inside)).log()
        });
        let flat = start.reshape([-1]);
        let unit = no_grad(|| self.error(&nearest, None).double_value(&[])).max(f64::MIN_POSITIVE);
        let mut adam = Adam::new(flat.numel(), (0.9, 0.999), 0.0);
        let mut values = flat.copy();
        let none = values.zeros_like();
        for step in 0..STEPS {
            let leaf = values.copy().set_requires_grad(true);
            let share = soft(&leaf.reshape(start.size()));
            let indices = self.batch(count, seed, step);
            let error = self.error(&(&down + &share).clamp(-self.most, self.most), Some(&indices)) / unit;
            let progress = (step as f64 / STEPS as f64 - WARM_SHARE) / (1.0 - WARM_SHARE);
            let loss = if progress < 0.0 {
                error
            } else {
                let sharp = SHARPNESS.1
                    + 0.5 * (SHARPNESS.0 - SHARPNESS.1) * (1.0 + (std::f64::consts::PI * progress).cos());
                let sides = 1.0f64 - (share * 2.0 - 1.0).abs().pow_tensor_scalar(sharp);
                error + sides.mean(Kind::Float) * SIDES_WEIGHT
            };
            let gradients = Tensor::run_backward(&[&loss], &[&leaf], false, false);
            if let [gradient] = gradients.as_slice() {
                adam.step(&mut values, gradient, &none, RATE);
            }
        }
        no_grad(|| {
            let up = soft(&values.reshape(start.size())).ge(0.5).to_kind(Kind::Float);
            let learned = (&down + up).clamp(-self.most, self.most);
            let error = |integers: &Tensor| self.error(integers, None).double_value(&[]);
            if error(&learned) < error(&nearest) { learned } else { nearest }
        })
    }

    fn batch(&self, count: usize, seed: u64, step: u64) -> Tensor {
        let mut rng = seeds::stream(seed, Purpose::Rounding, step);
        let most = count.max(1) as i64;
        let chosen: Vec<i64> = (0..BATCH.min(count.max(1))).map(|_| rng.random_range(0..most)).collect();
        device::put(&Tensor::from_slice(&chosen))
    }

    /// Mean squared error of the answers with these integers, over samples (`indices`, or all).
    fn error(&self, integers: &Tensor, indices: Option<&Tensor>) -> Tensor {
        let pick = |of: &Tensor| match indices {
            Some(indices) => of.index_select(0, indices),
            None => of.shallow_clone(),
        };
        let weight = integers * &self.scales;
        let found = compute(self.node, &[&pick(&self.x)], Some((weight, self.bias.shallow_clone())));
        (found - pick(&self.wanted)).square().mean(Kind::Float)
    }
}

/// Zero to one, with both ends reached.
fn soft(values: &Tensor) -> Tensor {
    (values.sigmoid() * (STRETCH.0 - STRETCH.1) + STRETCH.1).clamp(0.0, 1.0)
}

/// The shape of one number a row.
fn one_a_row(shape: &[i64]) -> Vec<i64> {
    shape.iter().enumerate().map(|(axis, size)| if axis == 0 { *size } else { 1 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::testing::{stripes, trained_graph},
        graph::{Linear, Op, Shape},
        onnx::{
            self,
            tests::{distance, ort, run, values},
        },
        quantise::{Calibrator, look},
    };
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use runtime::{LoadOptions, Runtime};

    /// Inputs that all grow together: rounding errors of one sign add up, and only the sum counts.
    #[test]
    fn a_layer_whose_inputs_go_together_is_rounded_better_than_to_the_nearest() {
        let rng = &mut ChaCha8Rng::seed_from_u64(4);
        let mut graph = Graph::new(Shape::vector(16)).unwrap();
        let wide = Linear { out_features: 8, weight: values(rng, 128, 1.0), bias: vec![0.1; 8], relu: false };
        let hidden = graph.push(Op::Linear(wide), &[ValueId::INPUT]).unwrap();
        let head = Linear { out_features: 2, weight: values(rng, 16, 1.0), bias: vec![0.0; 2], relu: false };
        let logits = graph.push(Op::Linear(head), &[hidden]).unwrap();
        graph.push(Op::Softmax, &[logits]).unwrap();
        let samples: Vec<f32> = (0..64)
            .flat_map(|_| {
                let size = values(rng, 1, 1.0)[0].abs();
                values(rng, 16, 0.05).into_iter().map(move |noise| size + noise).collect::<Vec<f32>>()
            })
            .collect();
        let ranges = vec![(-8.0, 8.0); 4];
        let mut rounding = Rounding::new(&graph, &ranges, true, &samples, 1).unwrap();
        let encoding = rounding.encoding.clone();
        while rounding.progress().0 < rounding.progress().1 {
            rounding.step().unwrap();
        }
        let (rounded, same) = rounding.finish();
        assert_eq!(same, encoding);
        let layer = |graph: &Graph| {
            let net = Trainable::new(graph);
            let until = ValueId::of_node(0);
            to_vec(
                &net.forward(&input(graph.input_shape(), &samples), Forward { see: &mut |_, _| (), until }),
            )
        };
        let nearest = with_weights(&graph, |index, weight, bias| {
            let each = weight.len() / bias.len();
            let scales = &encoding.weight(index).unwrap().scales;
            for (row, scale) in weight.chunks_exact_mut(each).zip(scales) {
                row.iter_mut()
                    .for_each(|value| *value = f32::from(encoding.weight_integer(*value, *scale)) * scale);
            }
        })
        .unwrap();
        let wanted = layer(&graph);
        let error =
            |graph: &Graph| -> f32 { layer(graph).iter().zip(&wanted).map(|(a, b)| (a - b) * (a - b)).sum() };
        let (learned, plain) = (error(&rounded), error(&nearest));
        assert!(learned < 0.5 * plain, "{learned} against {plain}");
        // Each weight lies on one of the two integers beside it.
        let (Op::Linear(before), Op::Linear(after)) = (graph.nodes()[0].op(), rounded.nodes()[0].op()) else {
            panic!("the first node is a linear layer")
        };
        for (row, scale) in encoding.weight(0).unwrap().scales.iter().enumerate() {
            for at in row * 16..(row + 1) * 16 {
                let off = (after.weight[at] - before.weight[at]).abs() / scale;
                let whole = after.weight[at] / scale;
                assert!(off <= 1.001 && (whole - whole.round()).abs() < 1e-3, "{off} {whole}");
            }
        }
    }

    #[test]
    fn a_rounded_network_is_written_as_it_was_learned_and_goes_on_from_between_two_layers() {
        let Some(ort) = ort() else { return };
        let graph = trained_graph();
        let split = stripes(48, 0.6, 1);
        let ranges = look(&graph, &split.samples, &ort).unwrap().ranges(Calibrator::MinMax);
        let start = || Rounding::new(&graph, &ranges, true, &split.samples, 1).unwrap();
        let mut rounding = start();
        let mut between = None;
        while rounding.progress().0 < rounding.progress().1 {
            rounding.step().unwrap();
            if rounding.progress().0 == 2 {
                between = Some((rounding.graph().clone(), 2));
            }
        }
        let mut resumed = start();
        let (half, next) = between.unwrap();
        resumed.restore(half, next);
        while resumed.progress().0 < resumed.progress().1 {
            resumed.step().unwrap();
        }
        let (rounded, encoding) = rounding.finish();
        assert_eq!(resumed.finish().0, rounded);
        let answers = |bytes: &[u8]| {
            run(ort.load(bytes, &LoadOptions::default()).unwrap().as_ref(), &split.samples, 48)
        };
        let wanted = answers(&onnx::write_f32(&graph).unwrap());
        let nearest = distance(&answers(&onnx::write_qdq(&graph, &encoding).unwrap()), &wanted);
        let learned = distance(&answers(&onnx::write_qdq(&rounded, &encoding).unwrap()), &wanted);
        assert!(learned < nearest + 0.02, "{learned} against {nearest}");
    }
}
