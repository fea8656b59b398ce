//! Low rank: a dense layer becomes two thinner ones, by the singular value decomposition of its weight matrix
//! (Denton et al. 2014, "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation"). The first
//! keeps the kernel and gives as many channels as the rank, the second is pointwise.

use crate::{
    graph::{Conv, Error, Graph, Linear, Op, ValueId, Window},
    params::to_vec,
};
use tch::{Kind, Tensor, no_grad};

/// A layer is split where that leaves at most this share of its weights: a node more costs time too.
const SHARE_MAX: f64 = 0.75;
/// Least rank, so that no layer becomes a needle's eye.
const RANK_MIN: usize = 2;
/// Largest side of a matrix that is decomposed.
const SIDE_MAX: usize = 8192;

/// The graph in which every dense layer of which the first singular values hold `energy` (the share of the sum of their
/// squares, 0 to 1) is split, where that really makes it smaller. `None` where no layer is.
///
/// # Errors
/// None that a graph of this crate gives rise to.
pub fn low_rank(graph: &Graph, energy: f64) -> Result<Option<Graph>, Error> {
    split(graph, energy, SHARE_MAX)
}

fn split(graph: &Graph, energy: f64, share_max: f64) -> Result<Option<Graph>, Error> {
    let mut thin = Graph::new(graph.input_shape().clone())?;
    // The classes are what is asked for, not what may be thinned.
    let last = graph.nodes().len().checked_sub(2);
    let mut names = vec![ValueId::INPUT];
    let mut changed = false;
    for (index, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<ValueId> =
            node.inputs().iter().filter_map(|id| names.get(id.index()).copied()).collect();
        let pair = match node.op() {
            Op::Conv(conv) if conv.groups == 1 => pair_of_conv(conv, energy, share_max),
            Op::Linear(linear) if Some(index) != last => pair_of_linear(linear, energy, share_max),
            _ => None,
        };
        names.push(match pair {
            Some([first, second]) => {
                changed = true;
                let between = thin.push(first, &inputs)?;
                thin.push(second, &[between])?
            }
            None => thin.push(node.op().clone(), &inputs)?,
        });
    }
    Ok(changed.then_some(thin))
}

fn pair_of_conv(conv: &Conv, energy: f64, share_max: f64) -> Option<[Op; 2]> {
    let Factors { rank, front, back } = factors(&conv.weight, conv.out_channels, energy, share_max)?;
    let axes = conv.window.kernel.len();
    let first = Conv {
        out_channels: rank,
        window: conv.window.clone(),
        groups: 1,
        weight: front,
        bias: vec![0.0; rank],
        relu: false,
    };
    let second = Conv { window: Window::same(axes, 1, 1, 0, 1), weight: back, ..conv.clone() };
    Some([Op::Conv(first), Op::Conv(second)])
}

fn pair_of_linear(linear: &Linear, energy: f64, share_max: f64) -> Option<[Op; 2]> {
    let Factors { rank, front, back } = factors(&linear.weight, linear.out_features, energy, share_max)?;
    let first = Linear { out_features: rank, weight: front, bias: vec![0.0; rank], relu: false };
    let second = Linear { weight: back, ..linear.clone() };
    Some([Op::Linear(first), Op::Linear(second)])
}

struct Factors {
    rank: usize,
    /// `[rank, inputs]`.
    front: Vec<f32>,
    /// `[outputs, rank]`.
    back: Vec<f32>,
}

/// Two factors of a matrix of `rows` rows; `None` where they would not be smaller.
fn factors(values: &[f32], rows: usize, energy: f64, share_max: f64) -> Option<Factors> {
    let columns = values.len() / rows.max(1);
    if columns == 0 || rows > SIDE_MAX || columns > SIDE_MAX {
        return None;
    }
    let (u, s, v) = no_grad(|| {
        let matrix = Tensor::from_slice(values).to_kind(Kind::Double).reshape([rows as i64, columns as i64]);
        matrix.svd(true, true)
    });
    let squares = to_vec(&s.square());
    let rank = rank(&squares, energy).max(RANK_MIN).min(squares.len());
    if (rank * (rows + columns)) as f64 > values.len() as f64 * share_max {
        return None;
    }
    // Both factors get the root of each singular value, so that both have like extents.
    no_grad(|| {
        let root = s.narrow(0, 0, rank as i64).sqrt();
        let front = (v.narrow(1, 0, rank as i64) * &root).transpose(0, 1);
        let back = u.narrow(1, 0, rank as i64) * &root;
        Some(Factors { rank, front: to_vec(&front), back: to_vec(&back) })
    })
}

/// How many of the squares, the largest first, hold this share of their sum.
fn rank(squares: &[f32], energy: f64) -> usize {
    let total: f64 = squares.iter().map(|square| f64::from(*square)).sum();
    let mut sum = 0.0;
    let before = squares.iter().take_while(|square| {
        let enough = sum >= total * energy;
        sum += f64::from(**square);
        !enough
    });
    before.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::testing::wide_graph,
        onnx::tests::{distance, random_graph, reference, values},
    };
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn with_all_of_the_energy_the_network_computes_the_same() {
        let mut changed = 0;
        for seed in 0..12 {
            let graph = random_graph(seed);
            // However large the factors are.
            let Some(thin) = split(&graph, 1.0, f64::INFINITY).unwrap() else { continue };
            changed += 1;
            assert!(thin.nodes().len() > graph.nodes().len());
            let x = values(&mut ChaCha8Rng::seed_from_u64(seed), graph.input_shape().elements(), 1.0);
            let off = distance(&reference(&graph, &x), &reference(&thin, &x));
            assert!(off < 1e-4, "seed {seed} is off by {off}");
        }
        assert!(changed > 8, "{changed}");
    }

    #[test]
    fn only_layers_that_really_get_smaller_are_split() {
        // Random matrices hold their energy in all of their values.
        assert_eq!(low_rank(&wide_graph(), 0.999).unwrap(), None);
        let flat = super::super::correct::with_weights(&wide_graph(), |node, weight, bias| {
            if node == 3 {
                // Each row a multiple of one.
                let each = weight.len() / bias.len();
                let first = weight[..each].to_vec();
                for (row, values) in weight.chunks_exact_mut(each).enumerate() {
                    values
                        .iter_mut()
                        .zip(&first)
                        .for_each(|(value, first)| *value = first * (row + 1) as f32);
                }
            }
        })
        .unwrap();
        let thin = low_rank(&flat, 0.999).unwrap().unwrap();
        assert_eq!(thin.nodes().len(), flat.nodes().len() + 1);
        assert!(thin.macs() < flat.macs() && thin.parameters() < flat.parameters());
        let x = values(&mut ChaCha8Rng::seed_from_u64(1), 64, 1.0);
        assert!(distance(&reference(&flat, &x), &reference(&thin, &x)) < 1e-4);
    }

    #[test]
    fn the_rank_is_the_least_that_holds_the_energy() {
        assert_eq!(rank(&[6.0, 3.0, 1.0], 0.6), 1);
        assert_eq!(rank(&[6.0, 3.0, 1.0], 0.61), 2);
        assert_eq!(rank(&[6.0, 3.0, 1.0], 0.95), 3);
        assert_eq!(rank(&[0.0, 0.0], 0.9), 0);
    }
}
