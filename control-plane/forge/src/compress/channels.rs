//! Which channels of a graph can only be removed together: a channel that a layer gives is the same one behind pools and
//! depthwise convolutions, and both sides of an addition must keep the same ones (Fang et al. 2023, "DepGraph: Towards Any
//! Structural Pruning", section 3).

use crate::graph::{Conv, Error, Graph, Linear, Node, Op, Shape};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    /// For each value (the input first) the set of each of its channels.
    of: Vec<Vec<usize>>,
    /// For each set whether it has to stay: the input's, and the classes.
    fixed: Vec<bool>,
    /// For each set the nodes with weights that give it, in the order of the graph.
    makers: Vec<Vec<usize>>,
}

impl Channels {
    /// The sets of a graph.
    pub(super) fn of(graph: &Graph) -> Self {
        let mut sets = Sets::default();
        let input = sets.fresh(graph.input_shape().channels);
        input.iter().for_each(|id| sets.fix(*id));
        let mut of = vec![input];
        let mut given: Vec<(usize, usize)> = Vec::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            let inputs: Vec<Vec<usize>> =
                node.inputs().iter().filter_map(|id| of.get(id.index()).cloned()).collect();
            let first = inputs.first().cloned().unwrap_or_default();
            let channels = match node.op() {
                Op::Conv(conv) if conv.groups == 1 => sets.fresh(conv.out_channels),
                Op::Conv(conv) if is_depthwise(conv, first.len()) => first,
                Op::Conv(conv) => {
                    // Which channels go together in wider groups depends on all of them: left as they are.
                    first.iter().for_each(|id| sets.fix(*id));
                    let fresh = sets.fresh(conv.out_channels);
                    fresh.iter().for_each(|id| sets.fix(*id));
                    fresh
                }
                Op::Linear(linear) => sets.fresh(linear.out_features),
                Op::Add { .. } => {
                    let second = inputs.get(1).cloned().unwrap_or_default();
                    first.iter().zip(&second).for_each(|(a, b)| sets.join(*a, *b));
                    first
                }
                Op::Mul { .. } => {
                    let second = inputs.get(1).cloned().unwrap_or_default();
                    if second.len() == first.len() {
                        first.iter().zip(&second).for_each(|(a, b)| sets.join(*a, *b));
                    } else {
                        // The one gate of all channels.
                        second.iter().for_each(|id| sets.fix(*id));
                    }
                    first
                }
                Op::Concat => inputs.concat(),
                Op::MaxPool(_)
                | Op::AvgPool { .. }
                | Op::Relu
                | Op::Sigmoid
                | Op::GlobalAvgPool
                | Op::Last => first,
                Op::Flatten => {
                    // A channel becomes many elements: those that give it stay.
                    first.iter().for_each(|id| sets.fix(*id));
                    let fresh = sets.fresh(node.output().channels);
                    fresh.iter().for_each(|id| sets.fix(*id));
                    fresh
                }
                Op::Softmax => {
                    first.iter().for_each(|id| sets.fix(*id));
                    first
                }
            };
            if node.op().weights().is_some() {
                given.extend(channels.iter().map(|id| (*id, index)));
            }
            of.push(channels);
        }
        let (numbers, count) = sets.numbers();
        let mut fixed = vec![false; count];
        for (id, number) in numbers.iter().enumerate() {
            fixed[*number] |= sets.fixed[id];
        }
        let mut makers = vec![Vec::new(); count];
        for (id, node) in given {
            let makers: &mut Vec<usize> = &mut makers[numbers[id]];
            if makers.last() != Some(&node) {
                makers.push(node);
            }
        }
        for channels in &mut of {
            channels.iter_mut().for_each(|id| *id = numbers[*id]);
        }
        Self { of, fixed, makers }
    }

    /// The number of sets.
    pub(super) fn count(&self) -> usize {
        self.fixed.len()
    }

    /// Whether a set may go.
    pub(super) fn may_go(&self, set: usize) -> bool {
        self.fixed.get(set) == Some(&false)
    }

    /// The nodes with weights that give the channels of a set.
    pub(super) fn makers(&self, set: usize) -> &[usize] {
        self.makers.get(set).map_or(&[], Vec::as_slice)
    }

    /// The set of each channel of the value that a node gives.
    pub(super) fn of_node(&self, node: usize) -> &[usize] {
        self.of_value(node + 1)
    }

    fn of_value(&self, value: usize) -> &[usize] {
        self.of.get(value).map_or(&[], Vec::as_slice)
    }

    /// Multiply-accumulates of the graph with only the sets that `keep` says.
    pub(super) fn macs(&self, graph: &Graph, keep: &[bool]) -> u64 {
        let kept = |value: usize| self.of_value(value).iter().filter(|set| keep[**set]).count() as u64;
        let of_node = |(index, node): (usize, &Node)| {
            let source = node.inputs().first().map_or(0, |id| id.index());
            let (out, spatial) = (kept(index + 1), node.output().spatial_elements() as u64);
            match node.op() {
                Op::Conv(conv) => {
                    let taps = conv.window.taps() as u64;
                    let each = if conv.groups == 1 { kept(source) } else { per_group(conv) as u64 };
                    out * each * taps * spatial
                }
                Op::Linear(_) => {
                    let elements = node.inputs().first().and_then(|id| graph.shape(*id));
                    out * kept(source) * elements.map_or(1, Shape::spatial_elements) as u64
                }
                _ => 0,
            }
        };
        graph.nodes().iter().enumerate().map(of_node).sum()
    }

    /// The graph with only the sets that `keep` says.
    ///
    /// # Errors
    /// A value would be left without channels.
    pub(super) fn cut(&self, graph: &Graph, keep: &[bool]) -> Result<Graph, Error> {
        let mut cut = Graph::new(graph.input_shape().clone())?;
        for (index, node) in graph.nodes().iter().enumerate() {
            let source = node.inputs().first().map_or(0, |id| id.index());
            let kept = |value: usize| -> Vec<bool> {
                self.of_value(value).iter().map(|set| keep.get(*set) == Some(&true)).collect()
            };
            let (rows, columns) = (kept(index + 1), kept(source));
            let op = match node.op() {
                Op::Conv(conv) => Op::Conv(cut_conv(conv, &rows, &columns)),
                Op::Linear(linear) => Op::Linear(cut_linear(linear, &rows, &columns)),
                other => other.clone(),
            };
            cut.push(op, node.inputs())?;
        }
        Ok(cut)
    }
}

fn is_depthwise(conv: &Conv, inputs: usize) -> bool {
    conv.groups == inputs && conv.groups == conv.out_channels
}

/// Input channels that one output channel reads.
fn per_group(conv: &Conv) -> usize {
    conv.weight.len() / conv.out_channels.max(1) / conv.window.taps().max(1)
}

fn cut_conv(conv: &Conv, rows: &[bool], columns: &[bool]) -> Conv {
    let depthwise = is_depthwise(conv, columns.len());
    let all = vec![true; per_group(conv)];
    let columns = if conv.groups == 1 { columns } else { &all };
    let weight = cut_rows(&conv.weight, rows, columns, conv.window.taps());
    let bias: Vec<f32> = kept(&conv.bias, rows).copied().collect();
    let groups = if depthwise { bias.len() } else { conv.groups };
    Conv { out_channels: bias.len(), groups, weight, bias, ..conv.clone() }
}

fn cut_linear(linear: &Linear, rows: &[bool], columns: &[bool]) -> Linear {
    let inputs = linear.weight.len() / linear.out_features.max(1);
    let each = inputs / columns.len().max(1);
    let weight = cut_rows(&linear.weight, rows, columns, each);
    let bias: Vec<f32> = kept(&linear.bias, rows).copied().collect();
    Linear { out_features: bias.len(), weight, bias, ..linear.clone() }
}

/// Of a matrix whose columns are blocks of `each` values, the rows and blocks that are kept.
fn cut_rows(values: &[f32], rows: &[bool], columns: &[bool], each: usize) -> Vec<f32> {
    let each = each.max(1);
    let matrix: Vec<&[f32]> = values.chunks(columns.len().max(1) * each).collect();
    kept(&matrix, rows)
        .flat_map(|row| {
            let blocks: Vec<&[f32]> = row.chunks(each).collect();
            kept(&blocks, columns).flat_map(|block| block.iter().copied()).collect::<Vec<f32>>()
        })
        .collect()
}

fn kept<'a, T>(items: &'a [T], keep: &'a [bool]) -> impl Iterator<Item = &'a T> {
    items.iter().zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| item)
}

/// Sets that are joined one by one.
#[derive(Default)]
struct Sets {
    /// For each channel one of the same set, itself at the end of the chain.
    same: Vec<usize>,
    fixed: Vec<bool>,
}

impl Sets {
    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let first = self.same.len();
        self.same.extend(first..first + count);
        self.fixed.resize(first + count, false);
        (first..first + count).collect()
    }

    fn fix(&mut self, id: usize) {
        self.fixed[id] = true;
    }

    fn root(&self, mut id: usize) -> usize {
        while self.same[id] != id {
            id = self.same[id];
        }
        id
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.same[a.max(b)] = a.min(b);
    }

    /// The number of the set of each channel, by the first channel of each; and how many there are.
    fn numbers(&self) -> (Vec<usize>, usize) {
        let mut number_of_root = vec![None; self.same.len()];
        let mut count = 0;
        let numbers = (0..self.same.len()).map(|id| {
            *number_of_root[self.root(id)].get_or_insert_with(|| {
                count += 1;
                count - 1
            })
        });
        let numbers = numbers.collect();
        (numbers, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{ValueId, Window},
        onnx::tests::{conv, distance, linear, random_graph, reference, values},
    };
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// `stem -> (a + depthwise b), concat with stem, -> head`.
    fn tied() -> Graph {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let mut graph = Graph::new(Shape::image(2, 6, 6)).unwrap();
        let same = || Window::same(2, 3, 1, 1, 1);
        let shape = graph.input_shape().clone();
        let stem = graph.push(conv(rng, &shape, 4, 1, same()), &[ValueId::INPUT]).unwrap();
        let wide = graph.shape(stem).unwrap().clone();
        let a = graph.push(conv(rng, &wide, 4, 1, same()), &[stem]).unwrap();
        let b = graph.push(conv(rng, &wide, 4, 4, same()), &[stem]).unwrap();
        let sum = graph.push(Op::Add { relu: true }, &[a, b]).unwrap();
        let point = graph.push(conv(rng, &wide, 3, 1, Window::same(2, 1, 1, 0, 1)), &[sum]).unwrap();
        let both = graph.push(Op::Concat, &[point, stem]).unwrap();
        let mean = graph.push(Op::GlobalAvgPool, &[both]).unwrap();
        let logits = graph.push(linear(rng, 7, 3, false), &[mean]).unwrap();
        graph.push(Op::Softmax, &[logits]).unwrap();
        graph
    }

    #[test]
    fn channels_are_tied_through_sums_and_depthwise_convolutions_and_free_behind_a_dense_one() {
        let graph = tied();
        let channels = Channels::of(&graph);
        let stem = channels.of_node(0);
        // Stem, dense branch, depthwise branch and sum are one; the pointwise convolution is free.
        assert_eq!(channels.of_node(1), stem);
        assert_eq!(channels.of_node(2), stem);
        assert_eq!(channels.makers(stem[0]), [0, 1, 2]);
        assert_eq!(channels.makers(channels.of_node(4)[0]), [4]);
        assert_eq!(channels.of_node(5), [channels.of_node(4), stem].concat());
        assert!(stem.iter().all(|set| channels.may_go(*set)));
        assert!(channels.of_node(7).iter().all(|set| !channels.may_go(*set)), "the classes stay");
    }

    #[test]
    fn a_channel_that_gives_nothing_can_be_cut_without_a_change_of_the_answer() {
        let mut graph = tied();
        let channels = Channels::of(&graph);
        // Silence the second channel of the tied set and the first of the pointwise convolution.
        let gone = [channels.of_node(0)[1], channels.of_node(4)[0]];
        let silent = |node: usize, row: usize| gone.contains(&channels.of_node(node)[row]);
        graph = super::super::correct::with_weights(&graph, |node, weight, bias| {
            let each = weight.len() / bias.len();
            for (row, values) in weight.chunks_exact_mut(each).enumerate() {
                if silent(node, row) {
                    values.fill(0.0);
                    bias[row] = 0.0;
                }
            }
        })
        .unwrap();
        let keep: Vec<bool> = (0..channels.count()).map(|set| !gone.contains(&set)).collect();
        let cut = channels.cut(&graph, &keep).unwrap();
        assert_eq!(cut.macs(), channels.macs(&graph, &keep));
        assert!(cut.macs() < graph.macs() && cut.parameters() < graph.parameters());
        let x = values(&mut ChaCha8Rng::seed_from_u64(2), 72, 1.0);
        let off = distance(&reference(&graph, &x), &reference(&cut, &x));
        assert!(off < 1e-6, "{off}");
    }

    #[test]
    fn nothing_is_cut_where_everything_is_kept() {
        for seed in 0..24 {
            let graph = random_graph(seed);
            let channels = Channels::of(&graph);
            let keep = vec![true; channels.count()];
            assert_eq!(channels.cut(&graph, &keep).unwrap(), graph);
            assert_eq!(channels.macs(&graph, &keep), graph.macs());
        }
    }
}
