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
                let value = match edges.as_slice() {
                    [(from, op)] => self.push_edge(&mut g, op, states[*from], true)?,
                    [(from_a, a), (from_b, b), ..] => {
                        let a = self.push_edge(&mut g, a, states[*from_a], false)?;
                        let b = self.push_edge(&mut g, b, states[*from_b], false)?;
                        g.push(Op::Add { relu: true }, &[a, b])?
                    }
                    [] => return Err(graph::Error::NotAClassifier("a node reads nothing".into())),
                };
                states.push(value);
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

    /// States are never negative, so pools and skips need no ReLU of their own.
    fn push_edge(
        &self,
        g: &mut Graph,
        op: &EdgeOp,
        from: ValueId,
        relu: bool,
    ) -> Result<ValueId, graph::Error> {
        let pool = self.axes(layers::window(self.skeleton.dim, POOL_TAPS), [1, 1]);
        match op {
            EdgeOp::Conv(unit) => self.push_unit(g, unit, from, relu),
            EdgeOp::SepConv { depthwise, pointwise } => {
                let channels = usize::try_from(self.params[*depthwise].size()[0]).unwrap_or(0);
                let conv = self.conv(
                    *depthwise,
                    [1, 1],
                    channels,
                    to_vec(&self.params[*depthwise]),
                    vec![0.0; channels],
                );
                let y = g.push(Op::Conv(conv), &[from])?;
                self.push_unit(g, pointwise, y, relu)
            }
            EdgeOp::MaxPool => g.push(Op::MaxPool(pool), &[from]),
            EdgeOp::AvgPool => g.push(Op::AvgPool { window: pool, count_include_pad: true }, &[from]),
            EdgeOp::Skip => Ok(from),
        }
    }

    fn push_unit(
        &self,
        g: &mut Graph,
        unit: &Unit,
        from: ValueId,
        relu: bool,
    ) -> Result<ValueId, graph::Error> {
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
        let mut conv = self.conv(unit.conv.weight, unit.conv.stride, 1, weight, bias);
        conv.relu = relu;
        g.push(Op::Conv(conv), &[from])
    }

    fn conv(&self, id: ParamId, stride: [i64; 2], groups: usize, weight: Vec<f32>, bias: Vec<f32>) -> Conv {
        let size = self.params[id].size();
        let window = self.axes([size[2], size[3]], stride);
        Conv { out_channels: bias.len(), window, groups, weight, bias, relu: false }
    }

    /// The axes that the graph has: a series has only the second.
    fn axes(&self, kernel: [i64; 2], stride: [i64; 2]) -> Window {
        let skip = usize::from(self.skeleton.dim == Dim::Series);
        let pick = |values: [i64; 2]| -> Vec<usize> {
            values[skip..].iter().map(|value| usize::try_from(*value).unwrap_or(0)).collect()
        };
        let kernel = pick(kernel);
        let (before, after) = match self.skeleton.reach() {
            Reach::Around => {
                (kernel.iter().map(|taps| taps / 2).collect(), kernel.iter().map(|taps| taps / 2).collect())
            }
            Reach::Before => (kernel.iter().map(|taps| taps - 1).collect(), vec![0; kernel.len()]),
        };
        let dilation = vec![1; kernel.len()];
        Window { kernel, stride: pick(stride), padding: before, padding_after: after, dilation }
    }
}

/// Taps of a pool along an axis.
const POOL_TAPS: i64 = 3;
