//! Structured pruning: whole channels go, those first that the loss says are worth least for what they cost.
//!
//! A channel's worth is the first-order change of the loss without it, `(sum of gradient x weight)²`, over its weights in
//! all layers that give it, averaged over batches (Molchanov et al. 2019, "Importance Estimation for Neural Network
//! Pruning", equation 8).

use super::{channels::Channels, interpreter::Trainable};
use crate::{
    graph::{Error, Graph},
    network::latency,
    params::to_vec,
};
use shared::board::Board;
use std::collections::BTreeMap;
use tch::Tensor;

/// A layer keeps at least this share of its channels, in the steps in which they go.
const PARTS_KEPT_MIN: usize = 4;

/// The worth of every set of channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Worth(Vec<f64>);

/// Sums up the worth of channels batch by batch.
#[derive(Debug)]
pub struct Scorer<'n> {
    net: &'n Trainable,
    channels: Channels,
    worth: Vec<f64>,
}

impl<'n> Scorer<'n> {
    /// Of the channels of `net`, a network that rounds nothing.
    pub fn new(net: &'n Trainable) -> Self {
        let channels = Channels::of(net.graph());
        let worth = vec![0.0; channels.count()];
        Self { net, channels, worth }
    }

    /// Takes in one batch with this loss.
    pub fn add(&mut self, loss: &Tensor) {
        let flat = self.net.params.gradients(loss) * self.net.params.flat();
        let products = to_vec(&flat);
        let mut rest = products.as_slice();
        let mut change = vec![0f64; self.worth.len()];
        for (index, node) in self.net.graph().nodes().iter().enumerate() {
            let Some((weight, bias)) = node.op().weights() else { continue };
            let Some((weights, behind)) = rest.split_at_checked(weight.len()) else { return };
            let Some((biases, behind)) = behind.split_at_checked(bias.len()) else { return };
            rest = behind;
            let rows = weights.chunks_exact((weight.len() / bias.len().max(1)).max(1)).zip(biases);
            for ((row, bias), set) in rows.zip(self.channels.of_node(index)) {
                if let Some(change) = change.get_mut(*set) {
                    *change += row.iter().chain([bias]).map(|value| f64::from(*value)).sum::<f64>();
                }
            }
        }
        for (worth, change) in self.worth.iter_mut().zip(change) {
            *worth += change * change;
        }
    }

    /// What was found.
    pub fn finish(self) -> Worth {
        Worth(self.worth)
    }
}

/// The graph with at most `share` of its multiply-accumulates, as far as channels may go. `None` where none may.
///
/// Channels go in whole vectors of the board's processor where a layer has several, so that none is half empty.
///
/// # Errors
/// None that a graph of this crate gives rise to.
pub fn prune(graph: &Graph, worth: &Worth, share: f64, board: &Board) -> Result<Option<Graph>, Error> {
    let channels = Channels::of(graph);
    let mut keep = vec![true; channels.count()];
    let mut blocks = blocks(&channels, worth, board);
    let whole = graph.macs();
    let wanted = (whole as f64 * share) as u64;
    let mut macs = whole;
    while macs > wanted {
        let cheapest = blocks.iter().enumerate().filter_map(|(layer, blocks)| {
            let block = blocks.last()?;
            let mut without = keep.clone();
            block.sets.iter().for_each(|set| without[*set] = false);
            let saved = macs.saturating_sub(channels.macs(graph, &without)).max(1);
            Some((block.worth / saved as f64, layer))
        });
        let Some((_, layer)) = cheapest.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))) else { break };
        let Some(block) = blocks.get_mut(layer).and_then(Vec::pop) else { break };
        block.sets.iter().for_each(|set| keep[*set] = false);
        macs = channels.macs(graph, &keep);
    }
    if macs == whole { Ok(None) } else { channels.cut(graph, &keep).map(Some) }
}

/// Sets that go at once.
struct Block {
    sets: Vec<usize>,
    worth: f64,
}

/// For each layer, or layers whose channels are tied, what may go; the first to go last.
fn blocks(channels: &Channels, worth: &Worth, board: &Board) -> Vec<Vec<Block>> {
    let mut layers: BTreeMap<&[usize], Vec<(f64, usize)>> = BTreeMap::new();
    for set in (0..channels.count()).filter(|set| channels.may_go(*set)) {
        let of_set = worth.0.get(set).copied().unwrap_or(f64::MAX);
        layers.entry(channels.makers(set)).or_default().push((of_set, set));
    }
    let lanes = latency::lanes(board) as usize;
    let of_layer = |mut sets: Vec<(f64, usize)>| {
        sets.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let each = step(sets.len(), lanes);
        // What is left over a multiple goes first.
        let over = sets.len() % each;
        let may_go = sets.len().saturating_sub((sets.len() / PARTS_KEPT_MIN).max(each));
        let mut blocks = Vec::new();
        let mut from = 0;
        while from < may_go {
            let to = from + if from == 0 && over > 0 { over } else { each };
            let Some(part) = sets.get(from..to).filter(|_| to <= may_go) else { break };
            let worth = part.iter().map(|(worth, _)| worth).sum();
            blocks.push(Block { sets: part.iter().map(|(_, set)| *set).collect(), worth });
            from = to;
        }
        blocks.reverse();
        blocks
    };
    layers.into_values().map(of_layer).collect()
}

/// How many channels of a layer of `count` go at once: a vector, or less where that would be more than a quarter.
fn step(count: usize, lanes: usize) -> usize {
    let mut each = lanes.max(1);
    while each > 1 && each * PARTS_KEPT_MIN > count {
        each /= 2;
    }
    each
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::testing::{board, wide_graph},
        graph::Op,
        onnx::{self, tests::random_graph},
    };
    use runtime::{LoadOptions, Runtime, Tract};

    fn even(graph: &Graph) -> Worth {
        Worth(vec![1.0; Channels::of(graph).count()])
    }

    #[test]
    fn as_many_operations_go_as_are_asked_for_and_the_rest_is_a_network() {
        let board = board();
        let graph = wide_graph();
        for share in [0.75, 0.5, 0.3] {
            let cut = prune(&graph, &even(&graph), share, &board).unwrap().unwrap();
            let found = cut.macs() as f64 / graph.macs() as f64;
            assert!(found <= share && found > share - 0.2, "{found} for {share}");
            assert_eq!(cut.classes(), graph.classes());
            Tract.load(&onnx::write_f32(&cut).unwrap(), &LoadOptions::default()).unwrap();
            for node in cut.nodes() {
                if let Op::Conv(conv) = node.op() {
                    assert_eq!(conv.out_channels % 4, 0, "no vector of four is half empty");
                }
            }
        }
    }

    #[test]
    fn any_network_may_be_pruned_as_far_as_it_goes() {
        let mut pruned = 0;
        for seed in 0..24 {
            let graph = random_graph(seed);
            if let Some(cut) = prune(&graph, &even(&graph), 0.0, &board()).unwrap() {
                pruned += 1;
                assert!(cut.macs() < graph.macs());
                assert_eq!(cut.classes(), graph.classes());
            }
        }
        assert!(pruned > 12, "{pruned}");
    }

    #[test]
    fn the_channels_that_are_worth_least_go_first() {
        let graph = wide_graph();
        let channels = Channels::of(&graph);
        let first = channels.of_node(0).to_vec();
        let mut worth = even(&graph);
        worth.0[first[3]] = 1e-9;
        worth.0[first[5]] = 1e-9;
        worth.0[first[6]] = 1e-9;
        worth.0[first[9]] = 1e-9;
        let cut = prune(&graph, &worth, 0.999, &board()).unwrap().unwrap();
        let (Op::Conv(before), Op::Conv(after)) = (graph.nodes()[0].op(), cut.nodes()[0].op()) else {
            panic!("the first node is a convolution")
        };
        let gone: Vec<usize> =
            (0..before.out_channels).filter(|row| !after.bias.contains(&before.bias[*row])).collect();
        assert_eq!(gone, [3, 5, 6, 9]);
    }

    #[test]
    fn a_silent_channel_is_worth_nothing() {
        let mut graph = wide_graph();
        graph = super::super::correct::with_weights(&graph, |node, weight, bias| {
            // The depthwise convolution behind gives the same channel.
            if node <= 1 {
                let each = weight.len() / bias.len();
                weight[2 * each..3 * each].fill(0.0);
                bias[2] = 0.0;
            }
        })
        .unwrap();
        let net = Trainable::new(&graph);
        let mut scorer = Scorer::new(&net);
        let x = Tensor::from_slice(&(0..4 * 64).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>());
        let logits = net.logits(&x.reshape([4, 1, 8, 8]));
        scorer.add(&logits.cross_entropy_for_logits(&Tensor::from_slice(&[0i64, 1, 2, 0])));
        let worth = scorer.finish();
        let channels = Channels::of(&graph);
        let of_first: Vec<f64> = channels.of_node(0).iter().map(|set| worth.0[*set]).collect();
        assert_eq!(of_first[2], 0.0);
        assert!(of_first.iter().filter(|worth| **worth > 0.0).count() >= 8, "{of_first:?}");
    }
}
