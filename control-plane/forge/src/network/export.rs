//! From a trained network to the graph that is exported.

use super::{EdgeOp, Network, Unit};
use crate::{
    answer::Answer,
    genotype::Dim,
    graph::{self, Conv, Graph, Linear, Op, ValueId, Window},
    layers::{self, BN_EPSILON, Reach},
    params::{ParamId, to_vec},
};

impl Network {
    /// The inference graph, BatchNorm folded into the convolutions, softmax at the end.
    ///
    /// # Errors
    /// Weights that are not finite, or a network beyond the graph's limits.
    pub fn to_graph(&self) -> Result<Graph, graph::Error> {
        let mut g = Graph::new(self.skeleton.shape())?;
        let stem = self.push_unit(&mut g, &self.stem, ValueId::INPUT, true)?;
        let mut outputs = [stem, stem];
        for cell in &self.cells {
            let mut states = Vec::with_capacity(cell.nodes.len() + 2);
            for (side, adapter) in cell.adapters.iter().enumerate() {
                states.push(match adapter {
                    Some(unit) => self.push_unit(&mut g, unit, outputs[side], true)?,
                    // Read by nobody; the previous output stands in its place.
                    None => outputs[side],
                });
            }
            for edges in &cell.nodes {
                let mut sum = None;
                for (nth, (from, op)) in edges.iter().enumerate() {
                    let term = self.push_edge(&mut g, op, states[*from], edges.len() == 1)?;
                    sum = Some(match sum {
                        Some(sum) => g.push(Op::Add { relu: nth + 1 == edges.len() }, &[sum, term])?,
                        None => term,
                    });
                }
                let nothing = || graph::Error::NotAClassifier("a node reads nothing".into());
                states.push(sum.ok_or_else(nothing)?);
            }
            let nodes = &states[2..];
            let out = if nodes.len() == 1 { nodes[0] } else { g.push(Op::Concat, nodes)? };
            outputs = [outputs[1], out];
        }
        self.push_head(&mut g, outputs[1])?;
        Ok(g)
    }

    fn push_head(&self, g: &mut Graph, features: ValueId) -> Result<ValueId, graph::Error> {
        let whole = match self.skeleton.answer {
            Answer::Class | Answer::ClassAndSlots { .. } => Op::GlobalAvgPool,
            Answer::Next => Op::Last,
        };
        let whole = g.push(whole, &[features])?;
        let linear = Linear {
            out_features: self.architecture.classes,
            weight: to_vec(&self.params[self.head.weight]),
            bias: to_vec(&self.params[self.head.bias]),
            relu: false,
        };
        let logits = g.push(Op::Linear(linear), &[whole])?;
        let Some([weight, bias]) = self.head.slots else { return g.push(Op::Softmax, &[logits]) };
        // The same linear layer at every position is a convolution of one tap.
        let bias = to_vec(&self.params[bias]);
        let conv = Conv {
            out_channels: bias.len(),
            window: Window::same(1, 1, 1, 0, 1),
            groups: 1,
            weight: to_vec(&self.params[weight]),
            bias,
            relu: false,
        };
        let of_slots = g.push(Op::Conv(conv), &[features])?;
        let classes = g.push(Op::Softmax, &[logits])?;
        let slots = g.push(Op::Softmax, &[of_slots])?;
        let slots = g.push(Op::Flatten, &[slots])?;
        g.push(Op::Concat, &[classes, slots])
    }

    /// States are never negative, so pools, skips and gates of them need no ReLU of their own.
    fn push_edge(
        &self,
        g: &mut Graph,
        op: &EdgeOp,
        from: ValueId,
        relu: bool,
    ) -> Result<ValueId, graph::Error> {
        match op {
            EdgeOp::Conv { unit, dilation } => {
                g.push(Op::Conv(Conv { relu, ..self.folded(unit, *dilation) }), &[from])
            }
            EdgeOp::SepConv { depthwise, dilation, pointwise } => {
                let channels = usize::try_from(self.params[*depthwise].size()[0]).unwrap_or(0);
                let weight = to_vec(&self.params[*depthwise]);
                let mut conv = self.conv(*depthwise, [1, 1], *dilation, weight, vec![0.0; channels]);
                conv.groups = channels;
                let y = g.push(Op::Conv(conv), &[from])?;
                self.push_unit(g, pointwise, y, relu)
            }
            EdgeOp::Gated { unit, dilation } => {
                let [value, gate] = halves(self.folded(unit, *dilation));
                let value = g.push(Op::Conv(value), &[from])?;
                let gate = g.push(Op::Conv(gate), &[from])?;
                let gate = g.push(Op::Sigmoid, &[gate])?;
                g.push(Op::Mul { relu }, &[value, gate])
            }
            EdgeOp::SqueezeExcite(gate) => {
                let mean = g.push(Op::GlobalAvgPool, &[from])?;
                let squeezed = g.push(self.linear([gate.down, gate.down_bias], true), &[mean])?;
                let scores = g.push(self.linear([gate.up, gate.up_bias], false), &[squeezed])?;
                let gate = g.push(Op::Sigmoid, &[scores])?;
                g.push(Op::Mul { relu: false }, &[from, gate])
            }
            EdgeOp::Attention(gate) => {
                let [weight, bias] = [gate.weight, gate.bias].map(|id| to_vec(&self.params[id]));
                let scores = g.push(Op::Conv(self.conv(gate.weight, [1, 1], 1, weight, bias)), &[from])?;
                let gate = g.push(Op::Sigmoid, &[scores])?;
                g.push(Op::Mul { relu: false }, &[from, gate])
            }
            EdgeOp::MaxPool(taps) => g.push(Op::MaxPool(self.pool_window(*taps)), &[from]),
            EdgeOp::AvgPool(taps) => {
                let window = self.pool_window(*taps);
                g.push(Op::AvgPool { window, count_include_pad: true }, &[from])
            }
            EdgeOp::Skip => Ok(from),
        }
    }

    fn linear(&self, [weight, bias]: [ParamId; 2], relu: bool) -> Op {
        let [weight, bias] = [weight, bias].map(|id| to_vec(&self.params[id]));
        Op::Linear(Linear { out_features: bias.len(), weight, bias, relu })
    }

    fn push_unit(
        &self,
        g: &mut Graph,
        unit: &Unit,
        from: ValueId,
        relu: bool,
    ) -> Result<ValueId, graph::Error> {
        g.push(Op::Conv(Conv { relu, ..self.folded(unit, 1) }), &[from])
    }

    /// A unit as one convolution.
    fn folded(&self, unit: &Unit, dilation: i64) -> Conv {
        let p = &self.params;
        let (gamma, beta) = (to_vec(&p[unit.conv.gamma]), to_vec(&p[unit.conv.beta]));
        let (mean, variance) = (to_vec(&self.stats[unit.mean]), to_vec(&self.stats[unit.variance]));
        let mut weight = to_vec(&p[unit.conv.weight]);
        let per_channel = weight.len() / gamma.len().max(1);
        let mut bias = Vec::with_capacity(gamma.len());
        for (channel, weights) in weight.chunks_exact_mut(per_channel.max(1)).enumerate() {
            // In f64: the trained network and its export must agree to the last digits that softmax shows.
            let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + BN_EPSILON).sqrt();
            for value in weights {
                *value = (f64::from(*value) * scale) as f32;
            }
            bias.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        self.conv(unit.conv.weight, unit.conv.stride, dilation, weight, bias)
    }

    fn conv(&self, id: ParamId, stride: [i64; 2], dilation: i64, weight: Vec<f32>, bias: Vec<f32>) -> Conv {
        let size = self.params[id].size();
        let window = self.axes([size[2], size[3]], stride, dilation);
        Conv { out_channels: bias.len(), window, groups: 1, weight, bias, relu: false }
    }

    fn pool_window(&self, taps: i64) -> Window {
        self.axes(layers::window(self.skeleton.dim, taps), [1, 1], 1)
    }

    /// The axes that the graph has: a series has only the second.
    fn axes(&self, kernel: [i64; 2], stride: [i64; 2], dilation: i64) -> Window {
        let skip = usize::from(self.skeleton.dim == Dim::Series);
        let pick = |values: [i64; 2]| -> Vec<usize> {
            values[skip..].iter().map(|value| usize::try_from(*value).unwrap_or(0)).collect()
        };
        let kernel = pick(kernel);
        let dilation = usize::try_from(dilation).unwrap_or(1);
        let half: Vec<usize> = kernel.iter().map(|taps| taps / 2 * dilation).collect();
        let (padding, padding_after) = match self.skeleton.reach() {
            Reach::Around => (half.clone(), half),
            Reach::Before => {
                (kernel.iter().map(|taps| (taps - 1) * dilation).collect(), vec![0; kernel.len()])
            }
        };
        let dilation = vec![dilation; kernel.len()];
        Window { kernel, stride: pick(stride), padding, padding_after, dilation }
    }
}

/// The first and the second half of a convolution's output channels, each as one of its own.
fn halves(whole: Conv) -> [Conv; 2] {
    let channels = whole.out_channels / 2;
    let (weight, bias) = (whole.weight.len() / 2, whole.bias.len() / 2);
    let (weights, biases) = (whole.weight.split_at(weight), whole.bias.split_at(bias));
    [(weights.0, biases.0), (weights.1, biases.1)].map(|(weight, bias)| Conv {
        out_channels: channels,
        weight: weight.to_vec(),
        bias: bias.to_vec(),
        window: whole.window.clone(),
        groups: whole.groups,
        relu: whole.relu,
    })
}
